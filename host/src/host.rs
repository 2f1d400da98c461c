//! A whole host: wires the modules together, starts them and stops them in order.

use std::net::SocketAddr;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use tidegate_core::Name;
use tidegate_core::name::NameError;
use tracing::{info, warn};

use crate::actor::Actors;
use crate::application::Handler;
use crate::auth::{AdminKey, AuthError, ClientAddress, KeySource, Tokens};
use crate::config::Config;
use crate::engine::{Engine, Grants, LoadError};
use crate::gateway::{Gateway, Inside, Keys};
use crate::metrics::Metrics;
use crate::rooms::Connections;
use crate::router::{Conflict, Router};
use crate::store::{Memory, Store};

/// A running host.
pub struct Host {
    gateway: Gateway,
    actors: Arc<Actors>,
    shutdown_grace: Duration,
}

/// Why a host does not start.
#[derive(Debug, thiserror::Error)]
pub enum StartError {
    /// The engine does not start.
    #[error("the WebAssembly engine does not start: {0}")]
    Engine(String),
    /// A component's file cannot be read.
    #[error("cannot read the component `{name}` from {path}")]
    Read {
        /// The component.
        name: String,
        /// Its file.
        path: PathBuf,
        /// Why.
        source: std::io::Error,
    },
    /// A component is refused.
    #[error("the component `{name}` ({path}) is refused")]
    Load {
        /// The component.
        name: String,
        /// Its file.
        path: PathBuf,
        /// Why.
        source: LoadError,
    },
    /// A component's name is not one.
    #[error("the component `{name}` cannot be called so")]
    Name {
        /// The name.
        name: String,
        /// Why.
        source: NameError,
    },
    /// Two components want one actor type.
    #[error(transparent)]
    Conflict(#[from] Conflict),
    /// A key is not usable.
    #[error(transparent)]
    Auth(#[from] AuthError),
    /// The address is not to be had.
    #[error("cannot listen on {address}")]
    Listen {
        /// The address.
        address: SocketAddr,
        /// Why.
        source: std::io::Error,
    },
}

impl Host {
    /// Loads the handlers, then opens the doors.
    pub async fn start(config: Config, handlers: Vec<Handler>) -> Result<Host, StartError> {
        let metrics = Arc::new(Metrics::new());
        // What can be wrong with settings shows before components are compiled.
        let data_dir = config
            .data_dir
            .unwrap_or_else(|| PathBuf::from(".tidegate"));
        let (admin, source) = AdminKey::open(&config.admin, &data_dir)?;
        let keys = Keys {
            tokens: Tokens::open(&config.auth)?,
            allow_anonymous: config.auth.allow_anonymous,
            admin,
            admin_settings: config.admin,
            client_addresses: ClientAddress::new(&config.gateway.trusted_proxies)?,
        };
        match source {
            KeySource::Configured => {}
            KeySource::File(path) => info!(path = %path.display(), "the admin key is kept here"),
            KeySource::Made(path) => info!(path = %path.display(), "an admin key was made here"),
        }
        let engine = Engine::new(&config.engine, metrics.clone())
            .map_err(|error| StartError::Engine(format!("{error:#}")))?;
        let router = Arc::new(Router::new(metrics.clone()));
        for handler in handlers {
            load(&engine, &router, handler).await?;
        }
        let connections = Arc::new(Connections::default());
        let store: Arc<dyn Store> = Arc::new(Memory::new(config.actors.max_stored));
        let actors = Arc::new(Actors::new(
            config.actors,
            config.access,
            router,
            store,
            connections.clone(),
            &metrics,
        ));
        let address = config.gateway.listen;
        let shutdown_grace = Duration::from_millis(config.gateway.shutdown_grace_ms);
        let inside = Inside {
            actors: actors.clone(),
            connections,
            engine,
            limits: config.component,
            metrics,
        };
        let gateway = Gateway::open(config.gateway, inside, keys)
            .await
            .map_err(|source| StartError::Listen { address, source })?;
        Ok(Host {
            gateway,
            actors,
            shutdown_grace,
        })
    }

    /// Where it listens.
    pub fn address(&self) -> SocketAddr {
        self.gateway.address()
    }

    /// Stops: lets nobody in, finishes the turns, closes the sockets with 1001, sends the
    /// actors out of memory. Each step has the grace time; what is not finished then is
    /// cut off.
    pub async fn stop(mut self) {
        self.gateway.stop_accepting().await;
        let grace = self.shutdown_grace;
        step("finish the turns", grace, self.actors.finish_turns()).await;
        step("close the sockets", grace, self.gateway.close()).await;
        step("retire the actors", grace, self.actors.retire_all()).await;
    }
}

async fn step(what: &str, grace: Duration, work: impl Future<Output = ()>) {
    if tokio::time::timeout(grace, work).await.is_err() {
        warn!(what, ?grace, "the host stops without waiting any longer");
    }
}

async fn load(engine: &Engine, router: &Router, handler: Handler) -> Result<(), StartError> {
    let Handler {
        name,
        path,
        limits,
        environment,
        outbound,
    } = handler;
    let bytes = match tokio::fs::read(&path).await {
        Ok(bytes) => bytes,
        Err(source) => return Err(StartError::Read { name, path, source }),
    };
    let grants = Grants {
        limits,
        environment,
        outbound,
    };
    match engine.load(&name, bytes, grants).await {
        Ok(component) => {
            let component = Arc::new(component);
            let known = match Name::parse(&name) {
                Ok(known) => known,
                Err(source) => return Err(StartError::Name { name, source }),
            };
            router.install(known, component.clone())?;
            let actors: Vec<&str> = component
                .manifest
                .actors
                .keys()
                .map(|name| name.as_str())
                .collect();
            info!(
                component = name,
                digest = component.digest,
                ?actors,
                "loaded"
            );
            Ok(())
        }
        Err(source) => Err(StartError::Load { name, path, source }),
    }
}

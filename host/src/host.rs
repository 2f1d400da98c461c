//! A whole host: wires the modules together, starts them and stops them in order.

use std::net::SocketAddr;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use tracing::{info, warn};

use crate::actor::Actors;
use crate::application::Handler;
use crate::config::Config;
use crate::engine::{Engine, Grants, LoadError};
use crate::gateway::Gateway;
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
    /// Two components want one actor type.
    #[error(transparent)]
    Conflict(#[from] Conflict),
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
        let engine = Engine::new(&config.engine)
            .map_err(|error| StartError::Engine(format!("{error:#}")))?;
        let router = Arc::new(Router::default());
        for handler in handlers {
            load(&engine, &router, handler).await?;
        }
        let connections = Arc::new(Connections::default());
        let store: Arc<dyn Store> = Arc::new(Memory::new(config.actors.max_stored));
        let actors = Arc::new(Actors::new(
            config.actors,
            router,
            store,
            connections.clone(),
        ));
        let address = config.gateway.listen;
        let shutdown_grace = Duration::from_millis(config.gateway.shutdown_grace_ms);
        let gateway = Gateway::open(config.gateway, actors.clone(), connections)
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
    } = handler;
    let bytes = match tokio::fs::read(&path).await {
        Ok(bytes) => bytes,
        Err(source) => return Err(StartError::Read { name, path, source }),
    };
    let grants = Grants {
        limits,
        environment,
    };
    match engine.load(&name, bytes, grants).await {
        Ok(component) => {
            let component = Arc::new(component);
            router.add(&component)?;
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

//! A whole host: wires the modules together, starts them and stops them in order.

mod fresh;
mod loading;

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use tidegate_actor::ActorRecords;
use tidegate_actor::{Actors, Setup, new_incarnation, router};
use tidegate_auth::{AdminKey, AuthError, ClientAddress, KeySource, Tokens};
use tidegate_base::budget::Budgets;
use tidegate_base::disk::FolderDisk;
use tidegate_core::name::NameError;
use tidegate_delivery::connections::Connections;
use tidegate_engine::{Compiling, Engine, Grants, LoadError};
use tidegate_gateway::{Gateway, Keys, Services};
use tidegate_registry::router::Conflict;
use tidegate_registry::versions::{Kept, Versions, VersionsError};
use tidegate_store::{Disk, DiskError, Durable, Keyspace, Memory};
use tracing::{info, warn};

use self::fresh::Fresh;
use self::loading::Loading;
use crate::application::Handler;
use crate::config::Config;
use crate::metrics::Metrics;

/// A running host.
pub struct Host {
    gateway: Gateway,
    actors: Arc<Actors>,
    shutdown_grace: Duration,
    /// Time for a cancelled turn to end.
    cancel_grace: Duration,
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
        /// Why it cannot be read.
        source: std::io::Error,
    },
    /// A component is refused.
    #[error("the component `{name}` ({path}) is refused")]
    Load {
        /// The component.
        name: String,
        /// Its file.
        path: PathBuf,
        /// Why it is refused.
        source: Box<LoadError>,
    },
    /// A component's name is not one.
    #[error("the component `{name}` cannot be called so")]
    Name {
        /// The name.
        name: String,
        /// Why it is none.
        source: NameError,
    },
    /// Two components want one actor type.
    #[error(transparent)]
    Conflict(#[from] Conflict),
    /// The store cannot be opened.
    #[error(transparent)]
    Store(#[from] DiskError),
    /// What was deployed cannot be read.
    #[error(transparent)]
    Versions(#[from] VersionsError),
    /// A key is not usable.
    #[error(transparent)]
    Auth(#[from] AuthError),
    /// The address is not to be had.
    #[error("cannot listen on {address}")]
    Listen {
        /// The address.
        address: SocketAddr,
        /// Why nobody can listen there.
        source: std::io::Error,
    },
}

impl Host {
    /// Loads the handlers, then opens the doors.
    pub async fn start(
        config: Config,
        handlers: Vec<Handler>,
        compiling: Compiling,
    ) -> Result<Host, StartError> {
        let budgets = Budgets::new(&config.memory);
        let metrics = Metrics::new(budgets.clone());
        // What can be wrong with settings shows before components are compiled.
        let data_dir = config
            .data_dir
            .unwrap_or_else(|| PathBuf::from(".tidegate"));
        let kept_versions = config.admin.kept_versions;
        let mut fresh = Fresh::note(&data_dir);
        let (key, key_file) = (&config.admin.key, &config.admin.key_file);
        let (admin, source) = AdminKey::open(key.as_deref(), key_file.as_deref(), &data_dir)?;
        if let KeySource::Made(path) = &source {
            fresh.made_key(path);
        }
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
        let engine = Engine::new(&config.engine, compiling, metrics.engine.clone())
            .map_err(|error| StartError::Engine(format!("{error:#}")))?;
        let max_stored = config.actors.max_stored;
        let (store, kept): (Arc<dyn Keyspace<ActorRecords>>, _) = match config.store.memory {
            true => {
                let budget = budgets.actors.clone();
                (Arc::new(Memory::new(max_stored).within(budget)), None)
            }
            false => {
                let (folder, settings) = (data_dir.join("store"), config.store.clone());
                let open = move || Disk::open(&folder, &settings);
                let opened = tokio::task::spawn_blocking(open).await;
                let disk = opened.map_err(|error| StartError::Engine(error.to_string()))??;
                let store = Durable::on(disk, max_stored).within(budgets.actors.clone());
                let store: Arc<dyn Keyspace<ActorRecords>> = Arc::new(store);
                fresh.opened_store(data_dir.join("store"), store.clone());
                let kept = Arc::new(open_versions(&data_dir, kept_versions, &handlers)?);
                fresh.opened_versions(data_dir.join("components"), &kept);
                (store, Some(kept))
            }
        };
        {
            let store = store.clone();
            metrics.store.watch(move || store.figures());
        }
        let grants = Grants {
            limits: config.component,
            durability: config.store.durability,
            ..Grants::default()
        };
        let router = Arc::new(router(metrics.components.clone(), metrics.actors.clone()));
        let loading = Loading {
            engine: &engine,
            router: &router,
            kept: kept.as_ref(),
            grants: &grants,
        };
        loading.run(handlers).await?;
        engine.prune_cache().await;
        let connections = Arc::new(Connections::default());
        let cancel_grace = Duration::from_millis(config.actors.cancel_grace_ms);
        let incarnation = new_incarnation();
        let setup = Setup {
            settings: config.actors,
            access: config.access,
            run_ahead: config.store.run_ahead,
            incarnation: incarnation.clone(),
            ..Setup::alone(router, store, connections.clone())
        };
        let actors = Arc::new(Actors::new(setup, &metrics.actors));
        engine.add_keeper(actors.keeper());
        engine.be_polite();
        let address = config.gateway.listen;
        let shutdown_grace = Duration::from_millis(config.gateway.shutdown_grace_ms);
        let inside = Services {
            actors: actors.clone(),
            incarnation,
            connections,
            engine,
            grants,
            scratch: match kept {
                Some(_) => data_dir,
                None => std::env::temp_dir(),
            },
            kept,
            max_record_bytes: config.store.max_record_bytes,
            metrics: metrics.doors,
            sent: metrics.sent,
            stages: metrics.actors.stages.clone(),
            page: metrics.page,
            budgets,
        };
        let gateway = Gateway::open(config.gateway, inside, keys)
            .await
            .map_err(|source| StartError::Listen { address, source })?;
        fresh.keep();
        Ok(Host {
            gateway,
            actors,
            shutdown_grace,
            cancel_grace,
        })
    }

    /// Where it listens.
    pub fn address(&self) -> SocketAddr {
        self.gateway.address()
    }

    /// Stops: lets nobody in, finishes the turns, closes the sockets with 1001, sends the
    /// actors out of memory. Each step has the grace time; turns that run on after it are
    /// cancelled, and whatever else is not finished then is cut off.
    pub async fn stop(mut self) {
        self.gateway.stop_accepting();
        let grace = self.shutdown_grace;
        let turns = self.actors.finish_turns(grace);
        step("finish the turns", grace + self.cancel_grace + SLACK, turns).await;
        step("close the sockets", grace, self.gateway.close()).await;
        step("retire the actors", grace, self.actors.retire_all()).await;
        step("close the store", grace, self.actors.close_store()).await;
    }
}

fn open_versions(data_dir: &Path, limit: usize, handlers: &[Handler]) -> Result<Kept, StartError> {
    let files = handlers
        .iter()
        .map(|handler| Ok((loading::name_of(handler)?, handler.path.clone())));
    let manifest = files.collect::<Result<BTreeMap<_, _>, StartError>>()?;
    let folder = data_dir.join("components");
    let disk = FolderDisk::new(&folder).map_err(|error| VersionsError::Disk {
        doing: "make",
        path: folder,
        error,
    })?;
    Ok(Kept {
        versions: Box::new(Versions::open(disk, limit)?),
        manifest,
    })
}

/// Time beyond the graces until turns that were cancelled have ended.
const SLACK: Duration = Duration::from_secs(1);

async fn step(what: &str, grace: Duration, work: impl Future<Output = ()>) {
    if tokio::time::timeout(grace, work).await.is_err() {
        warn!(what, ?grace, "the host stops without waiting any longer");
    }
}

//! What a host serves when it starts: the components that the application manifest names,
//! and those that were deployed to it.
//!
//! Invariant: a component that was deployed and cannot be served any more does not keep the
//! host from starting; one that the manifest names does.

use std::sync::Arc;

use tidegate_actor::Router;
use tidegate_core::Name;
use tidegate_engine::{Component, Engine, Grants, LoadError};
use tidegate_registry::router::Conflict;
use tidegate_registry::versions::{Choice, Digest, History, Kept, Source, Version, VersionsError};
use tracing::{error, info, warn};

use super::StartError;
use crate::application::Handler;

/// Loads components and routes to them.
pub(super) struct Loading<'a> {
    pub(super) engine: &'a Engine,
    pub(super) router: &'a Router,
    /// None when nothing outlasts the process.
    pub(super) kept: Option<&'a Arc<Kept>>,
    /// What a component is granted that the manifest does not name.
    pub(super) grants: &'a Grants,
}

/// A handler of the manifest, with its file.
struct Named {
    name: Name,
    handler: Handler,
    bytes: Vec<u8>,
    digest: Digest,
}

/// What a file of the manifest must get through.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Probe {
    /// It is loaded and describes itself: it has served before, or nothing else can.
    Load,
    /// It tests itself as well: it would take over.
    SelfTest,
}

/// A deployed component that is loaded, but not routed to.
struct Deployed {
    name: Name,
    component: Component,
    version: Version,
    why: &'static str,
    /// What serves if this one cannot.
    named: Option<Named>,
}

/// Why a deployed component cannot be served.
#[derive(Debug, thiserror::Error)]
enum Unfit {
    #[error(transparent)]
    Kept(#[from] VersionsError),
    #[error("it is refused: {0}")]
    Load(LoadError),
    #[error(transparent)]
    Conflict(#[from] Conflict),
    #[error("the host failed")]
    Failed,
}

/// The name of a handler as components are named.
pub(super) fn name_of(handler: &Handler) -> Result<Name, StartError> {
    Name::parse(&handler.name).map_err(|source| StartError::Name {
        name: handler.name.clone(),
        source,
    })
}

impl Loading<'_> {
    pub(super) async fn run(&self, handlers: Vec<Handler>) -> Result<(), StartError> {
        let mut deployed = Vec::new();
        let mut others = match self.kept {
            Some(kept) => kept.versions.all()?,
            None => Vec::new(),
        };
        for handler in handlers {
            let named = Named::read(handler).await?;
            let known = others.iter().position(|(name, _)| *name == named.name);
            let history = known.map(|place| others.swap_remove(place).1);
            let choice = match &history {
                Some(history) => history.choice(Some(&named.digest)),
                None => Choice::Manifest("nothing else was deployed"),
            };
            match choice {
                Choice::Kept(version, why) => {
                    let name = named.name.clone();
                    let grants = grants_of(&named.handler);
                    match self.load_kept(&name, &version, grants).await {
                        Ok(component) => deployed.push(Deployed {
                            name,
                            component,
                            version,
                            why,
                            named: Some(named),
                        }),
                        Err(unfit) => self.instead(named, &version, &unfit).await?,
                    }
                }
                Choice::Manifest(why) | Choice::Nothing(why) => {
                    let is_current = |history: &&History| history.current().digest == named.digest;
                    match history.as_ref().filter(is_current) {
                        Some(_) => drop(self.serve(named, why, Probe::Load).await?),
                        None => {
                            let named = self.serve(named, why, Probe::SelfTest).await?;
                            self.keep(named).await;
                        }
                    }
                }
            }
        }
        for (name, history) in others {
            match history.choice(None) {
                Choice::Kept(version, why) => {
                    match self.load_kept(&name, &version, self.grants.clone()).await {
                        Ok(component) => deployed.push(Deployed {
                            name,
                            component,
                            version,
                            why,
                            named: None,
                        }),
                        Err(unfit) => not_served(&name, &version, &unfit),
                    }
                }
                Choice::Manifest(why) | Choice::Nothing(why) => {
                    info!(component = %name, why, "what is kept of a component is not served");
                }
            }
        }
        // Behind all that the manifest names, which goes first where both want an actor type.
        for deployed in deployed {
            self.route(deployed).await?;
        }
        Ok(())
    }

    async fn load_kept(
        &self,
        name: &Name,
        version: &Version,
        grants: Grants,
    ) -> Result<Component, Unfit> {
        let kept = self.kept.ok_or(Unfit::Failed)?.clone();
        let version = version.clone();
        let read = tokio::task::spawn_blocking(move || kept.versions.read(&version));
        let bytes = read.await.map_err(|_| Unfit::Failed)??;
        let loaded = self.engine.load(name.as_str(), bytes, grants).await;
        loaded.map_err(Unfit::Load)
    }

    async fn route(&self, deployed: Deployed) -> Result<(), StartError> {
        let Deployed {
            name,
            component,
            version,
            why,
            named,
        } = deployed;
        let component = Arc::new(component);
        match (self.router.install(name.clone(), component.clone()), named) {
            (Ok(_), _) => {
                let (version, actors) = (version.version, actors_of(&component));
                info!(
                    component = %name,
                    digest = component.digest,
                    version,
                    from = "a deployment",
                    why,
                    ?actors,
                    "loaded"
                );
                Ok(())
            }
            (Err(conflict), Some(named)) => self.instead(named, &version, &conflict.into()).await,
            (Err(conflict), None) => {
                not_served(&name, &version, &conflict.into());
                Ok(())
            }
        }
    }

    /// Serves what the manifest names in the place of what was deployed. What is kept stays
    /// as it is, so that it serves again once it can.
    async fn instead(
        &self,
        named: Named,
        version: &Version,
        unfit: &Unfit,
    ) -> Result<(), StartError> {
        not_served(&named.name, version, unfit);
        let why = "what was deployed cannot be served";
        self.serve(named, why, Probe::Load).await?;
        Ok(())
    }

    async fn serve(
        &self,
        named: Named,
        why: &'static str,
        probe: Probe,
    ) -> Result<Named, StartError> {
        let name = &named.name;
        let loaded = async {
            let (bytes, grants) = (named.bytes.clone(), grants_of(&named.handler));
            let component = self.engine.load(name.as_str(), bytes, grants).await?;
            if probe == Probe::SelfTest {
                component.self_test().await?;
            }
            Ok::<_, LoadError>(component)
        };
        let component = match loaded.await {
            Ok(component) => Arc::new(component),
            Err(source) => {
                return Err(StartError::Load {
                    name: named.handler.name,
                    path: named.handler.path,
                    source: Box::new(source),
                });
            }
        };
        self.router.install(name.clone(), component.clone())?;
        let actors = actors_of(&component);
        info!(
            component = %name,
            digest = component.digest,
            from = "the application manifest",
            why,
            ?actors,
            "loaded"
        );
        Ok(named)
    }

    /// Keeps what the manifest names, so that operators can go back to it.
    async fn keep(&self, named: Named) {
        let Some(kept) = self.kept.cloned() else {
            return;
        };
        let name = named.name.clone();
        let keep = move || {
            let Named {
                name,
                bytes,
                digest,
                ..
            } = named;
            let added = kept
                .versions
                .add(&name, &bytes, Source::Manifest, Some(digest));
            added.map(|(_, change)| kept.versions.settle(change))
        };
        let done = tokio::task::spawn_blocking(keep).await;
        if let Err(error) =
            done.unwrap_or_else(|panic| std::panic::resume_unwind(panic.into_panic()))
        {
            warn!(component = %name, %error, "a version is not kept: nobody can go back to it");
        }
    }
}

fn not_served(name: &Name, version: &Version, unfit: &Unfit) {
    let version = version.version;
    error!(component = %name, version, error = %unfit, "a deployed component is not served");
}

fn grants_of(handler: &Handler) -> Grants {
    Grants {
        limits: handler.limits.clone(),
        environment: handler.environment.clone(),
        outbound: handler.outbound.clone(),
        durability: handler.durability,
    }
}

fn actors_of(component: &Component) -> Vec<&str> {
    let actors = component.manifest.actors.keys();
    actors.map(Name::as_str).collect()
}

impl Named {
    async fn read(handler: Handler) -> Result<Named, StartError> {
        let name = name_of(&handler)?;
        match tokio::fs::read(&handler.path).await {
            Ok(bytes) => Ok(Named {
                digest: Digest::of(&bytes),
                name,
                handler,
                bytes,
            }),
            Err(source) => Err(StartError::Read {
                name: handler.name,
                path: handler.path,
                source,
            }),
        }
    }
}

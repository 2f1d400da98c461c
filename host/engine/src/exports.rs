//! Which of the contract's interfaces a component exports, and where they are in it and in an
//! instance of it.
//!
//! Beside `manifest` any combination of them loads. Invariant: a component that is loaded exports
//! all that its manifest declares, so that nobody is asked for what they do not have.

use tidegate_core::Manifest;
use tidegate_core::manifest::Access;
use wasmtime::Store;
use wasmtime::component::{Instance, InstancePre};

use super::bindings::exported::{access, actor, manifest, migrate, self_test};
use super::instance::GuestContext;
use super::load::{LoadError, PACKAGE, VERSION, interface_of};

/// Which interfaces a component exports beside `manifest`.
#[derive(Clone, Copy, Debug)]
pub(super) struct Exported {
    actor: bool,
    access: bool,
    migrate: bool,
    self_test: bool,
}

impl Exported {
    /// Those of a component that exports these names.
    ///
    /// # Errors
    ///
    /// One of them is of another version. Serving the component without asking it would show what
    /// its guard hides, or lose what it would migrate.
    pub(super) fn among(names: &[String]) -> Result<Exported, LoadError> {
        let has = |wanted: &str| {
            let found = names.iter().find_map(|name| match interface_of(name) {
                Some((interface, version)) if interface == wanted => Some((name, version)),
                _ => None,
            });
            match found {
                None => Ok(false),
                Some((_, VERSION)) => Ok(true),
                Some((name, _)) => Err(LoadError::OtherVersion {
                    found: name.clone(),
                }),
            }
        };
        Ok(Exported {
            actor: has("actor")?,
            access: has("access")?,
            migrate: has("migrate")?,
            self_test: has("self-test")?,
        })
    }

    /// Whether a component that exports these has what its manifest declares.
    pub(super) fn carry(self, manifest: &Manifest) -> Result<(), LoadError> {
        let missing = |export: &str, declares: String| {
            Err(LoadError::NotExported {
                declares,
                expected: format!("{PACKAGE}/{export}@{VERSION}"),
            })
        };
        for (actor, declared) in &manifest.actors {
            if !self.actor {
                return missing("actor", format!("declares the actor type `{actor}`"));
            }
            let is_guarded = declared.access.is_some_and(|it| it != Access::default());
            if is_guarded && !self.access {
                let declares = format!("gives the actor type `{actor}` functions of `access`");
                return missing("access", declares);
            }
        }
        Ok(())
    }
}

/// Where the interfaces are in a component.
pub(super) struct Indices {
    manifest: manifest::GuestIndices,
    actor: Option<actor::GuestIndices>,
    pub(super) access: Option<access::GuestIndices>,
    pub(super) migrate: Option<migrate::GuestIndices>,
    pub(super) self_test: Option<self_test::GuestIndices>,
}

impl Indices {
    pub(super) fn new(
        pre: &InstancePre<GuestContext>,
        exported: Exported,
    ) -> wasmtime::Result<Indices> {
        let Exported {
            actor,
            access,
            migrate,
            self_test,
        } = exported;
        Ok(Indices {
            manifest: manifest::GuestIndices::new(pre)?,
            actor: actor.then(|| actor::GuestIndices::new(pre)).transpose()?,
            access: access.then(|| access::GuestIndices::new(pre)).transpose()?,
            migrate: migrate
                .then(|| migrate::GuestIndices::new(pre))
                .transpose()?,
            self_test: self_test
                .then(|| self_test::GuestIndices::new(pre))
                .transpose()?,
        })
    }

    /// The functions of an instance.
    pub(super) fn load(
        &self,
        store: &mut Store<GuestContext>,
        instance: &Instance,
    ) -> wasmtime::Result<Guests> {
        Ok(Guests {
            manifest: self.manifest.load(&mut *store, instance)?,
            actor: match &self.actor {
                Some(actor) => Some(actor.load(&mut *store, instance)?),
                None => None,
            },
            access: match &self.access {
                Some(access) => Some(access.load(&mut *store, instance)?),
                None => None,
            },
            migrate: match &self.migrate {
                Some(migrate) => Some(migrate.load(&mut *store, instance)?),
                None => None,
            },
            self_test: match &self.self_test {
                Some(self_test) => Some(self_test.load(&mut *store, instance)?),
                None => None,
            },
        })
    }
}

/// What an instance exports, ready to be called.
pub(super) struct Guests {
    pub(super) manifest: manifest::Guest,
    pub(super) actor: Option<actor::Guest>,
    pub(super) access: Option<access::Guest>,
    pub(super) migrate: Option<migrate::Guest>,
    pub(super) self_test: Option<self_test::Guest>,
}

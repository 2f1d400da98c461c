//! From the bytes of a file to a component that can be instantiated, or to a sentence
//! that says what is wrong with them.

mod error;

use std::fmt;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Weak};
use std::time::{Duration, Instant};

use bytes::Bytes;
use sha2::{Digest, Sha256};
use tidegate_base::clock::{Sleeps, thread_time};
use tidegate_base::config::Durability;
use tidegate_base::fair::Share;
use tidegate_base::rate::RateLimit;
use tidegate_base::workers::Workers;
use tidegate_core::manifest::Access;
use tidegate_core::{Failure, Manifest};
use tokio::sync::Semaphore;
use tracing::warn;
use wasmtime::component;

pub use self::error::LoadError;
use super::access::Guards;
use super::budget::{Budget, GivesWay};
use super::cache::InUse;
use super::config::Limits;
use super::exports::{Exported, Indices};
use super::instance::GuestContext;
use super::metrics::Metrics;
use super::shape::Shape;
use super::ticker::Ticker;
use super::{AllowedHosts, Crash, Engine, Instance, outbound};

/// The package of the contract, as exports and imports spell it.
pub(super) const PACKAGE: &str = "tidegate:realtime";
/// The version of it that this host serves.
pub(super) const VERSION: &str = "0.1.0";
/// What a component must export.
const REQUIRED_EXPORT: &str = "manifest";
/// Names of a component that a message shows.
const SHOWN_NAMES: usize = 10;
/// What the host offers of its own package.
const OFFERED: [&str; 6] = ["types", "state", "outbox", "turns", "timers", "actors"];

/// A component that is loaded: compiled, linked and described.
pub struct Component {
    /// Tells it from every other component that this process has loaded, also from other
    /// versions of itself.
    pub serial: u64,
    /// SHA-256 of the file, in hexadecimal.
    pub digest: String,
    /// The file's length.
    pub bytes: usize,
    /// What it says of itself.
    pub manifest: Manifest,
    /// What it was loaded with.
    pub grants: Grants,
    /// The time that its turns have taken.
    pub share: Arc<Share>,
    /// Where the host does long work for it.
    pub(super) workers: Arc<Workers>,
    /// The time that such work has taken.
    pub(super) work_share: Arc<Share>,
    /// How many of its actors may come into memory.
    pub new_actors: RateLimit,
    pub(super) template: Template,
    pub(super) guards: Arc<Guards>,
    /// One for each state that is migrated at the same time.
    pub(super) migrations: Semaphore,
}

impl Component {
    /// The name it was loaded under, a label for people.
    pub fn name(&self) -> &str {
        &self.template.name
    }

    /// What its streams wait with.
    pub fn sleeps(&self) -> &Sleeps {
        &self.template.sleeps
    }

    /// What it may use.
    pub fn limits(&self) -> &Arc<Limits> {
        &self.template.limits
    }

    /// When a guard call that begins now, or the host's work for its answer, ends at the latest.
    pub fn guard_deadline(&self) -> Instant {
        Instant::now() + Duration::from_millis(self.limits().guard_deadline_ms)
    }

    /// Has work done for it on a thread for that. The time that it takes is the component's, who
    /// has the less of the threads that serve.
    pub async fn aside<T: Send + 'static>(
        &self,
        work: impl FnOnce() -> T + Send + 'static,
    ) -> Result<T, Failure> {
        let share = self.share.clone();
        let work = move || {
            let before = thread_time();
            let done = work();
            share.spend_elsewhere(thread_time().saturating_sub(before));
            done
        };
        let done = self.workers.run(&self.work_share, work).await;
        done.ok_or_else(Failure::host_failed)
    }

    /// Makes an instance.
    pub async fn instantiate(&self) -> Result<Instance, Crash> {
        self.template.instantiate().await
    }

    /// Which functions of `access` decide about an actor type.
    pub fn access(&self, actor: &str) -> Access {
        let Some(declared) = self.manifest.actors.get(actor) else {
            return Access::default();
        };
        match (&self.template.exports.access, declared.access) {
            (None, _) => Access::default(),
            (Some(_), Some(access)) => access,
            (Some(_), None) => Access {
                authorize: true,
                project: true,
            },
        }
    }
}

impl fmt::Debug for Component {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Component")
            .field("name", &self.name())
            .field("digest", &self.digest)
            .finish_non_exhaustive()
    }
}

/// What instances are made from.
pub(super) struct Template {
    pub(super) name: Arc<str>,
    pub(super) limits: Arc<Limits>,
    pub(super) environment: Vec<(String, String)>,
    pub(super) outbound: Arc<outbound::Policy>,
    pub(super) serial: u64,
    pub(super) pre: component::InstancePre<GuestContext>,
    /// Which of the contract's interfaces the component exports.
    pub(super) exports: Indices,
    /// What an instance is charged with beside its memories and tables, in bytes.
    pub(super) fixed_bytes: usize,
    /// Keeps its compiled code on disk.
    pub(super) _kept: Arc<InUse>,
    pub(super) ticker: Arc<Ticker>,
    pub(super) sleeps: Sleeps,
    pub(super) budget: Arc<Budget>,
    pub(super) metrics: Arc<Metrics>,
}

/// A component's file that has been looked at.
struct Read {
    /// What was compiled of it before.
    component: Option<component::Component>,
    context_bytes: usize,
    exported: Exported,
    digest: String,
    /// Its compiled file stays as long as it does.
    kept: Arc<InUse>,
}

/// A component that is compiled and linked.
struct Linked {
    digest: String,
    context_bytes: usize,
    /// Its file stays as long as it does.
    kept: Arc<InUse>,
    pre: component::InstancePre<GuestContext>,
    exports: Indices,
}

/// What a component is loaded with, beside its bytes.
#[derive(Clone, Debug, Default)]
pub struct Grants {
    /// What it may use.
    pub limits: Limits,
    /// Variables that it may read through `wasi:cli/environment`.
    pub environment: Vec<(String, String)>,
    /// Where it may send requests through `wasi:http/outgoing-handler`.
    pub outbound: AllowedHosts,
    /// How safe its actors' commits are.
    pub durability: Durability,
}

impl Engine {
    /// Checks, compiles (off the async threads) and describes a component.
    pub async fn load(
        &self,
        name: &str,
        bytes: impl Into<Bytes>,
        grants: Grants,
    ) -> Result<Component, LoadError> {
        self.load_then(name, bytes, grants, || {}).await
    }

    /// Does what [`Engine::load`] does, and says when the component is compiled.
    pub async fn load_then(
        &self,
        name: &str,
        bytes: impl Into<Bytes>,
        grants: Grants,
        compiled: impl FnOnce(),
    ) -> Result<Component, LoadError> {
        static NEXT_SERIAL: AtomicU64 = AtomicU64::new(1);
        let bytes = bytes.into();
        check_format(&bytes, self.settings.max_component_bytes)?;
        let length = bytes.len();
        let mut read = {
            let (engine, bytes) = (self.clone(), bytes.clone());
            blocking(move || engine.read(&bytes)).await?
        };
        let component = match read.component.take() {
            Some(component) => component,
            None => {
                let code = self.compiler.compile(&self.wasmtime, bytes).await?;
                let (engine, digest) = (self.clone(), read.digest.clone());
                let put = move || engine.cache.put(&engine.wasmtime, &digest, &code);
                blocking(put).await.map_err(|error| LoadError::Compiler {
                    detail: format!("{error:#}"),
                })?
            }
        };
        let (engine, exported) = (self.clone(), read.exported);
        let linked = blocking(move || engine.link(read, &component)).await?;
        compiled();
        let serial = NEXT_SERIAL.fetch_add(1, Ordering::Relaxed);
        let (name, limits) = (Arc::<str>::from(name), Arc::new(grants.limits.clone()));
        let policy = outbound::Policy::new(name.clone(), grants.outbound.clone(), limits.clone());
        let template = Template {
            outbound: Arc::new(policy),
            name,
            limits,
            environment: grants.environment.clone(),
            serial,
            pre: linked.pre,
            exports: linked.exports,
            fixed_bytes: linked
                .context_bytes
                .saturating_add(self.settings.stack_bytes),
            _kept: linked.kept,
            ticker: self.ticker.clone(),
            sleeps: self.sleeps.clone(),
            budget: self.budget.clone(),
            metrics: self.metrics.clone(),
        };
        let mut instance = template.instantiate().await.map_err(LoadError::Crashed)?;
        let manifest = instance.describe().await.map_err(LoadError::Crashed)?;
        let manifest = Manifest::parse(&manifest).map_err(LoadError::Manifest)?;
        exported.carry(&manifest)?;
        warn_of_deadlines(&template, &manifest);
        let guards = Arc::new(Guards::new(template.limits.guard_instances));
        let keeper: Weak<dyn GivesWay> = Arc::<Guards>::downgrade(&guards);
        self.budget.add_keeper(keeper);
        Ok(Component {
            serial,
            digest: linked.digest,
            bytes: length,
            share: Arc::default(),
            workers: self.workers.clone(),
            work_share: Arc::default(),
            new_actors: RateLimit::new(
                template.limits.new_actors_per_second,
                template.limits.new_actors_burst,
            ),
            manifest,
            guards,
            migrations: Semaphore::new(permits(template.limits.guard_instances)),
            template,
            grants,
        })
    }

    /// Looks at a component's file, and for what was compiled of it before.
    fn read(&self, bytes: &[u8]) -> Result<Read, LoadError> {
        let shape = Shape::read(bytes, &self.settings)?;
        let exported = check_interface(&shape)?;
        let digest = hex(&Sha256::digest(bytes));
        // Before it is looked for, so that it is not pruned in between.
        let kept = self.cache.hold(&digest);
        Ok(Read {
            component: self.cache.get(&self.wasmtime, &digest),
            context_bytes: shape.context_bytes,
            exported,
            digest,
            kept,
        })
    }

    fn link(&self, read: Read, component: &component::Component) -> Result<Linked, LoadError> {
        let Read {
            context_bytes,
            exported,
            digest,
            kept,
            ..
        } = read;
        let link = || {
            let pre = self.linker.instantiate_pre(component)?;
            let exports = Indices::new(&pre, exported)?;
            Ok(Linked {
                digest,
                context_bytes,
                kept,
                pre,
                exports,
            })
        };
        link().map_err(|error: wasmtime::Error| LoadError::Mismatch {
            detail: format!("{error:#}"),
        })
    }
}

/// Does what takes long or waits for the disk, beside the threads that serve.
async fn blocking<T: Send + 'static>(work: impl FnOnce() -> T + Send + 'static) -> T {
    tokio::task::spawn_blocking(work)
        .await
        .unwrap_or_else(|panic| std::panic::resume_unwind(panic.into_panic()))
}

/// Says where a component gets less time than it asks for.
fn warn_of_deadlines(template: &Template, manifest: &Manifest) {
    let limit_ms = template.limits.max_deadline_ms;
    for (actor, declared) in &manifest.actors {
        let mut methods = declared.methods.iter();
        let longer = methods.find(|(_, method)| method.deadline_ms.is_some_and(|ms| ms > limit_ms));
        if let Some((method, asked)) = longer {
            warn!(
                component = %template.name,
                %actor,
                %method,
                asked_ms = asked.deadline_ms,
                limit_ms,
                "a method's deadlineMs is longer than max-deadline-ms, which holds"
            );
        }
    }
}

/// Tells a component from everything else by its first eight bytes (the component model's
/// binary format: magic, version, layer).
fn check_format(bytes: &[u8], limit: u64) -> Result<(), LoadError> {
    if bytes.len() as u64 > limit {
        return Err(LoadError::TooLarge {
            bytes: bytes.len(),
            limit,
        });
    }
    if !bytes.starts_with(b"\0asm") {
        let found = match &bytes[..bytes.len().min(8)] {
            [] => "an empty file".to_owned(),
            head => format!("`{}`", head.escape_ascii()),
        };
        return Err(LoadError::NotWasm { found });
    }
    match bytes.get(4..8) {
        Some([_, _, 1, 0]) => Ok(()),
        Some([1, 0, 0, 0]) => Err(LoadError::CoreModule),
        Some(version) => Err(LoadError::Invalid {
            detail: format!("unknown binary version {version:?}"),
        }),
        None => Err(LoadError::Invalid {
            detail: "the file ends after its first bytes".to_owned(),
        }),
    }
}

/// Checks names of imports and exports, so that errors speak the contract's language.
fn check_interface(shape: &Shape) -> Result<Exported, LoadError> {
    for name in &shape.imports {
        match interface_of(name) {
            Some((interface, VERSION)) if OFFERED.contains(&interface) => {}
            Some((interface, _)) if OFFERED.contains(&interface) => {
                return Err(LoadError::OtherVersion {
                    found: name.clone(),
                });
            }
            None if name.starts_with("wasi:") && name.contains("@0.2.") => {}
            _ => {
                return Err(LoadError::UnknownImport { name: name.clone() });
            }
        }
    }
    let exports = &shape.exports;
    let expected = format!("{PACKAGE}/{REQUIRED_EXPORT}@{VERSION}");
    if !exports.contains(&expected) {
        let other = exports.iter().find(
            |name| matches!(interface_of(name), Some((interface, _)) if interface == REQUIRED_EXPORT),
        );
        return Err(match other {
            Some(found) => LoadError::OtherVersion {
                found: found.clone(),
            },
            None => LoadError::MissingExport {
                expected,
                found: listed(exports),
            },
        });
    }
    Exported::among(exports)
}

/// Names for a message, of which there may be very many.
fn listed(names: &[String]) -> String {
    let shown = &names[..names.len().min(SHOWN_NAMES)];
    match names.len() - shown.len() {
        _ if shown.is_empty() => "nothing".to_owned(),
        0 => format!("`{}`", shown.join("`, `")),
        more => format!("`{}` and {more} more", shown.join("`, `")),
    }
}

/// As many permits as a setting says, within what a semaphore can hold.
pub(super) fn permits(setting: usize) -> usize {
    setting.clamp(1, Semaphore::MAX_PERMITS)
}

/// `tidegate:realtime/actor@0.1.0` is interface `actor` in version `0.1.0`.
pub(super) fn interface_of(name: &str) -> Option<(&str, &str)> {
    let rest = name.strip_prefix(PACKAGE)?.strip_prefix('/')?;
    Some(rest.split_once('@').unwrap_or((rest, "")))
}

fn hex(bytes: &[u8]) -> String {
    use std::fmt::Write;
    bytes.iter().fold(String::new(), |mut text, byte| {
        let _ = write!(text, "{byte:02x}");
        text
    })
}

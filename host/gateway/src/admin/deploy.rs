//! Components that come, go and go back: uploads, removals, versions.
//!
//! Invariant: what serves next after an answer is safe on disk before the answer, and before
//! it serves; a change that is refused has changed neither.

use std::collections::HashSet;
use std::convert::Infallible;
use std::sync::Arc;
use std::time::Duration;

use axum::body::Body;
use axum::extract::rejection::QueryRejection;
use axum::extract::{Query, State};
use axum::response::Response;
use bytes::Bytes;
use futures_util::StreamExt;
use http::HeaderMap;
use http::header::CONTENT_LENGTH;
use serde::Deserialize;
use serde_json::{Value, json};
use tidegate_actor::InUse;
use tidegate_base::sync::{Mutex, MutexGuard};
use tidegate_core::failure::code;
use tidegate_core::{Failure, Name};
use tidegate_delivery::sse;
use tidegate_engine::{Component, LoadError};
use tidegate_registry::versions::{Change, Digest, History, Kept, Source, Version, VersionsError};
use tokio::sync::{OwnedSemaphorePermit, Semaphore, mpsc};
use tracing::{error, info, warn};

use super::{Admin, NamePath, answer, name_of, query_of};
use crate::Shared;
use crate::http::{self as answers, ErrorResponse, event_stream, wants_events};

/// Longest body of a request that is not an upload, in bytes.
const MAX_BODY: usize = 4 << 10;

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Forced {
    #[serde(default)]
    force: bool,
}

impl From<&Forced> for InUse {
    fn from(forced: &Forced) -> InUse {
        match forced.force {
            true => InUse::Evict,
            false => InUse::Refuse,
        }
    }
}

type ForcedQuery = Result<Query<Forced>, QueryRejection>;

/// The right to change what a name has; given back when it is dropped.
struct Claim {
    name: Name,
    busy: Arc<Mutex<HashSet<Name>>>,
}

impl Claim {
    fn take(admin: &Admin, name: Name) -> Result<Claim, Failure> {
        if !names(&admin.busy).insert(name.clone()) {
            return Err(Failure::component_busy(
                "another upload of this component is under way",
            ));
        }
        Ok(Claim {
            name,
            busy: admin.busy.clone(),
        })
    }
}

impl Drop for Claim {
    fn drop(&mut self) {
        names(&self.busy).remove(&self.name);
    }
}

fn names(busy: &Mutex<HashSet<Name>>) -> MutexGuard<'_, HashSet<Name>> {
    busy.lock()
}

/// The right to change what a name has, and to compile for that.
struct Upload {
    claim: Claim,
    _permit: OwnedSemaphorePermit,
    _large: Option<OwnedSemaphorePermit>,
}

impl Upload {
    /// Of an upload whose length is not known, a large one is to be expected.
    fn begin(admin: &Admin, name: Name, length: Option<u64>) -> Result<Upload, Failure> {
        let take = |places: &Arc<Semaphore>| {
            let place = places.clone().try_acquire_owned();
            place.map_err(|_| Failure::component_busy("too many uploads are under way"))
        };
        let is_small = length.is_some_and(|length| length <= admin.engine.small_component_bytes());
        Ok(Upload {
            _large: match is_small {
                true => None,
                false => Some(take(&admin.large_uploads)?),
            },
            _permit: take(&admin.uploads)?,
            claim: Claim::take(admin, name)?,
        })
    }
}

/// A component that is fit to serve: it is compiled, has described itself, and has passed its own
/// test.
struct Prepared {
    component: Component,
    next: Next,
}

/// What becomes of the catalog with a component that is about to serve.
enum Next {
    /// These bytes are a new version.
    New(Bytes),
    /// It is this version.
    Version(u64),
}

pub(super) async fn upload(
    State(shared): State<Arc<Shared>>,
    path: NamePath,
    query: ForcedQuery,
    headers: HeaderMap,
    body: Body,
) -> Result<Response, ErrorResponse> {
    let name = name_of(path)?;
    let in_use = InUse::from(&query_of(query)?);
    let announced = headers.get(CONTENT_LENGTH);
    let announced = announced.and_then(|length| length.to_str().ok()?.parse::<u64>().ok());
    let upload = Upload::begin(&shared.admin, name, announced)?;
    let limit = shared.admin.engine.max_component_bytes();
    if announced.is_some_and(|length| length > limit) {
        return Err(Failure::upload_too_large(limit).into());
    }
    let patience = Duration::from_millis(shared.admin.settings.upload_timeout_ms);
    let bytes = tokio::time::timeout(patience, read(body, limit))
        .await
        .map_err(|_| Failure::request_timeout("the upload"))??;
    let (progress, stages) = mpsc::channel(4);
    // From here on the upload goes on also when the client does not wait for it.
    let result = finished(take_in(shared, upload, bytes, in_use, progress));
    if !wants_events(&headers) {
        return Ok(answer(&result.await?));
    }
    let stages = futures_util::stream::unfold(stages, async |mut stages| {
        let stage: &str = stages.recv().await?;
        let progress = json!({"stage": stage}).to_string();
        Some((sse("progress", None, &progress), stages))
    });
    let last = futures_util::stream::once(async {
        match result.await {
            Ok(result) => sse("result", None, &result.to_string()),
            Err(failure) => sse("error", None, &failure.operators_body()),
        }
    });
    let events = stages.chain(last).boxed();
    Ok(event_stream(
        events.map(|event| Ok::<_, Infallible>(Bytes::from(event))),
    ))
}

/// Runs to its end also when nobody waits for it.
pub(super) fn finished<T: Send + 'static>(
    work: impl Future<Output = Result<T, Failure>> + Send + 'static,
) -> impl Future<Output = Result<T, Failure>> {
    let task = tokio::spawn(work);
    async { task.await.unwrap_or_else(|_| Err(Failure::host_failed())) }
}

async fn read(body: Body, limit: u64) -> Result<Bytes, Failure> {
    let limit = usize::try_from(limit).unwrap_or(usize::MAX);
    axum::body::to_bytes(body, limit).await.map_err(|error| {
        let is_too_large = std::error::Error::source(&error)
            .is_some_and(|source| source.is::<http_body_util::LengthLimitError>());
        match is_too_large {
            true => Failure::upload_too_large(limit as u64),
            false => Failure::request_malformed("the upload ended early"),
        }
    })
}

/// Loads an upload beside everything that runs, and lets it take its place.
async fn take_in(
    shared: Arc<Shared>,
    upload: Upload,
    bytes: Bytes,
    in_use: InUse,
    progress: mpsc::Sender<&'static str>,
) -> Result<Value, Failure> {
    let name = upload.claim.name.clone();
    let current = shared.actors.component(name.as_str());
    let digest = Digest::of(&bytes);
    if let Some(current) = current.filter(|current| current.digest == digest.as_str()) {
        let version = on_disk(&shared.admin, move |kept| confirm(kept, &name, &bytes)).await?;
        return Ok(outcome(&upload.claim.name, &current, None, version));
    }
    // A client that does not follow the progress is not waited for.
    let _ = progress.try_send("compiling");
    let compiled = {
        let progress = progress.clone();
        move || {
            let _ = progress.try_send("checking");
        }
    };
    let next = Next::New(bytes.clone());
    let prepared = prepare(&shared, &name, bytes, next, compiled).await?;
    let _ = progress.try_send("swapping");
    drop(progress);
    activate(&shared, &upload.claim, prepared, in_use).await
}

/// Compiles a component, has it describe itself, and test itself if it can. Nothing changes by
/// that for those whom another one serves.
async fn prepare(
    shared: &Shared,
    name: &Name,
    bytes: Bytes,
    next: Next,
    compiled: impl FnOnce() + Send + 'static,
) -> Result<Prepared, Failure> {
    let admin = &shared.admin;
    let grants = match shared.actors.component(name.as_str()) {
        Some(current) => current.grants.clone(),
        None => admin.grants.clone(),
    };
    let engine = &admin.engine;
    let load = async {
        let loaded = engine.load_then(name.as_str(), bytes, grants, compiled);
        let component = loaded.await?;
        component.self_test().await?;
        Ok::<_, LoadError>(component)
    };
    let load = async { load.await.map_err(|error| refusal(&error)) };
    let patience = Duration::from_millis(admin.settings.compile_timeout_ms);
    // Given up in time, it ends: nothing of it goes on.
    let loaded = tokio::time::timeout(patience, load).await;
    let loaded = loaded.unwrap_or_else(|_| {
        let message = "the upload took too long to compile or to describe itself";
        Err(Failure::component_timeout(message))
    });
    admin.engine.prune_cache().await;
    let component = loaded
        .inspect_err(|failure| warn!(component = %name, %failure, "a component is refused"))?;
    Ok(Prepared { component, next })
}

/// What its uploader is told of a component that is refused.
fn refusal(error: &LoadError) -> Failure {
    match error {
        LoadError::TooComplex { setting, limit, .. } => {
            Failure::component_too_complex(error, format!("engine.{setting}"), *limit)
        }
        LoadError::CompileMemory { .. } | LoadError::TooMuchCode { .. } => {
            Failure::component_too_large(error)
        }
        LoadError::CompileTimeout { .. } => Failure::component_timeout(error),
        LoadError::NoPlace => Failure::component_busy(error),
        LoadError::SelfTest(failed) => Failure::component_self_test(error, &failed.code),
        // It is not the component's fault.
        LoadError::Crashed(crash) if crash.failure.code == code::HOST_MEMORY => {
            crash.failure.clone()
        }
        LoadError::Compiler { .. } => Failure::internal(error),
        _ => Failure::component_invalid(error),
    }
}

/// Lets a component serve, once it is safe that it will after the next start.
async fn activate(
    shared: &Shared,
    claim: &Claim,
    prepared: Prepared,
    in_use: InUse,
) -> Result<Value, Failure> {
    let Prepared { component, next } = prepared;
    let name = claim.name.clone();
    let done = match &next {
        Next::New(_) => "deployed",
        Next::Version(_) => "rolled back",
    };
    let begun = on_disk(&shared.admin, move |kept| {
        let manifest = kept.manifest_digest(&name);
        let versions = &kept.versions;
        match next {
            Next::New(bytes) => {
                let (version, change) = versions.add(&name, &bytes, Source::Upload, manifest)?;
                Ok((version.version, change))
            }
            Next::Version(version) => Ok((version, versions.switch(&name, version, manifest)?)),
        }
    });
    let (version, change) = begun.await?.unzip();
    let name = &claim.name;
    let replaced = match shared.actors.install(name.clone(), component, in_use) {
        Ok(replaced) => replaced,
        Err(refused) => {
            undo(&shared.admin, change).await;
            return Err(refused);
        }
    };
    settle(&shared.admin, change).await;
    let component = shared.actors.component(name.as_str());
    let component = component.ok_or_else(Failure::component_unknown)?;
    let replaced = replaced.as_ref().map(|old| old.digest.as_str());
    info!(component = %name, version, digest = component.digest, replaced, "{done}");
    Ok(outcome(name, &component, Some(replaced), version))
}

/// `replaced` is none when nothing has changed.
fn outcome(
    name: &Name,
    component: &Component,
    replaced: Option<Option<&str>>,
    version: Option<u64>,
) -> Value {
    let actors = component.manifest.actors.keys();
    json!({
        "name": name.as_str(),
        "version": version,
        "digest": component.digest,
        "bytes": component.bytes,
        "actors": actors.map(Name::as_str).collect::<Vec<_>>(),
        "replaced": replaced.flatten(),
        "changed": replaced.is_some(),
    })
}

/// Does what waits for the disk; none where nothing is kept.
async fn on_disk<T: Send + 'static>(
    admin: &Admin,
    work: impl FnOnce(&Kept) -> Result<T, VersionsError> + Send + 'static,
) -> Result<Option<T>, Failure> {
    let Some(kept) = admin.kept.clone() else {
        return Ok(None);
    };
    match tokio::task::spawn_blocking(move || work(&kept)).await {
        Ok(Ok(done)) => Ok(Some(done)),
        Ok(Err(error)) => Err(not_kept(&error)),
        Err(_) => Err(Failure::host_failed()),
    }
}

fn not_kept(error: &VersionsError) -> Failure {
    let failure = match error {
        VersionsError::Unknown { .. } => return Failure::component_version_unknown(error),
        VersionsError::Damaged { .. } => Failure::component_damaged(error),
        _ => Failure::not_stored(error),
    };
    error!(%error, "components cannot be kept or read");
    failure
}

async fn settle(admin: &Admin, change: Option<Change>) {
    if let Some(change) = change {
        // It holds already; what is left is only tidying.
        let _ = on_disk(admin, move |kept| {
            kept.versions.settle(change);
            Ok(())
        })
        .await;
    }
}

async fn undo(admin: &Admin, change: Option<Change>) {
    if let Some(change) = change {
        let undone = on_disk(admin, move |kept| kept.versions.undo(change)).await;
        if let Err(failure) = undone {
            error!(%failure, "what was refused now may serve after the next start");
        }
    }
}

/// The version of what serves already; made anew where it is not kept as it should be.
fn confirm(kept: &Kept, name: &Name, bytes: &[u8]) -> Result<u64, VersionsError> {
    let versions = &kept.versions;
    let manifest = kept.manifest_digest(name);
    let digest = Digest::of(bytes);
    let history = versions.history(name)?;
    let current = history.as_ref().map(History::current);
    let current = current.filter(|current| current.digest == digest);
    let (version, change) = match current.filter(|current| versions.read(current).is_ok()) {
        Some(current) => {
            let version = current.version;
            (version, versions.switch(name, version, manifest)?)
        }
        None => {
            let (version, change) = versions.add(name, bytes, Source::Upload, manifest)?;
            (version.version, change)
        }
    };
    versions.settle(change);
    Ok(version)
}

pub(super) async fn remove(
    State(shared): State<Arc<Shared>>,
    path: NamePath,
    query: ForcedQuery,
) -> Result<Response, ErrorResponse> {
    let name = name_of(path)?;
    let in_use = InUse::from(&query_of(query)?);
    let claim = Claim::take(&shared.admin, name)?;
    Ok(answer(&finished(forget(shared, claim, in_use)).await?))
}

/// Takes a component away, and all that is kept of it.
async fn forget(shared: Arc<Shared>, claim: Claim, in_use: InUse) -> Result<Value, Failure> {
    let name = claim.name.clone();
    let forgotten = on_disk(&shared.admin, move |kept| {
        let kept = &kept.versions;
        let history = kept.history(&name)?;
        let digest = history.map(|history| history.current().digest.clone());
        Ok(digest.zip(kept.forget(&name)?))
    });
    let (kept_digest, change) = forgotten.await?.flatten().unzip();
    let name = &claim.name;
    let digest = match shared.actors.remove(name.as_str(), in_use) {
        Ok(removed) => removed.digest.clone(),
        // It is kept, and does not serve.
        Err(refused) => match kept_digest {
            Some(digest) if refused.code == code::COMPONENT_UNKNOWN => digest.into(),
            _ => {
                undo(&shared.admin, change).await;
                return Err(refused);
            }
        },
    };
    settle(&shared.admin, change).await;
    info!(component = %name, digest, "removed");
    Ok(json!({"name": name.as_str(), "digest": digest}))
}

fn kept(admin: &Admin) -> Result<&Arc<Kept>, Failure> {
    let keeps_nothing = || Failure::keeps_no_components();
    admin.kept.as_ref().ok_or_else(keeps_nothing)
}

fn listed(shared: &Shared, name: &Name, history: &History) -> Value {
    let serving = shared.actors.component(name.as_str());
    let serving = serving.and_then(|component| history.served(&component.digest));
    json!({
        "name": name.as_str(),
        "serving": serving.map(|version| version.version),
        "versions": history.versions(),
    })
}

pub(super) async fn versions(
    State(shared): State<Arc<Shared>>,
    path: NamePath,
) -> Result<Response, ErrorResponse> {
    let name = name_of(path)?;
    kept(&shared.admin)?;
    let history = {
        let name = name.clone();
        on_disk(&shared.admin, move |kept| kept.versions.history(&name)).await?
    };
    let history = history.flatten().ok_or_else(Failure::component_unknown)?;
    Ok(answer(&listed(&shared, &name, &history)))
}

pub(super) async fn all_versions(
    State(shared): State<Arc<Shared>>,
) -> Result<Response, ErrorResponse> {
    kept(&shared.admin)?;
    let all = on_disk(&shared.admin, |kept| kept.versions.all()).await?;
    let all = all.unwrap_or_default();
    let components: Vec<Value> = all
        .iter()
        .map(|(name, history)| listed(&shared, name, history))
        .collect();
    Ok(answer(&json!({"components": components})))
}

#[derive(Default, Deserialize)]
#[serde(deny_unknown_fields)]
struct Back {
    /// The one before, when absent.
    version: Option<u64>,
}

pub(super) async fn rollback(
    State(shared): State<Arc<Shared>>,
    path: NamePath,
    query: ForcedQuery,
    body: Body,
) -> Result<Response, ErrorResponse> {
    let name = name_of(path)?;
    let in_use = InUse::from(&query_of(query)?);
    kept(&shared.admin)?;
    let patience = Duration::from_millis(shared.admin.settings.upload_timeout_ms);
    let budget = &shared.budgets.inputs;
    let (body, _share) =
        tokio::time::timeout(patience, answers::read_input(body, MAX_BODY, budget))
            .await
            .map_err(|_| Failure::request_timeout("the body"))??;
    let Back { version } = match answers::json_of(body)? {
        None => Back::default(),
        Some(body) => serde_json::from_str(&body).map_err(Failure::request_malformed)?,
    };
    // What it goes back to has been compiled before, as a rule.
    let upload = Upload::begin(&shared.admin, name, Some(0))?;
    Ok(answer(
        &finished(go_back(shared, upload, version, in_use)).await?,
    ))
}

/// Lets another version serve.
async fn go_back(
    shared: Arc<Shared>,
    upload: Upload,
    version: Option<u64>,
    in_use: InUse,
) -> Result<Value, Failure> {
    let name = upload.claim.name.clone();
    let serving = shared.actors.component(name.as_str());
    let digest = serving.as_ref().map(|serving| serving.digest.clone());
    let read = {
        let name = name.clone();
        on_disk(&shared.admin, move |kept| {
            let history = kept.versions.history(&name)?;
            let target = history.map(|history| target(&history, digest.as_deref(), version));
            Ok(match target {
                None => Err(Failure::component_unknown()),
                Some(Err(no_version)) => Err(no_version),
                Some(Ok(version)) => Ok((version.clone(), kept.versions.read(&version)?)),
            })
        })
        .await?
    };
    let (version, bytes) = read.ok_or_else(Failure::component_unknown)??;
    let number = version.version;
    if let Some(serving) = serving.filter(|serving| serving.digest == version.digest.as_str()) {
        let change = on_disk(&shared.admin, move |kept| {
            let manifest = kept.manifest_digest(&name);
            kept.versions.switch(&name, number, manifest)
        });
        settle(&shared.admin, change.await?).await;
        return Ok(outcome(&upload.claim.name, &serving, None, Some(number)));
    }
    let (name, next) = (&upload.claim.name, Next::Version(number));
    let prepared = prepare(&shared, name, bytes.into(), next, || {}).await?;
    activate(&shared, &upload.claim, prepared, in_use).await
}

/// The version that is asked for; the one before that which serves, when none is.
fn target(
    history: &History,
    serving: Option<&str>,
    version: Option<u64>,
) -> Result<Version, Failure> {
    let unknown = |message| Err(Failure::component_version_unknown(message));
    let found = match version {
        Some(version) => match history.version(version) {
            Some(found) => found,
            None => return unknown(format!("there is no version {version}")),
        },
        None => {
            let served = serving.and_then(|digest| history.served(digest));
            let from = served.unwrap_or(history.current()).version;
            match history.before(from) {
                Some(found) => found,
                None => return unknown(format!("there is no version before {from}")),
            }
        }
    };
    Ok(found.clone())
}

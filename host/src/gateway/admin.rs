//! The doors for operators, under `/_tidegate/`: components, actors, metrics.
//!
//! | request | answer |
//! |---|---|
//! | `PUT /_tidegate/components/{name}` | takes in the component of the body |
//! | `GET /_tidegate/components` | all components |
//! | `GET /_tidegate/components/{name}` | one of them |
//! | `DELETE /_tidegate/components/{name}` | takes one away; `?force=true` also while it is used |
//! | `GET /_tidegate/actors` | a page of actors: `?actor=&prefix=&after=&limit=` |
//! | `GET /_tidegate/actors/{actor}/{id}` | one actor, with its state |
//! | `DELETE /_tidegate/actors/{actor}/{id}` | forgets its state |
//! | `GET /_tidegate/metrics` | what the host counts |
//!
//! Invariant: nothing here is answered without the admin key, not even that a path does
//! not exist. An upload that is refused has changed nothing.

use std::collections::{BTreeMap, HashSet};
use std::convert::Infallible;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use axum::Router;
use axum::body::Body;
use axum::extract::rejection::{PathRejection, QueryRejection};
use axum::extract::{Path, Query, Request, State};
use axum::middleware::{self, Next};
use axum::response::{IntoResponse, Response};
use axum::routing::{MethodRouter, any, get};
use bytes::Bytes;
use futures_util::StreamExt;
use http::header::{CACHE_CONTROL, CONTENT_LENGTH, CONTENT_TYPE};
use http::{HeaderMap, HeaderValue, StatusCode};
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};
use sha2::{Digest, Sha256};
use tidegate_core::failure::code;
use tidegate_core::{ActorId, ActorKey, Failure, Name};
use tokio::sync::{OwnedSemaphorePermit, Semaphore, mpsc};
use tracing::{info, warn};

use super::Doors;
use super::http::{self as answers, ErrorResponse, event_stream, failure, wants_events};
use crate::actor::InUse;
use crate::auth::AdminKey;
use crate::config;
use crate::engine::{Component, Engine, Grants};
use crate::fanout::sse;
use crate::metrics;
use crate::store::Listing;

/// Actors on a page when nobody says how many.
const DEFAULT_PAGE: usize = 100;

/// What operators' requests need.
pub(crate) struct Admin {
    key: AdminKey,
    settings: config::Admin,
    engine: Engine,
    /// What a component may use that is new to the host.
    limits: config::Limits,
    uploads: Arc<Semaphore>,
    /// Names that are being uploaded.
    busy: Arc<Mutex<HashSet<Name>>>,
}

impl Admin {
    pub(super) fn new(
        key: AdminKey,
        settings: config::Admin,
        engine: Engine,
        limits: config::Limits,
    ) -> Admin {
        Admin {
            uploads: Arc::new(Semaphore::new(
                settings.max_uploads.min(Semaphore::MAX_PERMITS),
            )),
            busy: Arc::default(),
            key,
            settings,
            engine,
            limits,
        }
    }
}

pub(super) fn routes(doors: Arc<Doors>) -> Router<Arc<Doors>> {
    Router::new()
        .route("/components", get(components))
        .route(
            "/components/{name}",
            get(component).put(upload).delete(remove),
        )
        .route("/actors", get(actors))
        .route("/actors/{actor}/{id}", get(actor).delete(destroy))
        .route("/metrics", get(metrics_page))
        .method_not_allowed_fallback(answers::method_not_allowed)
        .fallback(answers::not_found)
        .layer(middleware::from_fn_with_state(doors, check_key))
}

/// `/_tidegate/`, which `nest` leaves out.
pub(super) fn root(doors: Arc<Doors>) -> MethodRouter<Arc<Doors>> {
    any(answers::not_found).layer(middleware::from_fn_with_state(doors, check_key))
}

async fn check_key(State(doors): State<Arc<Doors>>, request: Request, next: Next) -> Response {
    if doors.admin.key.allows(request.headers()) {
        return next.run(request).await;
    }
    answers::discard(request.into_body()).await;
    let message = "send the admin key: `Authorization: Bearer …`";
    ErrorResponse(failure(code::ADMIN_UNAUTHORIZED, message)).into_response()
}

fn answer(body: &impl Serialize) -> Response {
    let body = serde_json::to_string(body).expect("answers consist of what JSON can hold");
    answers::json(StatusCode::OK, body)
}

type NamePath = Result<Path<String>, PathRejection>;

fn name_of(path: NamePath) -> Result<Name, Failure> {
    let Path(name) =
        path.map_err(|rejection| failure(code::REQUEST_MALFORMED, rejection.body_text()))?;
    Name::parse(&name).map_err(|error| failure(code::COMPONENT_INVALID_NAME, error.to_string()))
}

fn describe(
    name: &Name,
    component: &Component,
    counts: &BTreeMap<String, (usize, usize)>,
) -> Value {
    let types = component.manifest.actors.keys();
    let counted = |name: &Name| counts.get(name.as_str()).copied().unwrap_or_default();
    let (actors, instances) = types
        .clone()
        .map(counted)
        .fold((0, 0), |sum, count| (sum.0 + count.0, sum.1 + count.1));
    json!({
        "name": name.as_str(),
        "digest": component.digest,
        "bytes": component.bytes,
        "actors": types.map(Name::as_str).collect::<Vec<_>>(),
        "actorsInMemory": actors,
        "instances": instances,
        "manifest": component.manifest.source(),
    })
}

async fn components(State(doors): State<Arc<Doors>>) -> Response {
    let counts = doors.actors.counts();
    let all = doors.actors.components();
    let components: Vec<Value> = all
        .iter()
        .map(|(name, component)| describe(name, component, &counts))
        .collect();
    answer(&json!({"components": components}))
}

async fn component(
    State(doors): State<Arc<Doors>>,
    path: NamePath,
) -> Result<Response, ErrorResponse> {
    let name = name_of(path)?;
    let all = doors.actors.components();
    let found = all.iter().find(|(other, _)| *other == name);
    let (name, component) = found.ok_or_else(unknown_component)?;
    Ok(answer(&describe(name, component, &doors.actors.counts())))
}

fn unknown_component() -> Failure {
    failure(
        code::COMPONENT_UNKNOWN,
        "no component of this name is loaded",
    )
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Removal {
    #[serde(default)]
    force: bool,
}

impl From<&Removal> for InUse {
    fn from(removal: &Removal) -> InUse {
        match removal.force {
            true => InUse::Evict,
            false => InUse::Refuse,
        }
    }
}

fn query_of<T>(query: Result<Query<T>, QueryRejection>) -> Result<T, Failure> {
    let query =
        query.map_err(|rejection| failure(code::REQUEST_MALFORMED, rejection.body_text()))?;
    Ok(query.0)
}

async fn remove(
    State(doors): State<Arc<Doors>>,
    path: NamePath,
    query: Result<Query<Removal>, QueryRejection>,
) -> Result<Response, ErrorResponse> {
    let name = name_of(path)?;
    let in_use = InUse::from(&query_of(query)?);
    let removed = doors.actors.remove(name.as_str(), in_use)?;
    info!(component = %name, digest = removed.digest, "removed");
    Ok(answer(
        &json!({"name": name.as_str(), "digest": removed.digest}),
    ))
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct ListQuery {
    actor: Option<String>,
    #[serde(default)]
    prefix: String,
    /// `actor/id`, as the page before said.
    after: Option<String>,
    limit: Option<usize>,
}

fn key_of(actor: &str, id: &str) -> Result<ActorKey, Failure> {
    Ok(ActorKey {
        actor: Name::parse(actor).map_err(|_| Failure::unknown_actor(actor))?,
        id: ActorId::parse(id)
            .map_err(|error| failure(code::ACTOR_INVALID_ID, error.to_string()))?,
    })
}

async fn actors(
    State(doors): State<Arc<Doors>>,
    query: Result<Query<ListQuery>, QueryRejection>,
) -> Result<Response, ErrorResponse> {
    let ListQuery {
        actor,
        prefix,
        after,
        limit,
    } = query_of(query)?;
    let max = doors.admin.settings.max_page;
    let limit = limit.unwrap_or(DEFAULT_PAGE.min(max));
    if !(1..=max).contains(&limit) {
        let message = format!("limit: expected 1 to {max}, found {limit}");
        return Err(failure(code::REQUEST_MALFORMED, message).into());
    }
    let after = after.map(|after| match after.split_once('/') {
        Some((actor, id)) => key_of(actor, id),
        None => Err(failure(
            code::REQUEST_MALFORMED,
            "after: expected actor/id, as the page before gave it",
        )),
    });
    let page = doors
        .actors
        .list(&Listing {
            actor,
            prefix,
            after: after.transpose()?,
            limit,
        })
        .await?;
    let last = page.actors.last().filter(|_| page.more);
    let next = last.map(|last| format!("{}/{}", last.actor, last.id));
    Ok(answer(&json!({"actors": page.actors, "next": next})))
}

type ActorPath = Result<Path<(String, String)>, PathRejection>;

fn actor_of(path: ActorPath) -> Result<ActorKey, Failure> {
    let Path((actor, id)) =
        path.map_err(|rejection| failure(code::REQUEST_MALFORMED, rejection.body_text()))?;
    key_of(&actor, &id)
}

async fn actor(
    State(doors): State<Arc<Doors>>,
    path: ActorPath,
) -> Result<Response, ErrorResponse> {
    Ok(answer(&doors.actors.about(&actor_of(path)?).await?))
}

async fn destroy(
    State(doors): State<Arc<Doors>>,
    path: ActorPath,
) -> Result<Response, ErrorResponse> {
    doors.actors.destroy(&actor_of(path)?).await?;
    Ok(StatusCode::NO_CONTENT.into_response())
}

async fn metrics_page(State(doors): State<Arc<Doors>>) -> Response {
    for connection in doors.connections.all() {
        connection.count_traffic();
    }
    let mut response = Response::new(Body::from(doors.metrics.page()));
    let headers = response.headers_mut();
    headers.insert(
        CONTENT_TYPE,
        HeaderValue::from_static(metrics::CONTENT_TYPE),
    );
    headers.insert(CACHE_CONTROL, HeaderValue::from_static("no-store"));
    response
}

/// The right to upload under a name; given back when it is dropped.
struct Upload {
    name: Name,
    busy: Arc<Mutex<HashSet<Name>>>,
    _permit: OwnedSemaphorePermit,
}

impl Upload {
    fn begin(admin: &Admin, name: Name) -> Result<Upload, Failure> {
        let busy = |message| failure(code::COMPONENT_BUSY, message);
        let permit = admin
            .uploads
            .clone()
            .try_acquire_owned()
            .map_err(|_| busy("too many uploads are under way"))?;
        if !names(&admin.busy).insert(name.clone()) {
            return Err(busy("another upload of this component is under way"));
        }
        Ok(Upload {
            name,
            busy: admin.busy.clone(),
            _permit: permit,
        })
    }
}

impl Drop for Upload {
    fn drop(&mut self) {
        names(&self.busy).remove(&self.name);
    }
}

fn names(busy: &Mutex<HashSet<Name>>) -> MutexGuard<'_, HashSet<Name>> {
    busy.lock().unwrap_or_else(PoisonError::into_inner)
}

async fn upload(
    State(doors): State<Arc<Doors>>,
    path: NamePath,
    query: Result<Query<Removal>, QueryRejection>,
    headers: HeaderMap,
    body: Body,
) -> Result<Response, ErrorResponse> {
    let name = name_of(path)?;
    let in_use = InUse::from(&query_of(query)?);
    let upload = Upload::begin(&doors.admin, name)?;
    let limit = doors.admin.engine.max_component_bytes();
    let announced = headers.get(CONTENT_LENGTH);
    let announced = announced.and_then(|length| length.to_str().ok()?.parse::<u64>().ok());
    if announced.is_some_and(|length| length > limit) {
        answers::discard(body).await;
        return Err(too_large(limit).into());
    }
    let patience = Duration::from_millis(doors.admin.settings.upload_timeout_ms);
    let bytes = tokio::time::timeout(patience, read(body, limit))
        .await
        .map_err(|_| failure(code::REQUEST_TIMEOUT, "the upload did not arrive in time"))??;
    let (progress, stages) = mpsc::channel(4);
    // From here on the upload goes on also when the client does not wait for it.
    let task = tokio::spawn(take_in(doors, upload, bytes, in_use, progress));
    let result = async {
        task.await
            .unwrap_or_else(|_| Err(failure(code::INTERNAL, "the host failed")))
    };
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
            Err(failure) => sse("error", None, &failure.http_body()),
        }
    });
    let events = stages.chain(last).boxed();
    Ok(event_stream(
        events.map(|event| Ok::<_, Infallible>(Bytes::from(event))),
    ))
}

fn too_large(limit: u64) -> Failure {
    failure(
        code::COMPONENT_TOO_LARGE,
        format!("the upload is longer than engine.max-component-bytes, {limit} bytes"),
    )
    .param("limit", limit)
}

async fn read(body: Body, limit: u64) -> Result<Bytes, Failure> {
    let limit = usize::try_from(limit).unwrap_or(usize::MAX);
    axum::body::to_bytes(body, limit).await.map_err(|error| {
        let is_too_large = std::error::Error::source(&error)
            .is_some_and(|source| source.is::<http_body_util::LengthLimitError>());
        match is_too_large {
            true => too_large(limit as u64),
            false => failure(code::REQUEST_MALFORMED, "the upload ended early"),
        }
    })
}

/// Loads an upload beside everything that runs, and lets it take its place.
async fn take_in(
    doors: Arc<Doors>,
    upload: Upload,
    bytes: Bytes,
    in_use: InUse,
    progress: mpsc::Sender<&'static str>,
) -> Result<Value, Failure> {
    let name = upload.name.clone();
    let admin = &doors.admin;
    let current = doors.actors.component(name.as_str());
    let digest: String = Sha256::digest(&bytes)
        .iter()
        .map(|byte| format!("{byte:02x}"))
        .collect();
    if let Some(current) = current.as_ref().filter(|current| current.digest == digest) {
        return Ok(outcome(&name, current, None, false));
    }
    let grants = match &current {
        Some(current) => current.grants.clone(),
        None => Grants {
            limits: admin.limits.clone(),
            ..Grants::default()
        },
    };
    // A client that does not follow the progress is not waited for.
    let _ = progress.try_send("compiling");
    let load = {
        let (engine, name) = (admin.engine.clone(), name.clone());
        let progress = progress.clone();
        async move {
            let compiled = || {
                let _ = progress.try_send("checking");
            };
            let loaded = engine
                .load_then(name.as_str(), bytes.into(), grants, compiled)
                .await;
            // Also when nobody waits any longer: the machine is busy until here.
            drop(upload);
            loaded
        }
    };
    let patience = Duration::from_millis(admin.settings.compile_timeout_ms);
    let component = tokio::time::timeout(patience, tokio::spawn(load))
        .await
        .map_err(|_| {
            let message = "the upload took too long to compile or to describe itself";
            failure(code::COMPONENT_TIMEOUT, message)
        })?
        .map_err(|_| failure(code::INTERNAL, "the host failed"))?
        .map_err(|error| {
            warn!(component = %name, %error, "an upload is refused");
            failure(code::COMPONENT_INVALID, error.to_string())
        })?;
    let _ = progress.try_send("swapping");
    drop(progress);
    let replaced = doors.actors.install(name.clone(), component, in_use)?;
    let component = doors.actors.component(name.as_str());
    let component = component.ok_or_else(unknown_component)?;
    info!(
        component = %name,
        digest = component.digest,
        replaced = replaced.as_ref().map(|old| old.digest.as_str()),
        "deployed"
    );
    let replaced = replaced.as_ref().map(|old| old.digest.as_str());
    Ok(outcome(&name, &component, replaced, true))
}

fn outcome(name: &Name, component: &Component, replaced: Option<&str>, changed: bool) -> Value {
    let actors = component.manifest.actors.keys();
    json!({
        "name": name.as_str(),
        "digest": component.digest,
        "bytes": component.bytes,
        "actors": actors.map(Name::as_str).collect::<Vec<_>>(),
        "replaced": replaced,
        "changed": changed,
    })
}

//! The doors for operators, under `/_tidegate/`: components, actors, metrics.
//!
//! | request | answer |
//! |---|---|
//! | `PUT /_tidegate/components/{name}` | takes in the component of the body |
//! | `GET /_tidegate/components` | all components |
//! | `GET /_tidegate/components/{name}` | one of them |
//! | `DELETE /_tidegate/components/{name}` | takes one away; `?force=true` also while it is used |
//! | `GET /_tidegate/components/{name}/versions` | the versions of one that are kept |
//! | `POST /_tidegate/components/{name}/rollback` | lets another version of it serve |
//! | `GET /_tidegate/versions` | the versions of all components |
//! | `GET /_tidegate/actors` | a page of actors: `?actor=&prefix=&after=&limit=` |
//! | `GET /_tidegate/actors/{actor}/{id}` | one actor, with its state |
//! | `DELETE /_tidegate/actors/{actor}/{id}` | forgets its state |
//! | `GET`, `DELETE /_tidegate/actor?actor=&id=` | the same, of ids that no path can hold |
//! | `GET /_tidegate/export` | all actors, as lines of JSON |
//! | `POST /_tidegate/import` | takes in such lines; `?replace=true` in place of what is there |
//! | `GET /_tidegate/metrics` | what the host counts |
//! | `GET /_tidegate/ready` | as `/ready`, with why it is not |
//!
//! Invariant: nothing here is answered without the admin key, not even that a path does
//! not exist; here alone failures come with their details. An upload that is refused has
//! changed nothing.

mod backup;
mod deploy;

use std::collections::{BTreeMap, HashSet};
use std::path::PathBuf;
use std::sync::Arc;

use axum::Router;
use axum::body::Body;
use axum::extract::rejection::{PathRejection, QueryRejection};
use axum::extract::{Path, Query, Request, State};
use axum::middleware::{self, Next};
use axum::response::{IntoResponse, Response};
use axum::routing::{MethodRouter, any, get, post};
use http::header::{CACHE_CONTROL, CONTENT_LENGTH, CONTENT_TYPE};
use http::{HeaderValue, StatusCode};
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};
use tidegate_auth::AdminKey;
use tidegate_base::metrics;
use tidegate_base::sync::Mutex;
use tidegate_core::{ActorId, ActorKey, Failure, Name};
use tidegate_engine::{Component, Engine, Grants};
use tidegate_registry::versions::Kept;
use tidegate_store::Listing;
use tokio::sync::Semaphore;

use super::Shared;
use super::config;
use super::http::{self as answers, ErrorResponse, Refused};

/// Actors on a page when nobody says how many.
const DEFAULT_PAGE: usize = 100;

/// What operators' requests need.
pub(crate) struct Admin {
    key: AdminKey,
    settings: config::Admin,
    engine: Engine,
    /// What a component is granted that is new to the host.
    grants: Grants,
    /// Where components are kept; none when nothing outlasts the process.
    kept: Option<Arc<Kept>>,
    /// Where files are while they are checked.
    scratch: PathBuf,
    max_record_bytes: u64,
    uploads: Arc<Semaphore>,
    /// Those of them that large components may have.
    large_uploads: Arc<Semaphore>,
    imports: Arc<Semaphore>,
    /// Names whose component is being changed.
    busy: Arc<Mutex<HashSet<Name>>>,
}

impl Admin {
    pub(super) fn new(
        key: AdminKey,
        settings: config::Admin,
        engine: Engine,
        grants: Grants,
        kept: Option<Arc<Kept>>,
        scratch: PathBuf,
        max_record_bytes: usize,
    ) -> Admin {
        let permits = |count: usize| Semaphore::new(count.min(Semaphore::MAX_PERMITS));
        Admin {
            uploads: Arc::new(permits(settings.max_uploads)),
            large_uploads: Arc::new(permits(settings.max_uploads.div_ceil(2))),
            imports: Arc::new(Semaphore::new(1)),
            busy: Arc::default(),
            scratch,
            max_record_bytes: max_record_bytes as u64,
            key,
            settings,
            engine,
            grants,
            kept,
        }
    }
}

pub(super) fn routes(shared: Arc<Shared>) -> Router<Arc<Shared>> {
    Router::new()
        .route("/components", get(components))
        .route(
            "/components/{name}",
            get(component).put(deploy::upload).delete(deploy::remove),
        )
        .route("/components/{name}/versions", get(deploy::versions))
        .route("/components/{name}/rollback", post(deploy::rollback))
        .route("/versions", get(deploy::all_versions))
        .route("/actors", get(actors))
        .route("/actors/{actor}/{id}", get(actor).delete(destroy))
        .route("/actor", get(actor_by_query).delete(destroy_by_query))
        .route("/export", get(backup::export))
        .route("/import", post(backup::import))
        .route("/metrics", get(metrics_page))
        .route("/ready", get(answers::ready))
        .method_not_allowed_fallback(answers::method_not_allowed)
        .fallback(answers::not_found)
        .layer(middleware::from_fn_with_state(shared, check_key))
}

/// `/_tidegate/`, which `nest` leaves out.
pub(super) fn root(shared: Arc<Shared>) -> MethodRouter<Arc<Shared>> {
    any(answers::not_found).layer(middleware::from_fn_with_state(shared, check_key))
}

async fn check_key(State(shared): State<Arc<Shared>>, request: Request, next: Next) -> Response {
    if shared.admin.key.allows(request.headers()) {
        return with_details(next.run(request).await);
    }
    let message = "send the admin key: `Authorization: Bearer …`";
    ErrorResponse(Failure::admin_unauthorized(message)).into_response()
}

/// What clients are not told of a failure, operators are.
fn with_details(mut response: Response) -> Response {
    let refused = response.extensions().get::<Refused>();
    if let Some(Refused(failure)) = refused
        && failure.detail.is_some()
    {
        let body = failure.operators_body();
        response.headers_mut().remove(CONTENT_LENGTH);
        *response.body_mut() = Body::from(body);
    }
    response
}

fn answer(body: &impl Serialize) -> Response {
    let body = serde_json::to_string(body).expect("answers consist of what JSON can hold");
    answers::json(StatusCode::OK, body)
}

type NamePath = Result<Path<String>, PathRejection>;

fn name_of(path: NamePath) -> Result<Name, Failure> {
    let Path(name) = path.map_err(|rejection| Failure::request_malformed(rejection.body_text()))?;
    Name::parse(&name).map_err(Failure::component_invalid_name)
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

async fn components(State(shared): State<Arc<Shared>>) -> Response {
    let counts = shared.actors.counts().await;
    let all = shared.actors.components();
    let components: Vec<Value> = all
        .iter()
        .map(|(name, component)| describe(name, component, &counts))
        .collect();
    answer(&json!({"components": components}))
}

async fn component(
    State(shared): State<Arc<Shared>>,
    path: NamePath,
) -> Result<Response, ErrorResponse> {
    let name = name_of(path)?;
    let all = shared.actors.components();
    let found = all.iter().find(|(other, _)| *other == name);
    let (name, component) = found.ok_or_else(Failure::component_unknown)?;
    Ok(answer(&describe(
        name,
        component,
        &shared.actors.counts().await,
    )))
}

fn query_of<T>(query: Result<Query<T>, QueryRejection>) -> Result<T, Failure> {
    let query = query.map_err(|rejection| Failure::request_malformed(rejection.body_text()))?;
    Ok(query.0)
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
        // Operators name any actor that there is.
        id: ActorId::stored(id).map_err(Failure::actor_invalid_stored_id)?,
    })
}

async fn actors(
    State(shared): State<Arc<Shared>>,
    query: Result<Query<ListQuery>, QueryRejection>,
) -> Result<Response, ErrorResponse> {
    let ListQuery {
        actor,
        prefix,
        after,
        limit,
    } = query_of(query)?;
    let max = shared.admin.settings.max_page;
    let limit = limit.unwrap_or(DEFAULT_PAGE.min(max));
    if !(1..=max).contains(&limit) {
        let message = format!("limit: expected 1 to {max}, found {limit}");
        return Err(Failure::request_malformed(message).into());
    }
    let after = after.map(|after| match after.split_once('/') {
        Some((actor, id)) => key_of(actor, id),
        None => Err(Failure::request_malformed(
            "after: expected actor/id, as the page before gave it",
        )),
    });
    let page = shared
        .actors
        .list(&Listing {
            name: actor,
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
        path.map_err(|rejection| Failure::request_malformed(rejection.body_text()))?;
    key_of(&actor, &id)
}

async fn actor(
    State(shared): State<Arc<Shared>>,
    path: ActorPath,
) -> Result<Response, ErrorResponse> {
    Ok(answer(&shared.actors.about(&actor_of(path)?).await?))
}

async fn destroy(
    State(shared): State<Arc<Shared>>,
    path: ActorPath,
) -> Result<Response, ErrorResponse> {
    shared.actors.destroy(&actor_of(path)?).await?;
    Ok(StatusCode::NO_CONTENT.into_response())
}

/// Names one actor, whatever its id: `.` and `..` are steps in a path.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct ActorQuery {
    actor: String,
    id: String,
}

type QueriedActor = Result<Query<ActorQuery>, QueryRejection>;

fn queried(query: QueriedActor) -> Result<ActorKey, Failure> {
    let ActorQuery { actor, id } = query_of(query)?;
    key_of(&actor, &id)
}

async fn actor_by_query(
    State(shared): State<Arc<Shared>>,
    query: QueriedActor,
) -> Result<Response, ErrorResponse> {
    Ok(answer(&shared.actors.about(&queried(query)?).await?))
}

async fn destroy_by_query(
    State(shared): State<Arc<Shared>>,
    query: QueriedActor,
) -> Result<Response, ErrorResponse> {
    shared.actors.destroy(&queried(query)?).await?;
    Ok(StatusCode::NO_CONTENT.into_response())
}

async fn metrics_page(State(shared): State<Arc<Shared>>) -> Response {
    for connection in shared.connections.all() {
        connection.count_traffic();
    }
    let mut response = Response::new(Body::from(shared.page.page()));
    let headers = response.headers_mut();
    headers.insert(
        CONTENT_TYPE,
        HeaderValue::from_static(metrics::CONTENT_TYPE),
    );
    headers.insert(CACHE_CONTROL, HeaderValue::from_static("no-store"));
    response
}

//! One request, from its arrival to its answer. `host/gateway/src/http.rs` does the same on
//! the host, in the same order, with the same words.

use std::cell::{Cell, RefCell};
use std::rc::Rc;
use std::time::Duration;

use tidegate_core::{ActorId, ActorKey, Client, Failure, Name, Origin};
use tidegate_spin_base::database::{self, Database};
use tidegate_spin_base::head::{Head, Route, Target};
use tidegate_spin_base::incoming::{self, BODY_MAX_BYTES};
use tidegate_spin_base::look::{self, Question, Subject};
use tidegate_spin_base::response::Response;
use tidegate_spin_base::signature::{self, About, Purpose, Statement};
use tidegate_spin_base::tokens::{TokenFrom, bearer};
use tidegate_spin_base::{clock, door, settings, sse, tables};
use wasip2::http::types::{IncomingRequest, ResponseOutparam};

use crate::calls::no_key;
use crate::declared::Declared;
use crate::stage::{Listener, Request};
use crate::turn::Call;
use crate::{guest, messages, rows, tick, turn, views};

/// Answers a request.
pub(crate) async fn serve(incoming: IncomingRequest, out: ResponseOutparam) {
    let head = incoming::head(&incoming);
    let Some(response) = door::open(&head, out) else {
        return;
    };
    if let Err(refused) = answer(&head, &incoming, response).await {
        let (mut response, failure) = *refused;
        response.fail(&failure);
    }
}

/// Who sends a request.
enum Sender {
    /// A client: their verified claims.
    Client(Option<String>),
    /// A component of this application.
    Application(Box<Statement>),
}

/// An answer that is still to be given, and what it is to say.
type Refused = Box<(Response, Failure)>;

async fn answer(
    head: &Head,
    incoming: &IncomingRequest,
    mut response: Response,
) -> Result<(), Refused> {
    macro_rules! check {
        ($checked:expr) => {
            match $checked {
                Ok(checked) => checked,
                Err(failure) => return Err(Box::new((response, failure))),
            }
        };
    }
    let is_read = matches!(head.method.as_str(), "GET" | "HEAD");
    match (head.route(), head.method.as_str()) {
        (Route::Health, _) if is_read => response.json(200, r#"{"ok":true}"#),
        (Route::Ready, _) if is_read => {
            check!(Database::open().map_err(Failure::from));
            response.json(200, r#"{"ready":true}"#);
        }
        (Route::Actor(target), "POST") => return call(head, incoming, target, response).await,
        (Route::Actor(target), _) if is_read => return read(head, target, response).await,
        (Route::Tick, "POST") => {
            let body = check!(incoming::body(incoming, BODY_MAX_BYTES));
            check!(admit_clock(head, &body));
            let key = check!(settings::internal_key());
            let key = check!(key.ok_or_else(no_key));
            let database = check!(Database::open().map_err(Failure::from));
            let done = check!(tick::tick(&database, &key));
            response.json(200, &done);
        }
        (Route::Wake(target), "POST") => {
            let body = check!(incoming::body(incoming, BODY_MAX_BYTES));
            check!(admit(head, &body, Purpose::Wake));
            let (request, key) = open(response, &target).await?;
            let ran = turn::wake(&request, &key).await;
            let ran = ran.map(|ran| Some(format!(r#"{{"turns":{ran}}}"#)));
            reply(&request, ran)?;
            clean_up(&request);
        }
        (Route::Look(target), "POST") => {
            let body = check!(incoming::body(incoming, BODY_MAX_BYTES));
            check!(admit(head, &body, Purpose::Look));
            let question: Result<Question, _> = serde_json::from_slice(&body);
            let question = check!(question.map_err(|error| { Failure::request_malformed(error) }));
            let (request, key) = open(response, &target).await?;
            let seen = views::look(&request, &key, &question).await;
            return reply(&request, seen.map(|seen| Some(told(seen))));
        }
        (Route::None, _) => return Err(Box::new((response, head.not_found()))),
        _ => door::refuse_method(head, &mut response),
    }
    Ok(())
}

fn told(seen: views::Seen) -> String {
    let state = seen
        .state
        .and_then(|state| serde_json::value::RawValue::from_string(state).ok());
    let answer = look::Answer {
        state,
        epoch: seen.epoch,
        version: seen.version,
        projected: seen.projected,
        guarded: seen.guarded,
        recheck_later: seen.recheck_later,
        seq: seen.seq,
    };
    serde_json::to_string(&answer).expect("strings and numbers are JSON")
}

/// Gives a request's one result.
fn reply(request: &Request, result: Result<Option<String>, Failure>) -> Result<(), Refused> {
    let mut response = request.response.borrow_mut();
    match result {
        Ok(Some(result)) => response.json(200, &result),
        Ok(None) => response.empty(204),
        Err(failure) => response.fail(&failure),
    }
    Ok(())
}

/// Logs what of a failure is for operators alone.
fn tell_operators<T>(key: &ActorKey, result: &Result<T, Failure>) {
    if let Err(failure) = result
        && failure.detail.is_some()
    {
        tidegate_spin_base::log!("{key}: {failure}");
    }
}

/// Opens the database for a request about this actor.
async fn open(response: Response, target: &Target) -> Result<(Rc<Request>, ActorKey), Refused> {
    let manifest = guest::describe().await;
    let opened = (|| {
        let (actor, id, _) = target.parts()?;
        let declared = Declared::parse(&manifest, actor).map_err(|error| {
            tidegate_spin_base::log!("the handler's manifest: {error}");
            Failure::handler_undescribed()
        })?;
        let declared = declared.ok_or_else(|| Failure::unknown_actor(actor))?;
        let key = ActorKey {
            actor: declared.name.clone(),
            id: ActorId::parse(id)?,
        };
        Ok((declared, key, Database::open()?, settings::internal_key()?))
    })();
    match opened {
        Ok((declared, key, database, internal_key)) => {
            let request = Rc::new(Request {
                database,
                declared: Rc::new(declared),
                response: RefCell::new(response),
                internal_key,
                is_unguarded: Cell::new(false),
                sent: RefCell::default(),
                leases: RefCell::default(),
                prunes: Cell::new(false),
            });
            Ok((request, key))
        }
        Err(failure) => Err(Box::new((response, failure))),
    }
}

/// What another component of the application says of a request; none if it is no such.
fn statement(head: &Head, body: &[u8]) -> Result<Option<Statement>, Failure> {
    let Some(header) = head.text(signature::HEADER) else {
        return Ok(None);
    };
    let key = settings::internal_key()?.ok_or_else(no_key)?;
    let about = About {
        method: &head.method,
        path: &head.path,
        body,
    };
    Statement::verify(header, &key, about, clock::unix_ms()).map(Some)
}

/// Lets in what another component sends, for this purpose.
fn admit(head: &Head, body: &[u8], purpose: Purpose) -> Result<(), Failure> {
    match statement(head, body)? {
        Some(statement) if statement.purpose == purpose => Ok(()),
        _ => Err(Failure::admin_unauthorized(
            "this route is for the components of the application alone",
        )),
    }
}

/// Lets in whoever has the clock's key, and `events`, which passes a tick on.
fn admit_clock(head: &Head, body: &[u8]) -> Result<(), Failure> {
    if let Some(statement) = statement(head, body)? {
        return match statement.purpose {
            Purpose::Tick => Ok(()),
            _ => Err(unauthorized()),
        };
    }
    let Some(key) = settings::tick_key()? else {
        return Err(Failure::no_tick_key());
    };
    let given = bearer(head, TokenFrom::Header).ok().flatten();
    match given.is_some_and(|given| tidegate_spin_base::tokens::is_same(&given, &key)) {
        true => Ok(()),
        false => Err(unauthorized()),
    }
}

fn unauthorized() -> Failure {
    Failure::not_the_key()
}

/// The verified claims of a client.
fn identify(head: &Head, from: TokenFrom) -> Result<Option<String>, Failure> {
    let identity = tidegate_spin_base::tokens::identify(head, from)?;
    Ok(identity.map(|identity| identity.claims))
}

/// `POST /actors/{actor}/{id}/{method}`
async fn call(
    head: &Head,
    incoming: &IncomingRequest,
    target: Target,
    response: Response,
) -> Result<(), Refused> {
    let is_internal = head.text(signature::HEADER).is_some();
    let user = match is_internal {
        true => Ok(None),
        false => identify(head, TokenFrom::Header),
    };
    let user = match user {
        Ok(user) => user,
        Err(failure) => return Err(Box::new((response, failure))),
    };
    let (request, key) = open(response, &target).await?;
    let call = match begin(head, incoming, &target, user) {
        Ok(call) => call,
        Err(failure) => return reply(&request, Err(failure)),
    };
    let is_stream = call.listener == Listener::Client;
    let result = turn::call(&request, &key, call).await;
    tell_operators(&key, &result);
    match is_stream {
        false => reply(&request, result)?,
        true => {
            let last = match &result {
                Ok(result) => sse::event("result", None, result.as_deref().unwrap_or("null")),
                Err(failure) => sse::event("error", None, &failure.http_body()),
            };
            let mut response = request.response.borrow_mut();
            response.begin_stream();
            response.event(&last);
            response.end();
        }
    }
    clean_up(&request);
    Ok(())
}

/// Does what a request leaves to be done once it is answered: ends leases, delivers the messages
/// that its turns have stored, and makes room in the outbox.
fn clean_up(request: &Request) {
    let wait = Duration::from_millis(database::wait_ms());
    for (key, lease) in request.leases.take() {
        if let Err(error) = rows::end_lease(&request.database, &key, &lease, wait) {
            tidegate_spin_base::log!("{key}: the turns of others wait for a lease: {error}");
        }
    }
    let sent = request.sent.take();
    messages::deliver(&request.database, &sent, request.internal_key.as_deref());
    if request.prunes.get()
        && let Err(error) = tables::prune_outbox(&request.database, clock::unix_ms())
    {
        tidegate_spin_base::log!("no room is made in the outbox: {error}");
    }
}

/// What a request calls.
fn begin(
    head: &Head,
    incoming: &IncomingRequest,
    target: &Target,
    user: Option<String>,
) -> Result<Call, Failure> {
    let (.., method) = target.parts()?;
    let body = incoming::body(incoming, BODY_MAX_BYTES)?;
    let sender = match statement(head, &body)? {
        Some(statement) => Sender::Application(Box::new(statement)),
        None => Sender::Client(user),
    };
    let input = incoming::input(body)?;
    let once = head.idempotency_key()?;
    let (origin, chain, message, deadline_ms) = match sender {
        Sender::Client(user) => {
            let client = Client {
                connection: None,
                user: user.map(Into::into),
            };
            (Origin::Client(client), Vec::new(), None, None)
        }
        Sender::Application(statement) => {
            let Statement {
                purpose,
                chain,
                deadline_ms,
                message,
                ..
            } = *statement;
            let Some(from) = chain.last().filter(|_| is_of_actor(purpose)) else {
                return Err(unauthorized());
            };
            let (Ok(actor), Ok(id)) = (Name::parse(&from.actor), ActorId::stored(&from.id)) else {
                return Err(unauthorized());
            };
            let origin = Origin::Actor(ActorKey { actor, id });
            // Nobody waits for a message.
            let chain = match purpose {
                Purpose::Call => chain,
                _ => Vec::new(),
            };
            (origin, chain, message, deadline_ms)
        }
    };
    Ok(Call {
        method: method.to_owned(),
        input,
        origin,
        chain,
        key: once,
        message,
        deadline_ms,
        traceparent: head.traceparent().map(str::to_owned),
        listener: match head.wants_events() {
            true => Listener::Client,
            false => Listener::Nobody,
        },
    })
}

fn is_of_actor(purpose: Purpose) -> bool {
    matches!(purpose, Purpose::Call | Purpose::Message)
}

/// `GET /actors/{actor}/{id}/state`
async fn read(head: &Head, target: Target, response: Response) -> Result<(), Refused> {
    let is_stream = head.wants_events() || target.what() == Some("events");
    let from = match is_stream {
        true => TokenFrom::HeaderOrQuery,
        false => TokenFrom::Header,
    };
    let user = match identify(head, from) {
        Ok(user) => user,
        Err(failure) => return Err(Box::new((response, failure))),
    };
    let (request, key) = open(response, &target).await?;
    if !matches!(target.what(), Some("state" | "events")) {
        door::refuse_method(head, &mut request.response.borrow_mut());
        return Ok(());
    }
    let seen = async {
        match target.what().unwrap_or_default() {
            "state" | "events" if is_stream => Err(Failure::unsupported_on_spin(
                "event streams are served by the component `events`: the manifest has to \
                 route this path to it",
            )),
            _ => {
                let question = Question {
                    user,
                    subject: Subject::State,
                    tell: true,
                };
                views::look(&request, &key, &question).await
            }
        }
    };
    let seen = seen.await;
    tell_operators(&key, &seen);
    let seen = seen.map(|seen| {
        let state = seen.state.as_deref().unwrap_or("null");
        let (epoch, version) = (&seen.epoch, seen.version);
        Some(format!(
            r#"{{"state":{state},"epoch":"{epoch}","version":{version}}}"#
        ))
    });
    reply(&request, seen)
}

//! The WebSocket protocol: from frames of one client to operations on actors.
//!
//! Every frame is answered, if only by an error; none but a violation of RFC 6455 closes
//! the socket. The full reference is `docs/protocol.md`.

use std::borrow::Cow;
use std::future::poll_fn;
use std::net::IpAddr;
use std::sync::Arc;
use std::task::Poll;
use std::time::Instant;

use serde_json::value::RawValue;
use tidegate_actor::metrics::{Stage, Stopwatch};
use tidegate_actor::turn::ReplyTo;
use tidegate_actor::{Arriving, Call, FirstContact, InlineRun, Stream};
use tidegate_auth::Identity;
use tidegate_base::clock::Steps;
use tidegate_base::rate::RateLimit;
use tidegate_base::sync::{Mutex, MutexGuard};
use tidegate_core::protocol::{
    self, ClientFrame, Envelope, FrameError, FrameKind, Rpc, Scan, Since, Target,
};
use tidegate_core::{ActorKey, CallEnvelope, Failure, Origin, RequestId};
use tidegate_delivery::Dialect;
use tidegate_delivery::connections::{CallLimits, CallRefused, Connection, Contact, TOKEN_EXPIRED};
use tidegate_ws::{Frame, Handler, Inbound, Skim, Socket};
use tokio::sync::Notify;
use tokio_util::sync::CancellationToken;
use tracing::debug;

use super::caller::{Caller, has_expired};
use super::metrics::Kind;
use super::{Shared, http};

/// Serves one WebSocket from its welcome to its end, which is the future's. `kept` is dropped
/// then.
///
/// Not an `async fn`, which would have room for all it is given twice.
pub(super) fn serve(
    socket: Socket<Addressee>,
    caller: Caller,
    dialect: Dialect,
    address: IpAddr,
    shared: Arc<Shared>,
    kept: impl Send + 'static,
) -> impl Future<Output = ()> + Send + 'static {
    let id = shared.next_connection_id();
    let connection = Connection::new(
        id.clone(),
        caller.user(),
        dialect,
        socket.outbound().clone(),
        shared.sent.clone(),
    );
    let connected = shared.metrics.connected(Kind::WebSocket);
    connection.send(Frame::text(protocol::welcome(&id)));
    shared.connections.insert(connection.clone());
    if shared.is_stopping() {
        // It came too late to be among those that were told.
        shared.say_goodbye(&connection);
    }
    debug!(connection = %id, client = %address, user = caller.subject(), "a connection opens");
    // Without tokens none expires.
    let expiry = shared
        .tokens
        .as_ref()
        .map(|_| Arc::new(Expiry::new(caller.refused_from_ms(), shared.steps.clone())));
    let mut expired = expiry.clone().map(|expiry| Box::pin(expiry.passed()));
    let mut session = Session {
        frames: RateLimit::new(
            shared.settings.frames_per_second,
            shared.settings.frames_burst,
        ),
        caller,
        address,
        expiry,
        ready: Mutex::default(),
        arrivals: None,
        // Also when this task is dropped, its actors are told.
        leave: Leave { connection, shared },
    };
    async move {
        let connection = session.leave.connection.clone();
        let ended = {
            let mut run = std::pin::pin!(socket.run(&mut session));
            let expired = poll_fn(|cx| match &mut expired {
                Some(expired) => expired.as_mut().poll(cx),
                None => Poll::Pending,
            });
            tokio::select! {
                ended = run.as_mut() => ended,
                () = expired => {
                    expire(&connection);
                    run.await
                }
            }
        };
        drop(session);
        debug!(connection = %connection.id(), ?ended, "closed");
        // Named, so that they are here until now.
        drop((connected, kept));
    }
}

/// Ends a connection whose token is good no longer.
fn expire(connection: &Connection) {
    connection
        .outbound()
        .close(TOKEN_EXPIRED, "the token has expired");
}

/// When the token of a connection is refused from.
struct Expiry {
    at_ms: Mutex<Option<u64>>,
    changed: Notify,
    steps: Steps,
}

impl Expiry {
    fn new(at_ms: Option<u64>, steps: Steps) -> Expiry {
        Expiry {
            at_ms: Mutex::new(at_ms),
            changed: Notify::new(),
            steps,
        }
    }

    fn at_ms(&self) -> MutexGuard<'_, Option<u64>> {
        self.at_ms.lock()
    }

    fn set(&self, at_ms: Option<u64>) {
        *self.at_ms() = at_ms;
        self.changed.notify_one();
    }

    /// Completes when the token has expired and no new one has come.
    async fn passed(self: Arc<Self>) {
        loop {
            let at_ms = *self.at_ms();
            let expired = async {
                match at_ms {
                    // Most connections have no token, and none of the room that this takes.
                    Some(_) => Box::pin(Caller::expired(at_ms, self.steps.clone())).await,
                    None => std::future::pending().await,
                }
            };
            tokio::select! {
                biased;
                // First, for the sake of a new token that came just in time. One that came
                // before this was asked is not missed.
                () = self.changed.notified() => {}
                () = expired => return,
            }
        }
    }
}

struct Session {
    frames: RateLimit,
    caller: Caller,
    address: IpAddr,
    /// Present where tokens are verified.
    expiry: Option<Arc<Expiry>>,
    /// Actors at rest that this read has brought work to. Never locked: a session is used by
    /// one thread at a time.
    ready: Mutex<Vec<InlineRun>>,
    /// The actors that are being told of its first contact. Most are told before the next frame.
    arrivals: Option<Box<Arrivals>>,
    leave: Leave,
}

#[derive(Default)]
struct Arrivals(Vec<(ActorKey, Arriving)>);

struct Leave {
    connection: Arc<Connection>,
    shared: Arc<Shared>,
}

impl Drop for Leave {
    fn drop(&mut self) {
        let Leave { connection, shared } = self;
        connection.count_traffic();
        shared.connections.remove(connection.id());
        shared.actors.disconnect(connection);
    }
}

/// What a frame asks for that may have to wait.
enum Asked {
    Identify(String),
    Subscribe(Target<'static>, Stream, Option<Since>),
}

/// Finds out of a frame that is skipped what it is to be answered with.
#[derive(Debug, Default)]
pub(super) struct Addressee(Scan);

impl Skim for Addressee {
    fn read(&mut self, piece: &[u8]) {
        self.0.read(piece);
    }

    fn is_done(&self) -> bool {
        self.0.is_done()
    }
}

impl Handler for Session {
    type Skim = Addressee;

    fn on_message(
        &mut self,
        message: Inbound<Addressee>,
    ) -> Option<impl Future<Output = ()> + Send> {
        let asked = self.take(message)?;
        // What waits may wait for them. Dropped, they become tasks.
        drop(self.take_ready());
        Some(Box::pin(async move {
            match asked {
                Asked::Identify(token) => self.identify(&token).await,
                Asked::Subscribe(target, stream, since) => {
                    self.subscribe(&target, stream, since.as_ref()).await;
                }
            }
        }))
    }

    fn on_rest(&mut self) {
        let ready = self.take_ready();
        self.leave.shared.actors.run_inline(ready);
    }
}

impl Session {
    fn take_ready(&mut self) -> Vec<InlineRun> {
        std::mem::take(self.ready.get_mut())
    }

    /// Does what a message asks for, or says what remains to be done.
    fn take(&mut self, message: Inbound<Addressee>) -> Option<Asked> {
        let metrics = &self.leave.shared.metrics;
        let nth = metrics.frames_received.inc() + 1;
        let watch = match nth.checked_rem(self.leave.shared.settings.watch_every) {
            Some(0) => self.leave.shared.stages.start(),
            _ => Stopwatch::default(),
        };
        metrics.bytes_received.inc_by(match &message {
            Inbound::Text(text) => text.len() as u64,
            Inbound::Binary(bytes) => bytes.len() as u64,
            Inbound::TooLarge { size, .. } | Inbound::NoRoom { size, .. } => *size,
        });
        match message {
            Inbound::Text(text) => self.handle(protocol::parse(&text), watch),
            Inbound::Binary(bytes) => match std::str::from_utf8(&bytes) {
                Ok(text) => self.handle(protocol::parse(text), watch),
                Err(error) => {
                    let failure = Failure::frame_not_utf8(error);
                    let to = Box::new(Envelope::find(&bytes));
                    self.handle(Err(FrameError { failure, to }), watch)
                }
            },
            Inbound::NoRoom {
                exhausted, seen, ..
            } => {
                let failure = exhausted.failure();
                let to = Box::new(seen.0.finish());
                self.handle(Err(FrameError { failure, to }), watch)
            }
            Inbound::TooLarge { size, seen } => {
                let limit = self.leave.shared.settings.max_frame_bytes;
                let failure = Failure::frame_too_large(limit, size);
                let to = Box::new(seen.0.finish());
                self.handle(Err(FrameError { failure, to }), watch)
            }
        }
    }

    fn handle(
        &mut self,
        frame: Result<ClientFrame<'_>, FrameError>,
        mut watch: Stopwatch,
    ) -> Option<Asked> {
        watch.passed(Stage::Parse);
        // A new token comes in time as long as the connection is open.
        if has_expired(self.caller.refused_from_ms())
            && !matches!(frame, Ok(ClientFrame::Auth { .. }))
        {
            expire(&self.leave.connection);
            return None;
        }
        if let Err(retry) = self.frames.check() {
            let to = match &frame {
                Ok(frame) => Envelope::of(frame),
                Err(error) => (*error.to).clone(),
            };
            self.refuse(&retry.frames(), &to);
            return None;
        }
        match frame {
            Ok(ClientFrame::Rpc(rpc)) => self.call(rpc, watch),
            Ok(ClientFrame::Cancel { id }) => self.cancel(&id),
            Ok(ClientFrame::Auth { token }) => return Some(Asked::Identify(token.into_owned())),
            Ok(ClientFrame::StateSub(target, since)) => {
                return Some(Asked::Subscribe(target.into_owned(), Stream::State, since));
            }
            Ok(ClientFrame::EventSub(target)) => {
                return Some(Asked::Subscribe(target.into_owned(), Stream::Events, None));
            }
            Ok(ClientFrame::StateUnsub(target)) => self.unsubscribe(&target, Stream::State),
            Ok(ClientFrame::EventUnsub(target)) => self.unsubscribe(&target, Stream::Events),
            Err(error) => self.refuse(&error.failure, &error.to),
        }
        None
    }

    /// Answers a frame that comes to nothing: a call under its id, any other by an `error` that
    /// names it.
    fn refuse(&self, failure: &Failure, to: &Envelope) {
        match to.rpc_id() {
            // The answer would be taken for that of the other call.
            Some(id) if self.leave.connection.awaits(id) => self.refuse_duplicate(id),
            Some(id) => {
                http::count_refusal(failure, &self.leave.shared.metrics);
                self.leave
                    .connection
                    .send(Frame::text(protocol::rpc_failure(id, failure)));
            }
            None => self.tell(failure, to),
        }
    }

    fn refuse_duplicate(&self, id: &str) {
        let failure = Failure::rpc_duplicate_id(id);
        self.tell(&failure, &Envelope::of_call(id));
    }

    fn tell(&self, failure: &Failure, to: &Envelope) {
        http::count_refusal(failure, &self.leave.shared.metrics);
        self.leave
            .connection
            .send(Frame::text(protocol::error(failure, to)));
    }

    /// Gives up a call; one that is answered already is none.
    fn cancel(&self, id: &str) {
        if let Some(key) = self.leave.connection.cancel(id) {
            self.leave.shared.actors.drop_newest_cancelled(&key);
        }
    }

    /// Takes a new token of the same user.
    async fn identify(&mut self, token: &str) {
        match self.renew(token) {
            Ok(identity) => {
                let expires_at_ms = identity.expires_at_ms;
                self.caller.identity = Some(identity.into());
                self.leave.connection.identify(self.caller.user());
                if let Some(expiry) = &self.expiry {
                    expiry.set(self.caller.refused_from_ms());
                }
                self.leave
                    .connection
                    .send(Frame::text(protocol::auth_ok(expires_at_ms)));
                // What was allowed to the old claims may not be to the new.
                self.leave
                    .shared
                    .actors
                    .authorize_again(&self.leave.connection)
                    .await;
            }
            Err(failure) => self.tell(&failure, &Envelope::new(FrameKind::Auth)),
        }
    }

    fn renew(&self, token: &str) -> Result<Identity, Failure> {
        let tokens = self
            .leave
            .shared
            .tokens
            .as_ref()
            .ok_or_else(Failure::auth_not_configured)?;
        let identity = tokens.verify(token)?;
        match &self.caller.identity {
            // Tokens that name nobody are not known to be of the same user.
            Some(old) if old.subject.is_none() || old.subject != identity.subject => {
                Err(Failure::auth_other_user())
            }
            _ => Ok(identity),
        }
    }

    /// Lets a call in, or says why not.
    fn begin_call(&self, id: &str, bytes: usize) -> Option<CancellationToken> {
        let settings = &self.leave.shared.settings;
        let limits = CallLimits {
            calls: settings.max_calls_in_flight,
            bytes: settings.max_calls_bytes,
        };
        match self.leave.connection.begin_call(id, bytes, limits) {
            Ok(cancel) => Some(cancel),
            Err(CallRefused::DuplicateId) => {
                self.refuse_duplicate(id);
                None
            }
            Err(CallRefused::TooMany) => {
                let failure = Failure::rpc_in_flight_limit();
                self.refuse(&failure, &Envelope::of_call(id));
                None
            }
            Err(CallRefused::NoRoom(exhausted)) => {
                self.refuse(&exhausted.failure(), &Envelope::of_call(id));
                None
            }
        }
    }

    fn call(&mut self, rpc: Rpc<'_>, mut watch: Stopwatch) {
        let arrived = Instant::now();
        let identity = self.caller.identity.as_deref();
        if let Err(failure) = self.leave.shared.check_calls(identity, self.address) {
            return self.refuse(&failure, &Envelope::of_call(&rpc.id));
        }
        let bytes = rpc.input.map_or(0, |input| input.get().len());
        let Some(cancel) = self.begin_call(&rpc.id, bytes) else {
            return;
        };
        let id: Arc<str> = rpc.id.as_ref().into();
        let request = RequestId::Frame {
            connection: self.leave.connection.id().clone(),
            id: id.clone(),
        };
        let reply = ReplyTo::connection(self.leave.connection.clone(), id);
        let key = match self.leave.shared.actors.key(&rpc.actor, &rpc.actor_id) {
            Ok(key) => key,
            Err(failure) => return reply.send(Err(failure)),
        };
        let contact = self.contact(&key).and_then(|contact| match contact {
            Contact::First => self.connect(&key),
            _ => Ok(()),
        });
        if let Err(failure) = contact {
            return reply.send(Err(failure));
        }
        self.leave.connection.queued(&rpc.id, &key);
        watch.passed(Stage::Admit);
        let ready = self.leave.shared.actors.call_inline(
            &key,
            Call {
                envelope: CallEnvelope {
                    key: rpc.key.map(Cow::into_owned),
                    request: Some(request),
                    ..CallEnvelope::new(
                        rpc.method.into_owned(),
                        rpc.input.map(RawValue::get).map(str::to_owned),
                        Origin::Client(self.leave.connection.client()),
                    )
                },
                deadline: None,
                // The connection has taken it.
                share: None,
                cancel,
                arrived,
                watch,
                reply,
            },
        );
        self.ready.get_mut().extend(ready);
    }

    fn contact(&self, key: &ActorKey) -> Result<Contact, Failure> {
        let limit = self.leave.shared.settings.max_actors_per_connection;
        match self.leave.connection.contact(key, limit) {
            Contact::TooMany => Err(Failure::connection_actor_limit(limit)),
            Contact::NoRoom(exhausted) => Err(exhausted.failure()),
            contact => Ok(contact),
        }
    }

    /// Queues `connect`; without it, there was no contact.
    fn connect(&mut self, key: &ActorKey) -> Result<(), Failure> {
        let connection = &self.leave.connection;
        let connected = self.leave.shared.actors.connect(key, connection);
        let arriving = connected.inspect_err(|_| connection.forget(key))?;
        if let Some(arriving) = arriving {
            let Arrivals(arrivals) = &mut **self.arrivals.get_or_insert_default();
            arrivals.retain_mut(|(_, arriving)| !arriving.is_over());
            arrivals.push((key.clone(), arriving));
        }
        Ok(())
    }

    /// Whether an actor is still being told of the first contact.
    fn arriving(&mut self, key: &ActorKey) -> Option<Arriving> {
        let Arrivals(arrivals) = &mut **self.arrivals.as_mut()?;
        let place = arrivals.iter().position(|(other, _)| other == key)?;
        let (_, arriving) = arrivals.swap_remove(place);
        if arrivals.is_empty() {
            self.arrivals = None;
        }
        Some(arriving)
    }

    async fn subscribe(&mut self, target: &Target<'_>, stream: Stream, since: Option<&Since>) {
        if let Err(failure) = self.subscribed(target, stream, since).await {
            let kind = match stream {
                Stream::State => FrameKind::StateSub,
                Stream::Events => FrameKind::EventSub,
            };
            self.refuse_target(kind, failure, target);
        }
    }

    async fn subscribed(
        &mut self,
        target: &Target<'_>,
        stream: Stream,
        since: Option<&Since>,
    ) -> Result<(), Failure> {
        let identity = self.caller.identity.as_deref();
        self.leave.shared.check_calls(identity, self.address)?;
        let key = self
            .leave
            .shared
            .actors
            .key(&target.actor, &target.actor_id)?;
        let contact = self.contact(&key)?;
        let arriving = match stream {
            Stream::State => self.arriving(&key),
            Stream::Events => None,
        };
        let Leave { connection, shared } = &self.leave;
        let mut first = match (contact, arriving) {
            (Contact::First, _) => FirstContact::Due(connection),
            (_, Some(arriving)) => FirstContact::UnderWay(arriving),
            (_, None) => FirstContact::Past,
        };
        let outlet = connection.clone();
        let subscribed = shared
            .actors
            .subscribe(&key, stream, outlet, since, &mut first);
        let subscribed = subscribed.await;
        let is_due = matches!(first, FirstContact::Due(_));
        drop(first);
        match (is_due, subscribed) {
            // Behind the subscription, so that the newcomer hears what its coming brings about.
            (true, Ok(())) => self.connect(&key).inspect_err(|_| {
                let Leave { connection, shared } = &self.leave;
                shared.actors.unsubscribe(&key, stream, connection.id());
            }),
            (true, Err(failure)) => {
                connection.forget(&key);
                Err(failure)
            }
            (false, subscribed) => subscribed,
        }
    }

    fn unsubscribe(&self, target: &Target<'_>, stream: Stream) {
        match self
            .leave
            .shared
            .actors
            .key(&target.actor, &target.actor_id)
        {
            Ok(key) => {
                let id = self.leave.connection.id();
                self.leave.shared.actors.unsubscribe(&key, stream, id);
            }
            Err(failure) => {
                let kind = match stream {
                    Stream::State => FrameKind::StateUnsub,
                    Stream::Events => FrameKind::EventUnsub,
                };
                self.refuse_target(kind, failure, target);
            }
        }
    }

    fn refuse_target(&self, kind: FrameKind, failure: Failure, target: &Target<'_>) {
        let failure = failure
            .param("actor", target.actor.as_ref())
            .param("actorId", target.actor_id.as_ref());
        self.tell(&failure, &Envelope::new(kind));
    }
}

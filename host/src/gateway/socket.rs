//! The WebSocket protocol: from frames of one client to operations on actors.
//!
//! Every frame is answered, if only by an error; none but a violation of RFC 6455 closes
//! the socket. The full reference is `docs/protocol.md`.

use std::sync::Arc;

use serde_json::value::RawValue;
use tidegate_core::failure::code;
use tidegate_core::protocol::{self, ClientFrame, Rpc, Target};
use tidegate_core::{ActorKey, Failure};
use tracing::debug;

use super::Doors;
use crate::actor::{Call, Stream};
use crate::rooms::{CallLimits, CallRefused, Connection, Contact};
use crate::turn::ReplyTo;
use crate::ws::{Frame, Handler, Message, Socket};

/// Serves one WebSocket from its welcome to its end.
pub(super) async fn serve(socket: Socket, doors: Arc<Doors>) {
    let id = doors.next_connection_id();
    let connection = Connection::new(id.clone(), None, socket.outbound().clone());
    connection.send(Frame::text(protocol::welcome(&id)));
    doors.connections.insert(connection.clone());
    if doors.is_stopping() {
        // It came too late to be among those that were told.
        doors.say_goodbye(&connection);
    }
    let mut session = Session {
        connection: connection.clone(),
        doors: doors.clone(),
    };
    // Also when this task is dropped, its actors are told.
    let leave = Leave(session.clone());
    let ended = socket.run(&mut session).await;
    drop(leave);
    debug!(connection = %id, ?ended, "closed");
}

#[derive(Clone)]
struct Session {
    connection: Arc<Connection>,
    doors: Arc<Doors>,
}

struct Leave(Session);

impl Drop for Leave {
    fn drop(&mut self) {
        let Session { connection, doors } = &self.0;
        doors.connections.remove(connection.id());
        doors.actors.disconnect(connection);
    }
}

impl Handler for Session {
    async fn on_message(&mut self, message: Message) {
        match message {
            Message::Text(text) => self.handle(&text).await,
            Message::Binary(bytes) => match std::str::from_utf8(&bytes) {
                Ok(text) => self.handle(text).await,
                Err(error) => self.refuse(
                    &Failure::host(code::FRAME_NOT_UTF8)
                        .message(format!("expected a frame of UTF-8 text: {error}")),
                    None,
                ),
            },
            Message::TooLarge { size } => {
                let limit = self.doors.settings.max_frame_bytes;
                let message = format!("expected a frame of at most {limit} bytes, found {size}");
                let failure = Failure::host(code::FRAME_TOO_LARGE)
                    .message(message)
                    .param("limit", limit);
                self.refuse(&failure, None);
            }
        }
    }
}

impl Session {
    fn refuse(&self, failure: &Failure, id: Option<&str>) {
        self.connection
            .send(Frame::text(protocol::error(failure, id)));
    }

    async fn handle(&self, text: &str) {
        match protocol::parse(text) {
            Ok(ClientFrame::Rpc(rpc)) => self.call(rpc),
            Ok(ClientFrame::StateSub(target)) => self.subscribe(&target, Stream::State).await,
            Ok(ClientFrame::EventSub(target)) => self.subscribe(&target, Stream::Events).await,
            Ok(ClientFrame::StateUnsub(target)) => self.unsubscribe(&target, Stream::State),
            Ok(ClientFrame::EventUnsub(target)) => self.unsubscribe(&target, Stream::Events),
            Err(error) => match error.rpc_id {
                // A caller waits for this id, unless another call of that id is under way.
                Some(id) if self.begin_call(&id, 0) => {
                    self.connection.end_call(&id, &Err(error.failure))
                }
                Some(_) => {}
                None => self.refuse(&error.failure, None),
            },
        }
    }

    /// Lets a call in, or says why not.
    fn begin_call(&self, id: &str, bytes: usize) -> bool {
        let settings = &self.doors.settings;
        let limits = CallLimits {
            calls: settings.max_calls_in_flight,
            bytes: settings.max_calls_bytes,
        };
        match self.connection.begin_call(id, bytes, limits) {
            Ok(()) => true,
            Err(CallRefused::DuplicateId) => {
                let failure = Failure::host(code::RPC_DUPLICATE_ID)
                    .message(format!("a call with the id `{id}` is still under way"));
                self.refuse(&failure, Some(id));
                false
            }
            Err(CallRefused::TooMany) => {
                let failure = Failure::host(code::RPC_IN_FLIGHT_LIMIT)
                    .message("too many calls of this connection are under way");
                let frame = protocol::rpc_failure(id, &failure);
                self.connection.send(Frame::text(frame));
                false
            }
        }
    }

    fn call(&self, rpc: Rpc<'_>) {
        let bytes = rpc.input.map_or(0, |input| input.get().len());
        if !self.begin_call(&rpc.id, bytes) {
            return;
        }
        let reply = ReplyTo::connection(self.connection.clone(), rpc.id.as_ref().into());
        let key = match self.doors.actors.key(&rpc.actor, &rpc.actor_id) {
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
        self.doors.actors.call(
            &key,
            Call {
                method: rpc.method.into_owned(),
                input: rpc.input.map(RawValue::get).map(str::to_owned),
                client: self.connection.client(),
                traceparent: None,
                reply,
            },
        );
    }

    fn contact(&self, key: &ActorKey) -> Result<Contact, Failure> {
        let limit = self.doors.settings.max_actors_per_connection;
        match self.connection.contact(key, limit) {
            Contact::TooMany => Err(Failure::host(code::CONNECTION_ACTOR_LIMIT)
                .message(format!(
                    "one connection may have contact with {limit} actors"
                ))
                .param("limit", limit)),
            contact => Ok(contact),
        }
    }

    /// Queues `connect`; without it, there was no contact.
    fn connect(&self, key: &ActorKey) -> Result<(), Failure> {
        let connected = self.doors.actors.connect(key, &self.connection);
        connected.inspect_err(|_| self.connection.forget(key))
    }

    async fn subscribe(&self, target: &Target<'_>, stream: Stream) {
        let actors = &self.doors.actors;
        let subscribed = async {
            let key = actors.key(&target.actor, &target.actor_id)?;
            let contact = self.contact(&key)?;
            let outlet = self.connection.clone();
            let subscribed = actors.subscribe(&key, stream, outlet).await;
            match (contact, subscribed) {
                // Behind the subscription, so that the newcomer sees what its coming changes.
                (Contact::First, Ok(())) => self.connect(&key),
                (Contact::First, Err(failure)) => {
                    self.connection.forget(&key);
                    Err(failure)
                }
                (_, subscribed) => subscribed,
            }
        };
        if let Err(failure) = subscribed.await {
            self.refuse_target(failure, target);
        }
    }

    fn unsubscribe(&self, target: &Target<'_>, stream: Stream) {
        match self.doors.actors.key(&target.actor, &target.actor_id) {
            Ok(key) => {
                let id = self.connection.id();
                self.doors.actors.unsubscribe(&key, stream, id);
            }
            Err(failure) => self.refuse_target(failure, target),
        }
    }

    fn refuse_target(&self, failure: Failure, target: &Target<'_>) {
        let failure = failure
            .param("actor", target.actor.as_ref())
            .param("actorId", target.actor_id.as_ref());
        self.refuse(&failure, None);
    }
}

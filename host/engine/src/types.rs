//! `tidegate:realtime/types`: what the contract's other interfaces share, in the host's own types.

use std::time::{Duration, Instant};

use tidegate_core::call::Firing;
use tidegate_core::{ActorKey, Client, Failure, Origin, RequestId};

use super::bindings::types as wit;
use super::instance::GuestContext;

/// The context of one turn, as the guest is told it.
#[derive(Clone, Debug)]
pub struct Turn {
    /// Whose turn it is.
    pub this: ActorKey,
    /// Unique among the turns of this host.
    pub id: String,
    /// What caused it.
    pub origin: Origin,
    /// Its beginning, in milliseconds since the Unix epoch.
    pub now_ms: u64,
    /// Its end at the latest, on the host's clock.
    pub deadline: Instant,
    /// From its beginning until then.
    pub allowed: Duration,
    /// 1 on the first run.
    pub attempt: u32,
    /// The caller's idempotency key.
    pub key: Option<String>,
    /// The caller's W3C trace context.
    pub traceparent: Option<String>,
    /// The request that caused it, for the log.
    pub request: Option<RequestId>,
}

impl Turn {
    /// When it began, on the host's clock.
    pub fn began(&self) -> Instant {
        self.deadline - self.allowed
    }
}

impl From<&Turn> for wit::Turn {
    fn from(turn: &Turn) -> wit::Turn {
        let allowed_ms = turn.allowed.as_millis() as u64;
        wit::Turn {
            this: (&turn.this).into(),
            turn_id: turn.id.clone(),
            origin: (&turn.origin).into(),
            now_ms: turn.now_ms,
            deadline_ms: turn.now_ms.saturating_add(allowed_ms),
            attempt: turn.attempt,
            key: turn.key.clone(),
            traceparent: turn.traceparent.clone(),
        }
    }
}

impl From<&ActorKey> for wit::ActorRef {
    fn from(key: &ActorKey) -> wit::ActorRef {
        wit::ActorRef {
            actor: key.actor.as_str().to_owned(),
            id: key.id.as_str().to_owned(),
        }
    }
}

impl From<&Client> for wit::Client {
    fn from(client: &Client) -> wit::Client {
        wit::Client {
            connection: client.connection.as_deref().map(str::to_owned),
            user: client.user.as_deref().map(str::to_owned),
        }
    }
}

impl From<&Origin> for wit::Origin {
    fn from(origin: &Origin) -> wit::Origin {
        match origin {
            Origin::Client(client) => wit::Origin::Client(client.into()),
            Origin::Actor(key) => wit::Origin::Actor(key.into()),
            Origin::Timer(firing) => wit::Origin::Timer((*firing).into()),
            Origin::Cron(firing) => wit::Origin::Cron((*firing).into()),
            Origin::Host => wit::Origin::Host,
        }
    }
}

impl From<Firing> for wit::Firing {
    fn from(firing: Firing) -> wit::Firing {
        wit::Firing {
            id: firing.id,
            due_ms: firing.due_ms,
        }
    }
}

impl From<Failure> for wit::Failure {
    fn from(failure: Failure) -> wit::Failure {
        wit::Failure {
            code: failure.code.into_owned(),
            message: failure.message,
            params: failure.params.map(|params| params.to_string()),
            http_status: Some(failure.status),
        }
    }
}

impl From<wit::Failure> for Failure {
    fn from(failure: wit::Failure) -> Failure {
        Failure::from_guest(
            failure.code,
            failure.message,
            failure.params,
            failure.http_status,
        )
    }
}

impl wit::Host for GuestContext {}

//! The harness of the end-to-end tests: the real binary, real sockets, real components.
//!
//! A test starts a [`Host`], which serves handlers on a port of its own and is killed when
//! dropped, and looks at it only as a client does: through a [`Socket`] (WebSocket) or
//! requests to [`Host::get`] and [`Host::post`] (HTTP, SSE). Everything that waits has the
//! same generous limit, [`PATIENCE`], and fails with what was seen until then: a test never
//! sleeps, and never asserts on time. A test that hangs all the same is ended by a watch over
//! its host.
//!
//! ```no_run
//! use tidegate_tests::{Host, actor};
//! # async fn a_count_is_answered() {
//! let host = Host::serving(["counter"]).await;
//! let counter = actor("counter", "a");
//! let mut socket = host.connect().await;
//! socket.subscribe_state(&counter).await;
//! let reply = socket.call(&counter, "increment", serde_json::json!({"by": 2})).await;
//! assert_eq!(reply.result(), 2);
//! # }
//! ```

pub mod cli;
mod clock;
pub mod dialect;
mod host;
pub mod provider;
pub mod raw;
mod request;
mod socket;
pub mod spacing;
pub mod spin;
pub mod target;
pub mod token;
mod watch;

use std::fmt;
use std::time::Duration;

pub use clock::WallClock;
pub use tidegate_guests as guest;

pub use host::{ADMIN_KEY, Builder, Folder, Host, Refusal, handlers_folder, project};
pub use request::{EventStream, Request, Response, ServerEvent};
pub use socket::{Closed, Reply, Socket};

/// How long to wait for anything before the test fails. Long enough for the slowest machine
/// under load, since a passing test never waits it out.
pub const PATIENCE: Duration = Duration::from_secs(20);

/// An actor, as clients address it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Actor {
    /// The actor type.
    pub kind: String,
    /// The id within the type.
    pub id: String,
}

/// The actor `kind/id`.
pub fn actor(kind: &str, id: &str) -> Actor {
    Actor {
        kind: kind.to_owned(),
        id: id.to_owned(),
    }
}

impl fmt::Display for Actor {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}", self.kind, self.id)
    }
}

/// Awaits `what`, or panics with `seen()` when it does not happen within [`PATIENCE`].
async fn patiently<T>(what: &str, seen: impl Fn() -> String, wait: impl Future<Output = T>) -> T {
    match tokio::time::timeout(PATIENCE, wait).await {
        Ok(value) => value,
        Err(_) => panic!("{what} did not happen within {PATIENCE:?}\n{}", seen()),
    }
}

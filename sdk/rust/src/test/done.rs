//! What an actor in a test has done, as a test asks for it: calls, timers, firings, and the
//! states that subscribers saw.

use serde_json::Value;

use crate::host::Invocation;
use crate::recorder::Armed;
use crate::{Failure, TimerId};

/// A call to another actor.
///
/// ```
/// # use tidegate_sdk::prelude::*;
/// # use tidegate_sdk::test::json;
/// # #[derive(Default, Serialize, Deserialize, JsonSchema)] struct Agent {}
/// # #[actor] impl Agent {}
/// let mut ctx = Context::<Agent>::test();
/// ctx.send_by_name("tool", "hammer", "execute", &json!({"at": "nail"}));
/// let sent = &ctx.sent()[0];
/// assert_eq!((sent.actor(), sent.id(), sent.method()), ("tool", "hammer", "execute"));
/// assert_eq!(sent.input(), Some(json!({"at": "nail"})));
/// ```
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Called(pub(super) Invocation);

impl Called {
    /// The type of the actor.
    pub fn actor(&self) -> &str {
        &self.0.actor
    }

    /// Its id.
    pub fn id(&self) -> &str {
        &self.0.id
    }

    /// The method.
    pub fn method(&self) -> &str {
        &self.0.method
    }

    /// The input, `None` for a method without one.
    pub fn input(&self) -> Option<Value> {
        json_of(self.0.input.as_deref())
    }

    /// The idempotency key.
    pub fn key(&self) -> Option<&str> {
        self.0.key.as_deref()
    }

    /// How long the caller waits, in milliseconds.
    pub fn timeout(&self) -> Option<u64> {
        self.0.timeout_ms
    }
}

/// A timer that is set.
///
/// ```
/// use tidegate_sdk::prelude::*;
/// use tidegate_sdk::test::{self, json};
///
/// #[derive(Default, Serialize, Deserialize, JsonSchema)]
/// struct Egg {}
///
/// #[actor]
/// impl Egg {
///     pub fn boil(&mut self, ctx: &mut Context<Self>) {
///         ctx.after(minutes(4)).ring("soft".into());
///     }
///
///     pub fn ring(&mut self, how: String) {}
/// }
///
/// let mut egg = test::Actor::<Egg>::new("a");
/// egg.invoke("boil", None).unwrap();
/// let timers = egg.timers();
/// assert_eq!((timers[0].method(), timers[0].due(), timers[0].every()), ("ring", 240_000, None));
/// assert_eq!(timers[0].input(), Some(json!({"how": "soft"})));
/// ```
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Timer(pub(super) Armed);

impl Timer {
    /// What its method may [cancel](crate::Context::cancel) it by.
    pub fn id(&self) -> TimerId {
        TimerId(self.0.id)
    }

    /// The method that it calls.
    pub fn method(&self) -> &str {
        self.0.timer.method
    }

    /// With this input, `None` for a method without one.
    pub fn input(&self) -> Option<Value> {
        json_of(self.0.timer.input.as_deref())
    }

    /// When it is due next, in milliseconds since the Unix epoch.
    pub fn due(&self) -> u64 {
        self.0.due
    }

    /// Its interval in milliseconds, `None` for one that fires once.
    pub fn every(&self) -> Option<u64> {
        self.0.timer.repeats.then_some(self.0.timer.ms)
    }

    /// Whether it lets the actor leave memory.
    pub fn is_idle(&self) -> bool {
        self.0.timer.idle
    }

    /// Whether it survives that the actor leaves memory.
    pub fn outlives(&self) -> bool {
        self.0.timer.outlive
    }
}

/// A state that subscribers have been sent, and when.
#[derive(Debug, Clone, PartialEq)]
pub struct Update {
    pub(super) at: u64,
    pub(super) state: Value,
}

impl Update {
    /// When, in milliseconds since the Unix epoch.
    pub fn at(&self) -> u64 {
        self.at
    }

    /// The state.
    pub fn state(&self) -> &Value {
        &self.state
    }
}

/// A timer or a schedule that fired.
#[derive(Debug, Clone, PartialEq)]
pub struct Fired {
    /// The method that it called.
    pub method: String,
    /// When it was due, in milliseconds since the Unix epoch.
    pub due: u64,
    /// What became of the turn.
    pub outcome: Result<Value, Failure>,
}

pub(super) fn json_of(text: Option<&str>) -> Option<Value> {
    text.map(|text| serde_json::from_str(text).unwrap_or_else(|error| panic!("{text}: {error}")))
}

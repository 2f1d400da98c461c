//! Timers: calls of an actor to its own methods, later. [`Context::after`] and
//! [`Context::every`] give a proxy of the actor's methods; naming one sets the timer.

use std::time::Duration;

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::Context;
use crate::actor::Actor;
use crate::host::NewTimer;
use crate::proxy::{Encoded, Proxy, Way};

/// So many seconds.
///
/// ```
/// use tidegate_sdk::prelude::*;
/// assert_eq!(secs(2), millis(2_000));
/// ```
pub const fn secs(n: u64) -> Duration {
    Duration::from_secs(n)
}

/// So many milliseconds.
///
/// ```
/// use tidegate_sdk::prelude::*;
/// assert_eq!(millis(60_000), minutes(1));
/// ```
pub const fn millis(n: u64) -> Duration {
    Duration::from_millis(n)
}

/// So many minutes.
///
/// ```
/// use tidegate_sdk::prelude::*;
/// assert_eq!(minutes(2), secs(120));
/// ```
pub const fn minutes(n: u64) -> Duration {
    Duration::from_secs(n.saturating_mul(60))
}

/// Milliseconds as the contract counts them, never less than the duration.
pub(crate) fn whole_millis(duration: Duration) -> u64 {
    u64::try_from(duration.as_nanos().div_ceil(1_000_000)).unwrap_or(u64::MAX)
}

/// Names a timer of an actor, for [`Context::cancel`]. It may be kept in the state.
///
/// ```
/// use tidegate_sdk::prelude::*;
///
/// #[derive(Default, Serialize, Deserialize, JsonSchema)]
/// struct Fuse { burning: Option<TimerId> }
///
/// #[actor]
/// impl Fuse {
///     pub fn light(&mut self, ctx: &mut Context<Self>) {
///         self.burning = Some(ctx.after(secs(3)).bang());
///     }
///
///     pub fn pinch(&mut self, ctx: &mut Context<Self>) -> bool {
///         self.burning.take().is_some_and(|timer| ctx.cancel(timer))
///     }
///
///     pub fn bang(&mut self) { self.burning = None; }
/// }
/// ```
#[derive(
    Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize, JsonSchema,
)]
#[serde(transparent)]
pub struct TimerId(pub(crate) u64);

impl TimerId {
    /// The host's number for it. No timer has the number 0.
    pub fn number(self) -> u64 {
        self.0
    }
}

/// A timer or a schedule that came due.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub struct Firing {
    /// Which timer. For a schedule its [number](TimerId::number) is 0.
    pub id: TimerId,
    /// When it was due, in milliseconds since the Unix epoch.
    pub due: u64,
}

impl Firing {
    /// The firing of the timer with this number, 0 for a schedule.
    pub fn new(id: u64, due: u64) -> Self {
        Self {
            id: TimerId(id),
            due,
        }
    }
}

/// The way to invoke a method of the actor `A` by a timer.
pub struct Timer<'a, A> {
    context: &'a mut Context<A>,
    delay: Duration,
    repeats: bool,
    idle: bool,
    outlive: bool,
}

impl<A, T> Way<T> for Timer<'_, A> {
    type Returned = TimerId;
    const READS: bool = false;

    fn invoke(self, method: &'static str, input: Encoded) -> TimerId {
        let Self {
            context,
            delay,
            repeats,
            idle,
            outlive,
        } = self;
        if context.has_failed() {
            return TimerId(0);
        }
        let set = input.and_then(|input| {
            context.host().set_timer(NewTimer {
                ms: whole_millis(delay),
                repeats,
                method,
                input,
                idle,
                outlive,
            })
        });
        TimerId(context.staged(set).unwrap_or(0))
    }
}

/// How a timer relates to the life of its actor: said between [`Context::after`] or
/// [`Context::every`] and the method. The prelude has it.
///
/// A method of the actor itself that is called `idle` or `outlive` is found first; then write
/// `TimerOptions::idle(ctx.every(…)).…`.
///
/// ```
/// use tidegate_sdk::prelude::*;
///
/// #[derive(Default, Serialize, Deserialize, JsonSchema)]
/// struct Order { paid: bool, reminders: u32 }
///
/// #[actor]
/// impl Order {
///     pub fn place(&mut self, ctx: &mut Context<Self>) {
///         ctx.after(minutes(60)).outlive().expire();
///         ctx.every(secs(1)).idle().remind();
///     }
///
///     pub fn expire(&mut self) {}
///     pub fn remind(&mut self) { self.reminders += 1; }
/// }
///
/// let mut order = tidegate_sdk::test::Actor::<Order>::new("17");
/// order.invoke("place", None).unwrap();
/// order.deactivate().unwrap();
/// assert_eq!(order.timers().len(), 1, "the other was cleared");
/// ```
pub trait TimerOptions: Sized {
    /// The timer does not by itself keep the actor in memory.
    #[must_use = "the timer is set by naming a method"]
    fn idle(self) -> Self;
    /// The timer survives that the actor leaves memory, and brings it back.
    #[must_use = "the timer is set by naming a method"]
    fn outlive(self) -> Self;
}

impl<'a, A: 'a, P: Proxy<Way = Timer<'a, A>>> TimerOptions for P {
    fn idle(mut self) -> Self {
        self.way().idle = true;
        self
    }

    fn outlive(mut self) -> Self {
        self.way().outlive = true;
        self
    }
}

impl<A: Actor> Context<A> {
    /// Calls one of this actor's own methods once, `delay` from now at the earliest: name it,
    /// with its input.
    ///
    /// The call waits in the actor's queue like any other. The timer is set when the turn
    /// succeeds; one that the host refuses (a limit, a delay that is out of range) fails the
    /// turn. It is cleared when the actor leaves memory, and keeps it there until then,
    /// unless [options](TimerOptions) say otherwise.
    ///
    /// ```
    /// use tidegate_sdk::prelude::*;
    /// use tidegate_sdk::test::{self, json};
    ///
    /// #[derive(Default, Serialize, Deserialize, JsonSchema)]
    /// struct GameRoom { phase: String, round: u32 }
    ///
    /// #[actor]
    /// impl GameRoom {
    ///     pub fn start_countdown(&mut self, ctx: &mut Context<Self>) {
    ///         self.phase = "countdown".into();
    ///         ctx.after(secs(10)).begin_round(1);
    ///     }
    ///
    ///     pub fn begin_round(&mut self, round: u32) {
    ///         self.phase = "playing".into();
    ///         self.round = round;
    ///     }
    /// }
    ///
    /// let mut room = test::Actor::<GameRoom>::new("a");
    /// room.invoke("startCountdown", None).unwrap();
    /// room.advance(9_999);
    /// assert_eq!(room.state()["phase"], "countdown");
    /// room.advance(1);
    /// assert_eq!(room.state(), json!({"phase": "playing", "round": 1}));
    /// ```
    pub fn after(&mut self, delay: Duration) -> A::Methods<Timer<'_, A>> {
        self.timer(delay, false)
    }

    /// Calls one of this actor's own methods again and again: name it, with its input. An
    /// interval has at least a millisecond.
    ///
    /// Firings that a slow turn misses are not made up for: at most one waits, and the next
    /// is due at the following multiple of the interval. Else as [`after`](Self::after).
    ///
    /// ```
    /// use tidegate_sdk::prelude::*;
    /// use tidegate_sdk::test;
    ///
    /// #[derive(Default, Serialize, Deserialize, JsonSchema)]
    /// struct Clock { ticks: u64, timer: Option<TimerId> }
    ///
    /// #[actor]
    /// impl Clock {
    ///     #[activate]
    ///     fn wind(&mut self, ctx: &mut Context<Self>) {
    ///         self.timer = Some(ctx.every(millis(500)).tick(1));
    ///     }
    ///
    ///     pub fn tick(&mut self, by: u64) { self.ticks += by; }
    ///
    ///     pub fn stop(&mut self, ctx: &mut Context<Self>) -> bool {
    ///         self.timer.take().is_some_and(|timer| ctx.cancel(timer))
    ///     }
    /// }
    ///
    /// let mut clock = test::Actor::<Clock>::new("a");
    /// clock.activate().unwrap();
    /// clock.advance(2_000);
    /// clock.invoke("stop", None).unwrap();
    /// clock.advance(2_000);
    /// assert_eq!(clock.state()["ticks"], 4);
    /// ```
    pub fn every(&mut self, interval: Duration) -> A::Methods<Timer<'_, A>> {
        self.timer(interval, true)
    }

    fn timer(&mut self, delay: Duration, repeats: bool) -> A::Methods<Timer<'_, A>> {
        Proxy::over(Timer {
            context: self,
            delay,
            repeats,
            idle: false,
            outlive: false,
        })
    }
}

impl<A> Context<A> {
    /// Cancels a timer of this actor, when the turn succeeds. `false` when there is none with
    /// this id: it has fired, or was cleared. See [`TimerId`].
    pub fn cancel(&mut self, timer: TimerId) -> bool {
        let cancelled = self.host().cancel_timer(timer.0);
        self.staged(Ok(cancelled)).unwrap_or_default()
    }

    /// How late the timer or the schedule that caused the turn fired. `None` when neither did.
    ///
    /// ```
    /// use tidegate_sdk::prelude::*;
    /// # #[derive(Default, Serialize, Deserialize, JsonSchema)] struct Door {}
    /// # #[actor] impl Door {}
    /// assert_eq!(Context::<Door>::test().lateness(), None);
    /// ```
    pub fn lateness(&self) -> Option<Duration> {
        let firing = self.turn.origin.firing()?;
        Some(Duration::from_millis(
            self.turn.now.saturating_sub(firing.due),
        ))
    }
}

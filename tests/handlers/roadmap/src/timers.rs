//! "Actors can schedule delayed self-calls."

use std::time::{SystemTime, UNIX_EPOCH};

use tidegate_sdk::Origin;
use tidegate_sdk::prelude::*;

/// How far a game is.
#[derive(Default, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
pub enum Phase {
    /// People come.
    #[default]
    Lobby,
    /// It begins soon.
    Countdown,
    /// It has begun.
    Playing,
}

/// A room in which a game begins after a countdown.
#[derive(Default, Serialize, Deserialize, JsonSchema)]
pub struct GameRoom {
    phase: Phase,
}

#[actor(name = "countdownRoom")]
impl GameRoom {
    /// Begins a round a little later.
    pub fn start_countdown(&mut self, ctx: &mut Context<Self>) {
        self.phase = Phase::Countdown;
        ctx.after(millis(100)).begin_round();
    }

    /// Begins a round.
    pub fn begin_round(&mut self) {
        self.phase = Phase::Playing;
    }
}

/// What else the roadmap says about timers.
#[derive(Default, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct Alarm {
    value: i64,
    ticks: u64,
    /// Which hooks' timers have fired, and what a slow method did beside them.
    log: Vec<String>,
    /// The timer that activation sets when it is asked to.
    ticking: Option<TimerId>,
    ticks_from_activation: bool,
    /// When a slow method was over, and when the timer that fired meanwhile was due.
    worked_until: u64,
    rang_due: u64,
}

#[actor]
impl Alarm {
    #[activate]
    fn on_activate(&mut self, ctx: &mut Context<Self>) {
        ctx.after(millis(0)).idle().hear("activate".to_owned());
        if self.ticks_from_activation {
            self.ticking = Some(ctx.every(millis(10)).idle().tick());
        }
    }

    #[connect]
    fn on_connect(&mut self, ctx: &mut Context<Self>) {
        ctx.after(millis(0)).idle().hear("connect".to_owned());
    }

    #[disconnect]
    fn on_disconnect(&mut self, ctx: &mut Context<Self>) {
        ctx.after(millis(0)).idle().hear("disconnect".to_owned());
    }

    /// Writes down whose timer this is.
    pub fn hear(&mut self, from: String) {
        self.log.push(from);
    }

    /// Counts one more.
    pub fn tick(&mut self) {
        self.ticks += 1;
    }

    /// Replaces the value.
    pub fn set(&mut self, value: i64) {
        self.value = value;
    }

    /// Sets the value later.
    pub fn set_later(&mut self, ctx: &mut Context<Self>, value: i64) -> TimerId {
        ctx.after(millis(1)).set(value)
    }

    /// Sets a timer and fails.
    pub fn set_and_fail(&mut self, ctx: &mut Context<Self>) -> Result<()> {
        ctx.after(millis(0)).set(-1);
        ctx.every(millis(1)).tick();
        Err(Failure::new("alarm.no"))
    }

    /// Ticks every so often; gives the id that stops it.
    pub fn start(&mut self, ctx: &mut Context<Self>, every_ms: u64) -> TimerId {
        ctx.every(millis(every_ms)).tick()
    }

    /// Begins to tick, without keeping the actor in memory.
    pub fn start_idle(&mut self, ctx: &mut Context<Self>, every_ms: u64) -> TimerId {
        ctx.every(millis(every_ms)).idle().tick()
    }

    /// Cancels a timer; whether there was one.
    pub fn stop(&mut self, ctx: &mut Context<Self>, id: TimerId) -> bool {
        ctx.cancel(id)
    }

    /// From the next activation on a timer ticks, as a schedule in disguise.
    pub fn tick_from_activation(&mut self) {
        self.ticks_from_activation = true;
    }

    /// Takes its time.
    pub fn dawdle(&mut self, ctx: &mut Context<Self>, ms: u64) -> Result<()> {
        ctx.sleep(millis(ms))
    }

    /// Sets a timer that is due while this still runs.
    #[stream]
    pub fn work(state: &mut Live<Self>, ms: u64) -> Result<()> {
        state.ctx().after(millis(1)).ring();
        state.ctx().flush()?;
        state.ctx().sleep(millis(ms))?;
        state.log.push("worked".to_owned());
        state.worked_until = now();
        Ok(())
    }

    /// What that timer calls.
    pub fn ring(&mut self, ctx: &mut Context<Self>) {
        self.log.push("rang".to_owned());
        if let Origin::Timer(firing) = ctx.origin() {
            self.rang_due = firing.due;
        }
    }
}

/// Ticks, and has nothing else to do.
#[derive(Default, Serialize, Deserialize, JsonSchema)]
pub struct Metronome {
    ticks: u64,
}

#[actor]
impl Metronome {
    /// Ticks once a second from now on.
    pub fn start(&mut self, ctx: &mut Context<Self>) {
        ctx.every(millis(1_000)).tick();
    }

    /// Counts one more.
    pub fn tick(&mut self) {
        self.ticks += 1;
    }
}

/// The time inside a turn, which `Context::now` has from the turn's beginning.
fn now() -> u64 {
    let now = SystemTime::now().duration_since(UNIX_EPOCH);
    now.map_or(0, |now| now.as_millis() as u64)
}

//! Actors that live by the clock. `clock` sets whatever timers it is told to and writes down
//! what fires; `presence` forgets, by a schedule, who has not been heard of.

use std::collections::BTreeMap;

use serde_json::Value;
use tidegate_sdk::prelude::*;
use tidegate_sdk::{Origin, bindings};

/// What has fired, and what to set when.
#[derive(Default, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct Clock {
    firings: Vec<Firing>,
    /// The timers that a hook or a firing has set, in their order.
    set: Vec<TimerId>,
    /// What each hook sets when it runs, by its name.
    plans: BTreeMap<String, Vec<Plan>>,
}

/// A timer that fired.
#[derive(Serialize, Deserialize, JsonSchema)]
pub struct Firing {
    label: String,
    /// The timer's id; 0 when it was no timer that called.
    id: u64,
    /// When it was due.
    due: u64,
    /// When its turn began.
    now: u64,
}

/// A timer to set.
#[derive(Clone, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct Plan {
    /// What the firing is called.
    label: String,
    /// The delay, or the interval.
    ms: u64,
    /// It fires again and again.
    #[serde(default)]
    every: bool,
    #[serde(default)]
    idle: bool,
    #[serde(default)]
    outlive: bool,
    /// How long the turn of each firing takes.
    #[serde(default)]
    slow_ms: u64,
    /// The turn of each firing fails.
    #[serde(default)]
    fails: bool,
}

impl Plan {
    fn set(&self, ctx: &mut Context<Clock>) -> TimerId {
        let delay = millis(self.ms);
        let mut timer = match self.every {
            true => ctx.every(delay),
            false => ctx.after(delay),
        };
        if self.idle {
            timer = timer.idle();
        }
        if self.outlive {
            timer = timer.outlive();
        }
        timer.fired(self.label.clone(), Some(self.slow_ms), Some(self.fails))
    }
}

impl Clock {
    fn set_planned(&mut self, ctx: &mut Context<Self>, hook: &str) {
        let plans = self.plans.get(hook).into_iter().flatten();
        self.set.extend(plans.map(|plan| plan.set(ctx)));
    }
}

#[actor]
impl Clock {
    #[activate]
    fn activated(&mut self, ctx: &mut Context<Self>) {
        self.set_planned(ctx, "activate");
    }

    #[deactivate]
    fn deactivated(&mut self, ctx: &mut Context<Self>) {
        self.set_planned(ctx, "deactivate");
    }

    #[connect]
    fn connected(&mut self, ctx: &mut Context<Self>) {
        self.set_planned(ctx, "connect");
    }

    #[disconnect]
    fn disconnected(&mut self, ctx: &mut Context<Self>) {
        self.set_planned(ctx, "disconnect");
    }

    /// What the hook of this name sets from now on.
    pub fn plan(&mut self, hook: String, timers: Vec<Plan>) {
        self.plans.insert(hook, timers);
    }

    /// Sets timers; gives their ids.
    pub fn set(&self, ctx: &mut Context<Self>, timers: Vec<Plan>) -> Vec<TimerId> {
        timers.iter().map(|plan| plan.set(ctx)).collect()
    }

    /// Sets timers, and fails.
    pub fn set_and_fail(&self, ctx: &mut Context<Self>, timers: Vec<Plan>) -> Result<()> {
        for plan in timers {
            plan.set(ctx);
        }
        Err(Failure::new("clock.no"))
    }

    /// Sets so many timers of the same delay; gives the id of the last one.
    pub fn set_many(&self, ctx: &mut Context<Self>, count: u32, ms: u64) -> Option<TimerId> {
        (0..count)
            .map(|n| ctx.after(millis(ms)).fired(n.to_string(), None, None))
            .last()
    }

    /// Sets a timer that calls a method of this name with this input, whatever they are;
    /// gives its id.
    pub fn set_raw(
        &self,
        method: String,
        with: Option<Value>,
        ms: u64,
        every: Option<bool>,
    ) -> Result<u64> {
        use bindings::tidegate::realtime::timers;
        let set = match every {
            Some(true) => timers::every,
            _ => timers::after,
        };
        let input = with.map(|input| input.to_string());
        set(ms, &method, input.as_deref(), timers::Life::empty()).map_err(|failure| {
            let message = failure.message.unwrap_or_default();
            Failure::new(failure.code).message(message)
        })
    }

    /// Cancels a timer; whether there was one.
    pub fn cancel(&self, ctx: &mut Context<Self>, id: TimerId) -> bool {
        ctx.cancel(id)
    }

    /// Cancels a timer, and fails.
    pub fn cancel_and_fail(&self, ctx: &mut Context<Self>, id: TimerId) -> Result<()> {
        ctx.cancel(id);
        Err(Failure::new("clock.no"))
    }

    /// What timers call. It takes a while, and fails, if it is told to.
    pub fn fired(
        &mut self,
        ctx: &mut Context<Self>,
        label: String,
        slow_ms: Option<u64>,
        fails: Option<bool>,
    ) -> Result<()> {
        let (id, due) = match ctx.origin() {
            Origin::Timer(firing) => (firing.id.number(), firing.due),
            _ => (0, 0),
        };
        let now = ctx.now();
        self.firings.push(Firing {
            label,
            id,
            due,
            now,
        });
        ctx.sleep(millis(slow_ms.unwrap_or_default()))?;
        match fails {
            Some(true) => Err(Failure::new("clock.no")),
            _ => Ok(()),
        }
    }

    /// Keeps the actor busy.
    pub fn dawdle(&self, ctx: &mut Context<Self>, ms: u64) -> Result<()> {
        ctx.sleep(millis(ms))
    }

    /// How many firings were written down.
    pub fn count(&self) -> usize {
        self.firings.len()
    }
}

/// Who is here, as far as one knows.
#[derive(Default, Serialize, Deserialize, JsonSchema)]
pub struct Presence {
    /// When each of them was last heard of.
    users: BTreeMap<String, u64>,
    /// When each clean-up was due.
    cleanups: Vec<u64>,
}

#[actor]
impl Presence {
    /// Says that somebody is here.
    pub fn heartbeat(&mut self, ctx: &Context<Self>, user: String) {
        self.users.insert(user, ctx.now());
    }

    /// Forgets who has not been heard of for 300 ms.
    #[cron(every = "100ms")]
    pub fn cleanup(&mut self, ctx: &Context<Self>) {
        self.users
            .retain(|_, seen| ctx.now().saturating_sub(*seen) <= 300);
        if let Origin::Cron(firing) = ctx.origin() {
            self.cleanups.push(firing.due);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use tidegate_sdk::test::{Actor, json};

    #[test]
    fn a_clock_sets_what_it_is_told_to() {
        let mut clock = Actor::<Clock>::new("c");
        let timers = json!([
            {"label": "a", "ms": 5, "every": true, "idle": true},
            {"label": "b", "ms": 7, "outlive": true},
        ]);
        let plan = json!({"hook": "connect", "timers": timers});
        clock.invoke("plan", plan).unwrap();
        clock.connect("c1").unwrap();
        assert_eq!(clock.state()["set"], json!([1, 2]));
        let failing = json!({"timers": timers});
        clock.invoke("setAndFail", failing).unwrap_err();
        assert_eq!(clock.timers().len(), 2);
        assert!(clock.timers()[0].is_idle() && clock.timers()[1].outlives());
        clock.advance(10);
        let due: Vec<u64> = clock.state()["firings"]
            .as_array()
            .into_iter()
            .flatten()
            .filter_map(|firing| firing["due"].as_u64())
            .collect();
        assert_eq!(due, [5, 7, 10]);
    }

    #[test]
    fn who_is_silent_is_forgotten() {
        let mut presence = Actor::<Presence>::new("p");
        presence
            .invoke("heartbeat", json!({"user": "ann"}))
            .unwrap();
        presence.advance(300);
        assert_eq!(presence.state()["users"], json!({"ann": 0}));
        presence.advance(100);
        assert_eq!(presence.state()["users"], json!({}));
        assert_eq!(presence.state()["cleanups"], json!([100, 200, 300, 400]));
    }
}

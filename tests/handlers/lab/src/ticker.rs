//! An actor whose methods stream: the state as it changes, parts of the result, and how they
//! behave when they are cancelled, late, or fail in the middle.

use std::time::{Duration, Instant};

use tidegate_sdk::prelude::*;

/// A count, a status, and a text that grows.
#[derive(Default, Serialize, Deserialize, JsonSchema)]
pub struct Ticker {
    status: String,
    n: u64,
    text: String,
}

/// What `ticker` tells its subscribers.
#[derive(Event)]
pub enum TickerEvent {
    /// It has counted that far.
    Counted {
        /// How far.
        n: u64,
    },
}

/// Counts every so often, for so long.
fn count(state: &mut Live<Ticker>, step_ms: u64, for_ms: u64) -> Result<u64> {
    let began = Instant::now();
    state.status = "counting".to_owned();
    while began.elapsed() < Duration::from_millis(for_ms) {
        state.n += 1;
        state.ctx().sleep(millis(step_ms))?;
    }
    state.status = "done".to_owned();
    Ok(state.n)
}

#[actor(events = TickerEvent)]
impl Ticker {
    /// Counts every `stepMs` for `forMs`; subscribers see it every 16 ms. Gives the count.
    #[stream(interval = "16ms")]
    #[deadline("1m")]
    pub fn count16(state: &mut Live<Self>, step_ms: u64, for_ms: u64) -> Result<u64> {
        count(state, step_ms, for_ms)
    }

    /// As `count16`, at the default interval.
    #[stream]
    pub fn count(state: &mut Live<Self>, step_ms: u64, for_ms: u64) -> Result<u64> {
        count(state, step_ms, for_ms)
    }

    /// As `count16`, every 100 ms.
    #[stream(interval = "100ms")]
    pub fn count100(state: &mut Live<Self>, step_ms: u64, for_ms: u64) -> Result<u64> {
        count(state, step_ms, for_ms)
    }

    /// Counts without streaming.
    pub fn count_silently(
        &mut self,
        ctx: &mut Context<Self>,
        step_ms: u64,
        steps: u64,
    ) -> Result<u64> {
        for _ in 0..steps {
            self.n += 1;
            ctx.sleep(millis(step_ms))?;
        }
        Ok(self.n)
    }

    /// Counts so many steps without ever waiting.
    #[stream(interval = "16ms")]
    pub fn compute(state: &mut Live<Self>, for_ms: u64) -> u64 {
        let began = Instant::now();
        while began.elapsed() < Duration::from_millis(for_ms) {
            state.n += 1;
        }
        state.n
    }

    /// Sets `status` to `thinking`, waits, sets it to `done`.
    #[stream]
    #[deadline("1m")]
    pub fn think(state: &mut Live<Self>, ms: u64) -> Result<()> {
        state.status = "thinking".to_owned();
        state.ctx().sleep(millis(ms))?;
        state.status = "done".to_owned();
        Ok(())
    }

    /// Counts so many steps and tells of each; fails with `ticker.no` after the last one.
    #[stream(interval = "16ms")]
    pub fn fail_after(state: &mut Live<Self>, steps: u64, step_ms: u64) -> Result<()> {
        for _ in 0..steps {
            state.ctx().sleep(millis(step_ms))?;
            state.n += 1;
            let n = state.n;
            state.ctx().emit(TickerEvent::Counted { n });
        }
        Err(Failure::new("ticker.no"))
    }

    /// As `fail_after`, but panics.
    #[stream(interval = "16ms")]
    pub fn panic_after(state: &mut Live<Self>, steps: u64, step_ms: u64) -> Result<()> {
        for _ in 0..steps {
            state.n += 1;
            state.ctx().sleep(millis(step_ms))?;
        }
        panic!("the ticker was told to");
    }

    /// Appends a token so many times, by place; gives the length of the text.
    #[stream(interval = "16ms")]
    #[deadline("1m")]
    pub fn write(
        state: &mut Tracked<Self>,
        ctx: &mut Context<Self>,
        token: String,
        times: u32,
        step_ms: u64,
    ) -> Result<usize> {
        for _ in 0..times {
            state.append(["text"], &token)?;
            if step_ms > 0 {
                ctx.sleep(millis(step_ms))?;
            }
        }
        Ok(state.get::<String>(["text"])?.unwrap_or_default().len())
    }

    /// Empties the text.
    pub fn erase(&mut self) {
        self.text.clear();
    }

    /// Sends so many chunks, `{"i", "filler"}`, then returns their number.
    pub fn chunks(
        &self,
        ctx: &mut Context<Self>,
        times: u32,
        step_ms: Option<u64>,
        bytes: Option<usize>,
    ) -> Result<u32> {
        let filler = "z".repeat(bytes.unwrap_or_default());
        for i in 0..times {
            ctx.chunk(&serde_json::json!({"i": i, "filler": filler}))?;
            if let Some(ms) = step_ms {
                ctx.sleep(millis(ms))?;
            }
        }
        Ok(times)
    }

    /// As `chunks`, and then fails with `ticker.no`.
    pub fn chunks_and_fail(&mut self, ctx: &mut Context<Self>, times: u32) -> Result<()> {
        self.n += 1;
        self.chunks(ctx, times, None, None)?;
        Err(Failure::new("ticker.no"))
    }

    /// Counts every `stepMs` until its caller cancels, or for `forMs`; gives how far it came
    /// in this call.
    #[stream(interval = "16ms")]
    #[deadline("1m")]
    pub fn until_cancelled(state: &mut Live<Self>, step_ms: u64, for_ms: u64) -> Result<u64> {
        let began = Instant::now();
        let first = state.n;
        while !state.ctx().cancelled() && began.elapsed() < Duration::from_millis(for_ms) {
            state.n += 1;
            state.ctx().sleep(millis(step_ms))?;
        }
        state.status = "ended".to_owned();
        Ok(state.n - first)
    }

    /// Never ends by itself, and does not ask whether it should.
    #[stream(interval = "16ms")]
    #[deadline("1m")]
    pub fn forever(state: &mut Live<Self>, step_ms: u64) -> Result<()> {
        loop {
            state.n += 1;
            state.ctx().sleep(millis(step_ms))?;
        }
    }

    /// Waits; it has 300 ms to do so.
    #[deadline("300ms")]
    pub fn hurry(&mut self, ctx: &mut Context<Self>, ms: u64) -> Result<u64> {
        self.n += 1;
        ctx.sleep(millis(ms))?;
        Ok(self.n)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use tidegate_sdk::test::{Actor, json};

    #[test]
    fn what_it_thinks_is_seen_before_it_is_done() {
        let mut ticker = Actor::<Ticker>::new("t");
        ticker.invoke("think", json!({"ms": 5_000})).unwrap();
        let seen = ticker.updates();
        assert_eq!(
            (seen[0].at(), &seen[0].state()["status"]),
            (50, &json!("thinking"))
        );
        assert_eq!(
            (seen[1].at(), &seen[1].state()["status"]),
            (5_000, &json!("done"))
        );
    }

    #[test]
    fn a_failure_in_the_middle_keeps_what_was_seen() {
        let mut ticker = Actor::<Ticker>::new("t");
        let input = json!({"steps": 5, "stepMs": 10});
        ticker.invoke("failAfter", input).unwrap_err();
        assert_eq!(ticker.state()["n"], 4);
        assert_eq!(ticker.emitted().len(), 4);
    }

    #[test]
    fn chunks_leave_one_by_one() {
        let mut ticker = Actor::<Ticker>::new("t");
        assert_eq!(ticker.invoke("chunks", json!({"times": 3})), Ok(json!(3)));
        let sent: Vec<_> = ticker
            .chunks()
            .iter()
            .map(|chunk| chunk["i"].clone())
            .collect();
        assert_eq!(sent, [0, 1, 2]);
    }
}

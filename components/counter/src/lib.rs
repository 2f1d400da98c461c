//! A shared counter: the smallest useful actor.

use tidegate_sdk::prelude::*;

/// How far apart milestones are.
const MILESTONE: i64 = 100;

/// A counter that everybody who looks at it shares.
#[derive(Default, Serialize, Deserialize, JsonSchema)]
pub struct Counter {
    count: i64,
}

/// The count has reached or passed a multiple of 100, upwards.
#[derive(Event, Serialize, JsonSchema)]
pub struct Milestone {
    /// The multiple.
    pub reached: i64,
}

/// Why a counter refuses.
#[derive(Failure)]
#[failure(prefix = "counter")]
pub enum CounterError {
    /// The count would leave the range of a 64-bit integer.
    #[failure(message = "{count} and {by} more is too much for this counter")]
    Overflow {
        /// The count so far.
        count: i64,
        /// What was to be added.
        by: i64,
    },
}

#[actor(events = Milestone)]
impl Counter {
    /// Adds to the count and returns it.
    pub fn increment(&mut self, ctx: &mut Context<Self>, by: i64) -> Result<i64, CounterError> {
        let before = self.count;
        self.count = before
            .checked_add(by)
            .ok_or(CounterError::Overflow { count: before, by })?;
        if self.count.div_euclid(MILESTONE) > before.div_euclid(MILESTONE) {
            let reached = self.count - self.count.rem_euclid(MILESTONE);
            ctx.emit(Milestone { reached });
        }
        Ok(self.count)
    }

    /// The count.
    pub fn value(&self) -> i64 {
        self.count
    }

    /// Starts again at 0, and returns what the count was.
    pub fn reset(&mut self) -> i64 {
        std::mem::take(&mut self.count)
    }
}

tidegate_sdk::export!(Counter);

#[cfg(test)]
mod tests {
    use super::*;
    use tidegate_sdk::test::{self, Emitted, json};

    fn counter() -> test::Actor<Counter> {
        test::Actor::new("a")
    }

    #[test]
    fn increments_add_up() {
        let mut counter = counter();
        assert_eq!(counter.invoke("increment", json!({"by": 2})), Ok(json!(2)));
        assert_eq!(
            counter.invoke("increment", json!({"by": -5})),
            Ok(json!(-3))
        );
        assert_eq!(counter.invoke("value", None), Ok(json!(-3)));
    }

    #[test]
    fn a_reset_returns_the_old_count() {
        let mut counter = counter();
        counter.invoke("increment", json!({"by": 7})).unwrap();
        assert_eq!(counter.invoke("reset", None), Ok(json!(7)));
        assert_eq!(counter.state(), json!({"count": 0}));
    }

    #[test]
    fn passing_a_hundred_is_a_milestone() {
        let mut counter = counter();
        counter.invoke("increment", json!({"by": 99})).unwrap();
        assert_eq!(counter.emitted(), []);
        counter.invoke("increment", json!({"by": 151})).unwrap();
        let reached = Emitted::everyone(Milestone { reached: 200 });
        assert_eq!(counter.emitted(), [reached]);
    }

    #[test]
    fn going_down_is_no_milestone() {
        let mut counter = counter();
        counter.invoke("increment", json!({"by": -250})).unwrap();
        assert_eq!(counter.emitted(), []);
    }

    #[test]
    fn an_overflow_fails_and_changes_nothing() {
        let mut counter = counter();
        counter
            .invoke("increment", json!({"by": i64::MAX}))
            .unwrap();
        let failure = counter.invoke("increment", json!({"by": 1})).unwrap_err();
        assert_eq!(failure.code(), "counter.overflow");
        assert_eq!(failure.params()["by"], 1);
        assert_eq!(counter.state(), json!({"count": i64::MAX}));
    }
}

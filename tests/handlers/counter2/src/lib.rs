//! The next version of the example `counter`: the same actor type and the same state, one
//! method more, one member hidden that was not.

use tidegate_sdk::prelude::*;

/// A counter that remembers in silence how often it was asked.
#[derive(Default, Serialize, Deserialize, JsonSchema)]
pub struct Counter {
    count: i64,
    #[serde(default)]
    asked: u64,
}

#[actor(hidden("asked"))]
impl Counter {
    /// Adds to the count and returns it.
    pub fn increment(&mut self, by: i64) -> i64 {
        self.count += by;
        self.count
    }

    /// The count.
    pub fn value(&self) -> i64 {
        self.count
    }

    /// Which version of the counter this is.
    pub fn version(&mut self) -> u64 {
        self.asked += 1;
        2
    }
}

tidegate_sdk::export!(Counter);

//! "Actors can declare recurring schedules as part of their definition."

use std::collections::BTreeMap;

use tidegate_sdk::prelude::*;

/// For how long somebody may be silent, in milliseconds.
const SILENCE: u64 = 300;

/// Who is here.
#[derive(Default, Serialize, Deserialize, JsonSchema)]
pub struct Presence {
    users: BTreeMap<String, u64>,
}

#[actor]
impl Presence {
    /// Says that the caller is here.
    pub fn heartbeat(&mut self, ctx: &Context<Self>) {
        if let Some(connection) = ctx.connection() {
            self.users.insert(connection.to_owned(), ctx.now());
        }
    }

    /// Forgets who has been silent for too long.
    #[cron(every = "100ms")]
    pub fn cleanup(&mut self, ctx: &Context<Self>) {
        let now = ctx.now();
        self.users
            .retain(|_, last_seen| now.saturating_sub(*last_seen) <= SILENCE);
    }
}

/// How often the clock has called.
#[derive(Default, Serialize, Deserialize, JsonSchema)]
pub struct Pulse {
    beats: u64,
}

#[actor]
impl Pulse {
    /// Counts. The clock has no input to give, so nothing more than an option may be asked for.
    #[cron(every = "250ms")]
    pub fn beat(&mut self, by: Option<u64>) {
        self.beats += by.unwrap_or(1);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use tidegate_sdk::test::{Actor, json};

    #[test]
    fn who_is_heard_of_is_kept() {
        let mut presence = Actor::<Presence>::new("p");
        presence.from("ann").invoke("heartbeat", None).unwrap();
        presence.advance(SILENCE);
        presence.from("ben").invoke("heartbeat", None).unwrap();
        presence.advance(100);
        assert_eq!(presence.state()["users"], json!({"ben": SILENCE}));
    }
}

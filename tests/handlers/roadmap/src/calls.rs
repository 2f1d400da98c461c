//! "Actors can call methods on other actor instances from within a handler."

use std::hash::{BuildHasher, RandomState};

use serde_json::json;
use tidegate_sdk::prelude::*;

/// Where players wait.
#[derive(Default, Serialize, Deserialize, JsonSchema)]
pub struct Lobby {
    players: Vec<String>,
}

/// The match that began.
#[derive(Serialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct Started {
    match_id: String,
}

#[actor]
impl Lobby {
    /// Waits for a match.
    pub fn join(&mut self, name: String) {
        self.players.push(name);
    }

    /// Begins a match with all who wait.
    pub fn start_match(&mut self, ctx: &mut Context<Self>) -> Result<Started> {
        let match_id = format!("{:016x}", RandomState::new().hash_one(ctx.id()));
        ctx.call::<Match>(&match_id)
            .initialize(self.players.clone())?;
        self.players.clear();
        Ok(Started { match_id })
    }
}

/// A match.
#[derive(Default, Serialize, Deserialize, JsonSchema)]
pub struct Match {
    players: Vec<String>,
}

#[actor]
impl Match {
    /// Seats the players; gives their number.
    pub fn initialize(&mut self, players: Vec<String>) -> Result<usize> {
        if players.is_empty() {
            return Err(Failure::new("match.no-players").message("a match needs players"));
        }
        self.players = players;
        Ok(self.players.len())
    }
}

/// Has others work.
#[derive(Default, Serialize, Deserialize, JsonSchema)]
pub struct Manager {
    items: Vec<String>,
}

#[actor]
impl Manager {
    /// Waits for a search, and has its results processed in the background.
    pub fn research(&mut self, ctx: &mut Context<Self>, query: String) -> Result<Vec<String>> {
        // Request/response: waits for the result.
        let found: Vec<String> =
            ctx.call_by_name("researcher", "topic", "search", &json!({"query": query}))?;
        self.items.extend(found.iter().cloned());
        // Fire and forget: works in the background.
        ctx.send_by_name("worker", "abc", "process", &json!({"data": self.items}));
        Ok(found)
    }

    /// Tells five workers to start, without blocking.
    pub fn delegate(&mut self, ctx: &mut Context<Self>, data: Vec<String>) {
        for n in 1..=5 {
            ctx.send::<Worker>(n.to_string()).process(data.clone());
        }
    }

    /// Calls an actor type that nobody serves.
    pub fn consult(&mut self, ctx: &mut Context<Self>) -> Result<String> {
        ctx.call_by_name("oracle", "delphi", "ask", &())
    }
}

/// Searches what it is asked for.
#[derive(Default, Serialize, Deserialize, JsonSchema)]
pub struct Researcher {
    queries: u32,
}

#[actor]
impl Researcher {
    /// What there is on this.
    pub fn search(&mut self, query: String) -> Vec<String> {
        self.queries += 1;
        vec![
            format!("{query} in general"),
            format!("{query} in particular"),
        ]
    }
}

/// Works, slowly.
#[derive(Default, Serialize, Deserialize, JsonSchema)]
pub struct Worker {
    processed: Vec<String>,
}

#[actor]
impl Worker {
    /// Takes its time over this.
    pub fn process(&mut self, ctx: &mut Context<Self>, data: Vec<String>) -> Result<()> {
        ctx.sleep(secs(1))?;
        self.processed = data;
        Ok(())
    }
}

/// Plays ball with another one of its kind.
#[derive(Default, Serialize, Deserialize, JsonSchema)]
pub struct Rally {
    hits: u32,
}

#[actor]
impl Rally {
    /// Returns the ball so many times, without waiting.
    pub fn hit(&mut self, ctx: &mut Context<Self>, partner: String, left: u32) {
        self.hits += 1;
        if left > 0 {
            let own = ctx.id().to_owned();
            ctx.send::<Self>(partner).hit(own, left - 1);
        }
    }

    /// Hits, and waits for the partner.
    pub fn hit_and_wait(
        &mut self,
        ctx: &mut Context<Self>,
        partner: String,
        left: u32,
    ) -> Result<u32> {
        self.hits += 1;
        match left {
            0 => Ok(0),
            _ => {
                let own = ctx.id().to_owned();
                Ok(ctx.call::<Self>(partner).hit_and_wait(own, left - 1)? + 1)
            }
        }
    }
}

//! Calls between actors whose types do not fit.

#![allow(unused_variables)]

use tidegate_sdk::prelude::*;

#[derive(Default, Serialize, Deserialize, JsonSchema)]
struct Match {}

#[derive(Serialize, JsonSchema)]
struct Score {}

#[actor]
impl Match {
    pub fn initialize(&mut self, players: Vec<String>) -> u32 {
        0
    }
    pub fn score(&self) -> Result<Score> {
        Ok(Score {})
    }
}

#[derive(Default, Serialize, Deserialize, JsonSchema)]
struct Lobby {}

#[actor]
impl Lobby {
    pub fn start(&mut self, ctx: &mut Context<Self>) -> Result<()> {
        ctx.call::<Match>("m").begin()?;
        ctx.call::<Match>("m").initialize(7)?;
        let players: String = ctx.call::<Match>("m").initialize(vec![])?;
        ctx.call::<Match>("m").score()?;
        ctx.send::<Match>("m").score();
        ctx.call::<String>("m").len();
        Ok(())
    }
}

fn main() {}

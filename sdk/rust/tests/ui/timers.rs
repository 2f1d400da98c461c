//! What a timer cannot be set to.

#![allow(unused_variables)]

use tidegate_sdk::prelude::*;

#[derive(Default, Serialize, Deserialize, JsonSchema)]
struct Game {}

#[derive(Deserialize, JsonSchema)]
struct OneWay {}

#[actor]
impl Game {
    pub fn start(&mut self, ctx: &mut Context<Self>) {
        ctx.after(secs(10)).begin_rund();
        ctx.after(secs(10)).begin_round("one");
        ctx.every(500).tick();
        ctx.after(secs(1)).one_way(OneWay {});
        ctx.after(secs(1)).connected();
    }

    pub fn begin_round(&mut self, round: u32) {}
    pub fn tick(&mut self) {}
    pub fn one_way(&mut self, input: OneWay) {}

    #[connect]
    fn connected(&mut self) {}
}

fn main() {}

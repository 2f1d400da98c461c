//! Streaming methods that cannot be.

#![allow(unused_variables)]

use tidegate_sdk::prelude::*;

#[derive(Default, Serialize, Deserialize, JsonSchema)]
struct Agent {}

#[actor]
impl Agent {
    #[stream]
    pub fn on_self(&mut self) {}

    #[stream]
    pub fn reads_only(state: &Tracked<Self>) {}

    pub fn unmarked(state: &mut Live<Self>) {}

    #[stream]
    pub fn shared(state: &Live<Self>) {}

    #[stream]
    pub fn with_context(state: &mut Live<Self>, ctx: &mut Context<Self>) {}

    #[stream(interval = "2m")]
    pub fn too_slow(state: &mut Live<Self>) {}

    #[stream(every = "16ms")]
    pub fn misspelt(state: &mut Live<Self>) {}

    #[connect]
    fn hook(state: &mut Live<Self>) {}

    pub fn late(&mut self, state: &mut Live<Self>) {}
}

fn main() {}

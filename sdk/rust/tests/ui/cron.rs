//! Schedules that cannot be.

#![allow(unused_variables)]

use tidegate_sdk::prelude::*;

#[derive(Default, Serialize, Deserialize, JsonSchema)]
struct Game {}

#[actor]
impl Game {
    #[cron]
    pub fn never(&mut self) {}

    #[cron(every = "30 seconds")]
    pub fn no_unit(&mut self) {}

    #[cron(every = "10ms")]
    pub fn too_often(&mut self) {}

    #[cron(schedule = "0 3 * *")]
    pub fn four_fields(&mut self) {}

    #[cron(at = "noon")]
    pub fn at(&mut self) {}

    #[cron(every = "1s", schedule = "0 3 * * *")]
    pub fn both(&mut self) {}

    #[cron(every = "30s")]
    pub fn with_input(&mut self, ctx: &Context<Self>, how: Option<u32>, far: u32) {}

    #[cron(every = "30s")]
    pub fn with_whole_input(&mut self, input: String) {}

    #[cron(every = "30s")]
    fn private(&mut self) {}

    #[connect]
    #[deadline("1s")]
    fn hook(&mut self) {}

    #[deadline]
    pub fn no_deadline(&mut self) {}

    #[deadline("2d")]
    pub fn too_long(&mut self) {}

    #[cron(every = "1m")]
    #[cron(every = "2m")]
    pub fn twice(&mut self) {}
}

fn main() {}

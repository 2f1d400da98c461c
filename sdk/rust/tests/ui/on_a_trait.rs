use tidegate_sdk::prelude::*;

#[derive(Default, Serialize, Deserialize, JsonSchema)]
struct Room {
    names: Vec<String>,
}

trait Open {
    fn open(&mut self);
}

#[actor]
impl Open for Room {
    fn open(&mut self) {}
}

fn main() {}

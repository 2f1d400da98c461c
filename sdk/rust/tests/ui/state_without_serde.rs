use tidegate_sdk::prelude::*;

#[derive(Default)]
struct Room {
    names: Vec<String>,
}

#[actor]
impl Room {}

fn main() {}

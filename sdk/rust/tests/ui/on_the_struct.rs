use tidegate_sdk::prelude::*;

#[derive(Default, Serialize, Deserialize, JsonSchema)]
struct Room {
    names: Vec<String>,
}

#[actor]
struct Hall {
    names: Vec<String>,
}

fn main() {}

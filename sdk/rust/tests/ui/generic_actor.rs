use tidegate_sdk::prelude::*;

#[derive(Default, Serialize, Deserialize, JsonSchema)]
struct Room<T> {
    names: Vec<T>,
}

#[actor]
impl<T> Room<T> {}

fn main() {}

use tidegate_sdk::prelude::*;

#[derive(Default, Serialize, Deserialize, JsonSchema)]
struct Room {
    names: Vec<String>,
}

mod other {
    use super::*;

    #[derive(Default, Serialize, Deserialize, JsonSchema)]
    pub struct Room {}

    #[actor]
    impl Room {}
}

#[actor]
impl Room {}

tidegate_sdk::export!(Room, other::Room);

fn main() {}

use tidegate_sdk::prelude::*;

#[derive(Default, Serialize, Deserialize, JsonSchema)]
struct Room {}

#[actor(version = 1)]
impl Room {
    #[migrate]
    fn migrate(_: &Stored) -> Self {
        Room {}
    }
}

#[derive(Default, Serialize, Deserialize, JsonSchema)]
struct Counter {}

#[actor]
impl Counter {}

mod one {
    tidegate_sdk::export!(super::Counter, super::Room);
}

mod other {
    tidegate_sdk::export!(migrating super::Counter, migrating super::Room);
}

mod right {
    tidegate_sdk::export!(super::Counter, migrating super::Room);
}

fn main() {}

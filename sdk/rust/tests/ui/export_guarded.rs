use tidegate_sdk::prelude::*;

#[derive(Default, Serialize, Deserialize, JsonSchema)]
struct Room {}

#[actor]
impl Room {
    #[authorize]
    fn may_see(&self) -> Result<()> {
        Ok(())
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
    tidegate_sdk::export!(guarded super::Counter, guarded super::Room);
}

fn main() {}

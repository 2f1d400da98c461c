use tidegate_sdk::prelude::*;

#[derive(Default, Serialize, Deserialize, JsonSchema)]
struct Receiver {}

#[actor(version = 1)]
impl Receiver {
    #[migrate]
    fn migrate(&self, stored: &Stored) -> Self {
        Receiver {}
    }
}

#[derive(Default, Serialize, Deserialize, JsonSchema)]
struct Nothing {}

#[actor(version = 1)]
impl Nothing {
    #[migrate]
    fn migrate(stored: &Stored) {}
}

#[derive(Default, Serialize, Deserialize, JsonSchema)]
struct Other {}

#[actor]
impl Other {
    #[migrate]
    fn migrate(stored: &Stored) -> u32 {
        1
    }
}

#[derive(Default, Serialize, Deserialize, JsonSchema)]
struct Twice {}

#[actor]
impl Twice {
    #[migrate]
    fn one(stored: &Stored) -> Self {
        Twice {}
    }

    #[migrate]
    fn two(stored: &Stored) -> Self {
        Twice {}
    }
}

#[derive(Default, Serialize, Deserialize, JsonSchema)]
struct Low {}

#[actor(version = -1)]
impl Low {}

#[self_test]
fn asks(this: u32) {}

#[self_test]
async fn waits() {}

fn main() {}

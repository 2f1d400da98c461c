use tidegate_sdk::prelude::*;

#[derive(Default, Serialize, Deserialize, JsonSchema)]
struct Room {
    names: Vec<String>,
}

#[actor]
impl Room {
    #[connect]
    fn arrived(&mut self) {}

    #[connect]
    fn arrived_too(&mut self) {}

    #[disconnect]
    fn left(&mut self, name: String) {}

    #[activate]
    #[deactivate]
    fn both(&mut self) {}

    #[activate]
    fn no_state() {}

    #[deactivate]
    #[method(name = "end")]
    fn hook_and_method(&mut self) {}
}

fn main() {}

use tidegate_sdk::prelude::*;

#[derive(Default, Serialize, Deserialize, JsonSchema)]
struct Room {
    names: Vec<String>,
}

#[actor]
impl Room {
    #[authorize]
    fn may_see(&self, who: &Subscriber) -> bool {
        true
    }

    #[project]
    fn view(&self, who: &Viewer) -> Option<View> {
        None
    }
}

fn main() {}

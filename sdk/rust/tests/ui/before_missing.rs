use tidegate_sdk::prelude::*;

#[derive(Default, Serialize, Deserialize, JsonSchema)]
struct Room {
    names: Vec<String>,
}

struct Member {
    name: String,
}

#[actor]
impl Room {
    pub fn enter(&mut self, #[before] member: Member) {
        self.names.push(member.name);
    }
}

fn main() {}

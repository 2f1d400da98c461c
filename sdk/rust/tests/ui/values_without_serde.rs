use tidegate_sdk::prelude::*;

#[derive(Default, Serialize, Deserialize, JsonSchema)]
struct Room {
    names: Vec<String>,
}

struct Name(String);

#[actor]
impl Room {
    pub fn replace(&mut self, input: Name) {
        self.names = vec![input.0];
    }

    pub fn first(&self) -> Name {
        Name(self.names[0].clone())
    }
}

fn main() {}

use tidegate_sdk::prelude::*;

#[derive(Default, Serialize, Deserialize, JsonSchema)]
struct Room {
    names: Vec<String>,
}

#[actor]
impl Room {
    pub fn größe(&self) -> usize {
        self.names.len()
    }

    #[method(name = "9 lives")]
    pub fn lives(&self) {}

    pub fn add_name(&mut self) {}

    #[method(name = "addName")]
    pub fn add(&mut self) {}

    #[method(rename = "x")]
    pub fn unknown_argument(&self) {}

    #[method(name = "y")]
    fn private(&self) {}
}

fn main() {}

use tidegate_sdk::prelude::*;

#[derive(Default, Serialize, Deserialize, JsonSchema)]
struct Room {
    names: Vec<String>,
}

#[actor]
impl Room {
    pub async fn wait(&self) {}

    pub fn add<T: ToString>(&mut self, name: T) {}

    pub fn add_some(&mut self, names: impl Iterator<Item = String>) {}

    pub fn close(self) {}

    pub fn shelve(self: Box<Self>) {}

    pub unsafe fn poke(&mut self) {}

    pub fn first(&self) -> &str {
        &self.names[0]
    }
}

fn main() {}

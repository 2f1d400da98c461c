use tidegate_sdk::prelude::*;

#[derive(Default, Serialize, Deserialize, JsonSchema)]
struct Room {
    names: Vec<String>,
}

struct Full;

#[actor]
impl Room {
    pub fn add(&mut self, name: String) -> Result<(), Full> {
        if self.names.len() == 4 {
            return Err(Full);
        }
        self.names.push(name);
        Ok(())
    }

    #[connect]
    fn arrived(&mut self) -> usize {
        self.names.len()
    }
}

fn main() {}

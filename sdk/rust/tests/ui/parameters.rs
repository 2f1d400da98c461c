use tidegate_sdk::prelude::*;

#[derive(Default, Serialize, Deserialize, JsonSchema)]
struct Room {
    names: Vec<String>,
}

#[actor]
impl Room {
    pub fn by_reference(&mut self, name: &str) {}

    pub fn by_pattern(&mut self, (first, last): (String, String)) {}

    pub fn whole_and_parts(&mut self, input: String, name: String) {}

    pub fn context_by_value(&mut self, ctx: Context<Self>) {}

    pub fn two_contexts(&mut self, a: &Context<Self>, b: &Context<Self>) {}

    pub fn late_state(&mut self, state: &mut Tracked<Self>) {}
}

fn main() {}

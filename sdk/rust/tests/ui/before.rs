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
    #[before]
    fn member(&mut self, ctx: &Context<Self>) -> Result<Member> {
        Err(Failure::new("room.closed"))
    }

    #[before]
    fn another(&self, who: &Subscriber) -> Result<Member> {
        Err(Failure::new("room.closed"))
    }

    #[before]
    #[method(name = "guard")]
    fn guard_and_method(&self) {}

    #[before]
    #[cfg(any())]
    fn sometimes(&self) {}

    pub fn mutable(&self, #[before] member: &mut Member) {}

    pub fn twice(&self, #[before] a: &Member, #[before] b: &Member) {}

    pub fn of_the_input(
        &self,
        #[before]
        #[serde(default)]
        member: &Member,
    ) {
    }

    fn private(&self, #[before] member: &Member) {}
}

fn main() {}

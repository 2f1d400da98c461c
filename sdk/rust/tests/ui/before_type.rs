use tidegate_sdk::prelude::*;

#[derive(Default, Serialize, Deserialize, JsonSchema)]
struct Room {
    names: Vec<String>,
}

struct Member {
    name: String,
}

struct Guest;

#[actor]
impl Room {
    #[before]
    fn member(&self, ctx: &Context<Self>) -> Result<Member> {
        Ok(Member { name: ctx.user()?.unwrap_or_default() })
    }

    pub fn enter(&mut self, #[before] member: Member) {
        self.names.push(member.name);
    }

    pub fn look(&self, #[before] guest: &Guest) {}

    pub fn name(&self, #[before] name: String) {}
}

fn main() {}

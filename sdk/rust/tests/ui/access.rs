use tidegate_sdk::prelude::*;

#[derive(Default, Serialize, Deserialize, JsonSchema)]
struct Room {
    names: Vec<String>,
}

#[actor]
impl Room {
    #[authorize]
    fn changes(state: &mut Tracked<Self>) -> Result<()> {
        Ok(())
    }

    #[authorize]
    fn has_no_turn(&self, ctx: &Context<Self>) -> Result<()> {
        Ok(())
    }

    #[project]
    fn takes_input(&self, who: &Viewer, name: String) -> View {
        View::Whole
    }

    #[project]
    fn one(&self) -> View {
        View::Whole
    }

    #[project]
    fn two(&self) -> View {
        View::Nothing
    }

    #[authorize]
    fn no_state(who: &Subscriber) -> Result<()> {
        Ok(())
    }
}

fn main() {}

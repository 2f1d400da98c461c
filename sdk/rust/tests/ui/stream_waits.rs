//! What would be changed behind the back of the subscribers does not compile.

use tidegate_sdk::prelude::*;

#[derive(Default, Serialize, Deserialize, JsonSchema)]
struct Agent {
    status: String,
}

#[actor]
impl Agent {
    #[stream]
    pub fn start(state: &mut Live<Self>) -> Result<()> {
        let status = &mut state.status;
        state.ctx().sleep(secs(5))?;
        status.push_str("done");
        Ok(())
    }
}

fn main() {}

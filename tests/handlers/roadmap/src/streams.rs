//! "Mark a method as streaming … The runtime automatically broadcasts state patches at a
//! regular interval while the handler executes."

use std::time::Instant;

use tidegate_sdk::prelude::*;

/// Writes what a model says.
#[derive(Default, Serialize, Deserialize, JsonSchema)]
pub struct Writer {
    output: String,
    status: String,
}

/// Says so many tokens, one each so many milliseconds.
#[derive(Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct Model {
    tokens: u32,
    token_ms: u64,
}

impl Model {
    fn says(&self) -> impl Iterator<Item = String> + use<> {
        (0..self.tokens).map(|n| format!("{n} "))
    }
}

fn write(state: &mut Live<Writer>, model: &Model) -> Result<u64> {
    let began = Instant::now();
    state.status = "thinking".into();
    for token in model.says() {
        state.ctx().sleep(millis(model.token_ms))?;
        state.output += &token;
    }
    state.status = "done".into();
    Ok(began.elapsed().as_millis() as u64)
}

#[actor]
impl Writer {
    /// A regular method: one patch, on completion.
    pub fn reset(&mut self) {
        self.output.clear();
        self.status = "idle".into();
    }

    /// A streaming method: patches come by themselves as the state changes. Gives how many
    /// milliseconds it took, as all of these do.
    #[stream]
    pub fn generate(state: &mut Live<Self>, input: Model) -> Result<u64> {
        write(state, &input)
    }

    /// Writes as often as games are drawn.
    #[stream(interval = "16ms")]
    pub fn generate16(state: &mut Live<Self>, input: Model) -> Result<u64> {
        write(state, &input)
    }

    /// Writes with less chatter.
    #[stream(interval = "100ms")]
    pub fn generate100(state: &mut Live<Self>, input: Model) -> Result<u64> {
        write(state, &input)
    }

    /// Appends a token, in a turn of its own.
    pub fn append(state: &mut Tracked<Self>, token: String) -> Result<()> {
        state.append(["output"], &token)
    }
}

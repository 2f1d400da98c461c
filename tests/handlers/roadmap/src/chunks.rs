//! "Streaming RPC lets a method send partial return values to the specific caller."

use tidegate_sdk::prelude::*;

/// Answers in parts.
#[derive(Default, Serialize, Deserialize, JsonSchema)]
pub struct Agent {
    prompts: u32,
}

#[actor]
impl Agent {
    /// Greets, whatever it is asked.
    pub fn generate(&mut self, ctx: &mut Context<Self>, prompt: String) -> Result<String> {
        if prompt.is_empty() {
            return Err(Failure::new("agent.no-prompt"));
        }
        self.prompts += 1;
        let mut text = String::new();
        for token in ["Hello", " world"] {
            ctx.chunk(token)?;
            text += token;
        }
        Ok(text)
    }
}

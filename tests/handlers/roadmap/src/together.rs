//! "These features work together naturally": a run of an agent, with a model that says what
//! a test wants in the place of a real one.

use tidegate_sdk::prelude::*;

/// How far a run is.
#[derive(Clone, Copy, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
pub enum Status {
    /// Nobody has asked.
    #[default]
    Waiting,
    /// The model speaks, or a tool works.
    Running,
    /// It is over.
    Done,
}

/// Something that was said.
#[derive(Serialize, Deserialize, JsonSchema)]
pub struct Message {
    role: String,
    content: String,
}

/// One run.
#[derive(Default, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct AgentRun {
    messages: Vec<Message>,
    status: Status,
    timed_out: bool,
}

/// What the model answers: words, and tools to call.
#[derive(Deserialize, JsonSchema)]
pub struct Answer {
    words: Vec<String>,
    tools: Vec<String>,
}

#[actor]
impl AgentRun {
    /// Streams the model's answer into the state, then calls the tools that it asks for.
    #[stream]
    pub fn start(
        state: &mut Live<Self>,
        prompt: String,
        answer: Answer,
        timeout_ms: u64,
    ) -> Result<()> {
        state.status = Status::Running;
        // Set first and not last, so that it also ends a run which fails.
        state.ctx().after(millis(timeout_ms)).timeout();
        state.say("user", &prompt);
        state.say("assistant", "");
        for word in &answer.words {
            state.ctx().sleep(millis(150))?;
            if let Some(last) = state.messages.last_mut() {
                last.content += word;
            }
        }
        for tool in &answer.tools {
            let found: String = state.ctx().call::<Tool>(tool).execute(prompt.clone())?;
            state.say("tool", &found);
        }
        state.status = Status::Done;
        Ok(())
    }

    /// Ends a run that is not over yet.
    pub fn timeout(&mut self) {
        if self.status == Status::Running {
            self.status = Status::Done;
            self.timed_out = true;
        }
    }
}

impl AgentRun {
    fn say(&mut self, role: &str, content: &str) {
        self.messages.push(Message {
            role: role.to_owned(),
            content: content.to_owned(),
        });
    }
}

/// Something that an agent can use; its id says what it does.
#[derive(Default, Serialize, Deserialize, JsonSchema)]
pub struct Tool {
    uses: u32,
}

#[actor]
impl Tool {
    /// Does it.
    pub fn execute(&mut self, ctx: &mut Context<Self>, query: String) -> Result<String> {
        if ctx.id() == "broken" {
            return Err(Failure::new("tool.broken").message("this tool never works"));
        }
        self.uses += 1;
        Ok(format!("{} found: {query}", ctx.id()))
    }
}

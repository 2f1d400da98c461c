//! An agent: it streams what a model says, uses tools, and survives a provider that does not
//! behave.
//!
//! The conversation is the state, so everybody who looks sees the answer grow. Who asked also
//! gets each piece of it as a chunk, and the whole as the result.
//!
//! A run is one turn of `start`. While it runs, the actor's queue waits: a second `start`
//! begins when the first has ended. What ends it early:
//!
//! - its caller cancels, or leaves: the run stops at the next line of the response, with the
//!   status `stopped`;
//! - the provider fails, or is silent too long: the status is `failed`, and `error` says why;
//! - it takes longer than `RUN_MAX`: the same;
//! - the host interrupts it, since it was cancelled while the provider was silent, or is past
//!   its deadline. Then it can say nothing more itself. The timer that it has set fires when
//!   the queue goes on, and finds a run that nobody ended.
//!
//! In each case what was said until then stays in the conversation.

mod answer;
mod arithmetic;
mod message;
mod provider;
mod sse;
mod tool;

use std::time::{Duration, Instant};

use serde_json::Value;
use tidegate_sdk::prelude::*;

use answer::{Answer, Complete, Unusable};
pub use message::{Message, Role, ToolCall};
use provider::{Provider, not_read};
use sse::Events;
pub use tool::{Tool, ToolError};

/// How many characters a prompt may have.
const PROMPT_MAX: usize = 8_000;
/// How many messages the conversation keeps at least.
const HISTORY: usize = 100;
/// How often a run asks the provider: once, and again with the results of tools.
const ROUNDS: usize = 6;
/// How long a run may take. The method's deadline leaves time to say so.
const RUN_MAX: Duration = secs(140);
/// When to look after a run that has ended without a word. While the run lasts, the queue
/// holds the timer back; so a short time means at once.
const LOOK_AFTER: Duration = secs(1);

/// A conversation with a model.
#[derive(Default, Serialize, Deserialize, JsonSchema)]
pub struct Agent {
    /// Oldest first. The last one grows while a run lasts.
    messages: Vec<Message>,
    status: Status,
    /// Why the last run failed.
    error: Option<Problem>,
    /// Looks after the run under way.
    timer: Option<TimerId>,
}

/// How the conversation is.
#[derive(Debug, Default, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
pub enum Status {
    /// It waits for a prompt.
    #[default]
    Idle,
    /// An answer is being made.
    Running,
    /// Somebody stopped the last answer.
    Stopped,
    /// The last answer failed.
    Failed,
}

/// Why a run failed.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
pub struct Problem {
    /// The failure's code.
    code: String,
    /// It, for people.
    message: String,
}

/// Why the agent does not answer.
#[derive(Debug, Failure)]
#[failure(prefix = "agent")]
pub enum AgentError {
    /// There is nothing in the prompt.
    #[failure(message = "ask something")]
    EmptyPrompt,
    /// It is longer than a prompt may be.
    #[failure(status = 413, message = "a prompt has at most {max} characters")]
    PromptTooLong {
        /// How many characters are allowed.
        max: usize,
    },
    /// The application does not let the component reach the provider.
    #[failure(
        status = 502,
        message = "the agent may not reach {host}: list it in allowed_outbound_hosts"
    )]
    NotAllowed {
        /// The provider's.
        host: String,
    },
    /// There is no connection, or no HTTP on it.
    #[failure(status = 502, message = "{host} cannot be reached: {reason}")]
    Unreachable {
        /// The provider's.
        host: String,
        /// As WASI calls it.
        reason: String,
    },
    /// The provider does not accept the key.
    #[failure(
        status = 502,
        message = "the provider refuses the key ({status}): {said}"
    )]
    KeyRefused {
        /// The HTTP status.
        status: u16,
        /// The provider's words.
        said: String,
    },
    /// The provider was asked too often.
    #[failure(status = 503, message = "the provider was asked too often: {said}")]
    RateLimited {
        /// The provider's words.
        said: String,
    },
    /// The provider says that it failed.
    #[failure(status = 502, message = "the provider failed ({status}): {said}")]
    ProviderFailed {
        /// The HTTP status.
        status: u16,
        /// The provider's words.
        said: String,
    },
    /// The provider says nothing any more.
    #[failure(status = 504, message = "{host} is silent")]
    Stalled {
        /// The provider's.
        host: String,
    },
    /// The response ended before the answer did.
    #[failure(status = 502, message = "the answer broke off")]
    BrokeOff {
        /// As WASI calls it; `end` when the response ended well.
        reason: String,
    },
    /// The response is not what it should be.
    #[failure(status = 502, message = "the provider sent {what}")]
    Garbage {
        /// What it is.
        what: String,
    },
    /// The answer has no end in sight.
    #[failure(status = 502, message = "the answer has too much {what}")]
    TooLong {
        /// What there is too much of.
        what: String,
    },
    /// The model calls tools again and again.
    #[failure(
        status = 502,
        message = "the model still calls tools after {rounds} rounds"
    )]
    TooManyRounds {
        /// How often it was asked.
        rounds: usize,
    },
    /// The run took too long.
    #[failure(status = 504, message = "the answer took longer than {seconds} s")]
    TimedOut {
        /// How long it might have taken.
        seconds: u64,
    },
    /// The host interrupted the run.
    #[failure(message = "the answer was interrupted")]
    Interrupted,
}

/// How a run ended that did not fail.
#[derive(Debug, PartialEq)]
enum Ended {
    Answered(String),
    Stopped(String),
}

/// What came of asking once.
#[derive(Debug, PartialEq)]
enum Round {
    Complete(Complete),
    /// Somebody stopped it behind this text.
    Stopped(String),
}

#[actor(hidden("timer"))]
impl Agent {
    /// Asks the model. Sends the answer's text in chunks, as it is made, and gives its last
    /// part, behind the tools that it used.
    #[stream]
    #[deadline("3m")]
    pub fn start(
        state: &mut Tracked<Self>,
        ctx: &mut Context<Self>,
        prompt: String,
    ) -> Result<String> {
        let prompt = prompt.trim();
        if prompt.is_empty() {
            return Err(AgentError::EmptyPrompt.into());
        }
        if prompt.chars().count() > PROMPT_MAX {
            return Err(AgentError::PromptTooLong { max: PROMPT_MAX }.into());
        }
        begin(state, ctx, prompt)?;
        let ended = match Provider::granted() {
            Some(provider) => converse(state, ctx, &provider),
            None => recite(state, ctx),
        };
        end(state, ctx, ended)
    }

    /// Looks after a run that was interrupted. Between runs there is nothing to look after,
    /// so it does no harm if a client calls it.
    pub fn timeout(&mut self) {
        if self.status == Status::Running {
            let failure = Failure::from(AgentError::Interrupted);
            self.status = Status::Failed;
            self.error = Some(Problem::of(&failure));
            self.timer = None;
            self.messages.pop_if(|last| last.is_silence());
        }
    }

    /// Begins a new conversation.
    pub fn clear(&mut self, ctx: &mut Context<Self>) {
        if let Some(timer) = self.timer {
            ctx.cancel(timer);
        }
        *self = Self::default();
    }

    /// The timer of a run is gone when the host was stopped in the middle of it.
    #[activate]
    fn woke(&mut self) {
        self.timeout();
    }
}

impl Problem {
    fn of(failure: &Failure) -> Self {
        Self {
            code: failure.code().to_owned(),
            message: failure.text().to_owned(),
        }
    }
}

fn begin(state: &mut Tracked<Agent>, ctx: &mut Context<Agent>, prompt: &str) -> Result<()> {
    let mut messages = conversation(state)?;
    // Half of it at once: what is left of an array moves as a whole.
    if messages.len() > 2 * HISTORY {
        messages.drain(..messages.len() - HISTORY);
        state.set(["messages"], &messages)?;
    }
    // A run that was interrupted just now has not been looked after yet.
    stop_timer(state, ctx)?;
    drop_silence(state)?;
    let timer = ctx.after(LOOK_AFTER).timeout();
    state.set(["timer"], &timer)?;
    state.push(["messages"], &Message::said(Role::User, prompt))?;
    state.set(["error"], &Value::Null)?;
    state.set(["status"], &Status::Running)
}

/// Says how the run ended. A run that failed is committed up to here and then fails, so that
/// the state and the caller tell the same.
fn end(
    state: &mut Tracked<Agent>,
    ctx: &mut Context<Agent>,
    ended: Result<Ended>,
) -> Result<String> {
    let status = match &ended {
        Ok(Ended::Answered(_)) => Status::Idle,
        Ok(Ended::Stopped(_)) => Status::Stopped,
        Err(failure) => {
            state.set(["error"], &Problem::of(failure))?;
            Status::Failed
        }
    };
    drop_silence(state)?;
    state.set(["status"], &status)?;
    // Last, since a tick may come between any two of these.
    stop_timer(state, ctx)?;
    match ended {
        Ok(Ended::Answered(text) | Ended::Stopped(text)) => Ok(text),
        Err(failure) => {
            ctx.flush()?;
            Err(failure)
        }
    }
}

fn stop_timer(state: &mut Tracked<Agent>, ctx: &mut Context<Agent>) -> Result<()> {
    if let Some(Some(timer)) = state.get::<Option<TimerId>>(["timer"])? {
        ctx.cancel(timer);
        state.set(["timer"], &Value::Null)?;
    }
    Ok(())
}

/// Removes the message that was to hold an answer, if nothing was said.
fn drop_silence(state: &mut Tracked<Agent>) -> Result<()> {
    let messages = conversation(state)?;
    if messages.last().is_some_and(Message::is_silence) {
        state.remove(pointer!["messages", messages.len() - 1])?;
    }
    Ok(())
}

fn conversation(state: &Tracked<Agent>) -> Result<Vec<Message>> {
    Ok(state.get(["messages"])?.unwrap_or_default())
}

/// Asks the provider until it has nothing more for the tools to do.
fn converse(
    state: &mut Tracked<Agent>,
    ctx: &mut Context<Agent>,
    provider: &Provider,
) -> Result<Ended> {
    let until = Instant::now() + RUN_MAX;
    for _ in 0..ROUNDS {
        let messages = conversation(state)?;
        let at = messages.len();
        state.push(["messages"], &Message::said(Role::Assistant, ""))?;
        let patience = until.saturating_duration_since(Instant::now());
        if patience.is_zero() {
            return Err(timed_out());
        }
        let mut lines = provider.ask(ctx, &messages, patience)?;
        let next = |ctx: &mut Context<Agent>| lines.next_in(ctx);
        let answer = match listen(state, ctx, provider, at, until, next)? {
            Round::Complete(answer) => answer,
            Round::Stopped(text) => return Ok(Ended::Stopped(text)),
        };
        if answer.calls.is_empty() {
            return Ok(Ended::Answered(answer.text));
        }
        state.set(pointer!["messages", at, "toolCalls"], &answer.calls)?;
        for call in &answer.calls {
            let result = use_tool(ctx, call);
            state.push(["messages"], &Message::result_of(call, result))?;
        }
    }
    Err(AgentError::TooManyRounds { rounds: ROUNDS }.into())
}

/// Takes one answer from the lines of a response, as they come, into the message at this
/// index.
fn listen(
    state: &mut Tracked<Agent>,
    ctx: &mut Context<Agent>,
    provider: &Provider,
    at: usize,
    until: Instant,
    mut next: impl FnMut(&mut Context<Agent>) -> Option<Result<String>>,
) -> Result<Round> {
    let (mut events, mut answer) = (Events::default(), Answer::default());
    while let Some(line) = next(ctx) {
        if ctx.cancelled() {
            return Ok(Round::Stopped(answer.into_text()));
        }
        if Instant::now() >= until {
            return Err(timed_out());
        }
        let data = events.line(&line.map_err(not_read)?);
        let Some(data) = data.map_err(|_| too_long("in one event"))? else {
            continue;
        };
        let text = answer.take(&data);
        let text = text.map_err(|why| unusable(provider, why))?;
        if !text.is_empty() {
            say(state, ctx, at, &text)?;
        }
        // What may come behind it, such as the tokens used, is not waited for.
        if answer.has_ended() {
            break;
        }
    }
    let complete = answer.complete().ok_or_else(|| AgentError::BrokeOff {
        reason: "end".to_owned(),
    })?;
    Ok(Round::Complete(complete))
}

fn timed_out() -> Failure {
    let seconds = RUN_MAX.as_secs();
    AgentError::TimedOut { seconds }.into()
}

fn unusable(provider: &Provider, why: Unusable) -> AgentError {
    match why {
        Unusable::Refused(explanation) => provider.failed(explanation),
        Unusable::TooLong(what) => too_long(what),
        Unusable::Garbage => AgentError::Garbage {
            what: "an event that is no part of an answer".to_owned(),
        },
    }
}

fn too_long(what: &str) -> AgentError {
    AgentError::TooLong {
        what: what.to_owned(),
    }
}

/// Adds text to a message: to the state for all, and as a chunk for the caller.
fn say(state: &mut Tracked<Agent>, ctx: &mut Context<Agent>, at: usize, text: &str) -> Result<()> {
    state.append(pointer!["messages", at, "content"], text)?;
    ctx.chunk(text)
}

/// What the model gets to read of a tool: its result, or why there is none.
fn use_tool(ctx: &mut Context<Agent>, call: &ToolCall) -> String {
    let arguments = match call.arguments.trim() {
        "" => Ok(Value::Object(serde_json::Map::new())),
        text => serde_json::from_str(text),
    };
    let result = match arguments {
        Ok(arguments) => ctx.call::<Tool>(&call.name).execute(arguments),
        Err(error) => return format!("error: the arguments are no JSON: {error}"),
    };
    result.unwrap_or_else(|failure| format!("error: {}", failure.text()))
}

/// What the agent says without a provider. It says so.
const SCRIPT: &str = "No provider is configured, so this is a scripted reply: no model has \
    read your prompt. It is streamed word by word all the same, to everybody who looks. To \
    talk to a model, set OPENAI_BASE_URL, OPENAI_MODEL and OPENAI_API_KEY in spin.toml, under \
    [component.agent.environment], list the provider in allowed_outbound_hosts above it, and \
    start the host again.";
/// The pause behind each word of it.
const PAUSE: Duration = millis(60);

fn recite(state: &mut Tracked<Agent>, ctx: &mut Context<Agent>) -> Result<Ended> {
    let at = conversation(state)?.len();
    state.push(["messages"], &Message::said(Role::Assistant, ""))?;
    let mut said = String::new();
    for word in SCRIPT.split_inclusive(' ') {
        if ctx.cancelled() {
            return Ok(Ended::Stopped(said));
        }
        say(state, ctx, at, word)?;
        said.push_str(word);
        ctx.sleep(PAUSE)?;
    }
    Ok(Ended::Answered(said))
}

tidegate_sdk::export!(Agent, Tool);

#[cfg(test)]
mod tests;

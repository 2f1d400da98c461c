//! What `events` asks of an application's composite, and what it is told: who may see an
//! actor, and what of it.

use serde::{Deserialize, Serialize};
use serde_json::value::RawValue;

/// The question.
#[derive(Clone, Debug, Deserialize, PartialEq, Eq, Serialize)]
#[serde(rename_all = "kebab-case")]
pub struct Question {
    /// The verified claims of who asks, as JSON text.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub user: Option<String>,
    /// What they want to see.
    pub subject: Subject,
    /// Whether the state is to be told, or only whether they may see it.
    pub tell: bool,
}

/// What somebody wants to see.
#[derive(Clone, Copy, Debug, Deserialize, PartialEq, Eq, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum Subject {
    /// The state and its patches.
    State,
    /// The events.
    Events,
}

/// The answer, when they may.
#[derive(Debug, Deserialize, Serialize)]
#[serde(rename_all = "kebab-case")]
pub struct Answer {
    /// The state as they see it, if that was asked for.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub state: Option<Box<RawValue>>,
    /// Which history.
    pub epoch: String,
    /// Where in it.
    pub version: u64,
    /// A guard says what each of them sees: patches do not tell them.
    pub projected: bool,
    /// A guard says who may see: it is asked again when the state has changed.
    pub guarded: bool,
    /// Not before what has changed is told, but some time after.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub recheck_later: bool,
    /// What the outbox held last when this was so.
    pub seq: u64,
}

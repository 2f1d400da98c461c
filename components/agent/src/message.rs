//! What is said in a conversation: the form that the state keeps, and the one that providers
//! want.

use serde_json::{Value, json};
use tidegate_sdk::prelude::*;

/// How many messages a provider is shown at most.
const SHOWN: usize = 60;

/// Who says something.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
pub enum Role {
    /// A person.
    User,
    /// The model.
    Assistant,
    /// A tool that the model has called.
    Tool,
}

/// What somebody says.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct Message {
    /// Who says it.
    pub role: Role,
    /// The text; a model's grows while it answers.
    pub content: String,
    /// The tools that a model wants called.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub tool_calls: Vec<ToolCall>,
    /// The call that a tool answers.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub tool_call_id: Option<String>,
    /// The name of a tool that answers.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub name: Option<String>,
}

/// A tool that a model wants called.
#[derive(Debug, Default, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
pub struct ToolCall {
    /// The model's name for this call.
    pub id: String,
    /// The tool's name.
    pub name: String,
    /// JSON, if the model makes no mistake.
    pub arguments: String,
}

impl Message {
    /// Something that a person or a model says.
    pub(crate) fn said(role: Role, content: impl Into<String>) -> Self {
        Self {
            role,
            content: content.into(),
            tool_calls: Vec::new(),
            tool_call_id: None,
            name: None,
        }
    }

    /// What a tool answers to a call.
    pub(crate) fn result_of(call: &ToolCall, content: String) -> Self {
        Self {
            tool_call_id: Some(call.id.clone()),
            name: Some(call.name.clone()),
            ..Self::said(Role::Tool, content)
        }
    }

    /// Whether a model was to say this, and has said nothing.
    pub(crate) fn is_silence(&self) -> bool {
        self.role == Role::Assistant && self.content.is_empty() && self.tool_calls.is_empty()
    }
}

/// The end of a conversation, from something that a person said on, as a provider wants it.
///
/// Providers refuse a call without its result and a result without its call, which a run that
/// failed between the two leaves behind: such calls and results are left out.
pub(crate) fn for_provider(conversation: &[Message]) -> Vec<Value> {
    let recent = &conversation[conversation.len().saturating_sub(SHOWN)..];
    let first = recent.iter().position(|message| message.role == Role::User);
    let mut rest = &recent[first.unwrap_or(recent.len())..];
    let mut wanted = Vec::new();
    while let Some((message, behind)) = rest.split_first() {
        let results = behind.iter().take_while(|next| next.role == Role::Tool);
        let (results, behind) = behind.split_at(results.count());
        rest = behind;
        let role = message.role;
        if message.tool_calls.is_empty() || !are_answered(&message.tool_calls, results) {
            // A result that stands alone belongs to a call that was left out.
            if !message.content.is_empty() && role != Role::Tool {
                wanted.push(json!({"role": role, "content": message.content}));
            }
            continue;
        }
        let calls: Vec<Value> = message.tool_calls.iter().map(call_for_provider).collect();
        wanted.push(json!({"role": role, "content": message.content, "tool_calls": calls}));
        wanted.extend(results.iter().map(|result| {
            json!({
                "role": result.role, "tool_call_id": result.tool_call_id, "content": result.content,
            })
        }));
    }
    wanted
}

fn are_answered(calls: &[ToolCall], results: &[Message]) -> bool {
    let ids = results.iter().map(|result| result.tool_call_id.as_deref());
    ids.eq(calls.iter().map(|call| Some(call.id.as_str())))
}

fn call_for_provider(call: &ToolCall) -> Value {
    let function = json!({"name": call.name, "arguments": call.arguments});
    json!({"id": call.id, "type": "function", "function": function})
}

#[cfg(test)]
mod tests {
    use super::*;

    fn call(id: &str) -> ToolCall {
        ToolCall {
            id: id.to_owned(),
            name: "clock".to_owned(),
            arguments: "{}".to_owned(),
        }
    }

    fn calling(ids: &[&str]) -> Message {
        Message {
            tool_calls: ids.iter().map(|id| call(id)).collect(),
            ..Message::said(Role::Assistant, "")
        }
    }

    fn roles(conversation: &[Message]) -> Vec<String> {
        let shown = for_provider(conversation);
        shown
            .iter()
            .map(|message| message["role"].as_str().unwrap().to_owned())
            .collect()
    }

    #[test]
    fn calls_and_their_results_are_sent_as_the_provider_has_them() {
        let conversation = [
            Message::said(Role::User, "When?"),
            calling(&["a"]),
            Message::result_of(&call("a"), "now".to_owned()),
            Message::said(Role::Assistant, ""),
        ];
        assert_eq!(
            for_provider(&conversation),
            [
                json!({"role": "user", "content": "When?"}),
                json!({"role": "assistant", "content": "", "tool_calls": [
                    {"id": "a", "type": "function", "function": {"name": "clock", "arguments": "{}"}},
                ]}),
                json!({"role": "tool", "tool_call_id": "a", "content": "now"}),
            ]
        );
    }

    #[test]
    fn a_call_without_its_result_is_not_sent() {
        let (user, result) = (
            Message::said(Role::User, "When?"),
            Message::result_of(&call("a"), "now".to_owned()),
        );
        let broken = [user.clone(), calling(&["a", "b"]), result, user];
        assert_eq!(roles(&broken), ["user", "user"]);
    }

    #[test]
    fn a_long_conversation_is_sent_from_something_that_a_person_said_on() {
        let mut conversation = Vec::new();
        for _ in 0..SHOWN {
            conversation.push(Message::said(Role::User, "When?"));
            conversation.push(calling(&["a"]));
            conversation.push(Message::result_of(&call("a"), "now".to_owned()));
        }
        conversation.push(Message::said(Role::User, "And now?"));
        let roles = roles(&conversation);
        assert!(
            roles.len() <= SHOWN && roles.len() > SHOWN - 3,
            "{}",
            roles.len()
        );
        assert_eq!(roles[0], "user");
    }
}

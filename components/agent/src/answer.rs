//! One answer of a model, put together from the chunks of a streamed chat completion: text,
//! and tools that it wants called. No input and output: the agent gives it the data of
//! events, one after the other.

use serde::Deserialize;

use crate::message::ToolCall;

/// How many bytes of text an answer may have.
const TEXT_MAX: usize = 256 << 10;
/// How many tools an answer may call.
const CALLS_MAX: usize = 16;
/// How many bytes the name, the id and the arguments of a call may have together.
const CALL_MAX: usize = 64 << 10;
/// What an event says behind the last chunk.
const DONE: &str = "[DONE]";

/// What has arrived of an answer.
#[derive(Debug, Default, PartialEq)]
pub(crate) struct Answer {
    text: String,
    calls: Vec<ToolCall>,
    has_ended: bool,
}

/// Why an event cannot be used.
#[derive(Debug, PartialEq)]
pub(crate) enum Unusable {
    /// It is no chunk of a chat completion.
    Garbage,
    /// The provider says that it failed, and perhaps why.
    Refused(Option<String>),
    /// The answer has more of this than it may have.
    TooLong(&'static str),
}

/// An answer that is complete.
#[derive(Debug, PartialEq)]
pub(crate) struct Complete {
    pub(crate) text: String,
    /// In the order of their indices.
    pub(crate) calls: Vec<ToolCall>,
}

#[derive(Deserialize)]
struct Chunk {
    choices: Option<Vec<Choice>>,
    error: Option<serde_json::Value>,
}

#[derive(Deserialize)]
struct Choice {
    #[serde(default)]
    index: usize,
    delta: Option<Delta>,
    finish_reason: Option<String>,
}

#[derive(Default, Deserialize)]
struct Delta {
    content: Option<String>,
    tool_calls: Option<Vec<CallDelta>>,
}

#[derive(Deserialize)]
struct CallDelta {
    /// Some providers that never call two tools at once leave it out.
    #[serde(default)]
    index: usize,
    id: Option<String>,
    function: Option<FunctionDelta>,
}

#[derive(Deserialize)]
struct FunctionDelta {
    name: Option<String>,
    arguments: Option<String>,
}

impl Answer {
    /// Takes the data of the next event; gives the text that it brings, which may be empty.
    pub(crate) fn take(&mut self, data: &str) -> Result<String, Unusable> {
        if data.trim() == DONE {
            self.has_ended = true;
            return Ok(String::new());
        }
        let chunk: Chunk = serde_json::from_str(data).map_err(|_| Unusable::Garbage)?;
        if let Some(error) = chunk.error.filter(|error| !error.is_null()) {
            return Err(Unusable::Refused(reason(&error)));
        }
        let mut text = String::new();
        // A chunk without choices tells of something else, such as the tokens used.
        let choices = chunk.choices.ok_or(Unusable::Garbage)?;
        for choice in choices.into_iter().filter(|choice| choice.index == 0) {
            let delta = choice.delta.unwrap_or_default();
            text.push_str(&delta.content.unwrap_or_default());
            for call in delta.tool_calls.unwrap_or_default() {
                self.add_call(call)?;
            }
            self.has_ended |= choice.finish_reason.is_some();
        }
        if self.text.len() + text.len() > TEXT_MAX {
            return Err(Unusable::TooLong("text"));
        }
        self.text.push_str(&text);
        Ok(text)
    }

    fn add_call(&mut self, delta: CallDelta) -> Result<(), Unusable> {
        if delta.index >= CALLS_MAX {
            return Err(Unusable::TooLong("calls"));
        }
        if self.calls.len() <= delta.index {
            self.calls.resize_with(delta.index + 1, ToolCall::default);
        }
        let call = &mut self.calls[delta.index];
        let function = delta.function;
        let (name, arguments) =
            function.map_or((None, None), |function| (function.name, function.arguments));
        // The id and the name come whole, with the first delta of a call; some providers
        // repeat them.
        if let Some(id) = delta.id.filter(|id| !id.is_empty()) {
            call.id = id;
        }
        if let Some(name) = name.filter(|name| !name.is_empty()) {
            call.name = name;
        }
        call.arguments.push_str(&arguments.unwrap_or_default());
        if call.id.len() + call.name.len() + call.arguments.len() > CALL_MAX {
            return Err(Unusable::TooLong("arguments"));
        }
        Ok(())
    }

    /// Whether it is complete.
    pub(crate) fn has_ended(&self) -> bool {
        self.has_ended
    }

    /// The text so far.
    pub(crate) fn into_text(self) -> String {
        self.text
    }

    /// The whole, when nothing comes any more; `None` if it broke off before its end.
    pub(crate) fn complete(mut self) -> Option<Complete> {
        // Indices that were skipped are no calls.
        self.calls.retain(|call| !call.name.is_empty());
        for (number, call) in self.calls.iter_mut().enumerate() {
            if call.id.is_empty() {
                call.id = format!("call-{number}");
            }
        }
        self.has_ended.then_some(Complete {
            text: self.text,
            calls: self.calls,
        })
    }
}

/// What an `error` member says: OpenAI's is `{"message": …}`, others' a text.
pub(crate) fn reason(error: &serde_json::Value) -> Option<String> {
    let message = error.get("message").unwrap_or(error);
    message.as_str().map(str::to_owned)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::sse::Events;
    use tidegate_sdk::test::{Value, json};

    fn chunk(delta: Value) -> String {
        json!({"choices": [{"index": 0, "delta": delta, "finish_reason": null}]}).to_string()
    }

    fn end(reason: &str) -> String {
        json!({"choices": [{"index": 0, "delta": {}, "finish_reason": reason}]}).to_string()
    }

    fn call(index: usize, part: Value) -> String {
        let mut call = part;
        call["index"] = json!(index);
        chunk(json!({"tool_calls": [call]}))
    }

    fn tool_call(id: &str, name: &str, arguments: &str) -> ToolCall {
        ToolCall {
            id: id.to_owned(),
            name: name.to_owned(),
            arguments: arguments.to_owned(),
        }
    }

    /// What the parts of a body bring, wherever it is cut into pieces.
    fn read(pieces: &[&str]) -> (Vec<String>, Option<Complete>) {
        let (mut events, mut answer, mut texts) = (Events::default(), Answer::default(), vec![]);
        // As `Lines` of the SDK makes lines of pieces.
        let mut rest = String::new();
        for piece in pieces {
            rest.push_str(piece);
            while let Some(end) = rest.find('\n') {
                let line: String = rest.drain(..=end).collect();
                let line = line.trim_end_matches(['\n', '\r']);
                let Some(data) = events.line(line).unwrap() else {
                    continue;
                };
                let text = answer.take(&data).unwrap();
                texts.extend((!text.is_empty()).then_some(text));
            }
        }
        (texts, answer.complete())
    }

    fn body(events: &[String]) -> String {
        let lines: Vec<String> = events
            .iter()
            .map(|data| format!("data: {data}\r\n\r\n"))
            .collect();
        lines.concat()
    }

    fn of_everything() -> String {
        body(&[
            chunk(json!({"role": "assistant", "content": ""})),
            chunk(json!({"content": "Grüße"})),
            json!({"choices": [], "usage": {"total_tokens": 7}}).to_string(),
            chunk(json!({"content": ", 🌊\n"})),
            call(
                0,
                json!({"id": "a", "type": "function", "function": {"name": "clock", "arguments": ""}}),
            ),
            call(
                1,
                json!({"id": "b", "function": {"name": "calculator", "arguments": "{\"expr"}}),
            ),
            call(0, json!({"function": {"arguments": "{}"}})),
            call(1, json!({"function": {"arguments": "ession\":\"1+1\"}"}})),
            end("tool_calls"),
            DONE.to_owned(),
        ])
    }

    #[test]
    fn an_answer_does_not_depend_on_how_its_bytes_arrive() {
        let body = of_everything();
        let texts = ["Grüße", ", 🌊\n"].map(str::to_owned).to_vec();
        let whole = Complete {
            text: texts.concat(),
            calls: vec![
                tool_call("a", "clock", "{}"),
                tool_call("b", "calculator", "{\"expression\":\"1+1\"}"),
            ],
        };
        let expected = (texts, Some(whole));
        assert_eq!(read(&[&body]), expected);
        let places: Vec<usize> = body.char_indices().map(|(at, _)| at).collect();
        for at in &places {
            let (head, tail) = body.split_at(*at);
            assert_eq!(read(&[head, tail]), expected, "cut at {at}");
        }
        let letters: Vec<&str> = places
            .iter()
            .zip(places.iter().skip(1).chain([&body.len()]))
            .map(|(from, to)| &body[*from..*to])
            .collect();
        assert_eq!(read(&letters), expected);
    }

    #[test]
    fn an_answer_that_breaks_off_is_none_wherever_it_does() {
        let body = of_everything();
        let until = body.find("finish_reason\":\"tool_calls").unwrap();
        for (at, _) in body.char_indices().take_while(|(at, _)| *at < until) {
            assert_eq!(read(&[&body[..at]]).1, None, "cut at {at}");
        }
    }

    #[test]
    fn a_reason_to_finish_or_done_ends_an_answer() {
        let text = chunk(json!({"content": "a"}));
        for last in [end("stop"), end("length"), DONE.to_owned()] {
            let complete = read(&[&body(&[text.clone(), last])]).1.unwrap();
            assert_eq!((complete.text.as_str(), complete.calls.len()), ("a", 0));
        }
    }

    #[test]
    fn what_is_no_chunk_is_garbage() {
        for data in [
            "",
            "{",
            "7",
            "\"a\"",
            "[]",
            "{}",
            "{\"choices\": 1}",
            "<html>",
        ] {
            assert_eq!(
                Answer::default().take(data),
                Err(Unusable::Garbage),
                "{data}"
            );
        }
        let foreign = chunk(json!({"content": {"not": "a text"}}));
        assert_eq!(Answer::default().take(&foreign), Err(Unusable::Garbage));
    }

    #[test]
    fn an_error_in_the_middle_is_the_providers() {
        let refused = |data: Value| Answer::default().take(&data.to_string());
        let overloaded = Err(Unusable::Refused(Some("overloaded".to_owned())));
        assert_eq!(
            refused(json!({"error": {"message": "overloaded"}})),
            overloaded
        );
        assert_eq!(refused(json!({"error": "overloaded"})), overloaded);
        assert_eq!(
            refused(json!({"error": {"code": 7}})),
            Err(Unusable::Refused(None))
        );
    }

    #[test]
    fn other_choices_are_not_mixed_in() {
        let other = json!({"choices": [{"index": 1, "delta": {"content": "no"}}]}).to_string();
        assert_eq!(Answer::default().take(&other), Ok(String::new()));
    }

    #[test]
    fn what_grows_has_a_bound() {
        let (half, arguments) = ("x".repeat(TEXT_MAX / 2 + 1), "x".repeat(CALL_MAX));
        let mut answer = Answer::default();
        let text = chunk(json!({"content": half}));
        assert!(answer.take(&text).is_ok());
        assert_eq!(answer.take(&text), Err(Unusable::TooLong("text")));
        let far = call(CALLS_MAX, json!({"id": "a"}));
        assert_eq!(answer.take(&far), Err(Unusable::TooLong("calls")));
        let long = call(0, json!({"id": "a", "function": {"arguments": arguments}}));
        assert_eq!(answer.take(&long), Err(Unusable::TooLong("arguments")));
    }

    #[test]
    fn skipped_indices_are_no_calls_and_calls_have_an_id() {
        let events = [
            call(2, json!({"function": {"name": "clock", "arguments": "{}"}})),
            end("tool_calls"),
        ];
        let complete = read(&[&body(&events)]).1.unwrap();
        assert_eq!(complete.calls, [tool_call("call-0", "clock", "{}")]);
    }
}

//! The provider of the model: where it is, how it is asked, and what its refusals mean.

use std::time::Duration;

use serde_json::json;
use tidegate_sdk::http::{Lines, Request};
use tidegate_sdk::prelude::*;

use crate::answer::reason;
use crate::message::{Message, for_provider};
use crate::{Agent, AgentError, tool};

/// How long a provider may be silent, unless `OPENAI_TIMEOUT_MS` says otherwise.
const SILENCE: Duration = secs(30);
/// How many characters of a provider's explanation are passed on.
const EXPLANATION_MAX: usize = 300;
const INSTRUCTIONS: &str = "You talk to several people at once, in a chat that all of them \
    see. Answer briefly, in plain text. Use the tools where they help.";

/// Whoever speaks OpenAI's protocol for streamed chat completions.
#[derive(Clone, PartialEq)]
pub(crate) struct Provider {
    base_url: String,
    model: String,
    key: Option<String>,
    silence: Duration,
}

impl Provider {
    /// The one that the component's variables name, if they do.
    pub(crate) fn granted() -> Option<Self> {
        // A component sees nothing but what it was granted; a native test would see what
        // whoever runs it has set.
        let granted = cfg!(target_family = "wasm");
        Self::of(|name| std::env::var(name).ok().filter(|_| granted))
    }

    fn of(variable: impl Fn(&str) -> Option<String>) -> Option<Self> {
        let variable = |name| {
            let value = variable(name)?.trim().to_owned();
            (!value.is_empty()).then_some(value)
        };
        let (base_url, key) = (variable("OPENAI_BASE_URL"), variable("OPENAI_API_KEY"));
        if base_url.is_none() && key.is_none() {
            return None;
        }
        let base_url = base_url.unwrap_or_else(|| "https://api.openai.com/v1".to_owned());
        let silence = variable("OPENAI_TIMEOUT_MS").and_then(|ms| ms.parse().ok());
        Some(Self {
            base_url: base_url.trim_end_matches('/').to_owned(),
            model: variable("OPENAI_MODEL").unwrap_or_else(|| "gpt-4o-mini".to_owned()),
            key,
            silence: silence.map_or(SILENCE, millis),
        })
    }

    /// Asks for the next answer and gives the lines of the response, which begins within
    /// `patience`.
    pub(crate) fn ask(
        &self,
        ctx: &mut Context<Agent>,
        conversation: &[Message],
        patience: Duration,
    ) -> Result<Lines> {
        let mut messages = vec![json!({"role": "system", "content": INSTRUCTIONS})];
        messages.extend(for_provider(conversation));
        let body = json!({
            "model": self.model, "stream": true,
            "messages": messages, "tools": tool::descriptions(),
        });
        let mut request = Request::post(format!("{}/chat/completions", self.base_url))
            .header("accept", "text/event-stream")
            .timeout(self.silence.min(patience))
            .json(&body);
        if let Some(key) = &self.key {
            request = request.header("authorization", format!("Bearer {key}"));
        }
        let response = request.send_in(ctx).map_err(not_reached)?;
        let status = response.status();
        if !response.is_success() {
            // A refusal whose text cannot be read is one all the same.
            let said = response.text().unwrap_or_default();
            return Err(self.refused(status, &said).into());
        }
        let media = response.header("content-type").unwrap_or_default();
        if !media.to_ascii_lowercase().starts_with("text/event-stream") {
            let media = shortened(media);
            return Err(AgentError::Garbage {
                what: format!("`{media}` in the place of an event stream"),
            }
            .into());
        }
        Ok(response.lines())
    }

    fn refused(&self, status: u16, said: &str) -> AgentError {
        let error = serde_json::from_str::<serde_json::Value>(said);
        let explanation = error.ok().and_then(|body| reason(body.get("error")?));
        let said = self.quoted(explanation);
        match status {
            401 | 403 => AgentError::KeyRefused { status, said },
            429 => AgentError::RateLimited { said },
            _ => AgentError::ProviderFailed { status, said },
        }
    }

    /// What the provider said in the middle of an answer that it cannot end.
    pub(crate) fn failed(&self, explanation: Option<String>) -> AgentError {
        AgentError::ProviderFailed {
            status: 200,
            said: self.quoted(explanation),
        }
    }

    /// An explanation as everybody may see it: some providers repeat the key in it.
    fn quoted(&self, explanation: Option<String>) -> String {
        let mut said = explanation.unwrap_or_else(|| "no reason given".to_owned());
        if let Some(key) = &self.key {
            said = said.replace(key, "…");
        }
        shortened(&said)
    }
}

fn shortened(text: &str) -> String {
    text.chars().take(EXPLANATION_MAX).collect()
}

/// Why no response began.
fn not_reached(failure: Failure) -> Failure {
    if failure.code() != "http.failed" {
        return not_read(failure);
    }
    let (host, reason) = (param(&failure, "host"), param(&failure, "reason"));
    AgentError::Unreachable { host, reason }.into()
}

/// Why a response was not read to its end.
pub(crate) fn not_read(failure: Failure) -> Failure {
    let (host, reason) = (param(&failure, "host"), param(&failure, "reason"));
    match (failure.code(), reason.as_str()) {
        ("http.denied", _) => AgentError::NotAllowed { host }.into(),
        ("http.timeout", _) => AgentError::Stalled { host }.into(),
        ("http.failed", "not-utf8") => AgentError::Garbage {
            what: "what is no text".to_owned(),
        }
        .into(),
        ("http.failed", "too-large") => AgentError::Garbage {
            what: "a line without end".to_owned(),
        }
        .into(),
        ("http.failed", _) => AgentError::BrokeOff { reason }.into(),
        // The turn is to fail in any case.
        _ => failure,
    }
}

fn param(failure: &Failure, name: &str) -> String {
    let param = failure.params().get(name).and_then(|param| param.as_str());
    param.unwrap_or_default().to_owned()
}

#[cfg(test)]
impl Provider {
    pub(crate) fn test() -> Self {
        Self {
            base_url: "http://a.test".to_owned(),
            model: "m".to_owned(),
            key: None,
            silence: SILENCE,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn provider(variables: &[(&str, &str)]) -> Option<Provider> {
        Provider::of(|name| {
            let variable = variables.iter().find(|(known, _)| *known == name);
            variable.map(|(_, value)| (*value).to_owned())
        })
    }

    #[test]
    fn empty_variables_name_no_provider() {
        assert!(provider(&[]).is_none());
        let empty = [
            ("OPENAI_BASE_URL", ""),
            ("OPENAI_MODEL", "m"),
            ("OPENAI_API_KEY", " "),
        ];
        assert!(provider(&empty).is_none());
    }

    #[test]
    fn a_key_alone_is_for_openai_and_a_local_server_wants_none() {
        let openai = provider(&[("OPENAI_API_KEY", "sk")]).unwrap();
        assert_eq!(openai.base_url, "https://api.openai.com/v1");
        let local = [
            ("OPENAI_BASE_URL", "http://127.0.0.1:11434/v1/"),
            ("OPENAI_TIMEOUT_MS", "5"),
        ];
        let local = provider(&local).unwrap();
        assert_eq!((local.key, local.silence), (None, millis(5)));
        assert_eq!(local.base_url, "http://127.0.0.1:11434/v1");
    }

    #[test]
    fn refusals_have_codes_and_do_not_repeat_the_key() {
        let provider = provider(&[("OPENAI_API_KEY", "sk-secret")]).unwrap();
        let body = json!({"error": {"message": "Incorrect API key: sk-secret"}}).to_string();
        for (status, code) in [
            (401, "agent.key-refused"),
            (403, "agent.key-refused"),
            (429, "agent.rate-limited"),
            (500, "agent.provider-failed"),
            (404, "agent.provider-failed"),
        ] {
            let failure: Failure = provider.refused(status, &body).into();
            assert_eq!(failure.code(), code);
            assert_eq!(failure.params()["said"], "Incorrect API key: …");
            let failure: Failure = provider.refused(status, "<html>").into();
            assert_eq!(failure.params()["said"], "no reason given");
        }
        let long = json!({"error": "x".repeat(10_000)}).to_string();
        let failure: Failure = provider.refused(500, &long).into();
        let said = failure.params()["said"].as_str().unwrap();
        assert_eq!(said.len(), EXPLANATION_MAX);
    }

    #[test]
    fn failures_of_the_transport_have_codes() {
        let of = |code: &'static str, reason: &str| {
            Failure::new(code)
                .param("host", "a.test")
                .param("reason", reason)
        };
        for (failure, before, behind) in [
            (
                of("http.denied", ""),
                "agent.not-allowed",
                "agent.not-allowed",
            ),
            (of("http.timeout", ""), "agent.stalled", "agent.stalled"),
            (
                of("http.failed", "incomplete"),
                "agent.unreachable",
                "agent.broke-off",
            ),
            (
                of("http.failed", "not-utf8"),
                "agent.unreachable",
                "agent.garbage",
            ),
            (
                of("http.failed", "too-large"),
                "agent.unreachable",
                "agent.garbage",
            ),
            (
                of("store.unavailable", ""),
                "store.unavailable",
                "store.unavailable",
            ),
        ] {
            assert_eq!(not_reached(failure.clone()).code(), before);
            assert_eq!(not_read(failure).code(), behind);
        }
    }
}

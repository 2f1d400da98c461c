//! How one component of an application trusts another: every internal request carries a
//! statement of who sends it and why, signed with a key that the application's components
//! share (HMAC-SHA256). Without it anybody could claim to be an actor.
//!
//! A statement holds for one method, path and body, and for a short time.

use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use serde::{Deserialize, Serialize};
use sha2::{Digest, Sha256};
use tidegate_core::{ActorKey, Failure};

use crate::tokens;

/// The header that carries it.
pub const HEADER: &str = "tidegate-internal";
/// How long a statement holds, in milliseconds: the time for a request to arrive.
pub const HOLDS_MS: u64 = 30_000;

/// What a component says of a request that it sends to another.
#[derive(Clone, Debug, Deserialize, PartialEq, Eq, Serialize)]
#[serde(rename_all = "kebab-case")]
pub struct Statement {
    /// What it permits.
    pub purpose: Purpose,
    /// Until when it holds, in milliseconds since the Unix epoch.
    pub until_ms: u64,
    /// The actors that wait for this call, the one that calls last.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub chain: Vec<ActorRef>,
    /// When the caller waits no longer.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub deadline_ms: Option<u64>,
    /// The message's own name, by which a second delivery is known.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub message: Option<String>,
}

/// What an internal request is.
#[derive(Clone, Copy, Debug, Deserialize, PartialEq, Eq, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum Purpose {
    /// An actor calls another, and waits.
    Call,
    /// A message is delivered.
    Message,
    /// An actor's timers are due.
    Wake,
    /// Somebody's view of an actor is wanted.
    Look,
    /// The clock has ticked.
    Tick,
}

/// Names an actor.
#[derive(Clone, Debug, Deserialize, PartialEq, Eq, Serialize)]
pub struct ActorRef {
    /// The actor type.
    pub actor: String,
    /// The id.
    pub id: String,
}

impl From<&ActorKey> for ActorRef {
    fn from(key: &ActorKey) -> ActorRef {
        ActorRef {
            actor: key.actor.to_string(),
            id: key.id.to_string(),
        }
    }
}

impl ActorRef {
    /// Whether it names this actor.
    pub fn is(&self, key: &ActorKey) -> bool {
        self.actor == key.actor.as_str() && self.id == key.id.as_str()
    }
}

/// A request, as far as a statement is about it.
#[derive(Clone, Copy, Debug)]
pub struct About<'a> {
    /// `POST`
    pub method: &'a str,
    /// The path as it is sent.
    pub path: &'a str,
    /// The body.
    pub body: &'a [u8],
}

impl About<'_> {
    fn message(&self, statement: &str) -> Vec<u8> {
        let mut hash = Sha256::new();
        hash.update(self.body);
        let body = URL_SAFE_NO_PAD.encode(hash.finalize());
        // None of the parts can hold a line break.
        let Self { method, path, .. } = self;
        format!("tidegate-internal\n{method}\n{path}\n{body}\n{statement}").into_bytes()
    }
}

impl Statement {
    /// One of this purpose that holds from now on.
    pub fn new(purpose: Purpose, now_ms: u64) -> Statement {
        Statement {
            purpose,
            until_ms: now_ms.saturating_add(HOLDS_MS),
            chain: Vec::new(),
            deadline_ms: None,
            message: None,
        }
    }

    /// The header's value.
    pub fn sign(&self, key: &[u8], about: About<'_>) -> String {
        let statement = serde_json::to_string(self).expect("strings and numbers are JSON");
        let statement = URL_SAFE_NO_PAD.encode(statement);
        let signature = tokens::sign(key, &about.message(&statement));
        format!("{statement}.{}", URL_SAFE_NO_PAD.encode(signature))
    }

    /// What a header says, if this application signed it for this request.
    pub fn verify(
        header: &str,
        key: &[u8],
        about: About<'_>,
        now_ms: u64,
    ) -> Result<Statement, Failure> {
        let refused = || {
            Failure::auth_invalid(
                "the request claims to come from this application, which did not sign it",
                "signature",
            )
        };
        let (statement, signature) = header.split_once('.').ok_or_else(refused)?;
        let signature = URL_SAFE_NO_PAD.decode(signature).map_err(|_| refused())?;
        if !tokens::is_signed(key, &about.message(statement), &signature) {
            return Err(refused());
        }
        let statement = URL_SAFE_NO_PAD.decode(statement).map_err(|_| refused())?;
        let statement: Statement = serde_json::from_slice(&statement).map_err(|_| refused())?;
        match now_ms < statement.until_ms {
            true => Ok(statement),
            false => Err(refused()),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const KEY: &[u8] = b"a key of at least thirty-two bytes";
    const ABOUT: About<'static> = About {
        method: "POST",
        path: "/actors/a/b/c",
        body: b"{}",
    };

    #[test]
    fn what_is_signed_is_believed_for_a_while() {
        let mut statement = Statement::new(Purpose::Call, 1_000);
        statement.chain = vec![ActorRef {
            actor: "chat".to_owned(),
            id: "ä".to_owned(),
        }];
        let header = statement.sign(KEY, ABOUT);
        let verify = |now_ms| Statement::verify(&header, KEY, ABOUT, now_ms);
        assert_eq!(verify(1_000), Ok(statement));
        assert!(verify(1_000 + HOLDS_MS).is_err());
    }

    #[test]
    fn it_holds_for_no_other_request_and_by_no_other_key() {
        let header = Statement::new(Purpose::Call, 0).sign(KEY, ABOUT);
        let (path, method, body) = ("/actors/a/b/d", "GET", b"[]");
        for other in [
            About { path, ..ABOUT },
            About { method, ..ABOUT },
            About { body, ..ABOUT },
        ] {
            assert!(Statement::verify(&header, KEY, other, 0).is_err());
        }
        assert!(Statement::verify(&header, b"another", ABOUT, 0).is_err());
        let forged = format!("x{header}");
        for bad in ["", ".", "a.b", &forged] {
            assert!(Statement::verify(bad, KEY, ABOUT, 0).is_err(), "{bad}");
        }
    }
}

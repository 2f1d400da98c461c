//! Calls of other actors: what one says, and how deep they may nest.

/// How deep calls between actors may nest, where nobody says otherwise.
pub const MAX_DEPTH: u32 = 16;

/// A call or mail of a handler to an actor.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Invocation {
    /// The actor type, as the guest spells it.
    pub actor: String,
    /// The actor's id.
    pub id: String,
    /// The method.
    pub method: String,
    /// Its input.
    pub input: Option<String>,
    /// The idempotency key.
    pub key: Option<String>,
    /// How long to wait.
    pub timeout_ms: Option<u64>,
}

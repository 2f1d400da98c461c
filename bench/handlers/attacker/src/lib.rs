//! A handler that asks as much of its host as it can: each method is one way to keep a host from
//! serving others. The job `hostile` measures whether a neighbour notices.
//!
//! `attacker` computes, multiplies, and has the host work on its state; `checked` has a schema of
//! many parts; `viewed` shows each subscriber a large document of its own.

use std::fmt::Write;
use std::hint::black_box;

use bindings::exports::tidegate::realtime::access::{self, Subscription, View};
use bindings::exports::tidegate::realtime::{actor, manifest};
use bindings::tidegate::realtime::outbox::{self, Audience};
use bindings::tidegate::realtime::types::{ActorRef, Client, Failure, Turn};
use bindings::tidegate::realtime::{actors, state};
use serde_json::{Value, json};

mod bindings;

/// Parts of the schema of `checked`, each of which applies to each item.
const PARTS: usize = 4_000;
/// Small objects in each view of `viewed`.
const OBJECTS: usize = 1_000_000;

struct Attacker;

// Other linkers refuse the names that a component's exports have.
#[cfg(target_family = "wasm")]
bindings::export!(Attacker with_types_in bindings);

impl manifest::Guest for Attacker {
    fn describe() -> String {
        let methods: serde_json::Map<String, Value> = [
            "compute", "multiply", "fill", "prepend", "swell", "read", "keep", "tell",
        ]
        .iter()
        .map(|name| ((*name).to_owned(), json!({})))
        .collect();
        let part = json!({"minimum": 0});
        json!({
            "tidegate": "0.1",
            "actors": {
                "attacker": {
                    "state": {"initial": {"items": []}},
                    "methods": methods,
                    "events": {"noise": {"type": "string"}},
                    "access": [],
                },
                "checked": {
                    "state": {"initial": {}},
                    "methods": {
                        "check": {"input": {"items": {"allOf": vec![part; PARTS]}}},
                    },
                    "access": [],
                },
                "viewed": {
                    "state": {"initial": {"times": 0}},
                    "methods": {"touch": {}},
                    "access": ["project"],
                },
            },
        })
        .to_string()
    }
}

type Answer = Result<Option<String>, Failure>;

impl actor::Guest for Attacker {
    fn invoke(turn: Turn, method: String, input: Option<String>) -> Answer {
        let input: Value =
            serde_json::from_str(input.as_deref().unwrap_or("null")).unwrap_or_default();
        let number = || input.as_u64().unwrap_or_default() as usize;
        match method.as_str() {
            "compute" => loop {
                black_box(0);
            },
            "multiply" => multiply(&turn.this, &input)?,
            "fill" => fill("0", number())?,
            "swell" => fill(r#"{"":0}"#, number())?,
            "prepend" => {
                let entry = state::Entry {
                    pointer: "/items/0".to_owned(),
                    value: "1".to_owned(),
                };
                state::patch(&vec![state::Op::Add(entry); number()])?;
            }
            "read" => loop {
                black_box(state::read());
            },
            "tell" => {
                let text = json!("z".repeat(number())).to_string();
                outbox::emit("noise", &text, &Audience::Everyone)?;
            }
            "touch" => {
                state::replace(&json!({"times": turn.now_ms}).to_string())?;
            }
            // `keep` and `check` are attacks by their inputs.
            _ => {}
        }
        Ok(None)
    }

    fn activate(_: Turn) -> Result<(), Failure> {
        Ok(())
    }

    fn deactivate(_: Turn) -> Result<(), Failure> {
        Ok(())
    }

    fn connect(_: Turn) -> Result<(), Failure> {
        Ok(())
    }

    fn disconnect(_: Turn) -> Result<(), Failure> {
        Ok(())
    }
}

/// Sends to so many new actors, which do the same until so deep.
fn multiply(this: &ActorRef, input: &Value) -> Result<(), Failure> {
    let (width, depth) = (&input["width"], input["depth"].as_u64().unwrap_or_default());
    if depth == 0 {
        return Ok(());
    }
    let next = json!({"width": width, "depth": depth - 1}).to_string();
    for number in 0..width.as_u64().unwrap_or_default() {
        actors::send(&actors::Invocation {
            to: ActorRef {
                actor: this.actor.clone(),
                id: format!("{}-{number}", this.id),
            },
            method: "multiply".to_owned(),
            input: Some(next.clone()),
            key: None,
            timeout_ms: None,
        })?;
    }
    Ok(())
}

/// A state of so many of these.
fn fill(item: &str, count: usize) -> Result<(), Failure> {
    state::replace(&format!(
        r#"{{"items":{}}}"#,
        list(count, |text, _| text.push_str(item))
    ))?;
    Ok(())
}

/// A JSON array of so many items.
fn list(count: usize, item: impl Fn(&mut String, usize)) -> String {
    let mut text = String::with_capacity(8 * count + 2);
    text.push('[');
    for number in 0..count {
        if number > 0 {
            text.push(',');
        }
        item(&mut text, number);
    }
    text.push(']');
    text
}

impl access::Guest for Attacker {
    fn authorize(_: ActorRef, who: Vec<Subscription>) -> Vec<Result<(), Failure>> {
        who.iter().map(|_| Ok(())).collect()
    }

    /// Another document for each, which is another one each time.
    fn project(_: ActorRef, who: Vec<Client>) -> Vec<View> {
        let times = state::get("/times").unwrap_or_default();
        let times: usize = times.parse().unwrap_or_default();
        let view = |viewer: usize| {
            View::Document(list(OBJECTS, |text, number| {
                // Writing to a string cannot fail.
                let _ = write!(text, r#"{{"":{}}}"#, (number + viewer + times) % 10);
            }))
        };
        (0..who.len()).map(view).collect()
    }
}

//! A handler that does what each call tells it, step by step, through the bare contract: what
//! the host does with timers, calls and streams is then the host's doing alone.
//!
//! A call's input is an array of steps; its result is the array of their results. A step is
//! an object with one member, its name; see `step`.

use std::time::Duration;

use bindings::exports::tidegate::realtime::{actor, manifest};
use bindings::tidegate::realtime::actors::{self, Invocation};
use bindings::tidegate::realtime::outbox::{self, Audience};
use bindings::tidegate::realtime::timers::{self, Life};
use bindings::tidegate::realtime::types::{ActorRef, Failure, Origin, Turn};
use bindings::tidegate::realtime::{state, turns};
use serde_json::{Value, json};

mod bindings;

struct Puppet;

// Other linkers refuse the names that a component's exports have.
#[cfg(target_family = "wasm")]
bindings::export!(Puppet with_types_in bindings);

impl manifest::Guest for Puppet {
    fn describe() -> String {
        let steps = json!({"type": ["array", "null"]});
        let actor = json!({
            "state": {"initial": {"log": [], "text": "", "n": 0}},
            "methods": {
                "run": {"input": steps},
                "stream": {"input": steps, "streaming": {"intervalMs": 20}},
                "hasty": {"input": steps, "deadlineMs": 300},
                "note": {},
                "strict": {"input": {"type": "integer"}},
                "echo": {},
                "echoInteger": {"input": {"type": "integer"}, "output": {"type": "integer"}},
                "float": {"output": {"type": "integer"}},
            },
            "events": {"said": true, "counted": {"type": "integer"}},
        });
        let mut clockwork = actor.clone();
        clockwork["cron"] = json!({"note": {"everyMs": 100}});
        let mut eager = actor.clone();
        eager["hooks"] = json!(["activate"]);
        let mut inventory = actor.clone();
        inventory["state"] = json!({
            "schema": {
                "type": "object",
                "properties": {"items": {"type": "array", "maxItems": 100, "items": {
                    "type": "object",
                    "properties": {"count": {"type": "integer"}},
                    "required": ["count"],
                }}},
                "required": ["items"],
            },
            "initial": {"items": []},
        });
        let manifest = json!({
            "tidegate": "0.1",
            "actors": {
                "puppet": actor,
                "clockwork": clockwork,
                "eager": eager,
                "inventory": inventory,
            },
        });
        manifest.to_string()
    }
}

type Answer = Result<Option<String>, Failure>;

impl actor::Guest for Puppet {
    fn invoke(turn: Turn, method: String, input: Option<String>) -> Answer {
        if method == "note" {
            return note(&turn, input.as_deref());
        }
        if method == "echo" || method == "echoInteger" {
            return Ok(input);
        }
        if method == "float" {
            return Ok(Some("1.0".to_owned()));
        }
        let input = input.unwrap_or_default();
        let steps: Vec<Value> = serde_json::from_str(&input).unwrap_or_default();
        let mut results = Vec::new();
        for wanted in &steps {
            results.push(step(&turn, wanted)?);
        }
        Ok(Some(Value::from(results).to_string()))
    }

    fn activate(_: Turn) -> Result<(), Failure> {
        timers::after(10, "note", Some("\"activated\""), Life::empty()).map(drop)
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

/// Adds what caused the turn to the state's log.
fn note(turn: &Turn, input: Option<&str>) -> Answer {
    let input: Value = input.map_or(Value::Null, parse);
    let mut entry = match &turn.origin {
        Origin::Client(_) => json!({"by": "client"}),
        Origin::Actor(actor) => json!({"by": "actor", "actor": actor.actor, "id": actor.id}),
        Origin::Timer(firing) => {
            json!({"by": "timer", "id": firing.id, "due": firing.due_ms, "now": turn.now_ms})
        }
        Origin::Cron(firing) => json!({"by": "cron", "due": firing.due_ms, "now": turn.now_ms}),
        Origin::Host => json!({"by": "host"}),
    };
    entry["input"] = input;
    add("/log/-", &entry)?;
    Ok(Some("\"noted\"".to_owned()))
}

/// Does one thing.
fn step(turn: &Turn, wanted: &Value) -> Result<Value, Failure> {
    let (name, with) = wanted
        .as_object()
        .and_then(|step| step.iter().next())
        .ok_or_else(|| failure("puppet.no-step"))?;
    let number = with.as_u64().unwrap_or_default();
    Ok(match name.as_str() {
        // {"set": {member: value, …}}
        "set" => {
            for (member, value) in with.as_object().into_iter().flatten() {
                add(&format!("/{member}"), value)?;
            }
            Value::Null
        }
        // {"repeat": {times, steps}}
        "repeat" => {
            let steps = with["steps"].as_array();
            for _ in 0..of(with, "times") {
                for wanted in steps.into_iter().flatten() {
                    step(turn, wanted)?;
                }
            }
            Value::Null
        }
        // {"remove": member}
        "remove" => {
            let member = with.as_str().unwrap_or_default();
            state::patch(&[state::Op::Remove(format!("/{member}"))])?;
            Value::Null
        }
        // {"whole": text}, the whole state
        "whole" => {
            state::replace(with.as_str().unwrap_or_default())?;
            Value::Null
        }
        // {"fill": {"with": text, "times": n}}, the whole state, an array of it
        "fill" => {
            let part = with["with"].as_str().unwrap_or_default();
            let parts = vec![part; of(with, "times") as usize];
            state::replace(&format!("[{}]", parts.join(",")))?;
            Value::Null
        }
        // {"append": text}, to the member `text`
        "append" => {
            let tail = state::Tail {
                pointer: "/text".to_owned(),
                text: with.as_str().unwrap_or_default().to_owned(),
            };
            state::patch(&[state::Op::Append(tail)])?;
            Value::Null
        }
        // {"emit": payload}
        "emit" => {
            outbox::emit("said", &with.to_string(), &Audience::Everyone)?;
            Value::Null
        }
        // {"emitText": payload}, as it is
        "emitText" => {
            let payload = with.as_str().unwrap_or_default();
            done(outbox::emit("counted", payload, &Audience::Everyone))
        }
        // {"chunk": payload}
        "chunk" => done(outbox::chunk(&with.to_string())),
        // {"sleep": ms}, waiting in the host
        "sleep" => {
            std::thread::sleep(Duration::from_millis(number));
            Value::Null
        }
        // {"checkpoint": "due" | "now"}
        "checkpoint" => done(turns::checkpoint(match with.as_str() {
            Some("now") => turns::Flush::Now,
            _ => turns::Flush::Due,
        })),
        // {"count": {"to": n, "each": ms}}: counts in the member `n`, fit to be seen each time
        "count" => {
            let (to, each) = (of(with, "to"), of(with, "each"));
            for n in 1..=to {
                add("/n", &n.into())?;
                turns::checkpoint(turns::Flush::Due)?;
                std::thread::sleep(Duration::from_millis(each));
                if turns::cancelled() {
                    return Ok(json!({"cancelled at": n}));
                }
            }
            Value::Null
        }
        // {"spin": ms}: computes
        "spin" => {
            let end = std::time::Instant::now() + Duration::from_millis(number);
            while std::time::Instant::now() < end {
                std::hint::spin_loop();
            }
            Value::Null
        }
        // {"after" | "every": {ms, method, input?, idle?, outlive?}}
        "after" | "every" => {
            let mut life = Life::empty();
            life.set(Life::IDLE, with["idle"] == true);
            life.set(Life::OUTLIVE, with["outlive"] == true);
            let set = match name.as_str() {
                "after" => timers::after,
                _ => timers::every,
            };
            let method = with["method"].as_str().unwrap_or("note");
            let input = with.get("input").map(Value::to_string);
            match set(of(with, "ms"), method, input.as_deref(), life) {
                Ok(id) => id.into(),
                Err(failure) => told(&failure),
            }
        }
        // {"timers": n}: sets so many; how many could be set
        "timers" => {
            let set = |_: &u64| timers::after(3_600_000, "note", None, Life::IDLE).is_ok();
            (0..number).take_while(set).count().into()
        }
        // {"cancel": id}
        "cancel" => timers::cancel(number).into(),
        // {"call" | "send": {actor, id, method, input?, timeout?}}
        "call" => match actors::call(&invocation(with)) {
            Ok(result) => result.map_or(Value::Null, |text| parse(&text)),
            Err(failure) => told(&failure),
        },
        "send" => done(actors::send(&invocation(with))),
        // {"callAll": [call, …]}
        "callAll" => {
            let calls: Vec<Invocation> = with
                .as_array()
                .into_iter()
                .flatten()
                .map(invocation)
                .collect();
            let results = actors::call_all(&calls)
                .into_iter()
                .map(|result| match result {
                    Ok(result) => result.map_or(Value::Null, |text| parse(&text)),
                    Err(failure) => told(&failure),
                });
            results.collect()
        }
        // {"cancelled": null}
        "cancelled" => turns::cancelled().into(),
        // {"deadline": null}: milliseconds left
        "deadline" => turn.deadline_ms.saturating_sub(turn.now_ms).into(),
        // {"fail": code}
        "fail" => return Err(failure(with.as_str().unwrap_or("puppet.failed"))),
        "trap" => panic!("as told"),
        _ => return Err(failure("puppet.unknown-step")),
    })
}

fn invocation(with: &Value) -> Invocation {
    let text = |name: &str| with[name].as_str().unwrap_or_default().to_owned();
    Invocation {
        to: ActorRef {
            actor: text("actor"),
            id: text("id"),
        },
        method: text("method"),
        input: with.get("input").map(Value::to_string),
        key: None,
        timeout_ms: with["timeout"].as_u64(),
    }
}

fn add(pointer: &str, value: &Value) -> Result<(), Failure> {
    let entry = state::Entry {
        pointer: pointer.to_owned(),
        value: value.to_string(),
    };
    state::patch(&[state::Op::Add(entry)]).map(drop)
}

fn of(with: &Value, name: &str) -> u64 {
    with[name].as_u64().unwrap_or_default()
}

fn parse(text: &str) -> Value {
    serde_json::from_str(text).unwrap_or_default()
}

fn done(result: Result<(), Failure>) -> Value {
    result.map_or_else(|failure| told(&failure), |()| Value::Null)
}

fn told(failure: &Failure) -> Value {
    json!({"failed": failure.code})
}

fn failure(code: &str) -> Failure {
    Failure {
        code: code.to_owned(),
        message: None,
        params: None,
        http_status: None,
    }
}

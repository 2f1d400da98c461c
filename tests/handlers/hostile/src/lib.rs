//! A handler that misbehaves on request: each method of `hostile` is one way in which a
//! guest can go wrong, each hook of `wedge` fails. The end-to-end tests show that only the
//! turn suffers.
//!
//! The granted variable `DESCRIBE` makes the manifest itself misbehave: `loop`, `trap`,
//! `import`, or the text to return as manifest. The variable `INITIALISE` makes the
//! component misbehave before it is ever called: `loop`, `wait` or `trap`.

use std::hint::black_box;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, SystemTime};

use bindings::exports::tidegate::realtime::{actor, manifest};
use bindings::tidegate::realtime::outbox::{self, Audience};
use bindings::tidegate::realtime::state;
use bindings::tidegate::realtime::types::{Failure, Turn};
use serde_json::{Value, json};

mod bindings;

struct Hostile;

/// Turns that this instance has counted: what guest memory forgets when the instance is
/// replaced.
static TURNS: AtomicU64 = AtomicU64::new(0);

/// What the linker's start function runs.
#[cfg(target_family = "wasm")]
#[used]
#[unsafe(link_section = ".init_array")]
static INITIALISER: extern "C" fn() = initialise;

#[cfg(target_family = "wasm")]
extern "C" fn initialise() {
    match std::env::var("INITIALISE").as_deref() {
        Ok("loop") => spin(),
        Ok("wait") => std::thread::sleep(Duration::from_secs(3600)),
        Ok("trap") => trap(),
        _ => {}
    }
}

// Other linkers refuse the names that a component's exports have.
#[cfg(target_family = "wasm")]
bindings::export!(Hostile with_types_in bindings);

impl manifest::Guest for Hostile {
    fn describe() -> String {
        match std::env::var("DESCRIBE").as_deref() {
            Ok("loop") => spin(),
            Ok("trap") => panic!("no manifest today"),
            Ok("import") => state::read(),
            Ok(text) => text.to_owned(),
            Err(_) => described().to_string(),
        }
    }
}

fn described() -> Value {
    let methods = [
        "ping",
        "loop",
        "sleep",
        "allocate",
        "recurse",
        "trap",
        "panic",
        "floodImports",
        "floodEvents",
        "floodRecipients",
        "floodClock",
        "floodOutput",
        "insistOnEvents",
        "surviveRefusal",
        "turnsOfInstance",
        "append",
        "shrinkAndFail",
        "growAndFail",
        "hugeState",
        "malformedState",
        "deepState",
        "malformedResult",
        "mistypedResult",
        "mistypedState",
        "malformedPatch",
        "malformedEvent",
        "undeclaredEvent",
        "mistypedEvent",
        "malformedCode",
        "malformedParams",
        "floodLog",
        "print",
        "environment",
        "files",
        "sockets",
    ];
    let mut described: serde_json::Map<String, Value> = methods
        .iter()
        .map(|name| ((*name).to_owned(), json!({})))
        .collect();
    described["mistypedResult"] = json!({"output": {"type": "integer"}});
    json!({
        "tidegate": "0.1",
        "actors": {
            "hostile": {
                "state": {
                    "schema": {
                        "type": "object",
                        "properties": {"pings": {"type": "integer"}},
                        "required": ["pings"],
                    },
                    "initial": {"pings": 0},
                },
                "methods": described,
                "events": {"noise": {"type": "string"}},
            },
            "wedge": {
                "state": {"initial": {"pings": 0}},
                "methods": {"ping": {}},
                "hooks": ["activate", "deactivate", "connect", "disconnect"],
            },
        },
    })
}

type Answer = Result<Option<String>, Failure>;

impl actor::Guest for Hostile {
    fn invoke(_turn: Turn, method: String, input: Option<String>) -> Answer {
        match method.as_str() {
            "ping" => return ping(),
            "append" => return append(&input.unwrap_or_default()),
            "turnsOfInstance" => {
                let turns = TURNS.fetch_add(1, Ordering::Relaxed) + 1;
                return Ok(Some(turns.to_string()));
            }
            "surviveRefusal" => {
                let refused = black_box(Vec::<u8>::new()).try_reserve(1 << 30).is_err();
                return Ok(Some(json!(refused).to_string()));
            }
            // What a turn does before it goes wrong must be gone afterwards.
            "floodEvents" | "floodImports" | "growAndFail" => {}
            _ => spoil()?,
        }
        match method.as_str() {
            "loop" => spin(),
            "sleep" => std::thread::sleep(Duration::from_secs(3600)),
            "allocate" => allocate(),
            "recurse" => return Ok(Some(recurse(1).to_string())),
            "trap" => trap(),
            "panic" => panic!("the secret is 42"),
            "floodImports" => loop {
                black_box(state::token());
            },
            "floodEvents" => loop {
                noise()?;
            },
            "floodRecipients" => {
                let crowd = vec!["c".repeat(100); 10_000];
                for _ in 0..100 {
                    outbox::emit("noise", "\"\"", &Audience::Only(crowd.clone()))?;
                }
            }
            "floodClock" => loop {
                black_box(SystemTime::now());
            },
            "floodOutput" => loop {
                println!("flood");
            },
            "insistOnEvents" => {
                // A guest that does not look at the failure must not get round it.
                for _ in 0..100 {
                    let _ = noise();
                }
            }
            "hugeState" => {
                let huge = json!({"pings": 0, "filler": "x".repeat(2 << 20)});
                state::replace(&huge.to_string())?;
            }
            "shrinkAndFail" => {
                state::replace(r#"{"pings": 0}"#)?;
                return Err(failure("hostile.shrunk", None));
            }
            "growAndFail" => {
                append(&input.unwrap_or_default())?;
                return Err(failure("hostile.grown", None));
            }
            "malformedState" => {
                state::replace("{\"pings\": 1")?;
            }
            "deepState" => {
                let deep = format!(
                    r#"{{"pings":0,"deep":{}{}}}"#,
                    "[".repeat(100_000),
                    "]".repeat(100_000)
                );
                state::replace(&deep)?;
            }
            "mistypedState" => {
                state::replace(r#"{"pings": "many"}"#)?;
            }
            "malformedPatch" => {
                let entry = state::Entry {
                    pointer: "/nowhere/at/all".into(),
                    value: "1".into(),
                };
                state::patch(&[state::Op::Replace(entry)])?;
            }
            "malformedResult" => return Ok(Some("{\"half\":".into())),
            "mistypedResult" => return Ok(Some("\"text\"".into())),
            "malformedEvent" => outbox::emit("noise", "\"half", &Audience::Everyone)?,
            "undeclaredEvent" => outbox::emit("nowhere", "\"x\"", &Audience::Everyone)?,
            "mistypedEvent" => outbox::emit("noise", "7", &Audience::Everyone)?,
            "malformedCode" => return Err(failure("Not A Code!", None)),
            "malformedParams" => return Err(failure("hostile.params", Some("[1, 2"))),
            "floodLog" => {
                for _ in 0..10_000 {
                    println!("{}", "flood ".repeat(100));
                }
            }
            "print" => {
                println!("to standard output");
                eprintln!("to standard error");
            }
            "environment" => {
                let variables: serde_json::Map<String, Value> = std::env::vars()
                    .map(|(name, value)| (name, value.into()))
                    .collect();
                return Ok(Some(Value::from(variables).to_string()));
            }
            "sockets" => {
                let address: String =
                    serde_json::from_str(&input.unwrap_or_default()).unwrap_or_default();
                return Ok(Some(
                    json!(std::net::TcpStream::connect(address).is_ok()).to_string(),
                ));
            }
            "files" => return Ok(Some(json!(std::fs::read_dir("/").is_ok()).to_string())),
            other => panic!("the host let {other} through"),
        }
        Ok(None)
    }

    fn activate(turn: Turn) -> Result<(), Failure> {
        fail_hook(&turn)
    }

    fn deactivate(turn: Turn) -> Result<(), Failure> {
        fail_hook(&turn)
    }

    fn connect(turn: Turn) -> Result<(), Failure> {
        fail_hook(&turn)
    }

    fn disconnect(turn: Turn) -> Result<(), Failure> {
        fail_hook(&turn)
    }
}

/// Counts, so that tests see whether the actor still works.
fn ping() -> Answer {
    let mut document = read()?;
    let pings = document["pings"].as_i64().unwrap_or_default() + 1;
    document["pings"] = pings.into();
    state::replace(&document.to_string())?;
    Ok(Some(pings.to_string()))
}

/// Adds a member to the state, whose value has as many bytes as the input says.
fn append(input: &str) -> Answer {
    let bytes: usize = input.parse().unwrap_or_default();
    let entry = state::Entry {
        pointer: format!("/filler-{bytes}"),
        value: format!("\"{}\"", "x".repeat(bytes.saturating_sub(2))),
    };
    state::patch(&[state::Op::Add(entry)])?;
    Ok(None)
}

/// Stages a change and an event that nobody may ever see.
fn spoil() -> Result<(), Failure> {
    let mut document = read()?;
    document["pings"] = (-1).into();
    state::replace(&document.to_string())?;
    outbox::emit("noise", "\"spoilt\"", &Audience::Everyone)
}

fn read() -> Result<Value, Failure> {
    serde_json::from_str(&state::read()).map_err(|_| failure("hostile.unreadable", None))
}

/// Hooks of `wedge` fail in the way that the actor's id asks for.
fn fail_hook(turn: &Turn) -> Result<(), Failure> {
    state::replace(r#"{"pings": -1}"#)?;
    match turn.this.id.as_str() {
        "trap" => trap(),
        "loop" => spin(),
        _ => Err(failure("wedge.hook", None)),
    }
}

fn failure(code: &str, params: Option<&str>) -> Failure {
    Failure {
        code: code.to_owned(),
        message: None,
        params: params.map(str::to_owned),
        http_status: None,
    }
}

fn noise() -> Result<(), Failure> {
    let payload = format!("\"{}\"", "z".repeat(100 << 10));
    outbox::emit("noise", &payload, &Audience::Everyone)
}

fn spin() -> ! {
    let mut turns: u64 = 0;
    loop {
        turns = black_box(turns.wrapping_add(1));
    }
}

fn allocate() {
    let mut kept: Vec<Vec<u8>> = Vec::new();
    loop {
        kept.push(black_box(vec![1; 1 << 20]));
    }
}

#[allow(unconditional_recursion)]
fn recurse(depth: u64) -> u64 {
    black_box(recurse(black_box(depth) + 1)) + 1
}

fn trap() -> ! {
    #[cfg(target_arch = "wasm32")]
    core::arch::wasm32::unreachable();
    #[cfg(not(target_arch = "wasm32"))]
    std::process::abort();
}

//! What clients see of an actor: its manifest, and what goes in and out of its methods. The
//! host's own parser reads every manifest, and its schemas check what leaves the actor.

use std::collections::BTreeMap;

use tidegate_core::{Manifest, Schema};
use tidegate_sdk::prelude::*;
use tidegate_sdk::test::{self, Emitted, Value, json};

/// A list of notes.
#[derive(Default, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
struct Notebook {
    notes: BTreeMap<String, Note>,
    last_author: Option<String>,
    drafts: Vec<String>,
}

#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
struct Note {
    text: String,
    written_at: u64,
    replies: Vec<Note>,
}

#[derive(Event)]
enum NotebookEvent {
    /// A note was written.
    NoteWritten(Note),
    Moved {
        old_name: String,
        new_name: String,
    },
    #[event(name = "wiped-clean")]
    Cleared,
}

#[derive(Event, Serialize, JsonSchema)]
struct Opened {
    by: Option<String>,
}

#[derive(Debug, Failure)]
#[failure(prefix = "notebook")]
enum NotebookError {
    #[failure(status = 404, message = "there is no note {note_name:?}")]
    NoSuchNote { note_name: String },
    #[failure(code = "notebook.locked-up")]
    Locked,
    #[failure(transparent)]
    Host(Failure),
}

type Answer<T> = Result<T, NotebookError>;

#[derive(Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
struct Move {
    from_name: String,
    to_name: String,
}

#[actor(events(NotebookEvent, Opened), hidden("drafts"))]
impl Notebook {
    /// Writes a note.
    ///
    /// An old one is replaced.
    pub fn write_note(
        &mut self,
        /// Under which it is found.
        name: String,
        ctx: &mut Context<Self>,
        text: String,
        #[serde(default)] replies: Vec<Note>,
    ) -> Note {
        let note = Note {
            text,
            written_at: ctx.now(),
            replies,
        };
        self.notes.insert(name, note.clone());
        ctx.emit(NotebookEvent::NoteWritten(note.clone()));
        note
    }

    #[method(name = "move")]
    pub fn rename(&mut self, input: Move, ctx: &mut Context<Self>) -> Answer<()> {
        let note = self.notes.remove(&input.from_name);
        // The state has changed: what follows must be undone on failure.
        ctx.emit(NotebookEvent::Cleared);
        let note = note.ok_or(NotebookError::NoSuchNote {
            note_name: input.from_name.clone(),
        })?;
        self.notes.insert(input.to_name.clone(), note);
        ctx.emit(NotebookEvent::Moved {
            old_name: input.from_name,
            new_name: input.to_name,
        });
        Ok(())
    }

    pub fn find(&self, name: String) -> Option<Note> {
        self.notes.get(&name).cloned()
    }

    pub fn names(&self, r#type: Option<String>, _limit: Option<usize>) -> Vec<String> {
        let prefix = r#type.unwrap_or_default();
        let named = self.notes.keys().filter(|name| name.starts_with(&prefix));
        named.cloned().collect()
    }

    pub fn echo(&self, input: Value) -> Value {
        input
    }

    pub fn sleep(&self) {}

    pub fn lock(&self) -> Answer<()> {
        Err(NotebookError::Locked)
    }

    pub fn whoami(&self, ctx: &Context<Self>) -> Result<Option<Claims>> {
        ctx.user()
    }

    /// How long a note is, without decoding the notebook.
    pub fn length(state: &Tracked<Self>, name: String) -> Answer<usize> {
        let text: Option<String> = state.get(["notes", &name, "text"])?;
        let text = text.ok_or(NotebookError::NoSuchNote { note_name: name })?;
        Ok(text.len())
    }

    pub fn extend(state: &mut Tracked<Self>, name: String, by: String) -> Answer<Note> {
        let note = pointer!["notes", name];
        state.append(note.clone().join("text"), &by)?;
        state.push(["drafts"], "one more")?;
        let extended = state.get(&note)?;
        extended.ok_or(NotebookError::NoSuchNote { note_name: name })
    }

    #[cfg(any())]
    pub fn not_compiled(&self) {}

    #[connect]
    fn opened(&mut self, ctx: &mut Context<Self>) {
        let by = ctx.connection().map(str::to_owned);
        self.last_author.clone_from(&by);
        ctx.to(by.as_deref()).emit(Opened { by });
    }

    #[deactivate]
    fn tidy(&mut self) -> Result<()> {
        self.drafts.clear();
        Ok(())
    }

    #[expect(dead_code)]
    fn private(&self) {}

    #[expect(dead_code)]
    pub fn constructor() -> Self {
        Self::default()
    }
}

#[derive(Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
struct Claims {
    sub: String,
}

fn notebook() -> test::Actor<Notebook> {
    test::Actor::new("mine")
}

fn with_note() -> test::Actor<Notebook> {
    let mut notebook = notebook();
    notebook
        .invoke("writeNote", json!({"name": "a/b", "text": "Hello"}))
        .unwrap();
    notebook.emitted();
    notebook
}

fn manifest() -> Manifest {
    let manifest = json!({"tidegate": "0.1", "actors": {"notebook": notebook().manifest()}});
    Manifest::parse(&manifest.to_string()).unwrap()
}

#[track_caller]
fn assert_satisfies(schema: &Schema, value: &Value) {
    if let Err(violations) = schema.check(&value.clone().into()) {
        panic!("{value}: {violations}");
    }
}

#[test]
fn the_host_reads_the_manifest() {
    let notebook = &manifest().actors["notebook"];
    assert_eq!(notebook.description.as_deref(), Some("A list of notes."));
    assert_eq!(notebook.state.hidden, ["drafts"]);
    let hooks = notebook.hooks;
    assert!(hooks.connect && hooks.deactivate && !hooks.disconnect && !hooks.activate);
    let names: Vec<&str> = notebook.methods.keys().map(AsRef::as_ref).collect();
    assert_eq!(
        names,
        [
            "echo",
            "extend",
            "find",
            "length",
            "lock",
            "move",
            "names",
            "sleep",
            "whoami",
            "writeNote"
        ]
    );
    let events: Vec<&str> = notebook.events.keys().map(AsRef::as_ref).collect();
    assert_eq!(events, ["moved", "noteWritten", "opened", "wiped-clean"]);
}

#[test]
fn doc_comments_are_descriptions() {
    let manifest = notebook().manifest();
    let write = &manifest["methods"]["writeNote"];
    assert_eq!(
        write["description"],
        "Writes a note.\n\nAn old one is replaced."
    );
    assert_eq!(
        write["input"]["properties"]["name"]["description"],
        "Under which it is found."
    );
    assert_eq!(
        manifest["events"]["noteWritten"]["description"],
        "A note was written."
    );
}

#[test]
fn a_description_of_the_actor_wins_over_that_of_its_state() {
    /// The state.
    #[derive(Default, Serialize, Deserialize, JsonSchema)]
    struct Door {}

    /// The actor.
    #[actor]
    impl Door {}

    let manifest = test::Actor::<Door>::new("a").manifest();
    assert_eq!(manifest["description"], "The actor.");
}

#[test]
fn parameters_are_members_of_the_input() {
    let manifest = notebook().manifest();
    let input = &manifest["methods"]["writeNote"]["input"];
    assert_eq!(input["type"], "object");
    assert_eq!(input["required"], json!(["name", "text"]));
    let names = &manifest["methods"]["names"]["input"];
    assert_eq!(names["type"], json!(["object", "null"]));
    let members: Vec<&String> = names["properties"].as_object().unwrap().keys().collect();
    assert_eq!(members, ["limit", "type"]);
}

#[test]
fn a_method_without_parameters_has_no_input() {
    let sleep = notebook().manifest()["methods"]["sleep"].clone();
    assert_eq!(sleep, json!({}), "and no output either");
}

#[test]
fn what_leaves_satisfies_its_schema() {
    let manifest = manifest();
    let spec = &manifest.actors["notebook"];
    let mut notebook = with_note();
    for (method, input) in [
        ("writeNote", json!({"name": "n", "text": "", "replies": []})),
        ("find", json!({"name": "n"})),
        ("find", json!({"name": "?"})),
        ("names", json!({})),
        ("echo", json!([1, {"a": null}])),
        ("length", json!({"name": "n"})),
        ("extend", json!({"name": "n", "by": "!"})),
        ("move", json!({"fromName": "n", "toName": "m"})),
    ] {
        let method_spec = &spec.methods[method];
        assert_satisfies(method_spec.input.as_ref().unwrap(), &input);
        let output = notebook.invoke(method, input).unwrap();
        if let Some(schema) = &method_spec.output {
            assert_satisfies(schema, &output);
        }
        assert_satisfies(spec.state.schema.as_ref().unwrap(), &notebook.state());
    }
    notebook.connect("c1").unwrap();
    let emitted = notebook.emitted();
    assert_eq!(emitted.len(), 4);
    for event in emitted {
        assert_satisfies(&spec.events[event.event()], event.payload());
    }
}

#[test]
fn optional_parameters_may_be_absent() {
    let mut notebook = with_note();
    assert_eq!(notebook.invoke("names", None), Ok(json!(["a/b"])));
    assert_eq!(notebook.invoke("names", json!({})), Ok(json!(["a/b"])));
    assert_eq!(
        notebook.invoke("names", json!({"type": "x"})),
        Ok(json!([]))
    );
}

#[test]
fn an_input_parameter_is_the_whole_input() {
    let mut notebook = notebook();
    assert_eq!(notebook.invoke("echo", json!([1, 2])), Ok(json!([1, 2])));
    assert_eq!(notebook.invoke("echo", None), Ok(Value::Null));
}

#[test]
fn a_failure_undoes_state_and_events() {
    let mut notebook = with_note();
    let before = notebook.state();
    let failure = notebook
        .invoke("move", json!({"fromName": "x", "toName": "y"}))
        .unwrap_err();
    assert_eq!(failure.code(), "notebook.no-such-note");
    assert_eq!(failure.text(), "there is no note \"x\"");
    assert_eq!(failure.params()["noteName"], "x");
    assert_eq!(failure.http_status(), Some(404));
    assert_eq!(notebook.emitted(), []);
    assert_eq!(notebook.state(), before);
}

#[test]
fn a_variant_may_have_a_code_of_its_own() {
    let failure = notebook().invoke("lock", None).unwrap_err();
    assert_eq!(failure.code(), "notebook.locked-up");
    assert_eq!(failure.text(), "notebook.locked-up");
}

#[test]
fn events_carry_their_content() {
    let mut notebook = with_note();
    notebook
        .invoke("move", json!({"fromName": "a/b", "toName": "c"}))
        .unwrap();
    let moved = NotebookEvent::Moved {
        old_name: "a/b".to_owned(),
        new_name: "c".to_owned(),
    };
    let emitted = notebook.emitted();
    assert_eq!(
        emitted,
        [
            Emitted::everyone(NotebookEvent::Cleared),
            Emitted::everyone(moved)
        ]
    );
    assert_eq!(emitted[0].event(), "wiped-clean");
    assert_eq!(*emitted[0].payload(), Value::Null);
    assert_eq!(
        *emitted[1].payload(),
        json!({"oldName": "a/b", "newName": "c"})
    );
}

#[test]
fn hooks_are_not_methods() {
    let mut notebook = notebook();
    for name in [
        "opened",
        "connect",
        "tidy",
        "private",
        "constructor",
        "notCompiled",
    ] {
        let failure = notebook.invoke(name, None).unwrap_err();
        assert_eq!(failure.code(), "method.unknown", "{name}");
    }
}

#[test]
fn hooks_change_the_state_and_emit() {
    let mut notebook = notebook();
    notebook.connect("c1").unwrap();
    notebook.connect("c1").unwrap();
    assert_eq!(notebook.state()["lastAuthor"], "c1");
    let by = Some("c1".to_owned());
    assert_eq!(notebook.emitted(), [Emitted::to("c1", Opened { by })]);
}

#[test]
fn tracked_methods_reach_the_same_state() {
    let mut notebook = with_note();
    let extended = notebook.invoke("extend", json!({"name": "a/b", "by": "!"}));
    assert_eq!(extended.unwrap()["text"], "Hello!");
    let found = notebook.invoke("find", json!({"name": "a/b"}));
    assert_eq!(found.unwrap()["text"], "Hello!");
    assert_eq!(
        notebook.invoke("length", json!({"name": "a/b"})),
        Ok(json!(6))
    );
    let missing = notebook.invoke("extend", json!({"name": "a", "by": "!"}));
    assert_eq!(missing.unwrap_err().code(), "state.no-such-place");
    assert_eq!(notebook.state()["drafts"], json!(["one more"]));
}

#[test]
fn claims_are_decoded_or_refused() {
    let mut notebook = notebook();
    let mut whoami = |claims: Value| {
        let caller = notebook.from("c1").user(claims);
        caller
            .invoke("whoami", None)
            .map_err(|failure| failure.code().to_owned())
    };
    assert_eq!(whoami(json!({"sub": "ann"})), Ok(json!({"sub": "ann"})));
    assert_eq!(whoami(json!({"id": 1})), Err("user.mismatch".to_owned()));
    assert_eq!(notebook.invoke("whoami", None), Ok(Value::Null));
}

#[test]
fn a_state_of_an_earlier_version_is_refused_when_it_does_not_fit() {
    let mut notebook = notebook();
    notebook.set_state(json!({"notes": {"a": {"text": 1}}}));
    let failure = notebook.invoke("sleep", None).unwrap_err();
    assert_eq!(failure.code(), "state.mismatch");
    assert!(failure.text().contains("/notes/a/text: invalid type"));
}

#[test]
fn the_manifest_of_a_counter_is_the_one_in_the_contract() {
    /// A shared counter.
    #[derive(Default, Serialize, Deserialize, JsonSchema)]
    struct Counter {
        count: i64,
    }

    #[actor]
    impl Counter {
        /// Adds to the count and returns it.
        pub fn increment(&mut self, by: i64) -> i64 {
            self.count += by;
            self.count
        }
    }

    let integer = json!({
        "type": "integer",
        "format": "int64",
        "minimum": i64::MIN,
        "maximum": i64::MAX,
    });
    assert_eq!(
        test::Actor::<Counter>::new("a").manifest(),
        json!({
            "description": "A shared counter.",
            "state": {
                "schema": {"type": "object", "properties": {"count": integer}, "required": ["count"]},
                "initial": {"count": 0},
                "hidden": [],
            },
            "methods": {
                "increment": {
                    "description": "Adds to the count and returns it.",
                    "input": {"type": "object", "properties": {"by": integer}, "required": ["by"]},
                    "output": integer,
                },
            },
            "events": {},
            "hooks": [],
        })
    );
}

#[test]
#[should_panic(expected = "hides `deckk`, but its state has no such member")]
fn a_hidden_member_must_exist() {
    #[derive(Default, Serialize, Deserialize, JsonSchema)]
    struct Cards {
        deck: Vec<u8>,
    }

    #[actor(hidden("deckk"))]
    impl Cards {}

    test::Actor::<Cards>::new("a");
}

#[test]
#[should_panic(expected = "the host does not pass on the code \"No Way\"")]
fn a_test_notices_a_code_that_the_host_would_replace() {
    #[derive(Default, Serialize, Deserialize, JsonSchema)]
    struct Odd {}

    #[actor]
    impl Odd {
        pub fn fail(&self) -> Result<()> {
            Err(Failure::new("No Way"))
        }
    }

    drop(test::Actor::<Odd>::new("a").invoke("fail", None));
}

//! The SDK's macros inside of other macros, with everything in them that can be an argument:
//! names, types, literals and expressions.

#![allow(missing_docs, reason = "nobody but these tests uses what is in it")]

use tidegate_sdk::Subject;
use tidegate_sdk::prelude::*;
use tidegate_sdk::test::{Actor, Value, json};

#[derive(Default, Serialize, Deserialize, JsonSchema)]
pub struct Amount {
    by: i64,
}

/// Types only.
macro_rules! shelf {
    ($state:ty, $item:ty, $input:ty, $output:ty) => {
        #[actor]
        impl $state {
            pub fn put(&mut self, item: $item) -> $output {
                self.items.push(item.clone());
                Ok(self.items.len())
            }

            pub fn change(&mut self, input: $input) -> Option<$item> {
                let _ = input.by;
                self.items.pop()
            }

            pub fn all(&self) -> Vec<$item> {
                self.items.clone()
            }
        }
    };
}

#[derive(Default, Serialize, Deserialize, JsonSchema)]
pub struct Shelf {
    items: Vec<String>,
}

shelf!(Shelf, String, Amount, Result<usize, Failure>);

#[test]
fn an_actor_of_types_from_arguments() {
    let mut shelf = Actor::<Shelf>::new("a");
    assert_eq!(shelf.invoke("put", json!({"item": "book"})), Ok(json!(1)));
    assert_eq!(shelf.invoke("all", None), Ok(json!(["book"])));
    assert_eq!(shelf.invoke("change", json!({"by": 1})), Ok(json!("book")));
}

/// Everything at once: nothing of the actor is spelt by the macro, but for its shape.
macro_rules! room {
    (
        $(#[doc = $doc:expr])*
        $room:ident, $wire:literal, $version:literal, $hidden:literal,
        $event:ident { $said:ident($said_wire:literal): $payload:ty, $moved:ident { $field:ident: $field_type:ty } },
        $gone:ident,
        $error:ident($prefix:literal) {
            $full:ident($status:literal, $message:literal) { $max:ident: $max_type:ty }
        },
        $context:ty, $tracked:ty, $live:ty, $call:ty, $subscriber:ty, $viewer:ty, $stored:ty,
        $method:ident($parameter:ident: $parameter_type:ty = $rename:literal) -> $output:ty $body:block,
        $given:ty = $given_value:expr,
        $interval:literal, $deadline:literal, $every:literal,
    ) => {
        #[derive(Default, Serialize, Deserialize, JsonSchema)]
        pub struct $room {
            lines: Vec<String>,
            secret: u32,
        }

        #[derive(Event)]
        pub enum $event {
            #[event(name = $said_wire)]
            $said($payload),
            $moved { $field: $field_type },
            Silent,
        }

        #[derive(Event, Serialize, JsonSchema)]
        pub struct $gone {
            $field: $field_type,
        }

        #[derive(Failure)]
        #[failure(prefix = $prefix)]
        pub enum $error {
            #[failure(status = $status, message = $message)]
            $full { $max: $max_type },
            #[failure(transparent)]
            Other(Failure),
        }

        #[actor(name = $wire, events($event, $gone), hidden($hidden), version = $version)]
        impl $room {
            $(#[doc = $doc])*
            #[allow(unused_braces)]
            pub fn $method(
                &mut self,
                ctx: $context,
                #[serde(rename = $rename)] $parameter: $parameter_type,
                #[before] given: $given,
            ) -> $output {
                ctx.emit($event::$said(Default::default()));
                ctx.emit($event::$moved { $field: Default::default() });
                ctx.emit($event::Silent);
                ctx.emit($gone { $field: Default::default() });
                self.lines.push(format!("{} {given:?}", $parameter));
                self.checked()?;
                $body
            }

            fn checked(&self) -> Result<(), $error> {
                match self.lines.len() > 2 {
                    true => Err($error::$full { $max: 2 as $max_type }),
                    false => Ok(()),
                }
            }

            #[before]
            fn first(&self, ctx: &Context<Self>, call: $call) -> Result<$given, $error> {
                let _ = (ctx, call);
                Ok($given_value)
            }

            #[authorize]
            fn may(&self, who: $subscriber) -> Result<(), $error> {
                match who.subject() {
                    Subject::State => Ok(()),
                    _ => Err($error::Other(Failure::new("room.deaf"))),
                }
            }

            #[project]
            fn shown(&self, who: $viewer) -> View {
                let _ = who;
                View::Whole
            }

            #[migrate]
            fn moved(stored: $stored) -> Result<Self, $error> {
                let _ = stored;
                Ok(Self::default())
            }

            #[connect]
            fn came(&mut self, ctx: $context) {
                let _ = ctx;
            }

            #[method(name = "quick")]
            pub fn with_tracked(state: $tracked) -> Result<(), $error> {
                state.push(["lines"], &"tracked").map_err($error::Other)
            }

            #[stream(interval = $interval)]
            #[deadline($deadline)]
            pub fn with_live(state: $live) -> Result<(), $error> {
                state.lines.push("live".into());
                Ok(())
            }

            #[cron(every = $every)]
            pub fn tick(&mut self) {}
        }
    };
}

room! {
    #[doc = "Says it."]
    Room, "the-room", 3, "secret",
    RoomEvent { Said("was-said"): String, Moved { where_to: Option<u32> } },
    Gone,
    RoomError("room") { Full(413, "at most {max} lines") { max: usize } },
    &mut Context<Self>, &mut Tracked<Self>, &mut Live<Self>, &Call<'_>, &Subscriber, &Viewer, &Stored,
    say(text: String = "the-text") -> Result<usize, RoomError> { Ok(7) },
    u8 = 1 + 1,
    "20ms", "5m", "30s",
}

tidegate_sdk::export!(guarded migrating Room);

fn room() -> Actor<Room> {
    Actor::new("lobby")
}

#[test]
fn an_actor_of_nothing_but_arguments() {
    let mut room = room();
    let said = room.from("c1").invoke("say", json!({"the-text": "Hi"}));
    assert_eq!(said, Ok(json!(7)));
    assert_eq!(room.state()["lines"], json!(["Hi 2"]));
    assert_eq!(room.invoke("quick", None), Ok(Value::Null));
    assert_eq!(room.state()["lines"], json!(["Hi 2", "tracked"]));
    room.invoke("withLive", None).unwrap();
    let full = room.from("c1").invoke("say", json!({"the-text": "Hi"}));
    let full = full.unwrap_err();
    assert_eq!((full.code(), full.http_status()), ("room.full", Some(413)));
    assert_eq!(full.text(), "at most 2 lines");
    assert_eq!(json!(full.params()), json!({"max": 2}));
}

#[test]
fn its_events_have_the_names_and_payloads_of_the_arguments() {
    let mut room = room();
    room.connect("c1").unwrap();
    room.invoke("say", json!({"the-text": "Hi"})).unwrap();
    let emitted: Vec<_> = room
        .emitted()
        .iter()
        .map(|emitted| (emitted.event().to_owned(), emitted.payload().clone()))
        .collect();
    let expected = [
        ("was-said", json!("")),
        ("moved", json!({"whereTo": null})),
        ("silent", Value::Null),
        // A struct is encoded as its own `Serialize` says.
        ("gone", json!({"where_to": null})),
    ];
    assert_eq!(
        emitted,
        expected.map(|(name, payload)| (name.to_owned(), payload))
    );
}

#[test]
fn its_manifest_says_what_the_arguments_say() {
    let actor = room().manifest();
    assert_eq!(<Room as tidegate_sdk::Actor>::NAME, "the-room");
    assert_eq!(actor["methods"]["say"]["description"], "Says it.");
    let input = &actor["methods"]["say"]["input"];
    assert_eq!(input["properties"]["the-text"]["type"], "string");
    assert_eq!(actor["state"]["hidden"], json!(["secret"]));
    assert_eq!(actor["cron"]["tick"]["everyMs"], 30_000);
}

/// A timer and a call by name, whose functions the macro makes.
macro_rules! by_name {
    ($caller:ident, $called:ty, $method:ident($($argument:expr),*), $after:expr) => {
        #[derive(Default, Serialize, Deserialize, JsonSchema)]
        pub struct $caller {
            done: u32,
        }

        #[actor]
        impl $caller {
            pub fn ask(&mut self, ctx: &mut Context<Self>) -> Result<usize> {
                ctx.after($after).count(1);
                ctx.call::<$called>("other").$method($($argument),*)
            }

            pub fn count(&mut self, by: u32) {
                self.done += by;
            }
        }
    };
}

by_name!(Asker, Shelf, put("book".to_owned()), secs(1));

#[test]
fn methods_are_named_with_arguments() {
    let mut asker = Actor::<Asker>::new("a");
    asker.on_call(|called| {
        assert_eq!(called.method(), "put");
        assert_eq!(called.input(), Some(json!({"item": "book"})));
        Ok(json!(5))
    });
    assert_eq!(asker.invoke("ask", None), Ok(json!(5)));
    asker.advance(1_000);
    assert_eq!(asker.state(), json!({"done": 1}));
}

macro_rules! failing {
    ($name:ident, $code:literal, $message:literal, $inner:ty) => {
        #[derive(Failure)]
        #[failure(code = $code, message = $message)]
        struct $name {
            max_lines: $inner,
        }
    };
}

failing!(Short, "short.one", "{max_lines} at most", usize);

/// The field from an argument, the text that names it from the macro.
macro_rules! named {
    ($name:ident { $field:ident }) => {
        #[derive(Failure)]
        #[failure(code = "named.one")]
        struct $name {
            $field: u8,
        }
    };
}

named!(Named { limit });

#[test]
fn a_message_finds_its_fields_wherever_either_comes_from() {
    let failure = Failure::from(Short { max_lines: 3 });
    assert_eq!(failure.text(), "3 at most");
    let named = Failure::from(Named { limit: 1 });
    assert_eq!(json!(named.params()), json!({"limit": 1}));
}

macro_rules! tested {
    ($name:ident, $output:ty, $value:expr) => {
        #[self_test]
        fn $name() -> $output {
            $value
        }
    };
}

tested!(fit, Result<(), Failure>, Ok(()));

#[test]
fn a_self_test_of_arguments() {
    assert_eq!(fit(), Ok(()));
}

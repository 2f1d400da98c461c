//! Runs a turn: finds the actor type and its method or hook, loads the state the way it
//! asks for, and stages what it changed. Finds the actor type of an access question, too.
//! Called by [`export`](crate::export) in a component
//! and by [`test`](crate::test) natively.

use std::rc::Rc;
use std::time::Duration;

use crate::access::{self, Authorize, Project, Shown, Subscriber, Viewer};
use crate::actor::{Actor, Hook, Input, Outcome, Run};
use crate::context::Turn;
use crate::host::Host;
use crate::schema::Document;
use crate::state::Decoded;
use crate::stored::{self, Migrate};
use crate::{Context, Failure, Live, Tracked, manifest};

/// An actor type without its Rust type, for the list that `export!` makes.
pub struct ActorType {
    pub(crate) name: &'static str,
    pub(crate) describe: fn() -> Document,
    invoke: fn(Rc<dyn Host>, Turn, &str, Option<&str>) -> Outcome,
    hook: fn(Rc<dyn Host>, Turn, Hook) -> Outcome,
    authorize: Option<Authorize>,
    project: Option<Project>,
    migrate: Option<Migrate>,
}

impl ActorType {
    /// The actor type `A`.
    pub const fn of<A: Actor>() -> Self {
        Self {
            name: A::NAME,
            describe: manifest::describe::<A>,
            invoke: invoke::<A>,
            hook: hook::<A>,
            authorize: match A::AUTHORIZE {
                Some(_) => Some(access::authorize::<A>),
                None => None,
            },
            project: match A::PROJECT {
                Some(_) => Some(access::project::<A>),
                None => None,
            },
            migrate: match A::MIGRATE {
                Some(_) => Some(stored::migrate::<A>),
                None => None,
            },
        }
    }

    /// Whether it decides who may see its actors.
    pub const fn is_guarded(&self) -> bool {
        self.authorize.is_some() || self.project.is_some()
    }

    /// Whether it migrates states of other versions.
    pub const fn is_migrating(&self) -> bool {
        self.migrate.is_some()
    }
}

/// The actor types of a component. `export!` implements it.
pub trait Handler {
    /// All of them; no two have the same name.
    const ACTORS: &'static [ActorType];
}

pub(crate) fn invoke_any<H: Handler>(
    host: Rc<dyn Host>,
    turn: Turn,
    method: &str,
    input: Option<&str>,
) -> Outcome {
    match find::<H>(&turn.actor) {
        Some(actor) => (actor.invoke)(host, turn, method, input),
        None => Err(unknown_actor(&turn.actor)),
    }
}

pub(crate) fn hook_any<H: Handler>(
    host: Rc<dyn Host>,
    turn: Turn,
    hook: Hook,
) -> Result<(), Failure> {
    match find::<H>(&turn.actor) {
        Some(actor) => (actor.hook)(host, turn, hook).map(drop),
        None => Err(unknown_actor(&turn.actor)),
    }
}

/// Decides about a batch of subscribers of an actor. An actor type without a guard is open.
pub(crate) fn authorize_any<H: Handler>(
    host: Rc<dyn Host>,
    actor: &str,
    id: &str,
    who: &[Subscriber],
) -> Vec<Result<(), Failure>> {
    match find::<H>(actor) {
        Some(known) => known.authorize.map_or_else(
            || vec![Ok(()); who.len()],
            |authorize| authorize(host, id, who),
        ),
        None => vec![Err(unknown_actor(actor)); who.len()],
    }
}

/// What each of a batch of viewers of an actor is shown.
pub(crate) fn project_any<H: Handler>(
    host: Rc<dyn Host>,
    actor: &str,
    id: &str,
    who: &[Viewer],
) -> Vec<Shown> {
    match find::<H>(actor) {
        Some(known) => known.project.map_or_else(
            || vec![Shown::Whole; who.len()],
            |project| project(host, id, who),
        ),
        None => vec![Shown::Nothing; who.len()],
    }
}

/// The state that an actor goes on with, from one of another version. An actor type without a
/// migration takes none.
pub(crate) fn migrate_any<H: Handler>(
    actor: &str,
    id: &str,
    version: u32,
    text: String,
) -> Result<String, Failure> {
    let known = find::<H>(actor).ok_or_else(|| unknown_actor(actor))?;
    match known.migrate {
        Some(migrate) => migrate(id, version, text),
        None => Err(stored::no_migration(known.name)),
    }
}

fn find<H: Handler>(name: &str) -> Option<&'static ActorType> {
    H::ACTORS.iter().find(|actor| actor.name == name)
}

pub(crate) fn invoke<A: Actor>(
    host: Rc<dyn Host>,
    turn: Turn,
    method: &str,
    input: Option<&str>,
) -> Outcome {
    match A::METHODS.iter().find(|known| known.name == method) {
        Some(known) => {
            let interval = known.stream_ms.map(Duration::from_millis);
            run(host, turn, &known.run, Input(input), interval)
        }
        None => Err(unknown_method(A::NAME, method)),
    }
}

pub(crate) fn hook<A: Actor>(host: Rc<dyn Host>, turn: Turn, hook: Hook) -> Outcome {
    match A::HOOKS.iter().find(|(known, _)| *known == hook) {
        Some((_, wanted)) => run(host, turn, wanted, Input(None), None),
        None => Ok(None),
    }
}

/// A method with an interval streams.
fn run<A: Actor>(
    host: Rc<dyn Host>,
    turn: Turn,
    run: &Run<A>,
    input: Input<'_>,
    interval: Option<Duration>,
) -> Outcome {
    let mut ctx = Context::new(Rc::clone(&host), turn);
    if interval.is_some() {
        ctx = ctx.streaming();
    }
    match run {
        Run::Read(run) => {
            let state = Decoded::load(&*host, ctx.id())?;
            let outcome = run(&state.value, &mut ctx, input);
            state.keep();
            ctx.take_failure()?;
            outcome
        }
        Run::Write(run) => {
            let mut state = Decoded::load(&*host, ctx.id())?;
            let outcome = run(&mut state.value, &mut ctx, input);
            if ctx.refused {
                state.keep();
                return outcome;
            }
            let output = outcome?;
            ctx.take_failure()?;
            state.save(&*host)?;
            Ok(output)
        }
        Run::Tracked(run) => {
            let mut state = Tracked::new(host);
            if interval.is_some() {
                state = state.streaming();
            }
            let output = run(&mut state, &mut ctx, input)?;
            ctx.take_failure()?;
            Ok(output)
        }
        Run::Live(run) => {
            let state = Decoded::load(&*host, ctx.id())?;
            let mut live = Live::new(state, ctx, interval.unwrap_or_default());
            let outcome = run(&mut live, input);
            let (state, mut ctx) = live.into_parts();
            if ctx.refused {
                state.keep();
                return outcome;
            }
            let output = outcome?;
            ctx.take_failure()?;
            state.save(&*host)?;
            Ok(output)
        }
    }
}

fn unknown_actor(actor: &str) -> Failure {
    Failure::new("actor.unknown")
        .message(format!("Unknown actor: {actor}"))
        .param("actor", actor)
        .status(404)
}

fn unknown_method(actor: &str, method: &str) -> Failure {
    Failure::new("method.unknown")
        .message(format!("Unknown method: {method}"))
        .param("actor", actor)
        .param("method", method)
        .status(404)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::prelude::*;
    use crate::recorder::Recorder;
    use serde_json::json;

    /// A list of words, with a method of every kind.
    #[derive(Default, Serialize, Deserialize, JsonSchema)]
    struct Words {
        words: Vec<String>,
    }

    #[derive(Event)]
    enum WordsEvent {
        Added { word: String },
    }

    #[actor(events = WordsEvent)]
    impl Words {
        pub fn add(&mut self, ctx: &mut Context<Self>, word: String) -> usize {
            ctx.emit(WordsEvent::Added { word: word.clone() });
            self.words.push(word);
            self.words.len()
        }

        pub fn add_badly(&mut self, word: String) -> Result<()> {
            self.words.push(word);
            Err(Failure::new("words.bad"))
        }

        pub fn touch(&mut self) {}

        pub fn count(&self) -> usize {
            self.words.len()
        }

        pub fn refuse(&self) -> Result<()> {
            Err(Failure::new("words.refused"))
        }

        pub fn push(state: &mut Tracked<Self>, word: String) -> Result<()> {
            state.push(["words"], &word)
        }
    }

    fn host() -> Rc<Recorder> {
        Rc::new(Recorder::new(json!({"words": []})))
    }

    fn turn() -> Turn {
        Context::<Words>::test().turn().clone()
    }

    fn call(host: &Rc<Recorder>, method: &str, word: Option<&str>) -> Outcome {
        let input = word.map(|word| json!({"word": word}).to_string());
        let savepoint = host.begin(None);
        let outcome = invoke::<Words>(
            Rc::clone(host) as Rc<dyn Host>,
            turn(),
            method,
            input.as_deref(),
        );
        if outcome.is_err() {
            host.roll_back(savepoint);
        }
        outcome
    }

    fn reads(host: &Recorder) -> usize {
        host.with(|recording| recording.reads)
    }

    fn replaces(host: &Recorder) -> usize {
        host.with(|recording| recording.replaces)
    }

    #[test]
    fn a_resident_state_is_decoded_once() {
        let host = host();
        call(&host, "add", Some("a")).unwrap();
        call(&host, "add", Some("b")).unwrap();
        assert_eq!(call(&host, "count", None), Ok(Some("2".to_owned())));
        assert_eq!((reads(&host), replaces(&host)), (1, 2));
        assert_eq!(host.state(), json!({"words": ["a", "b"]}));
    }

    #[test]
    fn a_method_that_changes_nothing_stages_nothing() {
        let host = host();
        assert_eq!(call(&host, "touch", None), Ok(None));
        assert_eq!(replaces(&host), 0);
    }

    #[test]
    fn what_a_failed_method_changed_is_forgotten() {
        let host = host();
        call(&host, "add", Some("a")).unwrap();
        assert!(call(&host, "addBadly", Some("b")).is_err());
        assert_eq!(call(&host, "count", None), Ok(Some("1".to_owned())));
        assert_eq!(host.state(), json!({"words": ["a"]}));
        assert_eq!(reads(&host), 2, "the state was decoded anew");
    }

    #[test]
    fn a_read_that_fails_keeps_the_decoded_state() {
        let host = host();
        assert!(call(&host, "refuse", None).is_err());
        call(&host, "count", None).unwrap();
        assert_eq!(reads(&host), 1);
    }

    #[test]
    fn a_state_that_others_changed_is_read_again() {
        let host = host();
        call(&host, "add", Some("a")).unwrap();
        host.set_state(json!({"words": ["x", "y", "z"]}));
        assert_eq!(call(&host, "add", Some("b")), Ok(Some("4".to_owned())));
    }

    #[test]
    fn a_tracked_write_is_seen_by_the_decoded_state() {
        let host = host();
        call(&host, "add", Some("a")).unwrap();
        call(&host, "push", Some("b")).unwrap();
        assert_eq!(replaces(&host), 1, "the tracked method replaces nothing");
        assert_eq!(call(&host, "add", Some("c")), Ok(Some("3".to_owned())));
        assert_eq!(host.state(), json!({"words": ["a", "b", "c"]}));
    }

    #[test]
    fn two_actors_of_one_process_do_not_share_a_state() {
        let (one, other) = (host(), host());
        call(&one, "add", Some("a")).unwrap();
        assert_eq!(call(&other, "count", None), Ok(Some("0".to_owned())));
        assert_eq!(call(&one, "count", None), Ok(Some("1".to_owned())));
    }

    #[test]
    fn an_event_that_the_host_refuses_fails_the_turn() {
        let host = host();
        host.with(|recording| recording.events_limit = 1);
        call(&host, "add", Some("a")).unwrap();
        let failure = call(&host, "add", Some("b")).unwrap_err();
        assert_eq!(failure.code(), "turn.effects-limit");
        assert_eq!(host.state(), json!({"words": ["a"]}));
        assert_eq!(call(&host, "count", None), Ok(Some("1".to_owned())));
    }

    #[test]
    fn an_input_that_does_not_fit_names_the_place() {
        let host = host();
        let failure = invoke::<Words>(host, turn(), "add", Some(r#"{"word": 7}"#)).unwrap_err();
        assert_eq!(failure.code(), "input.invalid");
        assert_eq!(
            failure.text(),
            "/word: invalid type: integer `7`, expected a string"
        );
    }

    #[test]
    fn a_stored_state_that_does_not_fit_names_the_place() {
        let host = host();
        host.set_state(json!({"words": ["a", null]}));
        let failure = call(&host, "count", None).unwrap_err();
        assert_eq!(failure.code(), "state.mismatch");
        assert_eq!(failure.http_status(), Some(500));
        assert!(
            failure.text().contains("/words/1: invalid type: null"),
            "{failure}"
        );
    }

    #[test]
    fn unknown_names_are_refused() {
        struct Exported;
        impl Handler for Exported {
            const ACTORS: &'static [ActorType] = &[ActorType::of::<Words>()];
        }
        let call = |actor: &str, method: &str| {
            let mut turn = turn();
            turn.actor = actor.to_owned();
            let outcome = invoke_any::<Exported>(host(), turn, method, None);
            outcome.map_err(|failure| failure.code().to_owned())
        };
        assert_eq!(call("words", "count"), Ok(Some("0".to_owned())));
        assert_eq!(call("words", "words"), Err("method.unknown".to_owned()));
        assert_eq!(call("sword", "count"), Err("actor.unknown".to_owned()));
    }
}

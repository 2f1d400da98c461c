//! Components with every combination of the contract's exports, real ones that are compiled and
//! instantiated.

use std::path::Path;
use std::sync::Arc;

use tidegate_core::{ActorId, ActorKey, Client, Failure, Name, Pointer};
use tidegate_engine::config;
use tidegate_engine::{
    Compiling, Component, Connections, Engine, Grants, LoadError, StateRead, Step, Subject, View,
};
use tidegate_guests::{Export, component_exporting};

const NOTHING: &str = r#"{"tidegate": "0.1", "actors": {}}"#;
const AN_ACTOR: &str = r#"{"tidegate": "0.1", "actors": {"small": {"methods": {"run": {}}}}}"#;
const A_GUARD: &str = r#"{"tidegate": "0.1", "actors": {"small": {"access": ["project"]}}}"#;

fn engine() -> Engine {
    let settings = config::Engine {
        // Nothing is kept outside the project.
        cache_dir: Path::new(env!("CARGO_TARGET_TMPDIR")).join("compiled"),
        ..config::Engine::default()
    };
    Engine::new(&settings, Compiling::InThisProcess, Arc::default()).expect("an engine")
}

/// Every set of exports.
fn combinations() -> impl Iterator<Item = Vec<Export>> {
    (0..1 << Export::ALL.len()).map(|set| {
        let exports = Export::ALL.into_iter().enumerate();
        exports
            .filter(|(place, _)| set & (1 << place) != 0)
            .map(|(_, export)| export)
            .collect()
    })
}

async fn load(engine: &Engine, manifest: &str, exports: &[Export]) -> Result<Component, LoadError> {
    let bytes = component_exporting(manifest, exports);
    engine.load("small", bytes, Grants::default()).await
}

fn key() -> ActorKey {
    ActorKey {
        actor: Name::parse("small").expect("a name"),
        id: ActorId::parse("1").expect("an id"),
    }
}

/// What a guard is given in these tests.
struct Empty;

impl StateRead for Empty {
    fn token(&mut self) -> u64 {
        1
    }

    fn read(&mut self) -> Step<Result<String, Failure>> {
        Step::Done(Ok("{}".to_owned()))
    }

    fn get(&mut self, _: Pointer) -> Step<Result<Option<String>, Failure>> {
        Step::Done(Ok(None))
    }
}

impl Connections for Empty {
    fn connections(&mut self) -> Vec<String> {
        Vec::new()
    }
}

#[tokio::test]
async fn any_combination_of_exports_loads() {
    let engine = engine();
    for exports in combinations() {
        let loaded = load(&engine, NOTHING, &exports).await;
        let component = loaded.unwrap_or_else(|error| panic!("{exports:?}: {error}"));
        let instance = component.instantiate().await;
        assert!(instance.is_ok(), "{exports:?}");
        assert_eq!(component.migrates(), exports.contains(&Export::Migrate));
    }
}

#[tokio::test]
async fn what_is_declared_must_be_exported() {
    let engine = engine();
    for exports in combinations() {
        let has_actor = exports.contains(&Export::Actor);
        let has_guard = exports.contains(&Export::Access);
        let loaded = load(&engine, AN_ACTOR, &exports).await;
        assert_eq!(loaded.is_ok(), has_actor, "{exports:?}");
        if let Err(error) = loaded {
            assert_eq!(
                error.to_string(),
                "the manifest declares the actor type `small`, but the component does not export \
                 `tidegate:realtime/actor@0.1.0`"
            );
        }
        let loaded = load(&engine, A_GUARD, &exports).await;
        assert_eq!(loaded.is_ok(), has_actor && has_guard, "{exports:?}");
        if let Err(error) = loaded
            && has_actor
        {
            assert_eq!(
                error.to_string(),
                "the manifest gives the actor type `small` functions of `access`, but the \
                 component does not export `tidegate:realtime/access@0.1.0`"
            );
        }
    }
}

#[tokio::test]
async fn each_export_does_its_work_without_the_others() {
    let engine = engine();
    let guard = load(&engine, NOTHING, &[Export::Access]).await.unwrap();
    let who = [(Client::default(), Subject::State)];
    let allowed = guard.authorize(&key(), &who, Empty).await.unwrap();
    assert_eq!(allowed, [Ok(())]);
    let views = guard.project(&key(), &[Client::default()], Empty).await;
    assert_eq!(views.unwrap(), [View::Whole]);

    let migrating = load(&engine, NOTHING, &[Export::Migrate]).await.unwrap();
    let state = r#"{"count": 1}"#.to_owned();
    let migrated = migrating.migrate(&key(), state.clone(), 3).await.unwrap();
    assert_eq!(migrated, Ok(state));

    let tested = load(&engine, NOTHING, &[Export::SelfTest]).await.unwrap();
    assert!(tested.self_test().await.is_ok());
}

#[tokio::test]
async fn who_is_asked_for_what_they_do_not_export_has_failed() {
    let engine = engine();
    let bare = load(&engine, NOTHING, &[]).await.unwrap();
    let who = [(Client::default(), Subject::State)];
    let crash = bare.authorize(&key(), &who, Empty).await.unwrap_err();
    assert_eq!(crash.detail, "the component does not export `access`");
    assert!(bare.self_test().await.is_ok(), "there is nothing to test");
}

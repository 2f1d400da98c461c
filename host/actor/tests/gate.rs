//! The output gate: nothing of a turn leaves before the store has its commit, and nothing
//! at all when the commit fails.
//!
//! A store that waits to be told stands in for a slow disk; the actor is the real counter.

use std::path::Path;
use std::sync::{Arc, Mutex};

use tidegate_actor::ActorRecords;
use tidegate_actor::metrics::Metrics;
use tidegate_actor::turn::ReplyTo;
use tidegate_actor::{Actors, Call, FirstContact, Setup, Stream};
use tidegate_base::budget::Budget;
use tidegate_core::place::{Shard, Term};
use tidegate_core::turn::{Change, Stored};
use tidegate_core::{ActorKey, CallEnvelope, Client, Failure, Name, Origin};
use tidegate_delivery::connections::Connections;
use tidegate_delivery::{Close, Dialect, Offer, Outlet, SharedFrame, Source};
use tidegate_engine::{Compiling, Engine, Grants};
use tidegate_store::{
    Commit, Committed, Durability, Keyspace, Later, Listing, Memory, Store, StoreError,
    StoreFigures, Weight,
};
use tokio::sync::{mpsc, oneshot};

/// The answer to one commit, for the test to give.
type Verdict = oneshot::Sender<Result<(), StoreError>>;

/// A store whose every commit waits for the test's verdict.
struct Held {
    memory: Memory<ActorRecords>,
    commits: mpsc::UnboundedSender<(u64, Verdict)>,
}

impl Store for Held {
    fn shards(&self) -> u16 {
        self.memory.shards()
    }

    fn open(&self, shard: Shard) -> Later<'_, Term> {
        self.memory.open(shard)
    }

    fn release(&self, shard: Shard) {
        self.memory.release(shard);
    }

    fn failed(&self) -> Option<String> {
        None
    }

    fn figures(&self) -> StoreFigures {
        StoreFigures::default()
    }

    fn close(&self) {}
}

impl Keyspace<ActorRecords> for Held {
    fn load<'a>(&'a self, actor: &'a ActorKey) -> Later<'a, Option<(Stored, Weight)>> {
        self.memory.load(actor)
    }

    fn history<'a>(&'a self, actor: &'a ActorKey) -> Later<'a, Option<(Stored, Vec<Change>)>> {
        self.memory.history(actor)
    }

    fn commit(
        &self,
        commit: Commit<'_, ActorRecords>,
        _: &mut Weight,
        _: &dyn Fn() -> Stored,
    ) -> Committed {
        let (verdict, told) = oneshot::channel();
        self.commits
            .send((commit.change.version, verdict))
            .expect("the test listens");
        Committed::Later(Box::pin(async {
            told.await
                .unwrap_or_else(|_| Err(StoreError::Unavailable("nobody decided".to_owned())))
        }))
    }

    fn retire<'a>(
        &'a self,
        actor: &'a ActorKey,
        stored: Stored,
        changed: bool,
        durability: Durability,
    ) -> Later<'a, ()> {
        self.memory.retire(actor, stored, changed, durability)
    }

    fn remove<'a>(&'a self, actor: &'a ActorKey) -> Later<'a, bool> {
        self.memory.remove(actor)
    }

    fn list<'a>(&'a self, listing: &'a Listing<ActorRecords>) -> Later<'a, Vec<ActorKey>> {
        self.memory.list(listing)
    }

    fn sleeping(&self, _: Shard) -> Vec<(ActorKey, u64)> {
        Vec::new()
    }
}

/// A subscriber that notes the events of its stream.
struct Noted {
    id: Arc<str>,
    seen: Mutex<Vec<String>>,
}

impl Noted {
    fn seen(&self) -> Vec<String> {
        self.seen.lock().unwrap().clone()
    }
}

impl Outlet for Noted {
    fn id(&self) -> &Arc<str> {
        &self.id
    }

    fn offer(&self, message: &SharedFrame) -> Offer {
        let event = String::from_utf8(
            message
                .server_sent_event(Dialect::Plain, &Budget::unlimited())
                .unwrap()
                .to_vec(),
        )
        .unwrap();
        let name = event.lines().next().unwrap().trim_start_matches("event: ");
        self.seen.lock().unwrap().push(name.to_owned());
        Offer::Taken
    }

    fn refresh_later(&self, _: Arc<dyn Source>) {
        unreachable!("it takes everything it is offered");
    }

    fn close(&self, why: Close) {
        self.seen.lock().unwrap().push(format!("closed: {why:?}"));
    }

    fn client(&self) -> Client {
        Client::default()
    }

    fn end(&self, _: &dyn Source, _: &Failure) {
        unreachable!("its component stays");
    }
}

struct Scene {
    actors: Actors,
    key: ActorKey,
    subscriber: Arc<Noted>,
    commits: mpsc::UnboundedReceiver<(u64, Verdict)>,
}

impl Scene {
    /// A counter with one subscriber to both its streams.
    async fn new() -> Scene {
        let settings = tidegate_engine::config::Engine {
            // Nothing is kept outside the project.
            cache_dir: Path::new(env!("CARGO_TARGET_TMPDIR")).join("compiled"),
            ..Default::default()
        };
        let metrics = Arc::new(Metrics::new());
        let engine = Engine::new(&settings, Compiling::InThisProcess, Arc::default()).unwrap();
        let package = std::env::var_os("CARGO_MANIFEST_DIR").expect("cargo runs the tests");
        let file = Path::new(&package).join("../../target/handlers/counter.wasm");
        let bytes = std::fs::read(&file).unwrap_or_else(|error| {
            panic!("{}: {error}; run `cargo xtask handlers`", file.display())
        });
        let component = engine
            .load("counter", bytes, Grants::default())
            .await
            .unwrap();
        let router = Arc::new(tidegate_actor::router(Arc::default(), metrics.clone()));
        let name = Name::parse("counter").unwrap();
        router.install(name, Arc::new(component)).unwrap();
        let (sender, commits) = mpsc::unbounded_channel();
        let store = Arc::new(Held {
            memory: Memory::new(10),
            commits: sender,
        });
        let connections = Arc::new(Connections::default());
        let actors = Actors::new(Setup::alone(router, store, connections), &metrics);
        let key = actors.key("counter", "a").unwrap();
        let subscriber = Arc::new(Noted {
            id: "subscriber".into(),
            seen: Mutex::default(),
        });
        for stream in [Stream::State, Stream::Events] {
            actors
                .subscribe(
                    &key,
                    stream,
                    subscriber.clone(),
                    None,
                    &mut FirstContact::Past,
                )
                .await
                .unwrap();
        }
        Scene {
            actors,
            key,
            subscriber,
            commits,
        }
    }

    fn increment(&self, by: i64) -> oneshot::Receiver<Result<Option<String>, Failure>> {
        let (reply, result) = oneshot::channel();
        let input = format!(r#"{{"by":{by}}}"#);
        let origin = Origin::Client(Client::default());
        let envelope = CallEnvelope::new("increment", Some(input), origin);
        self.actors
            .call(&self.key, Call::new(envelope, ReplyTo::waiter(reply)));
        result
    }

    async fn state(&self) -> String {
        let read = self
            .actors
            .read(&self.key, Client::default())
            .await
            .unwrap();
        format!("{} at {}", read.state, read.version)
    }
}

#[tokio::test]
async fn nothing_leaves_before_the_commit_is_safe() {
    let mut scene = Scene::new().await;
    // A hundred, so that the counter announces a milestone.
    let mut result = scene.increment(100);
    let (version, verdict) = scene.commits.recv().await.unwrap();
    assert_eq!(version, 1);
    assert_eq!(scene.subscriber.seen(), ["snapshot"]);
    let state = scene.state();
    tokio::pin!(state);
    assert!(futures_util::poll!(state.as_mut()).is_pending());
    assert!(
        result.try_recv().is_err(),
        "the caller was answered too early"
    );
    verdict.send(Ok(())).unwrap();
    assert_eq!(result.await.unwrap(), Ok(Some("100".to_owned())));
    assert_eq!(state.await, r#"{"count":100} at 1"#);
    assert_eq!(scene.subscriber.seen(), ["snapshot", "patch", "event"]);
}

#[tokio::test]
async fn an_actor_runs_ahead_and_its_effects_wait_in_order() {
    let mut scene = Scene::new().await;
    let mut results: Vec<_> = (0..3).map(|_| scene.increment(1)).collect();
    let mut verdicts = Vec::new();
    for expected in 1..=3 {
        let (version, verdict) = scene.commits.recv().await.unwrap();
        assert_eq!(version, expected);
        verdicts.push(verdict);
    }
    // The later ones are safe; they wait for the first all the same.
    let first = verdicts.remove(0);
    for verdict in verdicts {
        verdict.send(Ok(())).unwrap();
    }
    tokio::task::yield_now().await;
    assert!(results[1].try_recv().is_err());
    // Who joins meanwhile sees nothing that is not safe, and misses nothing.
    let newcomer = Arc::new(Noted {
        id: "newcomer".into(),
        seen: Mutex::default(),
    });
    let mut contact = FirstContact::Past;
    let joining = scene.actors.subscribe(
        &scene.key,
        Stream::State,
        newcomer.clone(),
        None,
        &mut contact,
    );
    tokio::pin!(joining);
    assert!(futures_util::poll!(joining.as_mut()).is_pending());
    let behind = scene.increment(1);
    let (_, last) = scene.commits.recv().await.unwrap();
    assert!(newcomer.seen().is_empty());
    first.send(Ok(())).unwrap();
    joining.await.unwrap();
    assert_eq!(newcomer.seen(), ["snapshot"]);
    for (result, expected) in results.into_iter().zip(["1", "2", "3"]) {
        assert_eq!(result.await.unwrap(), Ok(Some(expected.to_owned())));
    }
    last.send(Ok(())).unwrap();
    assert_eq!(behind.await.unwrap(), Ok(Some("4".to_owned())));
    assert_eq!(newcomer.seen(), ["snapshot", "patch"]);
    assert_eq!(
        scene.subscriber.seen(),
        ["snapshot", "patch", "patch", "patch", "patch"]
    );
}

#[tokio::test]
async fn what_builds_on_a_lost_commit_is_lost_with_it() {
    let mut scene = Scene::new().await;
    let lost = scene.increment(100);
    let behind = scene.increment(1);
    let (_, first) = scene.commits.recv().await.unwrap();
    let (_, second) = scene.commits.recv().await.unwrap();
    second.send(Ok(())).unwrap();
    first
        .send(Err(StoreError::Unavailable("the disk is full".to_owned())))
        .unwrap();
    assert_eq!(lost.await.unwrap().unwrap_err().code, "store.unavailable");
    assert_eq!(behind.await.unwrap().unwrap_err().code, "store.unavailable");
    // It comes back as it was last safe; a call finds it so, sooner or later.
    let after = loop {
        let result = scene.increment(1);
        tokio::select! {
            result = result => assert_eq!(result.unwrap().unwrap_err().code, "store.unavailable"),
            commit = scene.commits.recv() => break commit.unwrap(),
        }
    };
    assert_eq!(after.0, 1, "the lost turns' versions are free again");
    after.1.send(Ok(())).unwrap();
    assert_eq!(scene.state().await, r#"{"count":1} at 1"#);
    assert_eq!(
        scene.subscriber.seen(),
        ["snapshot", "closed: Lost", "closed: Lost"]
    );
}

#[tokio::test]
async fn what_was_lost_is_never_shown() {
    let mut scene = Scene::new().await;
    let lost = scene.increment(100);
    let (_, verdict) = scene.commits.recv().await.unwrap();
    verdict
        .send(Err(StoreError::Unavailable("the disk is full".to_owned())))
        .unwrap();
    assert_eq!(lost.await.unwrap().unwrap_err().code, "store.unavailable");
    // Nobody calls it any more; whoever looks finds it as it was last safe.
    let read = loop {
        match scene.actors.read(&scene.key, Client::default()).await {
            Ok(read) => break read,
            Err(failure) => assert_eq!(failure.code, "store.unavailable"),
        }
        tokio::task::yield_now().await;
    };
    assert_eq!((&*read.state, read.version), (r#"{"count":0}"#, 0));
}

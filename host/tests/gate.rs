//! The output gate: nothing of a turn leaves before the store has its commit, and nothing
//! at all when the commit fails.
//!
//! A store that waits to be told stands in for a slow disk; the actor is the real counter.

use std::path::Path;
use std::sync::{Arc, Mutex};
use std::time::Instant;

use tidegate::actor::{Actors, Call, Stream};
use tidegate::config::Config;
use tidegate::engine::{Engine, Grants, Origin};
use tidegate::fanout::{Close, Dialect, Message, Offer, Outlet, Refresh};
use tidegate::metrics::Metrics;
use tidegate::rooms::{Client, Connections};
use tidegate::router::Router;
use tidegate::store::{Commit, Committed, Later, Listing, Memory, Store, StoreError, Stored};
use tidegate::turn::ReplyTo;
use tidegate_core::{ActorKey, Failure, Name};
use tokio::sync::{mpsc, oneshot};
use tokio_util::sync::CancellationToken;

/// The answer to one commit, for the test to give.
type Verdict = oneshot::Sender<Result<(), StoreError>>;

/// A store whose every commit waits for the test's verdict.
struct Held {
    memory: Memory,
    commits: mpsc::UnboundedSender<(u64, Verdict)>,
}

impl Store for Held {
    fn load<'a>(&'a self, actor: &'a ActorKey) -> Later<'a, Option<Stored>> {
        self.memory.load(actor)
    }

    fn commit<'a>(&'a self, commit: Commit<'_>) -> Committed<'a> {
        let (verdict, told) = oneshot::channel();
        self.commits
            .send((commit.version, verdict))
            .expect("the test listens");
        Committed::Later(Box::pin(async {
            told.await
                .unwrap_or_else(|_| Err(StoreError("nobody decided".to_owned())))
        }))
    }

    fn retire<'a>(&'a self, actor: &'a ActorKey, stored: Stored) -> Later<'a, ()> {
        self.memory.retire(actor, stored)
    }

    fn remove<'a>(&'a self, actor: &'a ActorKey) -> Later<'a, bool> {
        self.memory.remove(actor)
    }

    fn list<'a>(&'a self, listing: &'a Listing) -> Later<'a, Vec<ActorKey>> {
        self.memory.list(listing)
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

    fn offer(&self, message: &Message) -> Offer {
        let event = String::from_utf8(message.server_sent_event(Dialect::Plain).to_vec()).unwrap();
        let name = event.lines().next().unwrap().trim_start_matches("event: ");
        self.seen.lock().unwrap().push(name.to_owned());
        Offer::Taken
    }

    fn refresh_later(&self, _: Arc<dyn Refresh>) {
        unreachable!("it takes everything it is offered");
    }

    fn close(&self, _: Close) {
        unreachable!("it takes everything it is offered");
    }

    fn client(&self) -> Client {
        Client::default()
    }

    fn end(&self, _: &ActorKey, _: &Failure) {
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
        let mut config = Config::default();
        let metrics = Arc::new(Metrics::new());
        // Nothing is kept outside the project.
        config.engine.cache_dir = Path::new(env!("CARGO_TARGET_TMPDIR")).join("compiled");
        let engine = Engine::new(&config.engine, metrics.clone()).unwrap();
        let file = Path::new(env!("CARGO_MANIFEST_DIR")).join("../target/handlers/counter.wasm");
        let bytes = std::fs::read(&file).unwrap_or_else(|error| {
            panic!("{}: {error}; run `cargo xtask handlers`", file.display())
        });
        let component = engine
            .load("counter", bytes, Grants::default())
            .await
            .unwrap();
        let router = Arc::new(Router::new(metrics.clone()));
        let name = Name::parse("counter").unwrap();
        router.install(name, Arc::new(component)).unwrap();
        let (sender, commits) = mpsc::unbounded_channel();
        let store = Arc::new(Held {
            memory: Memory::new(10),
            commits: sender,
        });
        let actors = Actors::new(
            config.actors,
            config.access,
            router,
            store,
            Arc::new(Connections::default()),
            &metrics,
        );
        let key = actors.key("counter", "a").unwrap();
        let subscriber = Arc::new(Noted {
            id: "subscriber".into(),
            seen: Mutex::default(),
        });
        for stream in [Stream::State, Stream::Events] {
            actors
                .subscribe(&key, stream, subscriber.clone())
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
        self.actors.call(
            &self.key,
            Call {
                method: "increment".to_owned(),
                input: Some(format!(r#"{{"by":{by}}}"#)),
                origin: Origin::Client(Client::default()),
                depth: 0,
                deadline: None,
                traceparent: None,
                request: None,
                cancel: CancellationToken::new(),
                arrived: Instant::now(),
                reply: ReplyTo::waiter(reply),
            },
        );
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
    assert_eq!(scene.state().await, r#"{"count":0} at 0"#);
    assert!(
        result.try_recv().is_err(),
        "the caller was answered too early"
    );
    verdict.send(Ok(())).unwrap();
    assert_eq!(result.await.unwrap(), Ok(Some("100".to_owned())));
    assert_eq!(scene.subscriber.seen(), ["snapshot", "patch", "event"]);
    assert_eq!(scene.state().await, r#"{"count":100} at 1"#);
}

#[tokio::test]
async fn a_failed_commit_leaves_no_trace_and_the_actor_lives_on() {
    let mut scene = Scene::new().await;
    let lost = scene.increment(100);
    let behind = scene.increment(1);
    let (_, verdict) = scene.commits.recv().await.unwrap();
    verdict
        .send(Err(StoreError("the disk is full".to_owned())))
        .unwrap();
    assert_eq!(lost.await.unwrap().unwrap_err().code, "store.unavailable");
    assert_eq!(scene.subscriber.seen(), ["snapshot"]);
    let (version, verdict) = scene.commits.recv().await.unwrap();
    assert_eq!(version, 1, "the lost turn's version is free again");
    verdict.send(Ok(())).unwrap();
    assert_eq!(behind.await.unwrap(), Ok(Some("1".to_owned())));
    assert_eq!(scene.state().await, r#"{"count":1} at 1"#);
}

//! Who joins an actor while it commits: in truly parallel threads, since what may come between
//! two steps of one thread does not show on another clock.
//!
//! In each round an actor that is not in memory is called, and others subscribe meanwhile: some
//! for the first time, some with what they hold of it. A [`Reader`] applies what it is sent and
//! compares each version with the one state that it names.

use std::sync::Arc;
use std::time::{Duration, Instant};

use serde_json::{Value, json};
use tidegate_base::sync::{Mutex, MutexGuard};
use tidegate_core::protocol::Since;
use tidegate_core::{ActorKey, CallEnvelope, Client, Failure, Json, Name, Origin, PatchOp, patch};
use tidegate_delivery::connections::Connections;
use tidegate_delivery::{Close, Offer, Outlet, SharedFrame, Source};
use tidegate_journal::{self as journal, Journal};
use tidegate_store::{Disk, Durable, Reading};
use tidegate_testkit::disk::SimDisk;
use tokio::sync::{Notify, oneshot};

use super::super::{Actors, Call, FirstContact, Stream};
use super::cast::{self, Dice};
use crate::Setup;
use crate::live::{Body, Update};
use crate::metrics::Metrics;
use crate::turn::ReplyTo;

/// Far beyond what a round takes on the slowest machine.
const LONG: Duration = Duration::from_secs(60);

/// Rounds of a test run; `JOIN_ROUNDS` says otherwise.
const ROUNDS: u64 = 120;

/// Which actor is watched, and by whom.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Kind {
    /// One that everybody sees.
    Ledger,
    /// One with a guard that says who may look.
    Gate,
    /// One that shows its owner all of it.
    Owner,
    /// One that shows its guests a part.
    Guest,
}

impl Kind {
    pub(super) const ALL: [Kind; 4] = [Kind::Ledger, Kind::Gate, Kind::Owner, Kind::Guest];

    pub(super) fn actor(self, id: &str) -> ActorKey {
        cast::key(
            match self {
                Kind::Ledger => "ledger",
                Kind::Gate => "gate",
                Kind::Owner | Kind::Guest => "vault",
            },
            id,
        )
    }

    /// The call that leads to a version, and to no other.
    pub(super) fn call(self, version: u64) -> (&'static str, Value) {
        match (self, version) {
            (Kind::Ledger, _) => ("add", json!({"entry": version})),
            (Kind::Gate, _) => ("set", json!({"open": true, "reads": version})),
            (_, 1) => ("claim", json!({})),
            (_, 2) => ("admitUser", json!({"sub": "ben"})),
            _ => ("put", json!({"secret": "x".repeat(version as usize)})),
        }
    }

    /// The state at a version, from the third on.
    fn shown(self, version: u64) -> Value {
        match self {
            Kind::Ledger => json!({
                "total": version, "latest": Vec::from_iter(1..=version), "ranges": [], "twice": [],
            }),
            Kind::Gate => json!({"open": true, "reads": version}),
            Kind::Owner => json!({
                "owner": "ann", "admitted": ["ben"], "secret": "x".repeat(version as usize),
                "loud": false, "mood": {"kind": "calm"},
            }),
            Kind::Guest => json!({"owner": "ann", "admitted": 1, "secretBytes": version}),
        }
    }

    fn reader(self) -> &'static str {
        match self {
            Kind::Guest => "ben",
            _ => "ann",
        }
    }
}

pub(super) fn client_of(user: &str, connection: &Arc<str>) -> Client {
    Client {
        connection: Some(connection.clone()),
        user: Some(json!({"sub": user}).to_string().into()),
    }
}

/// What a reader has in hand.
#[derive(Default)]
struct Held {
    epoch: String,
    version: u64,
    state: Value,
    /// It has said what it holds, and was not answered yet.
    comes_back: bool,
    wrong: Option<String>,
}

/// A subscriber that minds every version.
struct Reader {
    id: Arc<str>,
    kind: Kind,
    held: Mutex<Held>,
    told: Notify,
}

impl Reader {
    /// One who comes for the first time, or back with this.
    fn new(id: &str, kind: Kind, since: Option<&Since>) -> Arc<Reader> {
        let held = since.map_or_else(Held::default, |since| Held {
            epoch: since.epoch.clone(),
            version: since.version,
            state: kind.shown(since.version),
            comes_back: true,
            wrong: None,
        });
        Arc::new(Reader {
            id: id.into(),
            kind,
            held: Mutex::new(held),
            told: Notify::new(),
        })
    }

    fn held(&self) -> MutexGuard<'_, Held> {
        self.held.lock()
    }

    /// Completes at this version, or when something is wrong.
    async fn reaches(&self, version: u64) -> Result<(), String> {
        let reached = async {
            loop {
                let told = self.told.notified();
                {
                    let held = self.held();
                    if let Some(wrong) = &held.wrong {
                        return Err(wrong.clone());
                    }
                    if held.version >= version {
                        return Ok(());
                    }
                }
                told.await;
            }
        };
        let reached = tokio::time::timeout(LONG, reached).await;
        reached.unwrap_or_else(|_| Err(format!("it stays at {}", self.held().version)))
    }

    fn take(&self, message: &SharedFrame) -> Result<(), String> {
        let mut held = self.held();
        let comes_back = std::mem::take(&mut held.comes_back);
        match &Update::of(message).body {
            Body::Snapshot {
                state,
                epoch,
                version,
            } => {
                if held.epoch == **epoch && held.version > *version {
                    return Err(format!("a snapshot of {version} after {}", held.version));
                }
                held.epoch = epoch.to_string();
                held.version = *version;
                held.state = serde_json::from_str(state).map_err(|error| error.to_string())?;
            }
            Body::Patch {
                patches,
                epoch,
                from,
                version,
                ..
            } => {
                let ops: Vec<PatchOp> =
                    serde_json::from_str(patches).map_err(|error| error.to_string())?;
                if comes_back {
                    held.epoch = epoch.to_string();
                }
                if held.epoch != **epoch || held.version != *from || from > version {
                    return Err(format!(
                        "{from} to {version} of {epoch} after {} of {}",
                        held.version, held.epoch
                    ));
                }
                let mut state = Json::from(held.state.clone());
                patch::apply(&mut state, &ops).map_err(|error| error.to_string())?;
                held.state = serde_json::from_str(&state.to_text()).expect("it is JSON");
                held.version = *version;
            }
            Body::Event { .. } => return Err("an event".to_owned()),
        }
        let expected = self.kind.shown(held.version);
        match held.state == expected {
            true => Ok(()),
            false => Err(format!("at {} it is {}", held.version, held.state)),
        }
    }
}

impl Outlet for Reader {
    fn id(&self) -> &Arc<str> {
        &self.id
    }

    fn offer(&self, message: &SharedFrame) -> Offer {
        if let Err(wrong) = self.take(message) {
            self.held().wrong.get_or_insert(wrong);
        }
        self.told.notify_one();
        Offer::Taken
    }

    fn refresh_later(&self, _: Arc<dyn Source>) {
        unreachable!("it takes everything")
    }

    fn close(&self, why: Close) {
        self.held().wrong.get_or_insert(format!("closed: {why:?}"));
        self.told.notify_one();
    }

    fn client(&self) -> Client {
        client_of(self.kind.reader(), &self.id)
    }

    fn end(&self, _: &dyn Source, failure: &Failure) {
        self.held().wrong.get_or_insert(format!("ended: {failure}"));
        self.told.notify_one();
    }
}

/// A host on a disk in memory.
pub(super) struct Stage {
    pub(super) actors: Arc<Actors>,
    pub(super) dice: Dice,
}

impl Stage {
    pub(super) fn new(seed: u64) -> Stage {
        let journal = Journal::open(SimDisk::new(seed), journal::Settings::default());
        let disk = Disk::on(journal.expect("an empty disk"), Reading::InThreads);
        let store = Durable::on(disk, 1_000);
        let metrics = Arc::new(Metrics::new());
        let router = Arc::new(crate::router(Arc::default(), metrics.clone()));
        let lab = Name::parse("lab").expect("a name");
        let installed = router.install(lab, cast::components().strict[0].clone());
        installed.expect("there is no other component");
        let connections = Arc::new(Connections::default());
        let setup = Setup {
            run_ahead: 64,
            ..Setup::alone(router, Arc::new(store), connections)
        };
        let actors = Actors::new(setup, &metrics);
        Stage {
            actors: Arc::new(actors),
            dice: Dice::new(seed),
        }
    }

    /// Queues a call of the owner.
    pub(super) fn begin(
        &self,
        actor: &ActorKey,
        (method, input): (&str, Value),
    ) -> oneshot::Receiver<Result<Option<String>, Failure>> {
        let (told, result) = oneshot::channel();
        let origin = Origin::Client(client_of("ann", &"caller".into()));
        let envelope = CallEnvelope::new(method, Some(input.to_string()), origin);
        let call = Call::new(envelope, ReplyTo::waiter(told));
        self.actors.call(actor, call);
        result
    }

    pub(super) async fn call(&self, actor: &ActorKey, call: (&str, Value)) {
        let result = self.begin(actor, call).await;
        result.expect("calls are answered").expect("it succeeds");
    }

    /// What the owner may read.
    pub(super) async fn place(&self, actor: &ActorKey) -> Since {
        let read = self.actors.read(actor, client_of("ann", &"caller".into()));
        let read = read.await.expect("it can be read");
        Since {
            epoch: read.epoch.to_string(),
            version: read.version,
        }
    }

    async fn round(self: &Arc<Self>, kind: Kind, round: u64) -> Result<(), String> {
        let actor = kind.actor(&format!("j{round}"));
        let before = 3 + self.dice.below(8) as u64;
        let end = before + 1 + self.dice.below(8) as u64;
        for version in 1..=before {
            self.call(&actor, kind.call(version)).await;
        }
        let place = self.place(&actor).await;
        self.actors.retire_all().await;
        let mut readers = Vec::new();
        let mut joining = Vec::new();
        for number in 0..1 + self.dice.below(3) {
            let since = self.dice.percent(75).then(|| Since {
                epoch: place.epoch.clone(),
                version: before - self.dice.below(before as usize - 2) as u64,
            });
            let reader = Reader::new(&format!("r{round}.{number}"), kind, since.as_ref());
            readers.push(reader.clone());
            let (stage, actor) = (self.clone(), actor.clone());
            let pause = Duration::from_micros(self.dice.below(3_000) as u64);
            joining.push(tokio::spawn(async move {
                tokio::time::sleep(pause).await;
                let actors = &stage.actors;
                actors
                    .subscribe(
                        &actor,
                        Stream::State,
                        reader,
                        since.as_ref(),
                        &mut FirstContact::Past,
                    )
                    .await
            }));
        }
        let at_once = self.dice.percent(50);
        let mut results = Vec::new();
        for version in before + 1..=end {
            let result = self.begin(&actor, kind.call(version));
            match at_once {
                true => results.push(result),
                false => drop(result.await),
            }
        }
        for result in results {
            let _ = result.await;
        }
        for joined in joining {
            let joined = joined.await.map_err(|error| error.to_string())?;
            joined.map_err(|failure| failure.to_string())?;
        }
        for reader in readers {
            let reached = reader.reaches(end).await;
            reached.map_err(|wrong| format!("{kind:?} {}: {wrong}", reader.id))?;
            self.actors.unsubscribe(&actor, Stream::State, &reader.id);
        }
        Ok(())
    }
}

pub(super) fn on_threads<T>(play: impl Future<Output = T>) -> T {
    cast::components();
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .worker_threads(3)
        .enable_all()
        .build();
    runtime.expect("a runtime").block_on(play)
}

pub(super) fn rounds() -> u64 {
    let rounds = std::env::var("JOIN_ROUNDS").ok();
    rounds.map_or(ROUNDS, |rounds| rounds.parse().expect("a number"))
}

#[test]
fn who_joins_while_an_actor_commits_misses_nothing() {
    on_threads(async {
        let began = Instant::now();
        for kind in Kind::ALL {
            let stage = Arc::new(Stage::new(kind as u64));
            for round in 0..rounds() {
                if let Err(wrong) = stage.round(kind, round).await {
                    panic!("in round {round}: {wrong}");
                }
            }
        }
        println!("{} rounds of each in {:?}", rounds(), began.elapsed());
    });
}

#[test]
fn what_is_committed_between_looking_back_and_joining_is_not_missed() {
    on_threads(async {
        let stage = Stage::new(0);
        let (kind, actor) = (Kind::Ledger, Kind::Ledger.actor("between"));
        for version in 1..=5 {
            stage.call(&actor, kind.call(version)).await;
        }
        let place = stage.place(&actor).await;
        stage.actors.retire_all().await;
        let resident = stage
            .actors
            .shared
            .actor(&actor)
            .expect("it comes into memory");
        let live = resident.live(&stage.actors.shared).await;
        let live = live.expect("it is loaded");
        let since = Since {
            version: 3,
            ..place
        };
        live.recall(&since, &*stage.actors.shared.store).await;
        stage.call(&actor, kind.call(6)).await;
        let reader = Reader::new("r", kind, Some(&since));
        let mut still = None;
        let joined = live.subscribe_state(reader.clone(), &None, Some(&since), &mut still);
        assert_eq!(joined.await, Ok(true));
        stage.call(&actor, kind.call(7)).await;
        assert_eq!(reader.reaches(7).await, Ok(()));
    });
}

//! Actors that move between two hosts while clients call them, mail is on its way, timers are due
//! and others watch: nothing is lost, nothing happens twice.
//!
//! Two hosts of one process share a store, and a script says which of them is home to which shard.
//! What they say to each other takes its time, may find no room, and its answer may be lost.

use std::collections::{BTreeMap, HashMap};
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Arc, OnceLock, Weak};
use std::time::Duration;

use futures_util::FutureExt;
use serde_json::{Value, json};
use tidegate_base::sync::Mutex;
use tidegate_core::failure::code;
use tidegate_core::place::{EntityKey, Incarnation, Shard, Term};
use tidegate_core::{ActorKey, CallEnvelope, Client, Failure, Json, Name, Origin, PatchOp, patch};
use tidegate_delivery::connections::Connections;
use tidegate_delivery::{Close, Offer, Outlet, SharedFrame, Source};
use tidegate_engine::Pending;
use tidegate_journal::{self as journal, Entry, Journal, Safety, Space, Value as Kept};
use tidegate_registry::placement::{Home, Homes, Links, Parcel, Placement};
use tidegate_store::{Disk, Durable, Later, Reading, Run, ShardLog, StoreError, StoreFigures};
use tidegate_testkit::disk::SimDisk;
use tokio::sync::{mpsc, oneshot, watch};

use super::cast::{self, Dice};
use crate::live::{Body, Stream, Update};
use crate::metrics::Metrics;
use crate::turn::ReplyTo;
use crate::{Actors, Call, FirstContact, Setup};

const SHARDS: u16 = 6;
const LEDGERS: usize = 6;
const CALLERS: usize = 4;
const CLOCKS: usize = 3;
/// How long clients and moves go on.
const PLAY: Duration = Duration::from_millis(1_500);
/// How long what is under way then may take to arrive.
const PATIENCE: Duration = Duration::from_secs(30);

/// Where each shard is, as the script says.
struct Script {
    /// The host that a shard is at, or was at last, and whether it is on its way from there.
    at: Mutex<Vec<(usize, bool)>>,
    changes: watch::Sender<u64>,
    /// How often each shard was taken.
    terms: Mutex<HashMap<Shard, Term>>,
    dice: Dice,
    /// What no host may do was done.
    wrong: Mutex<Vec<String>>,
}

impl Script {
    fn set(&self, shard: usize, host: usize, is_moving: bool) {
        self.at.lock()[shard] = (host, is_moving);
        self.changes.send_modify(|changes| *changes += 1);
    }

    fn wrong(&self, what: String) {
        self.wrong.lock().push(what);
    }
}

fn name_of(host: usize) -> Incarnation {
    Incarnation::new(["one", "two"][host])
}

fn host_of(name: &Incarnation) -> usize {
    usize::from(name.as_str() == "two")
}

/// What one host knows of that.
struct Scripted {
    host: usize,
    script: Arc<Script>,
}

impl Homes for Scripted {
    fn of(&self, key: EntityKey<'_>) -> Home {
        let shard = Shard::of(key, SHARDS);
        match self.script.at.lock()[usize::from(shard.0)] {
            (_, true) => Home::Moving,
            (host, false) if host == self.host => Home::Here(self.script.terms.lock()[&shard]),
            (host, false) => Home::There(name_of(host)),
        }
    }

    fn changed(&self) -> Pending<()> {
        let mut changes = self.script.changes.subscribe();
        Box::pin(async move {
            // An error would mean that the play is over.
            let _ = changes.changed().await;
        })
    }
}

/// What travels from one host to the other.
enum Letter {
    Ask(Parcel, oneshot::Sender<Result<String, Failure>>),
    Tell(Parcel),
}

/// The way from one host to the other one.
struct Way {
    from: usize,
    letters: mpsc::UnboundedSender<Letter>,
    script: Arc<Script>,
}

impl Links for Way {
    fn ask(&self, to: &Incarnation, parcel: Parcel) -> Pending<Result<String, Failure>> {
        assert_ne!(host_of(to), self.from);
        let (answer, answered) = oneshot::channel();
        if self.script.dice.percent(2) {
            // It never arrives.
            return Box::pin(std::future::ready(Err(Failure::call_lost())));
        }
        let _ = self.letters.send(Letter::Ask(parcel, answer));
        Box::pin(async move { answered.await.unwrap_or_else(|_| Err(Failure::call_lost())) })
    }

    fn tell(&self, to: &Incarnation, parcel: Parcel) -> bool {
        assert_ne!(host_of(to), self.from);
        !self.script.dice.percent(3) && self.letters.send(Letter::Tell(parcel)).is_ok()
    }

    fn room(&self, _: &Incarnation) -> Pending<()> {
        let pause = Duration::from_millis(self.script.dice.below(10) as u64);
        Box::pin(tokio::time::sleep(pause))
    }
}

/// Carries what travels from one host to the other, in its order.
async fn carry(
    from: usize,
    to: Weak<Actors>,
    script: Arc<Script>,
    mut letters: mpsc::UnboundedReceiver<Letter>,
) {
    while let Some(letter) = letters.recv().await {
        if script.dice.percent(30) {
            tokio::time::sleep(Duration::from_micros(script.dice.below(2_000) as u64)).await;
        }
        let Some(to) = to.upgrade() else {
            return;
        };
        match letter {
            Letter::Tell(parcel) => to.told(&name_of(from), &parcel.text),
            Letter::Ask(parcel, answer) => {
                let asked = to.asked(&parcel.text);
                let is_lost = script.dice.percent(3);
                tokio::spawn(async move {
                    let answered = asked.await;
                    let _ = answer.send(match is_lost {
                        true => Err(Failure::call_lost()),
                        false => answered,
                    });
                });
            }
        }
    }
}

/// The log that both share, as one of them may use it.
struct Fenced {
    host: usize,
    disk: Arc<Disk>,
    script: Arc<Script>,
    /// The terms for which it has the shards that it has.
    held: Mutex<HashMap<Shard, Term>>,
}

impl Fenced {
    fn owns(&self, shard: Shard) -> bool {
        let last = self.script.terms.lock().get(&shard).copied();
        last.is_some() && self.held.lock().get(&shard).copied() == last
    }
}

impl ShardLog for Fenced {
    fn shards(&self) -> u16 {
        SHARDS
    }

    fn run(&self) -> &Run {
        self.disk.run()
    }

    fn take(&self, shard: Shard) -> Later<'_, Term> {
        let term = {
            let mut terms = self.script.terms.lock();
            let last = terms.entry(shard).or_default();
            last.0 += 1;
            *last
        };
        self.held.lock().insert(shard, term);
        Box::pin(std::future::ready(Ok(term)))
    }

    fn release(&self, shard: Shard) {
        self.held.lock().remove(&shard);
    }

    fn append(
        &self,
        shard: Shard,
        entries: Vec<Entry>,
        safety: Safety,
    ) -> Result<Later<'static, ()>, StoreError> {
        if !self.owns(shard) {
            let what = format!("host {} writes to {shard:?}, which it has not", self.host);
            self.script.wrong(what);
            return Err(StoreError::Fenced);
        }
        self.disk.append(shard, entries, safety)
    }

    fn load<'a>(&'a self, shard: Shard, space: Space, key: &'a str) -> Later<'a, Option<Kept>> {
        self.disk.load(shard, space, key)
    }

    fn has<'a>(&'a self, shard: Shard, space: Space, key: &'a str) -> Later<'a, bool> {
        self.disk.has(shard, space, key)
    }

    fn keys<'a>(
        &'a self,
        space: Space,
        prefix: &'a str,
        after: Option<&'a str>,
        limit: usize,
    ) -> Later<'a, Vec<Box<str>>> {
        self.disk.keys(space, prefix, after, limit)
    }

    fn tagged(&self, shard: Shard, space: Space) -> Vec<(Box<str>, u64)> {
        match self.owns(shard) {
            true => self.disk.tagged(shard, space),
            false => Vec::new(),
        }
    }

    fn failed(&self) -> Option<String> {
        self.disk.failed()
    }

    fn figures(&self) -> StoreFigures {
        self.disk.figures()
    }

    fn close(&self) {}
}

/// Somebody who watches the state of an actor, and applies what is shown.
struct Follower {
    id: Arc<str>,
    seen: Mutex<Option<(String, u64, Json)>>,
    script: Arc<Script>,
    patches: AtomicUsize,
}

impl Follower {
    fn take(&self, update: &Update) -> Result<(), String> {
        let mut seen = self.seen.lock();
        match &update.body {
            Body::Snapshot {
                state,
                epoch,
                version,
            } => {
                // An actor that nothing ever happened to is not stored, and begins anew elsewhere.
                if let Some((before, later, _)) = &*seen
                    && (before != &**epoch && *later > 0 || later > version)
                {
                    return Err(format!("{version} of {epoch} after {later} of {before}"));
                }
                let state = serde_json::from_str(state).map_err(|error| error.to_string())?;
                *seen = Some((epoch.to_string(), *version, state));
            }
            Body::Patch {
                patches,
                epoch,
                from,
                version,
                ..
            } => {
                let Some((known, at, state)) = seen.as_mut() else {
                    return Err("a patch of nothing".to_owned());
                };
                let ops: Vec<PatchOp> =
                    serde_json::from_str(patches).map_err(|error| error.to_string())?;
                let is_nothing = ops.is_empty() && *at == *version;
                if known != &**epoch || (*from != *at && !is_nothing) {
                    return Err(format!(
                        "{from} to {version} of {epoch} after {at} of {known}"
                    ));
                }
                patch::apply(state, &ops).map_err(|error| error.to_string())?;
                *at = *version;
                self.patches.fetch_add(1, Ordering::Relaxed);
            }
            Body::Event { .. } => return Err("an event".to_owned()),
        }
        Ok(())
    }
}

impl Outlet for Follower {
    fn id(&self) -> &Arc<str> {
        &self.id
    }

    fn offer(&self, frame: &SharedFrame) -> Offer {
        if self.script.dice.percent(4) {
            return Offer::Full;
        }
        let update = Update::of(frame);
        if let Err(wrong) = self.take(update) {
            self.script
                .wrong(format!("{} of {}: {wrong}", self.id, update.actor));
        }
        Offer::Taken
    }

    fn refresh_later(&self, source: Arc<dyn Source>) {
        let id = self.id.clone();
        let pause = Duration::from_millis(self.script.dice.below(10) as u64);
        tokio::spawn(async move {
            tokio::time::sleep(pause).await;
            source.refresh(&id);
        });
    }

    fn close(&self, why: Close) {
        self.script.wrong(format!("{} is closed: {why:?}", self.id));
    }

    fn client(&self) -> Client {
        Client::default()
    }

    fn end(&self, _: &dyn Source, failure: &Failure) {
        self.script
            .wrong(format!("{} is ended: {failure}", self.id));
    }
}

/// What may have become of an entry.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Fate {
    Made,
    NotMade,
    /// Nobody knows.
    Perhaps,
}

/// Both hosts, and what clients know.
struct Play {
    hosts: [Arc<Actors>; 2],
    logs: [Arc<Fenced>; 2],
    script: Arc<Script>,
    /// For each ledger, what became of each of its entries.
    entries: Mutex<Vec<BTreeMap<u64, Fate>>>,
    next_entry: AtomicUsize,
    is_over: AtomicBool,
    moves: AtomicUsize,
}

fn ledger(number: usize) -> ActorKey {
    cast::key("ledger", &format!("l{number}"))
}

impl Play {
    fn new(seed: u64) -> Arc<Play> {
        let dice = Dice::new(seed);
        let at = (0..SHARDS).map(|_| (dice.below(2), false)).collect();
        let script = Arc::new(Script {
            at: Mutex::new(at),
            changes: watch::Sender::new(0),
            terms: Mutex::default(),
            dice,
            wrong: Mutex::default(),
        });
        let journal = Journal::open(SimDisk::new(seed), journal::Settings::default());
        let disk = Disk::on(journal.expect("an empty disk"), Reading::InThreads);
        let logs = [0, 1].map(|host| {
            let (disk, script) = (disk.clone(), script.clone());
            let held = Mutex::default();
            Arc::new(Fenced {
                host,
                disk,
                script,
                held,
            })
        });
        for (shard, (host, _)) in (0..).map(Shard).zip(&*script.at.lock()) {
            let taken = logs[*host].take(shard).now_or_never();
            taken.expect("it does not wait").expect("it is free");
        }
        let ways = [0, 1].map(|from| {
            let (letters, carried) = mpsc::unbounded_channel();
            let script = script.clone();
            let way = Way {
                from,
                letters,
                script,
            };
            (Arc::new(way), OnceLock::from(carried))
        });
        let hosts = [0, 1].map(|host| {
            let metrics = Arc::new(Metrics::new());
            let router = Arc::new(crate::router(Arc::default(), metrics.clone()));
            let lab = Name::parse("lab").expect("a name");
            let installed = router.install(lab, cast::components().strict[0].clone());
            installed.expect("there is no other component");
            let script = script.clone();
            let store = Arc::new(Durable::on(logs[host].clone(), 1_000));
            let setup = Setup {
                placement: Placement {
                    homes: Arc::new(Scripted { host, script }),
                    links: ways[host].0.clone(),
                    ..Placement::alone()
                },
                incarnation: name_of(host),
                ..Setup::alone(router, store, Arc::new(Connections::default()))
            };
            Arc::new(Actors::new(setup, &metrics))
        });
        for (from, (_, mut carried)) in ways.into_iter().enumerate() {
            let to = Arc::downgrade(&hosts[1 - from]);
            let letters = carried.take().expect("it is taken once");
            tokio::spawn(carry(from, to, script.clone(), letters));
        }
        Arc::new(Play {
            hosts,
            logs,
            script,
            entries: Mutex::new(vec![BTreeMap::new(); LEDGERS]),
            next_entry: AtomicUsize::new(0),
            is_over: AtomicBool::new(false),
            moves: AtomicUsize::new(0),
        })
    }

    fn some_host(&self) -> &Arc<Actors> {
        &self.hosts[self.script.dice.below(2)]
    }

    async fn call(
        &self,
        actor: &ActorKey,
        method: &str,
        input: &Value,
        key: Option<String>,
    ) -> Result<Option<String>, Failure> {
        let (reply, result) = oneshot::channel();
        let origin = Origin::Client(Client::default());
        let envelope = CallEnvelope {
            key,
            ..CallEnvelope::new(method, Some(input.to_string()), origin)
        };
        let call = Call::new(envelope, ReplyTo::waiter(reply));
        self.some_host().call(actor, call);
        let answered = tokio::time::timeout(PATIENCE, result).await;
        answered
            .expect("a call is answered")
            .expect("a call is answered")
    }

    fn note(&self, ledger: usize, entry: u64, fate: Fate) {
        self.entries.lock()[ledger].insert(entry, fate);
    }

    /// One client, until the play is over.
    async fn client(self: Arc<Self>) {
        while !self.is_over.load(Ordering::Relaxed) {
            let dice = &self.script.dice;
            let number = dice.below(LEDGERS);
            let entry = self.next_entry.fetch_add(1, Ordering::Relaxed) as u64;
            let input = json!({"entry": entry});
            let made = match dice.below(3) {
                0 => self.call(&ledger(number), "add", &input, None).await,
                1 => {
                    let key = Some(format!("entry {entry}"));
                    self.call(&ledger(number), "add", &input, key).await
                }
                _ => {
                    let caller = cast::key("caller", &format!("c{}", dice.below(CALLERS)));
                    let id = format!("l{number}");
                    let mail =
                        json!({"actor": "ledger", "id": id, "method": "add", "input": input});
                    self.call(&caller, "send", &mail, None).await
                }
            };
            let fate = match made {
                Ok(_) => Fate::Made,
                Err(failure) if failure.code == code::CALL_LOST => Fate::Perhaps,
                Err(failure) => {
                    if failure.code != code::ACTOR_MOVING {
                        self.script.wrong(format!("a call fails: {failure}"));
                    }
                    Fate::NotMade
                }
            };
            self.note(number, entry, fate);
            if dice.percent(50) {
                tokio::time::sleep(Duration::from_micros(dice.below(3_000) as u64)).await;
            }
        }
    }

    /// Moves a shard to the other host.
    async fn move_one(&self, shard: usize) {
        let (from, _) = self.script.at.lock()[shard];
        self.script.set(shard, from, true);
        let moving = Shard(u16::try_from(shard).expect("one of few"));
        let left = self.hosts[from].move_out(moving);
        tokio::time::timeout(PATIENCE, left)
            .await
            .expect("it leaves");
        self.logs[from].release(moving);
        tokio::time::sleep(Duration::from_millis(self.script.dice.below(5) as u64)).await;
        let taken = self.logs[1 - from].take(moving);
        taken.await.expect("it is free");
        self.script.set(shard, 1 - from, false);
        self.hosts[1 - from].move_in(moving);
        self.moves.fetch_add(1, Ordering::Relaxed);
    }

    async fn mover(self: Arc<Self>) {
        while !self.is_over.load(Ordering::Relaxed) {
            self.move_one(self.script.dice.below(usize::from(SHARDS)))
                .await;
            tokio::time::sleep(Duration::from_millis(self.script.dice.below(40) as u64)).await;
        }
    }

    async fn read(&self, actor: &ActorKey) -> Result<(Value, String, u64), Failure> {
        let read = self.some_host().read(actor, Client::default()).await?;
        let state = serde_json::from_str(&read.state).expect("a state is JSON");
        Ok((state, read.epoch.to_string(), read.version))
    }

    /// How often each entry of a ledger was made.
    async fn made(&self, number: usize) -> Option<HashMap<u64, usize>> {
        let (state, ..) = self.read(&ledger(number)).await.ok()?;
        let mut made = HashMap::new();
        let mut add = |entry: u64| *made.entry(entry).or_default() += 1;
        let numbers = |value: &Value| -> Vec<u64> {
            let values = value.as_array().into_iter().flatten();
            values.filter_map(Value::as_u64).collect()
        };
        numbers(&state["latest"]).into_iter().for_each(&mut add);
        numbers(&state["twice"]).into_iter().for_each(&mut add);
        for range in state["ranges"].as_array().into_iter().flatten() {
            if let [first, last] = numbers(range)[..] {
                (first..=last).for_each(&mut add);
            }
        }
        Some(made)
    }

    /// What is missing yet, or was made too often.
    async fn compare(&self) -> Result<(), String> {
        for number in 0..LEDGERS {
            let Some(made) = self.made(number).await else {
                return Err(format!("l{number} cannot be read"));
            };
            let entries = self.entries.lock()[number].clone();
            for (entry, fate) in entries {
                let times = made.get(&entry).copied().unwrap_or_default();
                let fits = match fate {
                    Fate::Made => times == 1,
                    Fate::NotMade => times == 0,
                    Fate::Perhaps => times <= 1,
                };
                if !fits {
                    return Err(format!(
                        "entry {entry} of l{number} is {fate:?}, {times} times"
                    ));
                }
            }
        }
        Ok(())
    }

    /// Whether every timer has fired, once.
    async fn fired(&self, number: usize, labels: usize) -> Result<(), String> {
        let clock = cast::key("clock", &format!("k{number}"));
        let (state, ..) = self
            .read(&clock)
            .await
            .map_err(|failure| failure.to_string())?;
        let firings = state["firings"].as_array().cloned().unwrap_or_default();
        for label in 0..labels {
            let label = label.to_string();
            let times = firings
                .iter()
                .filter(|firing| firing["label"] == *label)
                .count();
            if times != 1 {
                return Err(format!(
                    "timer {label} of k{number} has fired {times} times"
                ));
            }
        }
        Ok(())
    }

    /// Waits until this holds.
    async fn until<F: Future<Output = Result<(), String>>>(&self, holds: impl Fn() -> F) {
        let mut last = String::new();
        let held = async {
            loop {
                match holds().await {
                    Ok(()) => return,
                    Err(why) => last = why,
                }
                tokio::time::sleep(Duration::from_millis(20)).await;
            }
        };
        if tokio::time::timeout(PATIENCE, held).await.is_err() {
            self.script.wrong(last);
        }
    }
}

async fn play(seed: u64) -> (usize, usize, usize) {
    const TIMERS: usize = 12;
    let play = Play::new(seed);
    let mut followers = Vec::new();
    for number in 0..LEDGERS {
        for (host, actors) in play.hosts.iter().enumerate() {
            let follower = Arc::new(Follower {
                id: format!("f{number}-{host}").into(),
                seen: Mutex::default(),
                script: play.script.clone(),
                patches: AtomicUsize::new(0),
            });
            let (actor, mut no_contact) = (ledger(number), FirstContact::Past);
            let receiver = follower.clone();
            let subscribed = actors
                .subscribe(&actor, Stream::State, receiver, None, &mut no_contact)
                .await;
            subscribed.expect("everybody may watch");
            followers.push((number, follower));
        }
    }
    for number in 0..CLOCKS {
        let clock = cast::key("clock", &format!("k{number}"));
        let timers = (0..TIMERS).map(|label| {
            let ms = 50 + play.script.dice.below(1_500);
            json!({"label": label.to_string(), "ms": ms, "outlive": true})
        });
        let timers = json!({"timers": timers.collect::<Vec<_>>()});
        let key = Some(format!("timers of k{number}"));
        let set = play.call(&clock, "set", &timers, key).await;
        set.expect("timers are set");
    }
    let clients: Vec<_> = (0..4)
        .map(|_| tokio::spawn(play.clone().client()))
        .collect();
    let mover = tokio::spawn(play.clone().mover());
    tokio::time::sleep(PLAY).await;
    play.is_over.store(true, Ordering::Relaxed);
    for client in clients {
        client.await.expect("a client ends");
    }
    mover.await.expect("the mover ends");
    play.until(|| play.compare()).await;
    for number in 0..CLOCKS {
        play.until(|| play.fired(number, TIMERS)).await;
    }
    for (number, follower) in &followers {
        let is_there = async || {
            let (state, epoch, version) = play
                .read(&ledger(*number))
                .await
                .map_err(|failure| failure.to_string())?;
            match &*follower.seen.lock() {
                Some((known, at, shown))
                    if *known == epoch
                        && *at == version
                        && shown.to_text() == Json::from(state.clone()).to_text() =>
                {
                    Ok(())
                }
                seen => {
                    let at = seen.as_ref().map(|(_, at, _)| *at);
                    Err(format!("{} is at {at:?} of {version}", follower.id))
                }
            }
        };
        play.until(is_there).await;
    }
    // What was late may have come twice.
    play.until(|| play.compare()).await;
    let wrong = std::mem::take(&mut *play.script.wrong.lock());
    assert!(wrong.is_empty(), "seed {seed}: {}", wrong.join("\n"));
    let entries = play.next_entry.load(Ordering::Relaxed);
    let patches = followers
        .iter()
        .map(|(_, f)| f.patches.load(Ordering::Relaxed))
        .sum();
    (entries, play.moves.load(Ordering::Relaxed), patches)
}

#[test]
fn actors_that_move_between_hosts_lose_nothing_and_do_nothing_twice() {
    cast::components();
    if std::env::var_os("ACTOR_SEED").is_some() {
        tracing_subscriber::fmt()
            .with_max_level(tracing::Level::DEBUG)
            .with_test_writer()
            .init();
    }
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .worker_threads(2)
        .enable_all()
        .build()
        .expect("a runtime");
    let (mut entries, mut moves, mut patches) = (0, 0, 0);
    for seed in super::seeds(4) {
        let ran = runtime.block_on(play(seed));
        entries += ran.0;
        moves += ran.1;
        patches += ran.2;
    }
    println!("{entries} entries, {moves} moves, {patches} patches shown");
    assert!(entries > 200 && moves > 10 && patches > 100);
}

//! One life of a host: it comes up on the disk, clients do this and that, and it ends, one way
//! or another.

use std::collections::BTreeSet;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicI64, Ordering};
use std::time::Duration;

use serde_json::{Value, json};
use tidegate_base::clock::{WallClock, instant};
use tidegate_base::sync::{Mutex, MutexGuard};
use tidegate_core::protocol::Since;
use tidegate_core::{ActorKey, CallEnvelope, Client, Failure, Json, Name, Origin};
use tidegate_delivery::connections::Connections;
use tidegate_engine::Component;
use tidegate_journal::{Health, Journal, Next, Stepper};
use tidegate_store::{Disk, Durable, Reading, Store};
use tidegate_testkit::disk::SimDisk;
use tokio::sync::Notify;

use super::super::mailbox::Item;
use super::super::{Actors, Call, FirstContact, Stream, follow};
use super::books::{Book, Books, Fate, Timer, Way, fate_of};
use super::cast::{self, Dice, Watched, Watcher};
use super::schedule::{CLOCKS, LEDGERS, SENDERS, Schedule, all_actors};
use crate::Setup;
use crate::metrics::Metrics;
use crate::turn::ReplyTo;

/// How a life ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Ended {
    /// All of it was made safe.
    Stopped,
    /// In the middle of something.
    Killed,
}

/// How long it takes, at the end, until all is done that can be: the longest delay of a timer, the
/// pause before messages are sent again, the way out of memory and back.
const LONG: Duration = Duration::from_secs(60);
/// How far the wall clock is set off at most.
pub(super) const CLOCK_OFF_MS: usize = 60_000;

pub(super) struct Life {
    actors: Arc<Actors>,
    book: Book,
    dice: Dice,
    /// What the clock would show if nobody set it.
    steady: WallClock,
    ahead_ms: Option<Arc<AtomicI64>>,
    components: &'static [Arc<Component>; 2],
    watchers: Watchers,
    /// An answer about the ledger that is destroyed now and then is under way.
    is_busy: Arc<AtomicBool>,
}

/// The last subscriber of each place.
#[derive(Clone)]
struct Watchers(Arc<Mutex<Vec<Arc<Watcher>>>>);

impl Watchers {
    fn lock(&self) -> MutexGuard<'_, Vec<Arc<Watcher>>> {
        self.0.lock()
    }
}

/// Does the disk's work, slowly.
async fn drive(
    mut stepper: Stepper,
    appended: Arc<Notify>,
    disk: SimDisk,
    died: Arc<Notify>,
    dice: Dice,
    slowness_ms: usize,
) {
    loop {
        let next = stepper.step(instant());
        if disk.is_off() {
            died.notify_one();
            return std::future::pending().await;
        }
        match next {
            Next::Now => tokio::task::yield_now().await,
            Next::At(time) => tokio::select! {
                biased;
                () = appended.notified() => {}
                () = tokio::time::sleep_until(time.into()) => {}
            },
            Next::Idle => appended.notified().await,
            Next::Ended => return,
        }
        dice.pause(slowness_ms).await;
    }
}

impl Life {
    pub(super) async fn run(schedule: &mut Schedule, has_fault: bool, is_last: bool) -> Ended {
        let (disk, dice, book) = (&schedule.disk, &schedule.dice, &schedule.book);
        let opened = Journal::open_stepped(disk.clone(), schedule.journal.clone());
        let (journal, stepper) = match opened {
            Ok(opened) => opened,
            Err(error) => {
                if !has_fault || !disk.has_failed() {
                    let what = format!("the store does not open: {error}");
                    book.lock().wrong(what);
                }
                return Ended::Killed;
            }
        };
        let (appended, died) = (Arc::new(Notify::new()), Arc::new(Notify::new()));
        let log = Disk::on(journal, Reading::InPlace);
        let store = Arc::new(Watched {
            durable: Durable::on(log.clone(), 1_000),
            book: book.clone(),
            appended: appended.clone(),
            dice: dice.clone(),
            slowness_ms: schedule.slowness_ms,
            busy_percent: schedule.busy_percent,
        });
        let writer = tokio::spawn(drive(
            stepper,
            appended,
            disk.clone(),
            died.clone(),
            dice.clone(),
            schedule.slowness_ms,
        ));
        let components = match schedule.is_strict {
            true => &cast::components().strict,
            false => &cast::components().relaxed,
        };
        let metrics = Arc::new(Metrics::new());
        let router = Arc::new(crate::router(Arc::default(), metrics.clone()));
        let lab = Name::parse("lab").expect("a name");
        let installed = router.install(lab, components[0].clone());
        installed.expect("there is no other component");
        let (base, began) = (Duration::from_millis(schedule.now_ms), instant());
        let steady = WallClock::told(move || base + (instant() - began));
        let wall = match schedule.ahead_ms.clone() {
            None => steady.clone(),
            Some(ahead_ms) => WallClock::told(move || {
                let ahead_ms = ahead_ms.load(Ordering::Relaxed);
                let shown = base + (instant() - began);
                match ahead_ms.try_into().map(Duration::from_millis) {
                    Ok(ahead) => shown + ahead,
                    Err(_) => shown - Duration::from_millis(ahead_ms.unsigned_abs()),
                }
            }),
        };
        let setup = Setup {
            settings: schedule.actors.clone(),
            run_ahead: schedule.run_ahead,
            wall: wall.clone(),
            ..Setup::alone(router, store.clone(), Arc::new(Connections::default()))
        };
        let actors = Actors::new(setup, &metrics);
        let watchers = schedule.seen.iter().enumerate();
        let watchers = watchers.map(|(place, (actor, seen))| {
            let id = format!("w{place}");
            let watcher =
                Watcher::new(&id, actor.clone(), seen.clone(), book.clone(), dice.clone());
            // It has not come yet.
            watcher.is_closed.store(true, Ordering::Relaxed);
            watcher
        });
        let life = Life {
            actors: Arc::new(actors),
            book: book.clone(),
            dice: dice.clone(),
            steady,
            ahead_ms: schedule.ahead_ms.clone(),
            components,
            watchers: Watchers(Arc::new(Mutex::new(watchers.collect()))),
            is_busy: Arc::default(),
        };
        let watchers = life.watchers.clone();
        let program = async {
            match is_last {
                true => life.end().await,
                false => life.go_on().await,
            }
            if !is_last && !life.dice.percent(25) {
                return Ended::Killed;
            }
            life.actors.finish_turns(Duration::from_secs(60)).await;
            life.actors.retire_all().await;
            // In place, since a thread would come between at any time.
            store.close();
            let ended = writer.await;
            match log.journal().health() {
                Health::Closed if ended.is_ok() => Ended::Stopped,
                health => {
                    if !has_fault {
                        let what = format!("the store ended as {health:?}");
                        life.book.lock().wrong(what);
                    }
                    Ended::Killed
                }
            }
        };
        let ended = tokio::select! {
            biased;
            () = died.notified() => Ended::Killed,
            ended = program => ended,
        };
        let watchers = watchers.lock();
        schedule.seen = watchers
            .iter()
            .map(|watcher| (watcher.actor.clone(), watcher.seen()))
            .collect();
        ended
    }

    /// Clients do something, until the end.
    async fn go_on(&self) {
        let is_in_doubt = !self.book.lock().in_doubt.is_empty();
        if (is_in_doubt || self.dice.percent(40)) && !self.check_all(false).await {
            return;
        }
        self.repeat_keyed(false);
        for _ in 0..self.dice.below(60) {
            self.act();
            match self.dice.below(12) {
                0..5 => {}
                5..8 => tokio::task::yield_now().await,
                8..10 => self.dice.pause(6).await,
                10 => self.dice.pause(200).await,
                _ => self.dice.pause(4_000).await,
            }
        }
    }

    fn act(&self) {
        let dice = &self.dice;
        match dice.below(100) {
            0..18 => self.add(dice.one_of(&LEDGERS[..4]), Way::Call),
            18..28 => self.add(dice.one_of(&LEDGERS[..2]), Way::Keyed),
            28..32 => self.repeat_keyed(true),
            32..48 => self.send(),
            48..52 => (0..dice.below(12)).for_each(|_| self.send()),
            52..60 => self.set_timer(),
            60..64 => self.cancel_timer(None),
            64..74 => self.subscribe(),
            74..78 => self.unsubscribe(),
            78..84 => self.read_something(),
            84..88 => self.add_to_destroy(),
            88..91 => self.destroy(),
            91..94 => self.connect(),
            94..96 => self.disconnect(),
            96..99 if self.ahead_ms.is_some() => self.set_clock(),
            96..98 => self.replace(),
            _ => (0..dice.below(30)).for_each(|_| self.add("a", Way::Call)),
        }
    }

    /// Calls; `heard` gets the answer, if the host lives to give one.
    fn call(
        &self,
        actor: &ActorKey,
        method: &str,
        input: &Value,
        key: Option<String>,
        heard: impl FnOnce(&mut Books, Result<Option<String>, Failure>) + Send + Sync + 'static,
    ) {
        let book = self.book.clone();
        let reply = ReplyTo::then(move |result| {
            let mut book = book.lock();
            if !book.is_over {
                heard(&mut book, result);
            }
        });
        self.actors.call(
            actor,
            Call::new(
                CallEnvelope {
                    key,
                    ..CallEnvelope::new(
                        method,
                        Some(input.to_string()),
                        Origin::Client(Client::default()),
                    )
                },
                reply,
            ),
        );
    }

    /// Sets the wall clock, ahead or back.
    fn set_clock(&self) {
        if let Some(ahead_ms) = &self.ahead_ms {
            let to_ms = self.dice.below(2 * CLOCK_OFF_MS + 1) as i64 - CLOCK_OFF_MS as i64;
            ahead_ms.store(to_ms, Ordering::Relaxed);
        }
    }

    fn add(&self, ledger: &'static str, way: Way) {
        let number = self.book.lock().send(ledger, way);
        self.enter(ledger, number, way);
    }

    fn enter(&self, ledger: &'static str, number: usize, way: Way) {
        let key = (way == Way::Keyed).then(|| format!("entry {number}"));
        let actor = cast::key("ledger", ledger);
        let input = json!({"entry": number});
        self.call(&actor, "add", &input, key, move |book, result| {
            book.answered(ledger, number, &result);
        });
    }

    /// Repeats calls with keys: those that were not answered, or one that was.
    fn repeat_keyed(&self, answered: bool) {
        let mut found = Vec::new();
        for (id, ledger) in &self.book.lock().ledgers {
            for (number, entry) in ledger.entries.iter().enumerate() {
                if entry.way == Way::Keyed && (entry.fate == Fate::Made) == answered {
                    found.push((*id, number));
                }
            }
        }
        if answered && !found.is_empty() {
            found = vec![self.dice.one_of(&found)];
        }
        for (id, number) in found {
            self.enter(id, number, Way::Keyed);
        }
    }

    fn send(&self) {
        let sender = self.dice.below(SENDERS.len());
        let ledger = self.dice.one_of(&LEDGERS[2..4]);
        let number = self.book.lock().send(ledger, Way::Mail(sender));
        let actor = cast::key("caller", SENDERS[sender]);
        let input = json!({
            "actor": "ledger", "id": ledger, "method": "add", "input": {"entry": number},
        });
        self.call(&actor, "send", &input, None, move |book, result| {
            book.answered(ledger, number, &result);
        });
    }

    fn set_timer(&self) {
        let id = self.dice.one_of(&CLOCKS);
        let (idle, outlive) = (self.dice.percent(60), self.dice.percent(60));
        let mut book = self.book.lock();
        let timers = book.clocks.entry(id).or_default();
        // Few go on for ever, so that the end is not full of them.
        let every = timers.iter().filter(|timer| timer.every).count() < 2 && self.dice.percent(30);
        let delay_ms = match every {
            true => 1_000 + self.dice.below(2_000),
            false => self.dice.below(self.dice.one_of(&[10, 1_000, 20_000])) + 1,
        };
        let number = timers.len();
        timers.push(Timer {
            set_ms: self.steady.now_ms(),
            delay_ms: delay_ms as u64,
            every,
            may_end: idle && !outlive,
            fate: Fate::Sent,
            id: None,
            cancel_tried: false,
            cancelled_ms: None,
        });
        drop(book);
        let plan = json!({
            "label": number.to_string(), "ms": delay_ms, "every": every, "idle": idle,
            "outlive": outlive,
        });
        let input = json!({"timers": [plan]});
        let actor = cast::key("clock", id);
        self.call(&actor, "set", &input, None, move |book, result| {
            let timer = &mut book.clocks.entry(id).or_default()[number];
            match result {
                Ok(result) => {
                    let ids: Vec<u64> =
                        serde_json::from_str(&result.unwrap_or_default()).unwrap_or_default();
                    (timer.fate, timer.id) = (Fate::Made, ids.first().copied());
                }
                Err(failure) => match fate_of(&failure) {
                    Some(fate) => timer.fate = fate,
                    None => book.wrong(format!("clock/{id}: {number} failed: {failure}")),
                },
            }
        });
    }

    /// Cancels a timer: this one, or any that is known.
    fn cancel_timer(&self, which: Option<(&'static str, usize)>) {
        let mut book = self.book.lock();
        let mut known = Vec::new();
        for (id, timers) in &book.clocks {
            for (number, timer) in timers.iter().enumerate() {
                let is_meant = which.is_none_or(|which| which == (*id, number));
                if let Some(timer_id) = timer.id.filter(|_| is_meant) {
                    known.push((*id, number, timer_id));
                }
            }
        }
        if known.is_empty() {
            return;
        }
        let (id, number, timer_id) = self.dice.one_of(&known);
        book.clocks.entry(id).or_default()[number].cancel_tried = true;
        drop(book);
        let (actor, wall) = (cast::key("clock", id), self.steady.clone());
        let input = json!({"id": timer_id});
        self.call(
            &actor,
            "cancel",
            &input,
            None,
            move |book, result| match result {
                Ok(_) => {
                    let timer = &mut book.clocks.entry(id).or_default()[number];
                    timer.cancelled_ms.get_or_insert(wall.now_ms());
                }
                Err(failure) if fate_of(&failure).is_none() => {
                    book.wrong(format!("clock/{id}: no cancelling: {failure}"));
                }
                Err(_) => {}
            },
        );
    }

    /// Somebody comes, or comes back.
    fn subscribe(&self) {
        let mut watchers = self.watchers.lock();
        let place = self.dice.below(watchers.len());
        let before = &watchers[place];
        if !before.is_closed.load(Ordering::Relaxed) {
            return;
        }
        let seen = before.seen();
        let since = seen.as_ref().filter(|_| self.dice.percent(85));
        let since = since.map(|seen| Since {
            epoch: seen.epoch.clone(),
            version: seen.version,
        });
        let watcher = Watcher::new(
            before.id_text(),
            before.actor.clone(),
            seen,
            self.book.clone(),
            self.dice.clone(),
        );
        watcher.comes_back.store(since.is_some(), Ordering::Relaxed);
        watchers[place] = watcher.clone();
        let (actors, book) = (self.actors.clone(), self.book.clone());
        tokio::spawn(async move {
            let outlet = watcher.clone();
            let (actor, mut contact) = (&watcher.actor, FirstContact::Past);
            let subscribed =
                actors.subscribe(actor, Stream::State, outlet, since.as_ref(), &mut contact);
            if let Err(failure) = subscribed.await {
                watcher.is_closed.store(true, Ordering::Relaxed);
                let mut book = book.lock();
                if fate_of(&failure).is_none() && !book.is_over {
                    book.wrong(format!("no subscription to {}: {failure}", watcher.actor));
                }
            }
        });
    }

    fn unsubscribe(&self) {
        let watchers = self.watchers.lock();
        let watcher = &watchers[self.dice.below(watchers.len())];
        watcher.is_closed.store(true, Ordering::Relaxed);
        self.actors
            .unsubscribe(&watcher.actor, Stream::State, watcher.id_text());
    }

    fn read_something(&self) {
        let all = all_actors();
        let actor = all[self.dice.below(all.len())].clone();
        // What is under way about this one makes it hard to say what must be there.
        if actor != cast::key("ledger", "d") {
            let (actors, book) = (self.actors.clone(), self.book.clone());
            tokio::spawn(async move { check(&actors, &book, &actor, None).await });
        }
    }

    fn add_to_destroy(&self) {
        if self.is_busy.swap(true, Ordering::Relaxed) {
            return;
        }
        let number = self.book.lock().send("d", Way::Call);
        let actor = cast::key("ledger", "d");
        let input = json!({"entry": number});
        let is_busy = self.is_busy.clone();
        self.call(&actor, "add", &input, None, move |book, result| {
            is_busy.store(false, Ordering::Relaxed);
            book.answered("d", number, &result);
        });
    }

    fn destroy(&self) {
        if self.is_busy.swap(true, Ordering::Relaxed) {
            return;
        }
        let attempt = {
            let mut book = self.book.lock();
            let destroys = &mut book.ledgers.entry("d").or_default().destroys;
            destroys.push(false);
            destroys.len() - 1
        };
        let (actors, book) = (self.actors.clone(), self.book.clone());
        let is_busy = self.is_busy.clone();
        tokio::spawn(async move {
            let destroyed = actors.destroy(&cast::key("ledger", "d")).await;
            let mut book = book.lock();
            is_busy.store(false, Ordering::Relaxed);
            match destroyed {
                _ if book.is_over => {}
                Err(failure) if failure.code != "actor.not-found" => {
                    if fate_of(&failure).is_none() {
                        book.wrong(format!("ledger/d cannot be destroyed: {failure}"));
                    }
                }
                _ => {
                    book.ledgers.entry("d").or_default().destroys[attempt] = true;
                    book.counts.destroyed += 1;
                }
            }
        });
    }

    fn visitor(&self, number: usize) -> Client {
        Client {
            connection: Some(format!("c{number}").into()),
            user: None,
        }
    }

    fn connect(&self) {
        let number = {
            let mut book = self.book.lock();
            book.visitors += 1;
            book.visitors - 1
        };
        // One that finds no room has no contact.
        let item = Item::connect(self.visitor(number));
        let _ = self.actors.deliver(&cast::key("visits", "v"), item);
    }

    fn disconnect(&self) {
        let visitors = self.book.lock().visitors;
        if visitors > 0 {
            let item = Item::Disconnect(self.visitor(self.dice.below(visitors)));
            let _ = self.actors.deliver(&cast::key("visits", "v"), item);
        }
    }

    /// Another component of the same code takes over.
    fn replace(&self) {
        let shared = self.actors.shared.clone();
        let component = self.components[self.dice.below(2)].clone();
        let lab = Name::parse("lab").expect("a name");
        let replaced = shared.router.install(lab, component.clone());
        replaced.expect("there is no other component");
        tokio::spawn(follow(shared, component));
    }

    /// Compares all that there is with the books. False if something could not be read.
    async fn check_all(&self, is_end: bool) -> bool {
        let in_doubt: BTreeSet<ActorKey> = self.book.lock().in_doubt.clone();
        for actor in all_actors() {
            let end_ms = is_end.then(|| self.steady.now_ms());
            let accepts = in_doubt.contains(&actor);
            if accepts {
                let Some((state, ..)) = look(&self.actors, &self.book, &actor).await else {
                    return false;
                };
                let mut book = self.book.lock();
                for id in LEDGERS
                    .into_iter()
                    .filter(|id| cast::key("ledger", id) == actor)
                {
                    book.accept_ledger(id, &state);
                }
                for id in CLOCKS
                    .into_iter()
                    .filter(|id| cast::key("clock", id) == actor)
                {
                    book.accept_clock(id);
                }
                book.in_doubt.remove(&actor);
            }
            if !check(&self.actors, &self.book, &actor, end_ms).await {
                return false;
            }
        }
        true
    }

    /// The last life: all that is left to do is done, and compared with the books.
    async fn end(&self) {
        self.check_all(false).await;
        // Those that go on for ever are ended, once they have shown their ids.
        tokio::time::sleep(Duration::from_secs(5)).await;
        for id in CLOCKS {
            let actor = cast::key("clock", id);
            let Some((state, ..)) = look(&self.actors, &self.book, &actor).await else {
                self.book.lock().wrong(format!("{actor} cannot be read"));
                continue;
            };
            let mut every = BTreeSet::new();
            for firing in state["firings"].as_array().into_iter().flatten() {
                let number: usize = firing["label"]
                    .as_str()
                    .and_then(|label| label.parse().ok())
                    .unwrap_or_default();
                let mut book = self.book.lock();
                if let Some(timer) = book.clocks.entry(id).or_default().get_mut(number)
                    && timer.every
                {
                    timer.id = firing["id"].as_u64();
                    every.insert(number);
                }
            }
            for number in every {
                self.cancel_timer(Some((id, number)));
                // One after the other, so that the queue has room.
                let _ = look(&self.actors, &self.book, &actor).await;
                tokio::time::sleep(Duration::from_secs(1)).await;
            }
        }
        for _ in 0..20 {
            self.repeat_keyed(false);
            tokio::time::sleep(Duration::from_secs(1)).await;
        }
        tokio::time::sleep(LONG).await;
        if self.ahead_ms.is_some() {
            // What an earlier life has stored is due by what the clock showed then.
            tokio::time::sleep(2 * Duration::from_millis(CLOCK_OFF_MS as u64)).await;
        }
        if !self.check_all(true).await {
            self.book.lock().wrong("the end cannot be read".to_owned());
        }
        let mut book = self.book.lock();
        let ledgers = book.ledgers.values();
        let mut left = ledgers.flat_map(|ledger| &ledger.entries);
        if left.any(|entry| entry.way == Way::Keyed && entry.fate != Fate::Made) {
            book.wrong("a call with a key is never answered".to_owned());
        }
    }
}

/// The state of an actor; none if it cannot be read now.
async fn look(actors: &Actors, book: &Book, actor: &ActorKey) -> Option<(Value, u64)> {
    match actors.read(actor, Client::default()).await {
        Ok(read) => {
            let state: Value = serde_json::from_str(&read.state).expect("states are JSON");
            let mut book = book.lock();
            let shown = Json::parse(&read.state).expect("states are JSON");
            book.shown(actor, &read.epoch, read.version, &shown);
            Some((state, read.version))
        }
        Err(failure) => {
            let mut book = book.lock();
            if fate_of(&failure).is_none() && !book.is_over {
                book.wrong(format!("{actor} cannot be read: {failure}"));
            }
            None
        }
    }
}

/// Compares an actor with the books. False if it cannot be read now.
async fn check(actors: &Actors, book: &Book, actor: &ActorKey, end_ms: Option<u64>) -> bool {
    // As they were before; what is answered meanwhile may come behind what is read.
    let known = book.lock().ledgers.clone();
    let Some((state, version)) = look(actors, book, actor).await else {
        return false;
    };
    let mut book = book.lock();
    let id = actor.id.as_str();
    match actor.actor.as_str() {
        "ledger" => {
            let id = LEDGERS.into_iter().find(|known| *known == id);
            let id = id.expect("all ledgers are known");
            let known = known.get(id).cloned().unwrap_or_default();
            book.check_ledger(id, &known, &state, version, end_ms.is_some());
        }
        "clock" => {
            let id = CLOCKS.into_iter().find(|known| *known == id);
            book.check_clock(id.expect("all clocks are known"), &state, end_ms);
        }
        _ => book.check_visits(&state, end_ms.is_some()),
    }
    true
}

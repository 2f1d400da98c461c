//! What clients were told, and what must therefore be there.
//!
//! Invariant: something counts as sent before it is sent, and as made only once the client was
//! told so by a host that lives.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::sync::Arc;

use serde_json::Value;
use tidegate_base::sync::{Mutex, MutexGuard};
use tidegate_core::{ActorKey, Failure, Json};

use super::life::CLOCK_OFF_MS;

/// How much has happened.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Counts {
    pub(super) lives: u64,
    /// Calls to the disk.
    pub(super) disk_calls: u64,
    pub(super) faults: u64,
    pub(super) kills: u64,
    pub(super) stops: u64,
    pub(super) acknowledged: u64,
    pub(super) in_doubt: u64,
    pub(super) refused: u64,
    /// Calls with keys that were answered again.
    pub(super) repeated: u64,
    pub(super) messages: u64,
    pub(super) firings: u64,
    pub(super) cancelled: u64,
    /// What subscribers and readers were shown.
    pub(super) shown: u64,
    /// Subscribers who came back and were sent what they had missed.
    pub(super) resumed: u64,
    pub(super) destroyed: u64,
    pub(super) disconnects: u64,
    /// Actors that came into memory with a history.
    pub(super) loads: u64,
    /// Disks that were put back as they once were.
    pub(super) put_back: u64,
}

impl Counts {
    fn fields(&mut self) -> [&mut u64; 18] {
        [
            &mut self.lives,
            &mut self.disk_calls,
            &mut self.faults,
            &mut self.kills,
            &mut self.stops,
            &mut self.acknowledged,
            &mut self.in_doubt,
            &mut self.refused,
            &mut self.repeated,
            &mut self.messages,
            &mut self.firings,
            &mut self.cancelled,
            &mut self.shown,
            &mut self.resumed,
            &mut self.destroyed,
            &mut self.disconnects,
            &mut self.loads,
            &mut self.put_back,
        ]
    }

    pub(super) fn add(&mut self, other: &Counts) {
        let mut other = *other;
        for (sum, more) in self.fields().into_iter().zip(other.fields()) {
            *sum += *more;
        }
    }

    /// Fails if something never happened, and so nothing is proved of it.
    pub(super) fn assert_busy(mut self) {
        let counts = format!("{self:?}");
        assert!(
            self.fields().into_iter().all(|count| *count > 10),
            "too little has happened: {counts}"
        );
    }
}

/// What is known of something that a client has sent.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Fate {
    /// Nobody knows whether it was made.
    Sent,
    /// It was made.
    Made,
    /// It was not made, and never will be.
    Refused,
}

/// How an entry comes to its ledger.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Way {
    Call,
    /// A call with a key, which is repeated until it is answered.
    Keyed,
    /// A message of this sender.
    Mail(usize),
}

#[derive(Clone, Debug)]
pub(super) struct Entry {
    pub(super) way: Way,
    pub(super) fate: Fate,
    /// How many entries there were with it.
    pub(super) total: Option<u64>,
    /// How many attempts to destroy the ledger came before it.
    era: usize,
}

#[derive(Clone, Debug, Default)]
pub(super) struct Ledger {
    pub(super) entries: Vec<Entry>,
    /// Attempts to destroy it, and whether a client was told that it is gone.
    pub(super) destroys: Vec<bool>,
}

#[derive(Clone, Debug)]
pub(super) struct Timer {
    /// Not before this time.
    pub(super) set_ms: u64,
    pub(super) delay_ms: u64,
    pub(super) every: bool,
    /// It may end when its actor leaves memory.
    pub(super) may_end: bool,
    pub(super) fate: Fate,
    pub(super) id: Option<u64>,
    pub(super) cancel_tried: bool,
    /// When a client was told that it is cancelled.
    pub(super) cancelled_ms: Option<u64>,
}

#[derive(Default)]
pub(super) struct Books {
    /// Nothing that was told may be lost with power either.
    pub(super) is_strict: bool,
    pub(super) ledgers: BTreeMap<&'static str, Ledger>,
    pub(super) clocks: BTreeMap<&'static str, Vec<Timer>>,
    /// Somebody sets the wall clock, so that moments that the host tells have no order.
    pub(super) clock_is_set: bool,
    /// A hook may find the store busy, and is not tried again.
    pub(super) may_skip_hooks: bool,
    /// Connections that had contact with `visits`.
    pub(super) visitors: usize,
    /// Actors that may have lost their last turns.
    pub(super) in_doubt: BTreeSet<ActorKey>,
    states: HashMap<(ActorKey, String, u64), String>,
    /// The last that was shown of an actor in this life.
    latest: BTreeMap<ActorKey, (String, u64)>,
    /// The last that was shown of it in each of the lives before.
    before: BTreeMap<ActorKey, (String, u64)>,
    /// Up to where the store has called the commits of an actor safe.
    safe: HashMap<ActorKey, u64>,
    pub(super) counts: Counts,
    wrong: Vec<String>,
    /// Nobody hears what the host says any more.
    pub(super) is_over: bool,
}

/// The books, for all who write in them.
#[derive(Clone, Default)]
pub(super) struct Book(Arc<Mutex<Books>>);

impl Book {
    pub(super) fn lock(&self) -> MutexGuard<'_, Books> {
        self.0.lock()
    }
}

/// What a caller may take from a failure.
pub(super) fn fate_of(failure: &Failure) -> Option<Fate> {
    match &*failure.code {
        "mailbox.full" => Some(Fate::Refused),
        "store.unavailable" | "host.shutting-down" => Some(Fate::Sent),
        _ => None,
    }
}

/// The entries in the state of a `ledger`, the oldest first as far as that is known.
pub(super) fn entries(state: &Value) -> Vec<u64> {
    let list = |name: &str| state[name].as_array().cloned().unwrap_or_default();
    let number = |value: &Value| value.as_u64().unwrap_or(u64::MAX);
    let ranges = list("ranges").into_iter();
    let ranges = ranges.flat_map(|range| number(&range[0])..=number(&range[1]));
    let rest = [list("twice"), list("latest")].concat();
    ranges.chain(rest.iter().map(number)).collect()
}

impl Books {
    pub(super) fn wrong(&mut self, what: String) {
        // The first ones tell what has happened; the rest follows from them.
        if self.wrong.len() < 8 {
            self.wrong.push(what);
        }
    }

    pub(super) fn take_wrong(&mut self) -> Vec<String> {
        std::mem::take(&mut self.wrong)
    }

    /// Ends a life. What is not answered by now never will be.
    pub(super) fn end_life(&mut self, may_lose: bool, all: &[ActorKey]) {
        self.is_over = true;
        self.before.append(&mut self.latest);
        self.safe.clear();
        if may_lose {
            self.in_doubt.extend(all.iter().cloned());
            // What was lost with the sender does not come any more.
            let ledgers = self.ledgers.values_mut();
            for entry in ledgers.flat_map(|ledger| &mut ledger.entries) {
                if matches!(entry.way, Way::Mail(_)) && entry.fate == Fate::Made {
                    entry.fate = Fate::Sent;
                }
            }
        }
    }

    /// The disk is as it once was: whatever came since may be lost, and others will come in its
    /// place.
    pub(super) fn put_back(&mut self, all: &[ActorKey]) {
        self.counts.put_back += 1;
        self.in_doubt.extend(all.iter().cloned());
        for ledger in self.ledgers.values_mut() {
            for entry in &mut ledger.entries {
                if matches!(entry.way, Way::Mail(_)) && entry.fate == Fate::Made {
                    entry.fate = Fate::Sent;
                }
            }
            ledger.destroys.fill(false);
        }
    }

    pub(super) fn begin_life(&mut self) {
        self.is_over = false;
        self.counts.lives += 1;
    }

    /// The store has called everything up to this version safe.
    pub(super) fn is_safe(&mut self, actor: &ActorKey, version: u64) {
        let safe = self.safe.entry(actor.clone()).or_default();
        *safe = version.max(*safe);
    }

    /// The store has forgotten an actor.
    pub(super) fn is_removed(&mut self, actor: &ActorKey) {
        self.safe.insert(actor.clone(), 0);
    }

    /// Somebody was shown the state as it is.
    pub(super) fn shown(&mut self, actor: &ActorKey, epoch: &str, version: u64, state: &Json) {
        if let Some((epoch_before, version_before)) = self.before.get(actor).cloned()
            && epoch == epoch_before
            && version < version_before
            && !self.is_over
        {
            self.wrong(format!(
                "{actor} was shown at {version_before}, and is at {version}"
            ));
        }
        self.told(actor, epoch, version, state);
    }

    /// Somebody was told of a state that there was.
    pub(super) fn told(&mut self, actor: &ActorKey, epoch: &str, version: u64, state: &Json) {
        if self.is_over {
            return;
        }
        self.counts.shown += 1;
        let safe = self.safe.get(actor).copied().unwrap_or_default();
        if version > safe {
            self.wrong(format!(
                "{actor} was shown at {version}, and {safe} is safe"
            ));
        }
        // Members stand in one order for everybody.
        let text = state.to_text();
        let place = (actor.clone(), epoch.to_owned(), version);
        let known = self.states.entry(place).or_insert_with(|| text.clone());
        if *known != text {
            let what = format!("{actor} at {epoch} {version} was {known} and is {text}");
            self.wrong(what);
        }
        if let Some((epoch_before, version_before)) = self.latest.get(actor).cloned()
            && version_before > 0
            // What is destroyed begins another.
            && actor.id.as_str() != "d"
            && epoch != epoch_before
        {
            self.wrong(format!(
                "{actor}: the epoch {epoch_before} at {version_before} became {epoch}"
            ));
        }
        let later = self
            .latest
            .get(actor)
            .is_none_or(|(last_epoch, last)| last_epoch != epoch || *last < version);
        if later {
            self.latest
                .insert(actor.clone(), (epoch.to_owned(), version));
        }
    }

    /// Takes an entry that is about to be sent.
    pub(super) fn send(&mut self, ledger: &'static str, way: Way) -> usize {
        let ledger = self.ledgers.entry(ledger).or_default();
        ledger.entries.push(Entry {
            way,
            fate: Fate::Sent,
            total: None,
            era: ledger.destroys.len(),
        });
        ledger.entries.len() - 1
    }

    /// A client hears what became of its call.
    pub(super) fn answered(
        &mut self,
        ledger: &'static str,
        number: usize,
        result: &Result<Option<String>, Failure>,
    ) {
        let entry = &mut self.ledgers.entry(ledger).or_default().entries[number];
        let is_message = matches!(entry.way, Way::Mail(_));
        match result {
            Ok(result) => {
                let total: Option<u64> = result.as_deref().and_then(|total| total.parse().ok());
                let known = entry.total;
                let is_repeated = entry.fate == Fate::Made;
                entry.fate = Fate::Made;
                entry.total = total;
                match is_repeated {
                    true => self.counts.repeated += 1,
                    false => self.counts.acknowledged += 1,
                }
                self.counts.messages += u64::from(is_message);
                if total.is_none() != is_message {
                    self.wrong(format!("{ledger} {number}: the result is {result:?}"));
                }
                if is_repeated && known != total {
                    self.wrong(format!(
                        "{ledger} {number}: the results are {known:?} and {total:?}"
                    ));
                }
                let actor = super::cast::key("ledger", ledger);
                let safe = self.safe.get(&actor).copied().unwrap_or_default();
                if total.is_some_and(|total| total > safe) {
                    self.wrong(format!(
                        "{ledger} {number} was answered with {total:?}, and {safe} is safe"
                    ));
                }
            }
            Err(failure) => match fate_of(failure) {
                Some(Fate::Refused) if entry.fate != Fate::Made => {
                    // Of a call with a key another attempt may have been made.
                    if entry.way != Way::Keyed {
                        entry.fate = Fate::Refused;
                    }
                    self.counts.refused += 1;
                }
                Some(_) => self.counts.in_doubt += 1,
                None => self.wrong(format!("{ledger} {number} failed: {failure}")),
            },
        }
    }

    /// Compares the state of a ledger with what was known of it when it was asked for.
    pub(super) fn check_ledger(
        &mut self,
        id: &'static str,
        known: &Ledger,
        state: &Value,
        version: u64,
        is_end: bool,
    ) {
        let found = entries(state);
        let total = state["total"].as_u64().unwrap_or(u64::MAX);
        if total != found.len() as u64 || total != version {
            self.wrong(format!("ledger/{id} at {version}: {state}"));
        }
        let mut counts = vec![0_usize; self.ledgers.entry(id).or_default().entries.len()];
        for entry in &found {
            match counts.get_mut(*entry as usize) {
                Some(count) => *count += 1,
                None => self.wrong(format!("ledger/{id}: nobody has sent {entry}")),
            }
        }
        for (number, count) in counts.iter().enumerate() {
            let Some(entry) = known.entries.get(number) else {
                continue;
            };
            let later = known.destroys.get(entry.era..).unwrap_or_default();
            let is_destroyed = later.contains(&true);
            let must = entry.fate == Fate::Made
                && later.is_empty()
                && (is_end || !matches!(entry.way, Way::Mail(_)));
            if must && *count == 0 {
                self.wrong(format!("ledger/{id}: {number} is lost: {entry:?}: {state}"));
            }
            if *count > 1 {
                self.wrong(format!("ledger/{id}: {number} is there {count} times"));
            }
            if *count > 0 && (entry.fate == Fate::Refused || is_destroyed) {
                self.wrong(format!("ledger/{id}: {number} is there: {entry:?}"));
            }
        }
        let latest = state["latest"].as_array().cloned().unwrap_or_default();
        let mut last: BTreeMap<usize, u64> = BTreeMap::new();
        for number in latest.iter().filter_map(Value::as_u64) {
            let entry = known.entries.get(number as usize);
            if let Some(Way::Mail(sender)) = entry.map(|entry| entry.way)
                && let Some(before) = last.insert(sender, number)
                && before > number
            {
                self.wrong(format!(
                    "ledger/{id}: {number} of the sender {sender} came after {before}"
                ));
            }
        }
    }

    /// After a loss of power that may have taken the last turns: takes what there is for all
    /// there is. What is lost must be the end of what there was.
    pub(super) fn accept_ledger(&mut self, id: &'static str, state: &Value) {
        let found: BTreeSet<u64> = entries(state).into_iter().collect();
        let ledger = self.ledgers.entry(id).or_default();
        let mut made: Vec<(u64, usize)> = Vec::new();
        for (number, entry) in ledger.entries.iter().enumerate() {
            let is_of_now = ledger.destroys.len() == entry.era;
            if let (Fate::Made, Some(total), true) = (entry.fate, entry.total, is_of_now) {
                made.push((total, number));
            }
        }
        made.sort_unstable();
        let is_there = |(_, number): &(u64, usize)| found.contains(&(*number as u64));
        let lost = made.partition_point(is_there);
        let gap = made[lost..].iter().any(is_there);
        for (_, number) in &made[lost..] {
            let entry = &mut ledger.entries[*number];
            entry.total = None;
            entry.fate = match entry.way {
                Way::Call => Fate::Refused,
                Way::Keyed | Way::Mail(_) => Fate::Sent,
            };
        }
        if gap {
            self.wrong(format!(
                "ledger/{id} has lost {made:?} in the middle: {state}"
            ));
        }
    }

    /// Compares what has fired with what was set.
    pub(super) fn check_clock(&mut self, id: &'static str, state: &Value, end_ms: Option<u64>) {
        let timers = self.clocks.entry(id).or_default().clone();
        let mut dues: BTreeMap<usize, Vec<u64>> = BTreeMap::new();
        let firings = state["firings"].as_array().cloned().unwrap_or_default();
        for firing in &firings {
            let label = firing["label"].as_str().unwrap_or_default();
            let number = label.parse().unwrap_or(usize::MAX);
            let due = firing["due"].as_u64().unwrap_or_default();
            let now = firing["now"].as_u64().unwrap_or_default();
            let Some(timer) = timers.get(number) else {
                self.wrong(format!("clock/{id}: nobody has set {firing}"));
                continue;
            };
            if timer.fate == Fate::Refused {
                self.wrong(format!("clock/{id}: {firing} was refused: {timer:?}"));
            }
            let is_early = now < due || due < timer.set_ms + timer.delay_ms;
            if is_early && !self.clock_is_set {
                self.wrong(format!("clock/{id}: {firing} is early: {timer:?}"));
            }
            let is_late = timer.cancelled_ms.is_some_and(|cancelled| now > cancelled);
            if is_late && !self.clock_is_set {
                self.wrong(format!("clock/{id}: {firing} was cancelled: {timer:?}"));
            }
            let dues = dues.entry(number).or_default();
            let is_off_grid = dues
                .first()
                .is_some_and(|first| due.abs_diff(*first) % timer.delay_ms != 0);
            let is_same = dues.contains(&due) || is_off_grid;
            let is_twice = !timer.every && !dues.is_empty();
            dues.push(due);
            if is_twice || is_same && !self.clock_is_set {
                self.wrong(format!(
                    "clock/{id}: {firing} of {timer:?} fired at {dues:?}"
                ));
            }
        }
        let Some(end_ms) = end_ms else {
            return;
        };
        self.counts.firings += firings.len() as u64;
        for (number, timer) in timers.iter().enumerate() {
            self.counts.cancelled += u64::from(timer.cancelled_ms.is_some());
            let must = timer.fate == Fate::Made && !timer.cancel_tried && !timer.may_end;
            let margin_ms = match self.clock_is_set {
                true => 10_000 + 2 * CLOCK_OFF_MS as u64,
                false => 10_000,
            };
            let is_due = timer.set_ms + timer.delay_ms + margin_ms < end_ms;
            if must && is_due && !dues.contains_key(&number) {
                self.wrong(format!(
                    "clock/{id}: {number} did not fire: {timer:?}: {state}"
                ));
            }
        }
    }

    /// Takes a clock as it is found, as a ledger is.
    pub(super) fn accept_clock(&mut self, id: &'static str) {
        for timer in self.clocks.entry(id).or_default() {
            timer.cancelled_ms = None;
            // Another one may get it.
            timer.id = None;
            if timer.fate == Fate::Made {
                timer.fate = Fate::Sent;
            }
        }
    }

    /// Compares who has come and gone with who has come.
    pub(super) fn check_visits(&mut self, state: &Value, is_end: bool) {
        let list = |name: &str| -> Vec<String> {
            serde_json::from_value(state[name].clone()).unwrap_or_default()
        };
        let (came, left) = (list("connects"), list("disconnects"));
        let twice = |list: &[String]| list.iter().collect::<BTreeSet<_>>().len() < list.len();
        let stays = is_end && !self.may_skip_hooks && came.iter().any(|id| !left.contains(id));
        if twice(&came) || twice(&left) || stays || came.len() > self.visitors {
            self.wrong(format!("visits: {state}"));
        }
        if is_end {
            self.counts.disconnects += left.len() as u64;
        }
    }
}

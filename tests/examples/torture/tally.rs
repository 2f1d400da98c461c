//! What clients know, and what there is.
//!
//! Invariant: an entry is noted as sent before it leaves the client, and as acknowledged
//! only once its answer is there.

use std::collections::BTreeSet;
use std::fmt;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use serde_json::Value;
use tidegate_tests::{Host, actor, dialect};

/// What all clients know of all actors.
#[derive(Clone)]
pub(crate) struct Tallies(Arc<Vec<Mutex<Tally>>>);

/// What the clients know of one actor. Its entries are numbered from 0.
#[derive(Default)]
pub(crate) struct Tally {
    /// Whether a client was told that it was made, by entry that was sent.
    acknowledged: Vec<bool>,
    /// The numbers of entries that callers were told.
    totals: BTreeSet<u64>,
    /// The latest that a subscriber was shown, or that was found after a restart.
    shown: Option<Shown>,
    /// The latest that a subscriber holds, who will come back with it.
    watched: Option<Shown>,
    lost: u64,
    duplicated: u64,
    /// Entries that nobody was told of and that are there.
    unheard: u64,
    wrong: Vec<String>,
}

impl Tally {
    /// Takes an entry that is about to be sent.
    pub(crate) fn send(&mut self) -> usize {
        self.acknowledged.push(false);
        self.acknowledged.len() - 1
    }

    /// A client was told that an entry was made, and how many there are.
    pub(crate) fn acknowledge(&mut self, entry: usize, total: u64) {
        self.acknowledged[entry] = true;
        if !self.totals.insert(total) {
            self.wrong.push(format!("two callers were told {total}"));
        }
    }

    /// Something happened that must not.
    pub(crate) fn wrong(&mut self, what: String) {
        self.wrong.push(what);
    }

    /// A subscriber was shown this before the host was killed.
    pub(crate) fn show(&mut self, shown: Shown) {
        let is_later = |before: &Shown| before.version < shown.version;
        if self.shown.as_ref().is_none_or(is_later) {
            self.shown = Some(shown.clone());
        }
        self.watched = Some(shown);
    }

    /// What a subscriber holds who comes back.
    pub(crate) fn watched(&self) -> Option<Shown> {
        self.watched.clone()
    }

    /// Compares with what there is after a restart.
    fn check(&mut self, there: Shown) {
        let mut wrong = Vec::new();
        let sent = self.acknowledged.len();
        let (counts, unsent) = there.counts(sent);
        wrong.extend(unsent.map(|entry| format!("nobody has sent {entry}")));
        let mut lost = 0;
        (self.duplicated, self.unheard) = (0, 0);
        for (count, acknowledged) in counts.iter().zip(&self.acknowledged) {
            lost += u64::from(*acknowledged && *count == 0);
            self.duplicated += count.saturating_sub(1);
            self.unheard += u64::from(!acknowledged && *count > 0);
        }
        self.lost = lost;
        let count: u64 = counts.iter().sum();
        if there.total() != Some(count) || there.version != count {
            let (version, state) = (there.version, &there.state);
            wrong.push(format!("version {version} has {count} entries: {state}"));
        }
        if let Some(total) = self.totals.last()
            && *total > count
        {
            wrong.push(format!("a caller was told {total}, and there are {count}"));
        }
        if let Some(shown) = &self.shown {
            if shown.version > there.version {
                let what = format!(
                    "{} was shown, and {} is there",
                    shown.version, there.version
                );
                wrong.push(what);
            }
            let (seen, _) = shown.counts(sent);
            let gone = seen
                .iter()
                .zip(&counts)
                .filter(|(seen, there)| seen > there);
            match gone.count() {
                0 => {}
                gone => wrong.push(format!("{gone} entries were shown and are not there")),
            }
        }
        self.wrong.append(&mut wrong);
        self.shown = Some(there);
    }
}

impl Tallies {
    pub(crate) fn new(actors: usize) -> Tallies {
        Tallies(Arc::new((0..actors).map(|_| Mutex::default()).collect()))
    }

    pub(crate) fn len(&self) -> usize {
        self.0.len()
    }

    pub(crate) fn of(&self, actor: usize) -> MutexGuard<'_, Tally> {
        self.0[actor].lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn sum(&self, of: impl Fn(&Tally) -> u64) -> u64 {
        (0..self.len()).map(|actor| of(&self.of(actor))).sum()
    }

    /// Whether something is lost, duplicated or otherwise not as it must be.
    pub(crate) fn is_wrong(&self) -> bool {
        let wrong = |tally: &Tally| tally.lost + tally.duplicated + tally.wrong.len() as u64;
        self.sum(wrong) > 0
    }

    /// Whether so little has happened that nothing is proved.
    pub(crate) fn is_idle(&self) -> bool {
        self.sum(|tally| tally.totals.len() as u64) == 0
    }
}

impl fmt::Display for Tallies {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let acknowledged = self.sum(|tally| tally.totals.len() as u64);
        let in_flight = self.sum(|tally| tally.acknowledged.len() as u64) - acknowledged;
        let unheard = self.sum(|tally| tally.unheard);
        writeln!(f, "acknowledged {acknowledged}")?;
        writeln!(
            f,
            "in flight at kills {in_flight}, of which {unheard} are there"
        )?;
        writeln!(f, "lost {}", self.sum(|tally| tally.lost))?;
        write!(f, "duplicated {}", self.sum(|tally| tally.duplicated))?;
        for actor in 0..self.len() {
            for wrong in &self.of(actor).wrong {
                write!(f, "\nledger/{actor}: {wrong}")?;
            }
        }
        Ok(())
    }
}

/// The entries in the state of a `ledger`.
pub(crate) fn entries(state: &Value) -> impl Iterator<Item = u64> {
    let list = |name: &str| state[name].as_array().expect("a list").iter();
    let number = |value: &Value| value.as_u64().expect("a number");
    let ranges = list("ranges").flat_map(move |range| number(&range[0])..=number(&range[1]));
    ranges.chain(list("latest").chain(list("twice")).map(number))
}

/// A state that was shown.
#[derive(Clone)]
pub(crate) struct Shown {
    pub(crate) epoch: String,
    pub(crate) version: u64,
    pub(crate) state: Value,
}

impl Shown {
    /// What a `state:snapshot` shows.
    pub(crate) fn snapshot(frame: &Value) -> Shown {
        Shown {
            epoch: frame["epoch"].as_str().expect("an epoch").to_owned(),
            version: frame["version"].as_u64().expect("a version"),
            state: frame["state"].clone(),
        }
    }

    /// Takes a frame about the state. The first one may go on in another epoch from what is held.
    pub(crate) fn follow(
        held: &mut Option<Shown>,
        frame: &Value,
        is_first: bool,
    ) -> Result<(), String> {
        let fits = match (frame["type"].as_str(), &mut *held) {
            (Some("state:snapshot"), held) if is_first => {
                *held = Some(Shown::snapshot(frame));
                true
            }
            (Some("state:patch"), Some(shown)) => {
                let epoch = frame["epoch"].as_str().unwrap_or_default();
                if frame["from"] != shown.version || (!is_first && epoch != shown.epoch) {
                    let held = (&shown.epoch, shown.version, is_first);
                    return Err(format!("one who holds {held:?} was told {frame}"));
                }
                epoch.clone_into(&mut shown.epoch);
                // Who has missed nothing is told so.
                let is_nothing = frame["patches"].as_array().is_some_and(Vec::is_empty);
                if !(is_first && is_nothing) {
                    dialect::apply(&mut shown.state, &frame["patches"]);
                }
                shown.version = frame["version"].as_u64().unwrap_or_default();
                shown.total() == Some(shown.version)
            }
            _ => false,
        };
        match fits {
            true => Ok(()),
            false => Err(format!("a subscriber was told {frame}")),
        }
    }

    /// Whether the other one comes behind it.
    pub(crate) fn is_before(&self, other: &Shown) -> bool {
        self.epoch != other.epoch || self.version < other.version
    }

    pub(crate) fn total(&self) -> Option<u64> {
        self.state["total"].as_u64()
    }

    /// How often each of the entries that were sent is there, and those that were not sent.
    fn counts(&self, sent: usize) -> (Vec<u64>, impl Iterator<Item = usize>) {
        let mut counts = vec![0; sent];
        let mut unsent = Vec::new();
        for entry in entries(&self.state) {
            let entry = entry as usize;
            match counts.get_mut(entry) {
                Some(count) => *count += 1,
                None => unsent.push(entry),
            }
        }
        (counts, unsent.into_iter())
    }
}

/// What there is of all actors.
pub(crate) struct World(pub(crate) Vec<Shown>);

impl World {
    /// Asks the host.
    pub(crate) async fn of(host: &Host, actors: usize) -> World {
        let mut socket = host.connect().await;
        let mut world = Vec::new();
        for number in 0..actors {
            let ledger = actor("ledger", &number.to_string());
            let snapshot = socket.subscribe_state(&ledger).await;
            socket.unsubscribe_state(&ledger).await;
            world.push(Shown::snapshot(&snapshot));
        }
        World(world)
    }

    /// Compares it with what clients know.
    pub(crate) fn check(self, tallies: &Tallies) {
        for (actor, there) in self.0.into_iter().enumerate() {
            tallies.of(actor).check(there);
        }
    }
}

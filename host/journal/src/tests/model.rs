//! What a journal should hold, beside what one holds.

use std::collections::BTreeMap;
use std::future::Future;
use std::pin::pin;
use std::task::{Context, Poll, Waker};
use std::time::{Duration, Instant};

use bytes::Bytes;
use tidegate_testkit::dice::Rng;
use tidegate_testkit::disk::{Fault, Loss, SimDisk};

use super::super::{
    Appending, Check, Entry, Health, Journal, JournalError, Next, OpenError, Safety, Settings,
    Space, Stepper,
};

/// Tag, base and deltas by space and key.
pub(super) type State = BTreeMap<(u8, String), (u64, Bytes, Vec<Bytes>)>;

/// What these entries make of a state; none if they are refused.
pub(super) fn apply(state: &State, entries: &[Entry]) -> Option<State> {
    let mut state = state.clone();
    for entry in entries {
        match entry.clone() {
            Entry::Put {
                space,
                key,
                tag,
                value,
            } => {
                state.insert((space.0, key.into()), (tag, value, Vec::new()));
            }
            Entry::Delta {
                space,
                key,
                tag,
                value,
            } => {
                let (last, _, deltas) = state.get_mut(&(space.0, key.into()))?;
                *last = tag;
                deltas.push(value);
            }
            Entry::Delete { space, key } => {
                state.remove(&(space.0, key.into()));
            }
        }
    }
    Some(state)
}

/// What a journal holds.
pub(super) fn state_of(journal: &Journal) -> Result<State, JournalError> {
    let mut state = State::new();
    for number in 0..4 {
        let space = Space(number);
        let tags: BTreeMap<_, _> = journal.tagged(space).into_iter().collect();
        for key in journal.keys(space, "", None, usize::MAX) {
            let value = journal.read(space, &key)?.expect("a listed key is there");
            let tag = tags.get(&key).copied().unwrap_or(0);
            state.insert((number, key.into()), (tag, value.base, value.deltas));
        }
    }
    Ok(state)
}

/// Finds that exactly what can be read is counted as alive.
fn check_live(journal: &Journal, state: &State) {
    let lengths = state.iter().flat_map(|((_, key), (_, base, deltas))| {
        let values = std::iter::once(base).chain(deltas);
        values.map(|value| (20 + key.len() + value.len()) as u64)
    });
    let stats = journal.stats();
    assert_eq!(stats.live_bytes, lengths.sum::<u64>());
    assert_eq!(stats.keys, state.len());
}

/// Small enough that everything happens often.
pub(super) fn tight(rng: &mut Rng) -> Settings {
    Settings {
        segment_bytes: 600 + rng.below(3000) as u32,
        max_append_bytes: 1 << 20,
        queue_bytes: 1 << 20,
        group_bytes: 1 + rng.below(2000),
        sync_interval: Duration::from_millis(100),
        dead_percent: [20, 50, 80][rng.below(3)],
        compaction_bytes: 1 + rng.below(600),
        open_segments: 1 + rng.below(4),
        check: [Check::Index, Check::Everything][rng.below(2)],
        accept_loss: false,
    }
}

/// A few entries whose values no other append has.
pub(super) fn entries(rng: &mut Rng, number: usize) -> Vec<Entry> {
    (0..1 + rng.below(4))
        .map(|_| {
            let space = Space(rng.below(2) as u8);
            let key = format!("key-{}", rng.below(6)).into_boxed_str();
            let tag = [0, number as u64][rng.below(2)];
            let length = [3, 40, 700][rng.below(3)];
            let filler = vec![rng.next_u64() as u8; rng.below(length)];
            let value = [number.to_string().as_bytes(), &filler].concat().into();
            match rng.below(10) {
                0..4 => Entry::Put {
                    space,
                    key,
                    tag,
                    value,
                },
                4..8 => Entry::Delta {
                    space,
                    key,
                    tag,
                    value,
                },
                _ => Entry::Delete { space, key },
            }
        })
        .collect()
}

pub(super) fn poll(appending: &mut Appending) -> Option<Result<(), JournalError>> {
    match pin!(appending).poll(&mut Context::from_waker(Waker::noop())) {
        Poll::Ready(result) => Some(result),
        Poll::Pending => None,
    }
}

struct Waiting {
    /// The state that it makes; none if it is to be refused.
    makes: Option<usize>,
    safety: Safety,
    appending: Appending,
}

/// A journal through many lives, and its history.
pub(super) struct World {
    pub(super) disk: SimDisk,
    pub(super) rng: Rng,
    settings: Settings,
    now: Instant,
    /// The states that the appends so far have made.
    pub(super) history: Vec<State>,
    /// Up to where each kind of append was told to be safe.
    synced: usize,
    written: usize,
    /// What the last opening found.
    opened: usize,
    /// With the time of each.
    told_written: Vec<(usize, Instant)>,
    number: usize,
    pub(super) compactions: u64,
    pub(super) cuts: usize,
    pub(super) stops: usize,
    /// Cuts of what was safe that were refused.
    pub(super) refusals: usize,
}

impl World {
    pub(super) fn new(seed: u64) -> World {
        let mut rng = Rng::new(seed);
        World {
            disk: SimDisk::new(rng.next_u64()),
            settings: tight(&mut rng),
            rng,
            now: Instant::now(),
            history: vec![State::new()],
            synced: 0,
            written: 0,
            opened: 0,
            told_written: Vec::new(),
            number: 0,
            compactions: 0,
            cuts: 0,
            stops: 0,
            refusals: 0,
        }
    }

    /// Opens the journal, after failures again, and finds a part of the history that holds
    /// what it must.
    pub(super) fn open(&mut self, mut loss: Loss) -> (Journal, Stepper) {
        self.settings.check = [Check::Index, Check::Everything][self.rng.below(2)];
        loop {
            let opened = Journal::open_stepped(self.disk.clone(), self.settings.clone());
            let (journal, stepper) = match opened {
                Ok(opened) => opened,
                Err(OpenError::Io { .. } | OpenError::Full { .. }) if self.disk.has_failed() => {
                    if self.rng.percent(50) {
                        loss = Loss::Power;
                    }
                    self.disk.restart(loss);
                    continue;
                }
                Err(error) => panic!("{error}"),
            };
            let found = match state_of(&journal) {
                Ok(found) => found,
                Err(_) if self.disk.has_failed() => {
                    drop((journal, stepper));
                    self.disk.restart(loss);
                    continue;
                }
                Err(error) => panic!("{error}"),
            };
            check_live(&journal, &found);
            let least = match loss {
                Loss::Process => self.written.max(self.synced),
                Loss::Power => self.synced,
            };
            let matching = (least..self.history.len()).find(|made| self.history[*made] == found);
            let Some(matching) = matching else {
                let any = self.history.iter().position(|state| *state == found);
                panic!(
                    "after a loss of {loss:?} the state is that of {any:?}, \
                     not one of {least}..{}\n{found:?}",
                    self.history.len()
                );
            };
            self.cuts += usize::from(journal.stats().recovery.cut_bytes > 0);
            self.history.truncate(matching + 1);
            // What is there after an opening is safe.
            self.synced = matching;
            self.written = matching;
            self.opened = matching;
            self.told_written.clear();
            return (journal, stepper);
        }
    }

    /// One life: appends and steps until the disk fails, or for so many turns.
    pub(super) fn live(&mut self, journal: &Journal, stepper: &mut Stepper, turns: usize) {
        let mut waiting: Vec<Waiting> = Vec::new();
        for _ in 0..turns {
            for _ in 0..self.rng.below(4) {
                let entries = entries(&mut self.rng, self.number);
                self.number += 1;
                let safety = [Safety::Synced, Safety::Written][self.rng.below(2)];
                let last = self.history.last().expect("there is a first");
                let makes = apply(last, &entries).map(|state| {
                    self.history.push(state);
                    self.history.len() - 1
                });
                waiting.push(Waiting {
                    makes,
                    safety,
                    appending: journal.append(entries, safety),
                });
            }
            if self.rng.percent(70) {
                self.now += Duration::from_millis(self.rng.below(80) as u64);
                let next = stepper.step(self.now);
                self.hear(&mut waiting);
                if next == Next::Ended {
                    self.stops += 1;
                    self.check_stopped(journal);
                    return;
                }
                let interval = self.settings.sync_interval;
                for (made, told) in &self.told_written {
                    if *told + interval <= self.now {
                        self.synced = self.synced.max(*made);
                    }
                }
            }
            if self.rng.percent(10) && waiting.is_empty() {
                match state_of(journal) {
                    Ok(found) => {
                        assert_eq!(Some(&found), self.history.last());
                        check_live(journal, &found);
                    }
                    Err(_) => assert!(self.disk.has_failed()),
                }
            }
        }
        self.compactions += journal.stats().compactions;
    }

    /// Hears what became of the appends.
    fn hear(&mut self, waiting: &mut Vec<Waiting>) {
        let mut stopped = false;
        waiting.retain_mut(|one| {
            let Some(result) = poll(&mut one.appending) else {
                return true;
            };
            match (result, one.makes) {
                (Ok(()), Some(makes)) => match one.safety {
                    Safety::Synced => {
                        assert!(!stopped, "none is synced after one that is not");
                        self.synced = self.synced.max(makes);
                    }
                    Safety::Written => {
                        self.written = self.written.max(makes);
                        self.told_written.push((makes, self.now));
                    }
                },
                (Err(JournalError::NoBase { .. }), None) => {}
                (Err(JournalError::Stopped { .. }), _) => {
                    assert!(self.disk.has_failed(), "nothing else stops a journal");
                    stopped = true;
                }
                (result, makes) => panic!("{result:?}, which makes {makes:?}"),
            }
            false
        });
    }

    fn check_stopped(&mut self, journal: &Journal) {
        let entries = entries(&mut self.rng, self.number);
        let refused = poll(&mut journal.append(entries, Safety::Written));
        assert!(
            matches!(refused, Some(Err(JournalError::Stopped { .. }))),
            "{refused:?}"
        );
        let read = journal.read(Space(0), "key-0");
        assert!(matches!(read, Err(JournalError::Stopped { .. })));
    }

    /// Cuts the newest segment of a copy, and finds that it is not opened without what is known
    /// to have been synced, unless that is asked for.
    fn check_cut(&mut self, loss: Loss) {
        let cut = self.disk.copy();
        let names = cut.contents().into_keys();
        let Some(name) = names.filter(|name| name.ends_with(".log")).max() else {
            return;
        };
        let whole = cut.content(&name).expect("it is listed");
        cut.set_content(&name, &whole[..self.rng.below(whole.len() + 1)]);
        let least = match loss {
            Loss::Process => self.synced,
            // The last notes may be gone with the power, those of the opening are not.
            Loss::Power => self.opened,
        };
        let open = |disk: &SimDisk, accept_loss| {
            let settings = Settings {
                accept_loss,
                ..self.settings.clone()
            };
            Journal::open_stepped(disk.clone(), settings)
        };
        let position = |journal: &Journal, least: usize| {
            let found = state_of(journal).expect("nothing is damaged");
            self.history[least..].contains(&found)
        };
        match open(&cut.copy(), false) {
            Ok((journal, _stepper)) => assert!(position(&journal, least), "a loss was not seen"),
            Err(OpenError::Lost { .. } | OpenError::LostCopies { .. }) => self.refusals += 1,
            // What a cut record has dropped is gone, and nothing was noted since.
            Err(OpenError::Missing { .. }) if loss == Loss::Power => {}
            Err(error) => assert!(
                matches!(error, OpenError::Damaged { offset: 0, .. }),
                "{error}"
            ),
        }
        match open(&cut, true) {
            Ok((journal, _stepper)) => assert!(position(&journal, 0), "no state of the history"),
            // The word that a segment is not needed was cut off, and the segment is gone.
            Err(OpenError::LostCopies { .. }) => {}
            Err(OpenError::Missing { .. }) if loss == Loss::Power => {}
            Err(error) => assert!(
                matches!(error, OpenError::Damaged { offset: 0, .. }),
                "{error}"
            ),
        }
    }

    /// Lives and dies some times.
    pub(super) fn run(&mut self, lives: usize) {
        let mut loss = Loss::Process;
        for _ in 0..lives {
            if self.rng.percent(20) {
                let after = self.rng.below(8) as u64;
                self.disk.plan(Fault::Crash, after);
            }
            let (journal, mut stepper) = self.open(loss);
            let fault = Fault::ALL[self.rng.below(Fault::ALL.len())];
            let after = self.rng.below(60) as u64;
            self.disk.plan(fault, after);
            let turns = 5 + self.rng.below(40);
            self.live(&journal, &mut stepper, turns);
            if self.rng.percent(20) {
                // With no thread to wait for, this only tells the writer.
                journal.close().ok();
                while stepper.step(self.now) != Next::Ended {}
                if journal.health() == Health::Closed {
                    self.synced = self.history.len() - 1;
                }
            }
            drop((journal, stepper));
            loss = [Loss::Process, Loss::Power][self.rng.below(2)];
            self.disk.restart(loss);
            self.check_cut(loss);
        }
        self.open(loss);
    }
}

//! Watchers that come back: they hold states of all ledgers across kills, resume where they were,
//! and must be told what they missed, without a gap and without a repetition.
//!
//! What they hold is compared with a fresh read each time that they have come back, and so is
//! what they would hold if the folder were put back to an earlier moment, from where another
//! future began than the one that they have seen.

use std::fmt;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use serde_json::{Value, json};
use tidegate_tests::{Host, Socket, actor, dialect};

use crate::tally::{Shown, World};

/// What all watchers hold, and what was wrong about it.
#[derive(Clone)]
pub(crate) struct Watchers(Arc<Mutex<State>>);

#[derive(Default)]
struct State {
    held: Vec<Option<Shown>>,
    findings: Findings,
}

/// What was counted.
#[derive(Default)]
struct Findings {
    resumed: u64,
    /// Of those the ones that were shown a whole state.
    snapshots: u64,
    patches: u64,
    gaps: u64,
    doubled: u64,
    different: u64,
    wrong: Vec<String>,
}

impl Findings {
    fn wrong(&mut self, what: String) {
        // The first ones say enough.
        if self.wrong.len() < 20 {
            self.wrong.push(what);
        }
    }

    /// Takes a frame of the ledger that the watcher holds.
    fn take(&mut self, ledger: usize, held: &mut Option<Shown>, frame: &Value) {
        match (frame["type"].as_str(), held) {
            (Some("state:snapshot"), held) => {
                self.snapshots += 1;
                *held = Some(Shown::snapshot(frame));
            }
            (Some("state:patch"), Some(held)) => {
                self.patches += 1;
                let number = |name: &str| frame[name].as_u64().unwrap_or_default();
                let (from, version) = (number("from"), number("version"));
                let says_nothing = frame["patches"].as_array().is_some_and(Vec::is_empty);
                let at = held.version;
                if from > at || version <= at && !says_nothing {
                    let (count, what) = match from > at {
                        true => (&mut self.gaps, "a gap"),
                        false => (&mut self.doubled, "a repetition"),
                    };
                    *count += 1;
                    return self.wrong(format!(
                        "ledger/{ledger}: {what}: at {at} came {from} to {version}"
                    ));
                }
                if !says_nothing {
                    dialect::apply(&mut held.state, &frame["patches"]);
                }
                held.version = version;
                held.epoch = frame["epoch"].as_str().unwrap_or_default().to_owned();
            }
            _ => self.wrong(format!("ledger/{ledger}: a watcher was told {frame}")),
        }
    }
}

impl Watchers {
    pub(crate) fn new(ledgers: usize) -> Watchers {
        Watchers(Arc::new(Mutex::new(State {
            held: (0..ledgers).map(|_| None).collect(),
            ..State::default()
        })))
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Comes back to a host on which nothing happens, and compares what the watchers hold then
    /// with what there is. They go on with it.
    pub(crate) async fn resume(&self, host: &Host, world: &World) -> Socket {
        let mut held = std::mem::take(&mut self.state().held);
        let (socket, findings) = resume(host, &mut held, world).await;
        let mut state = self.state();
        state.held = held;
        state.findings.add(findings);
        socket
    }

    /// Comes back to a host on another future than the one that the watchers have seen, which
    /// leaves them as they were.
    pub(crate) async fn visit(&self, host: &Host, world: &World) {
        let mut held = self.state().held.clone();
        let (_, findings) = resume(host, &mut held, world).await;
        self.state().findings.add(findings);
    }

    /// The versions that the watchers hold.
    pub(crate) fn versions(&self) -> Vec<u64> {
        let state = self.state();
        let version = |held: &Option<Shown>| held.as_ref().map_or(0, |held| held.version);
        state.held.iter().map(version).collect()
    }

    /// Follows until the connection breaks.
    pub(crate) async fn follow(self, mut socket: Socket) {
        while let Ok(frame) = socket.try_next().await {
            let id = frame["actorId"].as_str().unwrap_or_default();
            let ledger: usize = id.parse().unwrap_or_default();
            let mut state = self.state();
            let State { held, findings } = &mut *state;
            findings.take(ledger, &mut held[ledger], &frame);
        }
    }

    /// Whether somebody was told something that is not so.
    pub(crate) fn is_wrong(&self) -> bool {
        !self.state().findings.wrong.is_empty()
    }
}

impl Findings {
    fn add(&mut self, other: Findings) {
        self.resumed += other.resumed;
        self.snapshots += other.snapshots;
        self.patches += other.patches;
        self.gaps += other.gaps;
        self.doubled += other.doubled;
        self.different += other.different;
        self.wrong.extend(other.wrong);
    }
}

/// Resumes each subscription, until the watcher has all that there is.
async fn resume(host: &Host, held: &mut [Option<Shown>], world: &World) -> (Socket, Findings) {
    let mut socket = host.connect().await;
    let mut findings = Findings::default();
    for (ledger, (held, there)) in held.iter_mut().zip(world.all()).enumerate() {
        let to = actor("ledger", &ledger.to_string());
        let mut subscription = json!({"type": "state:sub", "actor": to.kind, "actorId": to.id});
        if let Some(held) = held {
            findings.resumed += 1;
            subscription["since"] = json!({"epoch": held.epoch, "version": held.version});
        }
        socket.send(subscription).await;
        loop {
            let frame = socket.next().await;
            let is_it = frame["actor"] == *to.kind && frame["actorId"] == *to.id;
            if !is_it {
                findings.wrong(format!("{to}: a watcher was told {frame}"));
                break;
            }
            findings.take(ledger, held, &frame);
            if held
                .as_ref()
                .is_none_or(|held| held.version >= there.version)
            {
                break;
            }
        }
        let is_same = |held: &Shown| held.version == there.version && held.state == there.state;
        if !held.as_ref().is_some_and(is_same) {
            findings.different += 1;
            let version = held.as_ref().map(|held| held.version);
            let there = there.version;
            findings.wrong(format!(
                "{to}: what a watcher holds as {version:?} is not what is there as {there}"
            ));
        }
    }
    (socket, findings)
}

impl fmt::Display for Watchers {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let state = self.state();
        let Findings {
            resumed,
            snapshots,
            patches,
            gaps,
            doubled,
            different,
            wrong,
        } = &state.findings;
        write!(
            f,
            "watchers resumed {resumed}, snapshots {snapshots}, patches {patches}, gaps {gaps}, \
             doubled {doubled}, different {different}"
        )?;
        for wrong in wrong {
            write!(f, "\n{wrong}")?;
        }
        Ok(())
    }
}

//! A copy of the data folder that is put back: it goes on from where it was made, while those who
//! watch hold what has come of the original since.

use serde_json::{Value, json};
use tidegate_tests::{Folder, Socket, actor};

use crate::tally::{Shown, Tallies, World};

/// What is called of each actor while others come back to it.
const CALLS: u64 = 4;

/// A copy, and what those who watched the original then held of it last.
pub(crate) struct Fork(Folder);

/// What came of them.
#[derive(Default)]
pub(crate) struct Forks {
    forks: u64,
    resumed: u64,
    anew: u64,
}

impl std::fmt::Display for Forks {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let Forks {
            forks,
            resumed,
            anew,
        } = self;
        write!(
            f,
            "folders put back {forks}: {resumed} watchers went on, {anew} were shown all anew"
        )
    }
}

impl Fork {
    /// Copies a folder that no host has open.
    pub(crate) fn of(folder: &Folder) -> Fork {
        Fork(folder.copy())
    }

    /// Serves the copy to those who hold more than it has, and to callers, and compares what the
    /// ones hold in the end with what there is.
    pub(crate) async fn check(self, level: &str, tallies: &Tallies, forks: &mut Forks) {
        let host = crate::host(&self.0, level).start().await;
        let (mut watcher, mut caller) = (host.connect().await, host.connect().await);
        let mut held: Vec<Option<Shown>> = Vec::new();
        for number in 0..tallies.len() {
            let ledger = actor("ledger", &number.to_string());
            let shown = tallies.of(number).watched();
            watcher.send(subscription(number, shown.as_ref())).await;
            held.push(shown);
            // Numbers that the original will never see.
            for call in 0..CALLS {
                let input = json!({"entry": 1_000_000 + call});
                caller.begin_call(&ledger, "add", input).await;
            }
        }
        for number in 0..tallies.len() {
            let ledger = actor("ledger", &number.to_string());
            // Behind those that were begun.
            let input = json!({"entry": 2_000_000});
            caller.call(&ledger, "add", input).await.result();
        }
        let World(there) = World::of(&host, tallies.len()).await;
        forks.forks += 1;
        let mut begun = vec![false; held.len()];
        let is_behind = |held: &[Option<Shown>]| {
            let mut pairs = held.iter().zip(&there);
            pairs.any(|(held, there)| held.as_ref().is_none_or(|held| held.is_before(there)))
        };
        while !begun.iter().all(|begun| *begun) || is_behind(&held) {
            let frame = watcher.next().await;
            let id = frame["actorId"].as_str().unwrap_or_default();
            let number: usize = id.parse().unwrap_or_default();
            let is_first = !std::mem::replace(&mut begun[number], true);
            if is_first {
                match frame["type"] == "state:patch" {
                    true => forks.resumed += 1,
                    false => forks.anew += 1,
                }
            }
            if let Err(wrong) = Shown::follow(&mut held[number], &frame, is_first) {
                return tallies.of(number).wrong(format!("of a copy: {wrong}"));
            }
        }
        for (number, (held, there)) in held.into_iter().zip(there).enumerate() {
            let held = held.map(|held| (held.version, held.state));
            if held != Some((there.version, there.state.clone())) {
                let what = format!("of a copy {held:?} is held, and {} is there", there.state);
                tallies.of(number).wrong(what);
            }
        }
        host.kill().await;
    }
}

/// A frame that subscribes to a ledger, with what is held of it.
pub(crate) fn subscription(number: usize, held: Option<&Shown>) -> Value {
    let mut frame = json!({"type": "state:sub", "actor": "ledger", "actorId": number.to_string()});
    if let Some(held) = held {
        frame["since"] = json!({"epoch": held.epoch, "version": held.version});
    }
    frame
}

/// Subscribes to all ledgers with what was held of them before; false when the host has gone.
pub(crate) async fn come_back(socket: &mut Socket, held: &[Option<Shown>]) -> bool {
    for (number, held) in held.iter().enumerate() {
        if !socket.try_send(subscription(number, held.as_ref())).await {
            return false;
        }
    }
    true
}

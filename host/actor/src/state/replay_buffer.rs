//! The last patches of a history, for subscribers who come back.
//!
//! An actor in memory keeps those that it has made since somebody first subscribed to it; earlier
//! ones, and those from before a restart, are made again from what the store has.
//!
//! Invariant: the patches join on to each other, and the last one leads to what was shown last.

use std::collections::VecDeque;
use std::sync::Arc;

use tidegate_core::meter::{Exhausted, Meter, STEP_BYTES};
use tidegate_core::turn::{Change, Stored};
use tidegate_core::{ActorKey, Json, PatchOp, patch};

use crate::live::{ActorFrame, Body, frame};

/// The last patches that subscribers were shown.
#[derive(Debug, Default)]
pub(crate) struct ReplayBuffer {
    patches: VecDeque<Shown>,
    bytes: usize,
    /// What the store has of earlier ones was looked at.
    is_complete: bool,
}

#[derive(Debug)]
struct Shown {
    from: u64,
    version: u64,
    message: Arc<ActorFrame>,
}

impl ReplayBuffer {
    const PATCHES: usize = 256;
    const BYTES: usize = 128 << 10;

    pub(crate) fn add(&mut self, from: u64, version: u64, message: &ActorFrame) {
        let message = Arc::new(message.bare());
        self.bytes += message.content().weight();
        self.patches.push_back(Shown {
            from,
            version,
            message,
        });
        self.trim();
    }

    /// What they weigh in bytes.
    pub(crate) fn bytes(&self) -> usize {
        self.bytes
    }

    fn trim(&mut self) {
        while self.patches.len() > ReplayBuffer::PATCHES || self.bytes > ReplayBuffer::BYTES {
            let Some(oldest) = self.patches.pop_front() else {
                return;
            };
            self.bytes -= oldest.message.content().weight();
            // LookedUp ones were longer ago still.
            self.is_complete = true;
        }
    }

    /// Those that lead from a version to the one that was shown last, if none is missing.
    pub(crate) fn since(&self, version: u64, shown_version: u64) -> Option<Vec<Arc<ActorFrame>>> {
        let last = self.patches.back()?;
        if last.version != shown_version {
            return None;
        }
        let behind = self
            .patches
            .iter()
            .position(|shown| shown.version > version)?;
        let patches = self.patches.range(behind..);
        (self.patches[behind].from <= version).then(|| {
            patches
                .map(|shown| Arc::new(shown.message.bare()))
                .collect()
        })
    }

    /// Whether the store may have patches that lead from this version to the first of these.
    pub(crate) fn wants(&self, version: u64, shown_version: u64) -> bool {
        !self.is_complete && version < self.begin(shown_version)
    }

    /// The store has nothing.
    pub(crate) fn is_all(&mut self) {
        self.is_complete = true;
    }

    /// Where these begin.
    pub(crate) fn begin(&self, shown_version: u64) -> u64 {
        let first = self.patches.front();
        first.map_or(shown_version, |first| first.from)
    }

    /// Takes in what was made of what the store has, if it leads to where these begin.
    pub(crate) fn complete(&mut self, earlier: LookedUp, shown_version: u64) {
        self.is_complete = true;
        if earlier.end != self.begin(shown_version) {
            return;
        }
        let mut patches = earlier.patches;
        self.bytes += patches.iter().map(Shown::weight).sum::<usize>();
        patches.append(&mut self.patches);
        self.patches = patches;
        self.trim();
    }
}

impl Shown {
    fn weight(&self) -> usize {
        self.message.content().weight()
    }
}

/// Patches of a history that was looked up, up to a version.
pub(crate) struct LookedUp {
    patches: VecDeque<Shown>,
    end: u64,
}

impl LookedUp {
    /// Those that lead to this version, from an actor as it once was and what has changed since;
    /// none with a gap.
    pub(crate) fn of(
        key: &ActorKey,
        epoch: &Arc<str>,
        hidden: &[String],
        end: u64,
        (base, changes): &(Stored, Vec<Change>),
        meter: &mut dyn Meter,
    ) -> Result<LookedUp, Exhausted> {
        let mut state = base.state.clone();
        let (mut from, mut reached) = (base.version, base.version);
        let (mut earlier, mut bytes) = (VecDeque::<Shown>::new(), 0);
        let nothing = LookedUp {
            patches: VecDeque::new(),
            end,
        };
        for change in changes {
            if change.patches.is_empty() || change.version > end {
                continue;
            }
            meter.charge(1 + change.patches.len() as u64)?;
            if patch::apply(&mut state, &change.patches).is_err() {
                return Ok(nothing);
            }
            reached = change.version;
            let shown = patch::without_hidden(change.patches.clone(), hidden);
            // The last one leads to where the others begin, even if it shows nothing new.
            if shown.is_empty() && reached != end {
                continue;
            }
            let body = body(&shown, &state, epoch.clone(), from, reached);
            let shown = Shown {
                from,
                version: reached,
                message: Arc::new(frame(key, body)),
            };
            from = reached;
            meter.charge((shown.weight() / STEP_BYTES) as u64)?;
            bytes += shown.weight();
            earlier.push_back(shown);
            while bytes > ReplayBuffer::BYTES
                && let Some(oldest) = earlier.pop_front()
            {
                bytes -= oldest.weight();
            }
        }
        // With a gap they are of no use.
        Ok(match reached == end {
            true => LookedUp {
                patches: earlier,
                end,
            },
            false => nothing,
        })
    }
}

/// What subscribers are shown of a change of the state that has led to `state`.
pub(crate) fn body(
    shown: &[PatchOp],
    state: &Json,
    epoch: Arc<str>,
    from: u64,
    version: u64,
) -> Body {
    Body::Patch {
        patches: patch::encode_plain(shown, state),
        extended: patch::has_str_ins(shown).then(|| patch::encode(shown)),
        epoch,
        from,
        version,
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;
    use tidegate_core::meter::Unmetered;
    use tidegate_core::{ActorId, Name};

    use super::*;

    fn key() -> ActorKey {
        ActorKey::new(
            Name::parse("counter").unwrap(),
            ActorId::parse("a").unwrap(),
        )
    }

    fn base(version: u64) -> Stored {
        let stored =
            json!({"epoch": "e", "version": version, "state": {"n": version, "secret": 0}});
        Stored::parse(&stored.to_string()).unwrap()
    }

    fn change(version: u64, path: &str) -> Change {
        let patch = PatchOp::Replace {
            path: path.to_owned(),
            value: version.into(),
        };
        Change {
            version,
            patches: vec![patch],
            ..Change::default()
        }
    }

    fn shown(version: u64) -> Arc<ActorFrame> {
        let ops = change(version, "/n").patches;
        let body = body(
            &ops,
            &json!({"n": version}).into(),
            "e".into(),
            version - 1,
            version,
        );
        Arc::new(frame(&key(), body))
    }

    fn steps(patches: &[Arc<ActorFrame>]) -> Vec<(u64, u64)> {
        let step = |message: &Arc<ActorFrame>| match &message.content().body {
            Body::Patch { from, version, .. } => (*from, *version),
            _ => panic!("no patch"),
        };
        patches.iter().map(step).collect()
    }

    fn complete(recent: &mut ReplayBuffer, shown_version: u64, history: (Stored, Vec<Change>)) {
        let hidden = ["secret".to_owned()];
        let (epoch, end) = ("e".into(), recent.begin(shown_version));
        let earlier = LookedUp::of(&key(), &epoch, &hidden, end, &history, &mut Unmetered);
        recent.complete(earlier.unwrap(), shown_version);
    }

    #[test]
    fn what_the_store_has_comes_before_what_was_shown() {
        let mut recent = ReplayBuffer::default();
        recent.add(5, 6, &shown(6));
        assert_eq!(recent.since(3, 6).map(|_| ()), None);
        assert!(recent.wants(3, 6) && !recent.wants(5, 6));
        let changes = vec![
            change(3, "/n"),
            change(4, "/secret"),
            Change {
                version: 4,
                ..Change::default()
            },
            change(5, "/n"),
            change(6, "/n"),
        ];
        complete(&mut recent, 6, (base(2), changes));
        let all = [(2, 3), (3, 5), (5, 6)];
        assert_eq!(steps(&recent.since(2, 6).unwrap()), all);
        assert_eq!(steps(&recent.since(4, 6).unwrap()), all[1..]);
        assert!(recent.since(1, 6).is_none() && !recent.wants(1, 6));
    }

    #[test]
    fn a_gap_is_not_bridged() {
        let mut recent = ReplayBuffer::default();
        recent.add(5, 6, &shown(6));
        complete(&mut recent, 6, (base(2), vec![change(3, "/n")]));
        assert!(recent.since(2, 6).is_none());
        assert_eq!(steps(&recent.since(5, 6).unwrap()), [(5, 6)]);
    }

    #[test]
    fn what_ends_with_something_hidden_joins_on_as_well() {
        let mut recent = ReplayBuffer::default();
        let changes = vec![change(3, "/n"), change(4, "/secret")];
        complete(&mut recent, 4, (base(2), changes));
        assert_eq!(steps(&recent.since(2, 4).unwrap()), [(2, 3), (3, 4)]);
        recent.add(4, 5, &shown(5));
        assert_eq!(steps(&recent.since(3, 5).unwrap()), [(3, 4), (4, 5)]);
    }

    #[test]
    fn what_does_not_lead_to_what_was_shown_last_is_of_no_use() {
        let mut recent = ReplayBuffer::default();
        recent.add(5, 6, &shown(6));
        assert!(recent.since(5, 7).is_none());
    }

    #[test]
    fn the_oldest_are_forgotten() {
        let mut recent = ReplayBuffer::default();
        for version in 1..=300 {
            recent.add(version - 1, version, &shown(version));
        }
        assert!(recent.since(43, 300).is_none());
        assert_eq!(recent.since(44, 300).unwrap().len(), ReplayBuffer::PATCHES);
        assert!(!recent.wants(3, 300), "the store has no more");
    }
}

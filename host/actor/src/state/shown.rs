//! What of an actor's committed state others are shown: subscribers by snapshots and patches,
//! guards by a copy that stays as it is.
//!
//! Invariant: what is kept here is of the last committed version of the present epoch.

use std::sync::Arc;

use tidegate_core::{ActorKey, Json, PatchOp, patch};

use super::replay_buffer::{self, ReplayBuffer};
use crate::live::{ActorFrame, frame};

/// What is shown, and what was.
pub(crate) struct Shown {
    /// Names the epoch to subscribers, together with what they are not shown of it.
    pub(crate) epoch: Arc<str>,
    /// The version of the last patch that subscribers could see.
    pub(crate) version: u64,
    /// Top-level members of the state that nobody is shown.
    pub(crate) hidden: Arc<[String]>,
    /// The state as subscribers see it, once somebody has asked for it: one frame for all.
    pub(crate) encoded: Option<Arc<ActorFrame>>,
    /// The state as guards read it, once one has asked for it.
    pub(crate) pinned: Option<Arc<Pinned>>,
    /// The last patches that subscribers were shown.
    pub(crate) replay: ReplayBuffer,
    /// Somebody has subscribed to the state since the actor is in memory: patches have readers.
    pub(crate) is_watched: bool,
}

impl Shown {
    /// Nothing yet, of a history that goes by this name and is at this version.
    pub(crate) fn of(epoch: Arc<str>, version: u64) -> Shown {
        Shown {
            epoch,
            version,
            hidden: Arc::default(),
            encoded: None,
            pinned: None,
            replay: ReplayBuffer::default(),
            is_watched: false,
        }
    }

    /// Nothing of what was shown holds: what comes is of this epoch, from this version on.
    pub(crate) fn begin(&mut self, epoch: &Arc<str>, version: u64) {
        self.epoch = self.name_of(epoch);
        self.version = version;
        self.encoded = None;
        self.pinned = None;
        self.replay = ReplayBuffer::default();
    }

    /// Goes on to a version of the state that these patches have led to. Returns what subscribers are
    /// shown of them, if there are any and something of it is not hidden.
    pub(crate) fn advance(
        &mut self,
        key: &ActorKey,
        patches: Vec<PatchOp>,
        state: &Json,
        version: u64,
    ) -> Option<Arc<ActorFrame>> {
        self.pinned = None;
        self.encoded = None;
        let shown = patch::without_hidden(patches, &self.hidden);
        if shown.is_empty() {
            return None;
        }
        let from = std::mem::replace(&mut self.version, version);
        if !self.is_watched {
            // Who comes back to it from another time finds the change in the store.
            return None;
        }
        let body = replay_buffer::body(&shown, state, self.epoch.clone(), from, version);
        let message = Arc::new(frame(key, body));
        self.replay.add(from, version, &message);
        Some(message)
    }

    /// What subscribers are told an epoch is called. What is hidden is part of the name: who has
    /// seen more or less of a version has not seen the same.
    pub(crate) fn name_of(&self, epoch: &Arc<str>) -> Arc<str> {
        match self.hidden.is_empty() {
            true => epoch.clone(),
            false => {
                let hidden = serde_json::to_string(&*self.hidden).unwrap_or_default();
                format!("{epoch}-{:08x}", crc32fast::hash(hidden.as_bytes())).into()
            }
        }
    }
}

/// A committed state, to be read beside the turns that come after it.
#[derive(Debug)]
pub struct Pinned {
    pub(crate) value: Json,
    pub(crate) token: u64,
    pub(crate) epoch: Arc<str>,
    pub(crate) version: u64,
    /// Its length as text, in bytes.
    pub(crate) length: usize,
}

impl Pinned {
    /// As JSON text, without what is hidden.
    pub(crate) fn text(&self, hidden: &[String]) -> Arc<str> {
        patch::strip_hidden(&self.value, hidden).to_text().into()
    }

    /// How long it is as text, in bytes.
    pub(crate) fn size(&self) -> usize {
        self.length
    }
}

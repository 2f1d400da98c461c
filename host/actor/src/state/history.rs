//! The state document and its place in history.
//!
//! Invariants: a token names one content of the document and is never used twice; the epoch and
//! the version name the committed content.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use tidegate_core::turn::Stored;
use tidegate_core::{Document, Json};
use tokio_util::sync::CancellationToken;

use super::lineage::Lineage;
use crate::turn::migrate::Fit;

/// Tokens name contents of state documents; none is ever used twice by a host.
static NEXT_TOKEN: AtomicU64 = AtomicU64::new(1);

pub(crate) fn next_token() -> u64 {
    NEXT_TOKEN.fetch_add(1, Ordering::Relaxed)
}

/// The document, and which content it is.
pub(crate) struct History {
    /// Nothing while it is lent.
    pub(crate) document: Document,
    /// Set while long work is done on the document elsewhere; cancelled when it is back.
    pub(crate) lent: Option<CancellationToken>,
    /// Names what the turn sees now.
    pub(crate) token: u64,
    /// Names what was committed last.
    pub(crate) committed_token: u64,
    pub(crate) epoch: Arc<str>,
    /// What the epoch goes on from.
    pub(crate) lineage: Option<Box<Lineage>>,
    pub(crate) version: u64,
    /// Which version of the state the document is, as the manifest counts them.
    pub(crate) state_version: u32,
    /// Whether the committed state fits the component that was asked about last.
    pub(crate) fit: Fit,
}

impl History {
    /// That of an actor as it was stored.
    pub(crate) fn restored(stored: &mut Stored) -> History {
        let token = next_token();
        History {
            document: Document::new(std::mem::replace(&mut stored.state, Json::Null)),
            lent: None,
            token,
            committed_token: token,
            epoch: stored.epoch.clone(),
            lineage: Lineage::of(stored),
            version: stored.version,
            state_version: stored.state_version,
            fit: Fit::default(),
        }
    }

    /// Begins anew with another document.
    pub(crate) fn begin(&mut self, state: Json, state_version: u32, epoch: Arc<str>, version: u64) {
        let token = next_token();
        *self = History {
            document: Document::new(state),
            lent: self.lent.take(),
            token,
            committed_token: token,
            epoch,
            lineage: None,
            version,
            state_version,
            fit: Fit::default(),
        };
    }

    /// Makes what is staged the committed content.
    pub(crate) fn accept(&mut self) {
        self.document.accept();
        self.committed_token = self.token;
    }

    /// Makes what is staged the next version, which fits a component so.
    pub(crate) fn advance(&mut self, fit: Fit) {
        self.accept();
        self.fit = fit;
        self.version += 1;
    }

    /// Brings the document back to its last committed content.
    pub(crate) fn rollback(&mut self) {
        self.document.rollback();
        self.token = self.committed_token;
    }
}

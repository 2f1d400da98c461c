//! What components claim: names of some kind, each of which one component serves.
//!
//! Another kind of claim is a variant of [`ClaimKind`], an arm in what the [`Router`](super::router)
//! does for each kind, and what a component says it claims.

use std::fmt;

use tidegate_core::Name;
use tidegate_engine::Component;

/// What a claimed name is the name of.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ClaimKind {
    /// An actor type.
    Actor,
}

impl fmt::Display for ClaimKind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            ClaimKind::Actor => "actor type",
        })
    }
}

/// Who claims names: a component, by its manifest.
pub trait Claimant {
    /// All that it claims, each once.
    fn claims(&self) -> impl Iterator<Item = (ClaimKind, &Name)>;

    /// Whether it claims this.
    fn has_claim(&self, kind: ClaimKind, name: &Name) -> bool;
}

impl Claimant for Component {
    fn claims(&self) -> impl Iterator<Item = (ClaimKind, &Name)> {
        let actors = self.manifest.actors.keys();
        actors.map(|actor| (ClaimKind::Actor, actor))
    }

    fn has_claim(&self, kind: ClaimKind, name: &Name) -> bool {
        match kind {
            ClaimKind::Actor => self.manifest.actors.contains_key(name),
        }
    }
}

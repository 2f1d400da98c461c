//! What follows right upon each other, in one write for each receiver.
//!
//! A system call for each frame is most of what a delivery costs. So while a concern has more
//! to do at once, or tells several, what it lets out gathers in its receivers' queues, and is
//! written when it comes to rest: it corks the batch and adds whom it is about to tell.
//!
//! Invariants: each receiver gets the same things in the same order as without; a receiver
//! is held back only while somebody keeps the batch corked, which nobody does while waiting.

use std::sync::Arc;
use std::time::{Duration, Instant};

use tidegate_base::gather::Gather;
use tidegate_base::sync::{Mutex, MutexGuard};

use super::outlet::Outlet;

/// Receivers of one frame from which on they are written to outside of their list's lock,
/// which would otherwise be held for as many system calls.
pub const SEVERAL: usize = 2;

/// One of the lists of receivers whose frames gather in a batch.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Group(u8);

impl Group {
    /// The one with this number, of which there are eight.
    pub const fn new(number: u8) -> Group {
        assert!(number < 8);
        Group(1 << number)
    }
}

/// Where what an actor lets out gathers.
#[derive(Default)]
pub struct WriteBatch {
    gathered: Mutex<Gathered>,
    /// When one that is kept corked falls all the same, as soon as the turn has ended that is
    /// under way then.
    longest: Duration,
}

#[derive(Default)]
struct Gathered {
    /// Who keeps it corked.
    corked: usize,
    /// Since when receivers may be held.
    since: Option<Instant>,
    held: Vec<Arc<dyn Outlet>>,
    /// The groups that are among them as a whole.
    groups: u8,
}

/// Keeps a batch corked.
pub struct Corked<'a>(&'a WriteBatch);

impl WriteBatch {
    /// One that lasts so long at most, but for the turn that is under way then.
    pub fn new(longest: Duration) -> WriteBatch {
        WriteBatch {
            longest,
            ..WriteBatch::default()
        }
    }

    fn gathered(&self) -> MutexGuard<'_, Gathered> {
        self.gathered.lock()
    }

    /// Gathers what leaves from now on.
    pub fn cork(&self) -> Corked<'_> {
        let mut gathered = self.gathered();
        gathered.corked += 1;
        gathered.since.get_or_insert_with(Instant::now);
        Corked(self)
    }

    /// Holds a receiver back while the batch is corked.
    pub fn add(&self, outlet: &Arc<impl Outlet>) {
        let mut gathered = self.gathered();
        if gathered.corked > 0 {
            outlet.cork();
            gathered.held.push(outlet.clone());
        }
    }

    /// Holds a whole group back while the batch is corked, once: `cork` corks each of its
    /// receivers and adds it.
    pub fn add_group(&self, group: Group, cork: impl FnOnce(&mut Vec<Arc<dyn Outlet>>)) {
        let mut gathered = self.gathered();
        if gathered.corked > 0 && gathered.groups & group.0 == 0 {
            gathered.groups |= group.0;
            cork(&mut gathered.held);
        }
    }

    /// Holds some of a group back while the batch is corked, unless the group is as a whole.
    pub fn add_some_of(&self, group: Group, cork: impl FnOnce(&mut Vec<Arc<dyn Outlet>>)) {
        let mut gathered = self.gathered();
        if gathered.corked > 0 && gathered.groups & group.0 == 0 {
            cork(&mut gathered.held);
        }
    }

    /// Gathers what is let out at once, where so many receivers are told that it is worth it.
    pub fn cork_for(&self, receivers: usize) -> Option<Corked<'_>> {
        (receivers >= SEVERAL).then(|| self.cork())
    }

    fn fall(&self) {
        let held = {
            let mut gathered = self.gathered();
            gathered.corked -= 1;
            let corked = gathered.corked;
            // Two who take turns at keeping it corked must not do so for ever.
            if corked > 0 && !gathered.is_due(self.longest) {
                return;
            }
            let next = Gathered {
                corked,
                since: (corked > 0).then(Instant::now),
                ..Gathered::default()
            };
            std::mem::replace(&mut *gathered, next).held
        };
        // Writes, and holds no lock but each receiver's own.
        held.iter().for_each(|outlet| outlet.uncork());
    }
}

impl Gather for WriteBatch {
    type Gathering<'g> = Corked<'g>;

    fn gather(&self) -> Corked<'_> {
        self.cork()
    }

    fn is_due(corked: &Corked<'_>) -> bool {
        corked.is_due()
    }
}

impl Gathered {
    fn is_due(&self, longest: Duration) -> bool {
        self.since.is_some_and(|since| since.elapsed() >= longest)
    }
}

impl Corked<'_> {
    /// Whether it is time to let go.
    pub fn is_due(&self) -> bool {
        self.0.gathered().is_due(self.0.longest)
    }
}

impl Drop for Corked<'_> {
    fn drop(&mut self) {
        self.0.fall();
    }
}

//! What turns that follow right upon each other let out, in one write for each receiver.
//!
//! A system call for each frame is most of what a delivery costs. So while an actor has more
//! to do at once, or tells several, what it lets out gathers in its receivers' queues, and is
//! written when it comes to rest. `turn` and `actor` cork the batch; what leaves is held by it.
//!
//! Invariants: each receiver gets the same things in the same order as without; a receiver
//! is held back only while somebody keeps the batch corked, which nobody does while waiting.

use std::pin::Pin;
use std::sync::Arc;
use std::time::{Duration, Instant};

use tidegate_base::sync::{Mutex, MutexGuard};

use super::{Audience, Outlet, Recipients};

/// Receivers of one message from which on they are written to outside of their list's lock,
/// which would otherwise be held for as many system calls.
const SEVERAL: usize = 2;

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
    /// All who subscribe to the state are among them.
    state: bool,
    /// All who subscribe to the events are.
    events: bool,
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

    /// Holds those back who are about to be told of a change of the state.
    pub fn add_for_patch(&self, audience: &Audience) {
        let mut gathered = self.gathered();
        if gathered.corked > 0 && !std::mem::replace(&mut gathered.state, true) {
            audience.cork_state(&mut gathered.held);
        }
    }

    /// Holds those back who are about to be told of an event.
    pub fn add_for_event(&self, audience: &Audience, to: &Recipients) {
        let mut gathered = self.gathered();
        if gathered.corked == 0 || gathered.events {
            return;
        }
        match to {
            // To hold all back for the sake of a few is not worth it.
            Recipients::Only(ids) if ids.len() < SEVERAL => {}
            Recipients::Only(ids) => audience.cork_some(ids, &mut gathered.held),
            Recipients::Everyone | Recipients::Except(_) => {
                gathered.events = true;
                audience.cork_events(&mut gathered.held);
            }
        }
    }

    /// Gathers what all who subscribe to the state are told until what is returned falls.
    pub fn cork_for_patch(&self, audience: &Audience) -> Option<Corked<'_>> {
        let corked = self.cork_for(audience);
        self.add_for_patch(audience);
        corked
    }

    /// Gathers what one turn lets out where several are told.
    pub fn cork_for(&self, audience: &Audience) -> Option<Corked<'_>> {
        let (state, events) = audience.len();
        (state.max(events) >= SEVERAL).then(|| self.cork())
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

/// Runs a future; should it have to wait, the batch does not wait with it.
///
/// It takes a reference, because a future that takes another over has room for it twice.
pub async fn while_ready<T>(
    corked: &mut Option<Corked<'_>>,
    mut future: Pin<&mut impl Future<Output = T>>,
) -> T {
    std::future::poll_fn(|context| {
        let poll = future.as_mut().poll(context);
        if poll.is_pending() {
            *corked = None;
        }
        poll
    })
    .await
}

//! What turns that follow right upon each other let out, in one write for each receiver.
//!
//! A system call for each frame is most of what a delivery costs. So while an actor has more
//! to do at once, or tells several, what it lets out gathers in its receivers' queues, and is
//! written when it comes to rest. `turn` and `actor` raise the wave; what leaves is held by it.
//!
//! Invariants: each receiver gets the same things in the same order as without; a receiver
//! is held back only while somebody keeps the wave raised, which nobody does while waiting.

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
pub struct Wave {
    crest: Mutex<Crest>,
    /// When one that is kept raised falls all the same, as soon as the turn has ended that is
    /// under way then.
    longest: Duration,
}

#[derive(Default)]
struct Crest {
    /// Who keeps it raised.
    raised: usize,
    /// Since when receivers may be held.
    since: Option<Instant>,
    held: Vec<Arc<dyn Outlet>>,
    /// All who subscribe to the state are among them.
    state: bool,
    /// All who subscribe to the events are.
    events: bool,
}

/// Keeps a wave raised.
pub struct Raised<'a>(&'a Wave);

impl Wave {
    /// One that lasts so long at most, but for the turn that is under way then.
    pub fn new(longest: Duration) -> Wave {
        Wave {
            longest,
            ..Wave::default()
        }
    }

    fn crest(&self) -> MutexGuard<'_, Crest> {
        self.crest.lock()
    }

    /// Gathers what leaves from now on.
    pub fn raise(&self) -> Raised<'_> {
        let mut crest = self.crest();
        crest.raised += 1;
        crest.since.get_or_insert_with(Instant::now);
        Raised(self)
    }

    /// Holds a receiver back while the wave is raised.
    pub fn hold(&self, outlet: &Arc<impl Outlet>) {
        let mut crest = self.crest();
        if crest.raised > 0 {
            outlet.hold();
            crest.held.push(outlet.clone());
        }
    }

    /// Holds those back who are about to be told of a change of the state.
    pub fn hold_for_patch(&self, audience: &Audience) {
        let mut crest = self.crest();
        if crest.raised > 0 && !std::mem::replace(&mut crest.state, true) {
            audience.hold_state(&mut crest.held);
        }
    }

    /// Holds those back who are about to be told of an event.
    pub fn hold_for_event(&self, audience: &Audience, to: &Recipients) {
        let mut crest = self.crest();
        if crest.raised == 0 || crest.events {
            return;
        }
        match to {
            // To hold all back for the sake of a few is not worth it.
            Recipients::Only(ids) if ids.len() < SEVERAL => {}
            Recipients::Only(ids) => audience.hold_some(ids, &mut crest.held),
            Recipients::Everyone | Recipients::Except(_) => {
                crest.events = true;
                audience.hold_events(&mut crest.held);
            }
        }
    }

    /// Gathers what all who subscribe to the state are told until what is returned falls.
    pub fn gather_for_patch(&self, audience: &Audience) -> Option<Raised<'_>> {
        let raised = self.raise_for(audience);
        self.hold_for_patch(audience);
        raised
    }

    /// Gathers what one turn lets out where several are told.
    pub fn raise_for(&self, audience: &Audience) -> Option<Raised<'_>> {
        let (state, events) = audience.len();
        (state.max(events) >= SEVERAL).then(|| self.raise())
    }

    fn fall(&self) {
        let held = {
            let mut crest = self.crest();
            crest.raised -= 1;
            let raised = crest.raised;
            // Two who take turns at keeping it raised must not do so for ever.
            if raised > 0 && !crest.is_due(self.longest) {
                return;
            }
            let next = Crest {
                raised,
                since: (raised > 0).then(Instant::now),
                ..Crest::default()
            };
            std::mem::replace(&mut *crest, next).held
        };
        // Writes, and holds no lock but each receiver's own.
        held.iter().for_each(|outlet| outlet.release());
    }
}

impl Crest {
    fn is_due(&self, longest: Duration) -> bool {
        self.since.is_some_and(|since| since.elapsed() >= longest)
    }
}

impl Raised<'_> {
    /// Whether it is time to let go.
    pub fn is_due(&self) -> bool {
        self.0.crest().is_due(self.0.longest)
    }
}

impl Drop for Raised<'_> {
    fn drop(&mut self) {
        self.0.fall();
    }
}

/// Runs a future; should it have to wait, the wave does not wait with it.
///
/// It takes a reference, because a future that takes another over has room for it twice.
pub async fn while_ready<T>(
    raised: &mut Option<Raised<'_>>,
    mut future: Pin<&mut impl Future<Output = T>>,
) -> T {
    std::future::poll_fn(|context| {
        let poll = future.as_mut().poll(context);
        if poll.is_pending() {
            *raised = None;
        }
        poll
    })
    .await
}

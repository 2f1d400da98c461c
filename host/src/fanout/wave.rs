//! What turns that follow right upon each other let out, in one write for each receiver.
//!
//! A system call for each frame is most of what a delivery costs. So while an actor has more
//! to do at once, or tells several, what it lets out gathers in its receivers' queues, and is
//! written when it comes to rest. `turn` and `actor` raise the wave; what leaves is held by it.
//!
//! Invariants: each receiver gets the same things in the same order as without; a receiver
//! is held back only while somebody keeps the wave raised, which nobody does while waiting.

use std::pin::Pin;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

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
        self.crest.lock().unwrap_or_else(PoisonError::into_inner)
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

#[cfg(test)]
mod tests {
    use std::pin::pin;

    use super::*;
    use crate::fanout::receiver::{Receiver, Told};

    /// A receiver, and how often it was held and let go so far.
    struct Counted {
        receiver: Arc<Receiver>,
        seen: Arc<Mutex<(usize, usize)>>,
    }

    impl Counted {
        fn new(id: &str) -> Counted {
            let seen = Arc::new(Mutex::new((0, 0)));
            let sees = seen.clone();
            let receiver = Receiver::new(id, move |told| {
                let (holds, writes) = &mut *sees.lock().unwrap();
                match told {
                    Told::Hold => *holds += 1,
                    Told::Release => {
                        *holds -= 1;
                        *writes += usize::from(*holds == 0);
                    }
                }
            });
            Counted { receiver, seen }
        }

        /// Holds, and how often it was let go by all.
        fn seen(&self) -> (usize, usize) {
            *self.seen.lock().unwrap()
        }
    }

    /// So long that no test is as slow.
    const LONG: Duration = Duration::from_secs(600);

    fn audience_of(outlets: &[Counted]) -> Audience {
        let audience = Audience::default();
        for outlet in outlets {
            audience.join_events(outlet.receiver.clone());
        }
        audience
    }

    #[test]
    fn what_several_turns_let_out_is_written_once() {
        let outlets = ["a", "b"].map(Counted::new);
        let (audience, wave) = (audience_of(&outlets), Wave::new(LONG));
        let raised = wave.raise();
        for _ in 0..3 {
            // Each turn has raised it itself, too.
            let _own = wave.raise();
            wave.hold_for_event(&audience, &Recipients::Everyone);
            assert_eq!(outlets[0].seen(), (1, 0));
        }
        drop(raised);
        assert_eq!(outlets.map(|outlet| outlet.seen()), [(0, 1), (0, 1)]);
    }

    #[test]
    fn two_who_take_turns_do_not_hold_for_ever() {
        let outlet = Counted::new("a");
        let wave = Wave::new(Duration::from_millis(2));
        let mut raised = wave.raise();
        wave.hold(&outlet.receiver);
        while outlet.seen() == (1, 0) {
            // There is always one of them.
            raised = wave.raise();
        }
        assert_eq!(outlet.seen(), (0, 1));
        // And it is still a wave.
        wave.hold(&outlet.receiver);
        assert_eq!(outlet.seen(), (1, 1));
        drop(raised);
        assert_eq!(outlet.seen(), (0, 2));
    }

    #[test]
    fn nobody_is_held_back_at_rest() {
        let outlet = Counted::new("a");
        let (audience, wave) = (audience_of(std::slice::from_ref(&outlet)), Wave::new(LONG));
        wave.hold(&outlet.receiver);
        wave.hold_for_event(&audience, &Recipients::Everyone);
        assert_eq!(outlet.seen(), (0, 0));
        // Nor after a wave has broken.
        drop(wave.raise());
        wave.hold_for_event(&audience, &Recipients::Everyone);
        assert_eq!(outlet.seen(), (0, 0));
    }

    #[test]
    fn an_event_for_some_holds_only_them_back() {
        let outlets = ["a", "b", "c"].map(Counted::new);
        let (audience, wave) = (audience_of(&outlets), Wave::new(LONG));
        let only = |ids: &[&str]| Recipients::Only(ids.iter().map(|&id| id.to_owned()).collect());
        let raised = wave.raise();
        wave.hold_for_event(&audience, &only(&["a"]));
        assert_eq!(outlets[0].seen(), (0, 0));
        wave.hold_for_event(&audience, &only(&["a", "b", "gone"]));
        assert_eq!(
            outlets.each_ref().map(Counted::seen),
            [(1, 0), (1, 0), (0, 0)]
        );
        drop(raised);
        assert_eq!(
            outlets.each_ref().map(Counted::seen),
            [(0, 1), (0, 1), (0, 0)]
        );
    }

    #[test]
    fn only_several_receivers_make_a_wave_of_one_turn() {
        let outlets = ["a", "b"].map(Counted::new);
        let wave = Wave::new(LONG);
        assert!(wave.raise_for(&audience_of(&outlets[1..])).is_none());
        assert!(wave.raise_for(&audience_of(&outlets)).is_some());
    }

    #[tokio::test]
    async fn nobody_is_held_back_by_a_turn_that_waits() {
        let outlet = Counted::new("a");
        let wave = Wave::new(LONG);
        let mut raised = Some(wave.raise());
        wave.hold(&outlet.receiver);
        while_ready(&mut raised, pin!(async {})).await;
        assert_eq!(outlet.seen(), (1, 0));
        let waits = async {
            tokio::task::yield_now().await;
            assert_eq!(outlet.seen(), (0, 1));
        };
        while_ready(&mut raised, pin!(waits)).await;
        assert!(raised.is_none());
    }
}

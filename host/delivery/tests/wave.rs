//! What is gathered for receivers while an actor has more turns to take.

use std::pin::pin;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use tidegate_delivery::fanout::{Audience, Recipients, Wave, while_ready};
use tidegate_testkit::receiver::{Receiver, Told};

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

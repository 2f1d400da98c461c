//! What is gathered for receivers while somebody has more to do at once.

use std::pin::pin;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use tidegate_base::gather::while_ready;
use tidegate_delivery::write_batch::{Group, WriteBatch};
use tidegate_delivery::{Outlet, Subscribers};
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

const ALL: Group = Group::new(0);

fn subscribers_of(outlets: &[Counted]) -> Subscribers {
    let mut subscribers = Subscribers::default();
    for outlet in outlets {
        subscribers.insert(outlet.receiver.clone());
    }
    subscribers
}

/// Has a batch hold all of them back.
fn add_all(batch: &WriteBatch, subscribers: &Subscribers) {
    batch.add_group(ALL, |held| cork(subscribers.iter(), held));
}

fn cork<'o>(outlets: impl Iterator<Item = &'o Arc<dyn Outlet>>, held: &mut Vec<Arc<dyn Outlet>>) {
    held.extend(outlets.cloned().inspect(|outlet| outlet.cork()));
}

#[test]
fn what_several_turns_let_out_is_written_once() {
    let outlets = ["a", "b"].map(Counted::new);
    let (subscribers, batch) = (subscribers_of(&outlets), WriteBatch::new(LONG));
    let corked = batch.cork();
    for _ in 0..3 {
        // Each turn has corked it itself, too.
        let _own = batch.cork();
        add_all(&batch, &subscribers);
        assert_eq!(outlets[0].seen(), (1, 0));
    }
    drop(corked);
    assert_eq!(outlets.map(|outlet| outlet.seen()), [(0, 1), (0, 1)]);
}

#[test]
fn two_who_take_turns_do_not_hold_for_ever() {
    let outlet = Counted::new("a");
    let batch = WriteBatch::new(Duration::from_millis(2));
    let mut corked = batch.cork();
    batch.add(&outlet.receiver);
    while outlet.seen() == (1, 0) {
        // There is always one of them.
        corked = batch.cork();
    }
    assert_eq!(outlet.seen(), (0, 1));
    // And it is still a batch.
    batch.add(&outlet.receiver);
    assert_eq!(outlet.seen(), (1, 1));
    drop(corked);
    assert_eq!(outlet.seen(), (0, 2));
}

#[test]
fn nobody_is_held_back_at_rest() {
    let outlet = Counted::new("a");
    let (subscribers, batch) = (
        subscribers_of(std::slice::from_ref(&outlet)),
        WriteBatch::new(LONG),
    );
    batch.add(&outlet.receiver);
    add_all(&batch, &subscribers);
    assert_eq!(outlet.seen(), (0, 0));
    // Nor after a batch has broken.
    drop(batch.cork());
    add_all(&batch, &subscribers);
    assert_eq!(outlet.seen(), (0, 0));
}

#[test]
fn some_of_a_group_are_held_back_unless_all_of_it_is() {
    let outlets = ["a", "b", "c"].map(Counted::new);
    let (subscribers, batch) = (subscribers_of(&outlets), WriteBatch::new(LONG));
    let only = ["a", "b", "gone"].map(str::to_owned).into();
    let add_some = || batch.add_some_of(ALL, |held| cork(subscribers.those(&only), held));
    let seen = || outlets.each_ref().map(Counted::seen);
    let corked = batch.cork();
    add_some();
    assert_eq!(seen(), [(1, 0), (1, 0), (0, 0)]);
    drop(corked);
    assert_eq!(seen(), [(0, 1), (0, 1), (0, 0)]);
    let corked = batch.cork();
    add_all(&batch, &subscribers);
    add_some();
    assert_eq!(seen(), [(1, 1), (1, 1), (1, 0)]);
    drop(corked);
    assert_eq!(seen(), [(0, 2), (0, 2), (0, 1)]);
}

#[test]
fn only_several_receivers_are_worth_a_batch() {
    let batch = WriteBatch::new(LONG);
    assert!(batch.cork_for(1).is_none());
    assert!(batch.cork_for(2).is_some());
}

#[tokio::test]
async fn nobody_is_held_back_by_a_turn_that_waits() {
    let outlet = Counted::new("a");
    let batch = WriteBatch::new(LONG);
    let mut corked = Some(batch.cork());
    batch.add(&outlet.receiver);
    while_ready(&mut corked, pin!(async {})).await;
    assert_eq!(outlet.seen(), (1, 0));
    let waits = async {
        tokio::task::yield_now().await;
        assert_eq!(outlet.seen(), (0, 1));
    };
    while_ready(&mut corked, pin!(waits)).await;
    assert!(corked.is_none());
}

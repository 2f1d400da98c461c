//! The memory of all guests together: what their instances may take, and who gives way when
//! there is no more.
//!
//! An instance is charged with all that its guest can make resident: the memories from their
//! first page on, because a page that is not there yet is a page that the guest may write to;
//! tables, and the stack. Invariant: what is charged never exceeds the limit.

use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Weak};

use tidegate_base::sync::Mutex;

/// Somebody who keeps instances that are worth less than one that is needed now.
pub trait GivesWay: Send + Sync {
    /// Drops some instances; false when there are none. Called from within guests' turns.
    fn give_way(&self) -> bool;
}

pub(super) struct Budget {
    limit: usize,
    taken: AtomicUsize,
    /// Asked in this order.
    keepers: Mutex<Vec<Weak<dyn GivesWay>>>,
}

impl Budget {
    pub(super) fn new(limit: usize) -> Budget {
        Budget {
            limit,
            taken: AtomicUsize::new(0),
            keepers: Mutex::default(),
        }
    }

    /// Asks this one too from now on, as long as it is there.
    pub(super) fn add_keeper(&self, keeper: Weak<dyn GivesWay>) {
        let mut keepers = self.keepers.lock();
        keepers.retain(|keeper| keeper.strong_count() > 0);
        keepers.push(keeper);
    }

    /// Takes so much, for which others may have to give way.
    pub(super) fn take(&self, bytes: usize) -> bool {
        loop {
            if self.take_what_is_left(bytes) {
                return true;
            }
            if bytes > self.limit || !self.others_give_way() {
                return false;
            }
        }
    }

    fn take_what_is_left(&self, bytes: usize) -> bool {
        let more = |taken: usize| taken.checked_add(bytes).filter(|sum| *sum <= self.limit);
        let relaxed = Ordering::Relaxed;
        // What is refused must not stand in the way of others even for a moment.
        self.taken.fetch_update(relaxed, relaxed, more).is_ok()
    }

    fn others_give_way(&self) -> bool {
        let keepers: Vec<Arc<dyn GivesWay>> = {
            let keepers = self.keepers.lock();
            keepers.iter().filter_map(Weak::upgrade).collect()
        };
        keepers.iter().any(|keeper| keeper.give_way())
    }

    pub(super) fn give_back(&self, bytes: usize) {
        self.taken.fetch_sub(bytes, Ordering::Relaxed);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    struct Kept<'a> {
        budget: &'a Budget,
        pieces: Mutex<Vec<usize>>,
    }

    impl GivesWay for Kept<'static> {
        fn give_way(&self) -> bool {
            let piece = self.pieces.lock().pop();
            piece.is_some_and(|piece| {
                self.budget.give_back(piece);
                true
            })
        }
    }

    #[test]
    fn what_is_kept_gives_way_to_what_is_needed_and_no_more_of_it() {
        let budget: &'static Budget = Box::leak(Box::new(Budget::new(100)));
        assert!(budget.take(30) && budget.take(30) && budget.take(30));
        let kept = Arc::new(Kept {
            budget,
            pieces: Mutex::new(vec![30, 30]),
        });
        let keeper: Arc<dyn GivesWay> = kept.clone();
        budget.add_keeper(Arc::downgrade(&keeper));
        assert!(budget.take(40));
        assert_eq!(kept.pieces.lock().len(), 1);
        assert!(!budget.take(90), "30 and 40 are in use");
        assert!(!budget.take(101), "it would never fit");
        assert!(budget.take(30));
    }

    #[test]
    fn what_is_refused_is_in_nobodys_way() {
        let budget = Budget::new(100);
        assert!(budget.take(20));
        std::thread::scope(|scope| {
            scope.spawn(|| {
                for _ in 0..100_000 {
                    assert!(!budget.take(90));
                }
            });
            for _ in 0..100_000 {
                assert!(budget.take(80), "it fits beside what is there");
                budget.give_back(80);
            }
        });
    }
}

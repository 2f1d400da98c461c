//! Who comes next, where several components want the same threads.
//!
//! Each component has a [`Share`], to which the time that its work has taken is charged. What
//! waits for a thread waits in a [`FairQueue`], in a line for each share; the line whose share
//! was charged least comes next (start-time fair queueing, Goyal et al. 1996). So components that
//! all have work get the same time, however much of it waits, and one that was idle has nothing
//! saved up.
//!
//! Within a line, work that has begun and waits to go on takes turns with what has not begun, and
//! goes before most of it where there is much: work that is under way holds memory.
//!
//! Invariant: what is queued by one share never delays another's by more than what is under way.

use std::collections::VecDeque;
use std::sync::Arc;
use std::sync::atomic::{AtomicU32, AtomicU64, AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use crate::sync::{Mutex, MutexGuard};

/// How far a share may be ahead of the others that wait and still count as one that takes little.
const LEAD: Duration = Duration::from_micros(200);

/// A piece of work that takes longer keeps others waiting.
pub const LONG: Duration = Duration::from_micros(500);

/// So many short pieces make up for a long one. One alone is not held against a share.
const FORGIVING: u32 = 4;
/// A piece that has kept its thread for so many times as long is long whatever it took: it has
/// stood still for a lock, and not only let the system run others.
const STANDING: u32 = 10;
/// What is held against a share at most.
const UNFORGIVEN: u32 = 3 * FORGIVING;

/// How many pieces of a share's work may have begun and wait to go on before few others begin. An
/// actor's turn holds an instance of its component meanwhile.
pub const MANY_BEGUN: usize = 64;

/// While so many have, one begins in the place of every so many that would go on: not all may ever
/// come to an end.
const BEGIN_ONE_IN: u32 = 16;

/// Lines that are kept while they are empty, so that work which comes one by one allocates
/// nothing.
const SPARE_LINES: usize = 16;

/// What one component has had of the threads that one queue is for.
#[derive(Debug, Default)]
pub struct Share {
    /// The time that its work has taken, in nanoseconds, where it began to wait no less than what
    /// others had had by then.
    used: AtomicU64,
    /// What it has used elsewhere since it was charged last, in nanoseconds.
    elsewhere: AtomicU64,
    /// How much of it waits.
    waiting: AtomicUsize,
    /// How much of that has begun.
    begun: AtomicUsize,
    /// How many short pieces its long ones are to be made up for by.
    long: AtomicU32,
}

/// For how long it counts that others had work as well.
const CONTENDED: Duration = Duration::from_millis(50);

/// What waits, in a line for each share.
pub struct FairQueue<T> {
    lines: Mutex<Vec<Line<T>>>,
    /// How much waits.
    len: AtomicUsize,
    /// What the share that came next last had had by then.
    floor: AtomicU64,
    /// Names the share that was charged last.
    last: AtomicUsize,
    /// When it was last another one than before, in nanoseconds since `began`.
    changed: AtomicU64,
    began: Instant,
}

struct Line<T> {
    share: Arc<Share>,
    /// What has not begun.
    new: VecDeque<T>,
    /// What has, and is to go on.
    begun: VecDeque<T>,
    /// How many that had begun came next since one that had not did.
    went_on: u32,
}

impl<T> Line<T> {
    fn of(share: Arc<Share>) -> Line<T> {
        Line {
            share,
            new: VecDeque::new(),
            begun: VecDeque::new(),
            went_on: 0,
        }
    }

    fn is_empty(&self) -> bool {
        self.new.is_empty() && self.begun.is_empty()
    }

    fn pop(&mut self) -> Option<T> {
        let before_another = match self.begun.len() >= MANY_BEGUN {
            true => BEGIN_ONE_IN,
            false => 1,
        };
        let goes_on = self.new.is_empty() || self.went_on < before_another;
        let item = match goes_on {
            true => self.begun.pop_front(),
            false => None,
        };
        let item = match item {
            Some(begun) => {
                self.went_on = self.went_on.saturating_add(1);
                self.share.begun.fetch_sub(1, Ordering::Relaxed);
                Some(begun)
            }
            None => {
                self.went_on = 0;
                self.new.pop_front()
            }
        };
        for items in [&mut self.new, &mut self.begun] {
            // A crowd's room is given back.
            if items.is_empty() && items.capacity() > 1_024 {
                *items = VecDeque::new();
            }
        }
        item
    }
}

impl<T> Default for FairQueue<T> {
    fn default() -> FairQueue<T> {
        FairQueue {
            lines: Mutex::default(),
            len: AtomicUsize::new(0),
            floor: AtomicU64::new(0),
            last: AtomicUsize::new(0),
            changed: AtomicU64::new(0),
            began: Instant::now(),
        }
    }
}

impl<T> FairQueue<T> {
    fn lines(&self) -> MutexGuard<'_, Vec<Line<T>>> {
        self.lines.lock()
    }

    /// How much waits.
    pub fn len(&self) -> usize {
        self.len.load(Ordering::Relaxed)
    }

    /// Whether nothing waits.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// Puts something that has not begun at the end of a share's line.
    pub fn push(&self, share: &Arc<Share>, item: T) {
        self.add(share, item, |line| &mut line.new);
    }

    /// Puts something that has begun there, and is to go on.
    pub fn push_begun(&self, share: &Arc<Share>, item: T) {
        share.begun.fetch_add(1, Ordering::Relaxed);
        self.add(share, item, |line| &mut line.begun);
    }

    fn add(&self, share: &Arc<Share>, item: T, to: fn(&mut Line<T>) -> &mut VecDeque<T>) {
        let mut lines = self.lines();
        let known = lines.iter_mut().position(|l| Arc::ptr_eq(&l.share, share));
        let place = known.unwrap_or_else(|| {
            lines.push(Line::of(share.clone()));
            lines.len() - 1
        });
        let line = &mut lines[place];
        if line.is_empty() {
            share.catch_up(self.floor.load(Ordering::Relaxed));
        }
        to(line).push_back(item);
        share.waiting.fetch_add(1, Ordering::Relaxed);
        self.len.fetch_add(1, Ordering::Relaxed);
    }

    /// What comes next.
    pub fn pop(&self) -> Option<T> {
        self.pop_where(|_| true)
    }

    /// What comes next of the shares that this admits.
    pub fn pop_where(&self, admits: impl Fn(&Arc<Share>) -> bool) -> Option<T> {
        if self.is_empty() {
            return None;
        }
        let mut lines = self.lines();
        let waiting = lines.iter().enumerate();
        let waiting = waiting.filter(|(_, line)| !line.is_empty() && admits(&line.share));
        let (place, _) = waiting.min_by_key(|(_, line)| line.share.used())?;
        let line = &mut lines[place];
        let item = line.pop();
        self.floor.fetch_max(line.share.used(), Ordering::Relaxed);
        line.share.waiting.fetch_sub(1, Ordering::Relaxed);
        self.len.fetch_sub(1, Ordering::Relaxed);
        if line.is_empty() && lines.len() > SPARE_LINES {
            lines.swap_remove(place);
        }
        item
    }

    /// Takes out all that waits.
    pub fn take_all(&self) -> Vec<T> {
        std::iter::from_fn(|| self.pop()).collect()
    }

    /// Whether work of this share may run ahead of what waits: nothing does, or its pieces are
    /// short, not much of it has begun, and what waits is its own alone, or of others alone who have
    /// had as much. Where others wait as well, its own that waits would wait the longer for what
    /// passes it.
    pub fn lets_pass(&self, share: &Share) -> bool {
        let waiting = self.len();
        if waiting == 0 {
            return true;
        }
        if share.is_long() || share.begun.load(Ordering::Relaxed) >= MANY_BEGUN {
            return false;
        }
        let own = share.waiting.load(Ordering::Relaxed);
        let is_behind =
            || share.used() <= self.floor.load(Ordering::Relaxed) + LEAD.as_nanos() as u64;
        waiting <= own || (own == 0 && is_behind())
    }

    /// Whether more than one share has had work of late.
    pub fn is_contended(&self) -> bool {
        let changed = self.changed.load(Ordering::Relaxed);
        changed > 0 && self.now() < changed + CONTENDED.as_nanos() as u64
    }

    fn now(&self) -> u64 {
        self.began.elapsed().as_nanos() as u64
    }

    /// Charges a share the time that a piece of its work has taken.
    pub fn charge(&self, share: &Share, took: Duration) {
        self.charge_standing(share, took, took);
    }

    /// Charges a piece that has kept its thread for longer than it took: the system let others run, or it
    /// stood still for a lock.
    pub fn charge_standing(&self, share: &Share, took: Duration, kept: Duration) {
        let name = std::ptr::from_ref(share).addr();
        if self.last.load(Ordering::Relaxed) != name && self.last.swap(name, Ordering::Relaxed) != 0
        {
            self.changed.store(self.now(), Ordering::Relaxed);
        }
        let nobody_waits = self.is_empty();
        if !nobody_waits {
            share.catch_up(self.floor.load(Ordering::Relaxed));
        }
        let mut took_ns = took.as_nanos() as u64;
        if share.elsewhere.load(Ordering::Relaxed) > 0 {
            // Long ago it was nobody's loss.
            let elsewhere = share.elsewhere.swap(0, Ordering::Relaxed);
            took_ns += elsewhere.min(CONTENDED.as_nanos() as u64);
        }
        let used = share.used.fetch_add(took_ns, Ordering::Relaxed) + took_ns;
        if nobody_waits {
            // Time goes on with who runs: who comes next begins there.
            self.floor.fetch_max(used, Ordering::Relaxed);
        }
        let long = share.long.load(Ordering::Relaxed);
        let is_long = match took > LONG || kept > STANDING * LONG {
            true => (long + FORGIVING).min(UNFORGIVEN),
            false => long.saturating_sub(1),
        };
        if is_long != long {
            share.long.store(is_long, Ordering::Relaxed);
        }
    }
}

impl Share {
    fn used(&self) -> u64 {
        self.used.load(Ordering::Relaxed)
    }

    /// Whether its work is expected to keep others waiting: of its last pieces several have.
    pub fn is_long(&self) -> bool {
        self.long.load(Ordering::Relaxed) > FORGIVING
    }

    /// Has time that its work has taken elsewhere be charged with the next piece of it.
    pub fn spend_elsewhere(&self, took: Duration) {
        let took_ns = took.as_nanos() as u64;
        self.elsewhere.fetch_add(took_ns, Ordering::Relaxed);
    }

    /// What was not used while others did is not saved up.
    fn catch_up(&self, floor: u64) {
        self.used.fetch_max(floor, Ordering::Relaxed);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const MS: Duration = Duration::from_millis(1);

    fn shares<const N: usize>() -> [Arc<Share>; N] {
        std::array::from_fn(|_| Arc::default())
    }

    #[test]
    fn a_share_alone_is_served_in_order() {
        let (queue, [only]) = (FairQueue::default(), shares());
        (0..5).for_each(|n| queue.push(&only, n));
        let served: Vec<i32> = std::iter::from_fn(|| queue.pop()).collect();
        assert_eq!(served, [0, 1, 2, 3, 4]);
        assert!(queue.is_empty());
    }

    #[test]
    fn what_has_begun_takes_turns_with_what_has_not() {
        let (queue, [only]) = (FairQueue::default(), shares());
        (0..3).for_each(|n| queue.push(&only, n));
        (10..13).for_each(|n| queue.push_begun(&only, n));
        let served: Vec<i32> = std::iter::from_fn(|| queue.pop()).collect();
        assert_eq!(served, [10, 0, 11, 1, 12, 2]);
        assert!(queue.is_empty());
    }

    #[test]
    fn little_begins_while_much_has_begun() {
        let (queue, [only]) = (FairQueue::default(), shares());
        (0..100).for_each(|_| queue.push(&only, "new"));
        (0..MANY_BEGUN + 10).for_each(|_| queue.push_begun(&only, "begun"));
        let mut served = std::iter::from_fn(|| queue.pop());
        let first = served.by_ref().take_while(|what| *what == "begun").count();
        assert_eq!(first, 11, "until fewer than many are left");
    }

    #[test]
    fn what_never_ends_does_not_keep_all_else_from_beginning() {
        let (queue, [only]) = (FairQueue::default(), shares());
        (0..100).for_each(|_| queue.push(&only, "new"));
        (0..MANY_BEGUN + 10).for_each(|_| queue.push_begun(&only, "endless"));
        let mut new = 0;
        for _ in 0..10 * (BEGIN_ONE_IN + 1) {
            match queue.pop() {
                Some("endless") => queue.push_begun(&only, "endless"),
                _ => new += 1,
            }
        }
        assert_eq!(new, 10);
    }

    #[test]
    fn where_much_has_begun_nothing_passes_what_waits() {
        let (queue, [only]) = (FairQueue::default(), shares());
        (1..MANY_BEGUN).for_each(|_| queue.push_begun(&only, ()));
        assert!(queue.lets_pass(&only));
        queue.push_begun(&only, ());
        assert!(!queue.lets_pass(&only));
        assert_eq!(queue.pop(), Some(()));
        assert!(queue.lets_pass(&only));
    }

    #[test]
    fn a_crowd_of_one_share_does_not_delay_another() {
        let (queue, [crowd, quiet]) = (FairQueue::default(), shares());
        (0..100_000).for_each(|_| queue.push(&crowd, "crowd"));
        for _ in 0..10 {
            assert_eq!(queue.pop(), Some("crowd"));
            queue.charge(&crowd, MS);
        }
        queue.push(&quiet, "quiet");
        assert_eq!(queue.pop(), Some("quiet"));
    }

    #[test]
    fn shares_that_always_have_work_get_the_same_time_whatever_their_pieces_take() {
        let (queue, [long, short]) = (FairQueue::default(), shares());
        let mut had = [Duration::ZERO; 2];
        for _ in 0..1_000 {
            queue.push(&long, 0);
            queue.push(&short, 1);
        }
        while had[0] + had[1] < 200 * MS {
            let which = queue.pop().expect("both have more");
            let (share, took) = [(&long, 5 * MS), (&short, MS / 2)][which];
            queue.charge(share, took);
            had[which] += took;
        }
        let [long, short] = had;
        assert!(long.abs_diff(short) <= 5 * MS, "{long:?} and {short:?}");
    }

    #[test]
    fn who_was_idle_has_saved_nothing_up() {
        let (queue, [busy, late]) = (FairQueue::default(), shares());
        for _ in 0..1_000 {
            queue.push(&busy, "busy");
            assert_eq!(queue.pop(), Some("busy"));
            queue.charge(&busy, MS);
        }
        (0..10).for_each(|_| queue.push(&busy, "busy"));
        (0..10).for_each(|_| queue.push(&late, "late"));
        let mut served = Vec::new();
        for _ in 0..6 {
            let which = queue.pop().unwrap();
            queue.charge(if which == "busy" { &busy } else { &late }, MS);
            served.push(which);
        }
        let lates = served.iter().filter(|which| **which == "late").count();
        assert!((3..=4).contains(&lates), "{served:?}");
    }

    #[test]
    fn who_ran_while_nobody_waited_owes_nothing_for_that() {
        let (queue, [busy, late]) = (FairQueue::default(), shares());
        // Where its work arrived: nothing was queued.
        queue.charge(&busy, 1_000 * MS);
        (0..10).for_each(|_| queue.push(&late, "late"));
        (0..10).for_each(|_| queue.push(&busy, "busy"));
        let mut served = Vec::new();
        for _ in 0..6 {
            let which = queue.pop().unwrap();
            queue.charge(if which == "busy" { &busy } else { &late }, MS);
            served.push(which);
        }
        let lates = served.iter().filter(|which| **which == "late").count();
        assert_eq!(lates, 3, "{served:?}");
    }

    #[test]
    fn time_spent_elsewhere_counts_where_others_wait_and_only_there() {
        for others_wait in [true, false] {
            let (queue, [busy, late]) = (FairQueue::default(), shares());
            busy.spend_elsewhere(3 * MS);
            if others_wait {
                queue.push(&late, "late");
            }
            queue.charge(&busy, MS);
            (0..10).for_each(|_| queue.push(&busy, "busy"));
            (0..10).for_each(|_| queue.push(&late, "late"));
            let mut served = Vec::new();
            for _ in 0..8 {
                let which = queue.pop().unwrap();
                queue.charge(if which == "busy" { &busy } else { &late }, MS);
                served.push(which);
            }
            let lates = served.iter().filter(|which| **which == "late").count();
            assert_eq!(lates, if others_wait { 6 } else { 4 }, "{served:?}");
        }
    }

    #[test]
    fn it_is_contended_for_a_while_once_two_have_work() {
        let (queue, [one, other]) = (FairQueue::<()>::default(), shares());
        (0..3).for_each(|_| queue.charge(&one, MS));
        assert!(!queue.is_contended());
        queue.charge(&other, MS);
        assert!(queue.is_contended());
        std::thread::sleep(2 * CONTENDED);
        queue.charge(&other, MS);
        assert!(!queue.is_contended());
    }

    #[test]
    fn only_who_has_had_little_passes_others_that_wait() {
        let (queue, [crowd, quiet]) = (FairQueue::default(), shares());
        assert!(queue.lets_pass(&crowd) && queue.lets_pass(&quiet));
        queue.push(&quiet, 0);
        for _ in 0..20 {
            queue.charge(&crowd, MS);
        }
        assert!(!queue.lets_pass(&crowd));
        assert!(queue.lets_pass(&quiet));
    }

    #[test]
    fn short_pieces_pass_their_own_that_wait_and_long_ones_do_not() {
        let (queue, [only]) = (FairQueue::default(), shares());
        queue.push(&only, 0);
        for _ in 0..200 {
            queue.charge(&only, MS / 10);
        }
        assert!(queue.lets_pass(&only));
        queue.charge(&only, 5 * MS);
        assert!(queue.lets_pass(&only), "once is not often");
        (0..10).for_each(|_| queue.charge(&only, 5 * MS));
        for _ in 0..2 * FORGIVING {
            assert!(!queue.lets_pass(&only));
            queue.charge(&only, MS / 10);
        }
        assert!(queue.lets_pass(&only));
    }

    #[test]
    fn who_stands_still_for_long_takes_little_and_keeps_others_waiting() {
        let (queue, [still]) = (FairQueue::<()>::default(), shares());
        for _ in 0..10 {
            queue.charge_standing(&still, MS / 10, MS);
        }
        assert!(!still.is_long(), "the system has let others run");
        for _ in 0..10 {
            queue.charge_standing(&still, MS / 10, 20 * MS);
        }
        assert!(still.is_long());
    }

    #[test]
    fn where_others_wait_as_well_none_passes_its_own() {
        let (queue, [quiet, crowd]) = (FairQueue::default(), shares());
        queue.push(&crowd, 0);
        assert!(queue.lets_pass(&quiet));
        queue.push(&quiet, 1);
        assert!(!queue.lets_pass(&quiet));
        assert_eq!(queue.pop_where(|share| Arc::ptr_eq(share, &crowd)), Some(0));
        assert!(queue.lets_pass(&quiet), "nobody else waits");
    }

    #[test]
    fn who_is_not_admitted_keeps_its_place() {
        let (queue, [first, second]) = (FairQueue::default(), shares());
        queue.push(&first, 1);
        queue.push(&second, 2);
        assert_eq!(
            queue.pop_where(|share| !Arc::ptr_eq(share, &first)),
            Some(2)
        );
        assert_eq!(queue.pop_where(|share| !Arc::ptr_eq(share, &first)), None);
        assert_eq!(queue.pop(), Some(1));
    }

    #[test]
    fn lines_of_shares_that_have_nothing_are_let_go() {
        let queue = FairQueue::default();
        for n in 0..1_000 {
            queue.push(&Arc::default(), n);
        }
        while queue.pop().is_some() {}
        assert!(queue.lines().len() <= SPARE_LINES);
        assert_eq!(queue.take_all(), Vec::<i32>::new());
    }
}

//! How much memory the host holds because somebody outside wants it: one [`Budget`] for each
//! kind, over all clients and actors. Limits of single connections and actors are elsewhere; they
//! say what one may do, these what all may do together.
//!
//! Whoever is about to hold something takes it from the budget first, and is refused when there
//! is no room. The last quarter is kept for those who hold little, so that a few who hold much do
//! not stand in the way of everybody else.
//!
//! Invariants: no more is taken than the limit, but for what takes the place of something larger
//! that is about to be given back; what was taken is given back when its holder
//! goes. A holder of less than [`FREE`] takes nothing, and one of more takes whole chunks, so that
//! what is small and frequent never touches what all share.

mod machine;

use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};
use std::sync::{Arc, OnceLock, Weak};

use bytes::Bytes;
use tidegate_core::Failure;
use tokio::sync::Notify;
use tracing::info;

use crate::config;
use crate::sync::Mutex;

/// What each holder has for nothing, in bytes.
pub const FREE: usize = 4 << 10;

/// What a holder of more takes at a time, in bytes.
const CHUNK: usize = 16 << 10;

/// Who holds no more than this, in bytes, may take of the last quarter.
const LITTLE: usize = 64 << 10;

/// When it is worth trying again; what is full is seen to at once.
const RETRY_AFTER_MS: u64 = 1_000;

/// The budgets of a host.
#[derive(Clone, Debug)]
pub struct Budgets {
    /// What clients have sent and the host is not done with: messages and bodies that are not
    /// complete, and the inputs of calls that wait or run.
    pub inputs: Arc<Budget>,
    /// What turns have staged and receivers have not taken yet.
    pub outbound: Arc<Budget>,
    /// The actors in memory with all that belongs to them, and whom connections have had contact
    /// with.
    pub actors: Arc<Budget>,
}

impl Budgets {
    /// As the settings say, within what the machine has.
    pub fn new(settings: &config::Memory) -> Budgets {
        let wanted = settings.bytes;
        // The rest is for guests, for the store and for the system.
        let most = machine::memory().map_or(usize::MAX, |memory| memory / 2);
        let bytes = wanted.min(most);
        if bytes < wanted {
            info!(
                "half of this machine's memory is less than memory.bytes: {bytes} bytes of it are \
                 for what clients make the host hold"
            );
        }
        let part = |set: usize, part: usize| match set {
            0 => part,
            set => set,
        };
        Budgets {
            inputs: Budget::new("inputs", part(settings.inputs_bytes, bytes / 4)),
            outbound: Budget::new("outbound", part(settings.outbound_bytes, bytes / 4)),
            actors: Budget::new("actors", part(settings.actors_bytes, bytes / 2)),
        }
    }

    /// All of them.
    pub fn all(&self) -> [&Arc<Budget>; 3] {
        [&self.inputs, &self.outbound, &self.actors]
    }
}

impl Default for Budgets {
    /// Without limits.
    fn default() -> Budgets {
        Budgets {
            inputs: Budget::new("inputs", usize::MAX),
            outbound: Budget::new("outbound", usize::MAX),
            actors: Budget::new("actors", usize::MAX),
        }
    }
}

/// How much all may hold of one kind, and how much they do.
#[derive(Debug)]
pub struct Budget {
    name: &'static str,
    limit: usize,
    used: AtomicUsize,
    refused: AtomicU64,
    pressed: Notify,
    relief: OnceLock<Weak<dyn Relief>>,
}

/// Somebody who can make those give back who hold most.
pub trait Relief: Send + Sync {
    /// Has them do so, as far as that goes without waiting. Called while nobody's own queue is
    /// locked.
    fn make_room(&self);
}

/// There is no room in a budget.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("the host's memory for {budget} is {}", match .is_for_good {
    true => "too small for this",
    false => "used up",
})]
pub struct Exhausted {
    budget: &'static str,
    /// It is more than would fit if nobody held anything.
    is_for_good: bool,
}

impl Exhausted {
    /// Whether there will never be room.
    pub fn is_for_good(self) -> bool {
        self.is_for_good
    }

    /// Which budget.
    pub fn budget(self) -> &'static str {
        self.budget
    }

    /// When to try again, in milliseconds; none where there will never be room.
    pub fn retry_after_ms(self) -> Option<u64> {
        (!self.is_for_good).then_some(RETRY_AFTER_MS)
    }

    /// `host.memory`, with the budget's name, and `retryAfterMs` where that may help.
    pub fn failure(self) -> Failure {
        match self.retry_after_ms() {
            None => Failure::host_memory(self, self.budget),
            Some(ms) => Failure::host_memory_for_now(self, self.budget, ms),
        }
    }
}

impl Budget {
    /// A budget of this name, as the metrics show it, in bytes.
    pub fn new(name: &'static str, limit: usize) -> Arc<Budget> {
        Arc::new(Budget {
            name,
            // What figures of the metrics can say, and more than any machine has.
            limit: limit.min(isize::MAX as usize),
            used: AtomicUsize::new(0),
            refused: AtomicU64::new(0),
            pressed: Notify::new(),
            relief: OnceLock::new(),
        })
    }

    /// One that refuses nothing.
    pub fn unlimited() -> Arc<Budget> {
        Budget::new("unlimited", usize::MAX)
    }

    /// What it is called.
    pub fn name(&self) -> &'static str {
        self.name
    }

    /// What may be taken, in bytes.
    pub fn limit(&self) -> usize {
        self.limit
    }

    /// What is taken, in bytes.
    pub fn used(&self) -> usize {
        self.used.load(Ordering::Relaxed)
    }

    /// How often somebody was refused.
    pub fn refused(&self) -> u64 {
        self.refused.load(Ordering::Relaxed)
    }

    /// What one is told for whom there is no room.
    pub fn exhausted(&self) -> Exhausted {
        Exhausted {
            budget: self.name,
            is_for_good: false,
        }
    }

    /// Whether more than half is taken: what can be done without should go.
    pub fn is_scarce(&self) -> bool {
        self.used() > self.limit / 2
    }

    /// Whether only who holds little is still let in.
    pub fn is_pressed(&self) -> bool {
        self.used() > self.reserved_from()
    }

    /// Completes when the last quarter is begun, or somebody was refused, since it last did.
    pub async fn pressed(&self) {
        self.pressed.notified().await;
    }

    /// Asks this one for room from now on, as long as it is there. Only the first is asked.
    pub fn relieved_by(&self, relief: Weak<dyn Relief>) {
        // There is one gateway for each host.
        let _ = self.relief.set(relief);
    }

    /// Has those give back who hold most, if somebody can see to that.
    pub fn make_room(&self) {
        if let Some(relief) = self.relief.get().and_then(Weak::upgrade) {
            relief.make_room();
        }
    }

    /// Tries to take something; where there is no room, those who hold most give back first, if
    /// somebody can see to that, and it is tried once more.
    ///
    /// # Errors
    /// There is no room still, or there never will be.
    pub fn relieved<T>(
        &self,
        mut take: impl FnMut() -> Result<T, Exhausted>,
    ) -> Result<T, Exhausted> {
        match take() {
            Err(exhausted) if !exhausted.is_for_good => {
                self.make_room();
                take()
            }
            taken => taken,
        }
    }

    /// Takes exactly so many bytes, for one thing.
    pub fn share(self: &Arc<Self>, bytes: usize) -> Result<Share, Exhausted> {
        let mut share = self.empty_share();
        share.set(bytes)?;
        Ok(share)
    }

    /// Takes so many bytes without a limit, for what takes the place of something larger that is
    /// given back next: to refuse it would keep what is larger.
    pub fn owe(self: &Arc<Self>, bytes: usize) -> Share {
        self.used.fetch_add(bytes, Ordering::Relaxed);
        Share {
            budget: self.clone(),
            taken: bytes,
        }
    }

    /// Takes the bytes that many may hold, once; they are given back with the last of those.
    pub fn bytes(self: &Arc<Self>, mut bytes: Vec<u8>) -> Result<Bytes, Exhausted> {
        // A text that was put together may have room for as much again.
        bytes.shrink_to_fit();
        let _share = self.share(bytes.capacity())?;
        Ok(Bytes::from_owner(Taken { bytes, _share }))
    }

    /// Takes the bytes that many may hold, to be had from again while any of what was had from them
    /// exists.
    pub fn shared(self: &Arc<Self>, bytes: Vec<u8>) -> Result<SharedBytes, Exhausted> {
        let _share = self.share(bytes.capacity())?;
        Ok(SharedBytes(Arc::new(Taken { bytes, _share })))
    }

    /// Nothing yet.
    pub fn empty_share(self: &Arc<Self>) -> Share {
        Share {
            budget: self.clone(),
            taken: 0,
        }
    }

    /// What may be taken by those who hold more than little, in bytes.
    pub fn reserved_from(&self) -> usize {
        self.limit - self.limit / 4
    }

    /// Takes `bytes` for one who holds `holds` then.
    fn take(&self, bytes: usize, holds: usize) -> Result<(), Exhausted> {
        let most = match holds <= LITTLE {
            true => self.limit,
            false => self.reserved_from(),
        };
        let more = |used: usize| used.checked_add(bytes).filter(|used| *used <= most);
        let (relaxed, mark) = (Ordering::Relaxed, self.reserved_from());
        match self.used.fetch_update(relaxed, relaxed, more) {
            Ok(before) => {
                if before <= mark && before + bytes > mark {
                    self.pressed.notify_one();
                }
                Ok(())
            }
            Err(_) => {
                self.refused.fetch_add(1, relaxed);
                self.pressed.notify_one();
                Err(Exhausted {
                    budget: self.name,
                    is_for_good: bytes > most,
                })
            }
        }
    }

    fn give(&self, bytes: usize) {
        self.used.fetch_sub(bytes, Ordering::Relaxed);
    }
}

/// A part of a budget, given back when it is dropped.
#[derive(Debug)]
pub struct Share {
    budget: Arc<Budget>,
    taken: usize,
}

impl Share {
    /// Holds about `bytes` from now on: nothing while that is little, else whole chunks. When
    /// that is refused, it holds what it held.
    pub fn fit(&mut self, bytes: usize) -> Result<(), Exhausted> {
        match fitting(bytes, self.taken) {
            Some(wanted) => self.set(wanted),
            None => Ok(()),
        }
    }

    /// Holds exactly so many bytes from now on.
    pub fn set(&mut self, bytes: usize) -> Result<(), Exhausted> {
        match bytes.checked_sub(self.taken) {
            Some(0) => {}
            Some(more) => self.budget.take(more, bytes)?,
            None => self.budget.give(self.taken - bytes),
        }
        self.taken = bytes;
        Ok(())
    }

    /// What it holds, in bytes.
    pub fn taken(&self) -> usize {
        self.taken
    }
}

impl Drop for Share {
    fn drop(&mut self) {
        self.budget.give(self.taken);
    }
}

/// Bytes and what was taken for them.
struct Taken {
    bytes: Vec<u8>,
    _share: Share,
}

impl AsRef<[u8]> for Taken {
    fn as_ref(&self) -> &[u8] {
        &self.bytes
    }
}

/// Bytes that were taken from a budget once, for all who have them.
#[derive(Clone)]
pub struct SharedBytes(Arc<Taken>);

/// Finds them as long as anybody has them.
#[derive(Debug, Default)]
pub struct Lasting(Mutex<Weak<Taken>>);

impl SharedBytes {
    /// What they are.
    pub fn bytes(&self) -> Bytes {
        Bytes::from_owner(self.clone())
    }
}

impl AsRef<[u8]> for SharedBytes {
    fn as_ref(&self) -> &[u8] {
        &self.0.bytes
    }
}

impl Lasting {
    /// Those that somebody has, else those that are made.
    pub fn or_make(
        &self,
        make: impl FnOnce() -> Result<SharedBytes, Exhausted>,
    ) -> Result<SharedBytes, Exhausted> {
        let mut known = self.0.lock();
        if let Some(taken) = known.upgrade() {
            return Ok(SharedBytes(taken));
        }
        let made = make()?;
        *known = Arc::downgrade(&made.0);
        Ok(made)
    }
}

/// A share whose holder keeps the budget elsewhere, because there are many holders. Whoever has
/// one gives it back himself, by fitting it to 0.
#[derive(Debug, Default)]
pub struct Chunks(u32);

impl Chunks {
    /// As [`Share::fit`] does, of this budget, which is always the same.
    #[inline]
    pub fn fit(&mut self, bytes: usize, budget: &Budget) -> Result<(), Exhausted> {
        // A queue is looked at with each frame, and most are short.
        match bytes <= FREE && self.0 == 0 {
            true => Ok(()),
            false => self.refit(bytes, budget),
        }
    }

    fn refit(&mut self, bytes: usize, budget: &Budget) -> Result<(), Exhausted> {
        let taken = self.0 as usize * CHUNK;
        let Some(wanted) = fitting(bytes, taken) else {
            return Ok(());
        };
        match wanted.checked_sub(taken) {
            Some(more) => budget.take(more, wanted)?,
            None => budget.give(taken - wanted),
        }
        // No limit of a single holder comes near to 2^32 chunks.
        self.0 = (wanted / CHUNK) as u32;
        Ok(())
    }
}

/// What one who needs `bytes` is to have taken in place of what it has; none if that is right.
fn fitting(bytes: usize, taken: usize) -> Option<usize> {
    let wanted = match bytes {
        0..=FREE => 0,
        _ => bytes.div_ceil(CHUNK) * CHUNK,
    };
    // Who comes and goes around a chunk's end does not take and give each time.
    let is_right = wanted <= taken && taken - wanted <= CHUNK && (wanted > 0 || taken == 0);
    (!is_right).then_some(wanted)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::sync::Mutex;

    #[test]
    fn what_is_small_takes_nothing() {
        let budget = Budget::new("test", 1 << 20);
        let mut share = budget.empty_share();
        share.fit(FREE).unwrap();
        assert_eq!(budget.used(), 0);
        share.fit(FREE + 1).unwrap();
        assert_eq!(budget.used(), CHUNK);
        share.fit(CHUNK + 1).unwrap();
        assert_eq!(budget.used(), 2 * CHUNK);
        share.fit(FREE + 1).unwrap();
        assert_eq!(budget.used(), 2 * CHUNK, "it may need it again");
        share.fit(1).unwrap();
        assert_eq!(budget.used(), 0);
    }

    #[test]
    fn what_is_held_is_given_back_with_its_holder() {
        let budget = Budget::new("test", 1 << 20);
        let one = budget.share(1_000).unwrap();
        let mut chunks = Chunks::default();
        chunks.fit(100_000, &budget).unwrap();
        assert_eq!(budget.used(), 1_000 + 7 * CHUNK);
        drop(one);
        chunks.fit(0, &budget).unwrap();
        assert_eq!(budget.used(), 0);
    }

    #[test]
    fn the_last_quarter_is_for_those_who_hold_little() {
        let budget = Budget::new("test", 1 << 20);
        let mut much = budget.share(3 << 18).unwrap();
        assert!(!budget.is_pressed());
        let refused = much.set((3 << 18) + 1).unwrap_err();
        assert_eq!(refused, budget.exhausted());
        assert_eq!(much.taken(), 3 << 18, "it has what it had");
        let little: Vec<Share> = (0..4).map(|_| budget.share(LITTLE).unwrap()).collect();
        assert!(budget.is_pressed());
        assert_eq!(budget.used(), budget.limit());
        assert!(budget.share(1).is_err());
        drop((much, little));
        assert_eq!((budget.used(), budget.refused()), (0, 2));
    }

    #[test]
    fn what_is_owed_is_counted_and_given_back() {
        let budget = Budget::new("test", 100);
        let larger = budget.share(100).unwrap();
        let smaller = budget.owe(60);
        assert_eq!(budget.used(), 160);
        drop(larger);
        assert!(budget.share(41).is_err());
        drop(smaller);
        assert_eq!(budget.used(), 0);
    }

    #[tokio::test]
    async fn who_can_make_room_is_told() {
        let budget = Budget::new("test", 100);
        let share = budget.share(80).unwrap();
        budget.pressed().await;
        assert!(budget.share(21).is_err());
        budget.pressed().await;
        drop(share);
    }

    /// Holds all there is, until it is asked for room.
    struct Holding {
        held: Mutex<Option<Share>>,
        asked: AtomicU64,
    }

    impl Relief for Holding {
        fn make_room(&self) {
            self.asked.fetch_add(1, Ordering::Relaxed);
            *self.held.lock() = None;
        }
    }

    #[test]
    fn others_give_back_before_anybody_is_refused() {
        let budget = Budget::new("test", 1 << 20);
        let holding = Arc::new(Holding {
            held: Mutex::new(Some(budget.share(3 << 18).unwrap())),
            asked: AtomicU64::new(0),
        });
        let relief: Arc<dyn Relief> = holding.clone();
        budget.relieved_by(Arc::downgrade(&relief));
        let asked = || holding.asked.load(Ordering::Relaxed);
        assert!(budget.share(1 << 19).is_err());
        assert_eq!(asked(), 0);
        let share = budget.relieved(|| budget.share(1 << 19)).unwrap();
        assert_eq!((share.taken(), asked()), (1 << 19, 1));
        // Nobody gives anything back for what never fits.
        let never = budget.relieved(|| budget.share(1 << 20)).unwrap_err();
        assert!(never.is_for_good());
        assert_eq!(asked(), 1);
        // Nor is it asked again and again.
        let refused = budget.relieved(|| budget.share(1 << 19)).unwrap_err();
        assert!(!refused.is_for_good());
        assert_eq!(asked(), 2);
    }

    #[test]
    fn what_never_fits_is_told_apart_from_what_does_not_fit_now() {
        let budget = Budget::new("test", 1 << 20);
        let never = budget.share((3 << 18) + 1).unwrap_err();
        assert!(never.is_for_good());
        let params = never.failure().params.unwrap();
        assert_eq!(params.get("retryAfterMs"), None);
        let _held = budget.share(1 << 18).unwrap();
        assert!(!budget.share(3 << 18).unwrap_err().is_for_good());
    }

    #[test]
    fn a_refusal_says_which_budget_and_when_to_try_again() {
        let budget = Budget::new("inputs", 1);
        let _held = budget.share(1).unwrap();
        let failure = budget.share(1).unwrap_err().failure();
        assert_eq!((&*failure.code, failure.status), ("host.memory", 503));
        let params = failure.params.unwrap();
        assert_eq!(params["budget"], "inputs");
        assert_eq!(params["retryAfterMs"], RETRY_AFTER_MS);
    }
}

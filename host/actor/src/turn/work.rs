//! Long work of the host for a turn: on a worker's thread, charged while it is done, under the
//! turn's deadline.
//!
//! Most of what a turn asks of its host is little, and done where it is asked for, within
//! [`AT_ONCE`] steps. What takes more is begun anew on one of the [`tidegate_base::workers`], while the
//! guest waits and its thread serves others. Meanwhile the document is not in the parts: whoever
//! wants it waits for it, and nobody waits for the parts' lock. What a commit writes is still made
//! under that lock, on a worker's thread where it is long: whoever needs the parts waits for that.
//!
//! Invariant: the document comes back, whatever becomes of the work and of who waits for it; what
//! was staged by a turn that was given up meanwhile is rolled back then.

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use tidegate_base::sync::{Mutex, MutexGuard};
use tidegate_core::failure::code;
use tidegate_core::json::ParseError;
use tidegate_core::meter::{Allowance, Exhausted, Meter, STEP_BYTES};
use tidegate_core::{Document, Failure, Json};
use tidegate_engine::Component;
use tokio::runtime::{Handle, RuntimeFlavor};
use tokio_util::sync::CancellationToken;

use crate::state::{ActorState, Parts};

/// Steps that are taken where they are asked for: a millisecond or less.
const AT_ONCE: u64 = 20_000;
/// The longest text that is read, or written, where it is asked for, in bytes.
const TEXT_AT_ONCE: usize = 128 << 10;
/// How often a thread that cannot be told looks for a document.
const LOOK_AGAIN: Duration = Duration::from_millis(1);
/// How often the clock is looked at, in steps.
const STEPS_PER_LOOK: u64 = 16_384;

/// The steps of one turn.
#[derive(Clone, Debug)]
pub(crate) struct Budget {
    limit: u64,
    left: u64,
}

impl Budget {
    pub(crate) fn new(limit: u64) -> Budget {
        Budget { limit, left: limit }
    }

    /// Begins anew.
    pub(crate) fn refill(&mut self) {
        self.left = self.limit;
    }

    /// What may be taken at once.
    pub(crate) fn at_once(&self) -> Allowance {
        Allowance::new(self.left.min(AT_ONCE))
    }

    /// Takes what was used of a copy, which was filled so far before. It may have been refilled
    /// itself meanwhile.
    pub(crate) fn take_used(&mut self, before: &Budget, after: &Budget) {
        let used = before.left.saturating_sub(after.left);
        self.left = self.left.saturating_sub(used);
    }

    /// Takes what was used of that.
    pub(crate) fn settle(&mut self, allowance: &Allowance) {
        let used = self.left.min(AT_ONCE) - allowance.left();
        self.left -= used;
    }
}

/// Whether a text is short enough to be dealt with where it is.
pub(crate) fn is_short(bytes: usize) -> bool {
    bytes <= TEXT_AT_ONCE
}

/// Counts the steps of one turn, and ends where it has no more of them, no more time, or nobody
/// waits any longer.
pub(crate) struct TurnMeter {
    budget: Budget,
    deadline: Instant,
    until_look: u64,
    gone: Arc<AtomicBool>,
    is_late: bool,
}

impl TurnMeter {
    fn new(budget: Budget, deadline: Instant, gone: Arc<AtomicBool>) -> TurnMeter {
        TurnMeter {
            budget,
            deadline,
            until_look: 0,
            gone,
            is_late: false,
        }
    }

    /// Why it has ended.
    pub(crate) fn failure(&self) -> Failure {
        match self.is_late {
            true => Failure::work_deadline(),
            false => Failure::turn_work_limit(self.budget.limit),
        }
    }

    /// Charges a text that is read or written.
    pub(crate) fn charge_text(&mut self, bytes: usize) -> Result<(), Failure> {
        let charged = self.charge((bytes / STEP_BYTES) as u64 + 1);
        charged.map_err(|Exhausted| self.failure())
    }

    /// A JSON text as a value, which takes so many bytes of memory at most.
    pub(crate) fn parse(
        &mut self,
        text: &str,
        most: usize,
        refused: impl FnOnce(ParseError) -> Failure,
    ) -> Result<Json, Failure> {
        self.charge_text(text.len())?;
        Json::parse_within(text, most).map_err(refused)
    }
}

impl Meter for TurnMeter {
    fn charge(&mut self, steps: u64) -> Result<(), Exhausted> {
        self.budget.left = self.budget.left.checked_sub(steps).ok_or(Exhausted)?;
        if self.until_look > steps {
            self.until_look -= steps;
            return Ok(());
        }
        self.until_look = STEPS_PER_LOOK;
        self.is_late = self.gone.load(Ordering::Relaxed) || Instant::now() >= self.deadline;
        match self.is_late {
            true => Err(Exhausted),
            false => Ok(()),
        }
    }
}

/// Says when whoever waits for some work is gone.
struct Waits(Arc<AtomicBool>);

impl Drop for Waits {
    fn drop(&mut self) {
        self.0.store(true, Ordering::SeqCst);
    }
}

fn failed() -> Failure {
    Failure::host_failed()
}

/// Has work done elsewhere, under this budget and deadline; what is left of the budget comes back.
pub(crate) async fn elsewhere<T: Send + 'static>(
    component: &Component,
    budget: &mut Budget,
    deadline: Instant,
    work: impl FnOnce(&mut TurnMeter) -> Result<T, Failure> + Send + 'static,
) -> Result<T, Failure> {
    let gone = Arc::new(AtomicBool::new(false));
    let _waits = Waits(gone.clone());
    let mut meter = TurnMeter::new(budget.clone(), deadline, gone);
    let worked = move || {
        // It may have waited for long.
        let done = match meter.charge(0) {
            Ok(()) => work(&mut meter),
            Err(Exhausted) => Err(meter.failure()),
        };
        (done, meter.budget)
    };
    let (done, left) = component.aside(worked).await?;
    *budget = left;
    done
}

/// Does work here within what may be taken at once; where that does not suffice, it is done anew
/// elsewhere.
pub(crate) async fn at_once_or_elsewhere<T: Send + 'static>(
    component: &Component,
    deadline: Instant,
    work: impl Fn(&mut TurnMeter) -> Result<T, Failure> + Send + 'static,
) -> Result<T, Failure> {
    let mut budget = Budget::new(component.limits().work_steps);
    let little = Budget {
        left: budget.left.min(AT_ONCE),
        ..budget
    };
    let mut meter = TurnMeter::new(little, deadline, Arc::default());
    match work(&mut meter) {
        Err(failure) if failure.code == code::TURN_WORK_LIMIT => {
            elsewhere(component, &mut budget, deadline, work).await
        }
        done => done,
    }
}

/// A document that is out of its parts.
struct Lent {
    live: Arc<ActorState>,
    document: Mutex<Option<Document>>,
    gone: Arc<AtomicBool>,
}

impl Lent {
    fn document(&self) -> MutexGuard<'_, Option<Document>> {
        self.document.lock()
    }

    fn give_back(&self, document: Document) {
        let mut parts = self.live.parts();
        parts.history.document = document;
        if self.gone.load(Ordering::SeqCst) {
            parts.history.rollback();
        }
        let lent = parts.history.lent.take();
        drop(parts);
        if let Some(lent) = lent {
            lent.cancel();
        }
    }
}

/// Whoever waits for work on a document: gone, it wants it back at once where that has not begun.
struct Borrower(Arc<Lent>);

impl Drop for Borrower {
    fn drop(&mut self) {
        self.0.gone.store(true, Ordering::SeqCst);
        let document = self.0.document().take();
        if let Some(document) = document {
            self.0.give_back(document);
        }
    }
}

impl Parts {
    /// Whether the committed state can be told at once: the document is here, or its text.
    pub(crate) fn is_at_hand(&self) -> bool {
        self.history.lent.is_none() || self.shown.encoded.is_some()
    }
}

impl ActorState {
    /// Has work done on the document elsewhere. Only within a turn, or between turns.
    pub(crate) async fn on_document<T: Send + 'static>(
        self: &Arc<Self>,
        component: &Component,
        budget: &mut Budget,
        deadline: Instant,
        work: impl FnOnce(&mut Document, &mut TurnMeter) -> Result<T, Failure> + Send + 'static,
    ) -> Result<T, Failure> {
        let gone = Arc::new(AtomicBool::new(false));
        let lent = loop {
            self.at_rest().await;
            let mut parts = self.parts();
            if parts.history.lent.is_some() {
                continue;
            }
            parts.history.lent = Some(CancellationToken::new());
            let document =
                std::mem::replace(&mut parts.history.document, Document::new(Json::Null));
            break Arc::new(Lent {
                live: self.clone(),
                document: Mutex::new(Some(document)),
                gone: gone.clone(),
            });
        };
        let borrower = Borrower(lent.clone());
        let mut meter = TurnMeter::new(budget.clone(), deadline, gone);
        let worked = move || {
            let Some(mut document) = lent.document().take() else {
                return Err(failed());
            };
            let done = catch_unwind(AssertUnwindSafe(|| match meter.charge(0) {
                Ok(()) => work(&mut document, &mut meter),
                Err(Exhausted) => Err(meter.failure()),
            }));
            if done.is_err() {
                // What it is like nobody knows: the actor is loaded again.
                lent.live.gate.break_off(failed());
            }
            lent.give_back(document);
            done.map(|done| (done, meter.budget)).map_err(|_| failed())
        };
        let worked = component.aside(worked).await;
        drop(borrower);
        let (done, left) = worked.flatten()?;
        *budget = left;
        done
    }

    /// Waits until the document is in the parts.
    pub async fn at_rest(&self) {
        loop {
            let lent = self.parts().history.lent.clone();
            match lent {
                Some(lent) => lent.cancelled().await,
                None => return,
            }
        }
    }

    /// The parts, locked, with the document in it. Whoever can wait has done so before.
    pub(crate) fn parts_at_rest(&self) -> MutexGuard<'_, Parts> {
        loop {
            let parts = self.parts();
            let Some(lent) = parts.history.lent.clone() else {
                return parts;
            };
            drop(parts);
            // It was lent in between. Others go on meanwhile.
            match Handle::try_current() {
                Ok(runtime) if runtime.runtime_flavor() == RuntimeFlavor::MultiThread => {
                    tokio::task::block_in_place(|| runtime.block_on(lent.cancelled()));
                }
                _ => std::thread::sleep(LOOK_AGAIN),
            }
        }
    }
}

//! The output gate of one record: what is let out leaves in the order of its commits, and each
//! thing only when every commit before it is safe.
//!
//! Whoever changes the record enters the commits and what depends on them, and may go on
//! meanwhile. While nothing is under way the gate is open, and costs one lock.
//!
//! Invariants: things leave in the order in which they entered; what entered behind a
//! commit that failed, never leaves, but is told why.

use std::collections::VecDeque;
use std::fmt;
use std::pin::{Pin, pin};
use std::sync::Arc;

use tidegate_base::gather::{Gather, while_ready};
use tidegate_base::sync::{Mutex, MutexGuard};
use tidegate_core::Failure;
use tokio::sync::oneshot;

type Boxed<T> = Pin<Box<dyn Future<Output = T> + Send>>;

/// What leaves, or is told why it does not.
type Departure = Box<dyn FnOnce(Result<(), Failure>) -> Boxed<()> + Send>;

/// A gate, and where what leaves it gathers.
#[derive(Default)]
pub struct Gate<G = ()> {
    line: Mutex<Line>,
    batch: G,
}

#[derive(Default)]
struct Line {
    entries: VecDeque<Entry>,
    /// A task lets out what is there.
    attended: bool,
    /// Commits that are not known to be safe.
    commits: usize,
    /// Why nothing leaves any more.
    broken: Option<Failure>,
}

enum Entry {
    Commit(Boxed<Result<(), Failure>>),
    Departure(Departure),
}

impl<G> fmt::Debug for Gate<G> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let line = self.line.lock();
        f.debug_struct("Gate")
            .field("entries", &line.entries.len())
            .field("broken", &line.broken)
            .finish_non_exhaustive()
    }
}

impl<G: Gather> Gate<G> {
    /// One that gathers what leaves here.
    pub fn new(batch: G) -> Gate<G> {
        Gate {
            line: Mutex::default(),
            batch,
        }
    }

    /// Where what leaves may gather.
    pub fn batch(&self) -> &G {
        &self.batch
    }

    fn line(&self) -> MutexGuard<'_, Line> {
        self.line.lock()
    }

    /// Holds back all that comes until this commit is safe.
    pub fn commit(
        self: &Arc<Self>,
        commit: impl Future<Output = Result<(), Failure>> + Send + 'static,
    ) {
        let mut line = self.line();
        line.commits += 1;
        line.entries.push_back(Entry::Commit(Box::pin(commit)));
        self.attend(line);
    }

    /// Lets something out when everything before it has left. Returns it if it may leave
    /// right now, for the caller to see to.
    #[must_use = "what is returned has not left"]
    pub fn leave<D, F>(self: &Arc<Self>, departure: D) -> Option<D>
    where
        D: FnOnce(Result<(), Failure>) -> F + Send + 'static,
        F: Future<Output = ()> + Send + 'static,
    {
        let mut line = self.line();
        if line.entries.is_empty() && !line.attended && line.broken.is_none() {
            return Some(departure);
        }
        let boxed: Departure = Box::new(|outcome| Box::pin(departure(outcome)));
        line.entries.push_back(Entry::Departure(boxed));
        self.attend(line);
        None
    }

    /// Completes when everything that has entered so far has left; fails when the gate is
    /// broken by then.
    pub fn passed(self: &Arc<Self>) -> impl Future<Output = Result<(), Failure>> + Send + 'static {
        let waits = match self.is_open() {
            true => None,
            false => {
                let (told, passed) = oneshot::channel();
                let open = self.leave(async move |outcome| drop(told.send(outcome)));
                open.is_none().then_some(passed)
            }
        };
        async move {
            match waits {
                // The gate's task tells everything that enters.
                Some(passed) => passed.await.unwrap_or_else(|_| Err(Failure::host_failed())),
                None => Ok(()),
            }
        }
    }

    /// Whether nothing is under way.
    fn is_open(&self) -> bool {
        let line = self.line();
        line.entries.is_empty() && !line.attended && line.broken.is_none()
    }

    /// Whether all that was committed is safe.
    pub fn is_safe(&self) -> bool {
        let line = self.line();
        line.commits == 0 && line.broken.is_none()
    }

    /// Commits that are not known to be safe.
    pub fn commits(&self) -> usize {
        self.line().commits
    }

    /// Why nothing leaves any more, if so.
    pub fn broken(&self) -> Option<Failure> {
        self.line().broken.clone()
    }

    /// Lets nothing out any more, for this reason.
    pub fn break_off(&self, failure: Failure) {
        self.line().broken.get_or_insert(failure);
    }

    fn attend(self: &Arc<Self>, mut line: MutexGuard<'_, Line>) {
        if !std::mem::replace(&mut line.attended, true) {
            tokio::spawn(attend(self.clone()));
        }
    }
}

/// Lets out what is in line until nothing is.
async fn attend<G: Gather>(gate: Arc<Gate<G>>) {
    let mut attendant = Attendant {
        gate: gate.clone(),
        is_done: false,
    };
    // What one sync made safe leaves together.
    let mut gathering = None;
    loop {
        let (entry, is_last) = {
            let mut line = gate.line();
            let Some(entry) = line.entries.pop_front() else {
                // From here on another may attend.
                attendant.is_done = true;
                line.attended = false;
                return;
            };
            (entry, line.entries.is_empty())
        };
        match entry {
            Entry::Commit(commit) => {
                let outcome = while_ready(&mut gathering, pin!(commit)).await;
                let mut line = gate.line();
                line.commits -= 1;
                if let Err(failure) = outcome {
                    line.broken.get_or_insert(failure);
                }
            }
            Entry::Departure(departure) => {
                let outcome = gate.broken().map_or(Ok(()), Err);
                if !is_last && gathering.is_none() {
                    gathering = Some(gate.batch.gather());
                }
                while_ready(&mut gathering, pin!(departure(outcome))).await;
                gathering = gathering.filter(|gathering| !is_last && !G::is_due(gathering));
            }
        }
    }
}

/// Keeps a panic of the host's own code from holding up what is in line for ever: it breaks
/// the gate.
struct Attendant<G: Gather> {
    gate: Arc<Gate<G>>,
    is_done: bool,
}

impl<G: Gather> Drop for Attendant<G> {
    fn drop(&mut self) {
        if !self.is_done {
            let mut line = self.gate.line();
            line.attended = false;
            line.commits = 0;
            line.broken.get_or_insert_with(Failure::host_failed);
            let entries = std::mem::take(&mut line.entries);
            drop(line);
            drop(entries);
        }
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use proptest::prelude::*;
    use tidegate_delivery::write_batch::WriteBatch;
    use tidegate_testkit::receiver::{Receiver, Told};
    use tokio::sync::mpsc;

    use super::*;

    type Seen = mpsc::UnboundedSender<(u32, bool)>;

    /// Lets out a number, and notes whether it left.
    async fn leave(gate: &Arc<Gate>, number: u32, seen: &Seen) {
        let seen = seen.clone();
        let departure = async move |outcome: Result<(), Failure>| {
            seen.send((number, outcome.is_ok())).unwrap();
        };
        if let Some(departure) = gate.leave(departure) {
            departure(Ok(())).await;
        }
    }

    fn failure() -> Failure {
        Failure::store_unavailable()
    }

    #[tokio::test]
    async fn an_open_gate_holds_nothing_back() {
        let gate = Arc::new(Gate::new(()));
        let (seen, mut sees) = mpsc::unbounded_channel();
        leave(&gate, 1, &seen).await;
        assert_eq!(sees.try_recv(), Ok((1, true)));
        assert_eq!(gate.passed().await, Ok(()));
    }

    #[tokio::test]
    async fn a_task_that_ends_while_the_next_begins_breaks_nothing() {
        let gate = Arc::new(Gate::new(WriteBatch::new(Duration::from_secs(600))));
        // A receiver that has the gate take another commit as it is written to.
        let busy = {
            let gate = gate.clone();
            Receiver::new("busy", move |told| {
                if told == Told::Release {
                    gate.commit(async { Ok(()) });
                }
            })
        };
        gate.commit(async { Ok(()) });
        let held = gate.clone();
        let departure = async move |outcome: Result<(), Failure>| {
            assert_eq!(outcome, Ok(()));
            held.batch().add(&busy);
        };
        assert!(gate.leave(departure).is_none());
        // Behind it, so that what it lets out is still held when the line is empty.
        gate.commit(async { Ok(()) });
        while !gate.is_open() && gate.broken().is_none() {
            tokio::task::yield_now().await;
        }
        assert_eq!(gate.passed().await, Ok(()));
        assert_eq!(gate.broken(), None);
    }

    #[tokio::test]
    async fn nothing_leaves_before_the_commits_in_front_of_it() {
        let gate = Arc::new(Gate::new(()));
        let (seen, mut sees) = mpsc::unbounded_channel();
        let (first, first_done) = oneshot::channel();
        let (second, second_done) = oneshot::channel();
        gate.commit(async { first_done.await.unwrap() });
        leave(&gate, 1, &seen).await;
        gate.commit(async { second_done.await.unwrap() });
        leave(&gate, 2, &seen).await;
        assert_eq!(gate.commits(), 2);
        // Safe, but its turn has not come.
        second.send(Ok(())).unwrap();
        tokio::task::yield_now().await;
        assert!(sees.try_recv().is_err());
        first.send(Ok(())).unwrap();
        assert_eq!(sees.recv().await, Some((1, true)));
        assert_eq!(sees.recv().await, Some((2, true)));
        assert_eq!(gate.passed().await, Ok(()));
        assert_eq!(gate.commits(), 0);
    }

    #[tokio::test]
    async fn what_built_on_a_failed_commit_is_told() {
        let gate = Arc::new(Gate::new(()));
        let (seen, mut sees) = mpsc::unbounded_channel();
        gate.commit(std::future::ready(Ok(())));
        leave(&gate, 1, &seen).await;
        gate.commit(std::future::ready(Err(failure())));
        leave(&gate, 2, &seen).await;
        gate.commit(std::future::ready(Ok(())));
        leave(&gate, 3, &seen).await;
        assert_eq!(sees.recv().await, Some((1, true)));
        assert_eq!(sees.recv().await, Some((2, false)));
        assert_eq!(sees.recv().await, Some((3, false)));
        assert_eq!(gate.passed().await, Err(failure()));
        leave(&gate, 4, &seen).await;
        assert_eq!(sees.recv().await, Some((4, false)), "it stays broken");
    }

    #[tokio::test]
    async fn a_panic_breaks_it() {
        let gate = Arc::new(Gate::new(()));
        let (go, goes) = oneshot::channel::<()>();
        gate.commit(async {
            let _ = goes.await;
            panic!("on purpose");
        });
        let passed = gate.passed();
        go.send(()).unwrap();
        assert!(passed.await.is_err());
        assert!(gate.passed().await.is_err());
    }

    proptest! {
        #[test]
        fn all_leave_in_order_and_none_behind_a_failure(
            steps in proptest::collection::vec((0u8..4, 0u8..3), 1..40),
        ) {
            let runtime = tokio::runtime::Builder::new_current_thread().build().unwrap();
            runtime.block_on(async {
                let gate = Arc::new(Gate::new(()));
                let (seen, mut sees) = mpsc::unbounded_channel();
                let mut fails = false;
                let mut expected = Vec::new();
                for (number, (what, pauses)) in steps.into_iter().enumerate() {
                    match what {
                        0 | 1 => {
                            leave(&gate, number as u32, &seen).await;
                            expected.push((number as u32, !fails));
                        }
                        commit => {
                            // One in some fails, and each takes some time.
                            let bad = commit == 3 && pauses == 2;
                            fails |= bad;
                            gate.commit(async move {
                                for _ in 0..pauses {
                                    tokio::task::yield_now().await;
                                }
                                if bad { Err(failure()) } else { Ok(()) }
                            });
                        }
                    }
                    for _ in 0..pauses {
                        tokio::task::yield_now().await;
                    }
                }
                assert_eq!(gate.passed().await.is_err(), fails);
                let mut left = Vec::new();
                while let Ok(one) = sees.try_recv() {
                    left.push(one);
                }
                assert_eq!(left, expected);
            });
        }
    }
}

//! What the running turn has staged, and the guest's view of it. The rules are those of
//! `tidegate_core::turn`, as on the host.
//!
//! Invariant: a turn that is *live*, because something of it has left, holds the lease.

use std::cell::RefCell;
use std::rc::Rc;
use std::time::{Duration, Instant};

use tidegate_core::meter::{Allowance, Exhausted, Meter, STEP_BYTES};
use tidegate_core::turn::mail::{self, Unsettled};
use tidegate_core::turn::state::{self, Before};
use tidegate_core::turn::{Answer, Checked, IdempotencyKey, Limits, Outcome, Staged, check};
use tidegate_core::{ActorKey, Document, Failure, Json, PatchOp};
use tidegate_spin_base::database::{self, Database, DatabaseError};
use tidegate_spin_base::response::Response;
use tidegate_spin_base::signature::ActorRef;
use tidegate_spin_base::{clock, settings, tables};

use crate::declared::{Against, Declared};
use crate::rows::{self, Commit, Lease, Leases, Place, Refusal};
use crate::timers::TimerRow;
use crate::{answers, messages};

/// What a turn may use: the host's defaults.
pub(crate) const LIMITS: Limits = Limits::DEFAULT;
/// How much longer than a turn its lease lasts, in milliseconds.
const LEASE_GRACE_MS: u64 = 1_000;
/// How long the end of a lease waits for the database before the answer.
const LEASE_END: Duration = Duration::from_millis(100);
/// How long a lease lasts without being renewed, in milliseconds, unless
/// `TIDEGATE_LEASE_MS` says otherwise: so long a turn that has crashed blocks its actor, and
/// so long a turn may be silent before another overtakes it.
const LEASE_MS: u64 = 15_000;

/// What all turns of a request share.
pub(crate) struct Request {
    /// The database.
    pub(crate) database: Database,
    /// The type of the actor that it is about.
    pub(crate) declared: Rc<Declared>,
    /// The answer.
    pub(crate) response: RefCell<Response>,
    /// The key of the application's components.
    pub(crate) internal_key: Option<Vec<u8>>,
    /// Whether the handler has no guard: the one that was asked is the shim's own.
    pub(crate) is_unguarded: std::cell::Cell<bool>,
    /// The messages that its turns have stored.
    pub(crate) sent: RefCell<Vec<u64>>,
    /// The leases that could not be ended at once, because others were writing.
    pub(crate) leases: RefCell<Vec<(ActorKey, Lease)>>,
    /// Whether it makes room in the outbox once it is answered.
    pub(crate) prunes: std::cell::Cell<bool>,
}

/// Who hears parts of a result.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Listener {
    /// The client, as a stream of events.
    Client,
    /// Nobody hears it.
    Nobody,
}

/// What a turn begins with.
pub(crate) struct Given {
    /// The request that it belongs to.
    pub(crate) request: Rc<Request>,
    /// The actor.
    pub(crate) key: ActorKey,
    /// Its type.
    pub(crate) declared: Rc<Declared>,
    /// Where it is.
    pub(crate) place: Place,
    /// Its state.
    pub(crate) state: Json,
    /// The actors that wait for it.
    pub(crate) chain: Vec<ActorRef>,
    /// Its trace context.
    pub(crate) traceparent: Option<String>,
    /// Who hears parts of its result.
    pub(crate) listener: Listener,
    /// The call, if it is to run once.
    pub(crate) keyed: Option<IdempotencyKey>,
    /// The time that it has.
    pub(crate) time: Time,
    /// How often what it stages is committed while it runs.
    pub(crate) streaming: Option<Duration>,
    /// What becomes of the timer that it is the turn of.
    pub(crate) fired: Option<TimerRow>,
    /// What may be done with the state.
    pub(crate) mode: Mode,
}

/// The time that a turn has. While it waits for the database, because others write, it stands
/// still, for as long as one statement may wait at most.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Time {
    /// How much.
    pub(crate) limit_ms: u64,
    /// When it began, in milliseconds since the Unix epoch.
    pub(crate) begun_ms: u64,
    /// When nobody waits for the turn any longer, whatever it waits for itself.
    pub(crate) caller_until_ms: Option<u64>,
    /// How long the request had waited for the database when it began, and not as a turn.
    waited_before: Duration,
}

impl Time {
    /// So much from now on.
    pub(crate) fn new(limit_ms: u64, caller_until_ms: Option<u64>, database: &Database) -> Time {
        Time {
            limit_ms,
            begun_ms: clock::unix_ms(),
            caller_until_ms,
            waited_before: database.waited(),
        }
    }

    /// When it is over, in milliseconds since the Unix epoch.
    pub(crate) fn end_ms(&self, waited: Duration) -> u64 {
        let waited = waited.saturating_sub(self.waited_before).as_millis();
        let waited_ms = u64::try_from(waited).unwrap_or(u64::MAX);
        let end_ms = self
            .begun_ms
            .saturating_add(self.limit_ms)
            .saturating_add(waited_ms.min(database::wait_ms()));
        self.caller_until_ms
            .map_or(end_ms, |until| until.min(end_ms))
    }
}

/// What a guest may do.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Mode {
    /// It is a turn.
    Turn,
    /// It is a guard, which looks at the last committed state.
    Look,
}

/// What a turn has staged so far.
pub(crate) struct Stage {
    pub(crate) given: Given,
    pub(crate) document: Document,
    pub(crate) token: u64,
    /// With the names and payloads of events.
    pub(crate) staged: Staged<(String, String)>,
    /// What is left of the work that its data may take.
    work: Allowance,
    /// What its commits have sent that has not arrived, once that was asked.
    unsettled: Option<Unsettled>,
    next_tick: Instant,
    lease: Option<Lease>,
    /// Somebody else was faster: it can come to nothing, and runs again.
    doomed: bool,
    /// Something of it has left.
    live: bool,
}

thread_local! {
    static STAGE: RefCell<Option<Stage>> = const { RefCell::new(None) };
    static NEXT_TOKEN: std::cell::Cell<u64> = const { std::cell::Cell::new(1) };
}

/// Whether a commit is the turn's last.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Last {
    /// Its lease ends with it.
    Yes,
    /// The turn goes on.
    No,
}

/// How a turn ended.
pub(crate) enum End {
    /// Its commit is made.
    Committed,
    /// Somebody else was faster, and nothing of it has left: it runs again.
    Again,
    /// It failed.
    Failed(Failure),
}

/// Puts a stage where the guest's imports find it.
pub(crate) fn enter(stage: Stage) {
    STAGE.set(Some(stage));
}

/// Takes it back.
pub(crate) fn leave() -> Stage {
    STAGE.take().expect("a turn that was begun is there")
}

/// The stage of the running turn. Outside of one this ends the guest, as the contract says.
pub(crate) fn with<T>(run: impl FnOnce(&mut Stage) -> T) -> T {
    STAGE.with_borrow_mut(|stage| match stage {
        Some(stage) => run(stage),
        None => panic!("an import was called outside a turn"),
    })
}

pub(crate) fn next_token() -> u64 {
    NEXT_TOKEN.replace(NEXT_TOKEN.get() + 1)
}

impl Stage {
    /// The beginning of a turn.
    pub(crate) fn new(mut given: Given) -> Stage {
        let state = std::mem::take(&mut given.state);
        Stage {
            next_tick: Instant::now() + given.streaming.unwrap_or_default(),
            document: Document::new(state),
            token: next_token(),
            given,
            staged: Staged::new(LIMITS),
            work: Allowance::new(LIMITS.work_steps),
            unsettled: None,
            lease: None,
            doomed: false,
            live: false,
        }
    }

    /// The stage with a lease that was taken before.
    #[must_use]
    pub(crate) fn with_lease(mut self, lease: Option<Lease>) -> Stage {
        self.lease = lease;
        self
    }

    /// Refuses what a guard may not do.
    pub(crate) fn check_mode(&self) -> Result<(), Failure> {
        match self.given.mode {
            Mode::Turn => Ok(()),
            Mode::Look => Err(Failure::state_read_only()),
        }
    }

    /// Charges what is staged.
    pub(crate) fn charge(&mut self, bytes: usize) -> Result<(), Failure> {
        self.staged.account.charge(bytes).map(drop)
    }

    /// Charges the work of reading a text.
    pub(crate) fn charge_text(&mut self, bytes: usize) -> Result<(), Failure> {
        let charged = self.work.charge((bytes / STEP_BYTES) as u64 + 1);
        charged.map_err(|Exhausted| self.exceed(out_of_work()))
    }

    /// Notes a limit that was passed.
    pub(crate) fn exceed(&mut self, failure: Failure) -> Failure {
        self.staged.account.exceed(failure)
    }

    /// Changes the state, and names what it is now.
    pub(crate) fn write(
        &mut self,
        change: impl FnOnce(&mut Document, &mut Allowance) -> Result<(), Failure>,
    ) -> Result<u64, Failure> {
        // Until the guest says again that it is.
        self.staged.is_fit = false;
        let changed = change(&mut self.document, &mut self.work);
        changed.map_err(|failure| self.staged.account.note_work(failure))?;
        self.token = next_token();
        let checked = LIMITS.check_state(self.document.size());
        checked.map_err(|failure| self.exceed(failure))?;
        Ok(self.token)
    }

    /// Checks a JSON text, if there is anything against that.
    pub(crate) fn check_text(
        &mut self,
        against: Option<Against<'_>>,
        text: &str,
    ) -> Result<Checked, Failure> {
        let declared = &self.given.declared;
        let schema = match against {
            Some(against) => declared.schema(against)?,
            None => None,
        };
        let most = LIMITS.state_memory_bytes;
        match check::text(schema.as_ref(), text, most, &mut self.work) {
            Ok(checked) => {
                if checked.is_err()
                    && let Some(against) = against
                {
                    declared.confirm(against)?;
                }
                Ok(checked)
            }
            Err(Exhausted) => Err(self.exceed(out_of_work())),
        }
    }

    /// Whether the turn may send a further message.
    pub(crate) fn check_mail_room(&mut self) -> Result<(), Failure> {
        let unsettled = match self.unsettled {
            Some(unsettled) => unsettled,
            None => {
                let given = &self.given;
                let found = messages::unsettled(&given.request.database, &given.key)?;
                *self.unsettled.insert(found)
            }
        };
        unsettled.check_room(self.staged.sends.len(), mail::Bounds::DEFAULT)
    }

    /// Time that is left.
    pub(crate) fn left(&self) -> Duration {
        Duration::from_millis(self.deadline_ms().saturating_sub(clock::unix_ms()))
    }

    /// When the turn has to be over, in milliseconds since the Unix epoch.
    pub(crate) fn deadline_ms(&self) -> u64 {
        let waited = self.given.request.database.waited();
        self.given.time.end_ms(waited)
    }

    /// Has the time begin now, of a turn that could not begin before.
    pub(crate) fn begin_time(&mut self) {
        let (time, database) = (self.given.time, &self.given.request.database);
        self.given.time = Time::new(time.limit_ms, time.caller_until_ms, database);
    }

    /// Before something leaves that cannot be undone: from here on nobody else may commit,
    /// and the turn is not run again.
    pub(crate) fn go_live(&mut self) -> Result<(), Failure> {
        if self.doomed {
            return Err(Failure::actor_busy());
        }
        self.take_lease()?;
        self.live = true;
        Ok(())
    }

    /// Takes the lease, unless the turn has it.
    pub(crate) fn take_lease(&mut self) -> Result<(), Failure> {
        if self.lease.is_some() {
            return Ok(());
        }
        let until_ms = self.lease_until_ms();
        let given = &mut self.given;
        let taken = rows::take_lease(
            &given.request.database,
            &given.key,
            &mut given.place,
            &given.declared,
            until_ms,
        );
        match taken {
            Ok(lease) => {
                self.lease = Some(lease);
                Ok(())
            }
            Err(Refusal::Conflict) => {
                self.doomed = true;
                Err(Failure::actor_busy())
            }
            Err(Refusal::Database(error)) => Err(self.exceed(error.into())),
        }
    }

    fn lease_until_ms(&self) -> u64 {
        let now_ms = clock::unix_ms();
        let end_ms = self.deadline_ms().saturating_add(LEASE_GRACE_MS);
        now_ms.saturating_add(lease_ms()).min(end_ms)
    }

    /// Has the lease go on, when a good part of it is over. Every import does so.
    fn renew_lease(&mut self) -> Result<(), Failure> {
        let until_ms = self.lease_until_ms();
        let Some(lease) = &mut self.lease else {
            return Ok(());
        };
        let good_part = lease_ms() / 3;
        if lease.until_ms().saturating_add(good_part.max(1)) > until_ms {
            return Ok(());
        }
        let given = &self.given;
        let database = &given.request.database;
        match rows::renew_lease(database, &given.key, lease, until_ms) {
            Ok(true) => Ok(()),
            Ok(false) => Err(self.exceed(Failure::actor_busy())),
            // It is tried again, and the commit finds out in any case.
            Err(_) => Ok(()),
        }
    }

    /// The guest says that what is staged is fit to be seen.
    pub(crate) fn checkpoint(&mut self, now: bool) -> Result<(), Failure> {
        if self.given.streaming.is_none() {
            return Ok(());
        }
        self.staged.account.check()?;
        self.staged.is_fit = true;
        match now {
            true => self.tick(),
            false => self.tick_if_due(),
        }
    }

    /// Commits what is fit to be seen, if the last time is an interval ago. Every import
    /// does so: on Spin the guest's own calls are the only clock.
    pub(crate) fn tick_if_due(&mut self) -> Result<(), Failure> {
        self.renew_lease()?;
        match self.staged.is_fit && Instant::now() >= self.next_tick {
            true => self.tick(),
            false => Ok(()),
        }
    }

    fn tick(&mut self) -> Result<(), Failure> {
        self.go_live()?;
        let committed = match self.commit(Outcome::Begun, Last::No) {
            End::Committed => Ok(()),
            End::Again => Err(Failure::actor_busy()),
            End::Failed(failure) => Err(self.exceed(failure)),
        };
        // One that was late does not make the next ones so, nor are two in a row.
        let interval = self.given.streaming.unwrap_or_default();
        let grid = self.next_tick + interval;
        self.next_tick = grid.max(Instant::now() + interval / 2);
        committed
    }

    /// Commits the rest of what is staged, and the turn with it.
    pub(crate) fn finish(mut self, outcome: Outcome) -> End {
        let end = self.commit(outcome, Last::Yes);
        self.end_lease_unless(&end);
        end
    }

    /// Discards what is staged, and keeps only what becomes of a timer that has fired.
    pub(crate) fn discard(mut self, failure: Failure) -> End {
        let end = match self.doomed && !self.live {
            true => End::Again,
            false => {
                self.document.rollback();
                drop(self.staged.take());
                match self.write_out(None, None, Last::Yes) {
                    End::Again => End::Again,
                    End::Committed | End::Failed(_) => End::Failed(failure),
                }
            }
        };
        self.end_lease_unless(&end);
        end
    }

    /// Ends before the guest has run: its timer has not fired.
    pub(crate) fn abandon(self) {
        self.end_lease_unless(&End::Again);
    }

    fn end_lease_unless(&self, end: &End) {
        // A commit that was made has ended it.
        if let Some(lease) = &self.lease
            && !matches!(end, End::Committed)
        {
            self.end_lease(lease);
        }
    }

    /// Ends a lease, if need be once the request is answered.
    fn end_lease(&self, lease: &Lease) {
        let given = &self.given;
        let database = &given.request.database;
        let ended = rows::end_lease(database, &given.key, lease, LEASE_END);
        if ended == Err(DatabaseError::Busy) {
            let mut left = given.request.leases.borrow_mut();
            left.push((given.key.clone(), lease.clone()));
        }
    }

    /// Whether a turn can come to nothing but another attempt.
    pub(crate) fn is_doomed(&self) -> bool {
        self.doomed && !self.live
    }

    fn commit(&mut self, outcome: Outcome, last: Last) -> End {
        if let Err(exceeded) = self.staged.account.check() {
            return End::Failed(exceeded);
        }
        if clock::unix_ms() > self.deadline_ms() {
            let limit_ms = self.given.time.limit_ms;
            return End::Failed(Failure::turn_deadline(limit_ms));
        }
        self.staged.is_fit = false;
        let patches = match self.prepare() {
            Ok(patches) => patches,
            Err(failure) => return End::Failed(failure),
        };
        let keyed = self.given.keyed.as_ref();
        let answer = keyed.map(|keyed| keyed.answer(clock::unix_ms(), outcome, answers::bounds()));
        self.write_out(patches, answer, last)
    }

    /// The patch to commit, none when the state has not changed.
    fn prepare(&mut self) -> Result<Option<Vec<PatchOp>>, Failure> {
        if !self.document.is_dirty() {
            return Ok(None);
        }
        let declared = &self.given.declared;
        let schema = declared.schema(Against::State)?;
        // The state that a manifest begins with is checked by nobody here.
        let (schema, before) = (schema.as_ref(), Before::Unknown);
        let changes = state::changes(&mut self.document, schema, before, &mut self.work);
        let changes = changes.map_err(|Exhausted| out_of_work())?;
        if changes.is_err() {
            declared.confirm(Against::State)?;
        }
        let patches = changes?;
        if patches.is_none() {
            self.document.accept();
        }
        Ok(patches)
    }

    fn write_out(
        &mut self,
        patches: Option<Vec<PatchOp>>,
        answer: Option<Answer>,
        last: Last,
    ) -> End {
        let given = &mut self.given;
        let is_empty = patches.is_none()
            && self.staged.is_empty()
            && given.fired.is_none()
            && answer.is_none();
        // A turn that changes nothing is as good as one that ran when it was read.
        if is_empty {
            if last == Last::Yes
                && let Some(lease) = self.lease.take()
            {
                self.end_lease(&lease);
            }
            return End::Committed;
        }
        let is_new = !given.place.exists;
        // What the turn itself does to its timer comes later.
        let fired = given.fired.iter().cloned();
        let timers: Vec<TimerRow> = fired
            .chain(self.staged.timers.iter().map(TimerRow::of))
            .collect();
        let commit = Commit {
            state: (patches.is_some() || is_new).then(|| self.document.value()),
            patches,
            events: &self.staged.events,
            timers: &timers,
            messages: &self.staged.sends,
            answer,
        };
        let leases = Leases {
            mine: self.lease.as_ref(),
            next: self.lease.as_ref().filter(|_| last == Last::No),
        };
        let committed = rows::commit(
            &given.request.database,
            &given.key,
            &mut given.place,
            &given.declared,
            &commit,
            leases,
        );
        match committed {
            Ok(committed) => {
                let request = &given.request;
                request.sent.borrow_mut().extend(committed.sent);
                let prunes = tables::is_time_to_prune(committed.rows);
                request.prunes.set(request.prunes.get() || prunes);
                given.fired = None;
                self.document.accept();
                drop(self.staged.take());
                self.unsettled = None;
                self.work = Allowance::new(LIMITS.work_steps);
                if last == Last::Yes {
                    self.lease = None;
                }
                End::Committed
            }
            Err(Refusal::Conflict) if self.live => End::Failed(Failure::actor_busy()),
            Err(Refusal::Conflict) => {
                self.doomed = true;
                End::Again
            }
            Err(Refusal::Database(error)) => End::Failed(error.into()),
        }
    }

    /// Checks the result of a method: it must be JSON, and, where that is asked for, what
    /// the manifest says. Returns it with its integers written as such, none where they are.
    pub(crate) fn check_result(
        &mut self,
        method: &str,
        result: &str,
    ) -> Result<Option<String>, Failure> {
        self.charge(result.len())?;
        let validates = settings::number("TIDEGATE_VALIDATE_RESULTS", 0) != 0;
        let against = validates.then_some(Against::Output(method));
        let checked = self.check_text(against, result)?;
        checked.map_err(|detail| Failure::output_invalid(method).detail(detail))
    }
}

/// How long a lease lasts without being renewed.
fn lease_ms() -> u64 {
    settings::number("TIDEGATE_LEASE_MS", LEASE_MS)
}

/// `turn.work-limit`
pub(crate) fn out_of_work() -> Failure {
    Failure::turn_work_limit(LIMITS.work_steps)
}

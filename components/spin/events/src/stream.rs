//! One subscription as a stream of events: what was, then what the outbox gets.
//!
//! Invariant: where a guard decides, nobody is sent anything that it did not allow.

use std::time::{Duration, Instant};

use tidegate_core::{ActorId, Failure, Json, patch};
use tidegate_spin_base::database::{Database, DatabaseError, Row};
use tidegate_spin_base::head::{Head, Target};
use tidegate_spin_base::look::{Answer, Subject};
use tidegate_spin_base::response::{Response, Written};
use tidegate_spin_base::tokens::Identity;
use tidegate_spin_base::{clock, sse, tables, values};

use crate::poll::Pace;
use crate::question::Watcher;

/// How often a silent stream shows that it is alive.
const KEEP_ALIVE: Duration = Duration::from_secs(15);
/// Time from a commit until the guard is asked again: the host's `access.recheck-ms`.
const RECHECK: Duration = Duration::from_secs(1);
/// How often in a row a guard may fail when it is asked again.
const MAX_UNDECIDED: u32 = 3;
/// How many rows are read at once.
const ROWS: u64 = 256;

/// A row of the outbox.
struct Entry {
    seq: u64,
    kind: String,
    name: Option<String>,
    payload: Option<String>,
    extended: Option<String>,
    epoch: String,
    version: u64,
    from: u64,
}

impl Entry {
    fn of(mut row: Row) -> Result<Entry, DatabaseError> {
        Ok(Entry {
            seq: row.number()?,
            kind: row.text()?,
            name: row.optional_text()?,
            payload: row.optional_text()?,
            extended: row.optional_text()?,
            epoch: row.text()?,
            version: row.number()?,
            from: row.number()?,
        })
    }
}

/// What one subscriber has seen.
struct Stream<'a> {
    watcher: Watcher<'a>,
    database: Database,
    response: &'a mut Response,
    wants_str_ins: bool,
    epoch: String,
    /// The version that it has been told.
    version: u64,
    /// The last row of the outbox that it knows of.
    seq: u64,
    /// The document as it sees it, where a guard says what that is.
    view: Option<Json>,
    guarded: bool,
    /// The guard's author has it asked some time after a commit.
    recheck_later: bool,
    /// When the guard is asked again.
    recheck: Option<Instant>,
    undecided: u32,
    last_word: Instant,
}

/// Why a stream ends.
enum End {
    /// Its client is gone.
    Gone,
    /// It is told why.
    Refused(Failure),
}

impl From<Failure> for End {
    fn from(failure: Failure) -> End {
        End::Refused(failure)
    }
}

impl From<DatabaseError> for End {
    fn from(error: DatabaseError) -> End {
        End::Refused(error.into())
    }
}

/// Serves a subscription until it ends. Fails when it does not begin.
pub(crate) fn serve(
    head: &Head,
    target: &Target,
    identity: Option<Identity>,
    response: &mut Response,
) -> Result<(), Failure> {
    let (actor, id, what) = target.parts()?;
    ActorId::check(id)?;
    let subject = match what {
        "events" => Subject::Events,
        _ => Subject::State,
    };
    let user = identity.as_ref().map(|identity| identity.claims.as_str());
    let watcher = Watcher {
        actor,
        id,
        user,
        subject,
    };
    let first = watcher.ask(subject == Subject::State)?;
    let database = Database::open()?;
    response.begin_stream();
    let mut stream = Stream {
        watcher,
        database,
        response,
        wants_str_ins: head.wants_str_ins(),
        epoch: first.epoch.clone(),
        version: first.version,
        seq: first.seq,
        view: None,
        guarded: first.guarded,
        recheck_later: first.recheck_later,
        recheck: None,
        undecided: 0,
        last_word: Instant::now(),
    };
    let refused_from_ms = identity
        .as_ref()
        .and_then(|identity| identity.refused_from_ms);
    let begun = match subject {
        Subject::State => stream.begin(head, &first),
        // What is behind a subscriber of the events is over, but for one who comes back.
        Subject::Events => stream.come_back(head),
    };
    match begun.and_then(|()| stream.follow(refused_from_ms)) {
        Ok(()) | Err(End::Gone) => stream.response.end(),
        Err(End::Refused(failure)) => stream.response.fail(&failure),
    }
    Ok(())
}

impl Stream<'_> {
    fn say(&mut self, event: &str) -> Result<(), End> {
        self.last_word = Instant::now();
        match self.response.event(event) {
            Written::Sent => Ok(()),
            Written::Gone | Written::Late => Err(End::Gone),
        }
    }

    /// The state, or what leads there from what the client has seen.
    fn begin(&mut self, head: &Head, first: &Answer) -> Result<(), End> {
        if first.projected {
            return self.show(first);
        }
        let since = head.last_event().filter(|since| since.epoch == first.epoch);
        let Some(since) = since else {
            return self.show(first);
        };
        if since.version == first.version {
            self.version = since.version;
            return self.say_patch("[]", since.version, since.version);
        }
        // What lies in between is not for one who may have been shut out then.
        if self.asks_at_once() {
            return self.show(first);
        }
        let missed = self.missed(since.version, first)?;
        let is_whole = missed
            .first()
            .is_some_and(|patch| patch.from <= since.version);
        if !is_whole || since.version > first.version {
            return self.show(first);
        }
        self.version = since.version;
        for patch in missed {
            self.tell(&patch)?;
        }
        Ok(())
    }

    /// The patches behind a version, as far as they are kept.
    fn missed(&self, version: u64, until: &Answer) -> Result<Vec<Entry>, DatabaseError> {
        let rows = self.database.read(
            "SELECT seq, kind, name, payload, extended, epoch, version, from_version
             FROM tidegate_outbox
             WHERE actor = ?1 AND id = ?2 AND epoch = ?3 AND kind = 'patch' AND version > ?4
                AND seq <= ?5
             ORDER BY seq LIMIT ?6",
            &values![
                self.watcher.actor,
                self.watcher.id,
                &until.epoch,
                version,
                until.seq,
                ROWS
            ],
        )?;
        // More than that are told by a snapshot.
        match rows.len() as u64 == ROWS {
            true => Ok(Vec::new()),
            false => rows.into_iter().map(Entry::of).collect(),
        }
    }

    /// Goes on behind the event that a client has seen last.
    fn come_back(&mut self, head: &Head) -> Result<(), End> {
        if self.asks_at_once() {
            return Ok(());
        }
        let seen = head.text("last-event-id").and_then(|id| id.parse().ok());
        self.seq = seen.unwrap_or(self.seq).min(self.seq);
        Ok(())
    }

    /// Tells the whole state.
    fn show(&mut self, answer: &Answer) -> Result<(), End> {
        let state = answer.state.as_ref().map_or("null", |state| state.get());
        if answer.projected {
            let view = Json::parse(state);
            self.view = Some(view.map_err(damaged)?);
        }
        self.epoch.clone_from(&answer.epoch);
        self.version = answer.version;
        self.seq = self.seq.max(answer.seq);
        let (epoch, version) = (&self.epoch, self.version);
        let data = format!(r#"{{"state":{state},"epoch":"{epoch}","version":{version}}}"#);
        let place = sse::place(epoch, version);
        self.say(&sse::event("snapshot", Some(&place), &data))
    }

    fn say_patch(&mut self, patches: &str, from: u64, version: u64) -> Result<(), End> {
        let epoch = &self.epoch;
        let data = format!(
            r#"{{"patches":{patches},"epoch":"{epoch}","from":{from},"version":{version}}}"#
        );
        let place = sse::place(epoch, version);
        self.version = version;
        self.say(&sse::event("patch", Some(&place), &data))
    }

    /// Tells a patch, unless it is known.
    fn tell(&mut self, entry: &Entry) -> Result<(), End> {
        if entry.epoch == self.epoch && entry.version <= self.version {
            return Ok(());
        }
        if entry.epoch != self.epoch || entry.from > self.version {
            // Something in between is no more.
            let answer = self.watcher.ask(true)?;
            return self.show(&answer);
        }
        let extended = entry.extended.as_deref().filter(|_| self.wants_str_ins);
        let Some(patches) = extended.or(entry.payload.as_deref()) else {
            return Ok(());
        };
        self.say_patch(patches, entry.from, entry.version)
    }

    /// Tells what has changed of the client's view.
    fn look_again(&mut self) -> Result<(), End> {
        let answer = self.watcher.ask(true)?;
        let state = answer.state.as_ref().map_or("null", |state| state.get());
        let now = Json::parse(state).map_err(damaged)?;
        let before = match &self.view {
            Some(view) if answer.epoch == self.epoch && answer.projected => view,
            _ => return self.show(&answer),
        };
        let changes = patch::diff(before, &now);
        self.view = Some(now);
        self.seq = self.seq.max(answer.seq);
        match changes.is_empty() {
            true => Ok(()),
            false => self.say_patch(&patch::encode(&changes), self.version, answer.version),
        }
    }

    /// Tells what the outbox gets, until the client is gone, or may not see it any longer.
    fn follow(&mut self, refused_from_ms: Option<u64>) -> Result<(), End> {
        let mut pace = Pace::new();
        loop {
            if refused_from_ms.is_some_and(|end| clock::unix_ms() >= end) {
                return Err(Failure::auth_expired().into());
            }
            let begun = Instant::now();
            let entries = self.look()?;
            let took = begun.elapsed();
            let found = !entries.is_empty();
            self.take(entries)?;
            self.ask_again()?;
            if self.response.is_gone() {
                return Err(End::Gone);
            }
            if self.last_word.elapsed() >= KEEP_ALIVE {
                self.say(sse::KEEP_ALIVE)?;
            }
            clock::sleep(pace.next(found, took));
        }
    }

    /// What is new in the outbox.
    fn look(&self) -> Result<Vec<Entry>, DatabaseError> {
        let rows = tables::with(&self.database, || {
            self.database.read(
                "SELECT seq, kind, name, payload, extended, epoch, version, from_version
                 FROM tidegate_outbox WHERE actor = ?1 AND id = ?2 AND seq > ?3
                 ORDER BY seq LIMIT ?4",
                &values![self.watcher.actor, self.watcher.id, self.seq, ROWS],
            )
        });
        match rows {
            Ok(rows) => rows.into_iter().map(Entry::of).collect(),
            // It is looked at again.
            Err(DatabaseError::Busy) => Ok(Vec::new()),
            Err(error) => Err(error),
        }
    }

    /// Whether a guard decides before anything is told.
    fn asks_at_once(&self) -> bool {
        self.guarded && !self.recheck_later
    }

    fn take(&mut self, entries: Vec<Entry>) -> Result<(), End> {
        // The state may have changed also where nothing says so: in what is hidden. A guard that
        // says what is seen is asked both.
        if self.asks_at_once() && self.view.is_none() && !entries.is_empty() {
            self.guarded = self.watcher.ask(false)?.guarded;
        }
        let mut has_changed = false;
        for entry in &entries {
            let is_event = entry.kind == "event";
            has_changed |= !is_event;
            self.seq = self.seq.max(entry.seq);
            match self.watcher.subject {
                Subject::Events if is_event => {
                    let name = entry.name.as_deref().unwrap_or_default();
                    let payload = entry.payload.as_deref().unwrap_or("null");
                    let data = format!(r#"{{"event":"{name}","payload":{payload}}}"#);
                    let id = entry.seq.to_string();
                    self.say(&sse::event("event", Some(&id), &data))?;
                }
                Subject::State if !is_event && self.view.is_none() => self.tell(entry)?,
                _ => {}
            }
        }
        if has_changed && self.view.is_some() {
            self.look_again()?;
        }
        if has_changed && self.guarded && self.recheck_later && self.recheck.is_none() {
            self.recheck = Some(Instant::now() + RECHECK);
        }
        Ok(())
    }

    /// Asks the guard again, some time after a commit.
    fn ask_again(&mut self) -> Result<(), End> {
        if self.recheck.is_none_or(|at| Instant::now() < at) {
            return Ok(());
        }
        self.recheck = None;
        match self.watcher.ask(false) {
            Ok(answer) => {
                self.undecided = 0;
                self.guarded = answer.guarded;
                Ok(())
            }
            // It has not decided; it allowed this client once.
            Err(failure) if failure.status >= 500 && self.undecided < MAX_UNDECIDED => {
                self.undecided += 1;
                self.recheck = Some(Instant::now() + RECHECK);
                Ok(())
            }
            Err(failure) => Err(failure.into()),
        }
    }
}

fn damaged(error: serde_json::Error) -> Failure {
    Failure::internal(format_args!("a view is not JSON: {error}"))
}

//! The rows of an actor: loaded before a turn, written by its commit.
//!
//! Concurrency is optimistic: every commit counts, and one is refused when another was
//! counted since the row was read. A turn that must not be run again takes the actor's
//! *lease* first: a name and a time in the row, which the commits of others respect until
//! that time.

use std::time::Duration;

use serde_json::json;
use tidegate_core::turn::{Answer, Invocation};
use tidegate_core::{ActorKey, Failure, Json, PatchOp, patch};
use tidegate_spin_base::database::{Database, DatabaseError, Row};
use tidegate_spin_base::{clock, commit, tables, values};

use crate::declared::Declared;
use crate::timers::{self, TimerRow};
use crate::{answers, messages};

/// An actor as the database has it.
#[derive(Clone, Debug)]
pub(crate) struct Place {
    /// Whether it has a row.
    pub(crate) exists: bool,
    /// Which history.
    pub(crate) epoch: String,
    /// Where in it.
    pub(crate) version: u64,
    /// The version of the last patch that subscribers could see.
    pub(crate) shown_version: u64,
    /// Which schema its state satisfies.
    pub(crate) fit: String,
    /// How many commits there were.
    commits: u64,
    /// The number of the last timer.
    pub(crate) last_timer: u64,
    /// When it was activated.
    pub(crate) activated_ms: Option<u64>,
    /// The schedules that are set.
    pub(crate) schedules: Option<String>,
}

/// What was loaded.
pub(crate) struct Loaded {
    /// Where it is.
    pub(crate) place: Place,
    /// Its state; none before its first commit.
    pub(crate) state: Option<State>,
    /// Until when somebody has its lease.
    pub(crate) leased_until_ms: u64,
    /// When its first timer is due.
    pub(crate) first_due_ms: Option<u64>,
    /// The last row of the outbox, of any actor.
    pub(crate) seq: u64,
}

/// A state that was committed.
pub(crate) struct State {
    /// As JSON text.
    pub(crate) text: String,
    /// Which version of the state it is.
    pub(crate) version: u64,
}

/// The right to be the only one that commits, for some time.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Lease {
    name: String,
    until_ms: u64,
}

/// What a commit writes.
#[derive(Default)]
pub(crate) struct Commit<'a> {
    /// The whole state, if it has changed or is not there yet.
    pub(crate) state: Option<&'a Json>,
    /// What has changed of it.
    pub(crate) patches: Option<Vec<PatchOp>>,
    /// The events, in their order: names and payloads.
    pub(crate) events: &'a [(String, String)],
    /// The timers and schedules that it sets and cancels.
    pub(crate) timers: &'a [TimerRow],
    /// The messages that it sends.
    pub(crate) messages: &'a [Invocation],
    /// What became of the call.
    pub(crate) answer: Option<Answer>,
}

/// What a commit that was made has left.
pub(crate) struct Committed {
    /// The numbers of its messages.
    pub(crate) sent: Vec<u64>,
    /// How many rows of the outbox.
    pub(crate) rows: usize,
}

/// What a commit does about the lease.
#[derive(Clone, Copy, Default)]
pub(crate) struct Leases<'a> {
    /// The one that the turn has.
    pub(crate) mine: Option<&'a Lease>,
    /// The one that holds from here on.
    pub(crate) next: Option<&'a Lease>,
}

impl Lease {
    /// One that nobody has yet.
    pub(crate) fn new(until_ms: u64) -> Lease {
        Lease {
            name: clock::random_id(8),
            until_ms,
        }
    }

    /// Until when others respect it, in milliseconds since the Unix epoch.
    pub(crate) fn until_ms(&self) -> u64 {
        self.until_ms
    }
}

/// Why a commit was not made.
#[derive(Debug)]
pub(crate) enum Refusal {
    /// Somebody else has committed, or has the lease.
    Conflict,
    /// The database failed.
    Database(DatabaseError),
}

impl From<DatabaseError> for Refusal {
    fn from(error: DatabaseError) -> Refusal {
        match error {
            DatabaseError::Outpaced => Refusal::Conflict,
            error => Refusal::Database(error),
        }
    }
}

/// Reads an actor.
pub(crate) fn load(database: &Database, key: &ActorKey) -> Result<Loaded, Failure> {
    let (actor, id) = (key.actor.as_str(), key.id.as_str());
    let rows = tables::with(database, || {
        database
            .read(
                "SELECT format.value, salt.value, a.epoch, a.version, a.shown_version, a.commits,
                a.last_timer, a.activated_ms, a.schedules, a.state, a.state_version, a.fit,
                CASE WHEN a.lease IS NULL THEN 0 ELSE a.lease_until END,
                (SELECT min(due_ms) FROM tidegate_timers WHERE actor = ?1 AND id = ?2),
                (SELECT max(seq) FROM tidegate_outbox)
             FROM tidegate_meta AS format
             JOIN tidegate_meta AS salt ON salt.key = 'salt'
             LEFT JOIN tidegate_actors AS a ON a.actor = ?1 AND a.id = ?2
             WHERE format.key = 'format'",
                &values![actor, id],
            )?
            .into_iter()
            .next()
            .ok_or(DatabaseError::NoTables)
    })?;
    Ok(loaded(rows, key)?)
}

fn loaded(mut row: Row, key: &ActorKey) -> Result<Loaded, DatabaseError> {
    tables::check_format(row.text()?)?;
    let salt = row.text()?;
    let epoch = row.optional_text()?;
    let mut number = || Ok::<u64, DatabaseError>(row.optional_number()?.unwrap_or(0));
    let (version, shown_version, commits, last_timer) =
        (number()?, number()?, number()?, number()?);
    let activated_ms = row.optional_number()?;
    let schedules = row.optional_text()?;
    let state = row.optional_text()?;
    let state_version = row.optional_number()?;
    let fit = row.optional_text()?.unwrap_or_default();
    Ok(Loaded {
        place: Place {
            exists: epoch.is_some(),
            epoch: epoch
                .unwrap_or_else(|| tables::first_epoch(&salt, key.actor.as_str(), key.id.as_str())),
            version,
            shown_version,
            fit,
            commits,
            last_timer,
            activated_ms,
            schedules,
        },
        state: state.map(|text| State {
            text,
            version: state_version.unwrap_or(0),
        }),
        leased_until_ms: row.optional_number()?.unwrap_or(0),
        first_due_ms: row.optional_number()?,
        seq: row.optional_number()?.unwrap_or(0),
    })
}

/// Until when somebody has the lease of an actor; 0 when nobody has.
pub(crate) fn leased_until_ms(database: &Database, key: &ActorKey) -> Result<u64, Failure> {
    let rows = database.read(
        "SELECT lease_until FROM tidegate_actors
         WHERE actor = ?1 AND id = ?2 AND lease IS NOT NULL",
        &values![key.actor.as_str(), key.id.as_str()],
    )?;
    let row = rows.into_iter().next();
    Ok(row.map_or(Ok(0), |mut row| row.number())?)
}

/// Takes the lease of an actor that is still as it was read, until this time.
pub(crate) fn take_lease(
    database: &Database,
    key: &ActorKey,
    place: &mut Place,
    declared: &Declared,
    until_ms: u64,
) -> Result<Lease, Refusal> {
    let lease = Lease::new(until_ms);
    let begins = Commit {
        state: (!place.exists).then_some(&declared.state.initial),
        ..Commit::default()
    };
    let leases = Leases {
        mine: None,
        next: Some(&lease),
    };
    commit(database, key, place, declared, &begins, leases)?;
    Ok(lease)
}

/// Makes a lease last until this time. False if it is somebody else's by now.
pub(crate) fn renew_lease(
    database: &Database,
    key: &ActorKey,
    lease: &mut Lease,
    until_ms: u64,
) -> Result<bool, DatabaseError> {
    let renewed = database.write(
        "UPDATE tidegate_actors SET lease_until = ?4
         WHERE actor = ?1 AND id = ?2 AND lease = ?3 RETURNING lease_until",
        &values![key.actor.as_str(), key.id.as_str(), &lease.name, until_ms],
    )?;
    lease.until_ms = until_ms;
    Ok(!renewed.is_empty())
}

/// Gives a lease back without a commit, and waits for the database for so long at most. If that
/// fails, its time ends it.
pub(crate) fn end_lease(
    database: &Database,
    key: &ActorKey,
    lease: &Lease,
    wait: Duration,
) -> Result<(), DatabaseError> {
    database.write_within(
        wait,
        "UPDATE tidegate_actors SET lease = NULL WHERE actor = ?1 AND id = ?2 AND lease = ?3",
        &values![key.actor.as_str(), key.id.as_str(), &lease.name],
    )?;
    Ok(())
}

/// Commits, if nobody else has since `place` was read; then `place` is where the actor is.
pub(crate) fn commit(
    database: &Database,
    key: &ActorKey,
    place: &mut Place,
    declared: &Declared,
    commit: &Commit<'_>,
    leases: Leases<'_>,
) -> Result<Committed, Refusal> {
    let mut next = place.clone();
    let mut outbox = Vec::with_capacity(commit.events.len() + 1);
    if let Some(patches) = &commit.patches {
        next.version += 1;
        let shown = patch::without_hidden(patches.clone(), &declared.state.hidden);
        outbox.push(match (shown.is_empty(), commit.state) {
            (false, Some(state)) => {
                next.shown_version = next.version;
                let plain = patch::encode_plain(&shown, state);
                let extended = patch::has_str_ins(&shown).then(|| patch::encode(&shown));
                json!(["patch", null, plain, extended])
            }
            // Nobody is shown anything, but what guards say may be another thing now.
            _ => json!(["mark", null, null, null]),
        });
    }
    let events = commit.events.iter();
    outbox.extend(events.map(|(name, payload)| json!(["event", name, payload, null])));
    let rows = outbox.len();
    let due_ms = messages::first_due_ms(clock::unix_ms());
    let (timers_gone, timers_set) = timers::come_to(commit.timers);
    if commit.state.is_some() {
        next.fit = declared.fit();
    }
    let tables = commit::Commit {
        actor: key.actor.as_str(),
        id: key.id.as_str(),
        commits: place.commits,
        epoch: &next.epoch,
        version: next.version,
        from_version: place.shown_version,
        shown_version: next.shown_version,
        state: commit.state.map(Json::to_text),
        state_version: u64::from(declared.state.version),
        fit: &next.fit,
        last_timer: next.last_timer,
        activated_ms: next.activated_ms,
        schedules: next.schedules.as_deref(),
        lease: leases.mine.map(|lease| lease.name.as_str()),
        next_lease: leases.next.map(|lease| lease.name.as_str()),
        lease_until_ms: leases.next.map_or(0, |lease| lease.until_ms),
        outbox,
        timers_gone,
        timers_set,
        messages: commit
            .messages
            .iter()
            .map(|one| messages::row(one, due_ms))
            .collect(),
        answer: commit.answer.as_ref().map(answers::row),
    };
    tables.write(database)?;
    next.commits += 1;
    next.exists = true;
    *place = next;
    let sent = match commit.messages.is_empty() {
        true => Vec::new(),
        // The clock delivers those whose numbers cannot be read now.
        false => messages::sent(database, key, due_ms).unwrap_or_default(),
    };
    Ok(Committed { sent, rows })
}

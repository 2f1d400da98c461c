//! The rows of an actor: loaded before a turn, written by its commit.
//!
//! Concurrency is optimistic: every commit counts, and one is refused when another was
//! counted since the row was read. A turn that must not be run again takes the actor's
//! *lease* first: a name and a time in the row, which the commits of others respect until
//! that time.

use tidegate_core::{ActorKey, Failure, Json, PatchOp, patch};
use tidegate_spin_base::database::{Database, DatabaseError, Row};
use tidegate_spin_base::{clock, tables, values};

use crate::answers::{Answer, Keyed};
use crate::declared::Declared;
use crate::messages::Message;
use crate::timers::TimerChange;

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
    /// Which schema it satisfies.
    pub(crate) fit: String,
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
    /// The timers that it sets and cancels.
    pub(crate) timers: &'a [TimerChange],
    /// The messages that it sends.
    pub(crate) messages: &'a [Message],
    /// What became of the call.
    pub(crate) answer: Option<(&'a Keyed, Answer)>,
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
            // Whoever writes will have committed something.
            DatabaseError::Busy => Refusal::Conflict,
            error => Refusal::Database(error),
        }
    }
}

/// Reads an actor.
pub(crate) fn load(database: &Database, key: &ActorKey) -> Result<Loaded, Failure> {
    let (actor, id) = (key.actor.as_str(), key.id.as_str());
    let rows = tables::with(database, || {
        database
            .run(
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
    let fit = row.optional_text()?;
    Ok(Loaded {
        place: Place {
            exists: epoch.is_some(),
            epoch: epoch
                .unwrap_or_else(|| tables::first_epoch(&salt, key.actor.as_str(), key.id.as_str())),
            version,
            shown_version,
            commits,
            last_timer,
            activated_ms,
            schedules,
        },
        state: state.map(|text| State {
            text,
            version: state_version.unwrap_or(0),
            fit: fit.unwrap_or_default(),
        }),
        leased_until_ms: row.optional_number()?.unwrap_or(0),
        first_due_ms: row.optional_number()?,
        seq: row.optional_number()?.unwrap_or(0),
    })
}

/// Until when somebody has the lease of an actor; 0 when nobody has.
pub(crate) fn leased_until_ms(database: &Database, key: &ActorKey) -> Result<u64, Failure> {
    let rows = database.run(
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
    let renewed = database.run(
        "UPDATE tidegate_actors SET lease_until = ?4
         WHERE actor = ?1 AND id = ?2 AND lease = ?3 RETURNING lease_until",
        &values![key.actor.as_str(), key.id.as_str(), &lease.name, until_ms],
    )?;
    lease.until_ms = until_ms;
    Ok(!renewed.is_empty())
}

/// Gives a lease back without a commit.
pub(crate) fn end_lease(database: &Database, key: &ActorKey, lease: &Lease) {
    // If that fails, its time ends it.
    let _ = database.run(
        "UPDATE tidegate_actors SET lease = NULL WHERE actor = ?1 AND id = ?2 AND lease = ?3",
        &values![key.actor.as_str(), key.id.as_str(), &lease.name],
    );
}

/// Commits, if nobody else has since `place` was read; then `place` is where the actor is.
/// Returns the numbers of the messages.
pub(crate) fn commit(
    database: &Database,
    key: &ActorKey,
    place: &mut Place,
    declared: &Declared,
    commit: &Commit<'_>,
    leases: Leases<'_>,
) -> Result<Vec<u64>, Refusal> {
    let mut next = place.clone();
    let is_single = commit.patches.is_none()
        && commit.events.is_empty()
        && commit.timers.is_empty()
        && commit.messages.is_empty()
        && commit.answer.is_none();
    let sent = match is_single {
        true => {
            write_actor(database, key, &mut next, declared, commit, leases)?;
            Vec::new()
        }
        false => database.transaction(|| {
            write_actor(database, key, &mut next, declared, commit, leases)?;
            write_rest(database, key, place, &mut next, declared, commit)
        })?,
    };
    *place = next;
    Ok(sent)
}

/// Writes the actor's row, if it is the one that was read and nobody else has the lease.
fn write_actor(
    database: &Database,
    key: &ActorKey,
    next: &mut Place,
    declared: &Declared,
    commit: &Commit<'_>,
    leases: Leases<'_>,
) -> Result<(), Refusal> {
    let state = commit.state.map(Json::to_text);
    if let Some(patches) = &commit.patches {
        next.version += 1;
        let shown = patch::without_hidden(patches.clone(), &declared.state.hidden);
        if !shown.is_empty() {
            next.shown_version = next.version;
        }
    }
    let (actor, id) = (key.actor.as_str(), key.id.as_str());
    let held_until_ms = leases.next.map_or(0, |lease| lease.until_ms);
    let held = leases.next.map(|lease| &lease.name);
    let state_version = u64::from(declared.state.version);
    let fit = declared.fit();
    let written = match next.exists {
        true => database.run(
            "UPDATE tidegate_actors SET version = ?3, shown_version = ?4, commits = commits + 1,
                state = coalesce(?5, state), state_version = ?6, fit = ?15, last_timer = ?7,
                activated_ms = ?8, schedules = ?9, lease = ?10, lease_until = ?11
             WHERE actor = ?1 AND id = ?2 AND commits = ?12
                AND (lease IS ?13 OR (?13 IS NULL AND lease_until <= ?14))
             RETURNING commits",
            &values![
                actor,
                id,
                next.version,
                next.shown_version,
                state.as_ref(),
                state_version,
                next.last_timer,
                next.activated_ms,
                next.schedules.as_ref(),
                held,
                held_until_ms,
                next.commits,
                leases.mine.map(|lease| &lease.name),
                clock::unix_ms(),
                &fit
            ],
        )?,
        false => database.run(
            "INSERT INTO tidegate_actors (actor, id, epoch, version, shown_version, commits,
                state, state_version, last_timer, activated_ms, schedules, lease, lease_until,
                fit)
             VALUES (?1, ?2, ?3, ?4, ?5, 1, ?6, ?7, ?8, ?9, ?10, ?11, ?12, ?13)
             ON CONFLICT (actor, id) DO NOTHING RETURNING commits",
            &values![
                actor,
                id,
                &next.epoch,
                next.version,
                next.shown_version,
                state.as_ref(),
                state_version,
                next.last_timer,
                next.activated_ms,
                next.schedules.as_ref(),
                held,
                held_until_ms,
                &fit
            ],
        )?,
    };
    let Some(mut row) = written.into_iter().next() else {
        return Err(Refusal::Conflict);
    };
    next.commits = row.number()?;
    next.exists = true;
    Ok(())
}

/// Writes what else the turn leaves.
fn write_rest(
    database: &Database,
    key: &ActorKey,
    before: &Place,
    next: &mut Place,
    declared: &Declared,
    commit: &Commit<'_>,
) -> Result<Vec<u64>, Refusal> {
    let now_ms = clock::unix_ms();
    let (actor, id) = (key.actor.as_str(), key.id.as_str());
    let put = |kind: &str, name: Option<&str>, payload: Option<&str>, extended: Option<&str>| {
        database.run(
            "INSERT INTO tidegate_outbox (actor, id, kind, name, payload, extended, epoch,
                version, from_version, at_ms)
             VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8, ?9, ?10) RETURNING seq",
            &values![
                actor,
                id,
                kind,
                name,
                payload,
                extended,
                &next.epoch,
                next.version,
                before.shown_version,
                now_ms
            ],
        )
    };
    let mut put_last = Vec::new();
    if let (Some(patches), Some(state)) = (&commit.patches, commit.state) {
        let shown = patch::without_hidden(patches.clone(), &declared.state.hidden);
        put_last = match shown.is_empty() {
            // Nobody is shown anything, but what guards say may be another thing now.
            true => put("mark", None, None, None)?,
            false => {
                let plain = patch::encode_plain(&shown, state);
                let extended = patch::has_str_ins(&shown).then(|| patch::encode(&shown));
                put("patch", None, Some(&plain), extended.as_deref())?
            }
        };
    }
    for (name, payload) in commit.events {
        put_last = put("event", Some(name), Some(payload), None)?;
    }
    for change in commit.timers {
        change.carry_out(database, key)?;
    }
    if let Some((keyed, answer)) = &commit.answer {
        keyed.remember(answer, database, key, now_ms)?;
    }
    let mut sent = Vec::with_capacity(commit.messages.len());
    for message in commit.messages {
        sent.push(message.store(database, key, now_ms)?);
    }
    if let Some(mut row) = put_last.into_iter().next()
        && row.number()? % PRUNED_EVERY == 0
    {
        tables::prune_outbox(database, now_ms)?;
    }
    Ok(sent)
}

/// After how many rows of the outbox room is made in it.
const PRUNED_EVERY: u64 = 128;

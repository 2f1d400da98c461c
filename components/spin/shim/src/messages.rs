//! Messages to other actors (`actors.send`): stored by the turn's transaction, delivered
//! after it, and again by the clock when that failed. A receiver knows one that it has had
//! by its name.

use std::time::{Duration, Instant};

use serde_json::{Value, json};
use tidegate_core::ActorKey;
use tidegate_core::failure::code;
use tidegate_core::turn::Invocation;
use tidegate_core::turn::mail::Unsettled;
use tidegate_core::turn::record::SENT_COST;
use tidegate_spin_base::database::{Database, DatabaseError, Row};
use tidegate_spin_base::signature::{ActorRef, Purpose, Statement};
use tidegate_spin_base::{clock, values};

use crate::calls;

/// How often a message is tried before it is given up.
const MAX_TRIES: u64 = 10;
/// Time until a message is tried again, after the first time; it doubles each time.
const RETRY_MS: u64 = 1_000;
/// Time for a message to be taken by its receiver, when its sender's turn has ended.
const PATIENCE: Duration = Duration::from_secs(30);
/// Time for a message when the clock ticks, and others wait behind it.
pub(crate) const TICK_PATIENCE: Duration = Duration::from_secs(5);

/// A message that is stored.
#[derive(Debug)]
pub(crate) struct Stored {
    seq: u64,
    from: ActorRef,
    call: Invocation,
    tries: u64,
}

/// The row of a message that a turn sends.
pub(crate) fn row(call: &Invocation, due_ms: u64) -> Value {
    json!([
        call.actor,
        call.id,
        call.method,
        call.input,
        call.key,
        due_ms
    ])
}

/// What of an actor's messages has not reached its receivers.
pub(crate) fn unsettled(database: &Database, from: &ActorKey) -> Result<Unsettled, DatabaseError> {
    let rows = database.read(
        "SELECT count(*), coalesce(sum(?3 + length(CAST(id AS BLOB)) + length(CAST(method AS BLOB))
            + length(CAST(coalesce(input, '') AS BLOB)) + length(CAST(coalesce(key, '') AS BLOB))), 0)
         FROM tidegate_messages WHERE from_actor = ?1 AND from_id = ?2",
        &values![from.actor.as_str(), from.id.as_str(), SENT_COST as u64],
    )?;
    let Some(mut row) = rows.into_iter().next() else {
        return Ok(Unsettled::default());
    };
    let mut number = || {
        row.number()
            .map(|n| usize::try_from(n).unwrap_or(usize::MAX))
    };
    Ok(Unsettled {
        count: number()?,
        bytes: number()?,
    })
}

/// When a message is due that is stored now: whoever has stored it delivers it, and the clock
/// comes in when that is late.
pub(crate) fn first_due_ms(now_ms: u64) -> u64 {
    now_ms.saturating_add(RETRY_MS)
}

/// The numbers of the messages that a commit of this actor has stored. Those of another one at
/// the same time may be among them: whoever hears a message twice knows it.
pub(crate) fn sent(
    database: &Database,
    from: &ActorKey,
    due_ms: u64,
) -> Result<Vec<u64>, DatabaseError> {
    let rows = database.read(
        "SELECT seq FROM tidegate_messages
         WHERE due_ms = ?1 AND from_actor = ?2 AND from_id = ?3 ORDER BY seq",
        &values![due_ms, from.actor.as_str(), from.id.as_str()],
    )?;
    rows.into_iter().map(|mut row| row.number()).collect()
}

impl Stored {
    fn of(mut row: Row) -> Result<Stored, DatabaseError> {
        Ok(Stored {
            seq: row.number()?,
            from: ActorRef {
                actor: row.text()?,
                id: row.text()?,
            },
            call: Invocation {
                actor: row.text()?,
                id: row.text()?,
                method: row.text()?,
                input: row.optional_text()?,
                key: row.optional_text()?,
                timeout_ms: None,
            },
            tries: row.number()?,
        })
    }

    /// The one with this number, if it is still there.
    fn load(database: &Database, seq: u64) -> Result<Option<Stored>, DatabaseError> {
        let rows = database.read(
            "SELECT seq, from_actor, from_id, actor, id, method, input, key, tries
             FROM tidegate_messages WHERE seq = ?1",
            &values![seq],
        )?;
        rows.into_iter().next().map(Stored::of).transpose()
    }

    /// Those that are due, the oldest first.
    pub(crate) fn due(
        database: &Database,
        now_ms: u64,
        limit: u64,
    ) -> Result<Vec<Stored>, DatabaseError> {
        let rows = database.read(
            "SELECT seq, from_actor, from_id, actor, id, method, input, key, tries
             FROM tidegate_messages WHERE due_ms <= ?1 ORDER BY seq LIMIT ?2",
            &values![now_ms, limit],
        )?;
        rows.into_iter().map(Stored::of).collect()
    }

    /// Notes that it is about to be tried: a component that is not there ends whoever sends
    /// to it, and that must not be the end of every tick.
    pub(crate) fn note_try(&self, database: &Database) -> Result<(), DatabaseError> {
        database.write(
            "UPDATE tidegate_messages SET tries = ?2, due_ms = ?3 WHERE seq = ?1",
            &values![self.seq, self.tries + 1, self.next_due_ms()],
        )?;
        Ok(())
    }

    fn next_due_ms(&self) -> u64 {
        clock::unix_ms() + (RETRY_MS << self.tries.min(MAX_TRIES))
    }

    fn forget(&self, database: &Database) -> Result<(), DatabaseError> {
        database.write(
            "DELETE FROM tidegate_messages WHERE seq = ?1",
            &values![self.seq],
        )?;
        Ok(())
    }

    /// Delivers it. True if it need not be tried again.
    pub(crate) fn deliver(
        &self,
        database: &Database,
        key: &[u8],
        patience: Duration,
    ) -> Result<bool, DatabaseError> {
        if self.tries >= MAX_TRIES {
            let (from, to) = (&self.from, &self.call);
            tidegate_spin_base::log!(
                "a message of {}/{} to {}/{} is given up",
                from.actor,
                from.id,
                to.actor,
                to.id
            );
            self.forget(database)?;
            return Ok(true);
        }
        let mut statement = Statement::new(Purpose::Message, clock::unix_ms());
        statement.chain = vec![self.from.clone()];
        statement.message = Some(self.seq.to_string());
        let begun = calls::begin(&self.call, &statement, None, key);
        let result = begun.and_then(|begun| begun.result(Instant::now() + patience));
        let is_settled = match &result {
            Ok(_) => true,
            // What the receiver says of it is nobody's to hear; but a refusal that will pass
            // is none.
            Err(failure) => !is_passing(&failure.code) || self.tries + 1 >= MAX_TRIES,
        };
        if let Err(failure) = &result {
            let (from, to) = (&self.from, &self.call);
            tidegate_spin_base::log!(
                "a message of {}/{} to {}/{}: {failure}{}",
                from.actor,
                from.id,
                to.actor,
                to.id,
                if is_settled {
                    ""
                } else {
                    " (it is tried again)"
                }
            );
        }
        match is_settled {
            true => self.forget(database)?,
            false => self.note_try(database)?,
        }
        Ok(is_settled)
    }
}

/// Whether a failure says nothing of the message itself: it may arrive another time, also
/// when its actor type is served again, or the application's key is the same everywhere.
fn is_passing(code: &str) -> bool {
    [
        code::ACTOR_BUSY,
        code::ACTOR_UNKNOWN,
        code::AUTH_INVALID,
        code::CALL_TIMEOUT,
        code::HANDLER_TRAPPED,
        code::HOST_SHUTTING_DOWN,
        code::INTERNAL,
        code::STORE_BUSY,
        code::STORE_UNAVAILABLE,
        code::UNSUPPORTED_ON_SPIN,
    ]
    .contains(&code)
}

/// Delivers what a turn has sent, once its caller has its answer. What fails is left to the
/// clock.
pub(crate) fn deliver(database: &Database, sent: &[u64], key: Option<&[u8]>) {
    let Some(key) = key else {
        return;
    };
    for seq in sent {
        let delivered = Stored::load(database, *seq).and_then(|stored| match stored {
            Some(stored) => stored.deliver(database, key, PATIENCE),
            // The clock was faster.
            None => Ok(true),
        });
        if let Err(error) = delivered {
            tidegate_spin_base::log!("a message waits for the clock: {error}");
        }
    }
}

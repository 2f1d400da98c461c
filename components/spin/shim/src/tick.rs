//! What `POST /_tidegate/tick` does: runs the timers that are due, delivers the messages
//! that are late, makes room in the tables. Each actor is woken by a request of its own, so
//! that one that crashes, or takes long, is no other's affair.

use std::time::{Duration, Instant};

use serde_json::json;
use tidegate_core::Failure;
use tidegate_spin_base::database::Database;
use tidegate_spin_base::outgoing::{Request, actor_path};
use tidegate_spin_base::signature::{Purpose, Statement};
use tidegate_spin_base::{clock, settings, tables, values};

use crate::messages::{Stored, TICK_PATIENCE};

/// How many actors one tick wakes, and how many messages it delivers, at most.
const MAX_DUE: u64 = 1_000;
/// How many actors are woken at the same time.
const AT_ONCE: usize = 16;
/// How long a tick takes, at most: the rest is for the next.
const MAX_TIME: Duration = Duration::from_secs(20);

/// Does all that is due; says what it did, as JSON.
pub(crate) fn tick(database: &Database, key: &[u8]) -> Result<String, Failure> {
    let until = Instant::now() + MAX_TIME;
    let now_ms = clock::unix_ms();
    let due = tables::with(database, || {
        database.read(
            "SELECT DISTINCT actor, id FROM tidegate_timers WHERE due_ms <= ?1 LIMIT ?2",
            &values![now_ms, MAX_DUE],
        )
    })?;
    let mut actors = Vec::with_capacity(due.len());
    for mut row in due {
        actors.push((row.text()?, row.text()?));
    }
    let (mut woken, mut failed) = (0, 0);
    for some in actors.chunks(AT_ONCE) {
        if Instant::now() >= until {
            break;
        }
        let targets: Vec<_> = some
            .iter()
            .filter_map(|(actor, id)| {
                // A type that is no longer served waits until it is again.
                let component = settings::component_of(actor).ok()?;
                Some((component, actor_path("/_tidegate/wake", actor, id)))
            })
            .collect();
        let requests: Vec<_> = targets
            .iter()
            .map(|(component, path)| {
                let statement = Statement::new(Purpose::Wake, clock::unix_ms());
                Request {
                    component,
                    method: "POST",
                    target: path,
                    headers: Vec::new(),
                    body: b"",
                }
                .signed(key, &statement)
            })
            .collect();
        let begun: Vec<_> = requests
            .iter()
            .map(|request| (request, request.send()))
            .collect();
        for (request, pending) in begun {
            let answer = pending.and_then(|pending| request.answer(&pending, until));
            match answer {
                Ok(answer) if answer.status < 300 => woken += 1,
                // A turn is in the way: what is due runs before the next, or at another tick.
                Ok(answer) if answer.status == 409 => {}
                Ok(answer) => {
                    failed += 1;
                    tidegate_spin_base::log!("{}: status {}", request.target, answer.status);
                }
                Err(error) => {
                    failed += 1;
                    tidegate_spin_base::log!("{}: {error}", request.target);
                }
            }
        }
    }
    let mut delivered = 0;
    for message in Stored::due(database, now_ms, MAX_DUE)? {
        if Instant::now() >= until {
            break;
        }
        message.note_try(database)?;
        delivered += u64::from(message.deliver(database, key, TICK_PATIENCE)?);
    }
    tables::prune(database, clock::unix_ms())?;
    Ok(json!({"woken": woken, "failed": failed, "messages": delivered}).to_string())
}

//! Who has had nothing to do for long leaves memory.
//!
//! Invariant: an actor is only asked to leave; whether it does, it decides between two items of
//! its queue.

use std::sync::Arc;
use std::time::Duration;

use tidegate_base::clock::instant;
use tidegate_base::memory;

use super::mailbox::{Item, Retire};
use super::{SCARCE_IDLE, Shared};

/// How many actors must have left memory until it is worth giving theirs back.
const MANY_GONE: usize = 1_000;

/// Sends idle actors out of memory.
pub(super) async fn sweep(shared: Arc<Shared>) {
    let idle = Duration::from_millis(shared.settings.idle_timeout_ms);
    let pace = (idle / 4).clamp(Duration::from_millis(20), Duration::from_secs(10));
    let mut swept = instant();
    // The most that were in memory since that was given back.
    let mut most = 0;
    loop {
        tokio::time::sleep(pace.min(SCARCE_IDLE)).await;
        if instant() - swept < pace && !shared.table.is_scarce() {
            continue;
        }
        swept = instant();
        let Some(before) = shared.uptime_ms().checked_sub(shared.idle_timeout_ms()) else {
            continue;
        };
        let mut in_memory = 0;
        for actor in shared.table.all() {
            // There may be a million of them.
            tokio::task::consume_budget().await;
            in_memory += 1;
            if actor.is_idle_since(before) {
                let _ = actor.deliver(Item::Retire(Retire::WhenIdle), &shared);
            }
        }
        most = most.max(in_memory);
        if most - in_memory >= MANY_GONE {
            most = in_memory;
            memory::much_was_freed();
        }
    }
}

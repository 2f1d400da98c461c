//! The settings of actors, and of who may see them.

use serde::{Deserialize, Serialize};
use tidegate_base::config::MAX_MS;
use tidegate_base::settings;

settings! {
    /// Settings of actors.
    pub struct Actors {
        /// Calls that wait in one actor's queue; further ones fail with `mailbox.full`.
        mailbox_items: usize = 65_536, "calls", 1..;
        /// What calls that wait in one actor's queue may weigh, in bytes of input.
        mailbox_bytes: usize = 16 << 20, "bytes";
        /// Idle time without subscribers after which an actor leaves memory.
        idle_timeout_ms: u64 = 300_000, "ms", 0..=MAX_MS;
        /// Actors in memory; calls and subscriptions that would bring in further ones fail with
        /// `actor.limit`.
        max_in_memory: usize = 1_000_000, "actors", 1..;
        /// Actors that are kept while they are not in memory; beyond that they stay in memory.
        max_stored: usize = 10_000_000, "actors";
        /// Component instances that stay in memory; the least recently used one beyond that
        /// is dropped and made again when its actor has work.
        resident_instances: usize = 4_096, "instances", 1..;
        /// Time for which the first snapshot of a connection waits for what its own `connect` does,
        /// behind a busy queue or in a slow hook.
        connect_wait_ms: u64 = 100, "ms", 0..=MAX_MS;
        /// How long who wants to see an actor that is on its way to another host waits for it; then it
        /// is told `actor.moving`.
        move_wait_ms: u64 = 5_000, "ms", 0..=MAX_MS;
        /// Time from a cancellation until the turn is interrupted.
        cancel_grace_ms: u64 = 1_000, "ms", 0..=MAX_MS;
        /// Time for the turns of an actor that is to be destroyed, or that no component serves any
        /// more; those that are not finished then are cancelled.
        end_grace_ms: u64 = 5_000, "ms", 0..=MAX_MS;
        /// Calls with idempotency keys that one actor remembers; the oldest are forgotten first.
        max_keys: usize = 1_000, "calls", 1..;
        /// What the answers to such calls may weigh, in bytes of results.
        max_keys_bytes: usize = 1 << 20, "bytes", 1..;
        /// How long it remembers them.
        key_ttl_ms: u64 = 24 * 60 * 60 * 1000, "ms", 1..=MAX_MS;
        /// Messages of one actor that have not reached their receivers; further ones fail with
        /// `message.limit`.
        max_unsettled: usize = 10_000, "messages", 1..;
        /// What such messages of one actor may weigh, in bytes.
        max_unsettled_bytes: usize = 4 << 20, "bytes", 1..;
        /// Senders of whom one actor remembers the last message that it has heard; the longest
        /// silent are forgotten first.
        max_senders: usize = 1_000, "senders", 1..;
        /// Time for which what turns let out, that follow right upon each other, gathers for one
        /// write to each receiver, but for the turn that is under way then.
        gather_ms: u64 = 2, "ms", 0..=MAX_MS;
        /// Time for which a connection's own task runs the calls that one read has brought to
        /// actors at rest, but for the turn that is under way then, in microseconds; 0 leaves
        /// all to other tasks.
        run_here_us: u64 = 200, "µs", 0..=MAX_MS;
        /// How deep calls between actors may nest.
        max_call_depth: u32 = 16, "calls";
        /// Checks what methods return against the manifest too (a fault of the handler, which
        /// is otherwise the client's to find).
        validate_results: bool = cfg!(debug_assertions) => "`false`; `true` in a debug build", "true or false";
    }
}

settings! {
    /// Who may see what.
    pub struct Access {
        /// Whether the actors of a component that does not decide itself may be subscribed to
        /// and read.
        default: AccessDefault = AccessDefault::Open, "`open` or `closed`";
        /// Subscriptions that one actor's guard has not decided yet; further ones fail.
        max_waiting: usize = 65_536, "subscriptions", 1..;
        /// Subscriptions that a guard is asked about at once.
        max_batch: usize = 1_024, "subscriptions", 1..;
        /// Time from a commit until a guard is asked again about those who subscribe already, where
        /// its author wants it asked later.
        recheck_ms: u64 = 1_000, "ms", 0..=MAX_MS;
    }
}

/// What holds where no handler decides.
#[derive(Clone, Copy, Debug, Deserialize, PartialEq, Eq, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum AccessDefault {
    /// Everybody may see.
    Open,
    /// Nobody may.
    Closed,
}

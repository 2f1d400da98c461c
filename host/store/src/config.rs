//! The settings of the store.

use tidegate_base::config::{Bounds, Durability, MAX_MS, OutOfRange};
use tidegate_base::settings;

settings! {
    /// Settings of the store, which is in the folder `store` of `data-dir`.
    pub struct Store {
        /// Keeps everything in the process, which forgets it when it ends.
        memory: bool = false, "true or false";
        /// How safe commits are of components that do not say so themselves: `strict` (waits
        /// for the disk), `relaxed` (waits for the system) or `none`.
        durability: Durability = Durability::Strict, "`strict`, `relaxed` or `none`";
        /// How long what is written waits for the disk, at most, where nobody waits for it.
        sync_interval_ms: u64 = 100, "ms", 1..=MAX_MS;
        /// Commits of one actor that may be under way while it goes on.
        run_ahead: usize = 64, "commits";
        /// Longest record, in bytes; an actor's whole state is one.
        max_record_bytes: usize = 64 << 20, "bytes", 1 << 10..=1 << 30;
        /// What may wait to be written, in bytes; turns fail with `store.unavailable` beyond it.
        queue_bytes: usize = 128 << 20, "bytes";
        /// Longest file of the store, in bytes.
        segment_bytes: u32 = 64 << 20, "bytes", 1 << 12..=1 << 30;
        /// Starts although the end of what was safe is gone from the store, and goes on without it.
        accept_loss: bool = false, "true or false";
    }
    checked by queue_takes_a_record;
}

/// The longest record has room in the queue.
fn queue_takes_a_record(settings: &Store) -> Result<(), OutOfRange> {
    let longest = settings.max_record_bytes as u64;
    Bounds::from(longest..).check("queue_bytes", settings.queue_bytes)
}

//! Memory that the allocator keeps for what comes next.
//!
//! An allocator keeps freed memory for its thread, and gives it back only as that thread
//! allocates. After a crowd has left nobody does. `actor` says when many have left;
//! whoever runs the host has its threads ask here before they sleep, and let go then.
//!
//! Invariant: a thread lets go at most once for each time that many have left.

use std::cell::Cell;
use std::sync::atomic::{AtomicU64, Ordering};

/// How often much has been freed.
static FREED: AtomicU64 = AtomicU64::new(0);

thread_local! {
    /// Up to when this thread has let go.
    static LET_GO: Cell<u64> = const { Cell::new(0) };
}

/// Says that much has been freed, on any thread.
pub fn much_was_freed() {
    FREED.fetch_add(1, Ordering::Relaxed);
}

/// Has this thread let go of what it keeps, if much has been freed since it last did.
pub fn let_go(collect: impl FnOnce()) {
    let freed = FREED.load(Ordering::Relaxed);
    if LET_GO.replace(freed) != freed {
        collect();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_thread_lets_go_once() {
        let lets_go = || {
            let mut let_go_here = false;
            let_go(|| let_go_here = true);
            let_go_here
        };
        much_was_freed();
        assert!(lets_go());
        assert!(!lets_go());
        std::thread::spawn(move || assert!(lets_go()))
            .join()
            .unwrap();
    }
}

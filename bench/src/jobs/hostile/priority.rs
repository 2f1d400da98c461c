//! Lets a generator of load run ahead of the program that it measures.
//!
//! A neighbour's clients have machines of their own; on one that they share with the host they
//! would wait for a core behind its threads, and their calls would seem to wait in the host.

use rustix::process::setpriority_process;

/// How far ahead of the others it is (nice(2)).
const AHEAD: i32 = -10;

/// The calling thread, and those that it begins, run ahead of others until this ends.
pub(super) struct Ahead {
    /// Only who may do so comes ahead of others.
    is_ahead: bool,
}

impl Ahead {
    pub(super) fn begin() -> Ahead {
        Ahead {
            // On Linux this concerns the calling thread alone.
            is_ahead: setpriority_process(None, AHEAD).is_ok(),
        }
    }

    /// Ends it, and says whether it was so.
    pub(super) fn end(self) -> bool {
        self.is_ahead
    }
}

impl Drop for Ahead {
    fn drop(&mut self) {
        if self.is_ahead {
            // To come behind is allowed to all.
            let _ = setpriority_process(None, 0);
        }
    }
}

/// How the generators ran, for a table's note.
pub(super) fn line(is_ahead: bool) -> String {
    match is_ahead {
        true => format!("at nice {AHEAD}, as if they had a machine of their own"),
        false => {
            "at nice 0, so that they also wait for a core behind the host's threads".to_owned()
        }
    }
}

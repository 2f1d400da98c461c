//! How much one turn may use, and what holds where nobody says otherwise.

use crate::failure::Failure;
use crate::json::Size;

/// What one turn of an actor may use.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Limits {
    /// What it may stage, in bytes.
    pub effects_bytes: usize,
    /// Length of the state as JSON, in bytes.
    pub state_bytes: usize,
    /// What the state takes in memory, in bytes; patches and values that are checked are bound by
    /// it as well.
    pub state_memory_bytes: usize,
    /// Steps that work on its data may take, as a [`Meter`](crate::Meter) counts them.
    pub work_steps: u64,
    /// Timers that its actor may have.
    pub timers: usize,
    /// Its calls and mail to other actors.
    pub calls: usize,
}

impl Limits {
    /// What holds where nobody says otherwise.
    pub const DEFAULT: Limits = Limits {
        effects_bytes: 64 << 20,
        state_bytes: 32 << 20,
        state_memory_bytes: 128 << 20,
        work_steps: 200_000_000,
        timers: 10_000,
        calls: 1_000,
    };

    /// Refuses a state that takes more than it may, as text or in memory.
    ///
    /// # Errors
    ///
    /// `state.too-large`, which a turn does not survive.
    pub fn check_state(&self, size: Size) -> Result<(), Failure> {
        self.check_state_text(size.text)?;
        match size.memory > self.state_memory_bytes {
            true => Err(Failure::state_too_large(self.state_memory_bytes)),
            false => Ok(()),
        }
    }

    /// Refuses the text of a state that is longer than one may be, before it is read.
    ///
    /// # Errors
    ///
    /// `state.too-large`, which a turn does not survive.
    pub fn check_state_text(&self, bytes: usize) -> Result<(), Failure> {
        let limit = self.state_bytes;
        match bytes > limit {
            true => Err(Failure::state_too_long(limit)),
            false => Ok(()),
        }
    }
}

impl Default for Limits {
    fn default() -> Limits {
        Limits::DEFAULT
    }
}

/// How long turns and what they wait for may take, where nobody says otherwise, in milliseconds.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Times {
    /// A turn.
    pub turn_ms: u64,
    /// A turn of a streaming method.
    pub streaming_ms: u64,
    /// A caller, until it has read a part of a result.
    pub chunk_ms: u64,
}

impl Times {
    /// What holds where nobody says otherwise.
    pub const DEFAULT: Times = Times {
        turn_ms: 5_000,
        streaming_ms: 300_000,
        chunk_ms: 30_000,
    };
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_state_is_measured_as_text_and_in_memory() {
        let limits = Limits {
            state_bytes: 10,
            state_memory_bytes: 40,
            ..Limits::DEFAULT
        };
        let size = |text, memory| Size { text, memory };
        assert_eq!(limits.check_state(size(10, 40)), Ok(()));
        let large = limits.check_state(size(10, 41)).unwrap_err();
        assert_eq!(
            large.text(),
            "the state takes more than 40 bytes of memory (`state-memory-bytes`)"
        );
        let long = limits.check_state(size(11, 41)).unwrap_err();
        assert_eq!(
            long.text(),
            "the state is longer than 10 bytes (`state-bytes`)"
        );
        assert_eq!(limits.check_state_text(11), Err(long));
    }
}

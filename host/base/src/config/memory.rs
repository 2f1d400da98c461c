//! The settings of the [budgets](crate::budget).

use crate::settings;

settings! {
    /// What all clients and actors together may make the host hold, in bytes. What a single one may
    /// is said elsewhere. The memories of guests are `engine.guest-memory-bytes`.
    pub struct Memory {
        /// All of the following, of which each that is 0 has its part of this. No more than half of
        /// what the machine, or the process's control group, has.
        bytes: usize = 4 << 30, "bytes", 1 << 20..;
        /// Messages and bodies that are being received, and inputs of calls that wait or run; 0
        /// is a quarter of `memory.bytes`. What finds no room fails with `host.memory`.
        inputs_bytes: usize = 0, "bytes";
        /// What turns have staged and receivers have not taken; 0 is a quarter. When it
        /// becomes scarce, the connections that are owed most are closed.
        outbound_bytes: usize = 0, "bytes";
        /// Actors in memory, with their states and what is remembered beside, and contacts of
        /// connections with them; 0 is a half. When it becomes scarce, idle actors leave
        /// sooner; further ones fail with `actor.limit`, turns that make one larger with
        /// `host.memory`.
        actors_bytes: usize = 0, "bytes";
    }
}

//! Who is connected, who subscribes, and the frames that subscribers share.
//!
//! Invariant: nothing here waits for a receiver.

pub mod connections;
pub mod fanout;

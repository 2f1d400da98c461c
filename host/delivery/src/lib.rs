//! Who is connected, who receives, and the frames that receivers share.
//!
//! What is delivered is each concern's own: it says how its [`Content`] reads, and keeps who is to
//! have it in [`Subscribers`]. Everything else is the same for all and stands here: a frame is
//! encoded once per dialect, what is written together leaves in one write, who reads too slowly is
//! made up for or closed.
//!
//! Invariant: nothing here waits for a receiver.

pub mod connections;
mod frame;
pub mod metrics;
mod outlet;
mod subscribers;
pub mod write_batch;

pub use frame::{Content, Dialect, SharedFrame, sse};
pub use outlet::{Close, Offer, Outlet, Source, Told, show};
pub use subscribers::{Recipients, Subscribers};

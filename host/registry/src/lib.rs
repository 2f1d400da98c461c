//! Which component serves what, which version of it, and the seams between concerns and between
//! hosts.
//!
//! `router` holds the claims of components, `versions` the files that outlast the process, `calls`
//! what one concern asks of another, `placement` where entities are at home. Invariant: what is
//! claimed has one holder at a time.

pub mod calls;
pub mod claims;
pub mod metrics;
pub mod placement;
pub mod router;
pub mod versions;

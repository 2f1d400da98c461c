//! Which component serves what, and which version of it.

pub mod placement;
pub mod router;
pub mod versions;

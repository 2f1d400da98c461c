//! What simulations are made of: a disk that loses what a real one may lose, dice,
//! and receivers.

pub mod dice;
pub mod disk;
#[cfg(feature = "receivers")]
pub mod receiver;

//! How safe commits are made: a value of settings that components, their claims and the store share.

use serde::{Deserialize, Serialize};

/// How safe a turn's commit must be before what the turn lets out may leave.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Deserialize, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum Durability {
    /// It outlasts a loss of power.
    #[default]
    Strict,
    /// It outlasts the process, and a loss of power soon after.
    Relaxed,
    /// It need not outlast the process.
    None,
}

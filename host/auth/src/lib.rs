//! Who is calling, and how often they may: tokens and their keys, the operators' key, rates,
//! connections per address.
//!
//! The gateway asks at its doors, the command line mints tokens for development. Nothing
//! here knows of sockets or actors.
//!
//! Invariant: neither a token nor a key is ever part of a message, a log line or a `Debug`
//! text.

mod address;
mod admin;
mod algorithm;
mod bearer;
pub mod config;
mod key_file;
mod keys;
pub mod limits;
mod mint;
#[cfg(test)]
mod testing;
mod tokens;

use std::io;
use std::path::PathBuf;

pub use address::ClientAddress;
pub use admin::{AdminKey, KeySource};
pub use algorithm::Algorithm;
pub use bearer::bearer;
use tidegate_core::Failure;
pub use tokens::{Identity, Tokens};

/// Fewest bytes of a secret for HS256 (RFC 7518, section 3.2).
const MIN_SECRET_BYTES: usize = 32;

/// Why identity cannot be set up as configured, or a token cannot be made.
#[derive(Debug, thiserror::Error)]
pub enum AuthError {
    /// A setting, or several taken together, are not what is expected.
    #[error("{name}: {problem}")]
    Setting {
        /// The setting: `auth.algorithms`.
        name: &'static str,
        /// What was expected, what was found, what to do.
        problem: String,
    },
    /// A key file cannot be read or written.
    #[error("{setting}: cannot {action} {path}: {error}")]
    File {
        /// The setting that names the file.
        setting: &'static str,
        /// `read`, `make`.
        action: &'static str,
        /// The file.
        path: PathBuf,
        /// Why it cannot be read.
        error: io::Error,
    },
    /// A key file does not hold what is expected.
    #[error("{setting}: {path}: {problem}")]
    Key {
        /// The setting that names the file.
        setting: &'static str,
        /// The file.
        path: PathBuf,
        /// What was expected, what was found, what to do.
        problem: String,
    },
    /// A token cannot be signed.
    #[error("cannot sign the token: {0}")]
    Mint(String),
}

/// Why a token is refused: the values of `params.reason`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Reason {
    Malformed,
    TooLong,
    Algorithm,
    Signature,
    UnknownKey,
    NotYetValid,
    TooFar,
    Audience,
    Issuer,
}

impl Reason {
    fn name(self) -> &'static str {
        match self {
            Reason::Malformed => "malformed",
            Reason::TooLong => "too-long",
            Reason::Algorithm => "algorithm",
            Reason::Signature => "signature",
            Reason::UnknownKey => "unknown-key",
            Reason::NotYetValid => "not-yet-valid",
            Reason::TooFar => "too-far",
            Reason::Audience => "audience",
            Reason::Issuer => "issuer",
        }
    }

    /// `auth.invalid`, with a message that repeats nothing of the token.
    fn failure(self, message: impl std::fmt::Display) -> Failure {
        Failure::auth_invalid(message, self.name())
    }
}

//! What settings are made of: how they are declared, and the layers that they come in.
//!
//! Each crate declares its part with [`settings!`](crate::settings) in its `config.rs`; the binary
//! crate puts the parts together and builds the whole from [`Layers`]: the defaults, a TOML file,
//! environment variables and `--set key=value` words, in that order. All other modules are handed
//! the part that concerns them and never look further. Of the parts, only that of the budgets is
//! here.

mod declare;
mod durability;
mod layers;
mod memory;

use std::path::PathBuf;

pub use declare::{Bounds, Declared, MAX_MS, Number, OutOfRange, Section, Settings, kebab};
pub use durability::Durability;
pub use layers::{Effective, Layers, Program, Setting, Shown, Source, variable_of};
pub use memory::Memory;

/// Why the settings are not usable.
#[derive(Debug, thiserror::Error)]
pub enum ConfigError {
    /// The file cannot be read.
    #[error("cannot read the configuration {path}")]
    Read {
        /// The file.
        path: PathBuf,
        /// Why it cannot be read.
        source: std::io::Error,
    },
    /// A setting is not what is expected.
    #[error("{place}: {detail}")]
    Invalid {
        /// The file and its line, the variable or the argument.
        place: String,
        /// What is wrong there.
        detail: String,
    },
    /// A word of the command line is not `key=value`.
    #[error("invalid setting `{word}`: expected key=value, such as {example}")]
    Word {
        /// The word as given.
        word: String,
        /// One that could be given.
        example: &'static str,
    },
}

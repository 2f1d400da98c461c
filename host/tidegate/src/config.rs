//! The settings of the whole host, put together from those that each crate declares.
//!
//! `docs/settings.md` lists them: `tidegate settings` writes it, see [`page`].

pub mod page;

use std::path::PathBuf;

use tidegate_actor::config::{Access, Actors};
use tidegate_auth::config::Auth;
use tidegate_base::config::{Memory, Program};
use tidegate_base::settings;
use tidegate_engine::config::{Engine, Limits};
use tidegate_gateway::config::{Admin, Gateway};
use tidegate_store::config::Store;

settings! {
    /// All settings. In TOML the fields are spelt in kebab-case: `actors.idle-timeout-ms`.
    pub struct Config {
        /// What the host keeps on disk; by default `.tidegate` beside the application manifest.
        data_dir: Option<PathBuf> = None => "`.tidegate` beside the application manifest", "path";
    }
    with {
        /// The doors: sockets, frames, connections.
        gateway: Gateway,
        /// Who is calling: tokens and their keys.
        auth: Auth,
        /// Who may see what, where no handler decides.
        access: Access,
        /// The doors for operators.
        admin: Admin,
        /// What all clients and actors together may make the host hold.
        memory: Memory,
        /// Mailboxes and the life of actors.
        actors: Actors,
        /// Where actors are kept, and how safely.
        store: Store,
        /// What one component may use, unless its table in `spin.toml` says otherwise.
        component: Limits,
        /// The WebAssembly engine.
        engine: Engine,
    }
}

impl Program for Config {
    const ARGUMENTS: &'static [&'static str] = &["TIDEGATE_CONFIG", "TIDEGATE_URL"];
    const EXAMPLE: &'static str = "actors.idle-timeout-ms=60000";
}

/// The layers of the host's settings.
pub type Layers = tidegate_base::config::Layers<Config>;
/// The host's settings that hold, and where each comes from.
pub type Effective = tidegate_base::config::Effective<Config>;

#[cfg(test)]
mod tests;

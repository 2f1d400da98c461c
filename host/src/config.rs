//! Every limit and setting of the host: its name, its unit and its default.
//!
//! The command line builds one `Config` from the defaults, a TOML file and
//! `--set key=value` words, in that order; all other modules are handed the part that
//! concerns them and never look further.

use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::time::Duration;

use serde::{Deserialize, Serialize};

/// All settings. In TOML the fields are spelt in kebab-case: `actors.idle-timeout-ms`.
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(default, deny_unknown_fields, rename_all = "kebab-case")]
pub struct Config {
    /// The doors: sockets, frames, connections.
    pub gateway: Gateway,
    /// Mailboxes and the life of actors.
    pub actors: Actors,
    /// What one component may use, unless its table in `spin.toml` says otherwise.
    pub component: Limits,
    /// The WebAssembly engine.
    pub engine: Engine,
}

/// Settings of the doors.
#[derive(Clone, Debug, Deserialize)]
#[serde(default, deny_unknown_fields, rename_all = "kebab-case")]
pub struct Gateway {
    /// Where to listen. Port 0 takes a free one.
    pub listen: SocketAddr,
    /// Host names that requests may be addressed to, beside `localhost` and IP addresses
    /// (which a DNS rebinding attack cannot use). `*` allows any.
    pub hosts: Vec<String>,
    /// Origins of web pages that may connect, beside the host's own and, while it listens
    /// on a loopback address, pages served from loopback. `*` allows any.
    pub origins: Vec<String>,
    /// Open sockets, WebSocket and HTTP together; further ones are refused.
    pub max_connections: usize,
    /// Longest WebSocket message and HTTP body, in bytes.
    pub max_frame_bytes: usize,
    /// Longest WebSocket message that is read over and answered with an error; a longer
    /// one closes the socket with 1009.
    pub max_discard_bytes: u64,
    /// What one connection may be owed before it counts as a slow consumer, in bytes.
    pub outbound_bytes: usize,
    /// The same in frames.
    pub outbound_frames: usize,
    /// Calls of one connection that have no answer yet.
    pub max_calls_in_flight: usize,
    /// What these calls may hold, in bytes of input. A single call may exceed it.
    pub max_calls_bytes: usize,
    /// Actors that one connection may have had contact with.
    pub max_actors_per_connection: usize,
    /// Silence after which a connection is pinged.
    pub ping_interval_ms: u64,
    /// Time within which a ping must be answered.
    pub pong_timeout_ms: u64,
    /// Time for a client to send the head of a request.
    pub header_timeout_ms: u64,
    /// Time for a client to send the body of a request.
    pub body_timeout_ms: u64,
    /// Time for a client to take anything of what is written to it; one that does not is
    /// cut off.
    pub write_timeout_ms: u64,
    /// Time for a closing connection to take what it is owed and answer.
    pub close_timeout_ms: u64,
    /// Time for running turns and open sockets to finish when the host stops.
    pub shutdown_grace_ms: u64,
}

impl Default for Gateway {
    fn default() -> Self {
        Gateway {
            listen: SocketAddr::from(([127, 0, 0, 1], 3000)),
            hosts: Vec::new(),
            origins: Vec::new(),
            max_connections: 20_000,
            max_frame_bytes: 1 << 20,
            max_discard_bytes: 64 << 20,
            outbound_bytes: 4 << 20,
            outbound_frames: 16_384,
            max_calls_in_flight: 16_384,
            max_calls_bytes: 16 << 20,
            max_actors_per_connection: 4_096,
            ping_interval_ms: 30_000,
            pong_timeout_ms: 20_000,
            header_timeout_ms: 10_000,
            body_timeout_ms: 30_000,
            write_timeout_ms: 60_000,
            close_timeout_ms: 5_000,
            shutdown_grace_ms: 10_000,
        }
    }
}

/// Settings of actors.
#[derive(Clone, Debug, Deserialize)]
#[serde(default, deny_unknown_fields, rename_all = "kebab-case")]
pub struct Actors {
    /// Calls that wait in one actor's queue; further ones fail with `mailbox.full`.
    pub mailbox_items: usize,
    /// The same in bytes of input.
    pub mailbox_bytes: usize,
    /// Idle time without subscribers after which an actor leaves memory.
    pub idle_timeout_ms: u64,
    /// Actors in memory; calls and subscriptions that would bring in further ones fail with
    /// `actor.limit`.
    pub max_in_memory: usize,
    /// Actors that are kept while they are not in memory; beyond that they stay in memory.
    pub max_stored: usize,
    /// Component instances that stay in memory; the least recently used one beyond that
    /// is dropped and made again when its actor has work.
    pub resident_instances: usize,
    /// Checks what methods return against the manifest too (a fault of the handler, which
    /// is otherwise the client's to find).
    pub validate_results: bool,
}

impl Default for Actors {
    fn default() -> Self {
        Actors {
            mailbox_items: 16_384,
            mailbox_bytes: 16 << 20,
            idle_timeout_ms: 300_000,
            max_in_memory: 1_000_000,
            max_stored: 10_000_000,
            resident_instances: 4_096,
            validate_results: cfg!(debug_assertions),
        }
    }
}

/// What one component may use. Every instance, and every turn, has its own account.
#[derive(Clone, Debug, Deserialize, Serialize)]
#[serde(default, deny_unknown_fields, rename_all = "kebab-case")]
pub struct Limits {
    /// Linear memory of one instance, all its memories together, in bytes.
    pub memory_bytes: usize,
    /// Elements of one instance's tables, all together.
    pub table_elements: usize,
    /// Core instances that one instance may consist of.
    pub core_instances: usize,
    /// Memories that one instance may have.
    pub memories: usize,
    /// Tables that one instance may have.
    pub tables: usize,
    /// Time for one turn, waiting included.
    pub turn_deadline_ms: u64,
    /// Calls of one turn to the interfaces of `tidegate:realtime`.
    pub host_calls: u64,
    /// What one turn may stage (documents, patches, events, its result), in bytes.
    pub effects_bytes: usize,
    /// Length of an actor's state as JSON, in bytes.
    pub state_bytes: usize,
    /// What one turn may write to standard output and error; the rest is dropped.
    pub log_bytes: usize,
}

impl Default for Limits {
    fn default() -> Self {
        Limits {
            memory_bytes: 128 << 20,
            table_elements: 100_000,
            core_instances: 64,
            memories: 16,
            tables: 64,
            turn_deadline_ms: 5_000,
            host_calls: 10_000,
            effects_bytes: 64 << 20,
            state_bytes: 32 << 20,
            log_bytes: 64 << 10,
        }
    }
}

/// Longest turn that can be asked for.
const MAX_TURN_DEADLINE_MS: u64 = 24 * 60 * 60 * 1000;

impl Limits {
    /// Names a limit that no handler could live with, or that is no limit.
    pub fn check(&self) -> Result<(), String> {
        let positive = [
            ("memory-bytes", self.memory_bytes),
            ("core-instances", self.core_instances),
            ("effects-bytes", self.effects_bytes),
            ("state-bytes", self.state_bytes),
        ];
        for (name, value) in positive {
            if value == 0 {
                return Err(format!("{name}: expected 1 or more, found 0"));
            }
        }
        match self.turn_deadline_ms {
            1..=MAX_TURN_DEADLINE_MS => Ok(()),
            found => Err(format!(
                "turn-deadline-ms: expected 1 to {MAX_TURN_DEADLINE_MS}, found {found}"
            )),
        }
    }

    /// Time for one turn.
    pub fn turn_deadline(&self) -> Duration {
        Duration::from_millis(self.turn_deadline_ms)
    }
}

/// Settings of the WebAssembly engine.
#[derive(Clone, Debug, Deserialize)]
#[serde(default, deny_unknown_fields, rename_all = "kebab-case")]
pub struct Engine {
    /// Where compiled components are kept; by default `tidegate/compiled` in the user's
    /// cache folder. An empty path keeps none.
    pub cache_dir: PathBuf,
    /// How often a running guest is looked at: whether it is past its deadline, and to
    /// let its neighbours run.
    pub epoch_tick_ms: u64,
    /// Stack of a guest, in bytes; recursion beyond it fails the turn.
    pub stack_bytes: usize,
    /// What all guests together may grow their memories by, beyond the size they begin
    /// with, in bytes. While more than half of it is in use, instances that have grown are
    /// not kept between turns.
    pub grown_memory_bytes: usize,
    /// Longest component file, in bytes.
    pub max_component_bytes: u64,
}

impl Default for Engine {
    fn default() -> Self {
        Engine {
            cache_dir: default_cache_dir(),
            epoch_tick_ms: 5,
            stack_bytes: 512 << 10,
            grown_memory_bytes: 4 << 30,
            max_component_bytes: 64 << 20,
        }
    }
}

fn default_cache_dir() -> PathBuf {
    std::env::var_os("XDG_CACHE_HOME")
        .map(PathBuf::from)
        .filter(|path| path.is_absolute())
        .or_else(|| std::env::var_os("HOME").map(|home| Path::new(&home).join(".cache")))
        .map(|cache| cache.join("tidegate").join("compiled"))
        .unwrap_or_default()
}

/// Why the settings are not usable.
#[derive(Debug, thiserror::Error)]
pub enum ConfigError {
    /// The file cannot be read.
    #[error("cannot read the configuration {path}")]
    Read {
        /// The file.
        path: PathBuf,
        /// Why.
        source: std::io::Error,
    },
    /// The file, or the settings taken together, are not what is expected.
    #[error("invalid configuration: {0}")]
    Invalid(String),
    /// A word of the command line is not `key=value`.
    #[error("invalid setting `{word}`: expected key=value, such as actors.idle-timeout-ms=60000")]
    Word {
        /// The word as given.
        word: String,
    },
}

impl Config {
    /// Defaults, then the file, then `key=value` words (values in TOML syntax, or a bare
    /// string).
    pub fn load(file: Option<&Path>, words: &[String]) -> Result<Config, ConfigError> {
        let mut table = toml::Table::new();
        if let Some(path) = file {
            let text = std::fs::read_to_string(path).map_err(|source| ConfigError::Read {
                path: path.to_owned(),
                source,
            })?;
            table = text
                .parse()
                .map_err(|e: toml::de::Error| ConfigError::Invalid(e.to_string()))?;
        }
        for word in words {
            let (key, value) = word
                .split_once('=')
                .ok_or_else(|| ConfigError::Word { word: word.clone() })?;
            merge(&mut table, parse_word(word, key, value)?);
        }
        let config: Config = toml::Value::Table(table)
            .try_into()
            .map_err(|e: toml::de::Error| ConfigError::Invalid(e.to_string()))?;
        config.check()?;
        Ok(config)
    }

    fn check(&self) -> Result<(), ConfigError> {
        let positive = [
            ("gateway.max-connections", self.gateway.max_connections),
            ("gateway.max-frame-bytes", self.gateway.max_frame_bytes),
            ("gateway.outbound-bytes", self.gateway.outbound_bytes),
            ("gateway.outbound-frames", self.gateway.outbound_frames),
            (
                "gateway.max-calls-in-flight",
                self.gateway.max_calls_in_flight,
            ),
            ("actors.mailbox-items", self.actors.mailbox_items),
            ("actors.max-in-memory", self.actors.max_in_memory),
            ("actors.resident-instances", self.actors.resident_instances),
            ("engine.epoch-tick-ms", self.engine.epoch_tick_ms as usize),
        ];
        for (name, value) in positive {
            if value == 0 {
                return Err(ConfigError::Invalid(format!(
                    "{name}: expected 1 or more, found 0"
                )));
            }
        }
        self.component
            .check()
            .map_err(|error| ConfigError::Invalid(format!("component.{error}")))
    }
}

/// Turns one `key=value` word into a table; a value that is not TOML is a string.
fn parse_word(word: &str, key: &str, value: &str) -> Result<toml::Table, ConfigError> {
    let parse = |value: &str| format!("{key} = {value}").parse::<toml::Table>();
    parse(value)
        .or_else(|_| parse(&toml::Value::String(value.to_owned()).to_string()))
        .map_err(|_| ConfigError::Word {
            word: word.to_owned(),
        })
}

fn merge(into: &mut toml::Table, from: toml::Table) {
    for (key, value) in from {
        match (into.get_mut(&key), value) {
            (Some(toml::Value::Table(old)), toml::Value::Table(new)) => merge(old, new),
            (_, value) => {
                into.insert(key, value);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn words(words: &[&str]) -> Result<Config, ConfigError> {
        Config::load(
            None,
            &words.iter().map(|w| w.to_string()).collect::<Vec<_>>(),
        )
    }

    #[test]
    fn words_override_defaults_one_by_one() {
        let config =
            words(&["actors.mailbox-items=7", "gateway.hosts=[\"live.example\"]"]).unwrap();
        assert_eq!(config.actors.mailbox_items, 7);
        assert_eq!(config.actors.idle_timeout_ms, 300_000);
        assert_eq!(config.gateway.hosts, ["live.example"]);
    }

    #[test]
    fn a_bare_string_needs_no_quotes() {
        assert_eq!(
            words(&["engine.cache-dir=/tmp/x"])
                .unwrap()
                .engine
                .cache_dir,
            Path::new("/tmp/x")
        );
    }

    #[test]
    fn a_misspelt_setting_is_named() {
        let error = words(&["actors.mailbox=7"]).unwrap_err().to_string();
        assert!(
            error.contains("mailbox") && error.contains("mailbox-items"),
            "{error}"
        );
    }

    #[test]
    fn zero_is_refused_where_it_would_stop_everything() {
        let error = words(&["actors.mailbox-items=0"]).unwrap_err().to_string();
        assert!(error.contains("actors.mailbox-items"), "{error}");
    }
}

//! Every limit and setting of the host: its name, its unit and its default.
//!
//! The command line builds one `Config` from [`Layers`]: the defaults, a TOML file,
//! environment variables and `--set key=value` words, in that order. All other modules are
//! handed the part that concerns them and never look further.

mod layers;

use std::fmt;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::time::Duration;

pub use layers::{Effective, Layers, Setting, Shown, Source, variable_of};
use serde::{Deserialize, Serialize};

/// All settings. In TOML the fields are spelt in kebab-case: `actors.idle-timeout-ms`.
#[derive(Clone, Debug, Default, Deserialize, Serialize)]
#[serde(default, deny_unknown_fields, rename_all = "kebab-case")]
pub struct Config {
    /// What the host keeps on disk; by default `.tidegate` beside the application manifest.
    pub data_dir: Option<PathBuf>,
    /// The doors: sockets, frames, connections.
    pub gateway: Gateway,
    /// Who is calling: tokens and their keys.
    pub auth: Auth,
    /// Who may see what, where no handler decides.
    pub access: Access,
    /// The doors for operators.
    pub admin: Admin,
    /// What all clients and actors together may make the host hold.
    pub memory: Memory,
    /// Mailboxes and the life of actors.
    pub actors: Actors,
    /// Where actors are kept, and how safely.
    pub store: Store,
    /// What one component may use, unless its table in `spin.toml` says otherwise.
    pub component: Limits,
    /// The WebAssembly engine.
    pub engine: Engine,
}

/// Settings of the doors.
#[derive(Clone, Debug, Deserialize, Serialize)]
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
    /// Serves the example page at `/`.
    pub page: bool,
    /// Addresses of reverse proxies whose `x-forwarded-for` is believed, as IP addresses
    /// or networks (`10.0.0.0/8`).
    pub trusted_proxies: Vec<String>,
    /// Open sockets, WebSocket and HTTP together; further ones are refused. Fewer where the
    /// process may not have as many file descriptors.
    pub max_connections: usize,
    /// Connections that wait to be taken; the kernel may allow fewer (`net.core.somaxconn`).
    /// Beyond that an attempt is made again by its client's kernel, a second later.
    pub accept_backlog: u32,
    /// Refused connections that are told why, per second; further ones are reset, which costs
    /// less, so that who comes behind them need not wait. 0 sets no limit.
    pub refusal_answers_per_second: u32,
    /// File descriptors that sockets leave to everything else: the store's files, compiled
    /// components, what handlers ask of other hosts. Half of all where there are few.
    pub reserved_descriptors: usize,
    /// Connections from one address. Behind a reverse proxy that is not in `trusted-proxies` all
    /// clients have one.
    pub max_connections_per_address: usize,
    /// Places beyond these for requests to `/health`, `/ready` and operators' doors, which are
    /// served when no other place is free. They are among `reserved-descriptors`.
    pub reserved_connections: usize,
    /// Time for the head of a request that takes one of them.
    pub reserved_timeout_ms: u64,
    /// WebSocket frames of one connection per second, on average; 0 sets no limit.
    pub frames_per_second: u32,
    /// Frames that one connection may send at once, ahead of that average.
    pub frames_burst: u32,
    /// Calls, subscriptions and reads of one user per second, on average, over all their
    /// connections and HTTP; who is anonymous counts by address. 0 sets no limit.
    pub calls_per_second: u32,
    /// Calls that one user may make at once, ahead of that average.
    pub calls_burst: u32,
    /// Longest WebSocket message and HTTP body, in bytes.
    pub max_frame_bytes: usize,
    /// Longest WebSocket message that is read over and answered with an error; a longer
    /// one closes the socket with 1009. Of the body of an HTTP request that is refused, no
    /// more than this is read over before its connection is closed.
    pub max_discard_bytes: u64,
    /// What one connection may be owed before it counts as a slow consumer, in bytes.
    pub outbound_bytes: usize,
    /// What one connection may be owed before it counts as a slow consumer, in frames.
    pub outbound_frames: usize,
    /// Of so many WebSocket messages, one is timed on its way (`tidegate_call_stage_seconds`), if
    /// it is a call; 0 times none.
    pub watch_every: u64,
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
    /// Time for a client to send the head of a request, from its first byte; on a new
    /// connection from its beginning.
    pub header_timeout_ms: u64,
    /// Longest head of a request, in bytes, at least 8 KiB; a longer one is answered with 431.
    pub max_head_bytes: usize,
    /// Time that an HTTP connection may rest between an answer and the next request. Longer
    /// than the load balancers in front keep theirs, most of them 60 s: they would send a
    /// request on a connection that is being closed.
    pub keep_alive_timeout_ms: u64,
    /// Time from when an HTTP client closes its side until it is found out whether it still
    /// waits for its answer, and how often after that; one that is gone ends its request.
    pub half_closed_timeout_ms: u64,
    /// Time for a client to send the body of a request.
    pub body_timeout_ms: u64,
    /// Time for a client to send a WebSocket message, from its first byte to its last; one that
    /// takes longer closes the socket with 1008.
    pub message_timeout_ms: u64,
    /// Time for a client to take anything of what is written to it; one that does not is
    /// cut off.
    pub write_timeout_ms: u64,
    /// Time for a closing connection to take what it is owed and answer; also for the rest of
    /// the body of an HTTP request that is refused.
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
            page: true,
            trusted_proxies: Vec::new(),
            max_connections: 20_000,
            reserved_descriptors: 256,
            accept_backlog: 4_096,
            refusal_answers_per_second: 1_000,
            max_connections_per_address: 2_000,
            reserved_connections: 16,
            reserved_timeout_ms: 2_000,
            frames_per_second: 0,
            frames_burst: 1_000,
            calls_per_second: 0,
            calls_burst: 100,
            max_frame_bytes: 1 << 20,
            max_discard_bytes: 64 << 20,
            outbound_bytes: 4 << 20,
            outbound_frames: 16_384,
            watch_every: 1_000,
            max_calls_in_flight: 16_384,
            max_calls_bytes: 16 << 20,
            max_actors_per_connection: 4_096,
            ping_interval_ms: 30_000,
            pong_timeout_ms: 20_000,
            header_timeout_ms: 10_000,
            max_head_bytes: 32 << 10,
            keep_alive_timeout_ms: 75_000,
            half_closed_timeout_ms: 250,
            body_timeout_ms: 30_000,
            message_timeout_ms: 30_000,
            write_timeout_ms: 60_000,
            close_timeout_ms: 5_000,
            shutdown_grace_ms: 10_000,
        }
    }
}

/// Who is calling. With neither `key-file` nor `jwks-file` everybody is anonymous.
#[derive(Clone, Debug, Deserialize, Serialize)]
#[serde(default, deny_unknown_fields, rename_all = "kebab-case")]
pub struct Auth {
    /// Algorithms that tokens may be signed with: `HS256`, `RS256`, `ES256`, `EdDSA`. With
    /// `key-file` exactly one.
    pub algorithms: Vec<String>,
    /// The key that verifies tokens: a secret of at least 32 bytes for `HS256` (the file's
    /// bytes, without a line break at its end), a public key in PEM for the others.
    pub key_file: Option<PathBuf>,
    /// A JSON Web Key Set (RFC 7517); a token's `kid` names the key.
    pub jwks_file: Option<PathBuf>,
    /// What a token's `aud` must hold; any, when absent.
    pub audience: Option<String>,
    /// What a token's `iss` must be; any, when absent.
    pub issuer: Option<String>,
    /// Clocks may differ by so much when `exp` and `nbf` are checked.
    pub leeway_ms: u64,
    /// How far away `exp` may be. What is further is no time that anybody means: a number of
    /// milliseconds, mostly, where seconds are expected.
    pub max_lifetime_ms: u64,
    /// Lets clients in that send no token, as anonymous ones. A token that is sent must be
    /// valid in any case.
    pub allow_anonymous: bool,
    /// Longest token, in bytes.
    pub max_token_bytes: usize,
    /// How often the key files are looked at for a change.
    pub reload_interval_ms: u64,
}

impl Default for Auth {
    fn default() -> Self {
        Auth {
            algorithms: Vec::new(),
            key_file: None,
            jwks_file: None,
            audience: None,
            issuer: None,
            leeway_ms: 5_000,
            // 10 000 years of 365.25 days, for those who mean "never".
            max_lifetime_ms: 315_576_000_000_000,
            allow_anonymous: false,
            max_token_bytes: 8 << 10,
            reload_interval_ms: 2_000,
        }
    }
}

/// Who may see what.
#[derive(Clone, Debug, Deserialize, Serialize)]
#[serde(default, deny_unknown_fields, rename_all = "kebab-case")]
pub struct Access {
    /// Whether the actors of a component that does not decide itself may be subscribed to
    /// and read.
    pub default: AccessDefault,
    /// Subscriptions that one actor's guard has not decided yet; further ones fail.
    pub max_waiting: usize,
    /// Subscriptions that a guard is asked about at once.
    pub max_batch: usize,
    /// Time from a commit until a guard is asked again about those who subscribe already, where
    /// its author wants it asked later.
    pub recheck_ms: u64,
}

/// What holds where no handler decides.
#[derive(Clone, Copy, Debug, Deserialize, PartialEq, Eq, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum AccessDefault {
    /// Everybody may see.
    Open,
    /// Nobody may.
    Closed,
}

impl Default for Access {
    fn default() -> Self {
        Access {
            default: AccessDefault::Open,
            max_waiting: 65_536,
            max_batch: 1_024,
            recheck_ms: 1_000,
        }
    }
}

/// Settings of the doors for operators, under `/_tidegate/`.
#[derive(Clone, Debug, Deserialize, Serialize)]
#[serde(default, deny_unknown_fields, rename_all = "kebab-case")]
pub struct Admin {
    /// The bearer key; at least 16 bytes. When absent, the one in `key-file` holds.
    pub key: Option<String>,
    /// Where the key is kept; made with a random key if it is not there. When absent,
    /// `admin.key` in the data folder.
    pub key_file: Option<PathBuf>,
    /// Components that are uploaded and compiled at the same time; of them, half for large ones
    /// (engine.small-component-bytes).
    pub max_uploads: usize,
    /// Time for an upload's body to arrive.
    pub upload_timeout_ms: u64,
    /// Time for an upload to be compiled, to describe itself and to test itself, waiting for its
    /// turn included; one that takes longer is refused.
    pub compile_timeout_ms: u64,
    /// Most actors on one page of a listing.
    pub max_page: usize,
    /// Longest file that is imported, in bytes; it is kept in the data folder while it is
    /// checked.
    pub max_import_bytes: u64,
    /// Versions of one component that are kept in the data folder.
    pub kept_versions: usize,
}

impl Default for Admin {
    fn default() -> Self {
        Admin {
            key: None,
            key_file: None,
            max_uploads: 8,
            upload_timeout_ms: 300_000,
            compile_timeout_ms: 120_000,
            max_page: 1_000,
            max_import_bytes: 64 << 30,
            kept_versions: 10,
        }
    }
}

/// What all clients and actors together may make the host hold, in bytes. What a single one may
/// is said elsewhere. The memories of guests are `engine.guest-memory-bytes`.
#[derive(Clone, Debug, Deserialize, Serialize)]
#[serde(default, deny_unknown_fields, rename_all = "kebab-case")]
pub struct Memory {
    /// All of the following, of which each that is 0 has its part of this. No more than half of what the machine, or
    /// the process's control group, has.
    pub bytes: usize,
    /// Messages and bodies that are being received, and inputs of calls that wait or run; 0
    /// is a quarter of `memory.bytes`. What finds no room fails with `host.memory`.
    pub inputs_bytes: usize,
    /// What turns have staged and receivers have not taken; 0 is a quarter. When it
    /// becomes scarce, the connections that are owed most are closed.
    pub outbound_bytes: usize,
    /// Actors in memory, with their states and what is remembered beside, and contacts of
    /// connections with them; 0 is a half. When it becomes scarce, idle actors leave
    /// sooner; further ones fail with `actor.limit`, turns that make one larger with
    /// `host.memory`.
    pub actors_bytes: usize,
}

impl Default for Memory {
    fn default() -> Self {
        Memory {
            bytes: 4 << 30,
            inputs_bytes: 0,
            outbound_bytes: 0,
            actors_bytes: 0,
        }
    }
}

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

/// Settings of the store, which is in the folder `store` of `data-dir`.
#[derive(Clone, Debug, Deserialize, Serialize)]
#[serde(default, deny_unknown_fields, rename_all = "kebab-case")]
pub struct Store {
    /// Keeps everything in the process, which forgets it when it ends.
    pub memory: bool,
    /// How safe commits are of components that do not say so themselves: `strict` (waits
    /// for the disk), `relaxed` (waits for the system) or `none`.
    pub durability: Durability,
    /// How long what is written waits for the disk, at most, where nobody waits for it.
    pub sync_interval_ms: u64,
    /// Commits of one actor that may be under way while it goes on.
    pub run_ahead: usize,
    /// Longest record, in bytes; an actor's whole state is one.
    pub max_record_bytes: usize,
    /// What may wait to be written, in bytes; turns fail with `store.unavailable` beyond it.
    pub queue_bytes: usize,
    /// Longest file of the store, in bytes.
    pub segment_bytes: u32,
    /// Starts although the end of what was safe is gone from the store, and goes on without it.
    pub accept_loss: bool,
}

impl Default for Store {
    fn default() -> Self {
        Store {
            memory: false,
            durability: Durability::Strict,
            sync_interval_ms: 100,
            run_ahead: 64,
            max_record_bytes: 64 << 20,
            queue_bytes: 128 << 20,
            segment_bytes: 64 << 20,
            accept_loss: false,
        }
    }
}

/// Settings of actors.
#[derive(Clone, Debug, Deserialize, Serialize)]
#[serde(default, deny_unknown_fields, rename_all = "kebab-case")]
pub struct Actors {
    /// Calls that wait in one actor's queue; further ones fail with `mailbox.full`.
    pub mailbox_items: usize,
    /// What calls that wait in one actor's queue may weigh, in bytes of input.
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
    /// Time for which the first snapshot of a connection waits for what its own `connect` does,
    /// behind a busy queue or in a slow hook.
    pub connect_wait_ms: u64,
    /// How long who wants to see an actor that is on its way to another host waits for it; then it
    /// is told `actor.moving`.
    pub move_wait_ms: u64,
    /// Time from a cancellation until the turn is interrupted.
    pub cancel_grace_ms: u64,
    /// Time for the turns of an actor that is to be destroyed, or that no component serves any
    /// more; those that are not finished then are cancelled.
    pub end_grace_ms: u64,
    /// Calls with idempotency keys that one actor remembers; the oldest are forgotten first.
    pub max_keys: usize,
    /// What the answers to such calls may weigh, in bytes of results.
    pub max_keys_bytes: usize,
    /// How long it remembers them.
    pub key_ttl_ms: u64,
    /// Messages of one actor that have not reached their receivers; further ones fail with
    /// `message.limit`.
    pub max_unsettled: usize,
    /// What such messages of one actor may weigh, in bytes.
    pub max_unsettled_bytes: usize,
    /// Senders of whom one actor remembers the last message that it has heard; the longest
    /// silent are forgotten first.
    pub max_senders: usize,
    /// Time for which what turns let out, that follow right upon each other, gathers for one
    /// write to each receiver, but for the turn that is under way then.
    pub gather_ms: u64,
    /// Time for which a connection's own task runs the calls that one read has brought to
    /// actors at rest, but for the turn that is under way then, in microseconds; 0 leaves
    /// all to other tasks.
    pub run_here_us: u64,
    /// How deep calls between actors may nest.
    pub max_call_depth: u32,
    /// Checks what methods return against the manifest too (a fault of the handler, which
    /// is otherwise the client's to find).
    pub validate_results: bool,
}

impl Default for Actors {
    fn default() -> Self {
        Actors {
            mailbox_items: 65_536,
            mailbox_bytes: 16 << 20,
            idle_timeout_ms: 300_000,
            max_in_memory: 1_000_000,
            max_stored: 10_000_000,
            resident_instances: 4_096,
            connect_wait_ms: 100,
            move_wait_ms: 5_000,
            cancel_grace_ms: 1_000,
            end_grace_ms: 5_000,
            max_keys: 1_000,
            max_keys_bytes: 1 << 20,
            key_ttl_ms: 24 * 60 * 60 * 1000,
            max_unsettled: 10_000,
            max_unsettled_bytes: 4 << 20,
            max_senders: 1_000,
            gather_ms: 2,
            run_here_us: 200,
            max_call_depth: 16,
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
    /// Time for one turn of a streaming method, unless its manifest says otherwise.
    pub streaming_deadline_ms: u64,
    /// The longest deadline that a manifest may give a method; one that asks for more gets this.
    pub max_deadline_ms: u64,
    /// Actors of the component that may come into memory per second, on average; calls and
    /// subscriptions that would bring in further ones fail with `rate.actors`, messages wait. 0
    /// sets no limit.
    pub new_actors_per_second: u32,
    /// Actors that may come at once, ahead of that average.
    pub new_actors_burst: u32,
    /// Time for a caller to read a part of a result before the turn fails.
    pub chunk_timeout_ms: u64,
    /// Timers that one actor may have.
    pub timers: usize,
    /// Calls and messages of one turn to other actors.
    pub calls: usize,
    /// Calls of one turn to the interfaces of `tidegate:realtime`; a stream has them anew
    /// after each tick.
    pub host_calls: u64,
    /// Outbound HTTP requests of one turn that are under way.
    pub outbound_requests: usize,
    /// Time to connect to the server of an outbound request.
    pub outbound_connect_timeout_ms: u64,
    /// Time from then until its response begins.
    pub outbound_first_byte_timeout_ms: u64,
    /// Steps of the host's work for one turn or guard call on its documents: a JSON value that is
    /// made, moved, compared or checked, or 64 bytes of text. A stream has them anew after each
    /// tick.
    pub work_steps: u64,
    /// What one turn may stage (documents, patches, events, its result), in bytes.
    pub effects_bytes: usize,
    /// Length of an actor's state as JSON, in bytes.
    pub state_bytes: usize,
    /// What it takes in memory, in bytes: `docs/handlers.md` says how that is counted. Patches,
    /// views and values that are checked are bound by it as well.
    pub state_memory_bytes: usize,
    /// What one turn may write to standard output and error; the rest is dropped.
    pub log_bytes: usize,
    /// Instances that answer `access` at the same time, for all actors together.
    pub guard_instances: usize,
    /// Time for one call of a guard, waiting for an instance included.
    pub guard_deadline_ms: u64,
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
            streaming_deadline_ms: 300_000,
            max_deadline_ms: 3_600_000,
            new_actors_per_second: 10_000,
            new_actors_burst: 50_000,
            chunk_timeout_ms: 30_000,
            timers: 10_000,
            calls: 1_000,
            host_calls: 10_000,
            outbound_requests: 16,
            outbound_connect_timeout_ms: 10_000,
            outbound_first_byte_timeout_ms: 60_000,
            work_steps: 200_000_000,
            effects_bytes: 64 << 20,
            state_bytes: 32 << 20,
            state_memory_bytes: 128 << 20,
            log_bytes: 64 << 10,
            guard_instances: 8,
            guard_deadline_ms: 2_000,
        }
    }
}

/// Longest turn that can be asked for.
const MAX_TURN_DEADLINE_MS: u64 = 24 * 60 * 60 * 1000;
/// Most outbound requests of one turn that can be asked for.
const MAX_OUTBOUND_REQUESTS: u64 = 10_000;
/// Longest time that any setting may name: ten years, which can be added to any clock.
const MAX_MS: u64 = 10 * 365 * 24 * 60 * 60 * 1000;

/// Least memory with which anything can be compiled.
const MIN_COMPILE_MEMORY: u64 = 64 << 20;

/// A setting that the host could not live with.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct OutOfRange {
    key: String,
    expected: String,
    found: u64,
}

impl fmt::Display for OutOfRange {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let OutOfRange {
            key,
            expected,
            found,
        } = self;
        write!(f, "{key}: expected {expected}, found {found}")
    }
}

fn within(key: &str, found: u64, least: u64, most: u64) -> Result<(), OutOfRange> {
    let expected = match found {
        found if (least..=most).contains(&found) => return Ok(()),
        _ if most == u64::MAX => format!("{least} or more"),
        _ => format!("{least} to {most}"),
    };
    Err(OutOfRange {
        key: key.to_owned(),
        expected,
        found,
    })
}

fn positive(settings: &[(&str, u64)]) -> Result<(), OutOfRange> {
    settings
        .iter()
        .try_for_each(|(key, found)| within(key, *found, 1, u64::MAX))
}

impl Limits {
    /// Names a limit that no handler could live with, or that is no limit.
    pub fn check(&self) -> Result<(), String> {
        self.check_ranges().map_err(|wrong| wrong.to_string())
    }

    fn check_ranges(&self) -> Result<(), OutOfRange> {
        positive(&[
            ("memory-bytes", self.memory_bytes as u64),
            ("core-instances", self.core_instances as u64),
            ("work-steps", self.work_steps),
            ("effects-bytes", self.effects_bytes as u64),
            ("state-bytes", self.state_bytes as u64),
            ("state-memory-bytes", self.state_memory_bytes as u64),
            ("guard-instances", self.guard_instances as u64),
            ("new-actors-burst", self.new_actors_burst.into()),
        ])?;
        within(
            "outbound-requests",
            self.outbound_requests as u64,
            0,
            MAX_OUTBOUND_REQUESTS,
        )?;
        let timeouts = [
            (
                "outbound-connect-timeout-ms",
                self.outbound_connect_timeout_ms,
            ),
            (
                "outbound-first-byte-timeout-ms",
                self.outbound_first_byte_timeout_ms,
            ),
        ];
        for (key, found) in timeouts {
            within(key, found, 1, MAX_TURN_DEADLINE_MS)?;
        }
        within(
            "streaming-deadline-ms",
            self.streaming_deadline_ms,
            1,
            MAX_TURN_DEADLINE_MS,
        )?;
        within(
            "max-deadline-ms",
            self.max_deadline_ms,
            1,
            MAX_TURN_DEADLINE_MS,
        )?;
        within(
            "guard-deadline-ms",
            self.guard_deadline_ms,
            1,
            MAX_TURN_DEADLINE_MS,
        )?;
        within(
            "chunk-timeout-ms",
            self.chunk_timeout_ms,
            1,
            MAX_TURN_DEADLINE_MS,
        )?;
        within(
            "turn-deadline-ms",
            self.turn_deadline_ms,
            1,
            MAX_TURN_DEADLINE_MS,
        )
    }

    /// Time for one turn.
    pub fn turn_deadline(&self) -> Duration {
        Duration::from_millis(self.turn_deadline_ms)
    }
}

/// Settings of the WebAssembly engine.
#[derive(Clone, Debug, Deserialize, Serialize)]
#[serde(default, deny_unknown_fields, rename_all = "kebab-case")]
pub struct Engine {
    /// Where compiled components are kept; by default `tidegate/compiled` in the user's
    /// cache folder. An empty path keeps none.
    pub cache_dir: PathBuf,
    /// What they may take there, in bytes; beyond it those go that were not loaded for the
    /// longest time. Those of components that are loaded stay.
    pub cache_max_bytes: u64,
    /// How often a running guest is looked at: whether it is past its deadline, and to
    /// let its neighbours run.
    pub epoch_tick_ms: u64,
    /// Stack of a guest, in bytes; recursion beyond it fails the turn.
    pub stack_bytes: usize,
    /// What all guests together may hold, in bytes: of each instance its memories, from the
    /// size they begin with on, whether it has touched all of that or not, its tables and its
    /// stack. For more, instances that wait for their next turn are dropped.
    #[serde(alias = "grown-memory-bytes")]
    pub guest_memory_bytes: usize,
    /// Longest component file, in bytes.
    pub max_component_bytes: u64,
    /// Longest component file that counts as small, in bytes: which does not wait for large ones.
    pub small_component_bytes: u64,
    /// Components within each other.
    pub max_nesting: usize,
    /// Modules and components that one component consists of.
    pub max_modules: usize,
    /// Types, imports, exports, instances and aliases of one component; those of a nested one
    /// count as often as it is instantiated.
    pub max_items: usize,
    /// Functions of one component.
    pub max_functions: usize,
    /// Longest function, in bytes of WebAssembly.
    pub max_function_bytes: usize,
    /// Longest compiled code of one component, in bytes.
    pub max_compiled_bytes: usize,
    /// Components that are compiled at the same time, each in a process of its own; large ones
    /// leave one of these places to the small.
    pub compile_processes: usize,
    /// Threads of each of these processes; while the host serves, at a lower priority than its own.
    pub compile_threads: usize,
    /// What compiling one component may take, in bytes of memory.
    pub compile_memory_bytes: usize,
    /// Time to compile one component, once its turn has come; so long it also waits for that.
    pub compile_timeout_ms: u64,
    /// Time of a processor that compiling a small component may take, rounded up to seconds.
    pub small_compile_cpu_ms: u64,
    /// Threads for long work of the host on large documents, at a lower priority than those that
    /// serve; one component has all but one of them at most.
    pub work_threads: usize,
}

impl Default for Engine {
    fn default() -> Self {
        Engine {
            cache_dir: default_cache_dir(),
            cache_max_bytes: 1 << 30,
            epoch_tick_ms: 1,
            stack_bytes: 512 << 10,
            guest_memory_bytes: 8 << 30,
            max_component_bytes: 64 << 20,
            small_component_bytes: 2 << 20,
            max_nesting: 32,
            max_modules: 1_000,
            max_items: 200_000,
            max_functions: 100_000,
            max_function_bytes: 1 << 20,
            max_compiled_bytes: 512 << 20,
            compile_processes: 2,
            compile_threads: 1,
            compile_memory_bytes: 2 << 30,
            compile_timeout_ms: 120_000,
            small_compile_cpu_ms: 20_000,
            work_threads: 2,
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
    #[error("invalid setting `{word}`: expected key=value, such as actors.idle-timeout-ms=60000")]
    Word {
        /// The word as given.
        word: String,
    },
}

impl Config {
    /// Defaults, then the file, then this process's environment variables, then
    /// `key=value` words.
    pub fn load(file: Option<&Path>, words: &[String]) -> Result<Config, ConfigError> {
        let mut layers = Layers::new();
        if let Some(path) = file {
            layers = layers.file(path)?;
        }
        let layers = layers.variables(std::env::vars_os())?.words(words)?;
        Ok(layers.resolve()?.config)
    }

    fn check(&self) -> Result<(), OutOfRange> {
        let Config {
            gateway,
            auth,
            access,
            admin,
            memory,
            actors,
            store,
            component,
            engine,
            ..
        } = self;
        positive(&[
            ("gateway.max-connections", gateway.max_connections as u64),
            (
                "gateway.max-connections-per-address",
                gateway.max_connections_per_address as u64,
            ),
            ("gateway.frames-burst", gateway.frames_burst.into()),
            ("gateway.calls-burst", gateway.calls_burst.into()),
            ("gateway.outbound-bytes", gateway.outbound_bytes as u64),
            ("gateway.outbound-frames", gateway.outbound_frames as u64),
            (
                "gateway.max-calls-in-flight",
                gateway.max_calls_in_flight as u64,
            ),
            (
                "gateway.max-actors-per-connection",
                gateway.max_actors_per_connection as u64,
            ),
            ("auth.max-token-bytes", auth.max_token_bytes as u64),
            ("access.max-waiting", access.max_waiting as u64),
            ("access.max-batch", access.max_batch as u64),
            ("admin.max-uploads", admin.max_uploads as u64),
            ("admin.max-page", admin.max_page as u64),
            ("admin.max-import-bytes", admin.max_import_bytes),
            ("admin.kept-versions", admin.kept_versions as u64),
            ("actors.mailbox-items", actors.mailbox_items as u64),
            ("actors.max-keys", actors.max_keys as u64),
            ("actors.max-keys-bytes", actors.max_keys_bytes as u64),
            ("actors.max-unsettled", actors.max_unsettled as u64),
            (
                "actors.max-unsettled-bytes",
                actors.max_unsettled_bytes as u64,
            ),
            ("actors.max-senders", actors.max_senders as u64),
            ("actors.max-in-memory", actors.max_in_memory as u64),
            (
                "actors.resident-instances",
                actors.resident_instances as u64,
            ),
            ("engine.stack-bytes", engine.stack_bytes as u64),
            (
                "engine.guest-memory-bytes",
                engine.guest_memory_bytes as u64,
            ),
            ("engine.max-component-bytes", engine.max_component_bytes),
            ("engine.max-nesting", engine.max_nesting as u64),
            ("engine.max-modules", engine.max_modules as u64),
            ("engine.max-items", engine.max_items as u64),
            ("engine.max-functions", engine.max_functions as u64),
            (
                "engine.max-function-bytes",
                engine.max_function_bytes as u64,
            ),
            (
                "engine.max-compiled-bytes",
                engine.max_compiled_bytes as u64,
            ),
            ("engine.compile-processes", engine.compile_processes as u64),
        ])?;
        // Less would not serve a single client.
        within("memory.bytes", memory.bytes as u64, 1 << 20, u64::MAX)?;
        let frame_bytes = gateway.max_frame_bytes as u64;
        within("gateway.max-frame-bytes", frame_bytes, 1, 1 << 30)?;
        let head_bytes = gateway.max_head_bytes as u64;
        within("gateway.max-head-bytes", head_bytes, 8 << 10, 1 << 20)?;
        let record_bytes = store.max_record_bytes as u64;
        within("store.max-record-bytes", record_bytes, 1 << 10, 1 << 30)?;
        let queue_bytes = store.queue_bytes as u64;
        within("store.queue-bytes", queue_bytes, record_bytes, u64::MAX)?;
        within(
            "store.segment-bytes",
            store.segment_bytes.into(),
            1 << 12,
            1 << 30,
        )?;
        // At most what browsers can tell.
        let lifetime_ms = auth.max_lifetime_ms;
        within(
            "auth.max-lifetime-ms",
            lifetime_ms,
            1_000,
            8_640_000_000_000_000,
        )?;
        within(
            "engine.compile-memory-bytes",
            engine.compile_memory_bytes as u64,
            MIN_COMPILE_MEMORY,
            u64::MAX,
        )?;
        within(
            "engine.compile-threads",
            engine.compile_threads as u64,
            1,
            1_024,
        )?;
        within("engine.work-threads", engine.work_threads as u64, 2, 1_024)?;
        within(
            "gateway.accept-backlog",
            gateway.accept_backlog.into(),
            1,
            65_535,
        )?;
        let times = [
            ("gateway.ping-interval-ms", gateway.ping_interval_ms, 1),
            ("gateway.pong-timeout-ms", gateway.pong_timeout_ms, 1),
            ("gateway.header-timeout-ms", gateway.header_timeout_ms, 1),
            (
                "gateway.keep-alive-timeout-ms",
                gateway.keep_alive_timeout_ms,
                1,
            ),
            (
                "gateway.half-closed-timeout-ms",
                gateway.half_closed_timeout_ms,
                1,
            ),
            ("gateway.body-timeout-ms", gateway.body_timeout_ms, 1),
            ("gateway.message-timeout-ms", gateway.message_timeout_ms, 1),
            (
                "gateway.reserved-timeout-ms",
                gateway.reserved_timeout_ms,
                1,
            ),
            ("gateway.write-timeout-ms", gateway.write_timeout_ms, 1),
            ("gateway.close-timeout-ms", gateway.close_timeout_ms, 0),
            ("gateway.shutdown-grace-ms", gateway.shutdown_grace_ms, 0),
            ("auth.leeway-ms", auth.leeway_ms, 0),
            // More often than that would keep a disk busy for nothing.
            ("auth.reload-interval-ms", auth.reload_interval_ms, 10),
            ("access.recheck-ms", access.recheck_ms, 0),
            ("actors.connect-wait-ms", actors.connect_wait_ms, 0),
            ("actors.move-wait-ms", actors.move_wait_ms, 0),
            ("actors.cancel-grace-ms", actors.cancel_grace_ms, 0),
            ("actors.end-grace-ms", actors.end_grace_ms, 0),
            ("actors.gather-ms", actors.gather_ms, 0),
            ("actors.run-here-us", actors.run_here_us, 0),
            ("admin.upload-timeout-ms", admin.upload_timeout_ms, 1),
            ("admin.compile-timeout-ms", admin.compile_timeout_ms, 1),
            ("actors.idle-timeout-ms", actors.idle_timeout_ms, 0),
            ("engine.epoch-tick-ms", engine.epoch_tick_ms, 1),
            ("engine.compile-timeout-ms", engine.compile_timeout_ms, 1),
            (
                "engine.small-compile-cpu-ms",
                engine.small_compile_cpu_ms,
                1,
            ),
            ("store.sync-interval-ms", store.sync_interval_ms, 1),
            ("actors.key-ttl-ms", actors.key_ttl_ms, 1),
        ];
        for (key, found, least) in times {
            within(key, found, least, MAX_MS)?;
        }
        component.check_ranges().map_err(|wrong| OutOfRange {
            key: format!("component.{}", wrong.key),
            ..wrong
        })
    }
}

#[cfg(test)]
mod tests;

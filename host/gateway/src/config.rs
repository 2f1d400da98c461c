//! The settings of the doors: those for clients, and those for operators.

use std::net::SocketAddr;
use std::path::PathBuf;

use tidegate_base::config::MAX_MS;
use tidegate_base::settings;

settings! {
    /// Settings of the doors.
    pub struct Gateway {
        /// Where to listen. Port 0 takes a free one.
        #[variable = "TIDEGATE_LISTEN"]
        listen: SocketAddr = SocketAddr::from(([127, 0, 0, 1], 3000)), "address and port";
        /// Host names that requests may be addressed to, beside `localhost` and IP addresses
        /// (which a DNS rebinding attack cannot use). `*` allows any.
        hosts: Vec<String> = Vec::new(), "host names";
        /// Origins of web pages that may connect, beside the host's own and, while it listens
        /// on a loopback address, pages served from loopback. `*` allows any.
        origins: Vec<String> = Vec::new(), "origins";
        /// Serves the example page at `/`.
        page: bool = true, "true or false";
        /// Addresses of reverse proxies whose `x-forwarded-for` is believed, as IP addresses
        /// or networks (`10.0.0.0/8`).
        trusted_proxies: Vec<String> = Vec::new(), "addresses or networks";
        /// Open sockets, WebSocket and HTTP together; further ones are refused. Fewer where the
        /// process may not have as many file descriptors.
        max_connections: usize = 20_000, "sockets", 1..;
        /// Connections that wait to be taken; the kernel may allow fewer (`net.core.somaxconn`).
        /// Beyond that an attempt is made again by its client's kernel, a second later.
        accept_backlog: u32 = 4_096, "connections", 1..=65_535;
        /// Refused connections that are told why, per second; further ones are reset, which costs
        /// less, so that who comes behind them need not wait. 0 sets no limit.
        refusal_answers_per_second: u32 = 1_000, "answers/s";
        /// File descriptors that sockets leave to everything else: the store's files, compiled
        /// components, what handlers ask of other hosts. Half of all where there are few.
        reserved_descriptors: usize = 256, "file descriptors";
        /// Connections from one address. Behind a reverse proxy that is not in `trusted-proxies` all
        /// clients have one.
        max_connections_per_address: usize = 2_000, "connections", 1..;
        /// Places beyond these for requests to `/health`, `/ready` and operators' doors, which are
        /// served when no other place is free. They are among `reserved-descriptors`.
        reserved_connections: usize = 16, "connections";
        /// Time for the head of a request that takes one of them.
        reserved_timeout_ms: u64 = 2_000, "ms", 1..=MAX_MS;
        /// WebSocket frames of one connection per second, on average; 0 sets no limit.
        frames_per_second: u32 = 0, "frames/s";
        /// Frames that one connection may send at once, ahead of that average.
        frames_burst: u32 = 1_000, "frames", 1..;
        /// Calls, subscriptions and reads of one user per second, on average, over all their
        /// connections and HTTP; who is anonymous counts by address. 0 sets no limit.
        calls_per_second: u32 = 0, "calls/s";
        /// Calls that one user may make at once, ahead of that average.
        calls_burst: u32 = 100, "calls", 1..;
        /// Longest WebSocket message and HTTP body, in bytes.
        max_frame_bytes: usize = 1 << 20, "bytes", 1..=1 << 30;
        /// Longest WebSocket message that is read over and answered with an error; a longer
        /// one closes the socket with 1009. Of the body of an HTTP request that is refused, no
        /// more than this is read over before its connection is closed.
        max_discard_bytes: u64 = 64 << 20, "bytes";
        /// What one connection may be owed before it counts as a slow consumer, in bytes.
        outbound_bytes: usize = 4 << 20, "bytes", 1..;
        /// What one connection may be owed before it counts as a slow consumer, in frames.
        outbound_frames: usize = 16_384, "frames", 1..;
        /// Of so many WebSocket messages, one is timed on its way (`tidegate_call_stage_seconds`), if
        /// it is a call; 0 times none.
        watch_every: u64 = 1_000, "messages";
        /// Calls of one connection that have no answer yet.
        max_calls_in_flight: usize = 16_384, "calls", 1..;
        /// What these calls may hold, in bytes of input. A single call may exceed it.
        max_calls_bytes: usize = 16 << 20, "bytes";
        /// Actors that one connection may have had contact with.
        max_actors_per_connection: usize = 4_096, "actors", 1..;
        /// Silence after which a connection is pinged.
        ping_interval_ms: u64 = 30_000, "ms", 1..=MAX_MS;
        /// Time within which a ping must be answered.
        pong_timeout_ms: u64 = 20_000, "ms", 1..=MAX_MS;
        /// Time for a client to send the head of a request, from its first byte; on a new
        /// connection from its beginning.
        header_timeout_ms: u64 = 10_000, "ms", 1..=MAX_MS;
        /// Longest head of a request, in bytes, at least 8 KiB; a longer one is answered with 431.
        max_head_bytes: usize = 32 << 10, "bytes", 8 << 10..=1 << 20;
        /// Time that an HTTP connection may rest between an answer and the next request. Longer
        /// than the load balancers in front keep theirs, most of them 60 s: they would send a
        /// request on a connection that is being closed.
        keep_alive_timeout_ms: u64 = 75_000, "ms", 1..=MAX_MS;
        /// Time from when an HTTP client closes its side until it is found out whether it still
        /// waits for its answer, and how often after that; one that is gone ends its request.
        half_closed_timeout_ms: u64 = 250, "ms", 1..=MAX_MS;
        /// Time for a client to send the body of a request.
        body_timeout_ms: u64 = 30_000, "ms", 1..=MAX_MS;
        /// Time for a client to send a WebSocket message, from its first byte to its last; one that
        /// takes longer closes the socket with 1008.
        message_timeout_ms: u64 = 30_000, "ms", 1..=MAX_MS;
        /// Time for a client to take anything of what is written to it; one that does not is
        /// cut off.
        write_timeout_ms: u64 = 60_000, "ms", 1..=MAX_MS;
        /// Time for a closing connection to take what it is owed and answer; also for the rest of
        /// the body of an HTTP request that is refused.
        close_timeout_ms: u64 = 5_000, "ms", 0..=MAX_MS;
        /// Time for running turns and open sockets to finish when the host stops.
        shutdown_grace_ms: u64 = 10_000, "ms", 0..=MAX_MS;
    }
}

settings! {
    /// Settings of the doors for operators, under `/_tidegate/`.
    pub struct Admin {
        /// The bearer key; at least 16 bytes. When absent, the one in `key-file` holds.
        #[secret = true]
        key: Option<String> = None, "text";
        /// Where the key is kept; made with a random key if it is not there. When absent,
        /// `admin.key` in the data folder.
        key_file: Option<PathBuf> = None, "path";
        /// Components that are uploaded and compiled at the same time; of them, half for large ones
        /// (engine.small-component-bytes).
        max_uploads: usize = 8, "uploads", 1..;
        /// Time for an upload's body to arrive.
        upload_timeout_ms: u64 = 300_000, "ms", 1..=MAX_MS;
        /// Time for an upload to be compiled, to describe itself and to test itself, waiting for its
        /// turn included; one that takes longer is refused.
        compile_timeout_ms: u64 = 120_000, "ms", 1..=MAX_MS;
        /// Most actors on one page of a listing.
        max_page: usize = 1_000, "actors", 1..;
        /// Longest file that is imported, in bytes; it is kept in the data folder while it is
        /// checked.
        max_import_bytes: u64 = 64 << 30, "bytes", 1..;
        /// Versions of one component that are kept in the data folder.
        kept_versions: usize = 10, "versions", 1..;
    }
}

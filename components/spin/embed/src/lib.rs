//! The components that turn a handler into a Spin HTTP application, as bytes.
//!
//! `build.rs` builds them; `tidegate compose` puts them around a handler.

/// Holds the state and answers requests: exports what handlers import.
pub const SHIM: &[u8] = include_bytes!(concat!(env!("OUT_DIR"), "/tidegate_spin_shim.wasm"));
/// Takes requests and calls the handler: exports the HTTP handler.
pub const GATEWAY: &[u8] = include_bytes!(concat!(env!("OUT_DIR"), "/tidegate_spin_gateway.wasm"));
/// Serves event streams; a Spin component of its own.
pub const EVENTS: &[u8] = include_bytes!(concat!(env!("OUT_DIR"), "/tidegate_spin_events.wasm"));

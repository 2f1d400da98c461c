//! The WebSocket layer as a client sees it: hand-made frames over a raw TCP connection.

mod client;
mod closing;
mod frames;
mod outbound;

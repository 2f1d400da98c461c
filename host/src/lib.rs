//! The Tidegate host: serves handlers that are WASI components.
//!
//! `docs/architecture.md` has the map. Modules lie on floors, and each imports only from
//! a lower floor, or its own.
//!
//! | floor | modules |
//! |---|---|
//! | 6 | [`application`], [`compose`], [`host`], the command line |
//! | 5 | [`gateway`] |
//! | 4 | [`actor`] |
//! | 3 | [`turn`], [`router`] |
//! | 2 | [`engine`] |
//! | 1 | [`store`], [`fanout`], [`rooms`], [`timer`], [`auth`], [`versions`] |
//! | 0 | [`budget`], [`clock`], [`config`], [`fair`], [`hash`], [`journal`], [`memory`], [`metrics`], [`workers`], [`ws`] |

pub mod actor;
pub mod application;
pub mod auth;
pub mod budget;
pub mod clock;
pub mod compose;
pub mod config;
pub mod engine;
pub mod fair;
pub mod fanout;
pub mod gateway;
pub mod hash;
pub mod host;
pub mod journal;
pub mod memory;
pub mod metrics;
pub mod rooms;
pub mod router;
pub mod store;
pub mod timer;
pub mod turn;
pub mod versions;
pub mod workers;
pub mod ws;

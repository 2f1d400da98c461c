//! The load generator. It runs on one thread, so that a machine of two cores has room for
//! the server; how busy it was is reported with every figure, because one that was busy all
//! the time measured itself.

pub(crate) mod call;
pub(crate) mod closed;
pub(crate) mod connection;
pub(crate) mod crowd;
pub(crate) mod dialect;
pub(crate) mod fanout;
pub(crate) mod frame;
pub(crate) mod open;
pub(crate) mod recorder;
pub(crate) mod rounds;

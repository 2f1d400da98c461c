//! Lines of the application's log, which Spin takes from standard error.
//!
//! Invariant: what is said in a line stays in it, whoever wrote the words.

use std::fmt;

use tidegate_core::printable;

/// Writes a line.
#[macro_export]
macro_rules! log {
    ($($said:tt)*) => {
        $crate::log::line(::core::format_args!($($said)*))
    };
}

/// Writes a line: [`log!`](crate::log!) does so with a format.
pub fn line(said: fmt::Arguments<'_>) {
    eprintln!("tidegate: {}", printable::line(&said.to_string()));
}

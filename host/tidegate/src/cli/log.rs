//! The log of a running host, on standard error: one event, one line.
//!
//! Invariant: no field of an event, and no message, whoever wrote it, ends its line, begins
//! another or steers a terminal. That holds because of how the log is set up here, and not
//! because of what is logged elsewhere.

use std::fmt;
use std::io::{self, IsTerminal, Stderr, Write};

use clap::ValueEnum;
use tidegate_core::printable::{self, Printable};
use tracing_subscriber::EnvFilter;
use tracing_subscriber::field::RecordFields;
use tracing_subscriber::fmt::FormatFields;
use tracing_subscriber::fmt::format::{DefaultFields, Writer};

/// The form of the log.
#[derive(Clone, Copy, ValueEnum)]
pub(super) enum LogForm {
    Text,
    Json,
}

/// Begins to log; RUST_LOG says how much.
pub(super) fn start(form: LogForm) {
    let filter = EnvFilter::try_from_default_env().unwrap_or_else(|_| EnvFilter::new("info"));
    let log = tracing_subscriber::fmt().with_env_filter(filter);
    match form {
        LogForm::Text => log
            .with_ansi(io::stderr().is_terminal())
            .with_writer(io::stderr)
            .fmt_fields(PlainFields)
            .init(),
        LogForm::Json => log.json().with_writer(|| PlainJson(io::stderr())).init(),
    }
}

/// Writes the message and the fields as usual, but in plain text.
struct PlainFields;

impl<'writer> FormatFields<'writer> for PlainFields {
    fn format_fields<R: RecordFields>(
        &self,
        mut writer: Writer<'writer>,
        fields: R,
    ) -> fmt::Result {
        let mut plain = Printable(&mut writer);
        DefaultFields::new().format_fields(Writer::new(&mut plain), fields)
    }
}

/// Takes whole events in JSON, where control characters up to the space are escaped already.
struct PlainJson(Stderr);

impl Write for PlainJson {
    fn write(&mut self, event: &[u8]) -> io::Result<usize> {
        let text = String::from_utf8_lossy(event);
        self.0.write_all(printable::json(&text).as_bytes())?;
        Ok(event.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        self.0.flush()
    }
}

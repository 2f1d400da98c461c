//! How far an upload has come, on standard error: one line that is rewritten on a
//! terminal, a line per quarter anywhere else.

use std::io::{self, IsTerminal, Read, Write};

/// A body that tells how much of it has been read.
pub(super) struct Upload<R> {
    body: R,
    read: u64,
    length: u64,
    shown: Option<u64>,
    terminal: bool,
}

impl<R: Read> Upload<R> {
    pub(super) fn new(body: R, length: u64) -> Upload<R> {
        Upload {
            body,
            read: 0,
            length,
            shown: None,
            terminal: io::stderr().is_terminal(),
        }
    }

    fn show(&mut self) {
        let percent = (self.read.min(self.length) * 100)
            .checked_div(self.length)
            .unwrap_or(100);
        // A log wants few lines.
        let step = if self.terminal { 1 } else { 25 };
        let percent = percent / step * step;
        if self.shown == Some(percent) {
            return;
        }
        self.shown = Some(percent);
        let line = format!("uploading {} bytes: {percent} %", self.length);
        let mut out = io::stderr().lock();
        // Nobody has to see the progress for the upload to go on.
        let _ = match (self.terminal, percent) {
            (true, 100) => writeln!(out, "\r{line}"),
            (true, _) => write!(out, "\r{line}"),
            (false, _) => writeln!(out, "{line}"),
        };
    }

    /// Ends a line that was left to be rewritten.
    pub(super) fn end(self) {
        if self.terminal && self.shown.is_some_and(|percent| percent < 100) {
            let _ = writeln!(io::stderr());
        }
    }
}

impl<R: Read> Read for Upload<R> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let count = self.body.read(buffer)?;
        self.read += count as u64;
        self.show();
        Ok(count)
    }
}

//! `tidegate export`: all actors of a running host, as lines of JSON on standard output.

use std::io::{BufRead, BufReader, Write};

use anyhow::{Context, bail};
use serde::Deserialize;
use ureq::http::Method;

use super::remote::{Remote, failure_in};

#[derive(clap::Args)]
pub(crate) struct Export {
    #[command(flatten)]
    remote: Remote,
}

/// The last line.
#[derive(Deserialize)]
struct Tail {
    end: End,
}

#[derive(Deserialize)]
struct End {
    actors: u64,
}

impl Export {
    pub(crate) fn run(self) -> anyhow::Result<()> {
        let client = self.remote.client()?;
        let request = client.request(Method::GET, "/_tidegate/export").body(())?;
        let mut lines = BufReader::new(client.send(request)?.into_reader());
        let mut out = std::io::stdout().lock();
        let mut line = Vec::new();
        let mut last = Vec::new();
        loop {
            line.clear();
            let read = lines.read_until(b'\n', &mut line);
            read.with_context(|| format!("{} breaks the export off", client.base()))?;
            if line.is_empty() {
                break;
            }
            out.write_all(&line).context("cannot write the export")?;
            std::mem::swap(&mut line, &mut last);
        }
        out.flush().context("cannot write the export")?;
        if let Ok(tail) = serde_json::from_slice::<Tail>(&last) {
            eprintln!("exported {} actors", tail.end.actors);
            return Ok(());
        }
        if last.starts_with(b"{\"error\"") {
            return Err(failure_in(&String::from_utf8_lossy(&last))
                .context("the export is not whole and cannot be imported"));
        }
        bail!(
            "{} ended the export early: it cannot be imported",
            client.base()
        )
    }
}

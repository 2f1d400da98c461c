//! All actors as lines of JSON, out of a host that runs and into one.
//!
//! The first line says what the file is, each further one holds one actor, and the last one
//! how many there are, so that a file that was cut short is noticed. Actors are in the order
//! of their types and ids.
//!
//! Invariant: an import changes nothing before the whole file has been checked.

use std::fs::OpenOptions;
use std::os::unix::fs::OpenOptionsExt;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use axum::body::Body;
use axum::extract::rejection::QueryRejection;
use axum::extract::{Query, State};
use axum::response::Response;
use bytes::Bytes;
use futures_util::StreamExt;
use futures_util::future::join_all;
use http::HeaderValue;
use http::header::{CACHE_CONTROL, CONTENT_TYPE};
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};
use tidegate_actor::ActorRecords;
use tidegate_actor::{Actors, Existing, random_id};
use tidegate_core::turn::Stored;
use tidegate_core::{ActorKey, Failure};
use tidegate_store::Listing;
use tokio::fs::File;
use tokio::io::{AsyncBufReadExt, AsyncReadExt, AsyncSeekExt, AsyncWriteExt, BufReader};
use tokio::sync::mpsc;
use tracing::{error, info};

use super::deploy::finished;
use super::{answer, key_of, query_of};
use crate::Shared;
use crate::http::{ErrorResponse, check_length};

/// The format that is written, and the only one that is read.
const FORMAT: u32 = 1;
/// Actors that are listed, or taken in, in one go.
const BATCH: usize = 256;
/// Lines that are made ahead of a client that reads slowly.
const LINES_AHEAD: usize = 64;
/// What a line has beside the actor's record, at most, in bytes.
const MARGIN: u64 = 4 << 10;

/// The first line.
#[derive(Debug, Deserialize, Serialize)]
#[serde(deny_unknown_fields)]
struct Head {
    tidegate: Kind,
    format: u32,
}

#[derive(Debug, PartialEq, Deserialize, Serialize)]
#[serde(rename_all = "kebab-case")]
enum Kind {
    Export,
}

/// One actor.
#[derive(Debug, Deserialize, Serialize)]
#[serde(deny_unknown_fields)]
struct Line {
    actor: String,
    id: String,
    stored: Stored,
}

/// The last line.
#[derive(Debug, Deserialize, Serialize)]
#[serde(deny_unknown_fields)]
struct Tail {
    end: End,
}

#[derive(Debug, Deserialize, Serialize)]
#[serde(deny_unknown_fields)]
struct End {
    actors: u64,
}

pub(super) async fn export(State(shared): State<Arc<Shared>>) -> Response {
    let (lines, made) = mpsc::channel(LINES_AHEAD);
    // Ends with the client that reads.
    tokio::spawn(async move {
        if let Err(failure) = write_all(&shared.actors, &lines).await {
            error!(%failure, "an export was broken off");
            // In place of the last line, so that nobody takes this for all.
            let _ = lines.send(failure.operators_body()).await;
        }
    });
    let lines = futures_util::stream::unfold(made, async |mut made| {
        let mut line: String = made.recv().await?;
        line.push('\n');
        Some((Ok::<_, std::convert::Infallible>(Bytes::from(line)), made))
    });
    let mut response = Response::new(Body::from_stream(lines));
    let headers = response.headers_mut();
    let kind = HeaderValue::from_static("application/x-ndjson");
    headers.insert(CONTENT_TYPE, kind);
    headers.insert(CACHE_CONTROL, HeaderValue::from_static("no-store"));
    response
}

fn line(line: &impl Serialize) -> String {
    serde_json::to_string(line).expect("lines consist of what JSON can hold")
}

/// Ends early when nobody reads.
async fn write_all(actors: &Actors, lines: &mpsc::Sender<String>) -> Result<(), Failure> {
    let head = Head {
        tidegate: Kind::Export,
        format: FORMAT,
    };
    if lines.send(line(&head)).await.is_err() {
        return Ok(());
    }
    let mut listing = Listing::<ActorRecords> {
        limit: BATCH,
        ..Listing::default()
    };
    let mut count = 0;
    loop {
        let page = actors.list(&listing).await?;
        for listed in page.actors {
            let key = key_of(&listed.actor, &listed.id)?;
            if let Some(stored) = actors.copy(&key).await? {
                count += 1;
                let one = Line {
                    actor: listed.actor,
                    id: listed.id,
                    stored,
                };
                if lines.send(line(&one)).await.is_err() {
                    return Ok(());
                }
            }
            listing.after = Some(key);
        }
        if !page.more {
            break;
        }
    }
    let end = End { actors: count };
    let _ = lines.send(line(&Tail { end })).await;
    info!(actors = count, "exported");
    Ok(())
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Replacing {
    #[serde(default)]
    replace: bool,
}

pub(super) async fn import(
    State(shared): State<Arc<Shared>>,
    query: Result<Query<Replacing>, QueryRejection>,
    body: Body,
) -> Result<Response, ErrorResponse> {
    let existing = match query_of(query)?.replace {
        true => Existing::GivesWay,
        false => Existing::Stays,
    };
    let permit = shared.admin.imports.clone().try_acquire_owned();
    let permit = permit.map_err(|_| {
        let message = "another import is under way";
        Failure::component_busy(message)
    })?;
    let file = receive(&shared, body).await?;
    // From here on it goes on also when the client does not wait for it.
    let work = async move {
        let imported = take_in(&shared, file, existing).await;
        drop(permit);
        imported
    };
    let imported = finished(work).await?;
    Ok(answer(&json!({"imported": imported})))
}

fn scratch_failed(error: &std::io::Error) -> Failure {
    let message = format!("the file cannot be kept while it is checked: {error}");
    Failure::not_stored(message)
}

/// A file without a name, which goes with the process.
fn scratch(folder: &Path) -> std::io::Result<std::fs::File> {
    let path = folder.join(format!("import-{}", random_id(8)));
    let file = OpenOptions::new()
        .read(true)
        .write(true)
        .create_new(true)
        .mode(0o600)
        .open(&path)?;
    std::fs::remove_file(&path)?;
    Ok(file)
}

async fn receive(shared: &Shared, body: Body) -> Result<File, Failure> {
    let limit = shared.admin.settings.max_import_bytes;
    let too_long = || Failure::import_too_large(limit);
    check_length(&body, limit).map_err(|_| too_long())?;
    let file = scratch(&shared.admin.scratch).map_err(|error| scratch_failed(&error))?;
    let mut file = File::from_std(file);
    let mut parts = body.into_data_stream();
    let patience = Duration::from_millis(shared.admin.settings.upload_timeout_ms);
    let mut length: u64 = 0;
    loop {
        let next = tokio::time::timeout(patience, parts.next()).await;
        let next = next.map_err(|_| Failure::import_timeout())?;
        let Some(part) = next else {
            break;
        };
        let part = part.map_err(|_| Failure::request_malformed("the file ended early"))?;
        length += part.len() as u64;
        if length > limit {
            return Err(too_long());
        }
        let written = file.write_all(&part).await;
        written.map_err(|error| scratch_failed(&error))?;
    }
    file.flush().await.map_err(|error| scratch_failed(&error))?;
    Ok(file)
}

fn invalid(line: u64, problem: impl std::fmt::Display) -> Failure {
    Failure::import_invalid(line, problem)
}

/// The lines of an export, each checked by itself and against those before it.
struct Lines {
    file: BufReader<File>,
    limit: u64,
    /// The number of the line that was read last.
    number: u64,
    last: Option<ActorKey>,
    count: u64,
}

impl Lines {
    async fn from_start(mut file: File, limit: u64) -> Result<Lines, Failure> {
        let rewound = file.rewind().await;
        rewound.map_err(|error| scratch_failed(&error))?;
        let mut lines = Lines {
            file: BufReader::new(file),
            limit,
            number: 0,
            last: None,
            count: 0,
        };
        let head = lines.line().await?.unwrap_or_default();
        let head = serde_json::from_slice::<Value>(&head).ok();
        let head = head.filter(|head| head["tidegate"] == "export");
        let head = head.ok_or_else(|| invalid(1, "this is no export of actors"))?;
        match head["format"].as_u64() {
            Some(found) if found == u64::from(FORMAT) => Ok(lines),
            found => {
                let found = found.map_or_else(|| head["format"].to_string(), |f| f.to_string());
                let problem = format!("it has format {found}, and this version reads {FORMAT}");
                Err(invalid(1, problem))
            }
        }
    }

    /// The next line without its end; none at the end of the file.
    async fn line(&mut self) -> Result<Option<Vec<u8>>, Failure> {
        self.number += 1;
        let mut line = Vec::new();
        let mut bounded = (&mut self.file).take(self.limit);
        let read = bounded.read_until(b'\n', &mut line).await;
        let read = read.map_err(|error| scratch_failed(&error))?;
        match line.pop() {
            None => Ok(None),
            Some(b'\n') => Ok(Some(line)),
            Some(_) if read as u64 == self.limit => {
                let problem = format!("it is longer than {} bytes", self.limit);
                Err(invalid(self.number, problem))
            }
            Some(_) => Err(invalid(self.number, "the file is cut short in this line")),
        }
    }

    /// The next actor; none at the end, which has been checked.
    async fn next(&mut self) -> Result<Option<(ActorKey, Stored)>, Failure> {
        let cut = "the file is cut short: its last line is missing";
        let Some(text) = self.line().await? else {
            return Err(invalid(self.number, cut));
        };
        let number = self.number;
        if text.starts_with(b"{\"end\"") {
            return match serde_json::from_slice::<Tail>(&text) {
                Ok(tail) if tail.end.actors != self.count => {
                    let (found, expected) = (self.count, tail.end.actors);
                    let problem = format!("it speaks of {expected} actors, and there are {found}");
                    Err(invalid(number, problem))
                }
                Ok(_) if self.line().await?.is_some() => {
                    Err(invalid(number + 1, "something follows the last line"))
                }
                Ok(_) => Ok(None),
                Err(error) => Err(invalid(number, error)),
            };
        }
        if text.starts_with(b"{\"error\"") {
            let problem = "the export was broken off here by a failure of its host";
            return Err(invalid(number, problem));
        }
        let line: Line = serde_json::from_slice(&text).map_err(|error| invalid(number, error))?;
        let key = key_of(&line.actor, &line.id).map_err(|error| invalid(number, error))?;
        if self.last.as_ref().is_some_and(|last| *last >= key) {
            let problem = format!("{key} does not follow the actor before it in order");
            return Err(invalid(number, problem));
        }
        self.last = Some(key.clone());
        self.count += 1;
        Ok(Some((key, line.stored)))
    }
}

/// Checks all of a file, then takes its actors in. Returns how many.
async fn take_in(shared: &Shared, file: File, existing: Existing) -> Result<u64, Failure> {
    let limit = shared.admin.max_record_bytes + MARGIN;
    let mut lines = Lines::from_start(file, limit).await?;
    while let Some((key, stored)) = lines.next().await? {
        let checked = shared.actors.check_restore(&key, stored, existing).await;
        checked.map_err(|refused| {
            let message = format!(
                "line {}: {key}: {}; nothing is imported",
                lines.number,
                refused.text()
            );
            refused.message(message).param("line", lines.number)
        })?;
    }
    let total = lines.count;
    let mut lines = Lines::from_start(lines.file.into_inner(), limit).await?;
    let mut imported = 0;
    while imported < total {
        let mut batch = Vec::new();
        let first = lines.number + 1;
        while batch.len() < BATCH {
            // It has been read before, so that only the disk can fail.
            let next = lines.next().await.map_err(|failure| {
                let message = format!(
                    "{}; {imported} of {total} actors are imported, those before line {first}",
                    failure.text()
                );
                failure.message(message).param("imported", imported)
            });
            match next? {
                Some(one) => batch.push(one),
                None => break,
            }
        }
        // Side by side, so that they share the waiting for the disk.
        let restored = join_all(batch.into_iter().map(async |(key, stored)| {
            let restored = shared.actors.restore(&key, stored, existing).await;
            restored.map_err(|failure| (key, failure))
        }));
        let results = restored.await;
        let batch = results.len();
        let failed: Vec<_> = results.into_iter().filter_map(Result::err).collect();
        imported += (batch - failed.len()) as u64;
        if let Some((_, why)) = failed.first() {
            let keys: Vec<String> = failed.iter().map(|(key, _)| key.to_string()).collect();
            let message = format!(
                "{}; {imported} of {total} actors are imported: those before line {first}, and of \
                 the next {batch} all but {}",
                why.text(),
                keys.join(", ")
            );
            error!(imported, total, failure = %why, "an import was broken off");
            return Err(why
                .clone()
                .message(message)
                .param("imported", imported)
                .param("line", first)
                .param("missing", keys));
        }
    }
    info!(actors = imported, "imported");
    Ok(imported)
}

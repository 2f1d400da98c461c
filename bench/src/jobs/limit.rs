//! What becomes of a server that is asked for more connections than it may have descriptors:
//! whether it lives on, serves those it has, and takes new ones when there is room again.

use std::process::ExitStatus;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use tokio::time::timeout;

use super::progress;
use crate::bench::Bench;
use crate::load::call::{Incoming, Method, recognise};
use crate::load::connection::Connection;
use crate::load::crowd::{Crowd, PATIENCE, Tally};
use crate::report::{Sample, Table};
use crate::server::{Descriptors, Level, Peer, Peers, Server, Tidegate, resident_bytes};

/// What a server may have.
const DESCRIPTORS: u32 = 20_000;
/// How many connections are asked for.
const WANTED: usize = 20_500;
/// How many of them leave, to make room.
const LEAVING: usize = 100;
/// How often the first of them calls before: often enough for several files of the host's store.
const CALLS: usize = 100;
/// A size for these files at which that is so.
const SEGMENT: &str = "store.segment-bytes=4096";
/// How long a server may take to notice that there is room.
const RECOVERY: Duration = Duration::from_secs(5);

pub(super) async fn run(bench: &Bench) -> Result<Vec<Table>> {
    let mut table = Table::new("limit", &["server", "descriptors"]);
    let wanted: &[Peer] = bench.scale.pick(&Peer::IN_MEMORY, &[Peer::Workerd]);
    let peers = Peers::among(wanted, bench);
    let descriptors = Descriptors::AtMost(DESCRIPTORS);
    for peer in std::iter::once(None).chain(peers.present.iter().copied().map(Some)) {
        let name = peer.map_or("tidegate", Peer::name).to_owned();
        let labels = vec![name.clone(), DESCRIPTORS.to_string()];
        progress("limit", 0, &labels);
        let measured = match peer {
            None => {
                let host = Tidegate::new(Level::Strict).set(SEGMENT);
                let mut host = host.descriptors(descriptors).start(bench).await?;
                measure(&mut host.server).await
            }
            Some(peer) => {
                let (mut server, _folder) = peer.start_within(bench, descriptors).await?;
                measure(&mut server).await
            }
        };
        let (sample, ended) = measured.with_context(|| name.clone())?;
        table.add(&labels, sample);
        if let Some(status) = ended {
            table.note(format!("The process of {name} ended: {status}."));
        }
    }
    table.note(format!(
        "{WANTED} attempts to open a WebSocket, and a server that may have {DESCRIPTORS} \
         descriptors. Cut off: closed or reset without an answer, or nobody listens any more; left \
         waiting: nothing happened for {} s. Then the first of all connections calls a counter {CALLS} \
         times, {LEAVING} others are closed, and a new one is opened that calls it too. The host \
         commits with `strict` and begins another file of its store every 32 calls or so.",
        PATIENCE.as_secs()
    ));
    for note in peers.notes() {
        table.note(note);
    }
    Ok(vec![table])
}

async fn measure(server: &mut Server) -> Result<(Sample, Option<ExitStatus>)> {
    let pid = server.pid();
    let mut first = Connection::open(server, 0).await?;
    // What the first call of all brings into memory is no connection's.
    ensure!(is_served(&mut first).await, "the first call failed");
    let before = resident_bytes(pid)?;
    let half = WANTED.midpoint(LEAVING);
    let leaving = Crowd::open(server, 1..LEAVING + 1).await?;
    let staying = Crowd::open(server, LEAVING + 1..half).await?;
    let last = Crowd::open(server, half..WANTED).await?;
    let crowds = [&leaving, &staying, &last].map(|crowd| crowd.tally);
    let Tally {
        opened,
        answered,
        cut_off,
        waiting,
    } = crowds.into_iter().fold(Tally::default(), Tally::plus);
    let after = resident_bytes(pid);
    let mut first_is_served = true;
    for _ in 0..CALLS {
        first_is_served = first_is_served && is_served(&mut first).await;
    }
    drop(leaving);
    let again_is_served = is_served_again(server).await?;
    let ended = server.ended()?;
    let mut sample = Sample::new()
        .with("opened", (1 + opened) as f64)
        .with("refused by answer", answered as f64)
        .with("cut off", cut_off as f64)
        .with("left waiting", waiting as f64)
        .with_truth("alive?", ended.is_none())
        .with_truth("first served?", first_is_served)
        .with_truth("new served?", again_is_served);
    // A process that has ended has no memory.
    if let (None, Ok(after)) = (ended, after) {
        let each = after.saturating_sub(before) as f64 / opened as f64;
        sample = sample.with("RSS bytes each", each);
    }
    Ok((sample, ended))
}

/// Whether a call is answered in time.
async fn is_served(connection: &mut Connection) -> bool {
    matches!(timeout(PATIENCE, call(connection)).await, Ok(Ok(())))
}

async fn call(connection: &mut Connection) -> Result<()> {
    let mut text = Vec::new();
    Method::increment().write(&mut text, 0, 0);
    connection.outgoing().text(&text);
    connection.flush().await?;
    while recognise(connection.message().await?.as_bytes())? != Incoming::Result(0) {}
    Ok(())
}

/// Whether a new connection is opened and served, before long.
async fn is_served_again(server: &mut Server) -> Result<bool> {
    let began = Instant::now();
    while began.elapsed() < RECOVERY && server.ended()?.is_none() {
        let attempt = timeout(PATIENCE, Connection::open(server, WANTED)).await;
        if let Some(mut connection) = Tally::default().count(attempt)? {
            return Ok(is_served(&mut connection).await);
        }
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
    Ok(false)
}

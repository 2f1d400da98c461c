//! One publisher and many subscribers of one actor. A publication is over when the last
//! subscriber has it; the next one of the window then leaves.

use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use tokio::sync::Semaphore;
use tokio::task::JoinSet;

use super::call::{number_after, subscription};
use super::closed::Window;
use super::connection::Connection;
use super::recorder::{Meter, Outcome, Phase, Recorder};
use crate::report::Sample;
use crate::server::Server;

/// More than publications that are ever under way.
const SLOTS: usize = 64;
/// What is before a publication's number in the messages of subscribers.
const NUMBER: &[u8] = br#""number":"#;

/// What to do.
pub(crate) struct Plan {
    pub(crate) subscribers: usize,
    /// Publications under way.
    pub(crate) depth: usize,
    /// What the publisher sends, given a publication's number.
    pub(crate) publication: Box<dyn Fn(u64) -> String + Send>,
}

/// Which publications are under way.
#[derive(Clone)]
struct Progress(Arc<Mutex<Vec<Slot>>>);

#[derive(Clone, Copy)]
struct Slot {
    number: u64,
    sent: Instant,
    left: usize,
}

impl Progress {
    fn new() -> Progress {
        let nothing = Slot {
            number: u64::MAX,
            sent: Instant::now(),
            left: 0,
        };
        Progress(Arc::new(Mutex::new(vec![nothing; SLOTS])))
    }

    fn with<T>(&self, number: u64, visit: impl FnOnce(&mut Slot) -> T) -> T {
        let mut slots = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        visit(&mut slots[number as usize % SLOTS])
    }

    fn begin(&self, number: u64, subscribers: usize) {
        let sent = Instant::now();
        self.with(number, |slot| {
            *slot = Slot {
                number,
                sent,
                left: subscribers,
            }
        });
    }

    /// Notes a delivery; gives how long the publication took if it was the last one.
    fn delivered(&self, number: u64) -> Result<Option<Duration>> {
        self.with(number, |slot| {
            ensure!(
                slot.number == number && slot.left > 0,
                "publication {number} came twice, or uncalled for"
            );
            slot.left -= 1;
            Ok((slot.left == 0).then(|| slot.sent.elapsed()))
        })
    }
}

/// Publishes for a while.
pub(crate) async fn for_a_while(server: &Server, plan: Plan, window: Window) -> Result<Outcome> {
    let recorder = Recorder::new(Phase::WarmUp);
    let progress = Progress::new();
    let room = Arc::new(Semaphore::new(plan.depth));
    let mut tasks = JoinSet::new();
    for number in 0..plan.subscribers {
        let mut connection = subscriber(server, number).await?;
        let (recorder, progress, room) = (recorder.clone(), progress.clone(), room.clone());
        tasks.spawn(async move {
            loop {
                connection
                    .receive(|message, _| {
                        let number = number_after(message, NUMBER).with_context(|| {
                            format!("unexpected: {}", String::from_utf8_lossy(message))
                        })?;
                        if let Some(took) = progress.delivered(number)? {
                            recorder.answered(took);
                            room.add_permits(1);
                        }
                        Ok(())
                    })
                    .await?;
            }
        });
    }
    let publisher = Connection::open(server, plan.subscribers).await?;
    tasks.spawn(publish(publisher, plan, progress, room));
    let measured = async {
        tokio::time::sleep(window.warm_up).await;
        recorder.enter(Phase::Measuring);
        let meter = Meter::start(server.pid())?;
        tokio::time::sleep(window.measured).await;
        recorder.enter(Phase::Over);
        meter.stop()
    };
    let spent = tokio::select! {
        spent = measured => spent?,
        Some(ended) = tasks.join_next() => {
            let result: Result<()> = ended?;
            result?;
            anyhow::bail!("a connection ended before the run was over");
        }
    };
    Ok(Outcome::new(&recorder, spent))
}

async fn publish(
    mut connection: Connection,
    plan: Plan,
    progress: Progress,
    room: Arc<Semaphore>,
) -> Result<()> {
    let mut number = 0;
    loop {
        tokio::select! {
            permit = room.acquire() => {
                permit?.forget();
                progress.begin(number, plan.subscribers);
                let text = (plan.publication)(number);
                connection.outgoing().text(text.as_bytes());
                connection.flush().await?;
                number += 1;
            }
            // The results; that all have come is what subscribers tell.
            received = connection.receive(|message, _| super::call::recognise(message).map(drop)) => {
                received?;
            }
        }
    }
}

/// A connection that is surely subscribed to the events of the board.
async fn subscriber(server: &Server, number: usize) -> Result<Connection> {
    let mut connection = Connection::open(server, number).await?;
    // Subscribing to events is not acknowledged; the snapshot that is asked for behind it is.
    for kind in ["event:sub", "state:sub", "state:unsub"] {
        let text = subscription(kind, "board", 0);
        connection.outgoing().text(text.as_bytes());
    }
    connection.flush().await?;
    connection.message().await.context("the snapshot")?;
    Ok(connection)
}

/// The figures of a run with so many subscribers.
pub(crate) fn sample(outcome: &Outcome, subscribers: usize) -> Sample {
    let deliveries = outcome.latencies.count().max(1) as f64 * subscribers as f64;
    let cpu = outcome.spent.server.as_secs_f64() * 1e6 / deliveries;
    Sample::new()
        .with("CPU µs/delivery", cpu)
        .with("deliveries/s", outcome.rate() * subscribers as f64)
        .with("p50 µs to the last", outcome.latencies.micros(0.5))
        .with("p99 µs to the last", outcome.latencies.micros(0.99))
        .with("generator cores", outcome.generator_cores())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_publication_is_over_with_its_last_delivery() {
        let progress = Progress::new();
        progress.begin(3, 2);
        assert!(progress.delivered(3).unwrap().is_none());
        assert!(progress.delivered(3).unwrap().is_some());
        assert!(progress.delivered(3).is_err());
        assert!(progress.delivered(4).is_err());
    }
}

//! The open loop: calls leave at a fixed rate whatever comes back, and each one's latency
//! counts from when it was to leave. So a server that stalls is charged for all calls that
//! came meanwhile (no coordinated omission).
//!
//! A thread of its own sends, because the timers of an async runtime tick in milliseconds.
//! That it is late itself counts as latency too, and is reported.

use std::io::Write;
use std::net::TcpStream;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail};
use tokio::task::JoinSet;

use super::call::{Incoming, Method, recognise};
use super::closed::Window;
use super::connection::{Connection, Outgoing};
use super::dialect::Dialect;
use super::recorder::{Latencies, Meter, Outcome};
use crate::server::Server;

/// How long answers may take after the last call has left.
const PATIENCE: Duration = Duration::from_secs(30);

/// What to send, to one actor.
pub(crate) struct Plan {
    pub(crate) connections: usize,
    pub(crate) method: Method,
    /// Calls a second, on all connections together.
    pub(crate) rate: f64,
}

/// What came of it.
pub(crate) struct Paced {
    pub(crate) outcome: Outcome,
    /// How late the calls left.
    pub(crate) lateness: Latencies,
}

/// When each call is to leave, and which are measured.
#[derive(Clone, Copy)]
struct Timetable {
    began: Instant,
    step: Duration,
    window: Window,
}

impl Timetable {
    fn departure(&self, call: u64) -> Instant {
        let nanoseconds = u128::from(call) * self.step.as_nanos();
        self.began + Duration::from_nanos(nanoseconds as u64)
    }

    fn measures(&self, departure: Instant) -> bool {
        let begin = self.began + self.window.warm_up;
        (begin..begin + self.window.measured).contains(&departure)
    }
}

/// What receivers share.
struct Answers {
    count: AtomicU64,
    latencies: Mutex<Latencies>,
}

/// Calls at the plan's rate.
pub(crate) async fn at_a_rate(server: &Server, plan: &Plan, window: Window) -> Result<Paced> {
    let mut open = Vec::new();
    for number in 0..plan.connections {
        open.push(Connection::open(server, number).await?);
    }
    let writers: Vec<TcpStream> = open.iter().map(Connection::writer).collect::<Result<_>>()?;
    let timetable = Timetable {
        began: Instant::now() + Duration::from_millis(10),
        step: Duration::from_secs_f64(1.0 / plan.rate),
        window,
    };
    let answers = Arc::new(Answers {
        count: AtomicU64::new(0),
        latencies: Mutex::new(Latencies::new()),
    });
    let mut receivers = JoinSet::new();
    for connection in open {
        receivers.spawn(receive(connection, timetable, answers.clone()));
    }
    let over = Arc::new(AtomicBool::new(false));
    let dialect = server.dialect();
    let sender = {
        let (over, method) = (over.clone(), plan.method.clone());
        thread::spawn(move || send(writers, dialect, &method, timetable, &over))
    };
    let measured = async {
        let answered = || answers.count.load(Ordering::Relaxed);
        tokio::time::sleep_until((timetable.began + window.warm_up).into()).await;
        let (meter, before) = (Meter::start(server.pid())?, answered());
        tokio::time::sleep(window.measured).await;
        let (spent, within) = (meter.stop()?, answered() - before);
        over.store(true, Ordering::Relaxed);
        let sender = tokio::task::spawn_blocking(move || sender.join());
        let Ok(sent) = sender.await? else {
            bail!("the sender panicked");
        };
        let (sent, lateness) = sent?;
        // Calls that left within the window count however late their answers come.
        let all_answered = async {
            while answered() < sent {
                tokio::time::sleep(Duration::from_millis(1)).await;
            }
        };
        tokio::time::timeout(PATIENCE, all_answered)
            .await
            .context("waiting for the last answers")?;
        Ok((spent, within, lateness))
    };
    let (spent, within, lateness) = tokio::select! {
        measured = measured => measured?,
        Some(ended) = receivers.join_next() => {
            ended??;
            bail!("a connection ended before the run was over");
        }
    };
    let mut latencies = answers
        .latencies
        .lock()
        .unwrap_or_else(PoisonError::into_inner);
    let outcome = Outcome {
        latencies: std::mem::replace(&mut latencies, Latencies::new()),
        answers: within,
        all_answers: answers.count.load(Ordering::Relaxed),
        spent,
    };
    Ok(Paced { outcome, lateness })
}

async fn receive(
    mut connection: Connection,
    timetable: Timetable,
    answers: Arc<Answers>,
) -> Result<()> {
    loop {
        connection
            .receive(|message, _| {
                if let Incoming::Result(call) = recognise(message)? {
                    let departure = timetable.departure(call);
                    if timetable.measures(departure) {
                        let latencies = answers.latencies.lock();
                        let mut latencies = latencies.unwrap_or_else(PoisonError::into_inner);
                        latencies.record(departure.elapsed());
                    }
                    answers.count.fetch_add(1, Ordering::Relaxed);
                }
                Ok(())
            })
            .await?;
    }
}

/// Sends until it is over; gives how many calls left, and how late.
fn send(
    mut writers: Vec<TcpStream>,
    dialect: Dialect,
    method: &Method,
    timetable: Timetable,
    over: &AtomicBool,
) -> Result<(u64, Latencies)> {
    wake_on_time();
    let mut lateness = Latencies::new();
    let mut text = Vec::new();
    let count = writers.len() as u64;
    for call in 0.. {
        if over.load(Ordering::Relaxed) {
            return Ok((call, lateness));
        }
        let departure = timetable.departure(call);
        let left = departure.saturating_duration_since(Instant::now());
        if !left.is_zero() {
            thread::sleep(left);
        }
        method.write(&mut text, call, 0);
        let mut outgoing = Outgoing::new(dialect);
        outgoing.text(&text);
        if timetable.measures(departure) {
            lateness.record(departure.elapsed());
        }
        let writer = &mut writers[(call % count) as usize];
        write_all(writer, &outgoing.into_bytes())?;
    }
    unreachable!("there is always another call")
}

/// Writes to a socket that does not block.
fn write_all(writer: &mut TcpStream, mut bytes: &[u8]) -> Result<()> {
    while !bytes.is_empty() {
        match writer.write(bytes) {
            Ok(written) => bytes = &bytes[written..],
            Err(error) if error.kind() == std::io::ErrorKind::WouldBlock => thread::yield_now(),
            Err(error) => return Err(error).context("sending"),
        }
    }
    Ok(())
}

/// Asks the system not to put off this thread's waking to spare the processor (by 50 µs,
/// usually). Where it cannot be asked the sender is later, which is reported.
fn wake_on_time() {
    let thread = std::fs::read_link("/proc/thread-self");
    let id = thread
        .ok()
        .and_then(|path| path.file_name().map(ToOwned::to_owned));
    if let Some(id) = id {
        let slack = std::path::Path::new("/proc").join(id).join("timerslack_ns");
        let _ = std::fs::write(slack, "1");
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn calls_leave_by_the_timetable() {
        let timetable = Timetable {
            began: Instant::now(),
            step: Duration::from_millis(2),
            window: Window {
                warm_up: Duration::from_millis(10),
                measured: Duration::from_millis(20),
            },
        };
        let measured = |call| timetable.measures(timetable.departure(call));
        assert_eq!(
            timetable.departure(3) - timetable.began,
            Duration::from_millis(6)
        );
        assert_eq!([4, 5, 14, 15].map(measured), [false, true, true, false]);
    }
}

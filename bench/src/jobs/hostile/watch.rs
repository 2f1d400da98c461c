//! Looks at a host while it is attacked, from threads of its own: how long `/health` takes, and
//! how much memory it holds, with the processes that it has begun.

use std::io::{Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use anyhow::Result;

use crate::server::about_resident_bytes_of_all;

/// How often it looks.
const PACE: Duration = Duration::from_millis(20);
/// How long an answer may take.
const PATIENCE: Duration = Duration::from_secs(60);

/// Looks until it ends.
pub(super) struct Watch {
    ends: Arc<AtomicBool>,
    health: JoinHandle<Seen>,
    memory: JoinHandle<u64>,
}

/// What it has seen.
pub(super) struct Seen {
    pub(super) longest_answer: Duration,
    /// Whether all answers were 200.
    pub(super) all_were_ok: bool,
    pub(super) most_resident: u64,
}

impl Watch {
    pub(super) fn begin(server: SocketAddr, pid: u32) -> Result<Watch> {
        let ends = Arc::new(AtomicBool::new(false));
        let begin = |name: &str| std::thread::Builder::new().name(name.to_owned());
        let is_over = ends.clone();
        let health = begin("health").spawn(move || watch(server, &is_over))?;
        let is_over = ends.clone();
        let memory = begin("memory").spawn(move || most_resident(pid, &is_over))?;
        Ok(Watch {
            ends,
            health,
            memory,
        })
    }

    pub(super) fn end(self) -> Seen {
        self.ends.store(true, Ordering::Relaxed);
        let seen = self.health.join().unwrap_or(Seen {
            longest_answer: PATIENCE,
            all_were_ok: false,
            most_resident: 0,
        });
        Seen {
            most_resident: self.memory.join().unwrap_or_default(),
            ..seen
        }
    }
}

fn most_resident(pid: u32, is_over: &AtomicBool) -> u64 {
    let mut most = 0;
    while !is_over.load(Ordering::Relaxed) {
        most = most.max(about_resident_bytes_of_all(pid).unwrap_or_default());
        std::thread::sleep(PACE);
    }
    most
}

fn watch(server: SocketAddr, is_over: &AtomicBool) -> Seen {
    let mut seen = Seen {
        longest_answer: Duration::ZERO,
        all_were_ok: true,
        most_resident: 0,
    };
    while !is_over.load(Ordering::Relaxed) {
        let began = Instant::now();
        seen.all_were_ok &= is_healthy(server).unwrap_or(false);
        seen.longest_answer = seen.longest_answer.max(began.elapsed());
        std::thread::sleep(PACE);
    }
    seen
}

fn is_healthy(server: SocketAddr) -> std::io::Result<bool> {
    let mut stream = TcpStream::connect_timeout(&server, PATIENCE)?;
    stream.set_read_timeout(Some(PATIENCE))?;
    let request = format!("GET /health HTTP/1.1\r\nHost: {server}\r\nConnection: close\r\n\r\n");
    stream.write_all(request.as_bytes())?;
    let mut answer = Vec::new();
    stream.read_to_end(&mut answer)?;
    Ok(answer.starts_with(b"HTTP/1.1 200"))
}

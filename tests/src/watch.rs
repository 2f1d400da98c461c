//! A limit on how long any one host may run: a test that waits for what never happens, for
//! instance by asking again and again, ends the test program instead of holding it up.
//!
//! Invariant: a watched host is let go by [`Watched`]'s drop, or by the watch with the whole
//! program; the process that the host is dies in both cases.

use std::collections::BTreeMap;
use std::io::Write as _;
use std::sync::{LazyLock, Mutex, MutexGuard, PoisonError};
use std::thread;
use std::time::{Duration, Instant};

/// How long a host may run. Far beyond what the slowest test needs on the slowest machine.
const LIMIT: Duration = Duration::from_secs(240);

/// The hosts that run, in the order in which they began.
static HOSTS: LazyLock<Mutex<BTreeMap<u64, Entry>>> = LazyLock::new(|| {
    thread::spawn(watch);
    Mutex::default()
});

struct Entry {
    test: String,
    begun: Instant,
    process: Option<u32>,
    log: Box<dyn Fn() -> String + Send>,
}

/// A host under watch.
pub(crate) struct Watched(u64);

/// Watches the host of this test.
pub(crate) fn host(process: Option<u32>, log: impl Fn() -> String + Send + 'static) -> Watched {
    let entry = Entry {
        // The test runner names each test's thread after it.
        test: thread::current().name().unwrap_or("a test").to_owned(),
        begun: Instant::now(),
        process,
        log: Box::new(log),
    };
    let mut hosts = hosts();
    let id = hosts.last_key_value().map_or(0, |(id, _)| id + 1);
    hosts.insert(id, entry);
    Watched(id)
}

impl Drop for Watched {
    fn drop(&mut self) {
        hosts().remove(&self.0);
    }
}

fn hosts() -> MutexGuard<'static, BTreeMap<u64, Entry>> {
    HOSTS.lock().unwrap_or_else(PoisonError::into_inner)
}

fn watch() {
    loop {
        thread::sleep(Duration::from_secs(1));
        let hosts = hosts();
        let Some(stuck) = hosts.values().find(|host| host.begun.elapsed() > LIMIT) else {
            continue;
        };
        let (test, log) = (&stuck.test, (stuck.log)());
        // Not `eprintln`: the runner keeps what that prints, and is about to end.
        let _ = writeln!(
            std::io::stderr(),
            "{test}: its host has run for {LIMIT:?}; the host's log:\n{log}---"
        );
        for process in hosts.values().filter_map(|host| host.process) {
            let kill = format!("kill -KILL {process}");
            // A process that has ended is what is wanted.
            let _ = std::process::Command::new("sh")
                .args(["-c", &kill])
                .status();
        }
        std::process::exit(101);
    }
}

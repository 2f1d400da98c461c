//! What the journal does in a second, and how long it takes to open.
//!
//! ```text
//! cargo run --release -p tidegate-journal --example journal_rate -- [FOLDER] [KEYS]
//! ```
//!
//! The first row is the floor: a bare loop that appends as many bytes to a file of the same
//! disk and syncs each time. FOLDER must be empty or not there; it is removed in the end.

use std::alloc::{GlobalAlloc, Layout, System};
use std::fs::{self, File};
use std::io::Write;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use tidegate_base::disk::FolderDisk;
use tidegate_journal::{Check, Entry, Journal, Safety, Settings, Space};

/// Counts the bytes that are in use.
struct Counting;

static IN_USE: AtomicUsize = AtomicUsize::new(0);

// SAFETY: every call goes to the system's allocator as it is.
unsafe impl GlobalAlloc for Counting {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        IN_USE.fetch_add(layout.size(), Ordering::Relaxed);
        unsafe { System.alloc(layout) }
    }
    unsafe fn dealloc(&self, memory: *mut u8, layout: Layout) {
        IN_USE.fetch_sub(layout.size(), Ordering::Relaxed);
        unsafe { System.dealloc(memory, layout) }
    }
}

#[global_allocator]
static ALLOCATOR: Counting = Counting;

const VALUE: usize = 200;
/// The bytes that such a value takes in the journal, with key and headers.
const RECORD: usize = 24 + 20 + 12 + VALUE;
const ROUND: Duration = Duration::from_secs(2);
const SPACE: Space = Space(0);

#[tokio::main(flavor = "multi_thread", worker_threads = 2)]
async fn main() -> Result<(), Box<dyn std::error::Error>> {
    let usage = "usage: journal_rate [FOLDER] [KEYS]";
    let mut arguments = std::env::args().skip(1);
    let folder = arguments.next().map_or_else(
        || std::env::temp_dir().join(format!("journal-rate-{}", std::process::id())),
        PathBuf::from,
    );
    let keys: usize = arguments
        .next()
        .map_or(100_000, |keys| keys.parse().expect(usage));
    if folder.exists() && fs::read_dir(&folder)?.next().is_some() {
        return Err(format!("{} is not empty; {usage}", folder.display()).into());
    }
    fs::create_dir_all(&folder)?;
    let profile = if cfg!(debug_assertions) {
        "dev"
    } else {
        "release"
    };
    println!("{VALUE} bytes a value, {RECORD} a record; profile {profile}\n");

    println!("| | appends/s | a sync | µs each |");
    println!("|---|---|---|---|");
    let raw = raw_syncs(&folder)?;
    println!(
        "| bare write and fdatasync | {raw:.0} | 1.0 | {:.0} |",
        1e6 / raw
    );
    for (name, safety) in [("synced", Safety::Synced), ("written", Safety::Written)] {
        for appenders in [1, 16, 256] {
            appends(&folder.join("rate"), name, safety, appenders).await?;
        }
    }
    println!();
    open(&folder.join("keys"), keys).await?;
    fs::remove_dir_all(&folder)?;
    Ok(())
}

fn raw_syncs(folder: &Path) -> std::io::Result<f64> {
    let path = folder.join("bare");
    let mut file = File::create_new(&path)?;
    let (began, mut count) = (Instant::now(), 0);
    while began.elapsed() < ROUND {
        file.write_all(&[7; RECORD])?;
        file.sync_data()?;
        count += 1;
    }
    let rate = f64::from(count) / began.elapsed().as_secs_f64();
    fs::remove_file(path)?;
    Ok(rate)
}

fn put(key: String) -> Entry {
    Entry::Put {
        space: SPACE,
        key: key.into(),
        tag: 0,
        value: vec![7; VALUE].into(),
    }
}

async fn appends(
    folder: &Path,
    name: &str,
    safety: Safety,
    appenders: usize,
) -> Result<(), Box<dyn std::error::Error>> {
    let journal = Journal::open(FolderDisk::new(folder)?, Settings::default())?;
    let journal = Arc::new(journal);
    let began = Instant::now();
    let mut tasks = tokio::task::JoinSet::new();
    for appender in 0..appenders {
        let journal = journal.clone();
        tasks.spawn(async move {
            let mut count: u64 = 0;
            while began.elapsed() < ROUND {
                let entry = put(format!("{appender:04}/{:07}", count % 100));
                journal.append(vec![entry], safety).await?;
                count += 1;
            }
            Ok::<_, tidegate_journal::JournalError>(count)
        });
    }
    let mut count = 0;
    while let Some(done) = tasks.join_next().await {
        count += done??;
    }
    let rate = count as f64 / began.elapsed().as_secs_f64();
    let stats = journal.stats();
    let group = count as f64 / stats.syncs.max(1) as f64;
    println!(
        "| {name}, {appenders} at once | {rate:.0} | {group:.1} | {:.0} |",
        1e6 * appenders as f64 / rate
    );
    journal.close()?;
    drop(journal);
    fs::remove_dir_all(folder)?;
    Ok(())
}

async fn open(folder: &Path, keys: usize) -> Result<(), Box<dyn std::error::Error>> {
    let disk = || FolderDisk::new(folder);
    let journal = Journal::open(disk()?, Settings::default())?;
    for number in 0..keys {
        // Keys come in no order.
        let key = (number as u64).wrapping_mul(0x9e37_79b9_7f4a_7c15) >> 20;
        let appending = journal.append(vec![put(format!("{key:012x}"))], Safety::Written);
        if number % 1000 == 0 {
            appending.await?;
        }
    }
    journal.append(Vec::new(), Safety::Synced).await?;
    let stats = journal.stats();
    let bytes = stats.live_bytes + stats.dead_bytes;
    println!(
        "{keys} keys, {} MiB, {} segments\n",
        bytes >> 20,
        stats.segments
    );
    journal.close()?;
    drop(journal);

    println!("| opening | ms | read MiB | index bytes a key | by its own estimate |");
    println!("|---|---|---|---|---|");
    for (name, check) in [
        ("with hints", Check::Index),
        ("every byte", Check::Everything),
    ] {
        let before = IN_USE.load(Ordering::Relaxed);
        let settings = Settings {
            check,
            ..Settings::default()
        };
        let journal = Journal::open(disk()?, settings)?;
        let index = IN_USE.load(Ordering::Relaxed).saturating_sub(before);
        let stats = journal.stats();
        assert_eq!(stats.keys, keys);
        println!(
            "| {name} | {} | {} | {} | {} |",
            stats.recovery.took.as_millis(),
            stats.recovery.scanned_bytes >> 20,
            index / keys,
            stats.index_bytes / keys
        );
        journal.close()?;
    }
    Ok(())
}

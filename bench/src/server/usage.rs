//! What the kernel says a process has used.

use std::fs;
use std::time::Duration;

use anyhow::{Context, Result};

/// Processor time.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Usage {
    /// Of all its threads, in user and system mode, in whole hundredths of a second.
    pub(crate) cpu: Duration,
}

impl Usage {
    pub(crate) fn of(pid: u32) -> Result<Usage> {
        let stat = read(pid, "stat")?;
        // The name before it, in parentheses, may hold anything.
        let (_, fields) = stat.rsplit_once(") ").context("a name in parentheses")?;
        let times = fields.split(' ').skip(11).take(2);
        let ticks: u64 = times.flat_map(str::parse::<u64>).sum();
        // USER_HZ, which is 100 on every Linux.
        let cpu = Duration::from_millis(ticks * 10);
        Ok(Usage { cpu })
    }
}

/// Memory that a process holds, in bytes.
pub(crate) fn resident_bytes(pid: u32) -> Result<u64> {
    // `status` is off by what each thread has not yet added to the sum; `smaps_rollup`
    // counts the pages, but not every kernel has it.
    let rollup = read(pid, "smaps_rollup");
    let (text, name) = match &rollup {
        Ok(text) => (text, "Rss:"),
        Err(_) => (&read(pid, "status")?, "VmRSS:"),
    };
    let kibibytes = text
        .lines()
        .find_map(|line| line.strip_prefix(name))
        .and_then(|size| size.trim().strip_suffix(" kB"))
        .and_then(|size| size.trim().parse::<u64>().ok());
    Ok(kibibytes.context("a size in KiB")? << 10)
}

/// What it holds, to within a few pages for each thread, without keeping the process from its
/// memory.
fn about_resident_bytes(pid: u32) -> Result<u64> {
    let text = read(pid, "statm")?;
    let pages: Option<u64> = text.split(' ').nth(1).and_then(|pages| pages.parse().ok());
    Ok(pages.context("a number of pages")? * rustix::param::page_size() as u64)
}

/// What it holds together with the processes that it has begun.
pub(crate) fn about_resident_bytes_of_all(pid: u32) -> Result<u64> {
    let mut bytes = about_resident_bytes(pid)?;
    for thread in fs::read_dir(format!("/proc/{pid}/task"))?.flatten() {
        // Threads and children may end at any time.
        let children = fs::read_to_string(thread.path().join("children")).unwrap_or_default();
        let children = children.split_whitespace().flat_map(str::parse);
        bytes += children.flat_map(about_resident_bytes_of_all).sum::<u64>();
    }
    Ok(bytes)
}

/// What a process has read and written.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Io {
    /// Bytes that calls to read returned, from memory or disk.
    pub(crate) read: u64,
    /// Bytes that went to the disk, in whole pages.
    pub(crate) written: u64,
}

impl Io {
    pub(crate) fn of(pid: u32) -> Result<Io> {
        let text = read(pid, "io")?;
        let field = |name: &str| {
            text.lines()
                .find_map(|line| line.strip_prefix(name)?.trim().parse().ok())
                .with_context(|| format!("{name} in /proc/{pid}/io"))
        };
        Ok(Io {
            read: field("rchar:")?,
            written: field("write_bytes:")?,
        })
    }
}

fn read(pid: u32, file: &str) -> Result<String> {
    let path = format!("/proc/{pid}/{file}");
    fs::read_to_string(&path).with_context(|| format!("reading {path}"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn this_process_uses_something() {
        let pid = std::process::id();
        Usage::of(pid).unwrap();
        assert!(resident_bytes(pid).unwrap() > 100 << 10);
        assert!(about_resident_bytes_of_all(pid).unwrap() > 100 << 10);
        assert!(Io::of(pid).unwrap().read > 0);
    }
}

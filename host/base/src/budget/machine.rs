//! How much memory this process may have: what the machine has, or its control group.

use std::fs;
use std::path::{Path, PathBuf};

/// In bytes, if that is known.
pub(super) fn memory() -> Option<usize> {
    let machine = machine_total(&fs::read_to_string("/proc/meminfo").ok()?)?;
    let group = fs::read_to_string("/proc/self/cgroup").ok();
    let group = group.and_then(|groups| group_limit(&groups, Path::new("/sys/fs/cgroup")));
    Some(group.map_or(machine, |group| group.min(machine)))
}

/// What `/proc/meminfo` says (proc_meminfo(5)), which is in kibibytes.
fn machine_total(meminfo: &str) -> Option<usize> {
    let mut lines = meminfo.lines();
    let total = lines.find_map(|line| line.strip_prefix("MemTotal:"))?;
    let kibibytes: usize = total.trim().strip_suffix("kB")?.trim().parse().ok()?;
    kibibytes.checked_mul(1 << 10)
}

/// The lowest limit of the process's control group and those above it (cgroups(7)). `groups` is
/// what `/proc/self/cgroup` says.
fn group_limit(groups: &str, root: &Path) -> Option<usize> {
    let found = groups.lines().find_map(|line| {
        let mut fields = line.splitn(3, ':');
        let (number, controllers) = (fields.next()?, fields.next()?);
        let path = fields.next()?.trim_start_matches('/');
        match (number, controllers) {
            ("0", "") => Some((root.to_owned(), path, "memory.max")),
            (_, "memory") => Some((root.join("memory"), path, "memory.limit_in_bytes")),
            _ => None,
        }
    });
    let (root, path, file) = found?;
    let group = root.join(path);
    let groups = group
        .ancestors()
        .take_while(|group| group.starts_with(&root));
    let limit = |folder: &Path| -> Option<usize> {
        let path: PathBuf = folder.join(file);
        // `max` is no limit.
        fs::read_to_string(path).ok()?.trim().parse().ok()
    };
    groups.filter_map(limit).min()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_lowest_limit_on_the_way_up_holds() {
        let root = std::env::temp_dir().join(format!("tidegate-groups-{}", std::process::id()));
        let group = root.join("host/inner");
        fs::create_dir_all(&group).unwrap();
        fs::write(group.join("memory.max"), "max\n").unwrap();
        fs::write(root.join("host/memory.max"), "1048576\n").unwrap();
        assert_eq!(group_limit("0::/host/inner\n", &root), Some(1 << 20));
        assert_eq!(group_limit("0::/\n", &root), None);
        assert_eq!(group_limit("", &root), None);
        fs::remove_dir_all(&root).unwrap();
    }

    #[test]
    fn a_machine_has_memory() {
        assert!(memory().is_some_and(|memory| memory > 1 << 20));
    }
}

//! What callgrind has counted, by the crates whose functions ran.
//!
//! A function counts for itself alone, without what it calls. What the compiler has inlined counts
//! for the function that it is in.

mod callgrind;
mod owner;

use std::collections::BTreeMap;
use std::path::Path;

use anyhow::{Context, Result};

/// Instructions that ran, by crate.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Profile(BTreeMap<String, u64>);

impl Profile {
    /// Reads a file of callgrind's about this program.
    pub(crate) fn read(file: &Path, program: &Path) -> Result<Profile> {
        let shown = file.display();
        let text = std::fs::read(file).with_context(|| format!("reading {shown}"))?;
        // The names of functions may hold anything.
        let text = String::from_utf8_lossy(&text);
        Profile::parse(&text, program).with_context(|| shown.to_string())
    }

    fn parse(text: &str, program: &Path) -> Result<Profile> {
        let program = program.to_string_lossy();
        let mut by_crate = BTreeMap::new();
        callgrind::visit(text, |function, instructions| {
            let owner = owner::of(function, &program);
            match by_crate.get_mut(owner) {
                Some(sum) => *sum += instructions,
                None => {
                    by_crate.insert(owner.to_owned(), instructions);
                }
            }
        })?;
        Ok(Profile(by_crate))
    }

    /// What each of so many operations took, given what came of them in one go and what came of
    /// twice as many. What does not depend on their number falls out.
    pub(crate) fn of_each(once: &Profile, twice: &Profile, operations: u64) -> Cost {
        let count = |profile: &Profile, owner: &str| {
            let count = profile.0.get(owner).copied().unwrap_or(0);
            count as f64
        };
        let owners = once.0.keys().chain(twice.0.keys());
        Cost(
            owners
                .map(|owner| {
                    let more = count(twice, owner) - count(once, owner);
                    (owner.clone(), more / operations as f64)
                })
                .collect(),
        )
    }
}

/// Instructions of one operation, by crate.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct Cost(BTreeMap<String, f64>);

impl Cost {
    /// Of all crates.
    pub(crate) fn total(&self) -> f64 {
        self.0.values().sum()
    }

    /// The crates that had a part in it.
    pub(crate) fn crates(&self) -> impl Iterator<Item = &str> {
        self.0.keys().map(String::as_str)
    }

    /// What part of the total a crate has, in hundredths.
    pub(crate) fn share(&self, owner: &str) -> f64 {
        100.0 * self.0.get(owner).copied().unwrap_or(0.0) / self.total()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const FILE: &str = "version: 1\npositions: line\nevents: Ir\n\n\
        ob=/bin/host\nfl=a.rs\nfn=tidegate::turn\n1 10\n2 5\n\
        fl=b.rs\nfn=tidegate::answer\n7 1\n\
        fn=<tokio::Task as core::Drop>::drop\n1 4\n\
        ob=???\nfl=???\nfn=0x000000004a\n0 20\ntotals: 40\n";

    fn profile(counts: &[(&str, u64)]) -> Profile {
        let counts = counts.iter().copied();
        Profile(counts.map(|(name, n)| (name.to_owned(), n)).collect())
    }

    #[test]
    fn functions_are_summed_by_crate() {
        let read = Profile::parse(FILE, Path::new("/bin/host")).unwrap();
        let expected = profile(&[("tidegate", 16), ("tokio", 4), (owner::GUEST, 20)]);
        assert_eq!(read, expected);
    }

    #[test]
    fn what_every_run_takes_falls_out() {
        let once = profile(&[("tidegate", 110), ("libc", 7)]);
        let twice = profile(&[("tidegate", 210), ("libc", 7), ("tokio", 100)]);
        let cost = Profile::of_each(&once, &twice, 10);
        assert_eq!(cost.total(), 20.0);
        let shares = ["tidegate", "tokio", "libc", "absent"].map(|owner| cost.share(owner));
        assert_eq!(shares, [50.0, 50.0, 0.0, 0.0]);
    }
}

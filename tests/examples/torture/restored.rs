//! A data folder that was put back: a copy of it is served, and takes other calls than those that
//! the original went on with.

use std::fs;
use std::path::Path;

use serde_json::json;
use tidegate_tests::{Folder, Host, actor};

use crate::Random;
use crate::tally::World;
use crate::watchers::Watchers;

/// Where the entries begin that only the copy has.
const ENTRIES: u64 = 1 << 40;
/// How many ledgers go on in the copy.
const LEDGERS: u64 = 12;
/// By how much one of them gets further there than its watcher is, at most.
const FURTHER: u64 = 3;

/// A copy of the folder of a host that is not running.
pub(crate) fn copy(folder: &Folder) -> Folder {
    let copy = Folder::new();
    copy_into(folder.path(), copy.path());
    copy
}

fn copy_into(from: &Path, to: &Path) {
    for entry in fs::read_dir(from).expect("a folder") {
        let entry = entry.expect("an entry");
        let (from, to) = (entry.path(), to.join(entry.file_name()));
        match entry.file_type().expect("a type").is_dir() {
            true => {
                fs::create_dir(&to).expect("making a folder");
                copy_into(&from, &to);
            }
            false => drop(fs::copy(from, to).expect("copying a file")),
        }
    }
}

/// Takes some ledgers of the copy about as far as watchers have seen them in the original, and has
/// the watchers come to it.
pub(crate) async fn go_on(host: &Host, watchers: &Watchers, ledgers: usize, random: &mut Random) {
    let before = World::of(host, ledgers).await;
    let seen = watchers.versions();
    let mut socket = host.connect().await;
    for _ in 0..LEDGERS {
        let number = random.below(ledgers as u64) as usize;
        let there = before.all()[number].version;
        let missing = seen[number].saturating_sub(there) + random.below(FURTHER);
        let ledger = actor("ledger", &number.to_string());
        let mut calls = Vec::new();
        for _ in 0..missing {
            let input = json!({"entry": ENTRIES + random.below(1 << 30)});
            calls.push(socket.begin_call(&ledger, "add", input).await);
        }
        for id in calls {
            socket.result_of(&id).await.result();
        }
    }
    let world = World::of(host, ledgers).await;
    watchers.visit(host, &world).await;
}

//! Whatever is done to the files of a journal, opening it ends in a refusal that changes
//! nothing or in a state that is a prefix of its history, and opening it again gives the
//! same. What was cut off where nobody accepts a loss and its watermark is as it was, is refused:
//! then the state is the last.

#![no_main]

use std::collections::BTreeMap;
use std::sync::LazyLock;
use std::time::Instant;

use bytes::Bytes;
use libfuzzer_sys::fuzz_target;
use tidegate_journal::{Check, Entry, Journal, Next, Safety, Settings, Space};
use tidegate_testkit::disk::{Loss, SimDisk};

type State = BTreeMap<Box<str>, (Bytes, Vec<Bytes>)>;

fn settings(check: Check, accept_loss: bool) -> Settings {
    Settings {
        accept_loss,
        segment_bytes: 700,
        dead_percent: 101,
        check,
        ..Settings::default()
    }
}

/// A closed journal of a few segments, and all states that it has had.
static CLOSED: LazyLock<(SimDisk, Vec<State>)> = LazyLock::new(|| {
    let disk = SimDisk::new(1);
    let (journal, mut stepper) =
        Journal::open_stepped(disk.clone(), settings(Check::Index, false)).expect("an empty disk");
    let mut states = vec![State::new()];
    for number in 0..40_u8 {
        let (space, key) = (Space(0), format!("key-{}", number % 5).into_boxed_str());
        let value = Bytes::from(vec![number; usize::from(number % 7) * 8]);
        let mut state = states[states.len() - 1].clone();
        let tag = u64::from(number);
        let entry = match number % 4 {
            3 if number > 20 => {
                state.remove(&key);
                Entry::Delete { space, key }
            }
            1 | 2 if state.contains_key(&key) => {
                state
                    .get_mut(&key)
                    .expect("it is there")
                    .1
                    .push(value.clone());
                Entry::Delta {
                    space,
                    key,
                    tag,
                    value,
                }
            }
            _ => {
                state.insert(key.clone(), (value.clone(), Vec::new()));
                Entry::Put {
                    space,
                    key,
                    tag,
                    value,
                }
            }
        };
        states.push(state);
        drop(journal.append(vec![entry], Safety::Synced));
        stepper.step(Instant::now());
    }
    journal.close().expect("there is no thread to wait for");
    while stepper.step(Instant::now()) != Next::Ended {}
    (disk, states)
});

/// What a journal holds; none if a value of it is damaged.
fn state_of(journal: &Journal) -> Option<State> {
    let mut state = State::new();
    for key in journal.keys(Space(0), "", None, usize::MAX) {
        let value = journal.read(Space(0), &key).ok()??;
        state.insert(key, (value.base, value.deltas));
    }
    Some(state)
}

/// Which file, where, and what is there instead: bytes in place, or the end of the file.
type Edit<'a> = (u8, u16, bool, &'a [u8]);

fuzz_target!(|input: (bool, bool, Vec<Edit<'_>>)| {
    let (everything, accept_loss, edits) = input;
    let check = [Check::Index, Check::Everything][usize::from(everything)];
    let (closed, states) = &*CLOSED;
    let disk = closed.copy();
    let names: Vec<String> = disk.contents().into_keys().collect();
    for (file, at, ends, bytes) in edits {
        let name = &names[usize::from(file) % names.len()];
        let mut content = disk.content(name).expect("it is listed");
        let at = usize::from(at) % (content.len() + 1);
        if ends {
            content.truncate(at);
            content.extend_from_slice(bytes);
        } else {
            let end = (at + bytes.len()).min(content.len());
            content[at..end].copy_from_slice(&bytes[..end - at]);
        }
        disk.set_content(name, &content);
    }
    let before = disk.contents();
    let settings = settings(check, accept_loss);
    let is_proven = !accept_loss && before.get("watermark") == closed.contents().get("watermark");
    let first = match Journal::open_stepped(disk.clone(), settings.clone()) {
        Ok((journal, _stepper)) => state_of(&journal),
        Err(_) => {
            assert_eq!(disk.contents(), before);
            return;
        }
    };
    if let Some(first) = &first {
        assert!(states.contains(first), "no such state was ever there");
        assert!(!is_proven || states.last() == Some(first), "a loss was not seen");
    }
    disk.restart(Loss::Power);
    let (journal, _stepper) =
        Journal::open_stepped(disk, settings).expect("it opens as before");
    assert_eq!(state_of(&journal), first);
});

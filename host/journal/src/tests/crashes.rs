//! Crashes at any moment, with all that a disk can do wrong.

use std::time::{Duration, Instant};

use tidegate_testkit::dice::Rng;
use tidegate_testkit::disk::{Fault, Loss, SimDisk};

use super::super::{
    Ending, Entry, Health, Journal, JournalError, Next, OpenError, Safety, Settings, Space,
};
use super::model::{State, World, apply, entries, poll, state_of, tight};

/// The seed that `JOURNAL_SEED` names, or so many as `JOURNAL_SEEDS` says.
fn seeds(count_by_default: u64) -> Vec<u64> {
    match std::env::var("JOURNAL_SEED") {
        Ok(seed) => vec![seed.parse().expect("JOURNAL_SEED is a number")],
        Err(_) => {
            let count = std::env::var("JOURNAL_SEEDS").map(|count| count.parse());
            (0..count.map_or(count_by_default, |count| count.expect("a number"))).collect()
        }
    }
}

#[test]
fn what_is_found_after_a_crash_is_a_prefix_with_all_that_was_told_to_be_safe() {
    let began = Instant::now();
    let (mut lives, mut compactions, mut cuts, mut stops, mut refusals) = (0, 0, 0, 0, 0);
    for seed in seeds(400) {
        let told = std::panic::catch_unwind(|| {
            let mut world = World::new(seed);
            world.run(8);
            (world.compactions, world.cuts, world.stops, world.refusals)
        });
        let Ok(counts) = told else {
            panic!("run again with JOURNAL_SEED={seed}");
        };
        lives += 8;
        compactions += counts.0;
        cuts += counts.1;
        stops += counts.2;
        refusals += counts.3;
    }
    let rate = f64::from(lives) / began.elapsed().max(Duration::from_millis(1)).as_secs_f64();
    println!(
        "{lives} lives, {:.0} a minute; {compactions} compactions, {cuts} tails cut, {stops} stops, \
         {refusals} losses refused",
        rate * 60.0
    );
    if std::env::var("JOURNAL_SEED").is_err() {
        assert!(compactions > 100 && cuts > 100 && stops > 100 && refusals > 100);
    }
}

/// A run without accidents, and what is known of it.
struct Recorded {
    /// The states after each append.
    history: Vec<State>,
    /// For each call to the disk, the appends that were told to be synced, or written, by
    /// then.
    told: Vec<(usize, usize)>,
}

/// Appends with one step after each; ends when the disk does.
fn record(disk: &SimDisk, seed: u64, appends: usize) -> Recorded {
    let mut rng = Rng::new(seed);
    let settings = tight(&mut rng);
    let mut recorded = Recorded {
        history: vec![State::new()],
        told: Vec::new(),
    };
    let (mut synced, mut written) = (0, 0);
    let Ok((journal, mut stepper)) = Journal::open_stepped(disk.clone(), settings) else {
        recorded.told.resize(disk.calls() as usize, (0, 0));
        return recorded;
    };
    recorded.told.resize(disk.calls() as usize, (0, 0));
    let now = Instant::now();
    for number in 0..appends {
        let entries = entries(&mut rng, number);
        let last = &recorded.history[recorded.history.len() - 1];
        let Some(state) = apply(last, &entries) else {
            continue;
        };
        recorded.history.push(state);
        let safety = [Safety::Synced, Safety::Written][rng.below(2)];
        let mut appending = journal.append(entries, safety);
        stepper.step(now);
        recorded
            .told
            .resize(disk.calls() as usize, (synced, written));
        match poll(&mut appending) {
            Some(Ok(())) if safety == Safety::Synced => synced = recorded.history.len() - 1,
            Some(Ok(())) => {}
            Some(Err(_)) => break,
            None => panic!("an append completes with the step that writes it"),
        }
        written = recorded.history.len() - 1;
    }
    recorded.told.push((synced, written));
    recorded
}

#[test]
fn a_run_that_is_cut_at_any_call_to_the_disk_keeps_all_it_has_told() {
    for seed in 0..6 {
        let calls = {
            let disk = SimDisk::new(seed);
            record(&disk, seed, 40);
            disk.calls()
        };
        for cut in 0..calls {
            for loss in [Loss::Process, Loss::Power] {
                let disk = SimDisk::new(seed);
                disk.plan(Fault::Crash, cut);
                let recorded = record(&disk, seed, 40);
                disk.restart(loss);
                let mut rng = Rng::new(seed);
                let (journal, _stepper) = Journal::open_stepped(disk, tight(&mut rng))
                    .unwrap_or_else(|error| panic!("seed {seed}, cut {cut}, {loss:?}: {error}"));
                let found = state_of(&journal).unwrap();
                let (synced, written) = *recorded.told.last().unwrap();
                let least = match loss {
                    Loss::Process => written,
                    Loss::Power => synced,
                };
                assert!(
                    recorded.history[least..].contains(&found),
                    "seed {seed}, cut {cut}, {loss:?}"
                );
            }
        }
    }
}

/// A closed journal in a few segments, and the states that its appends have made.
fn closed(seed: u64, settings: &Settings, appends: usize) -> (SimDisk, Vec<State>) {
    let disk = SimDisk::new(seed);
    let mut rng = Rng::new(seed);
    let (journal, mut stepper) = Journal::open_stepped(disk.clone(), settings.clone()).unwrap();
    let mut history = vec![State::new()];
    for number in 0..appends {
        let entries = entries(&mut rng, number);
        if let Some(state) = apply(&history[history.len() - 1], &entries) {
            history.push(state);
            let mut appending = journal.append(entries, Safety::Synced);
            stepper.step(Instant::now());
            assert_eq!(poll(&mut appending), Some(Ok(())));
        }
    }
    journal.close().unwrap();
    while stepper.step(Instant::now()) != Next::Ended {}
    assert_eq!(journal.health(), Health::Closed);
    (disk, history)
}

fn newest(disk: &SimDisk) -> String {
    let names = disk.contents().into_keys();
    names.filter(|name| name.ends_with(".log")).max().unwrap()
}

#[test]
fn a_cut_of_what_was_safe_is_refused_at_any_byte() {
    let (disk, settings, history) = closed_in_few_segments();
    let name = newest(&disk);
    let whole = disk.content(&name).unwrap();
    for cut in 0..whole.len() {
        let disk = disk.copy();
        disk.set_content(&name, &whole[..cut]);
        let before = disk.contents();
        let error = Journal::open_stepped(disk.clone(), settings.clone()).unwrap_err();
        match error {
            OpenError::Lost { offset, safe, .. } => {
                assert!(offset <= cut as u64 && safe == whole.len() as u64);
            }
            error => assert!(
                matches!(error, OpenError::Damaged { offset: 0, .. }),
                "{error}"
            ),
        }
        assert_eq!(disk.contents(), before, "a refusal changes nothing");
    }
    let (journal, _stepper) = Journal::open_stepped(disk, settings).unwrap();
    assert_eq!(journal.stats().recovery.ending, Ending::Closed);
    assert_eq!(Some(&state_of(&journal).unwrap()), history.last());
}

#[test]
fn what_follows_the_end_of_a_closed_journal_is_cut_off() {
    let (disk, settings, history) = closed_in_few_segments();
    let name = newest(&disk);
    let mut bytes = disk.content(&name).unwrap();
    bytes.extend([7; 30]);
    disk.set_content(&name, &bytes);
    let (journal, _stepper) = Journal::open_stepped(disk, settings).unwrap();
    let found = journal.stats().recovery;
    assert_eq!((found.ending, found.cut_bytes), (Ending::Closed, 30));
    assert_eq!(Some(&state_of(&journal).unwrap()), history.last());
}

fn closed_in_few_segments() -> (SimDisk, Settings, Vec<State>) {
    let settings = Settings {
        segment_bytes: 4000,
        dead_percent: 101,
        ..Settings::default()
    };
    let (disk, history) = closed(3, &settings, 30);
    (disk, settings, history)
}

#[test]
fn a_file_that_is_cut_at_any_byte_is_a_prefix_if_the_loss_is_accepted() {
    let (disk, settings, history) = closed_in_few_segments();
    let accepting = Settings {
        accept_loss: true,
        ..settings
    };
    every_cut_is_a_prefix(&disk, &accepting, &history);
}

#[test]
fn a_file_that_is_cut_at_any_byte_is_a_prefix_where_nothing_was_noted() {
    let (disk, settings, history) = closed_in_few_segments();
    disk.take("watermark");
    every_cut_is_a_prefix(&disk, &settings, &history);
}

#[test]
fn a_loss_can_be_accepted_where_that_is_said_and_nowhere_else() {
    let (mut accepted, mut refused) = (0, 0);
    for seed in 0..4 {
        let (disk, settings) = closed_behind_a_compaction(seed);
        let name = newest(&disk);
        let whole = disk.content(&name).unwrap();
        for cut in 0..whole.len() {
            let disk = disk.copy();
            disk.set_content(&name, &whole[..cut]);
            let open = |accept_loss| {
                let settings = Settings {
                    accept_loss,
                    ..settings.clone()
                };
                let (journal, _stepper) = Journal::open_stepped(disk.copy(), settings)?;
                Ok(state_of(&journal).expect("what is there can be read"))
            };
            match (open(false), open(true)) {
                (Err(OpenError::Lost { .. }), Ok(_)) => accepted += 1,
                (Err(OpenError::LostCopies { .. }), Err(OpenError::LostCopies { .. })) => {
                    refused += 1;
                }
                // A segment is never there without its header.
                (Err(OpenError::Damaged { offset: 0, .. }), Err(_)) => {}
                (without, with) => {
                    panic!("seed {seed}, cut at {cut}: {without:?}, with the setting {with:?}")
                }
            }
        }
    }
    assert!(accepted > 0 && refused > 0, "{accepted} and {refused}");
}

/// A closed journal of which a segment has been dropped shortly before its end.
fn closed_behind_a_compaction(seed: u64) -> (SimDisk, Settings) {
    let settings = Settings {
        segment_bytes: 1500,
        ..Settings::default()
    };
    let disk = SimDisk::new(seed);
    let mut rng = Rng::new(seed);
    let (journal, mut stepper) = Journal::open_stepped(disk.clone(), settings.clone()).unwrap();
    for number in 0..1000 {
        if journal.stats().compactions > 0 {
            break;
        }
        let mut appending = journal.append(entries(&mut rng, number), Safety::Synced);
        stepper.step(Instant::now());
        assert!(poll(&mut appending).is_some());
    }
    assert!(journal.stats().compactions > 0);
    // What is behind the word that a segment is gone can be lost alone.
    let last = Entry::Put {
        space: Space(0),
        key: "last".into(),
        tag: 0,
        value: b"x".to_vec().into(),
    };
    let mut appending = journal.append(vec![last], Safety::Synced);
    stepper.step(Instant::now());
    assert_eq!(poll(&mut appending), Some(Ok(())));
    journal.close().unwrap();
    while stepper.step(Instant::now()) != Next::Ended {}
    (disk, settings)
}

fn every_cut_is_a_prefix(disk: &SimDisk, settings: &Settings, history: &[State]) {
    let name = newest(disk);
    let whole = disk.content(&name).unwrap();
    let mut last = 0;
    let mut headless = 0;
    for cut in 0..=whole.len() {
        let disk = disk.copy();
        disk.set_content(&name, &whole[..cut]);
        match Journal::open_stepped(disk.clone(), settings.clone()) {
            Ok((journal, _)) => {
                let found = state_of(&journal).unwrap();
                let made = history.iter().position(|state| *state == found).unwrap();
                assert!(made >= last, "{made} after {last}");
                last = made;
            }
            // A segment is never there without its header.
            Err(OpenError::Damaged { offset: 0, .. }) => headless += 1,
            Err(error) => panic!("{error}"),
        }
    }
    assert_eq!(last, history.len() - 1);
    assert!(headless > 0 && headless < 100, "{headless}");
}

#[test]
fn a_flipped_bit_is_never_taken_for_data() {
    let mut settings = Settings {
        segment_bytes: 1500,
        dead_percent: 101,
        ..Settings::default()
    };
    let (disk, history) = closed(5, &settings, 40);
    let last = history.last().unwrap();
    let newest = newest(&disk);
    let (mut refused, mut unread, mut unseen) = (0, 0, 0);
    let mut rng = Rng::new(5);
    for (name, bytes) in disk.contents() {
        for (at, byte) in bytes.iter().enumerate() {
            let mut flipped = bytes.clone();
            flipped[at] = byte ^ (1 << rng.below(8));
            let copy = disk.copy();
            copy.set_content(&name, &flipped);
            settings.check = [super::super::Check::Index, super::super::Check::Everything]
                [usize::from(rng.percent(50))];
            let before = copy.contents();
            let opened = Journal::open_stepped(copy.clone(), settings.clone());
            match opened.map(|(journal, _)| state_of(&journal)) {
                Ok(Ok(found)) => {
                    assert_eq!(&found, last, "{name} at {at}");
                    unseen += 1;
                    // Hints are made again; of two watermarks one is left.
                    let is_harmless = name.ends_with(".hint")
                        || name == "watermark"
                        || settings.check == super::super::Check::Index && name != newest;
                    assert!(is_harmless, "{name} at {at} of {}", bytes.len());
                }
                Ok(Err(error)) => {
                    assert!(matches!(error, JournalError::Damaged { .. }), "{error}");
                    unread += 1;
                }
                Err(error) => {
                    let named = matches!(
                        error,
                        OpenError::Damaged { .. }
                            | OpenError::Lost { .. }
                            | OpenError::NotAJournal { .. }
                            | OpenError::Missing { .. }
                    );
                    assert!(named, "{error}");
                    assert_eq!(copy.contents(), before, "a refusal changes nothing");
                    refused += 1;
                }
            }
        }
    }
    assert!(
        refused > 1000 && unread > 100 && unseen > 100,
        "{refused} {unread} {unseen}"
    );
}

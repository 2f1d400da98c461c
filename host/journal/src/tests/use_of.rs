//! What users of a journal see, with its threads and a real folder.

use std::fs;
use std::time::Duration;

use bytes::Bytes;
use tidegate_base::disk::FolderDisk;
use tidegate_testkit::disk::{Fault, SimDisk};
use tokio::task::JoinSet;

use super::super::{Entry, Health, Journal, JournalError, Safety, Settings, Space, Value};
use super::opening::folder;

const SPACE: Space = Space(0);

fn put(key: &str, tag: u64, value: &str) -> Entry {
    Entry::Put {
        space: SPACE,
        key: key.into(),
        tag,
        value: value.to_owned().into(),
    }
}

fn delta(key: &str, tag: u64, value: &str) -> Entry {
    Entry::Delta {
        space: SPACE,
        key: key.into(),
        tag,
        value: value.to_owned().into(),
    }
}

fn delete(key: &str) -> Entry {
    Entry::Delete {
        space: SPACE,
        key: key.into(),
    }
}

fn simulated() -> Journal {
    Journal::open(SimDisk::new(0), Settings::default()).unwrap()
}

#[tokio::test]
async fn a_value_is_its_base_and_the_deltas_since() {
    let journal = simulated();
    let entries = vec![put("a", 0, "old"), delta("a", 0, "x"), put("a", 0, "new")];
    journal.append(entries, Safety::Written).await.unwrap();
    let entries = vec![delta("a", 0, "1"), delta("a", 0, "2")];
    journal.append(entries, Safety::Synced).await.unwrap();
    let value = Value {
        base: Bytes::from("new"),
        deltas: vec![Bytes::from("1"), Bytes::from("2")],
    };
    assert_eq!(journal.read(SPACE, "a"), Ok(Some(value)));
    assert_eq!(journal.read(Space(1), "a"), Ok(None));
    journal
        .append(vec![delete("a")], Safety::Written)
        .await
        .unwrap();
    assert_eq!(journal.read(SPACE, "a"), Ok(None));
}

#[tokio::test]
async fn keys_are_listed_in_order_by_prefix_and_page() {
    let journal = simulated();
    let keys = ["chat/2", "chat/1", "chat/10", "board/1", "chat/3"];
    let entries = keys.iter().map(|key| put(key, 0, "")).collect();
    journal.append(entries, Safety::Written).await.unwrap();
    let page = |after, limit| {
        let keys = journal.keys(SPACE, "chat/", after, limit);
        keys.iter().map(|key| key.to_string()).collect::<Vec<_>>()
    };
    assert_eq!(page(None, 2), ["chat/1", "chat/10"]);
    assert_eq!(page(Some("chat/10"), 9), ["chat/2", "chat/3"]);
    assert_eq!(page(Some("a"), 1), ["chat/1"]);
    assert!(page(Some("chat/4"), 9).is_empty());
}

#[tokio::test]
async fn a_key_is_listed_by_its_latest_tag() {
    let journal = simulated();
    let entries = vec![
        put("a", 5, ""),
        put("b", 6, ""),
        delta("b", 0, ""),
        put("c", 0, ""),
        delta("c", 9, ""),
        put("d", 1, ""),
        delete("d"),
    ];
    journal.append(entries, Safety::Written).await.unwrap();
    assert_eq!(journal.tagged(SPACE), [("a".into(), 5), ("c".into(), 9)]);
}

#[tokio::test]
async fn a_delta_without_a_base_refuses_its_append_alone() {
    let journal = simulated();
    let refused = journal.append(vec![put("a", 0, ""), delta("b", 0, "")], Safety::Written);
    let accepted = journal.append(vec![put("c", 0, "")], Safety::Written);
    let follows = journal.append(vec![delta("a", 0, "")], Safety::Written);
    let no_base = |key: &str| {
        Err(JournalError::NoBase {
            space: SPACE,
            key: key.into(),
        })
    };
    assert_eq!(refused.await, no_base("b"));
    assert_eq!(accepted.await, Ok(()));
    assert_eq!(follows.await, no_base("a"));
    assert_eq!(journal.keys(SPACE, "", None, 9), ["c".into()]);
}

#[tokio::test]
async fn appends_that_nobody_awaits_are_made_in_the_order_of_the_calls() {
    let journal = simulated();
    drop(journal.append(vec![put("a", 0, "")], Safety::Synced));
    let calls: Vec<_> = (0..100)
        .map(|number| journal.append(vec![delta("a", 0, &number.to_string())], Safety::Written))
        .collect();
    for call in calls.into_iter().rev() {
        call.await.unwrap();
    }
    let value = journal.read(SPACE, "a").unwrap().unwrap();
    let expected: Vec<_> = (0..100).map(|n| Bytes::from(n.to_string())).collect();
    assert_eq!(value.deltas, expected);
}

#[tokio::test]
async fn limits_refuse_an_append_at_once() {
    let settings = Settings {
        max_append_bytes: 100,
        queue_bytes: 150,
        ..Settings::default()
    };
    let (journal, _stepper) = Journal::open_stepped(SimDisk::new(0), settings).unwrap();
    let large = journal.append(vec![put("a", 0, &"x".repeat(100))], Safety::Written);
    let refused = large.await;
    assert!(matches!(
        refused,
        Err(JournalError::TooLarge { limit: 100, .. })
    ));
    let key = "k".repeat(70_000);
    let refused = journal.append(vec![delete(&key)], Safety::Written).await;
    assert_eq!(refused, Err(JournalError::KeyTooLong { bytes: 70_000 }));
    let _waits = journal.append(vec![put("a", 0, &"x".repeat(50))], Safety::Written);
    let refused = journal.append(vec![put("a", 0, &"x".repeat(50))], Safety::Written);
    assert!(matches!(refused.await, Err(JournalError::Busy { .. })));
}

#[tokio::test]
async fn a_sync_that_fails_stops_the_journal_until_it_is_opened_again() {
    let disk = SimDisk::new(0);
    let journal = Journal::open(disk.clone(), Settings::default()).unwrap();
    let append = |key: &str| journal.append(vec![put(key, 0, "")], Safety::Synced);
    append("a").await.unwrap();
    disk.plan(Fault::SyncError, 0);
    let failed = append("b").await;
    assert!(
        matches!(&failed, Err(JournalError::Stopped { reason }) if reason.contains("synced")),
        "{failed:?}"
    );
    assert_eq!(append("c").await, failed);
    assert!(matches!(
        journal.read(SPACE, "a"),
        Err(JournalError::Stopped { .. })
    ));
    assert!(matches!(journal.health(), Health::Stopped { .. }));
    assert!(journal.close().is_err());

    let journal = Journal::open(disk, Settings::default()).unwrap();
    assert!(journal.read(SPACE, "a").unwrap().is_some());
    assert_eq!(journal.read(SPACE, "c"), Ok(None));
}

#[tokio::test]
async fn concurrent_appends_share_syncs_and_outlast_a_restart() {
    let folder = folder("shared-syncs");
    let open = || Journal::open(FolderDisk::new(&folder).unwrap(), Settings::default()).unwrap();
    let journal = std::sync::Arc::new(open());
    let mut tasks = JoinSet::new();
    for task in 0..64 {
        let journal = journal.clone();
        tasks.spawn(async move {
            for round in 0..10 {
                let entry = put(&format!("{task}/{round}"), 0, "value");
                journal.append(vec![entry], Safety::Synced).await.unwrap();
            }
        });
    }
    tasks.join_all().await;
    let stats = journal.stats();
    assert_eq!(stats.appends, 640);
    assert!(stats.syncs < 640, "{stats:?}");
    journal.close().unwrap();
    assert_eq!(
        journal.append(Vec::new(), Safety::Synced).await,
        Err(JournalError::Closed)
    );

    let journal = open();
    let stats = journal.stats();
    assert_eq!((stats.keys, stats.recovery.cut_bytes), (640, 0));
    drop(journal);
    fs::remove_dir_all(folder).unwrap();
}

#[tokio::test]
async fn what_is_written_is_synced_within_the_interval() {
    let settings = Settings {
        sync_interval: Duration::from_millis(5),
        ..Settings::default()
    };
    let journal = Journal::open(SimDisk::new(0), settings).unwrap();
    journal
        .append(vec![put("a", 0, "")], Safety::Written)
        .await
        .unwrap();
    // The counter is all that there is to see of it.
    let synced = async {
        while journal.stats().syncs == 0 {
            tokio::task::yield_now().await;
        }
    };
    tokio::time::timeout(Duration::from_secs(10), synced)
        .await
        .expect("it is synced");
}

#[tokio::test]
async fn overwritten_values_give_their_room_back() {
    let folder = folder("room");
    let settings = Settings {
        segment_bytes: 64 << 10,
        ..Settings::default()
    };
    let open = || Journal::open(FolderDisk::new(&folder).unwrap(), settings.clone()).unwrap();
    let journal = open();
    let value = "x".repeat(1000);
    for round in 0..2000 {
        let key = (round % 20).to_string();
        let entries = vec![put(&key, 0, &value), delta(&key, 0, "delta")];
        let appending = journal.append(entries, Safety::Written);
        if round % 50 == 0 {
            appending.await.unwrap();
        }
    }
    let compacted = async {
        while journal.stats().segments > 6 {
            tokio::task::yield_now().await;
        }
    };
    tokio::time::timeout(Duration::from_secs(20), compacted)
        .await
        .expect("segments are removed");
    assert!(journal.stats().compactions > 20);
    drop(journal);

    let journal = open();
    for key in 0..20 {
        let read = journal.read(SPACE, &key.to_string()).unwrap().unwrap();
        assert_eq!((read.base.len(), read.deltas.len()), (1000, 1));
    }
    drop(journal);
    fs::remove_dir_all(folder).unwrap();
}

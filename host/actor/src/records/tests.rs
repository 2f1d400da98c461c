//! Actors in a store, on disk and in memory.

use std::path::PathBuf;

use futures_util::FutureExt;
use serde_json::json;
use tidegate_base::budget::{Budget, Share};
use tidegate_core::place::Shard;
use tidegate_core::turn::{Begun, Change, Earlier, Stored, StoredTimer, Timer, TimerChange};
use tidegate_core::{ActorId, ActorKey, Name, PatchOp};
use tidegate_store::{
    CHANGES, Commit, Committed, Disk, Durability, Durable, Keyspace, Listing, Memory, Store,
    Weight, config,
};

use super::ActorRecords;

struct Folder(PathBuf);

impl Folder {
    fn new(name: &str) -> Folder {
        let name = format!("tidegate-store-{}-{name}", std::process::id());
        let path = std::env::temp_dir().join(name);
        let _ = std::fs::remove_dir_all(&path);
        Folder(path)
    }

    fn open(&self) -> Durable<ActorRecords> {
        Durable::on(Disk::open(&self.0, &config::Store::default()).unwrap(), 100)
    }
}

impl Drop for Folder {
    fn drop(&mut self) {
        let _ = std::fs::remove_dir_all(&self.0);
    }
}

fn key(actor: &str, id: &str) -> ActorKey {
    ActorKey::new(Name::parse(actor).unwrap(), ActorId::parse(id).unwrap())
}

fn counted(count: u64) -> Stored {
    Stored {
        epoch: "e".into(),
        version: count,
        run: "".into(),
        earlier: Vec::new(),
        is_begun: false,
        state: json!({"count": count, "filler": "x".repeat(1000)}).into(),
        state_version: 0,
        connections: Vec::new(),
        timers: Vec::new(),
        last_timer: 0,
        answers: Vec::new(),
        outbox: Vec::new(),
        last_sent: 0,
        received: Vec::new(),
    }
}

/// Without the run that has written it.
fn unsigned(stored: Stored) -> Stored {
    Stored {
        run: "".into(),
        ..stored
    }
}

fn earlier(epoch: &str, version: u64) -> Earlier {
    Earlier {
        epoch: epoch.into(),
        version,
    }
}

fn counts(version: u64) -> Change {
    Change {
        version,
        patches: vec![PatchOp::Replace {
            path: "/count".to_owned(),
            value: version.into(),
        }],
        ..Change::default()
    }
}

fn commit(
    store: &Durable<ActorRecords>,
    actor: &ActorKey,
    change: &Change,
    durability: Durability,
    weight: &mut Weight,
) -> Committed {
    let commit = Commit {
        key: actor,
        change,
        durability,
        due_ms: None,
    };
    store.commit(commit, weight, &|| counted(change.version))
}

async fn safe(committed: Committed) {
    match committed {
        Committed::Later(safe) => safe.await.unwrap(),
        Committed::Now => panic!("it was not written"),
        Committed::Refused(error) => panic!("{error}"),
    }
}

#[tokio::test]
async fn an_actor_is_the_same_after_a_restart() {
    let folder = Folder::new("restart");
    let actor = key("counter", "a\0/ü");
    let mut weight = Weight::default();
    {
        let store = folder.open();
        assert_eq!(store.load(&actor).await.unwrap(), None);
        let mut under_way = Vec::new();
        for version in 1..=50 {
            let change = counts(version);
            under_way.push(commit(
                &store,
                &actor,
                &change,
                Durability::Strict,
                &mut weight,
            ));
        }
        for committed in under_way {
            safe(committed).await;
        }
        let (loaded, weighed) = store.load(&actor).await.unwrap().unwrap();
        assert_eq!((unsigned(loaded), weighed), (counted(50), weight));
        store.close();
    }
    assert_eq!(weight.count, 49, "one was written whole");
    let store = folder.open();
    let (loaded, weighed) = store.load(&actor).await.unwrap().unwrap();
    let expected = Stored {
        epoch: loaded.epoch.clone(),
        earlier: vec![earlier("e", 50)],
        is_begun: true,
        ..counted(50)
    };
    assert_ne!(&*loaded.epoch, "e");
    assert_eq!((unsigned(loaded), weighed), (expected, weight));
    assert_eq!(
        store.list(&all()).await.unwrap(),
        std::slice::from_ref(&actor)
    );
    assert!(store.remove(&actor).await.unwrap());
    assert!(!store.remove(&actor).await.unwrap());
    assert_eq!(store.load(&actor).await.unwrap(), None);
}

#[tokio::test]
async fn changes_that_outgrow_their_actor_are_written_as_one() {
    let folder = Folder::new("heavy");
    let store = folder.open();
    let actor = key("counter", "a");
    let mut weight = Weight::default();
    let mut most = 0;
    for version in 1..=2_500 {
        let change = counts(version);
        safe(commit(
            &store,
            &actor,
            &change,
            Durability::Relaxed,
            &mut weight,
        ))
        .await;
        most = most.max(weight.count);
    }
    assert!((500..=CHANGES).contains(&most), "{most}");
    let (loaded, weighed) = store.load(&actor).await.unwrap().unwrap();
    assert_eq!((unsigned(loaded), weighed), (counted(2_500), weight));
}

#[tokio::test]
async fn each_run_goes_on_in_an_epoch_of_its_own() {
    let folder = Folder::new("runs");
    let actor = key("counter", "a");
    let mut weight = Weight::default();
    {
        let store = folder.open();
        safe(commit(
            &store,
            &actor,
            &counts(1),
            Durability::Strict,
            &mut weight,
        ))
        .await;
        store.close();
    }
    let mut epochs = vec!["e".to_owned()];
    for version in 2..5 {
        let store = folder.open();
        let (loaded, mut weight) = store.load(&actor).await.unwrap().unwrap();
        let (again, _) = store.load(&actor).await.unwrap().unwrap();
        assert_eq!(loaded, again, "as long as nothing is written, too");
        assert!(loaded.is_begun && !epochs.contains(&loaded.epoch.to_string()));
        let known: Vec<_> = loaded.earlier.iter().map(|e| e.epoch.to_string()).collect();
        assert_eq!(known, epochs);
        assert_eq!(loaded.earlier.last().map(|e| e.version), Some(version - 1));
        epochs.push(loaded.epoch.to_string());
        let change = Change {
            begins: Some(Box::new(Begun {
                epoch: loaded.epoch.clone(),
                run: loaded.run.clone(),
            })),
            ..counts(version)
        };
        safe(commit(
            &store,
            &actor,
            &change,
            Durability::Strict,
            &mut weight,
        ))
        .await;
        let (written, _) = store.load(&actor).await.unwrap().unwrap();
        assert_eq!(written.epoch, loaded.epoch);
        assert!(!written.is_begun);
        store.close();
    }
}

#[tokio::test]
async fn what_is_written_takes_the_place_of_what_had_no_durability() {
    let folder = Folder::new("levels");
    let store = folder.open();
    let actor = key("counter", "a");
    let mut weight = Weight::default();
    safe(commit(
        &store,
        &actor,
        &counts(1),
        Durability::Strict,
        &mut weight,
    ))
    .await;
    // Its component has no durability for a while.
    let change = counts(2);
    let committed = commit(&store, &actor, &change, Durability::None, &mut weight);
    assert!(matches!(committed, Committed::Now));
    let retired = store.retire(&actor, counted(2), true, Durability::None);
    retired.await.unwrap();
    safe(commit(
        &store,
        &actor,
        &counts(3),
        Durability::Strict,
        &mut weight,
    ))
    .await;
    let (loaded, _) = store.load(&actor).await.unwrap().unwrap();
    assert_eq!(unsigned(loaded), counted(3));
}

#[tokio::test]
async fn what_need_not_last_is_not_written() {
    let folder = Folder::new("none");
    let actor = key("counter", "a");
    {
        let store = folder.open();
        let mut weight = Weight::default();
        let change = counts(1);
        let committed = commit(&store, &actor, &change, Durability::None, &mut weight);
        assert!(matches!(committed, Committed::Now));
        let retired = store.retire(&actor, counted(1), true, Durability::None);
        retired.await.unwrap();
        let loaded = store.load(&actor).await.unwrap();
        assert_eq!(loaded.map(|(stored, _)| stored), Some(counted(1)));
        assert_eq!(
            store.list(&all()).await.unwrap(),
            std::slice::from_ref(&actor)
        );
        assert_eq!(store.figures().disk.map(|disk| disk.appends), Some(0));
        store.close();
    }
    assert_eq!(folder.open().load(&actor).await.unwrap(), None);
}

#[tokio::test]
async fn actors_are_listed_in_the_order_of_their_keys() {
    let folder = Folder::new("list");
    let store = folder.open();
    let mut actors = Vec::new();
    for (actor, id) in [
        ("a", "2"),
        ("a-b", "1"),
        ("a", "1"),
        ("b", "x"),
        ("a", "10"),
    ] {
        let actor = key(actor, id);
        let retired = store.retire(&actor, counted(1), true, Durability::Strict);
        retired.await.unwrap();
        actors.push(actor);
    }
    actors.sort();
    assert_eq!(store.list(&all()).await.unwrap(), actors);
    let one = Listing {
        name: Some("a".to_owned()),
        prefix: "1".to_owned(),
        limit: 1,
        ..Listing::default()
    };
    assert_eq!(store.list(&one).await.unwrap(), [key("a", "1")]);
    let next = Listing {
        after: Some(key("a", "1")),
        ..one
    };
    assert_eq!(store.list(&next).await.unwrap(), [key("a", "10")]);
}

#[tokio::test]
async fn the_first_timer_of_an_actor_is_known_without_reading_it() {
    let folder = Folder::new("sleeping");
    let (early, late) = (key("clock", "early"), key("clock", "late"));
    {
        let store = folder.open();
        for (actor, due_ms) in [(&early, 100), (&late, 200)] {
            let timer = StoredTimer {
                id: 1,
                timer: Timer {
                    method: Name::parse("tick").unwrap(),
                    input: None,
                    due_ms,
                    every_ms: None,
                    idle: false,
                    outlive: true,
                    steady_ms: None,
                },
            };
            let mut stored = counted(1);
            stored.timers.push(timer);
            let retired = store.retire(actor, stored, true, Durability::Strict);
            retired.await.unwrap();
        }
        store.close();
    }
    let store = folder.open();
    let sleeping = store.sleeping(Shard(0));
    assert_eq!(sleeping, [(early.clone(), 100), (late.clone(), 200)]);
    // It fires, and the actor's next turn is committed.
    let (_, mut weight) = store.load(&early).await.unwrap().unwrap();
    let fired = Change {
        version: 1,
        timers: vec![TimerChange::Cancel(1)],
        ..Change::default()
    };
    safe(commit(
        &store,
        &early,
        &fired,
        Durability::Strict,
        &mut weight,
    ))
    .await;
    assert_eq!(store.sleeping(Shard(0)), [(late, 200)]);
}

fn all() -> Listing<ActorRecords> {
    Listing {
        limit: 100,
        ..Listing::default()
    }
}

#[test]
fn an_actor_leaves_memory_also_where_that_is_used_up() {
    let budget = Budget::new("actors", 1 << 20);
    let store = Memory::<ActorRecords>::new(10).within(budget.clone());
    let actor = ActorKey {
        actor: Name::parse("chat").unwrap(),
        id: ActorId::parse("room-1").unwrap(),
    };
    let retire = |text: String| {
        let stored = json!({"epoch": "e", "version": 1, "state": text, "lastTimer": 0});
        let stored = Stored::parse(&stored.to_string()).expect("an actor");
        let retired = store.retire(&actor, stored, true, Durability::None);
        retired.now_or_never().expect("it does not wait")
    };
    // All that there is, a quarter of it by those who hold little.
    let _much = budget.share(3 << 18).unwrap();
    let _little: Vec<Share> = (0..4).map(|_| budget.share(64 << 10).unwrap()).collect();
    let before = budget.used();
    for text in ["x".repeat(100_000), "y".to_owned()] {
        assert!(retire(text.clone()).is_ok());
        let found = store.load(&actor).now_or_never();
        let (stored, _) = found.unwrap().unwrap().expect("it is kept");
        assert_eq!(stored.state.to_text(), json!(text).to_string());
    }
    assert!(budget.used() - before < 2_000, "the first is given back");
    let removed = store.remove(&actor).now_or_never();
    assert!(removed.unwrap().unwrap(), "it was there");
    assert_eq!(budget.used(), before);
}

//! Data folders that cannot be used, or not as they are: refused with words and left alone,
//! or mended without loss.

use std::collections::BTreeMap;
use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};

use serde_json::{Value, json};
use tidegate_tests::{Actor, Builder, Folder, Host, Refusal, Socket, actor};

/// How many increments need several of the shortest segments.
const MANY: u64 = 80;
/// Beyond what the engine keeps in files of its own in memory.
const FULL_KIB: u64 = 4 << 10;
/// How long the text is that fills the disk.
const TEXT_BYTES: usize = 100_000;

fn on(folder: &Folder) -> Builder {
    Host::builder().component("counter").data(folder.path())
}

fn counter() -> Actor {
    actor("counter", "a")
}

async fn increment(socket: &mut Socket) -> Value {
    let counter = counter();
    let count = socket.call(&counter, "increment", json!({"by": 1})).await;
    count.result()
}

async fn count(host: &Host) -> u64 {
    let state = host.connect().await.subscribe_state(&counter()).await;
    state["state"]["count"].as_u64().expect("a count")
}

/// A folder in which a host was killed that had counted so far.
async fn counted(to: u64, host: impl FnOnce(Builder) -> Builder) -> Folder {
    let folder = Folder::new();
    let host = host(on(&folder)).start().await;
    let mut socket = host.connect().await;
    for _ in 0..to {
        increment(&mut socket).await;
    }
    host.kill().await;
    folder
}

/// The store's segments, in order.
fn segments(folder: &Folder) -> Vec<PathBuf> {
    let store = folder.path().join("store");
    let entries = fs::read_dir(store).expect("a store").flatten();
    let paths = entries.map(|entry| entry.path());
    let mut segments: Vec<PathBuf> = paths
        .filter(|path| path.extension().is_some_and(|end| end == "log"))
        .collect();
    segments.sort();
    segments
}

fn newest(folder: &Folder) -> PathBuf {
    segments(folder).pop().expect("a segment")
}

/// Changes the bytes of a file.
fn edit(path: &Path, change: impl FnOnce(&mut Vec<u8>)) {
    let mut bytes = fs::read(path).expect("a file");
    change(&mut bytes);
    fs::write(path, bytes).expect("writing a file");
}

/// All that is in the store.
fn contents(folder: &Folder) -> BTreeMap<PathBuf, Vec<u8>> {
    let store = folder.path().join("store");
    let entries = fs::read_dir(store).expect("a store").flatten();
    let read = |path: PathBuf| (path.clone(), fs::read(path).expect("a file"));
    entries.map(|entry| read(entry.path())).collect()
}

/// Expects the folder to be refused, and nothing in it to change.
async fn refused(folder: &Folder) -> Refusal {
    let before = contents(folder);
    let refusal = on(folder).refused().await;
    assert!(contents(folder) == before, "nothing has changed");
    refusal
}

#[tokio::test]
async fn one_host_at_a_time_has_a_folder() {
    let folder = Folder::new();
    let first = on(&folder).start().await;
    let mut socket = first.connect().await;
    increment(&mut socket).await;
    // The first may write at any time, so what is there cannot be compared.
    let refusal = on(&folder).refused().await;
    refusal.says(["store", "is in use by another process"]);
    assert_eq!(increment(&mut socket).await, 2, "the first goes on");
    first.kill().await;
    let second = on(&folder).start().await;
    assert_eq!(count(&second).await, 2);
}

#[tokio::test]
async fn a_folder_is_one_hosts_also_when_the_files_of_locks_are_removed() {
    let folder = Folder::new();
    let first = on(&folder).start().await;
    let mut socket = first.connect().await;
    increment(&mut socket).await;
    let mut removed = 0;
    for place in contents_of(folder.path()) {
        let lock = place.join("lock");
        if lock.exists() {
            fs::remove_file(lock).expect("removing a file");
            removed += 1;
        }
    }
    assert!(removed > 0);
    let refusal = on(&folder).refused().await;
    refusal.says(["is in use by another process"]);
    assert_eq!(increment(&mut socket).await, 2, "the first goes on");
}

#[tokio::test]
async fn a_folder_that_cannot_be_written_is_refused() {
    let folder = counted(3, |host| host).await;
    let store = folder.path().join("store");
    let allow = |folder: u32, file: u32| {
        let set = |path: &Path, mode: u32| {
            let mode = fs::Permissions::from_mode(mode);
            fs::set_permissions(path, mode).expect("changing permissions");
        };
        contents_of(&store).iter().for_each(|path| set(path, file));
        set(&store, folder);
    };
    allow(0o555, 0o444);
    let before = contents(&folder);
    let refusal = on(&folder).bound_by_permissions().refused().await;
    refusal.says(["cannot be written", "choose another data folder"]);
    allow(0o755, 0o644);
    assert!(contents(&folder) == before, "nothing has changed");
    assert_eq!(count(&on(&folder).start().await).await, 3);
}

fn contents_of(folder: &Path) -> Vec<PathBuf> {
    let entries = fs::read_dir(folder).expect("a folder").flatten();
    entries.map(|entry| entry.path()).collect()
}

#[tokio::test]
async fn a_file_in_the_place_of_the_folder_is_refused() {
    let folder = Folder::new();
    fs::write(folder.path().join("store"), "a file").expect("writing a file");
    let refusal = on(&folder).refused().await;
    refusal.says(["cannot use", "store"]);
    let kept = fs::read_to_string(folder.path().join("store"));
    assert_eq!(kept.expect("a file"), "a file");
}

#[tokio::test]
async fn a_folder_of_something_else_is_refused() {
    let folder = Folder::new();
    let store = folder.path().join("store");
    fs::create_dir(&store).expect("making a folder");
    fs::write(store.join("accounts.txt"), "not ours").expect("writing a file");
    let refusal = on(&folder).refused().await;
    refusal.says(["accounts.txt", "is not part of a journal"]);
    let kept = fs::read_to_string(store.join("accounts.txt"));
    assert_eq!(kept.expect("a file"), "not ours");
}

#[tokio::test]
async fn a_newer_format_is_refused() {
    let folder = counted(3, |host| host).await;
    edit(&newest(&folder), |bytes| {
        bytes[8..12].copy_from_slice(&9_u32.to_le_bytes());
        let length = u32::from_le_bytes(bytes[12..16].try_into().expect("4 bytes")) as usize;
        let checksum = crc32fast::hash(&bytes[..length - 4]);
        bytes[length - 4..length].copy_from_slice(&checksum.to_le_bytes());
    });
    refused(&folder)
        .await
        .says(["has format 9", "run the version that wrote it"]);
}

#[tokio::test]
async fn damage_in_the_middle_is_refused() {
    let folder = counted(20, |host| host).await;
    // Each record says that those before it were safe.
    edit(&newest(&folder), |bytes| {
        let middle = bytes.len() / 2;
        bytes[middle] ^= 1;
    });
    refused(&folder)
        .await
        .says(["is damaged or cut at byte", "restore a back-up"]);
}

#[tokio::test]
async fn a_cut_of_what_was_acknowledged_is_refused_unless_the_loss_is_accepted() {
    for orderly in [true, false] {
        let folder = Folder::new();
        let mut host = on(&folder).start().await;
        let mut socket = host.connect().await;
        for _ in 0..MANY {
            increment(&mut socket).await;
        }
        socket.close().await;
        match orderly {
            true => {
                host.terminate().await;
                host.ended().await;
            }
            false => host.kill().await,
        }
        edit(&newest(&folder), |bytes| {
            bytes.truncate(bytes.len() - 1_500)
        });
        let refusal = refused(&folder).await;
        refusal.says(["acknowledged changes are gone", "store.accept-loss"]);
        let host = on(&folder).argument("--accept-loss").start().await;
        host.logged("is given up").await;
        let left = count(&host).await;
        assert!((1..MANY).contains(&left), "{left}");
        host.kill().await;
        assert_eq!(count(&on(&folder).start().await).await, left);
    }
}

#[tokio::test]
async fn how_the_last_host_ended_is_said() {
    let folder = counted(3, |host| host).await;
    let mut host = on(&folder).start().await;
    host.logged("the journal was not closed").await;
    host.terminate().await;
    host.ended().await;
    let host = on(&folder).start().await;
    host.logged("opened the store").await;
    assert!(!host.log().contains("was not closed"), "{}", host.log());
    host.kill().await;
    // As older versions leave it.
    fs::remove_file(folder.path().join("store/watermark")).expect("removing a file");
    let host = on(&folder).start().await;
    host.logged("nothing tells up to where the journal was synced")
        .await;
    assert_eq!(count(&host).await, 3);
}

#[tokio::test]
async fn a_file_cut_in_the_middle_is_not_taken_for_whole() {
    let folder = counted(MANY, short_segments).await;
    // Of one that has a successor everything was safe.
    let sealed = segments(&folder)[0].clone();
    let _ = fs::remove_file(sealed.with_extension("hint"));
    edit(&sealed, |bytes| bytes.truncate(bytes.len() / 2));
    refused(&folder).await.says(["is damaged at byte"]);
}

fn short_segments(host: Builder) -> Builder {
    host.set("store.segment-bytes=4096")
}

#[tokio::test]
async fn a_missing_file_is_refused() {
    let folder = counted(MANY, short_segments).await;
    let all = segments(&folder);
    assert!(all.len() > 2, "{all:?}");
    for missing in all {
        let kept = fs::read(&missing).expect("a file");
        fs::remove_file(&missing).expect("removing a file");
        let name = missing.file_name().expect("a name").to_string_lossy();
        refused(&folder).await.says([&name, "is missing"]);
        fs::write(&missing, kept).expect("writing a file");
    }
    assert_eq!(
        count(&short_segments(on(&folder)).start().await).await,
        MANY
    );
}

#[tokio::test]
async fn a_file_of_another_store_is_refused() {
    let folder = counted(MANY, short_segments).await;
    let other = counted(MANY, short_segments).await;
    fs::copy(&segments(&other)[0], &segments(&folder)[0]).expect("copying a file");
    refused(&folder).await.says(["belongs to another journal"]);
}

#[tokio::test]
async fn a_torn_tail_is_cut_off() {
    // What a write leaves that was under way: the beginning of a record, noise, nothing.
    let whole_record: fn(&[u8]) -> Vec<u8> = |bytes| bytes[44..84].to_vec();
    let noise: fn(&[u8]) -> Vec<u8> = |_| (0..999_u32).map(|byte| (byte * 37) as u8).collect();
    let zeros: fn(&[u8]) -> Vec<u8> = |_| vec![0; 4_096];
    for tail in [whole_record, noise, zeros] {
        let folder = counted(5, |host| host).await;
        let mut torn = 0;
        edit(&newest(&folder), |bytes| {
            let tail = tail(bytes);
            torn = tail.len();
            bytes.extend(tail);
        });
        let host = on(&folder).start().await;
        host.logged(&format!("cut_bytes={torn}")).await;
        let mut socket = host.connect().await;
        assert_eq!(increment(&mut socket).await, 6, "everything is there");
        host.kill().await;
        assert_eq!(count(&on(&folder).start().await).await, 6);
    }
}

#[tokio::test]
async fn a_copy_of_a_closed_folder_is_as_good() {
    let folder = Folder::new();
    let mut host = on(&folder).start().await;
    let mut socket = host.connect().await;
    for _ in 0..5 {
        increment(&mut socket).await;
    }
    socket.close().await;
    host.terminate().await;
    host.ended().await;
    let copy = Folder::new();
    let store = copy.path().join("store");
    fs::create_dir(&store).expect("making a folder");
    for file in contents_of(&folder.path().join("store")) {
        let name = file.file_name().expect("a name");
        fs::copy(&file, store.join(name)).expect("copying a file");
    }
    assert_eq!(count(&on(&copy).start().await).await, 5);
}

#[tokio::test]
async fn damage_to_one_actor_is_found_when_it_is_loaded_and_spares_the_others() {
    let folder = Folder::new();
    let host = short_segments(on(&folder)).start().await;
    let mut socket = host.connect().await;
    let named = |number: u64| actor("counter", &format!("number {number}"));
    for number in 0..MANY {
        let by = json!({"by": number});
        let count = socket.call(&named(number), "increment", by).await;
        assert_eq!(count.result(), number);
    }
    socket.close().await;
    host.kill().await;
    let sealed = segments(&folder)[0].clone();
    edit(&sealed, |bytes| {
        let key = b"counter\0number 3";
        let place = bytes.windows(key.len()).position(|window| window == key);
        bytes[place.expect("an actor") + key.len() + 5] ^= 1;
    });
    let host = short_segments(on(&folder)).start().await;
    let mut socket = host.connect().await;
    for number in 0..MANY {
        let count = socket
            .call(&named(number), "increment", json!({"by": 1}))
            .await;
        match number {
            3 => assert_eq!(count.code(), "store.unavailable"),
            _ => assert_eq!(count.result(), number + 1),
        }
    }
    let line = host.logged("number 3").await;
    assert!(line.contains("damaged"), "{line}");
}

/// A host on a disk that will soon be full, and an actor that writes much.
fn on_small_disk(folder: &Folder) -> Builder {
    on(folder).component("lab").largest_file(FULL_KIB)
}

async fn lab_count(host: &Host) -> u64 {
    let state = host
        .connect()
        .await
        .subscribe_state(&actor("lab", "1"))
        .await;
    state["state"]["n"].as_u64().expect("a count")
}

#[tokio::test]
async fn a_full_disk_loses_nothing_that_was_acknowledged() {
    let folder = Folder::new();
    let host = on_small_disk(&folder).start().await;
    let lab = actor("lab", "1");
    let (mut socket, mut watcher) = (host.connect().await, host.connect().await);
    watcher.subscribe_state(&lab).await;
    increment(&mut socket).await;
    let mut acknowledged = 0;
    let fill = || json!({"bytes": TEXT_BYTES});
    let failed = loop {
        let reply = socket.call(&lab, "fill", fill()).await;
        match reply.frame["result"].as_u64() {
            Some(count) => acknowledged = count,
            None => break reply,
        }
    };
    assert_eq!(failed.code(), "store.unavailable");
    assert!(acknowledged > 10, "only {acknowledged} fit");
    // Who asks now is not shown what failed, whether or not there is an answer.
    let read = host.get("/actors/lab/1/state").send().await;
    if read.status == 200 {
        assert_eq!(read.json()["state"]["n"], acknowledged);
    }
    let mut late = host.connect().await;
    if late.try_subscribe_state(&lab).await
        && let Ok(frame) = late.try_next().await
        && frame["type"] == "state:snapshot"
    {
        assert_eq!(frame["state"]["n"], acknowledged);
    }
    // What the subscriber was shown; it is sent away then.
    let mut shown = 0;
    while let Ok(frame) = watcher.try_next().await {
        let patches = frame["patches"].as_array().into_iter().flatten();
        let mut counts = patches.filter(|patch| patch["path"] == "/n");
        shown = counts
            .next()
            .map_or(shown, |patch| patch["value"].as_u64().unwrap());
    }
    assert_eq!(shown, acknowledged);
    // Nor does any later call succeed, at any door, nor wait for ever.
    let mut other = host.connect().await;
    for id in ["1", "2"] {
        let refused = other.call(&actor("lab", id), "fill", fill()).await;
        assert_eq!(refused.code(), "store.unavailable");
        let path = format!("/actors/lab/{id}/fill");
        let refused = host.post(&path).json(&fill()).send().await;
        refused.failed(503, "store.unavailable");
    }
    let refused = other.call(&counter(), "increment", json!({"by": 1})).await;
    assert_eq!(refused.code(), "store.unavailable");
    let log = host.log();
    assert!(log.contains("ERROR"), "it is loud: {log}");
    let ready = host.get("/ready").send().await;
    ready.failed(503, "store.unavailable");
    // Strangers are told what they can act on, operators what has happened.
    let place = folder.path().to_str().expect("a path");
    let by_post = host.post("/actors/lab/3/fill").json(&fill()).send().await;
    let told = [
        failed.frame.to_string(),
        refused.frame.to_string(),
        String::from_utf8_lossy(&ready.body).into_owned(),
        String::from_utf8_lossy(&by_post.body).into_owned(),
    ];
    for told in told {
        for inside in [place, "store/", "os error", ".seg", "journal"] {
            assert!(!told.contains(inside), "`{inside}` in {told}");
        }
    }
    let ready = host.admin(http::Method::GET, "/ready").send().await;
    let detail = ready.failed(503, "store.unavailable")["detail"].to_string();
    assert!(detail.contains(place), "{detail}");
    assert!(host.log().contains(place));
    let page = host.admin(http::Method::GET, "/metrics").send().await;
    let page = String::from_utf8_lossy(&page.body).into_owned();
    assert!(page.contains("\ntidegate_store_up 0\n"), "{page}");
    host.kill().await;
    let host = on(&folder).component("lab").start().await;
    let there = lab_count(&host).await;
    assert!(
        (acknowledged..=acknowledged + 1).contains(&there),
        "{there} of {acknowledged}, and the one under way"
    );
    assert_eq!(count(&host).await, 1);
    let mut socket = host.connect().await;
    let next = socket.call(&lab, "fill", fill()).await;
    assert_eq!(next.result(), there + 1, "it goes on");
}

#[tokio::test]
async fn a_subscriber_learns_of_a_full_disk_although_nobody_calls_any_more() {
    let folder = Folder::new();
    let host = on_small_disk(&folder).start().await;
    let lab = actor("lab", "1");
    let (mut socket, mut watcher) = (host.connect().await, host.connect().await);
    watcher.subscribe_state(&lab).await;
    loop {
        let fill = json!({"bytes": TEXT_BYTES});
        let reply = socket.call(&lab, "fill", fill).await;
        if reply.frame.get("error").is_some() {
            assert_eq!(reply.code(), "store.unavailable");
            break;
        }
    }
    watcher.closed().await;
}

#[tokio::test]
async fn a_disk_that_is_still_full_loses_nothing_either() {
    let folder = Folder::new();
    let lab = actor("lab", "1");
    let mut acknowledged = 0;
    // What did not fit is cut off, which makes room for less.
    for bytes in [TEXT_BYTES, TEXT_BYTES / 10, TEXT_BYTES / 100] {
        let host = on_small_disk(&folder).start().await;
        let there = lab_count(&host).await;
        assert!(there >= acknowledged, "{there} of {acknowledged}");
        let mut socket = host.connect().await;
        let failed = loop {
            let fill = json!({"bytes": bytes});
            let reply = socket.call(&lab, "fill", fill).await;
            match reply.frame["result"].as_u64() {
                Some(count) => acknowledged = count,
                None => break reply,
            }
        };
        assert_eq!(failed.code(), "store.unavailable");
        host.kill().await;
    }
    let host = on(&folder).component("lab").start().await;
    let there = lab_count(&host).await;
    assert!(there >= acknowledged, "{there} of {acknowledged}");
}

#[tokio::test]
async fn calls_that_run_ahead_of_a_full_disk_all_fail() {
    const CALLS: u64 = 100;
    let folder = Folder::new();
    let host = on_small_disk(&folder).start().await;
    let lab = actor("lab", "1");
    let mut socket = host.connect().await;
    for _ in 0..CALLS {
        let fill = json!({"bytes": TEXT_BYTES});
        socket.begin_call(&lab, "fill", fill).await;
    }
    let (mut acknowledged, mut failed) = (0, 0);
    while acknowledged + failed < CALLS {
        let result = socket.expect_type("rpc:result").await;
        match result["result"].as_u64() {
            Some(count) => {
                assert_eq!((count, failed), (acknowledged + 1, 0), "{result}");
                acknowledged = count;
            }
            None => {
                assert_eq!(result["failure"]["code"], "store.unavailable");
                failed += 1;
            }
        }
    }
    assert!(acknowledged > 0 && failed > 0, "{acknowledged}, {failed}");
    host.kill().await;
    let host = on(&folder).component("lab").start().await;
    let there = lab_count(&host).await;
    assert!(there >= acknowledged, "{there} of {acknowledged}");
    assert!(there <= CALLS, "{there} were never asked for");
}

#[tokio::test]
async fn a_start_that_fails_leaves_no_folder_behind() {
    let folder = Folder::new();
    let data = folder.path().join("data");
    let rubbish = folder.path().join("rubbish.wasm");
    fs::write(&rubbish, "dear diary").expect("writing a file");
    let host = || Host::builder().data(&data);
    let refused = host().file("rubbish", &rubbish).refused().await;
    refused.says(["not a WebAssembly file"]);
    assert!(!data.exists(), "what the start has made is gone");

    // One that is there is left as it is.
    fs::create_dir(&data).expect("making a folder");
    fs::write(data.join("notes.txt"), "mine").expect("writing a file");
    let refused = host().file("rubbish", &rubbish).refused().await;
    refused.says(["not a WebAssembly file"]);
    assert!(data.join("notes.txt").exists() && data.join("store").exists());
}

#[tokio::test]
async fn a_cause_is_said_once() {
    let refused = Host::builder()
        .component("counter")
        .set("auth.algorithms=[\"ES256\"]")
        .set("auth.jwks-file=/nowhere/keys.json")
        .refused()
        .await;
    refused.says(["auth.jwks-file: cannot read /nowhere/keys.json"]);
    let count = refused.text().matches("(os error 2)").count();
    assert_eq!(count, 1, "{}", refused.text());
}

//! Compiled components on disk: kept for the next start, checked before they are trusted,
//! and only where nobody else can write.

use std::fs::{self, Permissions};
use std::os::unix::fs::{MetadataExt, PermissionsExt};
use std::path::{Path, PathBuf};
use std::time::SystemTime;

use http::Method;
use tidegate_tests::{Folder, Host, actor, guest};

/// One file in the cache; writing it anew changes all but its name.
#[derive(Debug, PartialEq, Eq)]
struct Kept {
    path: PathBuf,
    inode: u64,
    modified: SystemTime,
}

fn kept(folder: &Path) -> Vec<Kept> {
    let entries = fs::read_dir(folder).expect("reading the cache");
    let mut files: Vec<Kept> = entries
        .map(|entry| {
            let entry = entry.expect("reading the cache");
            let data = entry.metadata().expect("looking at a file");
            Kept {
                path: entry.path(),
                inode: data.ino(),
                modified: data.modified().expect("a time of change"),
            }
        })
        .collect();
    files.sort_by(|a, b| a.path.cmp(&b.path));
    files
}

/// Starts a host that keeps compiled components here, calls it, stops it, and returns what
/// it has logged.
async fn serve(cache: &Path) -> String {
    let folder = Folder::new();
    let component = folder.path().join("small.wasm");
    fs::write(&component, guest::component("", "")).expect("writing a component");
    let mut host = Host::builder()
        .file("small", &component)
        .set(&format!("engine.cache-dir={}", cache.display()))
        .start()
        .await;
    let mut socket = host.connect().await;
    let reply = socket.call(&actor("small", "1"), "run", None).await;
    assert_eq!(reply.frame.get("error"), None);
    socket.close().await;
    host.terminate().await;
    host.ended().await;
    host.log()
}

#[tokio::test]
async fn a_component_is_compiled_once() {
    let folder = Folder::new();
    let cache = folder.path().join("made/by/the/host");
    serve(&cache).await;
    let first = kept(&cache);
    assert_eq!(first.len(), 1, "{first:?}");
    let mode = fs::metadata(&cache).expect("the cache is there").mode();
    assert_eq!(mode & 0o777, 0o700, "others may look into the cache");
    // Compiling again would have written the file again.
    serve(&cache).await;
    assert_eq!(kept(&cache), first);
}

#[tokio::test]
async fn a_damaged_file_is_noticed_and_replaced() {
    let folder = Folder::new();
    let cache = folder.path().join("cache");
    serve(&cache).await;
    let [Kept { path, .. }] = &kept(&cache)[..] else {
        panic!("expected one file, found {:?}", kept(&cache));
    };
    let sound = fs::read(path).expect("reading the file");
    let flipped = |place: usize| {
        let mut bytes = sound.clone();
        bytes[place] ^= 1;
        bytes
    };
    let damaged = [
        flipped(0),
        flipped(sound.len() / 2),
        flipped(sound.len() - 1),
        sound[..sound.len() / 2].to_vec(),
        [&sound[..], b"more"].concat(),
    ];
    for bytes in damaged {
        fs::write(path, bytes).expect("damaging the file");
        let log = serve(&cache).await;
        assert!(log.contains("damaged"), "{log}");
        let log = serve(&cache).await;
        assert!(!log.contains("damaged"), "{log}");
    }
}

#[tokio::test]
async fn a_file_without_content_harms_nobody() {
    let folder = Folder::new();
    let cache = folder.path().join("cache");
    serve(&cache).await;
    let files = kept(&cache);
    for bytes in [&b""[..], b"short"] {
        fs::write(&files[0].path, bytes).expect("damaging the file");
        serve(&cache).await;
        assert!(fs::metadata(&files[0].path).is_ok_and(|data| data.len() > 100));
    }
}

#[tokio::test]
async fn a_folder_that_others_can_write_to_is_not_used() {
    for mode in [0o777, 0o770, 0o702] {
        let folder = Folder::new();
        let cache = folder.path().join("cache");
        fs::create_dir(&cache).expect("making a folder");
        fs::set_permissions(&cache, Permissions::from_mode(mode)).expect("opening the folder");
        let log = serve(&cache).await;
        assert!(log.contains("compiled components are not kept"), "{log}");
        assert_eq!(kept(&cache), [], "mode {mode:o}");
    }
}

#[tokio::test]
async fn an_empty_path_keeps_nothing() {
    let log = serve(Path::new("")).await;
    assert!(!log.contains("WARN"), "{log}");
}

/// A component that no other is equal to.
fn unlike_others(number: usize) -> Vec<u8> {
    let method = format!("m{number}");
    let manifest = format!(
        r#"{{"tidegate": "0.1", "actors": {{"small": {{"methods": {{"run": {{}}, "{method}": {{}}}}}}}}}}"#
    );
    guest::component_saying(&manifest, "", "")
}

fn names(folder: &Path) -> Vec<PathBuf> {
    kept(folder).into_iter().map(|kept| kept.path).collect()
}

#[tokio::test]
async fn what_was_not_loaded_for_long_goes_and_what_is_loaded_stays() {
    let folder = Folder::new();
    let cache = folder.path().join("cache");
    let component = folder.path().join("small.wasm");
    fs::write(&component, unlike_others(0)).expect("writing a component");
    let host = async |bytes: u64| {
        Host::builder()
            .file("small", &component)
            .set(&format!("engine.cache-dir={}", cache.display()))
            .set(&format!("engine.cache-max-bytes={bytes}"))
            .start()
            .await
    };
    let deploy = async |host: &Host, number: usize| {
        let request = host.admin(Method::PUT, "/components/small");
        let deployed = request.body(unlike_others(number)).send().await;
        assert_eq!(deployed.status, 200, "{deployed:?}");
    };
    let generous = host(u64::MAX >> 1).await;
    let [first] = &names(&cache)[..] else {
        panic!("expected one file, found {:?}", names(&cache));
    };
    let one = fs::metadata(first).expect("looking at a file").len();
    for number in 1..=3 {
        deploy(&generous, number).await;
    }
    assert_eq!(kept(&cache).len(), 4);
    generous.kill().await;

    // Used again, so no longer the oldest; the others stay in the order of their making.
    let all = names(&cache);
    let room = host(one * 5 / 2).await;
    let left = names(&cache);
    assert_eq!(left.len(), 2, "{left:?}");
    assert!(left.contains(first), "the host has loaded it");
    assert!(left.iter().all(|path| all.contains(path)));
    // What serves stays, however little room there is.
    deploy(&room, 4).await;
    let after = names(&cache);
    assert_eq!(after.len(), 2, "{after:?}");
    let made = after.iter().find(|path| !all.contains(path));
    let made = made.expect("the new one is kept").clone();
    room.kill().await;

    fs::write(&component, unlike_others(4)).expect("writing a component");
    let none = host(1).await;
    assert_eq!(names(&cache), std::slice::from_ref(&made));
    let mut socket = none.connect().await;
    let reply = socket.call(&actor("small", "1"), "m4", None).await;
    assert_eq!(reply.frame.get("error"), None);
}

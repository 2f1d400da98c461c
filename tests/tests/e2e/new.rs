//! `tidegate new`: what it makes can be built and served, as it is.

use std::path::Path;

use serde_json::json;
use tidegate_tests::cli::tidegate;
use tidegate_tests::spin::Spin;
use tidegate_tests::{Folder, Host, project};
use tokio::process::Command;

fn sdk() -> String {
    let folder = project().join("sdk/rust");
    let folder = folder.canonicalize().expect("the SDK");
    folder.to_string_lossy().into_owned()
}

/// Makes a handler and builds it, in a target folder that later runs find again.
async fn built(name: &str, within: &Path) {
    let command = tidegate([
        "new",
        name,
        "--template",
        "actor",
        "--sdk",
        &sdk(),
        "--within",
    ]);
    let said = command.arg(within).run().await.printed();
    assert!(
        said.contains("tidegate up") && said.contains("spin build --up"),
        "{said}"
    );
    let folder = within.join(name);
    let root = project();
    // The versions that this project is built with, which are there.
    std::fs::copy(root.join("Cargo.lock"), folder.join("Cargo.lock")).expect("copying a file");
    let test = std::env::current_exe().expect("the path of this program");
    let target = test.parent().and_then(Path::parent).expect("a folder");
    let mut cargo = Command::new(std::env::var_os("CARGO").unwrap_or_else(|| "cargo".into()));
    let status = cargo
        .args([
            "build",
            "--target",
            "wasm32-wasip2",
            "--release",
            "--target-dir",
        ])
        .arg(target.join("new-for-tests"))
        .current_dir(&folder)
        .status()
        .await;
    assert!(status.expect("starting cargo").success());
    let file = format!("wasm32-wasip2/release/{}.wasm", name.replace('-', "_"));
    let wanted = folder.join("target").join(&file);
    std::fs::create_dir_all(wanted.parent().expect("a folder")).expect("making a folder");
    std::fs::copy(target.join("new-for-tests").join(&file), wanted).expect("copying a file");
}

#[tokio::test]
async fn a_new_handler_builds_and_is_served_by_the_host_and_by_spin() {
    let folder = Folder::new();
    built("tea-room", folder.path()).await;
    let folder = folder.path().join("tea-room");
    let greet = |request: tidegate_tests::Request| request.json(&json!({"name": "Ann"})).send();
    let path = "/actors/tea-room/a/greet";

    let host = Host::builder()
        .application(&folder.join("spin.toml"))
        .start()
        .await;
    let greeting = greet(host.post(path)).await.json();
    assert_eq!(greeting, "Hello Ann, you are number 1.");

    let handler = folder.join("target/wasm32-wasip2/release/tea_room.wasm");
    for (what, name) in [
        (handler.to_string_lossy().as_ref(), "tea-room"),
        ("--events", "events"),
    ] {
        let output = folder.join("target/spin").join(name).with_extension("wasm");
        let command = tidegate(["compose", what, "--output"]).arg(output);
        command.run().await.printed();
    }
    let spin = Spin::builder().in_folder(&folder).start().await;
    let greeting = greet(spin.post(path)).await.json();
    assert_eq!(greeting, "Hello Ann, you are number 1.");
    let refused = spin.post(path).json(&json!({"name": ""})).send().await;
    refused.failed(400, "tea-room.no-name");
    let mut stream = spin.get("/actors/tea-room/a/state").stream().await;
    let snapshot = stream.expect("snapshot").await.data;
    assert_eq!(snapshot["state"], json!({"greeted": 1}));
}

#[tokio::test]
async fn nothing_is_written_over() {
    let command = tidegate(["new", "hello"]).file("hello/notes.txt", "mine");
    let (outcome, folder) = command.run_in_folder().await;
    outcome.failed(["hello", "not empty"]);
    let files = std::fs::read_dir(folder.path().join("hello")).expect("the folder");
    assert_eq!(files.count(), 1);
}

#[tokio::test]
async fn a_folder_that_is_not_there_is_not_made() {
    let command = tidegate(["new", "hello", "--within", "mistyped/folder"]);
    let (outcome, folder) = command.run_in_folder().await;
    outcome.failed(["--within", "mistyped/folder", "is there"]);
    let files = std::fs::read_dir(folder.path()).expect("the folder");
    assert_eq!(files.count(), 0);
}

#[tokio::test]
async fn a_name_must_be_one_for_everybody() {
    for name in ["Hello", "tea_room", "../hello", ""] {
        let outcome = tidegate(["new", name]).run().await;
        assert_eq!(outcome.code, Some(2), "{outcome:?}");
        assert!(outcome.err.contains("lower-case words"), "{}", outcome.err);
    }
}

#[tokio::test]
async fn the_keys_of_the_application_are_random_and_stay_out_of_the_repository() {
    let mut keys = Vec::new();
    for _ in 0..2 {
        let (outcome, folder) = tidegate(["new", "hello"]).run_in_folder().await;
        outcome.printed();
        let read = |name: &str| {
            let file = folder.path().join("hello").join(name);
            std::fs::read_to_string(file).expect("a file")
        };
        assert!(read(".gitignore").lines().any(|line| line == ".env"));
        assert!(read("Cargo.toml").contains("tidegate-sdk = \"0.1"));
        keys.push(read(".env"));
    }
    assert_ne!(keys[0], keys[1]);
}

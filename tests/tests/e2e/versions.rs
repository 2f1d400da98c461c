//! Components that outlast the host: kept versions, going back, and what is damaged.

use std::fs;
use std::path::PathBuf;

use http::Method;
use serde_json::{Value, json};
use tidegate_tests::cli::{Cli, tidegate};
use tidegate_tests::{ADMIN_KEY, Builder, Folder, Host, Response, actor, guest};

/// A component that says which one it is: its actor type is `small`, and has this method too.
fn version(method: &str) -> Vec<u8> {
    let manifest = format!(
        r#"{{"tidegate": "0.1", "actors": {{"small": {{"methods": {{"run": {{}}, "{method}": {{}}}}}}}}}}"#
    );
    guest::component_saying(&manifest, "", "")
}

/// A data folder, and an application manifest beside it that names `small.wasm`.
struct Place {
    folder: Folder,
}

impl Place {
    fn new() -> Place {
        let place = Place {
            folder: Folder::new(),
        };
        fs::write(place.file(), version("first")).expect("writing a component");
        place
    }

    /// The file that the application manifest names.
    fn file(&self) -> PathBuf {
        self.folder.path().join("small.wasm")
    }

    fn components(&self) -> PathBuf {
        self.folder.path().join("data/components")
    }

    /// The files of kept components.
    fn kept(&self) -> Vec<PathBuf> {
        let entries = fs::read_dir(self.components()).expect("reading the folder");
        let paths = entries.map(|entry| entry.expect("reading the folder").path());
        paths
            .filter(|path| path.extension().is_some_and(|ending| ending == "wasm"))
            .collect()
    }

    fn kept_as(&self, bytes: &[u8]) -> PathBuf {
        let mut kept = self.kept().into_iter();
        let found = kept.find(|path| fs::read(path).is_ok_and(|found| found == bytes));
        found.expect("the component is kept")
    }

    /// A host that names nothing but uses the folder.
    fn bare(&self) -> Builder {
        let data = self.folder.path().join("data");
        Host::builder()
            .argument("--data")
            .argument(data.to_str().expect("a path in UTF-8"))
    }

    fn host(&self) -> Builder {
        self.bare().file("small", &self.file())
    }
}

async fn put(host: &Host, name: &str, bytes: Vec<u8>) -> Response {
    let request = host.admin(Method::PUT, &format!("/components/{name}"));
    request.body(bytes).send().await
}

async fn deploy(host: &Host, name: &str, bytes: Vec<u8>) -> Value {
    let deployed = put(host, name, bytes).await;
    assert_eq!(deployed.status, 200, "{deployed:?}");
    deployed.json()
}

async fn back(host: &Host, name: &str, body: Value) -> Response {
    let path = format!("/components/{name}/rollback");
    host.admin(Method::POST, &path).json(&body).send().await
}

/// The method that tells the component that serves from others.
async fn serving(host: &Host, name: &str) -> String {
    let path = format!("/components/{name}");
    let found = host.admin(Method::GET, &path).send().await.json();
    let methods = found["manifest"]["actors"]["small"]["methods"].as_object();
    let mut methods = methods.unwrap_or_else(|| panic!("{found}")).keys();
    let method = methods.find(|method| *method != "run");
    method.expect("a method of its own").clone()
}

async fn versions(host: &Host, name: &str) -> Value {
    let path = format!("/components/{name}/versions");
    host.admin(Method::GET, &path).send().await.json()
}

fn numbers(versions: &Value) -> Vec<u64> {
    let versions = versions["versions"].as_array().expect("a list");
    let number = |version: &Value| version["version"].as_u64().expect("a number");
    versions.iter().map(number).collect()
}

#[tokio::test]
async fn what_was_deployed_serves_after_a_kill_and_what_was_gone_back_to_as_well() {
    let place = Place::new();
    let host = place.host().start().await;
    assert_eq!(serving(&host, "small").await, "first");
    let deployed = deploy(&host, "small", version("second")).await;
    assert_eq!(
        (&deployed["version"], &deployed["changed"]),
        (&json!(2), &json!(true))
    );
    host.kill().await;

    let host = place.host().start().await;
    assert_eq!(serving(&host, "small").await, "second");
    let line = host.logged("loaded").await;
    assert!(
        line.contains("a deployment") && line.contains("has not changed"),
        "{line}"
    );
    let mut socket = host.connect().await;
    let reply = socket.call(&actor("small", "1"), "second", None).await;
    assert_eq!(reply.frame.get("error"), None);
    let gone = back(&host, "small", json!({})).await;
    assert_eq!(gone.status, 200, "{gone:?}");
    assert_eq!(gone.json()["version"], 1);
    assert_eq!(gone.json()["replaced"], deployed["digest"]);
    assert_eq!(serving(&host, "small").await, "first");
    let found = versions(&host, "small").await;
    assert_eq!(found["serving"], 1);
    assert_eq!(found["versions"][0]["source"], "manifest");
    assert_eq!(found["versions"][1]["source"], "upload");
    assert_eq!(found["versions"][1]["withdrawn"], true);
    host.kill().await;

    let host = place.host().start().await;
    assert_eq!(serving(&host, "small").await, "first");
    let again = back(&host, "small", json!({"version": 2})).await;
    assert_eq!(again.status, 200, "{again:?}");
    host.kill().await;
    let host = place.host().start().await;
    assert_eq!(serving(&host, "small").await, "second");
}

#[tokio::test]
async fn the_manifests_file_serves_again_once_it_changes() {
    let place = Place::new();
    let host = place.host().start().await;
    deploy(&host, "small", version("second")).await;
    // It lies there when the operator goes back, so it is left on purpose.
    fs::write(place.file(), version("second")).expect("writing a component");
    assert_eq!(back(&host, "small", json!({})).await.status, 200);
    host.kill().await;
    let host = place.host().start().await;
    assert_eq!(serving(&host, "small").await, "first");
    host.kill().await;
    fs::write(place.file(), version("third")).expect("writing a component");
    let host = place.host().start().await;
    assert_eq!(serving(&host, "small").await, "third");
    let line = host.logged("loaded").await;
    assert!(line.contains("its file has changed"), "{line}");
    let found = versions(&host, "small").await;
    assert_eq!(
        (numbers(&found), &found["serving"]),
        (vec![1, 2, 3], &json!(3))
    );
}

#[tokio::test]
async fn a_component_that_no_manifest_names_stays_until_it_is_removed() {
    let place = Place::new();
    let host = place.bare().component("counter").start().await;
    deploy(&host, "small", version("second")).await;
    host.kill().await;
    let host = place.bare().component("counter").start().await;
    assert_eq!(serving(&host, "small").await, "second");
    let removed = host.admin(Method::DELETE, "/components/small").send().await;
    assert_eq!(removed.status, 200, "{removed:?}");
    let path = "/components/small/versions";
    let unknown = host.admin(Method::GET, path).send().await;
    unknown.failed(404, "component.unknown");
    back(&host, "small", json!({}))
        .await
        .failed(404, "component.unknown");
    assert_eq!(place.kept().len(), 1, "only that of the counter");
    host.kill().await;
    let host = place.bare().component("counter").start().await;
    let gone = host.admin(Method::GET, "/components/small").send().await;
    gone.failed(404, "component.unknown");
}

#[tokio::test]
async fn going_back_to_what_is_not_there_is_refused() {
    let place = Place::new();
    let host = place.host().start().await;
    back(&host, "small", json!({"version": 7}))
        .await
        .failed(404, "component.version-unknown");
    back(&host, "small", json!({}))
        .await
        .failed(404, "component.version-unknown");
    back(&host, "nothing", json!({}))
        .await
        .failed(404, "component.unknown");
    for wrong in [
        json!({"version": "1"}),
        json!({"to": 1}),
        json!({"version": -1}),
    ] {
        back(&host, "small", wrong)
            .await
            .failed(400, "request.malformed");
    }
    let same = back(&host, "small", json!({"version": 1})).await.json();
    assert_eq!(same["changed"], false);
    assert_eq!(serving(&host, "small").await, "first");
}

#[tokio::test]
async fn a_damaged_file_does_not_keep_the_host_from_starting() {
    let place = Place::new();
    let host = place.host().start().await;
    deploy(&host, "small", version("second")).await;
    deploy(&host, "other", {
        let manifest = r#"{"tidegate": "0.1", "actors": {"other": {"methods": {"run": {}}}}}"#;
        guest::component_saying(manifest, "", "")
    })
    .await;
    host.kill().await;
    let damaged = place.kept_as(&version("second"));
    let mut bytes = version("second");
    let middle = bytes.len() / 2;
    bytes[middle] ^= 1;
    fs::write(&damaged, bytes).expect("damaging the file");

    let host = place.host().start().await;
    assert_eq!(serving(&host, "small").await, "first");
    let line = host.logged("a deployed component is not served").await;
    let file = damaged.display().to_string();
    assert!(line.contains(&file) && line.contains("damaged"), "{line}");
    let other = host.admin(Method::GET, "/components/other").send().await;
    assert_eq!(other.status, 200, "what is sound serves");
    let refused = back(&host, "small", json!({"version": 2})).await;
    let error = refused.failed(500, "component.damaged");
    assert!(
        error["message"].as_str().unwrap().contains(&file),
        "{error}"
    );
    assert_eq!(serving(&host, "small").await, "first");
    // Deploying it again mends it.
    deploy(&host, "small", version("second")).await;
    host.kill().await;
    let host = place.host().start().await;
    assert_eq!(serving(&host, "small").await, "second");
}

#[tokio::test]
async fn a_damaged_index_is_refused_and_nothing_is_lost() {
    let place = Place::new();
    let host = place.host().start().await;
    deploy(&host, "small", version("second")).await;
    host.kill().await;
    let index = place.components().join("index");
    let sound = fs::read(&index).expect("reading the index");
    for text in [&sound[..sound.len() / 2], b""] {
        fs::write(&index, text).expect("damaging the index");
        place
            .host()
            .refused()
            .await
            .says(["components/index cannot be used", "damaged"]);
    }
    fs::remove_file(&index).expect("removing the index");
    place.host().refused().await.says(["index", "missing"]);
    fs::write(&index, "tidegate components 9 x\n").expect("writing an index");
    place.host().refused().await.says(["format 9", "newer"]);
    assert_eq!(place.kept().len(), 2);
    fs::write(&index, &sound).expect("mending the index");
    let host = place.host().start().await;
    assert_eq!(serving(&host, "small").await, "second");
}

#[tokio::test]
async fn only_so_many_versions_are_kept() {
    let place = Place::new();
    let host = place.host().set("admin.kept-versions=2").start().await;
    for method in ["second", "third", "fourth"] {
        deploy(&host, "small", version(method)).await;
    }
    let found = versions(&host, "small").await;
    assert_eq!(numbers(&found), [3, 4]);
    assert_eq!(place.kept().len(), 2);
    back(&host, "small", json!({"version": 1}))
        .await
        .failed(404, "component.version-unknown");
    assert_eq!(back(&host, "small", json!({})).await.json()["version"], 3);
}

#[tokio::test]
async fn what_is_refused_is_not_kept() {
    let place = Place::new();
    let host = place.host().start().await;
    let mut socket = host.connect().await;
    let reply = socket.call(&actor("small", "1"), "run", None).await;
    assert_eq!(reply.frame.get("error"), None);
    let other = r#"{"tidegate": "0.1", "actors": {"other": {"methods": {"run": {}}}}}"#;
    let other = guest::component_saying(other, "", "");
    for (name, bytes, status, code) in [
        ("small", b"rubbish".to_vec(), 422, "component.invalid"),
        ("small", other.clone(), 409, "component.in-use"),
        ("second", version("second"), 409, "component.conflict"),
    ] {
        put(&host, name, bytes).await.failed(status, code);
    }
    let path = "/components/small";
    let refused = host.admin(Method::DELETE, path).send().await;
    refused.failed(409, "component.in-use");
    assert_eq!(numbers(&versions(&host, "small").await), [1]);
    assert_eq!(place.kept().len(), 1);
    host.kill().await;
    let host = place.host().start().await;
    assert_eq!(serving(&host, "small").await, "first");
    let second = host.admin(Method::GET, "/components/second").send().await;
    second.failed(404, "component.unknown");
}

#[tokio::test]
async fn a_component_that_cannot_be_kept_does_not_serve() {
    let place = Place::new();
    let host = place.host().start().await;
    // A folder in the place of the draft: nothing can be written there, by anybody.
    let draft = place.components().join("index.new");
    fs::create_dir(&draft).expect("making a folder");
    put(&host, "small", version("second"))
        .await
        .failed(503, "store.unavailable");
    assert_eq!(serving(&host, "small").await, "first");
    fs::remove_dir(&draft).expect("removing the folder");
    deploy(&host, "small", version("second")).await;
    assert_eq!(serving(&host, "small").await, "second");
}

#[tokio::test]
async fn a_host_in_memory_keeps_nothing() {
    let place = Place::new();
    let host = place.host().argument("--memory").start().await;
    let deployed = deploy(&host, "small", version("second")).await;
    assert_eq!(deployed["version"], Value::Null);
    let path = "/components/small/versions";
    let refused = host.admin(Method::GET, path).send().await;
    refused.failed(501, "host.not-supported");
    back(&host, "small", json!({}))
        .await
        .failed(501, "host.not-supported");
    assert!(!place.components().exists());
}

fn command(host: &Host, words: &[&str]) -> Cli {
    let command = words
        .iter()
        .fold(tidegate([]), |command, word| command.arg(word));
    command
        .arg(format!("--to=http://{}", host.address()))
        .variable("TIDEGATE_ADMIN_KEY", ADMIN_KEY)
}

#[tokio::test]
async fn the_command_line_lists_versions_and_goes_back() {
    let place = Place::new();
    let host = place.host().start().await;
    let deployed = command(&host, &["deploy", "small.wasm"])
        .file("small.wasm", version("second"))
        .run()
        .await
        .printed();
    assert!(
        deployed.contains("(version 2; actors: small; replaced "),
        "{deployed}"
    );
    for words in [&["deploy", "--list"][..], &["deploy", "--list", "small"]] {
        let printed = command(&host, words).run().await.printed();
        let rows: Vec<Vec<&str>> = printed
            .lines()
            .map(|line| line.split_whitespace().collect())
            .collect();
        assert_eq!(rows[0][..3], ["NAME", "VERSION", "DIGEST"], "{printed}");
        assert_eq!((rows[1][0], rows[1][1]), ("small", "2"), "{printed}");
        assert_eq!(rows[1][5..], ["upload", "serving"], "{printed}");
        assert_eq!(rows[2][1], "1", "{printed}");
        assert_eq!(rows[2][5..], ["manifest"], "{printed}");
    }
    let printed = command(&host, &["rollback", "small"]).run().await.printed();
    assert!(printed.starts_with("small is at version 1 "), "{printed}");
    assert_eq!(serving(&host, "small").await, "first");
    let line = host.logged("rolled back").await;
    assert!(line.contains("component=small version=1"), "{line}");
    let printed = command(&host, &["rollback", "small", "2"]).run().await;
    assert!(printed.printed().contains("version 2"));
    assert_eq!(serving(&host, "small").await, "second");
    let refused = command(&host, &["rollback", "small", "3"]).run().await;
    refused.failed(["there is no version 3", "component.version-unknown"]);
    let refused = command(&host, &["deploy", "--list", "nothing"]).run().await;
    refused.failed(["component.unknown"]);
}

#[tokio::test]
async fn the_doors_want_the_key() {
    let place = Place::new();
    let host = place.host().start().await;
    for (method, path) in [
        (Method::GET, "/_tidegate/versions"),
        (Method::GET, "/_tidegate/components/small/versions"),
        (Method::POST, "/_tidegate/components/small/rollback"),
    ] {
        let request = host.request(method, path);
        request.send().await.failed(401, "admin.unauthorized");
    }
}

//! Actors that are copied out of one host and into another.

use http::Method;
use serde_json::{Value, json};
use tidegate_tests::cli::{Cli, tidegate};
use tidegate_tests::{ADMIN_KEY, Actor, Builder, Folder, Host, PATIENCE, Response, actor};

fn on(folder: &Folder) -> Builder {
    Host::builder()
        .component("counter")
        .component("lab")
        .data(folder.path())
}

fn counter(id: &str) -> Actor {
    actor("counter", id)
}

async fn count(host: &Host, id: &str, by: u64) -> u64 {
    let mut socket = host.connect().await;
    let reply = socket
        .call(&counter(id), "increment", json!({"by": by}))
        .await;
    reply.result().as_u64().expect("a count")
}

async fn about(host: &Host, actor: &Actor) -> Value {
    let path = format!("/actors/{actor}");
    host.admin(Method::GET, &path).send().await.json()
}

async fn export(host: &Host) -> String {
    let exported = host.admin(Method::GET, "/export").send().await;
    assert_eq!(exported.status, 200, "{exported:?}");
    String::from_utf8(exported.body.to_vec()).expect("an export is UTF-8")
}

async fn import(host: &Host, query: &str, text: &str) -> Response {
    let path = format!("/import{query}");
    let request = host.admin(Method::POST, &path).body(text.to_owned());
    request.send().await
}

/// The actors that a host knows, as `actor/id`.
async fn known(host: &Host) -> Vec<String> {
    let listed = host.admin(Method::GET, "/actors").send().await.json();
    let listed = listed["actors"].as_array().expect("a list").clone();
    let key = |one: Value| format!("{}/{}", one["actor"], one["id"]).replace('"', "");
    listed.into_iter().map(key).collect()
}

/// An export with these counters, in order.
fn text(counters: &[(&str, u64)]) -> String {
    let mut lines = vec![json!({"tidegate": "export", "format": 1}).to_string()];
    for (id, count) in counters {
        let stored = json!({"epoch": "e", "version": 3, "state": {"count": count}});
        lines.push(json!({"actor": "counter", "id": id, "stored": stored}).to_string());
    }
    lines.push(json!({"end": {"actors": counters.len()}}).to_string());
    lines.join("\n") + "\n"
}

#[tokio::test]
async fn what_is_exported_is_there_after_an_import_and_a_kill() {
    let (from, to) = (Folder::new(), Folder::new());
    let host = on(&from).set("actors.idle-timeout-ms=1").start().await;
    for id in 0..300 {
        count(&host, &format!("{id:03}"), id + 1).await;
    }
    let text = export(&host).await;
    assert_eq!(text.lines().count(), 302, "a head, the actors, an end");
    let before = about(&host, &counter("007")).await;
    drop(host);

    let host = on(&to).start().await;
    let imported = import(&host, "", &text).await;
    assert_eq!(imported.json(), json!({"imported": 300}));
    host.kill().await;
    let host = on(&to).start().await;
    for id in [0, 7, 299] {
        let found = about(&host, &counter(&format!("{id:03}"))).await;
        assert_eq!(found["state"]["count"], id + 1);
    }
    let after = about(&host, &counter("007")).await;
    assert_eq!(after["version"], before["version"]);
    assert_ne!(
        after["epoch"], before["epoch"],
        "its history is another one"
    );
    assert_eq!(count(&host, "007", 1).await, 9, "it goes on");
}

#[tokio::test]
async fn an_export_of_a_host_that_is_called_holds_what_it_told() {
    let folder = Folder::new();
    let host = on(&folder).start().await;
    let told = count(&host, "a", 5).await;
    let exporting = export(&host);
    let counting = count(&host, "a", 5);
    let (text, _) = tokio::join!(exporting, counting);
    let line = text.lines().nth(1).expect("one actor");
    let line: Value = serde_json::from_str(line).expect("a line is JSON");
    let exported = line["stored"]["state"]["count"].as_u64();
    assert!(exported >= Some(told), "{line}");
}

#[tokio::test]
async fn timers_and_the_states_of_a_host_in_memory_are_carried_over() {
    let host = Host::builder()
        .component("lab")
        .argument("--memory")
        .start()
        .await;
    let clock = actor("clock", "a");
    let mut socket = host.connect().await;
    let timer = json!({"timers": [{"label": "x", "ms": 3_600_000, "outlive": true}]});
    socket.call(&clock, "set", timer).await.result();
    let text = export(&host).await;
    let line: Value = serde_json::from_str(text.lines().nth(1).unwrap()).unwrap();
    let timers = &line["stored"]["timers"];
    assert_eq!(timers.as_array().map(Vec::len), Some(1), "{line}");
    drop(host);
    let folder = Folder::new();
    let host = on(&folder).start().await;
    assert_eq!(import(&host, "", &text).await.status, 200);
    let again = export(&host).await;
    let again: Value = serde_json::from_str(again.lines().nth(1).unwrap()).unwrap();
    assert_eq!(&again["stored"]["timers"], timers);
}

#[tokio::test]
async fn a_timer_that_is_overdue_fires_in_the_host_that_imports_it() {
    let folder = Folder::new();
    let host = on(&folder).start().await;
    let clock = actor("clock", "a");
    let mut socket = host.connect().await;
    let timer = json!({"timers": [{"label": "x", "ms": 3_600_000, "outlive": true}]});
    socket.call(&clock, "set", timer).await.result();
    let text = export(&host).await;
    let line: Value = serde_json::from_str(text.lines().nth(1).unwrap()).unwrap();
    let due = line["stored"]["timers"][0]["dueMs"].as_u64().unwrap();
    let text = text.replace(&due.to_string(), "1000");
    let other = Folder::new();
    let host = on(&other).start().await;
    assert_eq!(import(&host, "", &text).await.status, 200);
    let fired = async { while about(&host, &clock).await["state"]["firings"] == json!([]) {} };
    tokio::time::timeout(PATIENCE, fired)
        .await
        .expect("the timer fires");
}

#[tokio::test]
async fn what_is_there_stays_unless_it_is_to_be_replaced() {
    let folder = Folder::new();
    let host = on(&folder).start().await;
    let old = text(&[("b", 1)]);
    assert_eq!(import(&host, "", &old).await.status, 200);
    let new = text(&[("a", 7), ("b", 8), ("c", 9)]);
    let refused = import(&host, "", &new).await;
    let error = refused.failed(409, "actor.exists");
    let message = error["message"].as_str().unwrap();
    assert!(
        message.contains("line 3") && message.contains("nothing is imported"),
        "{message}"
    );
    assert_eq!(known(&host).await, ["counter/b"]);
    let replaced = import(&host, "?replace=true", &new).await;
    assert_eq!(replaced.json()["imported"], 3);
    assert_eq!(about(&host, &counter("b")).await["state"]["count"], 8);
    assert_eq!(count(&host, "b", 1).await, 9);
    // In memory now.
    import(&host, "?replace=true", &new)
        .await
        .failed(409, "actor.in-use");
    assert_eq!(about(&host, &counter("b")).await["state"]["count"], 9);
}

#[tokio::test]
async fn a_file_that_is_not_whole_changes_nothing() {
    let folder = Folder::new();
    let host = on(&folder).start().await;
    let whole = text(&[("a", 1), ("b", 2)]);
    for length in 0..whole.len() {
        let cut = import(&host, "", &whole[..length]).await;
        cut.failed(422, "import.invalid");
    }
    let broken = whole.replace("{\"end\"", "{\"error\"");
    let lines: Vec<&str> = whole.lines().collect();
    let joined = |lines: &[&str]| lines.join("\n") + "\n";
    for (wrong, line, said) in [
        (broken, 4, "broken off"),
        (joined(&[lines[0], lines[1], lines[3]]), 3, "speaks of 2"),
        (
            joined(&[lines[0], lines[2], lines[1], lines[3]]),
            3,
            "in order",
        ),
        (
            joined(&[lines[0], lines[1], lines[1], lines[3]]),
            3,
            "in order",
        ),
        (joined(&[&whole, lines[1]]), 5, "follows"),
        (whole.replace("\"format\":1", "\"format\":2"), 1, "format 2"),
        (whole.replace("\"export\"", "\"import\""), 1, "no export"),
        (
            whole.replace("\"version\":3", "\"version\":-3"),
            2,
            "expected u64",
        ),
        (whole.replace("\"id\":\"b\"", "\"id\":\"\""), 3, "id"),
    ] {
        let refused = import(&host, "", &wrong).await;
        let error = refused.failed(422, "import.invalid");
        assert_eq!(error["params"]["line"], line, "{error}");
        assert!(error["message"].as_str().unwrap().contains(said), "{error}");
    }
    let unknown = whole.replace("\"actor\":\"counter\"", "\"actor\":\"nobody\"");
    let refused = import(&host, "", &unknown).await;
    refused.failed(404, "actor.unknown");
    let unfit = whole.replace("\"count\":2", "\"count\":\"two\"");
    import(&host, "", &unfit).await.failed(500, "state.unfit");
    assert_eq!(known(&host).await, [""; 0]);
    let left = std::fs::read_dir(folder.path()).expect("reading the folder");
    let names = left.map(|entry| entry.unwrap().file_name().into_string().unwrap());
    let drafts: Vec<String> = names.filter(|name| name.starts_with("import")).collect();
    assert_eq!(drafts, [""; 0]);
    assert_eq!(import(&host, "", &whole).await.json()["imported"], 2);
}

#[tokio::test]
async fn a_file_that_is_too_long_is_refused() {
    let folder = Folder::new();
    let host = on(&folder).set("admin.max-import-bytes=100").start().await;
    import(&host, "", &text(&[("a", 1), ("b", 2)]))
        .await
        .failed(413, "request.too-large");
}

fn command(host: &Host, words: &[&str]) -> Cli {
    let command = words
        .iter()
        .fold(tidegate([]), |command, word| command.arg(word));
    command
        .arg(format!("--from=http://{}", host.address()))
        .variable("TIDEGATE_ADMIN_KEY", ADMIN_KEY)
}

#[tokio::test]
async fn the_command_line_exports_and_imports() {
    let (from, to) = (Folder::new(), Folder::new());
    let host = on(&from).start().await;
    count(&host, "a", 4).await;
    let outcome = command(&host, &["export"]).run().await;
    assert!(outcome.err.contains("exported 1 actors"), "{outcome:?}");
    let text = outcome.printed();
    let host = on(&to).start().await;
    let bring = |text: &str| {
        command(&host, &["import", "all.jsonl"])
            .file("all.jsonl", text)
            .run()
    };
    let cut = bring(&text[..text.len() - 5]).await;
    cut.failed(["cut short", "import.invalid"]);
    assert_eq!(bring(&text).await.printed(), "imported 1 actors\n");
    assert_eq!(about(&host, &counter("a")).await["state"]["count"], 4);
    bring(&text).await.failed(["actor.exists"]);
    let replaced = command(&host, &["import", "all.jsonl", "--replace"])
        .file("all.jsonl", &text)
        .run();
    assert_eq!(replaced.await.printed(), "imported 1 actors\n");
    let missing = command(&host, &["import", "nowhere.jsonl"]).run().await;
    missing.failed(["cannot read nowhere.jsonl"]);
}

#[tokio::test]
async fn the_doors_want_the_key() {
    let host = Host::serving(["counter"]).await;
    let exported = host.request(Method::GET, "/_tidegate/export").send().await;
    exported.failed(401, "admin.unauthorized");
    let imported = host.request(Method::POST, "/_tidegate/import").send().await;
    imported.failed(401, "admin.unauthorized");
}

#[tokio::test]
async fn an_actor_whose_id_is_a_step_in_a_path_is_brought_back_listed_and_removed() {
    let host = Host::serving(["counter"]).await;
    let text = text(&[("..", 3), ("a", 5)]);
    assert_eq!(import(&host, "", &text).await.json()["imported"], 2);
    assert_eq!(known(&host).await, ["counter/..", "counter/a"]);
    let path = "/actor?actor=counter&id=..";
    let about = host.admin(Method::GET, path).send().await.json();
    assert_eq!(about["state"]["count"], 3);
    // It is nobody's to call.
    let mut socket = host.connect().await;
    let call = socket.call(&actor("counter", ".."), "value", None).await;
    assert_eq!(call.code(), "actor.invalid-id");
    assert_eq!(host.admin(Method::DELETE, path).status().await, 204);
    assert_eq!(known(&host).await, ["counter/a"]);
    let gone = host.admin(Method::GET, path).send().await;
    gone.failed(404, "actor.not-found");
}

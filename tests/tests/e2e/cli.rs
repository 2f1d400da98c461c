//! The commands of the binary: what they print, what they send, and how they fail.

use std::os::unix::fs::PermissionsExt;

use serde_json::{Value, json};
use tidegate_tests::cli::{Cli, Scripted, tidegate};
use tidegate_tests::guest;
use tokio::net::TcpListener;

const KEY: &str = "a-key-of-an-operator";
const JSON: &str = "content-type: application/json";

fn as_json(text: &str) -> Value {
    serde_json::from_str(text).unwrap_or_else(|error| panic!("{error}: {text}"))
}

fn line_of<'a>(text: &'a str, start: &str) -> &'a str {
    let line = text.lines().find(|line| line.starts_with(start));
    line.unwrap_or_else(|| panic!("no line begins with `{start}` in\n{text}"))
}

#[tokio::test]
async fn config_names_the_source_of_each_setting() {
    let printed = tidegate([
        "config",
        "--config",
        "host.toml",
        "--set",
        "access.max-batch=5",
    ])
    .file("host.toml", "[actors]\nmailbox-items = 7\nmax-stored = 8\n")
    .variable("TIDEGATE_ACTORS_MAX_STORED", "9")
    .variable("TIDEGATE_LISTEN", "127.0.0.1:99")
    .variable("TIDEGATE_GATEWAY_HOSTS", "a.example,b.example")
    .run()
    .await
    .printed();
    for line in [
        "access.max-batch = 5  # --set",
        "access.max-waiting = 65536  # default",
        "actors.mailbox-items = 7  # host.toml",
        "actors.max-stored = 9  # TIDEGATE_ACTORS_MAX_STORED",
        "gateway.listen = \"127.0.0.1:99\"  # TIDEGATE_LISTEN",
        "gateway.hosts = [\"a.example\", \"b.example\"]  # TIDEGATE_GATEWAY_HOSTS",
        "# auth.audience is not set",
    ] {
        assert!(printed.lines().any(|found| found == line), "{printed}");
    }
}

#[tokio::test]
async fn what_config_prints_is_a_configuration_file() {
    let values = async |command: Cli| {
        let mut settings = as_json(&command.run().await.printed());
        let settings = settings.as_object_mut().expect("an object");
        let values = settings
            .iter_mut()
            .map(|(key, setting)| (key.clone(), setting["value"].take()));
        values.collect::<serde_json::Map<_, _>>()
    };
    let set = |command: Cli| {
        command
            .arg("--set")
            .arg("auth.issuer=a \"b\" # 'c' \\ \u{1}\nd")
            .arg("--set")
            .arg("gateway.origins=[\"https://a.example\", \"x # y\"]")
            .arg("--set")
            .arg("gateway.page=false")
            .arg("--set")
            .arg("auth.audience=3")
    };
    let printed = set(tidegate(["config"])).run().await.printed();
    let read = tidegate(["config", "--json", "--config", "# printed.toml"])
        .file("# printed.toml", &printed)
        .run();
    let read = as_json(&read.await.printed());
    assert_eq!(read["gateway.page"]["source"], "# printed.toml");
    let again = tidegate(["config", "--json", "--config", "printed.toml"]);
    let again = values(again.file("printed.toml", &printed)).await;
    assert_eq!(again, values(set(tidegate(["config", "--json"]))).await);
    assert_eq!(again["auth.audience"], "3");
}

#[tokio::test]
async fn config_does_not_show_the_admin_key() {
    for form in [&["config"][..], &["config", "--json"]] {
        let mut command = tidegate([]).variable("TIDEGATE_ADMIN_KEY", KEY);
        for word in form {
            command = command.arg(word);
        }
        let outcome = command.run().await;
        assert!(!outcome.err.contains(KEY), "{}", outcome.err);
        let printed = outcome.printed();
        assert!(!printed.contains(KEY), "{printed}");
        assert!(printed.contains("TIDEGATE_ADMIN_KEY"), "{printed}");
        assert!(printed.contains("\"…\""), "{printed}");
    }
}

#[tokio::test]
async fn a_wrong_setting_is_named_with_its_place() {
    let variable = tidegate(["config"]).variable("TIDEGATE_ADMIN_MAX_PAGE", "all");
    variable.run().await.failed([
        "environment variable TIDEGATE_ADMIN_MAX_PAGE: ",
        "expected a whole number, found `all`",
    ]);
    let file = tidegate(["config", "--config", "host.toml"]);
    let file = file.file("host.toml", "[admin]\nmax-pages = 1\n");
    file.run().await.failed(["host.toml:2: ", "max-page"]);
    let word = tidegate(["up", "--set", "engine.compile-threads=0"]);
    let said = "--set: engine.compile-threads: expected 1 to 1024, found 0";
    word.run().await.failed([said]);
    let missing = tidegate(["config", "--config", "nowhere.toml"]);
    missing.run().await.failed(["nowhere.toml", "No such file"]);
}

#[tokio::test]
async fn a_variable_that_is_no_setting_is_warned_of() {
    let outcome = tidegate(["config"])
        .variable("TIDEGATE_ADMIN_MAX_PAGES", "1")
        .run()
        .await;
    let warning = line_of(&outcome.err, "tidegate: warning: ");
    assert!(
        warning.ends_with(
            "TIDEGATE_ADMIN_MAX_PAGES is no setting; did you mean TIDEGATE_ADMIN_MAX_PAGE?"
        ),
        "{warning}"
    );
    assert!(!outcome.printed().is_empty());
}

#[tokio::test]
async fn describe_prints_the_manifest() {
    let described = tidegate(["describe", "small.wasm"])
        .file("small.wasm", guest::component("", ""))
        .run()
        .await;
    assert_eq!(
        as_json(&described.printed()),
        json!({"tidegate": "0.1", "actors": {"small": {"methods": {"run": {}}}}})
    );
}

#[tokio::test]
async fn describe_says_what_is_wrong_with_a_file() {
    let text = tidegate(["describe", "notes.wasm"]).file("notes.wasm", "dear diary");
    text.run()
        .await
        .failed(["notes.wasm is refused: not a WebAssembly file", "dear dia"]);
    let mut cut = guest::component("", "");
    cut.truncate(cut.len() / 2);
    let cut = tidegate(["describe", "cut.wasm"]).file("cut.wasm", cut);
    cut.run()
        .await
        .failed(["cut.wasm is refused: not a valid component"]);
    let missing = tidegate(["describe", "nowhere.wasm"]);
    missing
        .run()
        .await
        .failed(["cannot read nowhere.wasm: No such file"]);
}

/// `tidegate deploy small.wasm` with a key.
fn deploy(host: &Scripted, file: &[u8]) -> Cli {
    tidegate(["deploy", "small.wasm", "--to"])
        .arg(host.url())
        .file("small.wasm", file)
        .variable("TIDEGATE_ADMIN_KEY", KEY)
}

fn result(replaced: Option<&str>, changed: bool) -> Value {
    json!({
        "name": "small", "digest": "0123456789abcdef".repeat(4), "bytes": 3,
        "actors": ["large", "small"], "replaced": replaced, "changed": changed,
    })
}

fn event(name: &str, data: &Value) -> String {
    format!("event: {name}\ndata: {data}\n\n")
}

#[tokio::test]
async fn deploy_uploads_the_file_and_follows_the_host() {
    let stages = ["compiling", "checking", "swapping"];
    let mut events: String = stages
        .iter()
        .map(|stage| event("progress", &json!({"stage": stage})))
        .collect();
    let old = "fedcba9876543210".repeat(4);
    events += &event("result", &result(Some(&old), true));
    let host = Scripted::streaming(&events).await;
    // Longer than what a connection takes at once.
    let file: Vec<u8> = (0..3_000_000).map(|byte: u32| byte as u8).collect();
    let outcome = deploy(&host, &file).run().await;
    let told: Vec<&str> = outcome.err.lines().collect();
    let percents = [0, 25, 50, 75, 100].map(|part| format!("uploading 3000000 bytes: {part} %"));
    let expected = percents.iter().map(String::as_str).chain(stages);
    assert_eq!(told, expected.collect::<Vec<_>>());
    assert_eq!(
        outcome.printed(),
        "deployed small 0123456789ab (actors: large, small; replaced fedcba987654)\n"
    );
    let asked = host.asked().await;
    assert_eq!(
        asked.line(),
        "PUT /_tidegate/components/small HTTP/1.1",
        "{}",
        asked.head
    );
    for (name, value) in [
        ("authorization", "Bearer a-key-of-an-operator"),
        ("content-type", "application/wasm"),
        ("content-length", "3000000"),
        ("accept", "text/event-stream"),
    ] {
        assert_eq!(asked.header(name), Some(value), "{}", asked.head);
    }
    assert!(asked.body == file, "another body was sent");
}

#[tokio::test]
async fn deploy_takes_a_whole_answer_too() {
    for (answer, fate) in [
        (result(None, true), "new"),
        (result(None, false), "unchanged"),
    ] {
        let host = Scripted::answering("200 OK", JSON, &answer.to_string()).await;
        let line = format!("deployed small 0123456789ab (actors: large, small; {fate})\n");
        assert_eq!(deploy(&host, b"abc").run().await.printed(), line);
    }
}

#[tokio::test]
async fn deploy_names_the_component_as_told() {
    let answer = result(None, true).to_string();
    let host = Scripted::answering("200 OK", JSON, &answer).await;
    let command = deploy(&host, b"abc")
        .arg("--name")
        .arg("../x y")
        .arg("--force");
    command.run().await.printed();
    let line = "PUT /_tidegate/components/%2E%2E%2Fx%20y?force=true HTTP/1.1";
    assert_eq!(host.asked().await.line(), line);
}

#[tokio::test]
async fn deploy_says_what_the_host_says() {
    let failure = json!({"error": {"code": "component.conflict", "message": "both claim `chat`"}});
    let said = "the host refuses: both claim `chat` (component.conflict)";
    let events = event("progress", &json!({"stage": "compiling"})) + &event("error", &failure);
    let host = Scripted::streaming(&events).await;
    deploy(&host, b"abc").run().await.failed([said]);
    let host = Scripted::answering("409 Conflict", JSON, &failure.to_string()).await;
    deploy(&host, b"abc").run().await.failed([said]);
}

#[tokio::test]
async fn a_refusal_comes_before_the_upload() {
    let body = json!({"error": {"code": "admin.unauthorized", "message": "no"}}).to_string();
    let host = Scripted::refusing("401 Unauthorized", JSON, &body).await;
    let url = host.url();
    let outcome = deploy(&host, &[0; 3_000_000]).run().await;
    assert!(!outcome.err.contains("uploading"), "{}", outcome.err);
    assert!(!outcome.err.contains(KEY), "{}", outcome.err);
    let said = format!("{url} does not take this admin key");
    outcome.failed([&said, "TIDEGATE_ADMIN_KEY", "--key-file", "admin.key"]);
}

#[tokio::test]
async fn an_answer_that_makes_no_sense_is_told_as_such() {
    let html = "content-type: text/html";
    for (status, headers, said) in [
        (
            "502 Bad Gateway",
            html,
            "answers 502 Bad Gateway without saying why",
        ),
        ("200 OK", html, "answers something else than expected"),
        (
            "308 Permanent Redirect",
            "location: http://127.0.0.1:1/",
            "redirects elsewhere",
        ),
    ] {
        let host = Scripted::answering(status, headers, "<p>hello").await;
        deploy(&host, b"abc").run().await.failed([said]);
    }
}

#[tokio::test]
async fn an_answer_that_ends_early_is_no_success() {
    let events = event("progress", &json!({"stage": "compiling"}));
    let cut = event("result", &result(None, true));
    for events in [events.clone(), events + cut.trim_end()] {
        let host = Scripted::streaming(&events).await;
        let outcome = deploy(&host, b"abc").run().await;
        outcome.failed(["without saying what came of it", "tidegate components"]);
    }
}

#[tokio::test]
async fn a_host_that_is_not_there_is_named() {
    let listener = TcpListener::bind("127.0.0.1:0").await.expect("a free port");
    let url = format!("http://{}", listener.local_addr().expect("an address"));
    let ask = |url: &str| {
        tidegate(["components", "--timeout-ms", "200", "--to", url])
            .variable("TIDEGATE_ADMIN_KEY", KEY)
    };
    // The kernel takes the connection; nobody answers.
    let said = format!("{url} has not answered within 200 ms");
    ask(&url).run().await.failed([&said]);
    drop(listener);
    let said = format!("cannot reach {url}: Connection refused");
    ask(&url).run().await.failed([&said]);
}

#[tokio::test]
async fn a_url_is_a_host_and_nothing_else() {
    for url in [
        "http://127.0.0.1:1/path",
        "http://127.0.0.1:1/?query",
        "ftp://127.0.0.1:1",
        "127.0.0.1:1",
    ] {
        let command = tidegate(["components", "--to", url]).variable("TIDEGATE_ADMIN_KEY", KEY);
        let said = format!("--to {url}: ");
        command.run().await.failed([&said, "http://127.0.0.1:3000"]);
    }
}

#[tokio::test]
async fn deploy_wants_a_file() {
    let command = tidegate(["deploy", "nowhere.wasm", "--to", "http://127.0.0.1:1"]);
    command
        .variable("TIDEGATE_ADMIN_KEY", KEY)
        .run()
        .await
        .failed(["cannot read nowhere.wasm: No such file"]);
    let command = tidegate(["deploy", ".", "--to", "http://127.0.0.1:1", "--name", "x"]);
    command
        .variable("TIDEGATE_ADMIN_KEY", KEY)
        .run()
        .await
        .failed(["cannot read .: not a file"]);
}

#[tokio::test]
async fn keys_are_looked_for_in_order() {
    let keys = [
        ("named.key", "a-key-of-a-named-file\n"),
        (".tidegate/admin.key", "a-key-of-this-folder\n"),
    ];
    for (arguments, variable, key) in [
        (
            &["--key-file", "named.key"][..],
            KEY,
            "a-key-of-a-named-file",
        ),
        (&[], KEY, KEY),
        (&[], "", "a-key-of-this-folder"),
    ] {
        let host = Scripted::answering("200 OK", JSON, "{\"components\": []}").await;
        let mut command = tidegate(["components", "--to"]).arg(host.url());
        for (name, key) in keys {
            command = command.file(name, key);
        }
        for argument in arguments {
            command = command.arg(argument);
        }
        command = command.variable("TIDEGATE_ADMIN_KEY", variable);
        command.run().await.printed();
        let asked = host.asked().await;
        let sent = format!("Bearer {key}");
        assert_eq!(asked.header("authorization"), Some(sent.as_str()));
    }
}

#[tokio::test]
async fn the_key_of_this_folder_goes_to_this_machine_only() {
    let command = tidegate(["components", "--to", "http://host.invalid"]);
    command
        .file(".tidegate/admin.key", KEY)
        .run()
        .await
        .failed(["no admin key is given", "--key-file", "TIDEGATE_ADMIN_KEY"]);
}

#[tokio::test]
async fn components_are_listed_in_columns() {
    let component = |name: &str, bytes: u64, actors: &[&str]| {
        json!({
            "name": name, "digest": "0123456789abcdef".repeat(4), "bytes": bytes,
            "actors": actors, "actorsInMemory": 12, "instances": 3, "manifest": {},
        })
    };
    let listing = json!({"components": [
        component("chat", 363_750, &["chat", "lobby"]),
        component("counter", 9, &["counter"]),
    ]});
    let host = Scripted::answering("200 OK", JSON, &listing.to_string()).await;
    let command = tidegate(["components"])
        .variable("TIDEGATE_URL", &host.url())
        .variable("TIDEGATE_ADMIN_KEY", KEY);
    assert_eq!(
        command.run().await.printed(),
        "NAME     DIGEST        BYTES   IN MEMORY  INSTANCES  ACTOR TYPES\n\
         chat     0123456789ab  363750  12         3          chat, lobby\n\
         counter  0123456789ab  9       12         3          counter\n"
    );
    let line = "GET /_tidegate/components HTTP/1.1";
    assert_eq!(host.asked().await.line(), line);
}

#[tokio::test]
async fn remove_takes_a_component_away() {
    for (force, line) in [
        (None, "DELETE /_tidegate/components/chat HTTP/1.1"),
        (
            Some("--force"),
            "DELETE /_tidegate/components/chat?force=true HTTP/1.1",
        ),
    ] {
        let host = Scripted::answering("200 OK", JSON, "{\"name\": \"chat\"}").await;
        let mut command = tidegate(["remove", "chat", "--to"])
            .arg(host.url())
            .variable("TIDEGATE_ADMIN_KEY", KEY);
        if let Some(force) = force {
            command = command.arg(force);
        }
        assert_eq!(command.run().await.printed(), "removed chat\n");
        assert_eq!(host.asked().await.line(), line);
    }
}

/// The JSON that one part of a token holds.
fn part(token: &str, index: usize) -> Value {
    const DIGITS: &[u8] = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-_";
    let part = token.trim().split('.').nth(index);
    let (mut bits, mut count, mut bytes) = (0u32, 0, Vec::new());
    for digit in part.expect("a token has three parts").bytes() {
        let value = DIGITS.iter().position(|found| *found == digit);
        bits = bits << 6 | value.expect("a digit of base64url") as u32;
        count += 6;
        if count >= 8 {
            count -= 8;
            bytes.push((bits >> count) as u8);
        }
    }
    as_json(std::str::from_utf8(&bytes).expect("UTF-8"))
}

#[tokio::test]
async fn a_token_is_minted_with_a_new_key_and_with_the_same_again() {
    let claims = ["--claims", "{\"sub\":\"ann\",\"iat\":1000}"];
    let first = tidegate(["token", "--new-key", "keys/auth.key", "--ttl", "15m"]);
    let (first, folder) = first.arg(claims[0]).arg(claims[1]).run_in_folder().await;
    assert!(first.err.contains("auth.algorithms=HS256"), "{}", first.err);
    let token = first.printed();
    assert_eq!(part(&token, 0)["alg"], "HS256");
    assert_eq!(part(&token, 1)["sub"], "ann");
    let exp = part(&token, 1)["exp"].as_u64().expect("a number");

    let key = folder.path().join("keys/auth.key");
    let mode = std::fs::metadata(&key).expect("a key file").permissions();
    assert_eq!(mode.mode() & 0o777, 0o600);
    let before = std::fs::read(&key).expect("a key file");
    let again = tidegate(["token", "--claims", "{}", "--new-key"]).arg(&key);
    again.run().await.failed(["auth.key", "File exists"]);
    assert_eq!(std::fs::read(&key).expect("a key file"), before);

    // The same claims under the same key are the same token.
    let claims = part(&token, 1).to_string();
    let set = format!("auth.key-file={}", key.display());
    let second = tidegate(["token", "--claims", &claims, "--set", &set]);
    let second = second.run().await.printed();
    assert_eq!(part(&second, 1)["exp"], exp);
    assert_eq!(second, token);
    let named = tidegate(["token", "--claims", &claims, "--kid", "k1", "--key-file"]);
    let named = named.arg(&key).run().await.printed();
    assert_eq!(part(&named, 0)["kid"], "k1");
}

#[tokio::test]
async fn a_token_needs_claims_and_a_key() {
    let token = tidegate(["token", "--claims", "[1]"]);
    token
        .run()
        .await
        .failed(["--claims: expected a JSON object"]);
    let token = tidegate(["token", "--claims", "{}"]);
    token
        .run()
        .await
        .failed(["no key to sign with", "--key-file", "--new-key"]);
    let token = tidegate(["token", "--claims", "{}", "--key-file", "short.key"]);
    let outcome = token.file("short.key", "sh0rt").run().await;
    assert!(!outcome.err.contains("sh0rt"), "{}", outcome.err);
    outcome.failed(["32 bytes"]);
}

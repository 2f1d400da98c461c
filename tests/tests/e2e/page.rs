//! The example page: what it is served with, and how it behaves in Chromium, which
//! `tests/browser/page.mjs` drives.

use std::path::{Path, PathBuf};
use std::process::Stdio;

use http::StatusCode;
use tidegate_tests::provider::Provider;
use tidegate_tests::{Folder, Host, Socket, actor, project, token};
use tokio::io::{AsyncBufReadExt, AsyncReadExt, AsyncWriteExt, BufReader, copy_bidirectional};
use tokio::net::{TcpListener, TcpStream};
use tokio::process::{Child, ChildStdout, Command};
use tokio::sync::watch;
use tokio::task::JoinHandle;

/// How to get what the browser tests need.
const INSTALL: &str = "run `cargo xtask test --only e2e`, which installs it";

#[tokio::test]
async fn two_people_talk_and_count() {
    let host = Host::serving(["chat", "counter"]).await;
    Browser::open("talk", host.address()).ended().await;
}

#[tokio::test]
async fn two_people_play() {
    let host = Host::serving(["chat", "counter", "game"]).await;
    Browser::open("game", host.address()).ended().await;
}

#[tokio::test]
async fn two_people_ask_an_agent() {
    let mut provider = Provider::start().await;
    let host = Host::builder()
        .component("agent")
        .allow(&provider.host())
        .variable("OPENAI_BASE_URL", &provider.base_url())
        .set("actors.cancel-grace-ms=20000")
        .component("chat")
        .component("counter")
        .component("game")
        .start()
        .await;
    let mut browser = Browser::open("agent", host.address());

    assert_eq!(browser.request().await, "begin");
    let mut answer = provider.asked().await;
    answer.say("With the ").await;
    assert_eq!(browser.request().await, "go on");
    answer.say("tide, Ann 🌊").await;
    answer.say(".").await;
    answer.finish("stop").await;

    assert_eq!(browser.request().await, "begin");
    let mut answer = provider.asked().await;
    answer.say("Against").await;
    assert_eq!(browser.request().await, "wait");
    answer.keep_alive_until_closed().await;

    assert_eq!(browser.request().await, "begin");
    let mut answer = provider.asked().await;
    let sum = "{\"expression\": \"6 * 7\"}";
    answer.call_tool(0, "a", "calculator", &[sum]).await;
    answer.finish("tool_calls").await;
    let mut answer = provider.asked().await;
    answer.say("It is 42.").await;
    answer.finish("stop").await;

    assert_eq!(browser.request().await, "begin");
    let mut answer = provider.asked().await;
    answer.say("Quite").await;
    answer.break_off().await;
    browser.ended().await;
}

#[tokio::test]
async fn an_agent_without_a_provider_says_so() {
    let host = Host::serving(["agent", "chat", "counter", "game"]).await;
    Browser::open("scripted", host.address()).ended().await;
}

#[tokio::test]
async fn the_pages_come_back_after_a_restart() {
    let mut host = Host::serving(["chat", "counter"]).await;
    let front = Front::to(host.address()).await;
    let mut browser = Browser::open("restart", &front.address);
    assert_eq!(browser.request().await, "stop");
    host.terminate().await;
    assert!(host.ended().await.success());
    front.lead_to(None);
    assert_eq!(browser.request().await, "start");
    let host = Host::serving(["chat", "counter"]).await;
    front.lead_to(Some(host.address()));
    browser.ended().await;
}

#[tokio::test]
async fn the_page_says_what_the_host_does_not_serve() {
    let host = Host::serving(["counter"]).await;
    Browser::open("missing", host.address()).ended().await;
}

#[tokio::test]
async fn a_browser_connects_with_a_subprotocol_and_a_token_among_those_it_offers() {
    let host = Host::builder().component("counter").with_tokens();
    let host = host.start().await;
    let token = token::of("ann");
    let browser = Browser::open_as(&token, "subprotocols", host.address());
    browser.ended().await;
    let signature = token.rsplit('.').next().expect("three parts");
    assert!(!host.log().contains(signature), "{}", host.log());
}

#[tokio::test]
async fn the_page_may_load_nothing_from_elsewhere() {
    let host = Host::serving(["counter"]).await;
    for (path, media) in [
        ("/", "text/html; charset=utf-8"),
        ("/_page/app.js", "text/javascript; charset=utf-8"),
        ("/_page/style.css", "text/css; charset=utf-8"),
        ("/_page/icon.svg", "image/svg+xml"),
    ] {
        let response = host.get(path).send().await;
        assert_eq!(response.status, StatusCode::OK, "{path}");
        let header = |name: &str| response.headers[name].to_str().expect("a text");
        assert_eq!(header("content-type"), media);
        assert_eq!(header("x-content-type-options"), "nosniff");
        assert_eq!(header("referrer-policy"), "no-referrer");
        assert_eq!(header("cache-control"), "no-cache");
        let policy: Vec<&str> = header("content-security-policy").split("; ").collect();
        for directive in [
            "default-src 'none'",
            "script-src 'self'",
            "frame-ancestors 'none'",
        ] {
            assert!(policy.contains(&directive), "{path}: {policy:?}");
        }
    }
    host.get("/_page/index.html")
        .send()
        .await
        .failed(404, "request.not-found");
    host.post("/")
        .send()
        .await
        .failed(405, "request.method-not-allowed");
}

#[tokio::test]
async fn the_page_answers_head_without_a_body() {
    let host = Host::serving(["counter"]).await;
    let page = host.get("/").send().await;
    let mut stream = TcpStream::connect(host.address()).await.expect("a host");
    let request = format!(
        "HEAD / HTTP/1.1\r\nhost: {}\r\nconnection: close\r\n\r\n",
        host.address()
    );
    stream.write_all(request.as_bytes()).await.expect("writing");
    let mut answer = String::new();
    stream.read_to_string(&mut answer).await.expect("reading");
    let (head, body) = answer.split_once("\r\n\r\n").expect("a head");
    assert!(head.starts_with("HTTP/1.1 200 "), "{head}");
    let length = format!("content-length: {}", page.body.len());
    assert!(head.lines().any(|line| line == length), "{head}");
    assert_eq!(body, "");
}

#[tokio::test]
async fn the_page_can_be_switched_off() {
    let host = Host::builder()
        .component("counter")
        .set("gateway.page=false")
        .start()
        .await;
    for path in ["/", "/_page/app.js"] {
        host.get(path).send().await.failed(404, "request.not-found");
    }
    let mut socket = Socket::connect(&host, "/").await;
    let value = socket.call(&actor("counter", "a"), "value", None).await;
    assert_eq!(value.result(), 0);
}

/// Chromium with the page, going through one scenario of `page.mjs`.
struct Browser {
    process: Child,
    output: BufReader<ChildStdout>,
    seen: String,
    /// Screenshots, which only somebody who names a folder for them wants to keep.
    _folder: Folder,
}

impl Browser {
    fn open(scenario: &str, address: &str) -> Browser {
        Browser::open_as("", scenario, address)
    }

    /// For somebody who has this token.
    fn open_as(token: &str, scenario: &str, address: &str) -> Browser {
        let script = project().join("tests/browser");
        let driver = script.join("node_modules/playwright-core");
        assert!(
            driver.exists(),
            "{} is missing: {INSTALL}",
            driver.display()
        );
        assert!(
            has_chromium(),
            "Chromium is missing: install Debian's package `chromium`, as .ci/run does, \
             or name a `chromium` in the variable CHROMIUM"
        );
        let folder = Folder::new();
        let screenshots = std::env::var_os("TIDEGATE_SCREENSHOTS")
            .map_or_else(|| folder.path().to_owned(), PathBuf::from);
        let mut process = Command::new("node")
            .arg(script.join("page.mjs"))
            .args([scenario, &format!("http://{address}/")])
            .arg(screenshots)
            .env("TIDEGATE_TOKEN", token)
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .kill_on_drop(true)
            .spawn()
            .expect("Node runs: install Node 20");
        let output = BufReader::new(process.stdout.take().expect("stdout is piped"));
        Browser {
            process,
            output,
            seen: String::new(),
            _folder: folder,
        }
    }

    /// The next line that is not the name of a step: what the script asks for.
    async fn request(&mut self) -> String {
        loop {
            let mut line = String::new();
            let read = self.output.read_line(&mut line).await;
            self.seen.push_str(&line);
            match (read, line.trim_end()) {
                (Ok(0) | Err(_), _) => panic!("the script ended after:\n{}", self.seen),
                (_, step) if step.starts_with("- ") => {}
                (_, request) => return request.to_owned(),
            }
        }
    }

    /// Waits until the script has ended well. It gives up by itself when the page does not
    /// do what it waits for.
    async fn ended(mut self) {
        let rest = self.output.read_to_string(&mut self.seen).await;
        let status = self.process.wait().await.expect("waiting for Node");
        assert!(
            rest.is_ok() && status.success(),
            "the page failed ({status}) in the last of these steps:\n{}",
            self.seen
        );
    }
}

fn has_chromium() -> bool {
    if let Some(named) = std::env::var_os("CHROMIUM") {
        return Path::new(&named).exists();
    }
    let paths = std::env::var_os("PATH").unwrap_or_default();
    std::env::split_paths(&paths).any(|folder| folder.join("chromium").exists())
}

/// An address that stays the same while the host behind it is replaced.
struct Front {
    address: String,
    /// The host's address, while there is one.
    target: watch::Sender<Option<String>>,
    accepting: JoinHandle<()>,
}

impl Front {
    async fn to(host: &str) -> Front {
        let listener = TcpListener::bind("127.0.0.1:0").await.expect("a port");
        let address = listener.local_addr().expect("an address").to_string();
        let (target, targets) = watch::channel(Some(host.to_owned()));
        let accepting = tokio::spawn(async move {
            while let Ok((client, _)) = listener.accept().await {
                tokio::spawn(pass_on(client, targets.clone()));
            }
        });
        Front {
            address,
            target,
            accepting,
        }
    }

    /// Leads to another host, or to none. Connections to the one before break.
    fn lead_to(&self, host: Option<&str>) {
        self.target.send_replace(host.map(str::to_owned));
    }
}

impl Drop for Front {
    fn drop(&mut self) {
        self.accepting.abort();
    }
}

/// Passes one connection on until it ends or the host changes. Without a host it breaks.
async fn pass_on(mut client: TcpStream, mut target: watch::Receiver<Option<String>>) {
    let Some(host) = target.borrow_and_update().clone() else {
        return;
    };
    let Ok(mut host) = TcpStream::connect(host).await else {
        return;
    };
    tokio::select! {
        _ = copy_bidirectional(&mut client, &mut host) => {}
        _ = target.changed() => {}
    }
}

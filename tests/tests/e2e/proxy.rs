//! Behind a real nginx, configured as `docs/operations.md` prints it.

use std::process::Stdio;
use std::time::Duration;

use http::{Method, StatusCode};
use serde_json::json;
use tidegate_tests::raw::Raw;
use tidegate_tests::{Folder, Host, PATIENCE, Request};
use tokio::net::TcpListener;
use tokio::process::{Child, Command};

/// How many ports are tried.
const ATTEMPTS: usize = 5;

const PAGE: &str = include_str!("../../../docs/operations.md");

/// The block of the page that configures nginx.
fn documented() -> &'static str {
    let mut blocks = PAGE.split("```nginx\n").skip(1);
    let block = blocks.next().and_then(|block| block.split("```").next());
    assert_eq!(blocks.next(), None, "one block is for nginx");
    block.expect("a block for nginx")
}

/// An nginx that passes on to a host.
struct Nginx {
    port: u16,
    _process: Child,
    _folder: Folder,
}

impl Nginx {
    /// On a port that is not the one that schemes have, with this for its `location`.
    async fn before(host: &Host, location: &str) -> Nginx {
        let location = location.replace("127.0.0.1:3000", host.address());
        assert!(location.contains(host.address()), "{location}");
        for _ in 0..ATTEMPTS {
            let free = TcpListener::bind("127.0.0.1:0").await.expect("a port");
            let port = free.local_addr().expect("an address").port();
            drop(free);
            // Somebody else may have taken it meanwhile.
            if let Some(nginx) = Nginx::on(port, &location).await {
                return nginx;
            }
        }
        panic!("nginx has found no free port");
    }

    /// None if it has ended instead of listening.
    async fn on(port: u16, location: &str) -> Option<Nginx> {
        let folder = Folder::new();
        let place = folder.path().display();
        let temporary: String = ["client_body", "proxy", "fastcgi", "uwsgi", "scgi"]
            .map(|kind| format!("{kind}_temp_path {place}/{kind};\n"))
            .concat();
        let configuration = format!(
            "daemon off;\nmaster_process off;\npid {place}/pid;\nerror_log stderr;\n\
             events {{}}\nhttp {{\naccess_log off;\n{temporary}\
             server {{\nlisten 127.0.0.1:{port};\n{location}}}\n}}\n"
        );
        let file = folder.path().join("nginx.conf");
        std::fs::write(&file, configuration).expect("writing nginx.conf");
        let path = std::env::var("PATH").unwrap_or_default();
        let mut process = Command::new("nginx")
            // Where Debian has it, and users do not look.
            .env("PATH", format!("{path}:/usr/sbin"))
            .arg("-p")
            .arg(folder.path())
            .arg("-c")
            .arg(&file)
            .stdout(Stdio::null())
            .kill_on_drop(true)
            .spawn()
            .expect("starting nginx, which `.ci/run` installs (Debian's nginx-light)");
        let begins = async {
            // Written once it listens.
            while !folder.path().join("pid").exists() {
                if process.try_wait().expect("looking at nginx").is_some() {
                    return None;
                }
                // Nothing tells when it is.
                tokio::time::sleep(Duration::from_millis(5)).await;
            }
            Some(())
        };
        let began = tokio::time::timeout(PATIENCE, begins).await;
        began.expect("nginx listens")?;
        Some(Nginx {
            port,
            _process: process,
            _folder: folder,
        })
    }

    fn address(&self) -> String {
        format!("127.0.0.1:{}", self.port)
    }

    /// How pages name it.
    fn name(&self) -> String {
        format!("live.example:{}", self.port)
    }

    /// The status of an upgrade that a page of this origin asks for.
    async fn upgrade(&self, origin: &str) -> u16 {
        let mut raw = Raw::at(&self.address()).await;
        raw.send(format!(
            "GET /ws HTTP/1.1\r\nHost: {}\r\nOrigin: {origin}\r\nConnection: upgrade\r\n\
             Upgrade: websocket\r\nSec-WebSocket-Version: 13\r\n\
             Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n\r\n",
            self.name()
        ))
        .await;
        raw.answer(false).await.status
    }

    fn request(&self, method: Method, path: &str) -> Request {
        let name = self.name();
        Request::new(&self.address(), method, path).header("host", &name)
    }
}

async fn host() -> Host {
    Host::builder()
        .component("counter")
        .set("gateway.hosts=[\"live.example\"]")
        .set("gateway.trusted-proxies=[\"127.0.0.1\"]")
        .start()
        .await
}

#[tokio::test]
async fn the_own_page_may_connect_through_the_documented_proxy() {
    let host = host().await;
    let cut = documented().replace("$http_host", "$host");
    let forwarded = documented().replace(
        "proxy_set_header Host $http_host;",
        "proxy_set_header X-Forwarded-Host $http_host;",
    );
    // As it is printed, with the port cut off, and with the host in another header.
    for location in [documented(), &cut, &forwarded] {
        let nginx = Nginx::before(&host, location).await;
        let own = format!("http://{}", nginx.name());
        assert_eq!(nginx.upgrade(&own).await, 101, "{location}");
        let page = nginx.request(Method::GET, "/").header("origin", &own);
        assert_eq!(page.status().await, StatusCode::OK);
        for other in ["http://evil.example", "http://localhost.evil.example"] {
            assert_eq!(nginx.upgrade(other).await, 403, "{location}");
        }
    }
}

#[tokio::test]
async fn calls_and_streams_pass_the_documented_proxy() {
    let host = host().await;
    let nginx = Nginx::before(&host, documented()).await;
    let state = nginx.request(Method::GET, "/actors/counter/a/state");
    let mut stream = state.stream().await;
    stream.expect("snapshot").await;
    for count in 1..=3 {
        let call = nginx.request(Method::POST, "/actors/counter/a/increment");
        let answer = call.json(&json!({"by": 1})).send().await;
        assert_eq!(answer.json(), count);
        // Not held back until there is more.
        stream.expect("patch").await;
    }
    // A path that a proxy would rewrite reaches no actor.
    let dots = nginx.request(Method::GET, "/actors/counter/%2e%2e/state");
    assert!(dots.status().await.is_client_error());
}

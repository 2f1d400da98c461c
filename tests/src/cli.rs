//! The commands of the binary, run as people run them, and a host for them to talk to whose
//! one answer a test writes down.
//!
//! Invariant: a command sees no variable of the machine that is a setting, and runs in an
//! empty folder of its own.

use std::path::Path;
use std::process::Stdio;

use tokio::io::{AsyncBufReadExt, AsyncReadExt, AsyncWriteExt, BufReader};
use tokio::net::{TcpListener, TcpStream};
use tokio::process::Command;
use tokio::task::JoinHandle;

use crate::host::{binary, compiled_folder};
use crate::{Folder, patiently};

/// A command that is about to be run.
pub struct Cli {
    command: Command,
    folder: Folder,
}

/// What came of it.
#[derive(Debug)]
pub struct Outcome {
    /// The exit code.
    pub code: Option<i32>,
    /// What it printed to standard output.
    pub out: String,
    /// What it printed to standard error.
    pub err: String,
}

/// `tidegate` with these arguments.
pub fn tidegate<const N: usize>(arguments: [&str; N]) -> Cli {
    let folder = Folder::new();
    let mut command = Command::new(binary());
    for (name, _) in std::env::vars_os() {
        if name.as_encoded_bytes().starts_with(b"TIDEGATE_") {
            command.env_remove(name);
        }
    }
    command
        .env("TIDEGATE_ENGINE_CACHE_DIR", compiled_folder())
        .args(arguments)
        .current_dir(folder.path())
        .stdin(Stdio::null())
        .kill_on_drop(true);
    Cli { command, folder }
}

impl Cli {
    /// Adds an argument.
    pub fn arg(mut self, argument: impl AsRef<std::ffi::OsStr>) -> Cli {
        self.command.arg(argument);
        self
    }

    /// Sets a variable.
    pub fn variable(mut self, name: &str, value: &str) -> Cli {
        self.command.env(name, value);
        self
    }

    /// Puts a file into the folder that the command runs in.
    pub fn file(self, name: &str, bytes: impl AsRef<[u8]>) -> Cli {
        let path = self.folder().join(name);
        let parent = path.parent().expect("a file lies in a folder");
        std::fs::create_dir_all(parent).expect("making a folder");
        std::fs::write(path, bytes).expect("writing a file");
        self
    }

    /// The folder that the command runs in.
    pub fn folder(&self) -> &Path {
        self.folder.path()
    }

    /// Runs it to its end.
    pub async fn run(self) -> Outcome {
        self.run_in_folder().await.0
    }

    /// Runs it to its end, and keeps the folder that it ran in.
    pub async fn run_in_folder(mut self) -> (Outcome, Folder) {
        let shown = format!("{:?}", self.command.as_std());
        let output = patiently(&shown, String::new, self.command.output()).await;
        let output = output.unwrap_or_else(|error| panic!("{shown}: {error}"));
        let text = |bytes| String::from_utf8(bytes).expect("a command prints UTF-8");
        let outcome = Outcome {
            code: output.status.code(),
            out: text(output.stdout),
            err: text(output.stderr),
        };
        (outcome, self.folder)
    }
}

impl Outcome {
    /// Asserts success, and returns what was printed to standard output.
    #[track_caller]
    pub fn printed(self) -> String {
        assert_eq!(self.code, Some(0), "{self:?}");
        self.out
    }

    /// Asserts that the command failed with 1 and one sentence that says all of this.
    #[track_caller]
    pub fn failed<const N: usize>(self, parts: [&str; N]) {
        assert_eq!(
            (self.code, self.out.as_str()),
            (Some(1), ""),
            "{}",
            self.err
        );
        let last = self.err.lines().last().unwrap_or_default();
        assert!(last.starts_with("tidegate: "), "{}", self.err);
        for part in parts {
            assert!(last.contains(part), "expected `{part}` in {last}");
        }
    }
}

/// A host that answers one request with a text that was written down before.
pub struct Scripted {
    address: String,
    asked: JoinHandle<Asked>,
}

/// What it was asked.
#[derive(Debug)]
pub struct Asked {
    /// The request line and the headers, as they came.
    pub head: String,
    /// The body, as far as it was read.
    pub body: Vec<u8>,
}

/// How much of a request is read before it is answered.
#[derive(Clone, Copy)]
enum Before {
    Body,
    Head,
}

impl Scripted {
    /// Reads a whole request and answers it with this status and these headers and body.
    pub async fn answering(status: &str, headers: &str, body: &str) -> Scripted {
        Scripted::start(Before::Body, answer(status, headers, body)).await
    }

    /// Answers before the body of the request has been sent.
    pub async fn refusing(status: &str, headers: &str, body: &str) -> Scripted {
        Scripted::start(Before::Head, answer(status, headers, body)).await
    }

    /// Answers with these server-sent events and closes the connection.
    pub async fn streaming(events: &str) -> Scripted {
        let head =
            "HTTP/1.1 200 OK\r\ncontent-type: text/event-stream\r\nconnection: close\r\n\r\n";
        Scripted::start(Before::Body, format!("{head}{events}")).await
    }

    async fn start(before: Before, answer: String) -> Scripted {
        let listener = TcpListener::bind("127.0.0.1:0").await.expect("a free port");
        let address = listener.local_addr().expect("an address").to_string();
        let asked = tokio::spawn(async move {
            let (stream, _) = listener.accept().await.expect("a connection");
            serve(stream, before, &answer).await.expect("a request")
        });
        Scripted { address, asked }
    }

    /// `http://127.0.0.1:PORT`.
    pub fn url(&self) -> String {
        format!("http://{}", self.address)
    }

    /// What it was asked, once that has happened.
    pub async fn asked(self) -> Asked {
        let asked = patiently("a request", String::new, self.asked).await;
        asked.expect("the scripted host served")
    }
}

impl Asked {
    /// The request line.
    pub fn line(&self) -> &str {
        self.head.lines().next().unwrap_or_default()
    }

    /// The value of a header.
    pub fn header(&self, name: &str) -> Option<&str> {
        self.head.lines().find_map(|line| {
            let (found, value) = line.split_once(':')?;
            found.eq_ignore_ascii_case(name).then(|| value.trim())
        })
    }
}

fn answer(status: &str, headers: &str, body: &str) -> String {
    let length = body.len();
    format!(
        "HTTP/1.1 {status}\r\n{headers}\r\ncontent-length: {length}\r\nconnection: close\r\n\r\n\
         {body}"
    )
}

async fn serve(stream: TcpStream, before: Before, answer: &str) -> std::io::Result<Asked> {
    let mut stream = BufReader::new(stream);
    let mut asked = Asked {
        head: String::new(),
        body: Vec::new(),
    };
    while !asked.head.ends_with("\r\n\r\n") {
        if stream.read_line(&mut asked.head).await? == 0 {
            return Ok(asked);
        }
    }
    let length = asked.header("content-length");
    let length: usize = length.and_then(|length| length.parse().ok()).unwrap_or(0);
    if let (Before::Body, 1..) = (before, length) {
        if asked.header("expect") == Some("100-continue") {
            stream.write_all(b"HTTP/1.1 100 Continue\r\n\r\n").await?;
        }
        asked.body.resize(length, 0);
        stream.read_exact(&mut asked.body).await?;
    }
    stream.write_all(answer.as_bytes()).await?;
    stream.shutdown().await?;
    Ok(asked)
}

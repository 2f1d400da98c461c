//! The attacks, each of which goes on until it is dropped, on a thread of its own, so that the
//! generator of the neighbour's calls has its own time.

use std::io::ErrorKind;
use std::net::{Ipv4Addr, SocketAddr};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::thread::JoinHandle;
use std::time::Duration;

use anyhow::{Result, ensure};
use clap::ValueEnum;
use tidegate_guests::hostile;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpSocket, TcpStream};
use tokio::task::JoinSet;

use super::uploads;
use crate::load::call::{Method, subscription};
use crate::load::connection::Connection;
use crate::load::crowd;
use crate::load::dialect::Dialect;
use crate::server::ADMIN_KEY;

/// How many items the states of attacks have.
const ITEMS: usize = 1_000_000;
/// Whence a crowd of one address comes: not whence the neighbour and the probes do.
const ATTACKER: Ipv4Addr = Ipv4Addr::new(127, 9, 9, 9);
/// How much a generator of attacks yields to everybody else on the machine (nice(2)).
const NICENESS: i32 = 10;
/// Between two attempts.
const PAUSE: Duration = Duration::from_millis(20);

/// A way to keep a host from serving others.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub(crate) enum Attack {
    /// Two turns that each put thousands of items in front of a long list.
    Patches,
    /// Inputs of a megabyte for a schema of thousands of parts.
    Schema,
    /// Views of a million objects for each of ten subscribers.
    Views,
    /// Turns that read a large state again and again.
    Reads,
    /// States that take much more memory than their text.
    Swell,
    /// An upload of half a million functions.
    Functions,
    /// An upload of one function of megabytes.
    Function,
    /// An upload of components within components.
    Nested,
    /// Uploads of as many functions as are compiled.
    CompiledFunctions,
    /// Uploads of one function that is as long as is compiled.
    CompiledFunction,
    /// Inputs of a megabyte with ever new keys, to ever new actors.
    Inputs,
    /// Messages that begin and never end.
    Fragments,
    /// Subscribers that do not read.
    Readers,
    /// One address that opens all the sockets that it gets.
    Sockets,
    /// Actors that each send to many new ones.
    Multiply,
    /// A thousand actors that compute for ever.
    Loops,
    /// Calls to ever new actors.
    Names,
}

/// What an attack has done so far.
#[derive(Default)]
pub(super) struct Tally {
    /// What the host has taken and done.
    pub(super) done: AtomicU64,
    /// What it has refused, or given up.
    pub(super) refused: AtomicU64,
}

impl Tally {
    fn count(&self, is_done: bool) {
        let counter = if is_done { &self.done } else { &self.refused };
        counter.fetch_add(1, Ordering::Relaxed);
    }
}

/// Who is attacked.
#[derive(Clone)]
struct Target {
    address: SocketAddr,
    tally: Arc<Tally>,
}

/// An attack that goes on until this is dropped.
pub(super) struct UnderWay {
    pub(super) tally: Arc<Tally>,
    ends: Arc<AtomicBool>,
    thread: Option<JoinHandle<()>>,
}

impl Drop for UnderWay {
    fn drop(&mut self) {
        self.ends.store(true, Ordering::Relaxed);
        if let Some(thread) = self.thread.take() {
            let _ = thread.join();
        }
    }
}

impl Attack {
    pub(super) fn label(self) -> &'static str {
        match self {
            Attack::Patches => "patches in front of a long list",
            Attack::Schema => "a schema of 4,000 parts",
            Attack::Views => "ten views of a million objects",
            Attack::Reads => "reads of a large state",
            Attack::Swell => "states of small objects",
            Attack::Functions => "upload: 500,000 functions",
            Attack::Function => "upload: a function of 7 MB",
            Attack::Nested => "upload: nested components",
            Attack::CompiledFunctions => "uploads: 99,000 functions, compiled",
            Attack::CompiledFunction => "uploads: a function of 1 MB, compiled",
            Attack::Inputs => "inputs of 1 MB, new keys",
            Attack::Fragments => "300 unfinished messages",
            Attack::Readers => "40 readers that do not read",
            Attack::Sockets => "every socket for one address",
            Attack::Multiply => "46 new actors each, 3 deep",
            Attack::Loops => "1,000 endless turns",
            Attack::Names => "ever new actors",
        }
    }

    /// What must be there before it begins.
    pub(super) async fn prepare(self, address: SocketAddr) -> Result<()> {
        let server = Target {
            address,
            tally: Arc::default(),
        };
        crowd::raise_limit()?;
        let filled = match self {
            Attack::Patches => 3,
            Attack::Reads => 4,
            _ => return Ok(()),
        };
        for number in 0..filled {
            let mut client = Client::open(&server).await?;
            client.call("attacker", "fill", &ITEMS.to_string(), number);
            let filled = client.answer().await?;
            ensure!(filled, "a state of {ITEMS} items is refused");
        }
        Ok(())
    }

    /// Begins it.
    pub(super) fn begin(self, address: SocketAddr) -> UnderWay {
        let tally: Arc<Tally> = Arc::default();
        let server = Target {
            address,
            tally: tally.clone(),
        };
        let ends = Arc::new(AtomicBool::new(false));
        let is_over = ends.clone();
        let thread = std::thread::spawn(move || {
            // It shares the machine with the host and with the neighbour, which it is not to keep
            // from running. On Linux this concerns the calling thread alone.
            let _ = rustix::process::setpriority_process(None, NICENESS);
            let runtime = tokio::runtime::Builder::new_current_thread()
                .enable_all()
                .build();
            let Ok(runtime) = runtime else { return };
            runtime.block_on(async {
                let over = async {
                    while !is_over.load(Ordering::Relaxed) {
                        tokio::time::sleep(PAUSE).await;
                    }
                };
                tokio::select! {
                    // What is refused, or cut off, is the host's defence.
                    () = self.go_on(server) => {}
                    () = over => {}
                }
            });
        });
        UnderWay {
            tally,
            ends,
            thread: Some(thread),
        }
    }

    async fn go_on(self, server: Target) {
        let crowd = match self {
            Attack::Patches => 3,
            Attack::Schema | Attack::Reads => 4,
            Attack::Swell => 20,
            Attack::Fragments => 300,
            Attack::Readers => 40,
            Attack::Inputs | Attack::Names => 16,
            _ => 1,
        };
        let mut parts = JoinSet::new();
        for number in 0..crowd {
            let server = server.clone();
            parts.spawn(async move {
                loop {
                    // Again where it was ended.
                    let _ = self.play(&server, number).await;
                    tokio::time::sleep(PAUSE).await;
                }
            });
        }
        parts.join_all().await;
    }

    /// The part of one of its clients.
    async fn play(self, server: &Target, number: u64) -> Result<()> {
        match self {
            Attack::Patches => repeat(server, "attacker", "prepend", "8000", number).await,
            Attack::Schema => {
                let input = format!("[{}1]", "1,".repeat(500_000));
                repeat(server, "checked", "check", &input, number).await
            }
            Attack::Reads => repeat(server, "attacker", "read", "null", number).await,
            Attack::Swell => {
                let items = ITEMS.to_string();
                repeat(server, "attacker", "swell", &items, number).await
            }
            Attack::Views => views(server).await,
            Attack::Functions => upload(server, &uploads::many_functions(500_000)).await,
            Attack::Function => upload(server, &uploads::one_function(7 << 20)).await,
            Attack::Nested => upload(server, &uploads::nested(90, 1_000)).await,
            // Each another one, so that each is compiled.
            Attack::CompiledFunctions => {
                for fewer in 0.. {
                    upload(server, &hostile::many_functions(99_000 - fewer)).await?;
                }
                Ok(())
            }
            Attack::CompiledFunction => {
                for shorter in 1.. {
                    upload(
                        server,
                        &hostile::long_function((1 << 20) - (4 << 10) * shorter),
                    )
                    .await?;
                }
                Ok(())
            }
            Attack::Inputs => inputs(server, number).await,
            Attack::Fragments => fragments(server).await,
            Attack::Readers => readers(server, number).await,
            Attack::Sockets => sockets(server).await,
            Attack::Multiply => {
                let input = r#"{"width":46,"depth":3}"#;
                let mut client = Client::open(server).await?;
                for number in 0.. {
                    client.call("attacker", "multiply", input, number);
                    client.answer().await?;
                    tokio::time::sleep(Duration::from_secs(5)).await;
                }
                Ok(())
            }
            Attack::Loops => {
                let mut client = Client::open(server).await?;
                for number in 0..1_000 {
                    client.call("attacker", "compute", "null", number);
                }
                for _ in 0..1_000 {
                    client.answer().await?;
                }
                Ok(())
            }
            Attack::Names => {
                let mut client = Client::open(server).await?;
                for round in 0.. {
                    for name in 0..100 {
                        client.call(
                            "attacker",
                            "keep",
                            "null",
                            (number << 40) + round * 100 + name,
                        );
                    }
                    for _ in 0..100 {
                        client.answer().await?;
                    }
                }
                Ok(())
            }
        }
    }
}

/// A client that takes failures for answers.
struct Client {
    connection: Connection,
    tally: Arc<Tally>,
}

impl Client {
    async fn open(server: &Target) -> Result<Client> {
        Ok(Client {
            connection: Connection::to(server.address, Dialect::Plain, 0).await?,
            tally: server.tally.clone(),
        })
    }

    fn call(&mut self, actor: &'static str, name: &'static str, input: &str, number: u64) {
        let input = input.to_owned();
        let mut text = Vec::new();
        Method { actor, name, input }.write(&mut text, number, number);
        self.connection.outgoing().text(&text);
    }

    /// Waits for the answer to a call, and whether it is a result.
    async fn answer(&mut self) -> Result<bool> {
        self.connection.flush().await?;
        loop {
            let message = self.connection.message().await?;
            if message.starts_with(r#"{"type":"rpc:result""#) {
                let is_done = !message.contains(r#","error":"#);
                self.tally.count(is_done);
                return Ok(is_done);
            }
        }
    }
}

/// Calls again and again.
async fn repeat(
    server: &Target,
    actor: &'static str,
    method: &'static str,
    input: &str,
    number: u64,
) -> Result<()> {
    let mut client = Client::open(server).await?;
    loop {
        client.call(actor, method, input, number);
        client.answer().await?;
    }
}

async fn views(server: &Target) -> Result<()> {
    let mut watching = Vec::new();
    for _ in 0..10 {
        let mut client = Client::open(server).await?;
        let subscribe = subscription("state:sub", "viewed", 0);
        client.connection.outgoing().text(subscribe.as_bytes());
        client.connection.flush().await?;
        watching.push(client);
    }
    let mut readers = JoinSet::new();
    for mut client in watching {
        readers.spawn(async move { while client.connection.message().await.is_ok() {} });
    }
    repeat(server, "viewed", "touch", "null", 0).await
}

/// Sends a file to be deployed.
async fn upload(server: &Target, file: &[u8]) -> Result<()> {
    let mut stream = TcpStream::connect(server.address).await?;
    let head = format!(
        "PUT /_tidegate/components/uploaded HTTP/1.1\r\nHost: {}\r\n\
         Authorization: Bearer {ADMIN_KEY}\r\nContent-Length: {}\r\nConnection: close\r\n\r\n",
        server.address,
        file.len()
    );
    stream.write_all(head.as_bytes()).await?;
    stream.write_all(file).await?;
    let mut answer = Vec::new();
    stream.read_to_end(&mut answer).await?;
    server.tally.count(answer.starts_with(b"HTTP/1.1 2"));
    Ok(())
}

/// Calls over HTTP with a large input and a new key each time.
async fn inputs(server: &Target, number: u64) -> Result<()> {
    let body = format!("\"{}\"", "x".repeat(1_000_000));
    for round in 0.. {
        let mut stream = TcpStream::connect(server.address).await?;
        let head = format!(
            "POST /actors/attacker/in-{number}-{round}/keep HTTP/1.1\r\nHost: {}\r\n\
             Idempotency-Key: \"{number}-{round}\"\r\nContent-Length: {}\r\n\
             Connection: close\r\n\r\n",
            server.address,
            body.len()
        );
        stream.write_all(head.as_bytes()).await?;
        stream.write_all(body.as_bytes()).await?;
        let mut answer = Vec::new();
        stream.read_to_end(&mut answer).await?;
        server.tally.count(answer.starts_with(b"HTTP/1.1 2"));
    }
    Ok(())
}

/// Begins a message of nearly a megabyte, and answers pings for ever.
async fn fragments(server: &Target) -> Result<()> {
    let mut client = Client::open(server).await?;
    let mut writer = TcpStream::from_std(client.connection.writer()?)?;
    // A text frame without FIN, masked with zeros.
    let payload = 1_000_000_u64;
    let mut frame = vec![0x01, 0x80 | 127];
    frame.extend(payload.to_be_bytes());
    frame.extend([0; 4]);
    frame.resize(frame.len() + payload as usize, b'x');
    writer.write_all(&frame).await?;
    loop {
        client.connection.message().await?;
    }
}

/// Subscribes to what is told, has much told, and reads nothing of it.
async fn readers(server: &Target, number: u64) -> Result<()> {
    let mut client = Client::open(server).await?;
    let subscribe = subscription("event:sub", "attacker", number);
    client.connection.outgoing().text(subscribe.as_bytes());
    client.connection.flush().await?;
    let mut teller = Client::open(server).await?;
    for _ in 0..18 {
        teller.call("attacker", "tell", "1000000", number);
        teller.answer().await?;
    }
    tokio::time::sleep(Duration::from_secs(5)).await;
    drop(client);
    Ok(())
}

/// Opens sockets until none is to be had, and holds them.
async fn sockets(server: &Target) -> Result<()> {
    let mut held: Vec<TcpStream> = Vec::new();
    loop {
        let opened = async {
            let socket = TcpSocket::new_v4()?;
            socket.bind((ATTACKER, 0).into())?;
            socket.connect(server.address).await
        };
        match opened.await {
            Ok(stream) => {
                server.tally.count(true);
                held.push(stream);
            }
            Err(_) => {
                server.tally.count(false);
                tokio::time::sleep(PAUSE).await;
            }
        }
        // Those that the host has let go are opened again.
        if held.len().is_multiple_of(256) {
            let is_open = |stream: &TcpStream| {
                let read = stream.try_read(&mut [0]);
                read.is_err_and(|error| error.kind() == ErrorKind::WouldBlock)
            };
            held.retain(is_open);
        }
    }
}

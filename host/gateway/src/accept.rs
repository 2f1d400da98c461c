//! Takes connections out of the system's backlog.
//!
//! The backlog is a line that is taken in order: a probe stands behind all who came before it. So
//! one that is refused has to cost little: unless it finds one of the few reserved places it is
//! never made a connection of the runtime's and no task is begun for it, and of a flood of them most
//! are not even told why. And the line is taken by a
//! thread of its own, which the system lets run beside those that serve, however busy they are.
//!
//! Invariant: nothing that a client does ends the loop.

use std::fs::File;
use std::io::{self, ErrorKind, Write};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::os::unix::net::UnixStream;
use std::sync::Arc;
use std::thread::JoinHandle;
use std::time::Duration;

use axum::Router;
use bytes::Bytes;
use rustix::event::{PollFd, PollFlags, poll};
use rustix::io::Errno;
use socket2::{Domain, Protocol, SockRef, Socket, Type};
use tidegate_core::Failure;
use tokio::runtime::Handle;
use tracing::{debug, warn};

use super::{Shared, admit, connection, http, reserved};

/// Connections that are taken before it is looked whether that is to end.
const AT_ONCE: usize = 64;

/// How long it is waited after an error that nobody knows how to mend.
const PAUSE: Duration = Duration::from_millis(50);

/// A listener whose backlog holds so many connections that were not taken yet.
pub(super) fn listen(address: SocketAddr, backlog: u32) -> io::Result<TcpListener> {
    let socket = Socket::new(
        Domain::for_address(address),
        Type::STREAM,
        Some(Protocol::TCP),
    )?;
    // A host that starts again does not wait for what is left of its last connections.
    socket.set_reuse_address(true)?;
    // One that is waited for may be gone when it is taken.
    socket.set_nonblocking(true)?;
    socket.bind(&address.into())?;
    socket.listen(i32::try_from(backlog).unwrap_or(i32::MAX))?;
    Ok(socket.into())
}

/// The thread that takes connections.
pub(super) struct Accepting {
    thread: JoinHandle<()>,
    /// Ends it when it is dropped.
    ends: UnixStream,
}

impl Accepting {
    /// Begins to take connections, which are served in the runtime that this is called in.
    pub(super) fn begin(
        listener: TcpListener,
        routes: Router,
        shared: Arc<Shared>,
    ) -> io::Result<Accepting> {
        let (ends, ended) = UnixStream::pair()?;
        let runtime = Handle::current();
        let mut acceptor = Acceptor {
            routes,
            shared,
            reserve: open_reserve(),
            is_known: false,
        };
        let thread = std::thread::Builder::new().name("accept".to_owned());
        let thread = thread.spawn(move || {
            let _within = runtime.enter();
            acceptor.run(&listener, &ended);
        })?;
        Ok(Accepting { thread, ends })
    }

    /// Closes the listener.
    pub(super) fn end(self) {
        drop(self.ends);
        // It is joined to know that the listener is closed; it has logged what it died of, if it
        // has.
        let _ = self.thread.join();
    }
}

struct Acceptor {
    routes: Router,
    shared: Arc<Shared>,
    /// A descriptor held back. When there is no other left, giving it up makes room to take
    /// one connection from the backlog; if it cannot be had back then, that one is refused.
    reserve: Option<File>,
    /// The log is told once that there are none left, not of each connection.
    is_known: bool,
}

impl Acceptor {
    /// Takes connections until the other end of `ended` is closed.
    fn run(&mut self, listener: &TcpListener, ended: &UnixStream) {
        loop {
            let mut waits = [
                PollFd::new(listener, PollFlags::IN),
                PollFd::new(ended, PollFlags::IN),
            ];
            match poll(&mut waits, None) {
                Ok(_) | Err(Errno::INTR) => {}
                Err(error) => {
                    warn!(%error, "cannot wait for connections");
                    std::thread::sleep(PAUSE);
                }
            }
            if !waits[1].revents().is_empty() {
                return;
            }
            for _ in 0..AT_ONCE {
                match listener.accept() {
                    Ok((stream, peer)) => {
                        if let Err(error) = self.take(stream, peer) {
                            warn!(%error, "a connection cannot be served");
                            std::thread::sleep(PAUSE);
                            break;
                        }
                    }
                    Err(error) if error.kind() == ErrorKind::WouldBlock => {
                        // It may have been given up for a connection that was not there: the
                        // system looks for a descriptor first.
                        self.reserve = self.reserve.take().or_else(open_reserve);
                        break;
                    }
                    Err(error) => {
                        if self.has_to_wait(&error) {
                            std::thread::sleep(PAUSE);
                            break;
                        }
                    }
                }
            }
        }
    }

    /// Serves a connection, or refuses it; fails where the runtime cannot take it.
    fn take(&mut self, stream: TcpStream, peer: SocketAddr) -> io::Result<()> {
        self.reserve = self.reserve.take().or_else(open_reserve);
        if self.reserve.is_none() {
            let failure = Failure::connection_limit().detail("it is out of file descriptors");
            self.refuse(stream, peer, &failure);
            self.reserve = open_reserve();
            return Ok(());
        }
        let (routes, shared) = (self.routes.clone(), self.shared.clone());
        match admit(peer.ip(), &shared) {
            Ok(place) => {
                self.is_known = false;
                let stream = runtimes_own(stream)?;
                let tasks = shared.tasks.clone();
                tasks.spawn(connection::serve(stream, peer, place, routes, shared, None));
            }
            Err(failure) => match shared.reserved.admit(peer) {
                Some(place) => {
                    let stream = runtimes_own(stream)?;
                    let tasks = shared.tasks.clone();
                    tasks.spawn(reserved::serve_if_reserved(
                        stream, peer, place, failure, routes, shared,
                    ));
                }
                None => self.refuse(stream, peer, &failure),
            },
        }
        Ok(())
    }

    /// Answers and closes, or resets the connection where that has been done often.
    fn refuse(&self, mut stream: TcpStream, peer: SocketAddr, failure: &Failure) {
        match last_words(peer, failure, &self.shared) {
            // It does not wait: nothing was written before. The peer may be gone already.
            Some(answer) => drop(stream.write(&answer)),
            None => reset(&stream),
        }
    }

    /// Whether nothing else helps.
    fn has_to_wait(&mut self, error: &io::Error) -> bool {
        if is_out_of_descriptors(error) {
            if !std::mem::replace(&mut self.is_known, true) {
                warn!(%error, "the host is out of file descriptors: connections are refused");
            }
            if self.reserve.take().is_some() {
                return false;
            }
        }
        // The peer gave up while it was in the backlog.
        if error.kind() == ErrorKind::ConnectionAborted {
            return false;
        }
        warn!(%error, "cannot accept");
        true
    }
}

fn open_reserve() -> Option<File> {
    File::open("/dev/null").ok()
}

fn is_out_of_descriptors(error: &io::Error) -> bool {
    const ENFILE: i32 = 23;
    const EMFILE: i32 = 24;
    matches!(error.raw_os_error(), Some(EMFILE | ENFILE))
}

fn runtimes_own(stream: TcpStream) -> io::Result<tokio::net::TcpStream> {
    stream.set_nonblocking(true)?;
    tokio::net::TcpStream::from_std(stream)
}

/// Has the system reset a connection when it is closed.
pub(super) fn reset<'s>(stream: impl Into<SockRef<'s>>) {
    // It may be gone already.
    let _ = stream.into().set_linger(Some(Duration::ZERO));
}

/// What a connection is told that is refused; none where that was told often of late.
pub(super) fn last_words(peer: SocketAddr, failure: &Failure, shared: &Shared) -> Option<Bytes> {
    tell_of(peer, failure, shared);
    let may_be_told = shared.refusal_answers.check().is_ok();
    may_be_told.then(|| connection::last_answer(failure, "retry-after: 1\r\n"))
}

/// A flood of them must not become one of the log; the metrics count them.
fn tell_of(peer: SocketAddr, failure: &Failure, shared: &Shared) {
    debug!(%peer, %failure, "a connection is refused");
    http::count_refusal(failure, &shared.metrics);
}

//! Places for probes and operators when clients have taken all others.
//!
//! A host that is full is not ill: whoever asks whether it lives, or wants to find out who fills
//! it, must be heard. What comes when no other place is free is looked at: the first line of its
//! request says whether it may take one of the reserved places.
//!
//! Invariant: a place is held by one who has sent no request for `gateway.reserved-timeout-ms` at
//! most, and one address has no more than half of them.

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use axum::Router;
use tidegate_auth::limits::{AddressLimits, AddressPermit};
use tidegate_core::Failure;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::sync::{OwnedSemaphorePermit, Semaphore};

use super::accept::{last_words, reset};
use super::connection::serve;
use super::{Place, Shared};

/// What such requests begin with, behind their method.
const SERVED: [&[u8]; 3] = [b"/health ", b"/ready ", b"/_tidegate/"];

/// Longest beginning that is looked at: a method and one of those.
const LOOKED_AT: usize = 32;

/// How much of a refused request is read over, in bytes.
const MOST_READ_OVER: usize = 64 << 10;

/// How often it is looked for the rest of a beginning that came in parts.
const PAUSE: Duration = Duration::from_millis(10);

/// The reserved places.
pub(super) struct Reserved {
    places: Arc<Semaphore>,
    addresses: AddressLimits,
}

/// One of them.
pub(super) struct ReservedPlace {
    _place: OwnedSemaphorePermit,
    _address: AddressPermit,
}

impl Reserved {
    pub(super) fn new(count: usize) -> Reserved {
        Reserved {
            places: Arc::new(Semaphore::new(count.min(Semaphore::MAX_PERMITS))),
            addresses: AddressLimits::new(count.div_ceil(2)),
        }
    }

    pub(super) fn admit(&self, peer: SocketAddr) -> Option<ReservedPlace> {
        let place = self.places.clone().try_acquire_owned().ok()?;
        Some(ReservedPlace {
            _place: place,
            _address: self.addresses.admit(peer.ip()).ok()?,
        })
    }
}

/// Serves one who found no other place, if it is a probe's or an operator's request, else says why
/// there is none.
pub(super) async fn serve_if_reserved(
    stream: TcpStream,
    peer: SocketAddr,
    place: ReservedPlace,
    refusal: Failure,
    routes: Router,
    shared: Arc<Shared>,
) {
    let patience = Duration::from_millis(shared.settings.reserved_timeout_ms);
    let asks = tokio::select! {
        asks = tokio::time::timeout(patience, asks_for_reserved(&stream)) => asks,
        () = shared.stopped() => return,
    };
    match asks {
        Ok(true) => {
            let place = Place::reserved(place, &shared);
            serve(stream, peer, place, routes, shared, Some(patience)).await;
        }
        _ => {
            let _place = place;
            let refusing = refuse_heard(stream, peer, &refusal, &shared);
            // Whoever does not hear it in time has had a chance.
            let _ = tokio::time::timeout(patience, refusing).await;
        }
    }
}

/// Refuses a request of which something has arrived. What is left unread of it would have the
/// system reset the connection, and the answer be lost (RFC 9112, section 9.6).
async fn refuse_heard(mut stream: TcpStream, peer: SocketAddr, refusal: &Failure, shared: &Shared) {
    let Some(answer) = last_words(peer, refusal, shared) else {
        return reset(&stream);
    };
    // As far as that goes without waiting.
    let _ = stream.try_write(&answer);
    // It may be gone already.
    let _ = stream.shutdown().await;
    let mut rest = [0; 1024];
    for _ in 0..MOST_READ_OVER / rest.len() {
        if !matches!(stream.read(&mut rest).await, Ok(1..)) {
            return;
        }
    }
}

/// Whether what has arrived begins as such a request does. It stays to be read.
async fn asks_for_reserved(stream: &TcpStream) -> bool {
    let mut beginning = [0; LOOKED_AT];
    loop {
        let length = match stream.peek(&mut beginning).await {
            Ok(0) | Err(_) => return false,
            Ok(length) => length,
        };
        match is_reserved(&beginning[..length]) {
            Some(is_reserved) => return is_reserved,
            // What is there already would be reported again at once.
            None => tokio::time::sleep(PAUSE).await,
        }
    }
}

/// Whether a request that begins like this is served; none while that cannot be said.
fn is_reserved(beginning: &[u8]) -> Option<bool> {
    let undecided = (beginning.len() < LOOKED_AT).then_some(None);
    let Some(end) = beginning.iter().position(|byte| *byte == b' ') else {
        return undecided.unwrap_or(Some(false));
    };
    let path = &beginning[end + 1..];
    if SERVED.iter().any(|served| path.starts_with(served)) {
        return Some(true);
    }
    let may_become = SERVED.iter().any(|served| served.starts_with(path));
    (!may_become).then_some(false)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn probes_and_operators_are_told_by_the_first_line() {
        for (beginning, expected) in [
            ("GET /health HTTP/1.1\r\n", Some(true)),
            ("HEAD /ready HTTP/1.1\r\n", Some(true)),
            ("DELETE /_tidegate/actors/a/b", Some(true)),
            ("GET /healthy HTTP/1.1\r\n", Some(false)),
            ("GET /ws HTTP/1.1\r\n", Some(false)),
            ("POST /actors/", Some(false)),
            ("GET", None),
            ("GET /", None),
            ("GET /hea", None),
            ("GET /_tide", None),
            ("xxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxx", Some(false)),
        ] {
            let beginning = &beginning.as_bytes()[..beginning.len().min(LOOKED_AT)];
            assert_eq!(is_reserved(beginning), expected, "{beginning:?}");
        }
    }

    #[tokio::test]
    async fn one_address_does_not_have_all_of_them() {
        let reserved = Reserved::new(4);
        let from = |last: u8| SocketAddr::from(([10, 0, 0, last], 1));
        let held: Vec<_> = (0..4).filter_map(|_| reserved.admit(from(1))).collect();
        assert_eq!(held.len(), 2);
        assert!(reserved.admit(from(2)).is_some());
    }
}

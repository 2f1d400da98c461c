//! Who sends a request: where from, under which id, and by which token.

use std::convert::Infallible;
use std::net::IpAddr;
use std::sync::Arc;

use axum::extract::FromRequestParts;
use http::request::Parts;
use http::{HeaderMap, HeaderName};
use tidegate_actor::random_id;
use tidegate_auth::{self as auth, Identity};
use tidegate_base::clock::{Steps, coarse_system_ms};
use tidegate_core::{Client, Failure};
use tidegate_ws::handshake;

use super::Shared;

/// Names a request in both directions.
pub(super) const REQUEST_ID: HeaderName = HeaderName::from_static("x-request-id");

/// Longest request id that is taken over.
const REQUEST_ID_MAX_BYTES: usize = 128;

/// What the gateway knows of a request before any route does.
#[derive(Clone, Debug)]
pub(super) struct Arrival {
    /// Where it comes from, behind trusted proxies.
    pub(super) address: IpAddr,
    /// Its name in the log.
    pub(super) id: Arc<str>,
}

/// What is asked of a route's caller.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum TokenFrom {
    /// The Authorization header only.
    Header,
    /// The query as well, for clients that cannot set headers.
    HeaderOrQuery,
    /// The offered subprotocols as well, at the upgrade to a WebSocket.
    Upgrade,
}

/// Who sends a request.
#[derive(Clone, Debug, Default)]
pub(super) struct Caller {
    /// Boxed, because most sockets of those that stay idle have none.
    pub(super) identity: Option<Box<Identity>>,
}

impl Caller {
    /// As handlers see it, over HTTP.
    pub(super) fn client(&self) -> Client {
        Client {
            connection: None,
            user: self.user(),
        }
    }

    /// Verified claims.
    pub(super) fn user(&self) -> Option<Arc<str>> {
        self.identity
            .as_ref()
            .map(|identity| identity.claims.clone())
    }

    /// The user's name, for the log.
    pub(super) fn subject(&self) -> Option<&str> {
        self.identity.as_ref()?.subject.as_deref()
    }

    /// When the token is good no longer, in milliseconds since the Unix epoch.
    pub(super) fn refused_from_ms(&self) -> Option<u64> {
        self.identity.as_ref()?.refused_from_ms
    }

    /// Completes when the token has expired; never without one that does.
    pub(super) async fn expired(refused_from_ms: Option<u64>, steps: Steps) {
        match refused_from_ms {
            Some(at_ms) => steps.until_ms(at_ms).await,
            None => std::future::pending().await,
        }
    }
}

/// Whether a token that is refused from this moment is good no longer. Cheap enough to be asked
/// for each frame: nobody is told by a timer the moment that the clock is set.
pub(super) fn has_expired(refused_from_ms: Option<u64>) -> bool {
    refused_from_ms.is_some_and(|at_ms| coarse_system_ms() >= at_ms)
}

impl Shared {
    /// The caller by their token, or why they are not let in.
    pub(super) fn identify(
        &self,
        headers: &HeaderMap,
        query: Option<&str>,
        from: TokenFrom,
    ) -> Result<Caller, Failure> {
        let Some(tokens) = &self.tokens else {
            return Ok(Caller::default());
        };
        let query = query.filter(|_| from != TokenFrom::Header);
        let offered = handshake::offered_tokens(headers).filter(|_| from == TokenFrom::Upgrade);
        match auth::bearer(headers, query, offered)? {
            Some(token) => Ok(Caller {
                identity: Some(tokens.verify(&token)?.into()),
            }),
            None if self.allow_anonymous => Ok(Caller::default()),
            None => Err(Failure::auth_required()),
        }
    }

    /// What arrives, by its headers and where its socket leads.
    pub(super) fn arrival(&self, peer: IpAddr, headers: &HeaderMap) -> Arrival {
        let given = headers.get(REQUEST_ID).and_then(|id| id.to_str().ok());
        let is_fit = |id: &&str| {
            (1..=REQUEST_ID_MAX_BYTES).contains(&id.len())
                && id.bytes().all(|b| b.is_ascii_graphic())
        };
        Arrival {
            address: self.client_addresses.of(peer, headers),
            id: match given.filter(is_fit) {
                Some(id) => id.into(),
                None => random_id(8).into(),
            },
        }
    }
}

impl<S: Sync> FromRequestParts<S> for Arrival {
    type Rejection = Infallible;

    async fn from_request_parts(parts: &mut Parts, _: &S) -> Result<Arrival, Infallible> {
        let arrival = parts.extensions.get::<Arrival>();
        Ok(arrival
            .expect("the guard notes it for every request")
            .clone())
    }
}

//! Who is calling: JSON Web Tokens (RFC 7519) that are signed with HS256, by the host's
//! rules (`host/auth/src`).
//!
//! Invariant: of a token nothing is believed before its signature is checked.

use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use hmac::{Hmac, Mac};
use serde_json::{Map, Value};
use sha2::Sha256;
use tidegate_core::{Failure, unambiguous};

use crate::head::Head;
use crate::{clock, settings};

/// Fewest bytes of a secret (RFC 7518, section 3.2).
pub const MIN_SECRET_BYTES: usize = 32;
/// Most bytes of a token.
const MAX_TOKEN_BYTES: usize = 8 << 10;
/// By how much clocks may differ, in milliseconds.
const LEEWAY_MS: u64 = 5_000;
/// How far away `exp` may be: 10 000 years of 365.25 days. What is further is no time that anybody
/// means.
const MAX_LIFETIME_MS: u64 = 315_576_000_000_000;
/// The latest time that browsers can tell; later ends of tokens are taken for it.
const MAX_TIME_MS: u64 = 8_640_000_000_000_000;

/// Verifies tokens.
#[derive(Clone)]
pub struct Tokens {
    /// At least [`MIN_SECRET_BYTES`].
    pub secret: Vec<u8>,
    /// What `aud` must hold.
    pub audience: Option<String>,
    /// What `iss` must be.
    pub issuer: Option<String>,
}

/// Who a verified token says its bearer is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Identity {
    /// The claims: a JSON object as text.
    pub claims: String,
    /// From when on the token is refused; without it, it does not expire.
    pub refused_from_ms: Option<u64>,
}

/// What is asked of a request's token.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum TokenFrom {
    /// The Authorization header only.
    Header,
    /// The query as well, for clients that cannot set headers.
    HeaderOrQuery,
}

fn invalid(reason: &str, message: &str) -> Failure {
    Failure::auth_invalid(message, reason)
}

/// The token of a request; none when it has none.
pub fn bearer(head: &Head, from: TokenFrom) -> Result<Option<String>, Failure> {
    let malformed = |message| Err(invalid("malformed", message));
    let mut token: Option<String> = None;
    let query = head
        .query
        .as_deref()
        .filter(|_| from == TokenFrom::HeaderOrQuery);
    let pairs = form_urlencoded::parse(query.unwrap_or_default().as_bytes());
    for (_, found) in pairs.filter(|(name, _)| name == "token") {
        match &token {
            _ if found.is_empty() => return malformed("`?token=` is empty"),
            None => token = Some(found.into_owned()),
            Some(first) if *first == found => {}
            Some(_) => return malformed("two different tokens in the query"),
        }
    }
    let mut values = head.authorizations();
    let header = match (values.next(), values.next()) {
        (None, _) => return Ok(token),
        (Some(_), Some(_)) => return malformed("more than one Authorization header"),
        (Some(value), None) => value
            .and_then(|text| text.split_once(' '))
            .filter(|(scheme, _)| scheme.eq_ignore_ascii_case("bearer"))
            .map(|(_, token)| token.trim_matches(' '))
            .filter(|token| !token.is_empty() && token.bytes().all(|b| b.is_ascii_graphic())),
    };
    match (header, token) {
        (Some(header), Some(token)) if header != token => {
            malformed("the Authorization header and `?token=` differ")
        }
        (Some(header), _) => Ok(Some(header.to_owned())),
        (None, Some(token)) => Ok(Some(token)),
        (None, None) => malformed("expected `Authorization: Bearer TOKEN`"),
    }
}

impl Tokens {
    /// Who the bearer of this token is: `auth.expired`, or `auth.invalid` with a `reason`.
    pub fn verify(&self, token: &str, now_ms: u64) -> Result<Identity, Failure> {
        if token.len() > MAX_TOKEN_BYTES {
            let found = token.len();
            let message =
                format!("expected a token of at most {MAX_TOKEN_BYTES} bytes, found {found}");
            return Err(invalid("too-long", &message));
        }
        let claims = self.signed_claims(token)?;
        self.identity(claims, now_ms)
    }

    fn signed_claims(&self, token: &str) -> Result<Map<String, Value>, Failure> {
        let malformed = |message| invalid("malformed", message);
        let (message, signature) = token.rsplit_once('.').ok_or_else(|| malformed(NOT_JWT))?;
        let (head, payload) = message.split_once('.').ok_or_else(|| malformed(NOT_JWT))?;
        if payload.contains('.') {
            return Err(malformed(NOT_JWT));
        }
        let head = json_object(head).ok_or_else(|| malformed(BAD_HEAD))?;
        // RFC 7515, section 4.1.11: what is critical must be understood.
        if head.contains_key("crit") {
            return Err(malformed(
                "the token's head has critical extensions, which this host does not know",
            ));
        }
        if head.get("kid").is_some_and(|kid| !kid.is_string()) {
            return Err(malformed("the token's `kid` is not a string"));
        }
        match head.get("alg") {
            Some(Value::String(algorithm)) if algorithm == "HS256" => {}
            Some(Value::String(_)) => {
                let message = "expected a token that is signed with HS256";
                return Err(invalid("algorithm", message));
            }
            _ => return Err(malformed("the token's head has no `alg`")),
        }
        let signature = URL_SAFE_NO_PAD.decode(signature);
        let signature =
            signature.map_err(|_| malformed("the token's signature is not base64url"))?;
        match is_signed(&self.secret, message.as_bytes(), &signature) {
            true => json_object(payload).ok_or_else(|| malformed(BAD_CLAIMS)),
            false => Err(invalid(
                "signature",
                "the token's signature is not of a key of this host",
            )),
        }
    }

    fn identity(&self, claims: Map<String, Value>, now_ms: u64) -> Result<Identity, Failure> {
        let expires_at_ms = time(&claims, "exp")?;
        let begins_at_ms = time(&claims, "nbf")?;
        match claims.get("sub") {
            None => {}
            Some(Value::String(subject)) if !subject.is_empty() => {}
            Some(_) => {
                let message = "the token's `sub` is not a string, or is empty";
                return Err(invalid("malformed", message));
            }
        }
        if let Some(issuer) = &self.issuer
            && claims.get("iss").and_then(Value::as_str) != Some(issuer)
        {
            return Err(invalid(
                "issuer",
                "the token's `iss` is not the expected one",
            ));
        }
        if let Some(audience) = &self.audience
            && !is_for(&claims, audience)
        {
            return Err(invalid(
                "audience",
                "the token's `aud` does not name this host",
            ));
        }
        let refused_from_ms = expires_at_ms.map(|ms| ms.saturating_add(LEEWAY_MS));
        if refused_from_ms.is_some_and(|end| now_ms >= end) {
            return Err(Failure::auth_expired());
        }
        if expires_at_ms.is_some_and(|end| end.saturating_sub(now_ms) > MAX_LIFETIME_MS) {
            return Err(invalid(
                "too-far",
                "the token's `exp` is too far away: expected seconds since 1970, and it looks like \
                 milliseconds",
            ));
        }
        if begins_at_ms.is_some_and(|begin| now_ms.saturating_add(LEEWAY_MS) < begin) {
            return Err(invalid("not-yet-valid", "the token is not valid yet"));
        }
        Ok(Identity {
            claims: Value::Object(claims).to_string(),
            refused_from_ms,
        })
    }
}

/// Who sends a request, by the application's settings; none for an anonymous client.
pub fn identify(head: &Head, from: TokenFrom) -> Result<Option<Identity>, Failure> {
    let Some(tokens) = settings::tokens()? else {
        return Ok(None);
    };
    match bearer(head, from)? {
        Some(token) => tokens.verify(&token, clock::unix_ms()).map(Some),
        None if settings::allows_anonymous()? => Ok(None),
        None => Err(Failure::auth_required()),
    }
}

/// Whether two secrets are the same; in a time that does not depend on where they differ.
pub fn is_same(one: &str, other: &str) -> bool {
    let key = b"tidegate-compare";
    is_signed(key, one.as_bytes(), &sign(key, other.as_bytes()))
}

/// Whether HMAC-SHA256 of the message is this signature; in constant time.
pub(crate) fn is_signed(secret: &[u8], message: &[u8], signature: &[u8]) -> bool {
    mac(secret, message).verify_slice(signature).is_ok()
}

/// HMAC-SHA256 of a message.
pub(crate) fn sign(secret: &[u8], message: &[u8]) -> Vec<u8> {
    mac(secret, message).finalize().into_bytes().to_vec()
}

fn mac(secret: &[u8], message: &[u8]) -> Hmac<Sha256> {
    let mac = Hmac::<Sha256>::new_from_slice(secret);
    mac.expect("HMAC takes keys of any length")
        .chain_update(message)
}

const NOT_JWT: &str = "expected a signed JSON Web Token: three parts with dots between";
const BAD_HEAD: &str = "the token's head is not an unambiguous JSON object in base64url";
const BAD_CLAIMS: &str = "the token's claims are not an unambiguous JSON object in base64url";

fn json_object(part: &str) -> Option<Map<String, Value>> {
    let bytes = URL_SAFE_NO_PAD.decode(part).ok()?;
    let text = std::str::from_utf8(&bytes).ok()?;
    match unambiguous::parse(text).ok()? {
        Value::Object(object) => Some(object),
        _ => None,
    }
}

/// A claim that is a time: seconds since 1970, perhaps with a fraction.
fn time(claims: &Map<String, Value>, name: &str) -> Result<Option<u64>, Failure> {
    let Some(value) = claims.get(name) else {
        return Ok(None);
    };
    let ms = match value.as_u64() {
        Some(seconds) => Some(seconds.saturating_mul(1000)),
        None => value
            .as_f64()
            .filter(|seconds| seconds.is_finite() && *seconds >= 0.0)
            .map(|seconds| (seconds * 1000.0) as u64),
    };
    match ms {
        Some(ms) => Ok(Some(ms.min(MAX_TIME_MS))),
        None => Err(invalid(
            "malformed",
            &format!("the token's `{name}` is not a number of seconds since 1970"),
        )),
    }
}

/// Whether `aud`, a string or an array of strings, names this audience.
fn is_for(claims: &Map<String, Value>, audience: &str) -> bool {
    match claims.get("aud") {
        Some(Value::String(named)) => named == audience,
        Some(Value::Array(named)) => named.iter().any(|named| named == audience),
        _ => false,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    const SECRET: &[u8] = b"a secret of thirty-two bytes, ok";

    fn tokens() -> Tokens {
        Tokens {
            secret: SECRET.to_vec(),
            audience: None,
            issuer: None,
        }
    }

    fn token(head: Value, claims: Value, secret: &[u8]) -> String {
        let part = |value: Value| URL_SAFE_NO_PAD.encode(value.to_string());
        let message = format!("{}.{}", part(head), part(claims));
        let signature = URL_SAFE_NO_PAD.encode(sign(secret, message.as_bytes()));
        format!("{message}.{signature}")
    }

    fn good(claims: Value) -> String {
        token(json!({"alg": "HS256"}), claims, SECRET)
    }

    fn reason(token: &str) -> Value {
        let failure = tokens().verify(token, 1_000_000).unwrap_err();
        assert_eq!((&*failure.code, failure.status), ("auth.invalid", 401));
        failure.params.unwrap()["reason"].clone()
    }

    #[test]
    fn a_good_token_says_who_calls() {
        let token = good(json!({"sub": "ann", "exp": 2_000}));
        let identity = tokens().verify(&token, 1_000_000).unwrap();
        assert_eq!(identity.claims, r#"{"exp":2000,"sub":"ann"}"#);
        assert_eq!(identity.refused_from_ms, Some(2_005_000));
        assert_eq!(
            tokens().verify(&token, 2_005_000).unwrap_err(),
            Failure::auth_expired()
        );
    }

    #[test]
    fn a_bad_token_says_why() {
        let claims = || json!({"sub": "ann"});
        assert_eq!(reason("a.b"), "malformed");
        assert_eq!(reason(&"a".repeat(9000)), "too-long");
        assert_eq!(
            reason(&token(json!({"alg": "none"}), claims(), SECRET)),
            "algorithm"
        );
        assert_eq!(reason(&token(json!({}), claims(), SECRET)), "malformed");
        let other = token(json!({"alg": "HS256"}), claims(), &[7; 32]);
        assert_eq!(reason(&other), "signature");
        assert_eq!(reason(&good(json!({"nbf": 2_000}))), "not-yet-valid");
        assert_eq!(
            reason(&good(json!({"exp": 1_700_000_000_000_u64}))),
            "too-far"
        );
        assert_eq!(reason(&good(json!({"sub": ""}))), "malformed");
        assert_eq!(reason(&good(json!([]))), "malformed");
    }

    #[test]
    fn audience_and_issuer_are_checked_where_they_are_set() {
        let strict = Tokens {
            audience: Some("us".to_owned()),
            issuer: Some("them".to_owned()),
            ..tokens()
        };
        let verify = |claims| strict.verify(&good(claims), 0);
        assert!(verify(json!({"aud": ["x", "us"], "iss": "them"})).is_ok());
        assert!(verify(json!({"aud": "x", "iss": "them"})).is_err());
        assert!(verify(json!({"aud": "us"})).is_err());
    }

    #[test]
    fn a_token_is_in_the_header_or_where_it_may_be_in_the_query() {
        let head = |values: &[&str], query: &str| Head {
            headers: values
                .iter()
                .map(|value| ("authorization".to_owned(), value.as_bytes().to_vec()))
                .collect(),
            query: Some(query.to_owned()),
            ..Head::default()
        };
        let both = TokenFrom::HeaderOrQuery;
        let found = |head: &Head, from| bearer(head, from).unwrap();
        assert_eq!(
            found(&head(&["bearer  a.b "], ""), both).as_deref(),
            Some("a.b")
        );
        assert_eq!(found(&head(&[], "token=a"), both).as_deref(), Some("a"));
        assert_eq!(found(&head(&[], "token=a"), TokenFrom::Header), None);
        assert_eq!(
            found(&head(&["Basic x"], "token=a"), both).as_deref(),
            Some("a")
        );
        for (values, query) in [
            (&["Bearer a", "Bearer a"][..], ""),
            (&["Basic x"], ""),
            (&["Bearer a"], "token=b"),
            (&[], "token="),
        ] {
            assert!(
                bearer(&head(values, query), both).is_err(),
                "{values:?} {query}"
            );
        }
    }
}

//! Verifies tokens: JSON Web Tokens (RFC 7519) in their compact, signed form (RFC 7515).
//!
//! The gateway calls [`Tokens::verify`] at the upgrade, for every HTTP request and for
//! `auth` frames. It does no waiting; the key file is looked at now and then on the way.
//!
//! Invariant: of a token nothing is believed before its signature is checked, with a key
//! that the configuration binds to the algorithm.

use std::sync::Arc;

use serde_json::{Map, Value};
use tidegate_base::clock::system_ms;
use tidegate_core::{Failure, unambiguous};

use super::config;
use super::key_file::KeyFile;
use super::keys::{Format, NoKey, Signature, decode};
use super::{Algorithm, AuthError, Reason};

/// The latest time that browsers can tell; later ends of tokens are taken for it.
const MAX_TIME_MS: u64 = 8_640_000_000_000_000;

/// Who a verified token says its bearer is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Identity {
    /// The claims: a JSON object as text, compact, without a member twice.
    pub claims: Arc<str>,
    /// `sub`, which is not empty.
    pub subject: Option<Arc<str>>,
    /// `exp`, in milliseconds since 1970; without it the token does not expire.
    pub expires_at_ms: Option<u64>,
    /// From when on the token is refused: `exp` and the leeway. What closes a connection
    /// uses this, so that a token is never good for connecting and too old to stay.
    pub refused_from_ms: Option<u64>,
}

/// Verifies tokens as configured.
pub struct Tokens {
    algorithms: Vec<Algorithm>,
    audience: Option<String>,
    issuer: Option<String>,
    leeway_ms: u64,
    max_lifetime_ms: u64,
    max_bytes: usize,
    file: KeyFile,
}

impl std::fmt::Debug for Tokens {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Tokens")
            .field("algorithms", &self.algorithms)
            .finish_non_exhaustive()
    }
}

impl Tokens {
    /// Reads the keys; `None` when none are configured and everybody is anonymous.
    ///
    /// Settings that only make sense with keys are refused without them, so that a
    /// forgotten key file does not let everybody in.
    pub fn open(settings: &config::Auth) -> Result<Option<Tokens>, AuthError> {
        let (setting, path) = match (&settings.key_file, &settings.jwks_file) {
            (Some(_), Some(_)) => {
                return Err(setting_error(
                    "auth.key-file",
                    "auth.jwks-file is set as well: expected one of them",
                ));
            }
            (Some(path), None) => ("auth.key-file", path),
            (None, Some(path)) => ("auth.jwks-file", path),
            (None, None) => return without_keys(settings).map(|()| None),
        };
        let algorithms = settings
            .algorithms
            .iter()
            .map(|name| name.parse())
            .collect::<Result<Vec<Algorithm>, String>>()
            .map_err(|problem| setting_error("auth.algorithms", problem))?;
        let format = match (setting, algorithms.as_slice()) {
            (_, []) => {
                return Err(setting_error(
                    "auth.algorithms",
                    format!(
                        "expected what tokens are signed with, as {setting} is set: HS256, RS256, ES256 or EdDSA"
                    ),
                ));
            }
            ("auth.key-file", [algorithm]) => Format::Single(*algorithm),
            ("auth.key-file", several) => {
                return Err(setting_error(
                    "auth.algorithms",
                    format!(
                        "expected one algorithm for the one key of auth.key-file, found {}",
                        several.len()
                    ),
                ));
            }
            (_, several) => Format::Set(several.to_vec()),
        };
        let file = KeyFile::open(setting, path, format, settings.reload_interval_ms)?;
        Ok(Some(Tokens {
            algorithms,
            audience: settings.audience.clone(),
            issuer: settings.issuer.clone(),
            leeway_ms: settings.leeway_ms,
            max_lifetime_ms: settings.max_lifetime_ms,
            max_bytes: settings.max_token_bytes,
            file,
        }))
    }

    /// Who the bearer of this token is.
    ///
    /// Fails with `auth.expired`, or with `auth.invalid` and a `reason`. A token without
    /// `exp` is accepted and does not expire. `exp` and `nbf` are compared in milliseconds,
    /// with the leeway in the token's favour.
    pub fn verify(&self, token: &str) -> Result<Identity, Failure> {
        self.verify_at(token, system_ms(), self.file.uptime_ms())
    }

    fn verify_at(&self, token: &str, now_ms: u64, uptime_ms: u64) -> Result<Identity, Failure> {
        if token.len() > self.max_bytes {
            let max = self.max_bytes;
            return Err(Reason::TooLong.failure(format!(
                "expected a token of at most {max} bytes, found {}",
                token.len()
            )));
        }
        let claims = self.signed_claims(token, uptime_ms)?;
        self.identity(claims, now_ms)
    }

    /// The claims, once the signature is found good.
    fn signed_claims(&self, token: &str, uptime_ms: u64) -> Result<Map<String, Value>, Failure> {
        let malformed = |message| Reason::Malformed.failure(message);
        let (message, signature) = token.rsplit_once('.').ok_or_else(|| malformed(NOT_JWT))?;
        let (head, payload) = message.split_once('.').ok_or_else(|| malformed(NOT_JWT))?;
        if payload.contains('.') {
            return Err(malformed(NOT_JWT));
        }
        let head = json_object(head).ok_or_else(|| malformed(BAD_HEAD))?;
        let (algorithm, id) = self.head(&head)?;
        let mut checked = (self.file.keys(uptime_ms)).check(algorithm, id, message, signature);
        if checked == Err(NoKey::Unknown) {
            // The token may be signed with a key that has only just been published.
            let keys = self.file.newest_keys(uptime_ms);
            checked = keys.check(algorithm, id, message, signature);
        }
        match checked {
            Ok(Signature::Good) => json_object(payload).ok_or_else(|| malformed(BAD_CLAIMS)),
            Ok(Signature::Wrong) => {
                Err(Reason::Signature.failure("the token's signature is not of a key of this host"))
            }
            Ok(Signature::Malformed) => Err(malformed("the token's signature is not base64url")),
            Err(NoKey::Unknown) => Err(Reason::UnknownKey.failure(match id {
                Some(_) => "the token's `kid` is not that of a key of this host",
                None => "the token has no `kid`, and more than one key of this host may be meant",
            })),
            Err(NoKey::OtherAlgorithm) => {
                Err(Reason::Algorithm.failure("the token's key is not for the token's algorithm"))
            }
        }
    }

    fn head<'a>(
        &self,
        head: &'a Map<String, Value>,
    ) -> Result<(Algorithm, Option<&'a str>), Failure> {
        let bad = |message| Err(Reason::Malformed.failure(message));
        // RFC 7515, section 4.1.11: what is critical must be understood.
        if head.contains_key("crit") {
            return bad("the token's head has critical extensions, which this host does not know");
        }
        let id = match head.get("kid") {
            None => None,
            Some(Value::String(id)) => Some(id.as_str()),
            Some(_) => return bad("the token's `kid` is not a string"),
        };
        let Some(Value::String(name)) = head.get("alg") else {
            return bad("the token's head has no `alg`");
        };
        match name.parse() {
            Ok(algorithm) if self.algorithms.contains(&algorithm) => Ok((algorithm, id)),
            _ => {
                let names: Vec<_> = self.algorithms.iter().map(|a| a.name()).collect();
                Err(Reason::Algorithm.failure(format!(
                    "expected a token that is signed with {}",
                    names.join(" or ")
                )))
            }
        }
    }

    fn identity(&self, claims: Map<String, Value>, now_ms: u64) -> Result<Identity, Failure> {
        let expires_at_ms = time(&claims, "exp")?;
        let begins_at_ms = time(&claims, "nbf")?;
        let subject = match claims.get("sub") {
            None => None,
            Some(Value::String(subject)) if !subject.is_empty() => Some(Arc::from(&**subject)),
            Some(_) => {
                let message = "the token's `sub` is not a string, or is empty";
                return Err(Reason::Malformed.failure(message));
            }
        };
        if let Some(issuer) = &self.issuer
            && claims.get("iss").and_then(Value::as_str) != Some(issuer)
        {
            return Err(Reason::Issuer.failure("the token's `iss` is not the expected one"));
        }
        if let Some(audience) = &self.audience
            && !is_for(&claims, audience)
        {
            return Err(Reason::Audience.failure("the token's `aud` does not name this host"));
        }
        let refused_from_ms = expires_at_ms.map(|ms| ms.saturating_add(self.leeway_ms));
        if refused_from_ms.is_some_and(|end| now_ms >= end) {
            return Err(Failure::auth_expired());
        }
        if expires_at_ms.is_some_and(|end| end.saturating_sub(now_ms) > self.max_lifetime_ms) {
            return Err(Reason::TooFar.failure(in_seconds("exp", &claims, now_ms)));
        }
        if begins_at_ms.is_some_and(|begin| now_ms.saturating_add(self.leeway_ms) < begin) {
            return Err(
                match begins_at_ms.map(|begin| begin.saturating_sub(now_ms)) {
                    Some(wait_ms) if wait_ms > self.max_lifetime_ms => {
                        Reason::NotYetValid.failure(in_seconds("nbf", &claims, now_ms))
                    }
                    _ => Reason::NotYetValid.failure("the token is not valid yet"),
                },
            );
        }
        Ok(Identity {
            claims: Value::Object(claims).to_string().into(),
            subject,
            expires_at_ms,
            refused_from_ms,
        })
    }
}

const NOT_JWT: &str = "expected a signed JSON Web Token: three parts with dots between";
const BAD_HEAD: &str = "the token's head is not an unambiguous JSON object in base64url";
const BAD_CLAIMS: &str = "the token's claims are not an unambiguous JSON object in base64url";

fn setting_error(name: &'static str, problem: impl Into<String>) -> AuthError {
    AuthError::Setting {
        name,
        problem: problem.into(),
    }
}

fn without_keys(settings: &config::Auth) -> Result<(), AuthError> {
    let given = [
        ("auth.algorithms", !settings.algorithms.is_empty()),
        ("auth.audience", settings.audience.is_some()),
        ("auth.issuer", settings.issuer.is_some()),
    ];
    match given.into_iter().find(|(_, is_given)| *is_given) {
        None => Ok(()),
        Some((name, _)) => Err(setting_error(
            name,
            "is set, but no key: set auth.key-file or auth.jwks-file too, else nobody's token is \
             checked",
        )),
    }
}

fn json_object(part: &str) -> Option<Map<String, Value>> {
    let bytes = decode(part).ok()?;
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
        None => Err(Reason::Malformed.failure(format!(
            "the token's `{name}` is not a number of seconds since 1970"
        ))),
    }
}

/// What to say of a claim that is a time too far away to be meant.
fn in_seconds(name: &str, claims: &Map<String, Value>, now_ms: u64) -> String {
    let given = claims.get(name).and_then(Value::as_f64).unwrap_or(0.0);
    let off_ms = (given - now_ms as f64).abs();
    let looks = match off_ms < CENTURY_MS {
        true => ", and it looks like milliseconds",
        false => "",
    };
    format!("the token's `{name}` is too far away: expected seconds since 1970{looks}")
}

/// A number that is no further from now is taken for a time in milliseconds.
const CENTURY_MS: f64 = 100.0 * 365.25 * 86_400_000.0;

/// Whether `aud`, a string or an array of strings, names this audience.
fn is_for(claims: &Map<String, Value>, audience: &str) -> bool {
    match claims.get("aud") {
        Some(Value::String(named)) => named == audience,
        Some(Value::Array(named)) => named.iter().any(|named| named == audience),
        _ => false,
    }
}

#[cfg(test)]
mod tests;

//! The keys that verify tokens, as a key file holds them.
//!
//! Invariant: each key is bound to one algorithm, and that is the only one it is ever used
//! with; a public key is never an HMAC secret.

use jsonwebtoken::DecodingKey;
use rsa::RsaPublicKey;
use rsa::pkcs1::DecodeRsaPublicKey;
use rsa::traits::PublicKeyParts;
use serde_json::{Map, Value};
use tidegate_core::unambiguous;

use super::{Algorithm, MIN_SECRET_BYTES};

/// Shortest RSA key (RFC 7518, section 3.3).
const MIN_RSA_BITS: usize = 2048;

/// What a key file holds.
#[derive(Clone, Debug)]
pub(super) enum Format {
    /// One key for this algorithm: a secret, or a public key in PEM.
    Single(Algorithm),
    /// A JSON Web Key Set (RFC 7517), of which keys for these algorithms count.
    Set(Vec<Algorithm>),
}

impl Format {
    /// Whether who reads the file can sign tokens.
    pub(super) fn is_secret(&self) -> bool {
        match self {
            Format::Single(algorithm) => *algorithm == Algorithm::Hs256,
            Format::Set(algorithms) => algorithms.contains(&Algorithm::Hs256),
        }
    }
}

/// Keys that are all usable.
pub(super) struct Keys {
    keys: Vec<Key>,
    /// Whether `kid` tells them apart; a single key is used whatever a token calls it.
    named: bool,
}

struct Key {
    id: Option<String>,
    algorithm: Algorithm,
    key: DecodingKey,
}

/// Why there is no key for a token.
#[derive(Debug, PartialEq)]
pub(super) enum NoKey {
    /// The `kid` is not that of any key, or is missing where several keys fit.
    Unknown,
    /// The key of this `kid` is for another algorithm.
    OtherAlgorithm,
}

/// What a signature is found to be.
#[derive(Debug, PartialEq)]
pub(super) enum Signature {
    Good,
    Wrong,
    /// It is not base64url.
    Malformed,
}

impl Keys {
    /// Reads a key file, or says what is wrong with it.
    pub(super) fn parse(format: &Format, bytes: &[u8]) -> Result<Keys, String> {
        match format {
            Format::Single(algorithm) => Ok(Keys {
                keys: vec![Key {
                    id: None,
                    algorithm: *algorithm,
                    key: single(*algorithm, bytes)?,
                }],
                named: false,
            }),
            Format::Set(algorithms) => Ok(Keys {
                keys: set(algorithms, bytes)?,
                named: true,
            }),
        }
    }

    /// Whether the signature (base64url) of the message is of the key that the token names.
    pub(super) fn check(
        &self,
        algorithm: Algorithm,
        id: Option<&str>,
        message: &str,
        signature: &str,
    ) -> Result<Signature, NoKey> {
        let key = &self.pick(algorithm, id)?.key;
        let message = message.as_bytes();
        Ok(
            match jsonwebtoken::crypto::verify(signature, message, key, algorithm.jwt()) {
                Ok(true) => Signature::Good,
                Ok(false) => Signature::Wrong,
                Err(_) => Signature::Malformed,
            },
        )
    }

    fn pick(&self, algorithm: Algorithm, id: Option<&str>) -> Result<&Key, NoKey> {
        let id = id.filter(|_| self.named);
        let mut named = self
            .keys
            .iter()
            .filter(|key| id.is_none() || key.id.as_deref() == id)
            .peekable();
        if id.is_some() && named.peek().is_none() {
            return Err(NoKey::Unknown);
        }
        let mut fitting = named.filter(|key| key.algorithm == algorithm);
        match (fitting.next(), fitting.next()) {
            (Some(key), None) => Ok(key),
            (None, _) => Err(NoKey::OtherAlgorithm),
            (Some(_), Some(_)) => Err(NoKey::Unknown),
        }
    }
}

fn single(algorithm: Algorithm, bytes: &[u8]) -> Result<DecodingKey, String> {
    if algorithm == Algorithm::Hs256 {
        return Ok(DecodingKey::from_secret(secret(bytes)?));
    }
    let expected = || {
        format!(
            "expected one public {} key in PEM for {algorithm}",
            algorithm.key_name()
        )
    };
    match pem_labels(bytes).as_slice() {
        [] => return Err(format!("{}, found no PEM", expected())),
        [label] if label.ends_with("PRIVATE KEY") => {
            return Err(format!(
                "{}, found a private key: put the public one here and keep the private one \
                 where tokens are made",
                expected()
            ));
        }
        [label] if label == "PUBLIC KEY" => {}
        [label] if label == "RSA PUBLIC KEY" && algorithm == Algorithm::Rs256 => {}
        [label] => return Err(format!("{}, found `{label}`", expected())),
        labels => return Err(format!("{}, found {} PEM blocks", expected(), labels.len())),
    }
    let key = match algorithm {
        Algorithm::Hs256 => unreachable!("secrets are not PEM"),
        Algorithm::Rs256 => DecodingKey::from_rsa_pem(bytes),
        Algorithm::Es256 => DecodingKey::from_ec_pem(bytes),
        Algorithm::EdDsa => DecodingKey::from_ed_pem(bytes),
    };
    let key = key.map_err(|_| format!("{}, found another kind or a damaged one", expected()))?;
    if algorithm == Algorithm::Rs256 {
        rsa_is_fit(RsaPublicKey::from_pkcs1_der(key.as_bytes()))?;
    }
    is_usable(algorithm, &key).map_err(|problem| format!("{}: {problem}", expected()))?;
    Ok(key)
}

/// A secret for HS256 as a file holds it: all bytes but a line break at the end.
pub(super) fn secret(bytes: &[u8]) -> Result<&[u8], String> {
    let bytes = bytes.strip_suffix(b"\n").unwrap_or(bytes);
    let bytes = bytes.strip_suffix(b"\r").unwrap_or(bytes);
    if !pem_labels(bytes).is_empty() {
        return Err(
            "expected a secret for HS256, found a key in PEM: whoever knows a public key could \
             sign with it; set the algorithm to the key's"
                .to_owned(),
        );
    }
    if serde_json::from_slice::<serde_json::Map<String, serde_json::Value>>(bytes).is_ok() {
        return Err(
            "expected a secret for HS256, found a JSON object: a set of keys belongs into \
             auth.jwks-file"
                .to_owned(),
        );
    }
    if bytes.len() < MIN_SECRET_BYTES {
        return Err(format!(
            "expected a secret of at least {MIN_SECRET_BYTES} bytes for HS256, found {}",
            bytes.len()
        ));
    }
    Ok(bytes)
}

/// What the PEM blocks of a file say they are.
pub(super) fn pem_labels(bytes: &[u8]) -> Vec<String> {
    let text = String::from_utf8_lossy(bytes);
    let labels = text.split("-----BEGIN ").skip(1);
    labels
        .filter_map(|rest| rest.split_once("-----"))
        .map(|(label, _)| label.to_owned())
        .collect()
}

fn rsa_is_fit<E>(key: Result<RsaPublicKey, E>) -> Result<(), String> {
    let key = key.map_err(|_| "the RSA key is damaged, or longer than 4096 bits".to_owned())?;
    match key.n().bits() {
        bits if bits < MIN_RSA_BITS => Err(format!(
            "expected an RSA key of at least {MIN_RSA_BITS} bits, found {bits}"
        )),
        _ => Ok(()),
    }
}

/// Finds out at start what would else make every verification fail.
fn is_usable(algorithm: Algorithm, key: &DecodingKey) -> Result<(), &'static str> {
    // The length is the library's to check, but it takes it for granted.
    if algorithm == Algorithm::EdDsa && key.as_bytes().len() != 32 {
        return Err("not 32 bytes");
    }
    jsonwebtoken::crypto::verify("", b"", key, algorithm.jwt())
        .map(|_| ())
        .map_err(|_| "not a point of the algorithm's curve")
}

fn set(algorithms: &[Algorithm], bytes: &[u8]) -> Result<Vec<Key>, String> {
    let text = std::str::from_utf8(bytes).map_err(|_| "not UTF-8".to_owned())?;
    // A parser's message could repeat a piece of a secret.
    let document = unambiguous::parse(text).map_err(|error| {
        format!(
            "not an unambiguous JSON text: see line {}, column {}",
            error.line(),
            error.column()
        )
    })?;
    let Some(entries) = document.get("keys").and_then(Value::as_array) else {
        return Err("expected a JSON object with an array `keys` (RFC 7517)".to_owned());
    };
    let mut keys: Vec<Key> = Vec::new();
    for (index, entry) in entries.iter().enumerate() {
        let at = |problem: String| format!("/keys/{index}: {problem}");
        let entry = entry
            .as_object()
            .ok_or_else(|| at("expected an object".to_owned()))?;
        let Some(key) = entry_key(algorithms, entry).map_err(at)? else {
            continue;
        };
        let same = |other: &Key| other.id == key.id && other.algorithm == key.algorithm;
        if key.id.is_some() && keys.iter().any(same) {
            return Err(at("another key has the same `kid` and algorithm".to_owned()));
        }
        keys.push(key);
    }
    if keys.is_empty() {
        let names: Vec<_> = algorithms.iter().map(|a| a.name()).collect();
        return Err(format!(
            "expected a key that verifies {}, found {} that do not",
            names.join(" or "),
            entries.len()
        ));
    }
    Ok(keys)
}

/// A key of a set; `None` for one that is for something else (RFC 7517, section 5).
fn entry_key(algorithms: &[Algorithm], entry: &Map<String, Value>) -> Result<Option<Key>, String> {
    let text = |name: &str| match entry.get(name) {
        None => Ok(None),
        Some(Value::String(text)) => Ok(Some(text.as_str())),
        Some(_) => Err(format!("`{name}`: expected a string")),
    };
    let member = |name: &str| text(name)?.ok_or_else(|| format!("`{name}`: missing"));
    let algorithm = match (text("kty")?, text("crv")?) {
        (Some("oct"), _) => Algorithm::Hs256,
        (Some("RSA"), _) => Algorithm::Rs256,
        (Some("EC"), Some("P-256")) => Algorithm::Es256,
        (Some("OKP"), Some("Ed25519")) => Algorithm::EdDsa,
        _ => return Ok(None),
    };
    if algorithm == Algorithm::Hs256 && !algorithms.contains(&algorithm) {
        return Err(
            "a symmetric key, but auth.algorithms does not have HS256: remove the key".to_owned(),
        );
    }
    if algorithm != Algorithm::Hs256 && entry.contains_key("d") {
        return Err(
            "a private key: put the public one here and keep the private one where tokens are \
             made"
                .to_owned(),
        );
    }
    let for_signatures = matches!(text("use")?, None | Some("sig"))
        && entry.get("key_ops").is_none_or(|ops| {
            ops.as_array()
                .is_some_and(|ops| ops.iter().any(|op| op == "verify"))
        });
    let for_algorithm = text("alg")?.is_none_or(|name| match name {
        // RFC 9864 names the curve.
        "Ed25519" => algorithm == Algorithm::EdDsa,
        name => name == algorithm.name(),
    });
    if !for_signatures || !for_algorithm || !algorithms.contains(&algorithm) {
        return Ok(None);
    }
    let damaged = |_| format!("expected {} key members in base64url", algorithm.key_name());
    let key = match algorithm {
        Algorithm::Hs256 => {
            let secret = decode(member("k")?).map_err(damaged)?;
            if secret.len() < MIN_SECRET_BYTES {
                return Err(format!(
                    "expected a secret of at least {MIN_SECRET_BYTES} bytes for HS256, found {}",
                    secret.len()
                ));
            }
            DecodingKey::from_secret(&secret)
        }
        Algorithm::Rs256 => {
            let n = decode(member("n")?).map_err(damaged)?;
            let e = decode(member("e")?).map_err(damaged)?;
            rsa_is_fit(RsaPublicKey::new(
                rsa::BigUint::from_bytes_be(&n),
                rsa::BigUint::from_bytes_be(&e),
            ))?;
            DecodingKey::from_rsa_raw_components(&n, &e)
        }
        Algorithm::Es256 => {
            DecodingKey::from_ec_components(member("x")?, member("y")?).map_err(|_| damaged(()))?
        }
        Algorithm::EdDsa => {
            DecodingKey::from_ed_components(member("x")?).map_err(|_| damaged(()))?
        }
    };
    is_usable(algorithm, &key)?;
    Ok(Some(Key {
        id: text("kid")?.map(str::to_owned),
        algorithm,
        key,
    }))
}

/// Base64url without padding, as everything in tokens and their keys is written.
pub(super) fn decode(text: &str) -> Result<Vec<u8>, ()> {
    use base64::Engine;
    base64::engine::general_purpose::URL_SAFE_NO_PAD
        .decode(text)
        .map_err(|_| ())
}

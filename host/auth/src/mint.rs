//! Tokens for development, signed with a key at hand.

use std::time::Duration;

use jsonwebtoken::{EncodingKey, Header};
use serde_json::{Map, Value};
use tidegate_base::clock::system_ms;

use super::keys::{pem_labels, secret};
use super::tokens::Tokens;
use super::{Algorithm, AuthError};

impl Tokens {
    /// Signs these claims. `key` is what a file holds: a secret for HS256, a private key in
    /// PEM (PKCS #8; for RS256 PKCS #1 as well) for the others. `iat` is now, and `exp` is
    /// after `ttl`, unless the claims have them; without both, the token does not expire.
    pub fn mint(
        mut claims: Map<String, Value>,
        ttl: Option<Duration>,
        algorithm: Algorithm,
        key: &[u8],
        kid: Option<String>,
    ) -> Result<String, AuthError> {
        let key = signing_key(algorithm, key).map_err(AuthError::Mint)?;
        let now_ms = system_ms();
        claims
            .entry("iat")
            .or_insert_with(|| (now_ms / 1000).into());
        if let Some(ttl) = ttl {
            let end_ms = u128::from(now_ms) + ttl.as_millis();
            let end = u64::try_from(end_ms.div_ceil(1000)).unwrap_or(u64::MAX);
            claims.entry("exp").or_insert_with(|| end.into());
        }
        let mut header = Header::new(algorithm.jwt());
        header.kid = kid;
        jsonwebtoken::encode(&header, &claims, &key).map_err(|error| {
            AuthError::Mint(format!(
                "the {} key does not sign {algorithm}: {error}",
                algorithm.key_name()
            ))
        })
    }
}

fn signing_key(algorithm: Algorithm, bytes: &[u8]) -> Result<EncodingKey, String> {
    if algorithm == Algorithm::Hs256 {
        return secret(bytes).map(EncodingKey::from_secret);
    }
    let expected = || {
        format!(
            "expected one private {} key in PEM for {algorithm}",
            algorithm.key_name()
        )
    };
    match pem_labels(bytes).as_slice() {
        [label] if label == "PRIVATE KEY" => {}
        [label] if label == "RSA PRIVATE KEY" && algorithm == Algorithm::Rs256 => {}
        [label] if label.ends_with("PRIVATE KEY") => {
            return Err(format!(
                "{}, found `{label}`: convert it with `openssl pkcs8 -topk8 -nocrypt`",
                expected()
            ));
        }
        [label] => return Err(format!("{}, found `{label}`", expected())),
        labels => return Err(format!("{}, found {} PEM blocks", expected(), labels.len())),
    }
    let key = match algorithm {
        Algorithm::Hs256 => unreachable!("secrets are not PEM"),
        Algorithm::Rs256 => EncodingKey::from_rsa_pem(bytes),
        Algorithm::Es256 => EncodingKey::from_ec_pem(bytes),
        Algorithm::EdDsa => EncodingKey::from_ed_pem(bytes),
    };
    key.map_err(|_| format!("{}, found another kind or a damaged one", expected()))
}

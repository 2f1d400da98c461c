//! The signature algorithms that tokens may use.

use std::fmt;
use std::str::FromStr;

/// A signature algorithm of RFC 7518 or RFC 8037, by its name there: `HS256`, `RS256`,
/// `ES256`, `EdDSA` (with Ed25519).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Algorithm {
    /// HMAC with SHA-256: one secret signs and verifies.
    Hs256,
    /// RSASSA-PKCS1-v1_5 with SHA-256.
    Rs256,
    /// ECDSA with P-256 and SHA-256.
    Es256,
    /// EdDSA with Ed25519.
    EdDsa,
}

impl Algorithm {
    const ALL: [Algorithm; 4] = [
        Algorithm::Hs256,
        Algorithm::Rs256,
        Algorithm::Es256,
        Algorithm::EdDsa,
    ];

    /// The name as it stands in a token's head.
    pub fn name(self) -> &'static str {
        match self {
            Algorithm::Hs256 => "HS256",
            Algorithm::Rs256 => "RS256",
            Algorithm::Es256 => "ES256",
            Algorithm::EdDsa => "EdDSA",
        }
    }

    /// What keys of the algorithm are called in messages.
    pub(super) fn key_name(self) -> &'static str {
        match self {
            Algorithm::Hs256 => "secret",
            Algorithm::Rs256 => "RSA",
            Algorithm::Es256 => "EC P-256",
            Algorithm::EdDsa => "Ed25519",
        }
    }

    pub(super) fn jwt(self) -> jsonwebtoken::Algorithm {
        match self {
            Algorithm::Hs256 => jsonwebtoken::Algorithm::HS256,
            Algorithm::Rs256 => jsonwebtoken::Algorithm::RS256,
            Algorithm::Es256 => jsonwebtoken::Algorithm::ES256,
            Algorithm::EdDsa => jsonwebtoken::Algorithm::EdDSA,
        }
    }
}

impl FromStr for Algorithm {
    type Err = String;

    fn from_str(name: &str) -> Result<Algorithm, String> {
        Algorithm::ALL
            .into_iter()
            .find(|algorithm| algorithm.name() == name)
            .ok_or_else(|| format!("expected HS256, RS256, ES256 or EdDSA, found `{name}`"))
    }
}

impl fmt::Display for Algorithm {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_algorithm_is_read_by_its_name() {
        for algorithm in Algorithm::ALL {
            assert_eq!(algorithm.to_string().parse(), Ok(algorithm));
        }
    }

    #[test]
    fn no_other_name_is_read() {
        for name in ["none", "", "hs256", "HS512", "PS256", "EdDSA "] {
            let error = name.parse::<Algorithm>().unwrap_err();
            assert!(error.contains(&format!("found `{name}`")), "{error}");
        }
    }
}

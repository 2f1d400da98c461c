//! The settings of who is calling.

use std::path::PathBuf;

use tidegate_base::config::MAX_MS;
use tidegate_base::settings;

settings! {
    /// Who is calling. With neither `key-file` nor `jwks-file` everybody is anonymous.
    pub struct Auth {
        /// Algorithms that tokens may be signed with: `HS256`, `RS256`, `ES256`, `EdDSA`. With
        /// `key-file` exactly one.
        algorithms: Vec<String> = Vec::new(), "algorithms";
        /// The key that verifies tokens: a secret of at least 32 bytes for `HS256` (the file's
        /// bytes, without a line break at its end), a public key in PEM for the others.
        key_file: Option<PathBuf> = None, "path";
        /// A JSON Web Key Set (RFC 7517); a token's `kid` names the key.
        jwks_file: Option<PathBuf> = None, "path";
        /// What a token's `aud` must hold; any, when absent.
        audience: Option<String> = None, "text";
        /// What a token's `iss` must be; any, when absent.
        issuer: Option<String> = None, "text";
        /// Clocks may differ by so much when `exp` and `nbf` are checked.
        leeway_ms: u64 = 5_000, "ms", 0..=MAX_MS;
        /// How far away `exp` may be. What is further is no time that anybody means: a number of
        /// milliseconds, mostly, where seconds are expected.
        // 10 000 years of 365.25 days, for those who mean "never".
        // At most what browsers can tell.
        max_lifetime_ms: u64 = 315_576_000_000_000, "ms", 1_000..=8_640_000_000_000_000;
        /// Lets clients in that send no token, as anonymous ones. A token that is sent must be
        /// valid in any case.
        allow_anonymous: bool = false, "true or false";
        /// Longest token, in bytes.
        max_token_bytes: usize = 8 << 10, "bytes", 1..;
        /// How often the key files are looked at for a change.
        // More often than every 10 ms would keep a disk busy for nothing.
        reload_interval_ms: u64 = 2_000, "ms", 10..=MAX_MS;
    }
}

//! Tokens that hosts of the tests verify: HS256 with one fixed secret.

use std::path::{Path, PathBuf};
use std::sync::LazyLock;
use std::time::{SystemTime, UNIX_EPOCH};

use jsonwebtoken::{Algorithm, EncodingKey, Header, encode};
use serde_json::{Value, json};

/// The secret that tokens are signed with.
pub const SECRET: &[u8] = b"a secret of the tests, which has more than 32 bytes";

/// A file that holds the secret.
pub fn key_file() -> &'static Path {
    // Written once, because tests run side by side and a file being written is empty at first.
    static FILE: LazyLock<PathBuf> = LazyLock::new(|| {
        let name = format!("tidegate-tests-{}-token.key", std::process::id());
        let file = std::env::temp_dir().join(name);
        std::fs::write(&file, SECRET).expect("writing a temporary file");
        file
    });
    &FILE
}

/// A token with these claims.
pub fn with_claims(claims: &Value) -> String {
    signed(claims, SECRET)
}

/// A token with these claims, signed with any secret.
pub fn signed(claims: &Value, secret: &[u8]) -> String {
    let header = Header::new(Algorithm::HS256);
    encode(&header, claims, &EncodingKey::from_secret(secret)).expect("claims that can be signed")
}

/// A token of this user, good for an hour.
pub fn of(user: &str) -> String {
    with_claims(&json!({"sub": user, "exp": seconds_from_now(3600)}))
}

/// A point in time, in seconds since the Unix epoch.
pub fn seconds_from_now(seconds: i64) -> i64 {
    let now = SystemTime::now().duration_since(UNIX_EPOCH);
    now.map_or(0, |now| now.as_secs() as i64) + seconds
}

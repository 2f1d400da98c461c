//! `tidegate token`: mints a token for development, and makes a key to mint with.
//!
//! Invariant: a key file is made readable by its owner alone and never written over.

use std::fs::{DirBuilder, OpenOptions};
use std::io::Write;
use std::os::unix::fs::{DirBuilderExt, OpenOptionsExt};
use std::path::{Path, PathBuf};
use std::time::Duration;

use anyhow::{Context, bail};
use serde_json::{Map, Value};
use tidegate_auth::config::Auth;
use tidegate_auth::{Algorithm, Tokens};

use super::{Settings, print};

/// Random bytes of a new secret: as many as SHA-256 makes use of (RFC 7518, section 3.2).
const SECRET_BYTES: usize = 32;

#[derive(clap::Args)]
pub(crate) struct Token {
    /// What the token says of its user, as a JSON object such as {"sub":"ann"}.
    #[arg(long, value_name = "JSON")]
    claims: String,
    /// How long it holds: 90s, 15m, 1h or 7d.
    #[arg(long, value_name = "TIME", default_value = "1h", value_parser = time)]
    ttl: Duration,
    /// The key to sign with: a secret for HS256, else a private key in PEM [default:
    /// auth.key-file].
    #[arg(long, value_name = "FILE")]
    key_file: Option<PathBuf>,
    /// First makes a random secret for HS256 in this file, which must not be there yet.
    #[arg(long, value_name = "FILE", conflicts_with = "key_file")]
    new_key: Option<PathBuf>,
    /// HS256, RS256, ES256 or EdDSA [default: the one in auth.algorithms, else HS256].
    #[arg(long, value_name = "NAME")]
    algorithm: Option<Algorithm>,
    /// The id of the key, for hosts that choose among several.
    #[arg(long)]
    kid: Option<String>,
    #[command(flatten)]
    settings: Settings,
}

impl Token {
    pub(crate) fn run(self) -> anyhow::Result<()> {
        let claims: Map<String, Value> = serde_json::from_str(&self.claims)
            .context("--claims: expected a JSON object, such as {\"sub\":\"ann\"}")?;
        let auth = self.settings.effective()?.config.auth;
        let algorithm = match (self.algorithm, &self.new_key) {
            (None | Some(Algorithm::Hs256), Some(_)) => Algorithm::Hs256,
            (Some(other), Some(_)) => {
                bail!("--new-key makes a secret for HS256, which {other} does not sign with")
            }
            (Some(algorithm), None) => algorithm,
            (None, None) => configured_algorithm(&auth)?,
        };
        if let Some(path) = &self.new_key {
            let shown = path.display();
            make_secret(path).with_context(|| format!("cannot make the key {shown}"))?;
            eprintln!(
                "made the key {shown}; a host takes its tokens with\n  \
                 tidegate up --set auth.key-file={shown} --set auth.algorithms=HS256"
            );
        }
        let path = self.new_key.or(self.key_file).or(auth.key_file);
        let path = path.context(
            "no key to sign with: name one with --key-file or auth.key-file, or make one with \
             --new-key FILE",
        )?;
        let key = std::fs::read(&path)
            .with_context(|| format!("cannot read the key {}", path.display()))?;
        let token = Tokens::mint(claims, Some(self.ttl), algorithm, &key, self.kid)?;
        Ok(print(&(token + "\n"))?)
    }
}

fn configured_algorithm(auth: &Auth) -> anyhow::Result<Algorithm> {
    match auth.algorithms.as_slice() {
        [] => Ok(Algorithm::Hs256),
        [only] => only
            .parse()
            .map_err(|problem| anyhow::anyhow!("auth.algorithms: {problem}")),
        several => bail!(
            "auth.algorithms names several, {}: choose one with --algorithm",
            several.join(", ")
        ),
    }
}

fn make_secret(path: &Path) -> std::io::Result<()> {
    let mut secret = [0; SECRET_BYTES];
    getrandom::fill(&mut secret).map_err(|error| std::io::Error::other(error.to_string()))?;
    if let Some(folder) = path.parent().filter(|folder| *folder != Path::new("")) {
        let mut builder = DirBuilder::new();
        builder.recursive(true).mode(0o700).create(folder)?;
    }
    // Hexadecimal, so that the file is a text that survives editors and terminals.
    let text: String = secret.iter().map(|byte| format!("{byte:02x}")).collect();
    let mut options = OpenOptions::new();
    let mut file = options
        .write(true)
        .create_new(true)
        .mode(0o600)
        .open(path)?;
    file.write_all(text.as_bytes())?;
    file.write_all(b"\n")?;
    file.sync_all()
}

/// `15m` is a quarter of an hour.
fn time(text: &str) -> Result<Duration, String> {
    let expected = || format!("expected a time such as 90s, 15m, 1h or 7d, found `{text}`");
    let (number, unit) = text
        .split_at_checked(text.len().saturating_sub(1))
        .ok_or_else(expected)?;
    let seconds: u64 = match unit {
        "s" => 1,
        "m" => 60,
        "h" => 60 * 60,
        "d" => 24 * 60 * 60,
        _ => return Err(expected()),
    };
    if !number.bytes().all(|byte| byte.is_ascii_digit()) {
        return Err(expected());
    }
    let number: u64 = number.parse().map_err(|_| expected())?;
    let time = number.checked_mul(seconds).ok_or_else(expected)?;
    Ok(Duration::from_secs(time))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_time_is_a_number_and_a_unit() {
        for (text, seconds) in [
            ("90s", 90),
            ("15m", 900),
            ("1h", 3_600),
            ("7d", 604_800),
            ("0s", 0),
        ] {
            assert_eq!(time(text), Ok(Duration::from_secs(seconds)), "{text}");
        }
    }

    #[test]
    fn nothing_else_is_a_time() {
        for text in [
            "",
            "s",
            "1",
            "1w",
            "-1s",
            "+1s",
            "1.5h",
            "1 h",
            "é",
            "1é",
            "18446744073709551615d",
        ] {
            assert!(time(text).is_err(), "{text:?}");
        }
    }

    #[test]
    fn the_only_algorithm_there_is_needs_no_name() {
        let auth = |names: &[&str]| Auth {
            algorithms: names.iter().map(|name| (*name).to_owned()).collect(),
            ..Auth::default()
        };
        let chosen = |names| configured_algorithm(&auth(names)).ok();
        assert_eq!(chosen(&[]), Some(Algorithm::Hs256));
        assert_eq!(chosen(&["ES256"]), Some(Algorithm::Es256));
        assert_eq!(chosen(&["ES256", "EdDSA"]), None);
        assert_eq!(chosen(&["none"]), None);
    }
}

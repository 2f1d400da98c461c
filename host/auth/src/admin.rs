//! The operators' key: configured, or kept in a file of the data folder.
//!
//! The gateway asks [`AdminKey::allows`] for every route under `/_tidegate/`; there is no
//! mode in which such a route is open.

use std::fmt;
use std::fs::{self, DirBuilder, File, OpenOptions};
use std::io::{self, Read, Write};
use std::os::unix::fs::{DirBuilderExt, MetadataExt, OpenOptionsExt};
use std::path::{Path, PathBuf};

use http::HeaderMap;
use sha2::{Digest, Sha256};
use subtle::ConstantTimeEq;

use super::AuthError;
use super::bearer::{Authorization, authorization};

/// Shortest key, in bytes.
const MIN_BYTES: usize = 16;
/// Longest key, in bytes.
const MAX_BYTES: usize = 4096;

/// The key that operators send as a bearer token.
///
/// Only its digest is kept, which is also what makes keys of any length take the same time
/// to compare.
pub struct AdminKey {
    digest: [u8; 32],
}

impl fmt::Debug for AdminKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("AdminKey(..)")
    }
}

/// Where the key comes from.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum KeySource {
    /// The configuration.
    Configured,
    /// This file, which was there.
    File(PathBuf),
    /// This file, which was made with a random key.
    Made(PathBuf),
}

impl AdminKey {
    /// The configured key, or that of the key file, which is made if it is not there:
    /// readable by its owner alone, and never seen half written.
    pub fn open(
        configured: Option<&str>,
        key_file: Option<&Path>,
        data_dir: &Path,
    ) -> Result<(AdminKey, KeySource), AuthError> {
        if let Some(key) = configured {
            let key = AdminKey::new(key.as_bytes()).map_err(|problem| AuthError::Setting {
                name: "admin.key",
                problem,
            })?;
            return Ok((key, KeySource::Configured));
        }
        let default = || data_dir.join("admin.key");
        let path = key_file.map_or_else(default, Path::to_owned);
        let made = make(&path).map_err(|error| file_error("make", &path, error))?;
        let key = read(&path)?;
        Ok(match made {
            Made::Here => (key, KeySource::Made(path)),
            Made::Before => (key, KeySource::File(path)),
        })
    }

    fn new(key: &[u8]) -> Result<AdminKey, String> {
        if !(MIN_BYTES..=MAX_BYTES).contains(&key.len()) {
            return Err(format!(
                "expected a key of {MIN_BYTES} to {MAX_BYTES} bytes, found {}",
                key.len()
            ));
        }
        if !key.iter().all(u8::is_ascii_graphic) {
            return Err("expected visible ASCII characters without spaces".to_owned());
        }
        Ok(AdminKey {
            digest: Sha256::digest(key).into(),
        })
    }

    /// Whether a request carries the key, as its only `Authorization` header.
    pub fn allows(&self, headers: &HeaderMap) -> bool {
        let Authorization::Bearer(key) = authorization(headers) else {
            return false;
        };
        Sha256::digest(key.as_bytes()).ct_eq(&self.digest).into()
    }
}

fn file_error(action: &'static str, path: &Path, error: io::Error) -> AuthError {
    AuthError::File {
        setting: "admin.key-file",
        action,
        path: path.to_owned(),
        error,
    }
}

#[derive(PartialEq)]
enum Made {
    Here,
    Before,
}

/// Makes the file with a random key, unless there is one.
fn make(path: &Path) -> io::Result<Made> {
    if fs::symlink_metadata(path).is_ok() {
        return Ok(Made::Before);
    }
    if let Some(folder) = path
        .parent()
        .filter(|folder| !folder.as_os_str().is_empty())
    {
        DirBuilder::new()
            .recursive(true)
            .mode(0o700)
            .create(folder)?;
    }
    let mut draft = path.as_os_str().to_owned();
    draft.push(format!(".{}", random_hex::<8>()?));
    let draft = PathBuf::from(draft);
    let mut file = OpenOptions::new()
        .write(true)
        .create_new(true)
        .mode(0o600)
        .open(&draft)?;
    let linked = writeln!(file, "{}", random_hex::<32>()?)
        .and_then(|()| file.sync_all())
        // Unlike a rename, this fails if another process was faster; whoever reads the
        // file finds it whole.
        .and_then(|()| fs::hard_link(&draft, path));
    fs::remove_file(&draft)?;
    match linked {
        Ok(()) => Ok(Made::Here),
        Err(error) if error.kind() == io::ErrorKind::AlreadyExists => Ok(Made::Before),
        Err(error) => Err(error),
    }
}

fn random_hex<const BYTES: usize>() -> io::Result<String> {
    let mut bytes = [0; BYTES];
    getrandom::fill(&mut bytes).map_err(|error| io::Error::other(error.to_string()))?;
    Ok(bytes.iter().map(|byte| format!("{byte:02x}")).collect())
}

fn read(path: &Path) -> Result<AdminKey, AuthError> {
    let unreadable = |error| file_error("read", path, error);
    let unusable = |problem: String| AuthError::Key {
        setting: "admin.key-file",
        path: path.to_owned(),
        problem,
    };
    // Before it is opened, which waits for ever if it is a pipe.
    if !fs::metadata(path).map_err(unreadable)?.is_file() {
        return Err(unusable("expected a file".to_owned()));
    }
    let file = File::open(path).map_err(unreadable)?;
    let mode = file.metadata().map_err(unreadable)?.mode();
    if mode & 0o077 != 0 {
        return Err(unusable(format!(
            "others than its owner may use the file (mode {:03o}): run `chmod 600` on it, or \
             delete it, if others may have read it, to have a new key made",
            mode & 0o777
        )));
    }
    let mut bytes = Vec::new();
    let limit = MAX_BYTES as u64 + 2;
    file.take(limit)
        .read_to_end(&mut bytes)
        .map_err(unreadable)?;
    AdminKey::new(bytes.trim_ascii_end())
        .map_err(|problem| unusable(format!("{problem}: delete the file to have a new key made")))
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::PermissionsExt;

    use super::super::testing::Folder;
    use super::*;

    const KEY: &str = "0123456789abcdef";

    fn configured(key: &str) -> Result<AdminKey, String> {
        match AdminKey::open(Some(key), None, Path::new("/nowhere")) {
            Ok((key, source)) => {
                assert_eq!(source, KeySource::Configured);
                Ok(key)
            }
            Err(error) => Err(error.to_string()),
        }
    }

    fn opened(data_dir: &Path) -> Result<(AdminKey, KeySource), String> {
        AdminKey::open(None, None, data_dir).map_err(|error| error.to_string())
    }

    fn allows(key: &AdminKey, values: &[&str]) -> bool {
        let mut headers = HeaderMap::new();
        for value in values {
            headers.append(http::header::AUTHORIZATION, value.parse().unwrap());
        }
        key.allows(&headers)
    }

    #[test]
    fn only_the_key_as_the_one_bearer_token_is_allowed() {
        let key = configured(KEY).unwrap();
        assert!(allows(&key, &["Bearer 0123456789abcdef"]));
        assert!(allows(&key, &["bEARER 0123456789abcdef"]));
        for values in [
            &[][..],
            &["Bearer 0123456789abcdeF"],
            &["Bearer 0123456789abcde"],
            &["Bearer 0123456789abcdef0"],
            &["Bearer "],
            &["0123456789abcdef"],
            &["Basic 0123456789abcdef"],
            &["Bearer 0123456789abcdef", "Bearer 0123456789abcdef"],
            &["Bearer 0123456789abcdef", "Basic x"],
        ] {
            assert!(!allows(&key, values), "{values:?}");
        }
    }

    #[test]
    fn a_configured_key_that_is_too_short_or_not_ascii_is_refused() {
        for bad in [
            "",
            "short",
            "0123456789abcde",
            "0123456789 abcdef",
            "0123456789abcdéf",
        ] {
            let error = configured(bad).unwrap_err();
            assert!(error.starts_with("admin.key: expected"), "{error}");
            assert!(bad.is_empty() || !error.contains(bad), "{error}");
        }
    }

    #[test]
    fn debug_does_not_show_the_key() {
        assert_eq!(format!("{:?}", configured(KEY).unwrap()), "AdminKey(..)");
    }

    #[test]
    fn a_missing_file_is_made_for_its_owner_alone_and_read_ever_after() {
        let folder = Folder::new();
        let data_dir = folder.path("deep/data");
        let path = data_dir.join("admin.key");
        let (key, source) = opened(&data_dir).unwrap();
        assert_eq!(source, KeySource::Made(path.clone()));
        let text = fs::read_to_string(&path).unwrap();
        assert_eq!(text.trim_end().len(), 64);
        assert!(allows(&key, &[&format!("Bearer {}", text.trim_end())]));
        assert_eq!(fs::metadata(&path).unwrap().mode() & 0o777, 0o600);
        assert_eq!(fs::metadata(&data_dir).unwrap().mode() & 0o777, 0o700);
        assert_eq!(fs::read_dir(&data_dir).unwrap().count(), 1);

        let (key, source) = opened(&data_dir).unwrap();
        assert_eq!(source, KeySource::File(path));
        assert!(allows(&key, &[&format!("Bearer {}", text.trim_end())]));
    }

    #[test]
    fn two_made_keys_differ() {
        let (one, two) = (Folder::new(), Folder::new());
        let (one, _) = opened(&one.path("")).unwrap();
        let (two, _) = opened(&two.path("")).unwrap();
        assert_ne!(one.digest, two.digest);
    }

    #[test]
    fn many_at_once_make_one_key() {
        let folder = Folder::new();
        let data_dir = folder.path("data");
        let opened: Vec<_> = std::thread::scope(|scope| {
            let threads: Vec<_> = (0..8).map(|_| scope.spawn(|| opened(&data_dir))).collect();
            threads
                .into_iter()
                .map(|t| t.join().unwrap().unwrap())
                .collect()
        });
        let made = |(_, source): &&(AdminKey, KeySource)| matches!(source, KeySource::Made(_));
        assert_eq!(opened.iter().filter(made).count(), 1);
        assert!(
            opened
                .iter()
                .all(|(key, _)| key.digest == opened[0].0.digest)
        );
    }

    #[test]
    fn a_file_that_others_may_use_is_refused_with_its_path_and_the_remedy() {
        let folder = Folder::new();
        let path = folder.path("admin.key");
        for mode in [0o640, 0o604, 0o644, 0o620, 0o610] {
            fs::write(&path, KEY).unwrap();
            fs::set_permissions(&path, fs::Permissions::from_mode(mode)).unwrap();
            let error = opened(&folder.path("")).unwrap_err();
            assert!(error.contains(&path.display().to_string()), "{error}");
            assert!(error.contains("chmod 600"), "{error}");
        }
    }

    #[test]
    fn a_file_without_a_good_key_is_refused_and_left_alone() {
        let folder = Folder::new();
        let path = folder.path("admin.key");
        let long = "x".repeat(MAX_BYTES + 1);
        for bad in ["", "\n", "too-short\n", "0123456789 abcdef", &long] {
            fs::write(&path, bad).unwrap();
            fs::set_permissions(&path, fs::Permissions::from_mode(0o600)).unwrap();
            let error = opened(&folder.path("")).unwrap_err();
            assert!(error.contains(&path.display().to_string()), "{error}");
            assert!(error.contains("delete the file"), "{error}");
            assert_eq!(fs::read_to_string(&path).unwrap(), bad);
        }
    }

    #[test]
    fn a_configured_file_is_used_and_may_end_in_line_breaks() {
        let folder = Folder::new();
        let path = folder.path("other");
        fs::write(&path, format!("{KEY}\r\n")).unwrap();
        fs::set_permissions(&path, fs::Permissions::from_mode(0o400)).unwrap();
        let (key, source) = AdminKey::open(None, Some(&path), Path::new("/nowhere")).unwrap();
        assert_eq!(source, KeySource::File(path));
        assert!(allows(&key, &["Bearer 0123456789abcdef"]));
    }

    #[test]
    fn a_folder_in_the_place_of_the_file_is_refused() {
        let folder = Folder::new();
        fs::create_dir(folder.path("admin.key")).unwrap();
        let error = opened(&folder.path("")).unwrap_err();
        assert!(error.contains("expected a file"), "{error}");
    }
}

//! What several of the tests here need: folders of their own, and keys made for tests.

use std::fs;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU32, Ordering};

/// A folder that is removed when this is dropped.
pub(super) struct Folder(PathBuf);

impl Folder {
    pub(super) fn new() -> Folder {
        static NEXT: AtomicU32 = AtomicU32::new(0);
        let name = format!(
            "tidegate-auth-{}-{}",
            std::process::id(),
            NEXT.fetch_add(1, Ordering::Relaxed)
        );
        let path = std::env::temp_dir().join(name);
        fs::create_dir(&path).unwrap();
        Folder(path)
    }

    pub(super) fn path(&self, name: impl AsRef<Path>) -> PathBuf {
        self.0.join(name)
    }

    /// A file with this content.
    pub(super) fn file(&self, name: &str, content: impl AsRef<[u8]>) -> PathBuf {
        let path = self.path(name);
        fs::write(&path, content).unwrap();
        path
    }
}

impl Drop for Folder {
    fn drop(&mut self) {
        let _ = fs::remove_dir_all(&self.0);
    }
}

/// A file of `testdata`, by what follows `test-only-` in its name.
macro_rules! key {
    ($name:literal) => {
        include_str!(concat!("testdata/test-only-", $name, ".pem"))
    };
}

pub(super) const RSA_1: &str = key!("rsa-1.private");
pub(super) const RSA_1_PUBLIC: &str = key!("rsa-1.public");
pub(super) const RSA_1_PKCS1: &str = key!("rsa-1.pkcs1.private");
pub(super) const RSA_1_PKCS1_PUBLIC: &str = key!("rsa-1.pkcs1.public");
pub(super) const RSA_2: &str = key!("rsa-2.private");
pub(super) const RSA_1024_PUBLIC: &str = key!("rsa-1024-bits.public");
pub(super) const P256_1: &str = key!("p256-1.private");
pub(super) const P256_1_SEC1: &str = key!("p256-1.sec1.private");
pub(super) const P256_1_PUBLIC: &str = key!("p256-1.public");
pub(super) const P256_2: &str = key!("p256-2.private");
pub(super) const P384_PUBLIC: &str = key!("p384.public");
pub(super) const ED_1: &str = key!("ed25519-1.private");
pub(super) const ED_1_PUBLIC: &str = key!("ed25519-1.public");
pub(super) const ED_2: &str = key!("ed25519-2.private");
pub(super) const SECRET: &str = "a secret for tests, of 32 bytes and more";

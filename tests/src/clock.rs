//! A wall clock that a test sets, in the place of a host's.
//!
//! Only a host that was built for tests looks at it.

use std::path::Path;

use crate::host::Folder;

/// What a host's wall clock is set ahead by.
pub struct WallClock {
    folder: Folder,
}

impl WallClock {
    /// One that nobody has set yet.
    #[expect(clippy::new_without_default, reason = "each is another one")]
    pub fn new() -> WallClock {
        let clock = WallClock {
            folder: Folder::new(),
        };
        clock.set_ahead(0);
        clock
    }

    /// Sets it so many milliseconds ahead of the system's, or back where there are fewer than none.
    pub fn set_ahead(&self, ms: i64) {
        // Under another name first, so that nobody reads a part of it.
        let draft = self.folder.path().join("draft");
        std::fs::write(&draft, ms.to_string()).expect("writing a file");
        std::fs::rename(draft, self.file()).expect("renaming a file");
    }

    pub(crate) fn file(&self) -> std::path::PathBuf {
        Path::join(self.folder.path(), "ahead-ms")
    }
}

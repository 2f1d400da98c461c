//! Installs what the project's folders with a `package.json` depend on.
//!
//! `handlers`, `test` and `bench` call it before they use such a folder; an installation that is
//! up to date costs nothing.

use std::path::{Path, PathBuf};

use anyhow::Result;

use crate::project::{Project, is_fresh, run};

/// Installs what the folder's `package-lock.json` names, and returns that file.
pub(crate) fn install(project: &Project, folder: &Path) -> Result<PathBuf> {
    let lock = folder.join("package-lock.json");
    let inputs = [folder.join("package.json"), lock.clone()];
    // npm writes this file last, so it tells a finished installation from a broken one.
    let installed = folder.join("node_modules/.package-lock.json");
    if !is_fresh(&installed, &inputs) {
        // Not `npm ci`: it insists on optional packages for other platforms that were never
        // published.
        run(project
            .program("npm", ["install", "--no-save", "--no-audit", "--no-fund"])
            .current_dir(folder))?;
    }
    Ok(lock)
}

//! The workspace as cargo sees it, and the programs that are run in it.
//!
//! Owns every path that the chores use. All programs run at the workspace root, so that
//! `cargo xtask` means the same from any folder of the project.

use std::ffi::OsStr;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::SystemTime;

use anyhow::{Context, Result, bail};
use serde_json::Value;

/// Where the workspace and its artefacts are.
pub(crate) struct Project {
    root: PathBuf,
    /// Where cargo puts artefacts; elsewhere than `root/target` under `CARGO_TARGET_DIR`.
    artefacts: PathBuf,
    packages: Vec<Package>,
}

/// One crate of the workspace.
pub(crate) struct Package {
    pub(crate) name: String,
    /// The crate's folder.
    pub(crate) folder: PathBuf,
    /// The file stem of the crate's `cdylib`, if it builds one.
    pub(crate) cdylib: Option<String>,
    /// The names of its integration tests.
    pub(crate) tests: Vec<String>,
}

impl Project {
    /// Asks cargo about the workspace in which it runs this program. What the program was
    /// built from may be another checkout with the same target folder.
    pub(crate) fn find() -> Result<Self> {
        let here = std::env::var_os("CARGO_MANIFEST_DIR")
            .context("CARGO_MANIFEST_DIR is not set: run this as `cargo xtask`")?;
        let metadata = text_of(
            Command::new(cargo())
                .args(["metadata", "--format-version", "1", "--no-deps"])
                .current_dir(here),
        )?;
        let metadata: Value = serde_json::from_str(&metadata).context("reading cargo metadata")?;
        let path = |field: &str| -> Result<PathBuf> {
            let text = metadata[field].as_str();
            Ok(text
                .with_context(|| format!("cargo metadata has no {field}"))?
                .into())
        };
        let packages = metadata["packages"]
            .as_array()
            .context("cargo metadata has no packages")?;
        Ok(Self {
            root: path("workspace_root")?,
            artefacts: path("target_directory")?,
            packages: packages.iter().filter_map(Package::parse).collect(),
        })
    }

    pub(crate) fn root(&self) -> &Path {
        &self.root
    }

    pub(crate) fn artefacts(&self) -> &Path {
        &self.artefacts
    }

    /// The crates in `folder` of the workspace.
    pub(crate) fn packages_in(&self, folder: &str) -> impl Iterator<Item = &Package> {
        let folder = self.root.join(folder);
        self.packages
            .iter()
            .filter(move |package| package.folder.starts_with(&folder))
    }

    /// The crates of the handlers that are examples: of `components`, all but the pieces
    /// that are put around a handler on Spin.
    pub(crate) fn examples(&self) -> impl Iterator<Item = &Package> {
        let pieces = self.root.join("components/spin");
        self.packages_in("components")
            .filter(move |package| !package.folder.starts_with(&pieces))
    }

    /// A cargo command at the workspace root.
    pub(crate) fn cargo<S: AsRef<OsStr>>(&self, arguments: impl IntoIterator<Item = S>) -> Command {
        let mut command = self.program(cargo(), arguments);
        // What cargo says of this program's package. Build scripts look at it, and would build
        // anew whenever cargo is run by hand and from here in turns.
        for (name, _) in std::env::vars_os() {
            let name = name.to_string_lossy();
            if name.starts_with("CARGO_PKG_") || name.starts_with("CARGO_MANIFEST_") {
                command.env_remove(&*name);
            }
        }
        command
    }

    /// Any other command at the workspace root.
    pub(crate) fn program<S: AsRef<OsStr>>(
        &self,
        program: impl AsRef<OsStr>,
        arguments: impl IntoIterator<Item = S>,
    ) -> Command {
        let mut command = Command::new(program);
        command.args(arguments).current_dir(&self.root);
        command
    }
}

impl Package {
    fn parse(package: &Value) -> Option<Self> {
        let targets = package["targets"].as_array()?;
        let of_kind = |kind: &'static str| {
            targets
                .iter()
                .filter(move |target| {
                    let kinds = target["kind"].as_array();
                    kinds.is_some_and(|kinds| kinds.iter().any(|k| k == kind))
                })
                .filter_map(|target| target["name"].as_str().map(str::to_owned))
        };
        let manifest = Path::new(package["manifest_path"].as_str()?);
        Some(Self {
            name: package["name"].as_str()?.to_owned(),
            folder: manifest.parent()?.to_owned(),
            cdylib: of_kind("cdylib").next().map(|name| name.replace('-', "_")),
            tests: of_kind("test").collect(),
        })
    }
}

/// Runs a command and fails, naming it, when it does.
pub(crate) fn run(command: &mut Command) -> Result<()> {
    let status = command.status().with_context(|| not_started(command))?;
    if !status.success() {
        bail!("`{}` failed: {status}", shown(command));
    }
    Ok(())
}

/// Runs a command and returns what it printed.
pub(crate) fn text_of(command: &mut Command) -> Result<String> {
    let output = command
        .stderr(Stdio::inherit())
        .output()
        .with_context(|| not_started(command))?;
    if !output.status.success() {
        bail!("`{}` failed: {}", shown(command), output.status);
    }
    String::from_utf8(output.stdout)
        .with_context(|| format!("`{}` printed no UTF-8", shown(command)))
}

/// Whether `output` is there and at least as new as all `inputs`.
pub(crate) fn is_fresh(output: &Path, inputs: &[PathBuf]) -> bool {
    let Some(made) = changed(output) else {
        return false;
    };
    inputs
        .iter()
        .all(|input| changed(input).is_some_and(|input| input <= made))
}

fn changed(file: &Path) -> Option<SystemTime> {
    fs::metadata(file).and_then(|data| data.modified()).ok()
}

/// The cargo that runs this program, so that both are of one toolchain.
fn cargo() -> PathBuf {
    std::env::var_os("CARGO").map_or_else(|| "cargo".into(), PathBuf::from)
}

fn not_started(command: &Command) -> String {
    format!(
        "`{}` could not be started; is it installed?",
        shown(command)
    )
}

fn shown(command: &Command) -> String {
    let program = Path::new(command.get_program());
    let program = program.file_name().unwrap_or(program.as_os_str());
    std::iter::once(program)
        .chain(command.get_args())
        .map(|part| part.to_string_lossy())
        .collect::<Vec<_>>()
        .join(" ")
}

//! `cargo xtask compose`: the examples of `spin.toml` as Spin components, in
//! `target/spin/NAME.wasm`, which is what the manifest names as their sources.

use std::fmt::Write as _;
use std::fs;
use std::os::unix::fs::OpenOptionsExt;
use std::path::Path;

use anyhow::{Context, Result};

use crate::handlers;
use crate::project::{self, Project};

pub(crate) fn run(project: &Project) -> Result<()> {
    handlers::build(project, handlers::Which::Examples)?;
    project::run(&mut project.cargo(["build", "--release", "--package", "tidegate"]))?;
    let tidegate = project.artefacts().join("release/tidegate");
    let folder = project.root().join("target/spin");
    let compose = |what: &Path, name: &str| {
        let mut command = project.program(&tidegate, ["compose"]);
        command.arg(what).arg("--output");
        project::run(command.arg(folder.join(name).with_extension("wasm")))
    };
    for example in project.examples() {
        let handler = project.root().join("target/handlers").join(&example.name);
        compose(&handler.with_extension("wasm"), &example.name)?;
    }
    compose(Path::new("--events"), "events")?;
    make_keys(&project.root().join(".env"))?;
    println!("components for Spin are in {}", folder.display());
    Ok(())
}

/// Makes the keys that the application's variables want, unless they are there. Spin reads
/// the file by itself.
fn make_keys(file: &Path) -> Result<()> {
    if file.exists() {
        return Ok(());
    }
    let mut text = String::new();
    for name in ["INTERNAL", "TICK"] {
        let key = random_key()?;
        writeln!(text, "SPIN_VARIABLE_TIDEGATE_{name}_KEY={key}")?;
    }
    let mut options = fs::OpenOptions::new();
    let made = options.write(true).create_new(true).mode(0o600).open(file);
    let shown = file.display();
    made.and_then(|mut file| std::io::Write::write_all(&mut file, text.as_bytes()))
        .with_context(|| format!("writing {shown}"))?;
    println!("made {shown} with random keys for this application");
    Ok(())
}

/// 32 random bytes in hexadecimal.
fn random_key() -> Result<String> {
    let mut bytes = [0; 32];
    let random = fs::File::open("/dev/urandom");
    random
        .and_then(|mut random| std::io::Read::read_exact(&mut random, &mut bytes))
        .context("reading /dev/urandom")?;
    Ok(bytes.iter().map(|byte| format!("{byte:02x}")).collect())
}

//! Builds handler components: the examples in `components/`, the ones that only tests use
//! in `tests/handlers/`, the ones that are measured in `bench/handlers/`.
//!
//! Each ends as `target/handlers/NAME.wasm` of the project's own folder, wherever cargo
//! keeps its artefacts, since `spin.toml` names it by that path.

use std::fs;
use std::path::Path;

use anyhow::{Context, Result};

use crate::npm;
use crate::project::{Package, Project, is_fresh, run, text_of};

const TARGET: &str = "wasm32-wasip2";
const JAVASCRIPT: &str = "tests/handlers/js";

/// Which handlers to build.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(crate) enum Which {
    /// Those that `spin.toml` serves.
    Examples,
    /// Those and the ones of the benchmarks.
    Benchmarks,
    /// Those and the ones of the tests.
    All,
}

/// Builds the handlers.
pub(crate) fn build(project: &Project, which: Which) -> Result<()> {
    let mut packages: Vec<&Package> = project.examples().collect();
    if which != Which::Examples {
        packages.extend(project.packages_in("bench/handlers"));
    }
    if which == Which::All {
        packages.extend(project.packages_in("tests/handlers"));
    }
    let folder = project.root().join("target/handlers");
    fs::create_dir_all(&folder).with_context(|| format!("creating {}", folder.display()))?;
    build_rust(project, &packages, &folder)?;
    if which == Which::All {
        build_javascript(project, &folder)?;
    }
    println!("handlers are in {}", folder.display());
    Ok(())
}

fn build_rust(project: &Project, packages: &[&Package], folder: &Path) -> Result<()> {
    add_target(project)?;
    let mut cargo = project.cargo(["build", "--target", TARGET, "--profile", "handler", "--lib"]);
    for package in packages {
        cargo.args(["--package", &package.name]);
    }
    run(&mut cargo)?;
    for package in packages {
        let Some(stem) = &package.cdylib else {
            continue;
        };
        let built = project
            .artefacts()
            .join(TARGET)
            .join("handler")
            .join(stem)
            .with_extension("wasm");
        place(&built, &folder.join(&package.name).with_extension("wasm"))?;
    }
    Ok(())
}

/// `rust-toolchain.toml` names the target, but rustup installs it by itself only when it
/// installs the whole toolchain.
fn add_target(project: &Project) -> Result<()> {
    let sysroot = text_of(&mut project.program("rustc", ["--print", "sysroot"]))?;
    let target = Path::new(sysroot.trim()).join("lib/rustlib").join(TARGET);
    if target.exists() {
        return Ok(());
    }
    run(&mut project.program("rustup", ["target", "add", TARGET]))
}

/// Componentises the JavaScript handler with jco's QuickJS backend. Its asynchronous
/// half is off because it needs component-model async, which the contract does not use.
fn build_javascript(project: &Project, folder: &Path) -> Result<()> {
    let source = project.root().join(JAVASCRIPT);
    let lock = npm::install(project, &source)?;
    let component = folder.join("js.wasm");
    let handler = source.join("handler.js");
    let wit = project.root().join("wit");
    let mut inputs = vec![handler.clone(), lock];
    for entry in fs::read_dir(&wit).with_context(|| format!("reading {}", wit.display()))? {
        inputs.push(entry?.path());
    }
    if is_fresh(&component, &inputs) {
        return Ok(());
    }
    let unfinished = folder.join("js.wasm.part");
    run(project
        .program(source.join("node_modules/.bin/jco"), ["componentize"])
        .arg(&handler)
        .arg("--wit")
        .arg(&wit)
        .args(["--world-name", "actors-handler"])
        .args(["--backend", "qjs", "--backend-qjs-disable-async"])
        .arg("--out")
        .arg(&unfinished))?;
    fs::rename(&unfinished, &component)
        .with_context(|| format!("moving {} into place", component.display()))
}

/// Copies a component into place in one step, so that a host that loads it meanwhile sees
/// the old one or the new one; and not at all when it has not changed.
fn place(built: &Path, component: &Path) -> Result<()> {
    let new = fs::read(built).with_context(|| format!("reading {}", built.display()))?;
    if fs::read(component).is_ok_and(|old| old == new) {
        return Ok(());
    }
    let unfinished = component.with_extension("wasm.part");
    fs::write(&unfinished, new)
        .and_then(|()| fs::rename(&unfinished, component))
        .with_context(|| format!("writing {}", component.display()))
}

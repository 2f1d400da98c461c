//! Builds the pieces for wasm32-wasip2, with a cargo of its own.
//!
//! That cargo has a target folder of its own too, so it never waits for the lock that the
//! cargo which runs this holds. It does nothing when nothing has changed.

use std::path::{Path, PathBuf};
use std::process::Command;
use std::{env, fs};

const TARGET: &str = "wasm32-wasip2";
const PIECES: [&str; 3] = [
    "tidegate-spin-shim",
    "tidegate-spin-gateway",
    "tidegate-spin-events",
];
/// What the pieces are made of, from the workspace's root.
const SOURCES: [&str; 7] = [
    "components/spin/base",
    "components/spin/shim",
    "components/spin/gateway",
    "components/spin/events",
    "components/spin/wit",
    "core/src",
    "wit",
];

fn main() {
    let variable = |name| PathBuf::from(env::var_os(name).expect("cargo sets it"));
    let root = variable("CARGO_MANIFEST_DIR");
    let root = root
        .ancestors()
        .nth(3)
        .expect("this crate lies in the workspace");
    for source in SOURCES {
        println!("cargo::rerun-if-changed={}", root.join(source).display());
    }
    let out = variable("OUT_DIR");
    // TARGET/debug/build/PACKAGE/out
    let target = out.ancestors().nth(4).expect("cargo's target folder");
    let target = target.join("spin-pieces");
    if let Err(message) = check_target().and_then(|()| build(root, &target)) {
        // What cargo shows of a build script that fails.
        eprintln!("{message}");
        std::process::exit(1);
    }
    for piece in PIECES {
        let name = format!("{}.wasm", piece.replace('-', "_"));
        let built = target.join(TARGET).join("handler").join(&name);
        fs::copy(&built, out.join(name))
            .unwrap_or_else(|error| panic!("copying {}: {error}", built.display()));
    }
}

fn check_target() -> Result<(), String> {
    let rustc = env::var_os("RUSTC").unwrap_or_else(|| "rustc".into());
    let sysroot = Command::new(rustc)
        .args(["--print", "sysroot"])
        .output()
        .map_err(|error| format!("rustc does not run: {error}"))?;
    let sysroot = String::from_utf8_lossy(&sysroot.stdout);
    match Path::new(sysroot.trim())
        .join("lib/rustlib")
        .join(TARGET)
        .exists()
    {
        true => Ok(()),
        false => Err(format!(
            "the pieces for Spin are built for {TARGET}, which this toolchain does not have: \
             rustup target add {TARGET}"
        )),
    }
}

fn build(root: &Path, target: &Path) -> Result<(), String> {
    let mut cargo = Command::new(env::var_os("CARGO").unwrap_or_else(|| "cargo".into()));
    cargo.current_dir(root);
    cargo.args(["build", "--lib", "--target", TARGET, "--profile", "handler"]);
    cargo.arg("--target-dir").arg(target);
    for piece in PIECES {
        cargo.args(["--package", piece]);
    }
    // Settings of the build that runs this, for other machines or other tools.
    for (name, _) in env::vars_os() {
        let text = name.to_string_lossy();
        let foreign = [
            "CARGO_ENCODED_RUSTFLAGS",
            "RUSTFLAGS",
            "RUSTC_WORKSPACE_WRAPPER",
        ];
        let profile = text.starts_with("CARGO_PROFILE_") || text.starts_with("CARGO_BUILD_");
        if profile || foreign.contains(&&*text) {
            cargo.env_remove(&name);
        }
    }
    let output = cargo
        .output()
        .map_err(|error| format!("cargo does not run: {error}"))?;
    match output.status.success() {
        true => Ok(()),
        false => Err(format!(
            "the pieces for Spin do not build:\n{}",
            String::from_utf8_lossy(&output.stderr)
        )),
    }
}

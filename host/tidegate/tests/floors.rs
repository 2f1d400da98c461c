//! What Cargo cannot see of who may know whom: that only the engine knows wasmtime, and that what
//! is of use without Tidegate stays so.

use std::collections::BTreeMap;
use std::fs;
use std::path::Path;

/// The names of the crates that each crate of the host is built with, by its folder.
fn dependencies() -> BTreeMap<String, Vec<String>> {
    let package = std::env::var_os("CARGO_MANIFEST_DIR").expect("cargo runs the tests");
    let host = Path::new(&package).parent().expect("a folder of crates");
    let crates = fs::read_dir(host).expect("a folder of crates");
    crates
        .map(|entry| {
            let folder = entry.expect("an entry").path();
            let manifest = fs::read_to_string(folder.join("Cargo.toml")).expect("a manifest");
            let manifest: toml::Table = manifest.parse().expect("TOML");
            let dependencies = manifest["dependencies"].as_table().expect("a table");
            let name = folder.file_name().expect("a name").to_string_lossy();
            (name.into_owned(), dependencies.keys().cloned().collect())
        })
        .collect()
}

#[test]
fn only_the_engine_knows_wasmtime() {
    let dependencies = dependencies();
    let knows = |names: &[String]| names.iter().any(|name| name.starts_with("wasmtime"));
    let who = dependencies.iter().filter(|(_, names)| knows(names));
    let who: Vec<&str> = who.map(|(name, _)| name.as_str()).collect();
    assert_eq!(who, ["engine"]);
}

#[test]
fn the_journal_and_the_websocket_layer_know_little_of_tidegate() {
    let dependencies = dependencies();
    let ours = |name: &str| {
        let names = dependencies[name].iter();
        let ours = names.filter(|name| name.starts_with("tidegate"));
        ours.map(String::as_str).collect::<Vec<_>>()
    };
    assert_eq!(ours("journal"), ["tidegate-base"]);
    assert_eq!(ours("ws"), ["tidegate-base"]);
}

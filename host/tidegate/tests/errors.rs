//! An error either shows what it comes from or returns it as its source: who prints both would
//! say the same thing twice.

use std::fs;
use std::path::{Path, PathBuf};

fn source_files(folder: &Path) -> Vec<PathBuf> {
    let entries = fs::read_dir(folder).expect("a folder of the sources");
    let paths = entries.map(|entry| entry.expect("an entry").path());
    paths
        .flat_map(|path| match path.is_dir() {
            true => source_files(&path),
            false => vec![path],
        })
        .filter(|path| path.extension().is_some_and(|ending| ending == "rs"))
        .collect()
}

/// What follows an `#[error(…)]` until the next one or the end of the type: its text, and the
/// variant or struct that it is on.
fn declared(code: &str) -> Vec<(&str, &str)> {
    let errors = code.split("#[error(").skip(1);
    errors
        .filter_map(|rest| {
            let (text, rest) = rest.split_once(")]")?;
            let end = rest.find("\n}").unwrap_or(rest.len());
            Some((text, &rest[..end]))
        })
        .collect()
}

#[test]
fn no_error_says_its_cause_and_returns_it_too() {
    let package = std::env::var_os("CARGO_MANIFEST_DIR").expect("cargo runs the tests");
    let (mut wrong, mut count) = (Vec::new(), 0);
    let host = Path::new(&package).parent().expect("a folder of crates");
    for file in source_files(host) {
        let code = fs::read_to_string(&file).expect("a source file");
        for (text, on) in declared(&code) {
            count += 1;
            let shows = ["{source", "{0", "{cause"]
                .iter()
                .any(|shown| text.contains(shown));
            let returns = ["#[from]", "#[source]", " source:"]
                .iter()
                .any(|mark| on.contains(mark));
            if shows && returns {
                wrong.push(format!("{}: {text}", file.display()));
            }
        }
    }
    assert!(count > 40, "{count} errors were found");
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}

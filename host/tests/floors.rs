//! The architecture's invariant: a module imports only from a lower floor, or its own. The
//! table stands in `src/lib.rs`; this test reads it from there.
use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};

fn source_files(folder: &Path) -> Vec<PathBuf> {
    let mut files = Vec::new();
    for entry in fs::read_dir(folder).unwrap() {
        let path = entry.unwrap().path();
        if path.is_dir() {
            files.extend(source_files(&path));
        } else if path.extension().is_some_and(|extension| extension == "rs") {
            files.push(path);
        }
    }
    files
}

/// The rows of the table: `//! | 3 | [`turn`], [`router`] |`.
fn floors(lib: &str) -> BTreeMap<String, u32> {
    let mut floors = BTreeMap::new();
    for line in lib.lines().filter_map(|line| line.strip_prefix("//! |")) {
        let mut cells = line.split('|').map(str::trim);
        let Some(Ok(floor)) = cells.next().map(str::parse) else {
            continue;
        };
        for name in cells.next().unwrap_or("").split("[`").skip(1) {
            floors.insert(name.split('`').next().unwrap().to_owned(), floor);
        }
    }
    floors
}

fn sources() -> PathBuf {
    let package = std::env::var_os("CARGO_MANIFEST_DIR").expect("cargo runs the tests");
    Path::new(&package).join("src")
}

#[test]
fn imports_point_down() {
    let src = sources();
    let lib = fs::read_to_string(src.join("lib.rs")).unwrap();
    let floors = floors(&lib);
    assert!(
        floors.len() > 8,
        "the table in lib.rs was not found: {floors:?}"
    );
    let mut wrong = Vec::new();
    for file in source_files(&src) {
        let relative = file.strip_prefix(&src).unwrap();
        let module = relative
            .iter()
            .next()
            .unwrap()
            .to_str()
            .unwrap()
            .trim_end_matches(".rs");
        // The last two are the binary, above all floors.
        if matches!(module, "lib" | "main" | "cli") {
            continue;
        }
        let own = *floors
            .get(module)
            .unwrap_or_else(|| panic!("lib.rs gives no floor to `{module}`"));
        let text = fs::read_to_string(&file).unwrap();
        assert!(
            !text.contains("crate::{"),
            "{} imports several modules in one braced path, which this test does not read",
            relative.display()
        );
        for import in text.split("crate::").skip(1) {
            let name: String = import
                .chars()
                .take_while(|c| c.is_ascii_alphanumeric() || *c == '_')
                .collect();
            if floors.get(&name).is_some_and(|floor| *floor > own) {
                wrong.push(format!("{}: crate::{name}", relative.display()));
            }
        }
    }
    assert!(wrong.is_empty(), "imports that point up: {wrong:#?}");
}

#[test]
fn only_the_engine_names_generated_bindings() {
    let src = sources();
    for file in source_files(&src) {
        let relative = file.strip_prefix(&src).unwrap();
        let text = fs::read_to_string(&file).unwrap();
        let names = text.contains("bindings::") || text.contains("wasmtime::");
        assert!(
            !names || relative.starts_with("engine"),
            "{} names wasmtime or its bindings",
            relative.display()
        );
    }
}

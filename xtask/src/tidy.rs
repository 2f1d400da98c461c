//! `cargo xtask tidy`: rules of the house that no compiler checks.
//!
//! Each rule is a function over the sources that says what breaks it; all are looked at, so that
//! one run shows everything.

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result, bail};

use crate::project::Project;

/// A source file of the project.
struct Source {
    /// From the root.
    path: PathBuf,
    text: String,
}

impl Source {
    /// Names a line of it, counted from 0.
    fn line(&self, number: usize) -> String {
        format!("{}:{}", self.path.display(), number + 1)
    }

    fn is_in(&self, folder: &str) -> bool {
        self.path.starts_with(folder)
    }
}

pub(crate) fn run(project: &Project) -> Result<()> {
    let sources = sources(project)?;
    if sources.len() < 100 {
        bail!("only {} source files were found", sources.len());
    }
    let host = Dependencies::of(project, "host")?;
    let architecture = project.root().join("docs/architecture.md");
    let map = fs::read_to_string(&architecture).context("docs/architecture.md")?;
    let mut wrong = Vec::new();
    wrong.extend(openings(&sources));
    wrong.extend(module_style(&sources));
    wrong.extend(empty_words(&sources));
    wrong.extend(order_of_imports(&sources));
    wrong.extend(causes_said_twice(&sources));
    wrong.extend(floors(&host));
    wrong.extend(rows_of_the_map(project, &map)?);
    if !wrong.is_empty() {
        bail!("{} things are untidy:\n{}", wrong.len(), wrong.join("\n"));
    }
    println!("{} source files are tidy", sources.len());
    Ok(())
}

/// Every Rust source of the project, apart from what is built or fetched.
fn sources(project: &Project) -> Result<Vec<Source>> {
    let mut sources = Vec::new();
    let mut folders = vec![PathBuf::new()];
    while let Some(folder) = folders.pop() {
        for entry in fs::read_dir(project.root().join(&folder))? {
            let entry = entry?;
            let name = entry.file_name();
            let name = name.to_string_lossy();
            let path = folder.join(&*name);
            if entry.file_type()?.is_dir() {
                let is_ours = !name.starts_with('.') && name != "target" && name != "node_modules";
                folders.extend(is_ours.then_some(path));
            } else if name.ends_with(".rs") {
                let text =
                    fs::read_to_string(entry.path()).with_context(|| path.display().to_string())?;
                sources.push(Source { path, text });
            }
        }
    }
    sources.sort_by(|one, other| one.path.cmp(&other.path));
    Ok(sources)
}

/// Every file opens with what it owns.
fn openings(sources: &[Source]) -> Vec<String> {
    // Their lines are part of what the compiler's messages are compared with.
    let ours = sources.iter().filter(|s| !s.is_in("sdk/rust/tests/ui"));
    let has_none = |source: &&Source| {
        !["//! ", "#![doc ="]
            .iter()
            .any(|mark| source.text.starts_with(mark))
    };
    ours.filter(has_none)
        .map(|source| format!("{}: does not open with `//!`", source.path.display()))
        .collect()
}

/// A module `x` with parts is `x.rs` and `x/`.
fn module_style(sources: &[Source]) -> Vec<String> {
    let by_old_style = sources.iter().filter(|s| s.path.ends_with("mod.rs"));
    by_old_style
        .map(|source| format!("{}: is to be the folder's name, .rs", source.path.display()))
        .collect()
}

/// No documentation begins with a reference to what stands elsewhere, or is one word.
fn empty_words(sources: &[Source]) -> Vec<String> {
    let mut wrong = Vec::new();
    for source in sources {
        let lines: Vec<&str> = source.text.lines().map(str::trim_start).collect();
        let doc_of = |line: &str, mark: &str| {
            let doc = line.strip_prefix(mark);
            doc.map(|doc| doc.trim().to_owned())
        };
        let mut in_code = false;
        for (number, line) in lines.iter().enumerate() {
            let mark = if line.starts_with("//!") {
                "//!"
            } else {
                "///"
            };
            let Some(doc) = doc_of(line, mark) else {
                in_code = false;
                continue;
            };
            let before = number
                .checked_sub(1)
                .and_then(|before| doc_of(lines[before], mark));
            if doc.starts_with("```") {
                in_code = !in_code;
            }
            let begins = before.as_deref().is_none_or(str::is_empty);
            if in_code || !begins {
                continue;
            }
            if doc.starts_with("The same") {
                wrong.push(format!(
                    "{}: says \"The same\", not what it is",
                    source.line(number)
                ));
            }
            let after = lines.get(number + 1);
            let is_alone = after.is_none_or(|next| doc_of(next, mark).is_none());
            let is_word = doc.ends_with('.') && !doc.contains(char::is_whitespace);
            if before.is_none() && is_alone && is_word && !doc.starts_with('`') {
                wrong.push(format!(
                    "{}: one word is no documentation",
                    source.line(number)
                ));
            }
        }
    }
    wrong
}

/// Of what a `use` brings in.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
enum From {
    Std,
    Elsewhere,
    Here,
}

fn imported_from(line: &str) -> Option<From> {
    let path = line.strip_prefix("use ")?;
    let root = path.split([':', ';', ' ']).next()?;
    Some(match root {
        "std" | "core" | "alloc" => From::Std,
        "crate" | "self" | "super" => From::Here,
        _ => From::Elsewhere,
    })
}

/// At the top of a file of the host, `use` brings in the standard library first, then other crates,
/// then this one.
fn order_of_imports(sources: &[Source]) -> Vec<String> {
    let mut wrong = Vec::new();
    for source in sources
        .iter()
        .filter(|s| s.is_in("host") || s.is_in("core"))
    {
        let mut last = From::Std;
        for (number, line) in source.text.lines().enumerate() {
            let Some(from) = imported_from(line) else {
                continue;
            };
            if from < last {
                wrong.push(format!(
                    "{}: stands behind others of its kind's successors",
                    source.line(number)
                ));
            }
            last = last.max(from);
        }
    }
    wrong
}

/// What follows an `#[error(…)]` until the next one or the end of the type: its text, and the
/// variant or struct that it is on.
fn declared_errors(code: &str) -> impl Iterator<Item = (&str, &str)> {
    let errors = code.split("#[error(").skip(1);
    errors.filter_map(|rest| {
        let (text, rest) = rest.split_once(")]")?;
        let end = rest.find("\n}").unwrap_or(rest.len());
        Some((text, &rest[..end]))
    })
}

/// An error either shows what it comes from or returns it as its source: who prints both would say
/// one thing twice.
fn causes_said_twice(sources: &[Source]) -> Vec<String> {
    let mut wrong = Vec::new();
    for source in sources.iter().filter(|s| s.is_in("host")) {
        for (text, on) in declared_errors(&source.text) {
            let shows = ["{source", "{0", "{cause"]
                .iter()
                .any(|shown| text.contains(shown));
            let returns = ["#[from]", "#[source]", " source:"]
                .iter()
                .any(|mark| on.contains(mark));
            if shows && returns {
                wrong.push(format!(
                    "{}: says its cause and returns it: {text}",
                    source.path.display()
                ));
            }
        }
    }
    wrong
}

/// The crates that each crate of a folder is built with, by the folder's entries.
struct Dependencies(BTreeMap<String, Vec<String>>);

impl Dependencies {
    fn of(project: &Project, folder: &str) -> Result<Dependencies> {
        let mut all = BTreeMap::new();
        for entry in fs::read_dir(project.root().join(folder))? {
            let path = entry?.path();
            let manifest = fs::read_to_string(path.join("Cargo.toml"))
                .with_context(|| path.display().to_string())?;
            let manifest: toml::Table = manifest.parse()?;
            let names = manifest.get("dependencies").and_then(toml::Value::as_table);
            let names = names.into_iter().flat_map(toml::Table::keys).cloned();
            let name = path.file_name().unwrap_or_default().to_string_lossy();
            all.insert(name.into_owned(), names.collect());
        }
        Ok(Dependencies(all))
    }

    fn ours<'d>(&'d self, name: &str) -> Vec<&'d str> {
        let names = self.0.get(name).map(Vec::as_slice).unwrap_or_default();
        let ours = names.iter().filter(|name| name.starts_with("tidegate"));
        ours.map(String::as_str).collect()
    }
}

/// What Cargo cannot see of who may know whom: that only the engine knows wasmtime, and that what
/// is of use without Tidegate stays so.
fn floors(host: &Dependencies) -> Vec<String> {
    let mut wrong = Vec::new();
    for (name, dependencies) in &host.0 {
        let knows = dependencies.iter().any(|name| name.starts_with("wasmtime"));
        if knows != (name == "engine") {
            wrong.push(format!("host/{name}: only the engine knows wasmtime"));
        }
    }
    for name in ["journal", "ws"] {
        let ours = host.ours(name);
        if ours != ["tidegate-base"] {
            wrong.push(format!(
                "host/{name}: may know tidegate-base alone, knows {ours:?}"
            ));
        }
    }
    wrong
}

/// What a file says of itself first: its opening's first sentence.
fn first_sentence(text: &str) -> String {
    let opening = text.lines().map_while(|line| line.strip_prefix("//!"));
    let paragraph = opening.map(str::trim).take_while(|line| !line.is_empty());
    let paragraph = paragraph.collect::<Vec<_>>().join(" ");
    let end = paragraph.find(". ").map_or(paragraph.len(), |end| end + 1);
    paragraph[..end].trim_end_matches('.').to_owned()
}

/// The map names every crate, and says of those that have a row what they say of themselves.
fn rows_of_the_map(project: &Project, map: &str) -> Result<Vec<String>> {
    let mut wrong = Vec::new();
    let rows = map
        .lines()
        .filter_map(|line| line.strip_prefix("| `tidegate"));
    let rows = rows.filter_map(|line| {
        let cells: Vec<&str> = line.split('|').map(str::trim).collect();
        let [name, folder, owns, ..] = cells[..] else {
            return None;
        };
        let name = format!("tidegate{}", name.trim_end_matches('`'));
        Some((name, (folder.trim_matches('`').to_owned(), owns.to_owned())))
    });
    let rows: BTreeMap<String, (String, String)> = rows.collect();
    for package in project
        .packages_in("host")
        .chain(project.packages_in("core"))
    {
        let Some((folder, owns)) = rows.get(&package.name) else {
            wrong.push(format!(
                "docs/architecture.md: the map has no row for {}",
                package.name
            ));
            continue;
        };
        let root = project.root().join(folder).join("src");
        let opening = ["lib.rs", "main.rs"]
            .iter()
            .find_map(|file| fs::read_to_string(root.join(file)).ok());
        let Some(opening) = opening else {
            wrong.push(format!(
                "docs/architecture.md: {} is not in {folder}",
                package.name
            ));
            continue;
        };
        let says = first_sentence(&opening);
        if says != *owns {
            wrong.push(format!(
                "docs/architecture.md: {} says of itself \"{says}\", the map \"{owns}\"",
                package.name
            ));
        }
    }
    for package in project.packages_in("") {
        let folder = package.folder.strip_prefix(project.root());
        let folder = folder.unwrap_or(&package.folder);
        let is_named = |folder: &Path| map.contains(&format!("`{}/`", folder.display()));
        if !folder.ancestors().any(is_named) {
            wrong.push(format!(
                "docs/architecture.md: the map does not name {}",
                package.name
            ));
        }
    }
    Ok(wrong)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn source(text: &str) -> [Source; 1] {
        [Source {
            path: Path::new("host/x/src/lib.rs").to_owned(),
            text: text.to_owned(),
        }]
    }

    #[test]
    fn what_opens_without_words_is_found() {
        assert_eq!(openings(&source("//! Owns x.\n")).len(), 0);
        assert_eq!(openings(&source("use std::fs;\n")).len(), 1);
    }

    #[test]
    fn words_that_say_nothing_are_found() {
        let text = "//! Owns x.\n/// The same of y.\nfn y() {}\n/// Name.\nz: u8,\n/// Is y.\n/// The same\n";
        assert_eq!(empty_words(&source(text)).len(), 2);
        let text = "//! Owns x.\n/// A name.\n/// ```\n/// The same\n/// ```\nfn y() {}\n/// `y`.\nz: u8,\n";
        assert_eq!(empty_words(&source(text)).len(), 0);
    }

    #[test]
    fn imports_out_of_order_are_found() {
        assert_eq!(
            order_of_imports(&source("use std::fs;\n\nuse x::y;\n\nuse super::z;\n")).len(),
            0
        );
        assert_eq!(
            order_of_imports(&source("use x::y;\nuse std::fs;\n")).len(),
            1
        );
        assert_eq!(
            order_of_imports(&source("use crate::y;\nuse x::y;\n")).len(),
            1
        );
    }

    #[test]
    fn causes_that_are_said_twice_are_found() {
        let twice = "#[error(\"broken: {0}\")]\nBroken(#[from] io::Error),\n}";
        assert_eq!(causes_said_twice(&source(twice)).len(), 1);
        let once = "#[error(\"broken\")]\nBroken(#[from] io::Error),\n}";
        assert_eq!(causes_said_twice(&source(once)).len(), 0);
    }

    #[test]
    fn crates_that_know_too_much_are_found() {
        let names = |names: &[&str]| names.iter().map(|name| (*name).to_owned()).collect();
        let known = |journal: &[&str], engine: &[&str]| {
            let all = [
                ("journal", names(journal)),
                ("ws", names(&["tidegate-base"])),
                ("engine", names(engine)),
            ];
            Dependencies(all.map(|(name, known)| (name.to_owned(), known)).into())
        };
        assert_eq!(
            floors(&known(&["tidegate-base", "bytes"], &["wasmtime"])).len(),
            0
        );
        assert_eq!(floors(&known(&["tidegate-core"], &[])).len(), 2);
    }

    #[test]
    fn a_first_sentence_ends_with_its_paragraph_at_the_latest() {
        assert_eq!(
            first_sentence("//! Owns x\n//! and y. It is z.\n"),
            "Owns x and y"
        );
        assert_eq!(first_sentence("//! Owns x.\n//!\n//! And y.\n"), "Owns x");
    }
}

//! `tidegate new`: a folder with a new handler, ready for a host and for Spin.
//!
//! Invariant: nothing that is there is written over; a folder that is not empty is refused.

use std::fmt::Write as _;
use std::fs;
use std::path::{Path, PathBuf};

use anyhow::{Context, bail};
use clap::ValueEnum;

use super::print;

/// Random bytes of a key: as many as its MAC makes use of.
const KEY_BYTES: usize = 32;
/// Longest name, as an actor's.
const NAME_MAX_BYTES: usize = 64;

/// What a new folder holds, by path; `{{word}}` is filled in.
const ACTOR: [(&str, &str); 4] = [
    ("Cargo.toml", include_str!("template/Cargo.toml.txt")),
    ("src/lib.rs", include_str!("template/src/lib.rs.txt")),
    ("spin.toml", include_str!("template/spin.toml.txt")),
    ("README.md", include_str!("template/README.md.txt")),
];
const IGNORED: &str = "/target\n.env\n.spin/\n.tidegate/\n";

#[derive(clap::Args)]
pub(crate) struct New {
    /// The name of the folder, the package and the actor type: lower-case words with hyphens
    /// between them.
    #[arg(value_parser = name)]
    name: String,
    /// What to begin with.
    #[arg(long, value_enum, default_value_t = Template::Actor)]
    template: Template,
    /// The folder to make the new one in.
    #[arg(long, value_name = "DIR", default_value = ".")]
    within: PathBuf,
    /// The folder of the crate tidegate-sdk, in place of the published one.
    #[arg(long, value_name = "DIR")]
    sdk: Option<PathBuf>,
}

#[derive(Clone, Copy, ValueEnum)]
enum Template {
    /// One actor type, with a method, an event and tests.
    Actor,
}

impl New {
    pub(crate) fn run(self) -> anyhow::Result<()> {
        if !self.within.is_dir() {
            let within = self.within.display();
            bail!("--within: expected a folder that is there, found none at {within}");
        }
        let folder = self.within.join(&self.name);
        let shown = folder.display();
        if fs::read_dir(&folder).is_ok_and(|mut entries| entries.next().is_some()) {
            bail!("{shown} is not empty");
        }
        let files = match self.template {
            Template::Actor => ACTOR,
        };
        let words = self.words()?;
        let write = |path: &str, text: &str| {
            let file = folder.join(path);
            let parent = file.parent().unwrap_or(Path::new(""));
            fs::create_dir_all(parent)
                .and_then(|()| fs::write(&file, text))
                .with_context(|| format!("cannot write {}", file.display()))
        };
        for (path, text) in files {
            write(path, &fill(text, &words))?;
        }
        write(".gitignore", IGNORED)?;
        write(".env", &keys()?)?;
        let build = "cargo build --target wasm32-wasip2 --release";
        Ok(print(&format!(
            "made {shown}\n\n  cd {shown}\n  {build}\n  tidegate up\n\nor, on Spin: spin build --up\n"
        ))?)
    }

    fn words(&self) -> anyhow::Result<[(&'static str, String); 6]> {
        let name = &self.name;
        let (sdk, note) = match &self.sdk {
            None => (format!("\"{}\"", env!("CARGO_PKG_VERSION")), String::new()),
            Some(folder) => {
                let folder = folder.canonicalize();
                let folder = folder.context("--sdk: expected a folder that is there")?;
                if !folder.join("Cargo.toml").exists() {
                    bail!("--sdk: there is no Cargo.toml in {}", folder.display());
                }
                let path = toml::Value::from(folder.to_str().context("--sdk: expected UTF-8")?);
                let note = "\n`Cargo.toml` names the folder of `tidegate-sdk` on the machine \
                            where this was made.";
                (format!("{{ path = {path} }}"), note.to_owned())
            }
        };
        let events = match name.as_str() {
            "events" => "streams",
            _ => "events",
        };
        Ok([
            ("name", name.clone()),
            ("struct", camel_case(name)),
            ("file", name.replace('-', "_")),
            ("events", events.to_owned()),
            ("sdk", sdk),
            ("note", note),
        ])
    }
}

/// `{{word}}`, without spaces, so that Spin's own `{{ word }}` stay.
fn fill(template: &str, words: &[(&str, String)]) -> String {
    let mut text = template.to_owned();
    for (word, value) in words {
        text = text.replace(&format!("{{{{{word}}}}}"), value);
    }
    format!("{}\n", text.trim_end())
}

/// The secrets of the application on Spin.
fn keys() -> anyhow::Result<String> {
    let mut text = String::new();
    for name in ["TIDEGATE_INTERNAL_KEY", "TIDEGATE_TICK_KEY"] {
        let mut key = [0; KEY_BYTES];
        getrandom::fill(&mut key).map_err(|error| anyhow::anyhow!("no random key: {error}"))?;
        let key: String = key.iter().map(|byte| format!("{byte:02x}")).collect();
        writeln!(text, "SPIN_VARIABLE_{name}={key}")?;
    }
    Ok(text)
}

/// A name that is one for a package, an actor type and a component of Spin.
fn name(text: &str) -> Result<String, String> {
    let word = |word: &str| {
        word.starts_with(|first: char| first.is_ascii_lowercase())
            && word
                .bytes()
                .all(|b| b.is_ascii_lowercase() || b.is_ascii_digit())
    };
    if text.len() > NAME_MAX_BYTES || !text.split('-').all(word) {
        return Err(format!(
            "expected lower-case words with hyphens between them, such as tea-room, at most \
             {NAME_MAX_BYTES} bytes; found `{text}`"
        ));
    }
    match RESERVED.contains(&text) {
        true => Err(format!(
            "`{text}` means something to Rust; choose another name"
        )),
        false => Ok(text.to_owned()),
    }
}

/// What is no name of a crate, or makes a struct that hides what the template uses.
const RESERVED: [&str; 18] = [
    "as", "const", "context", "core", "event", "failure", "fn", "greeted", "impl", "match", "mod",
    "option", "result", "self", "std", "string", "test", "type",
];

fn camel_case(name: &str) -> String {
    let words = name.split('-').map(|word| {
        let (first, rest) = word.split_at(1);
        first.to_ascii_uppercase() + rest
    });
    words.collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_name_is_words_with_hyphens() {
        for good in ["hello", "tea-room", "room2", "a"] {
            assert_eq!(name(good).as_deref(), Ok(good));
        }
        for bad in [
            "", "Hello", "tea_room", "-a", "a-", "a--b", "2a", "a-2", "../a", "fn",
        ] {
            assert!(name(bad).is_err(), "{bad}");
        }
        assert!(name(&"a".repeat(65)).is_err());
    }

    #[test]
    fn structs_are_named_after_the_actor() {
        assert_eq!(camel_case("tea-room"), "TeaRoom");
    }

    #[test]
    fn the_words_of_spin_stay() {
        let words = [("name", "hello".to_owned())];
        assert_eq!(fill("{{name}} {{ name }}", &words), "hello {{ name }}\n");
    }

    #[test]
    fn no_word_is_left_in_what_is_made() {
        let new = New {
            name: "events".to_owned(),
            template: Template::Actor,
            within: PathBuf::new(),
            sdk: None,
        };
        let words = new.words().unwrap();
        for (path, text) in ACTOR {
            let text = fill(text, &words).replace("{{ ", "");
            assert!(!text.contains("{{"), "{path}: {text}");
        }
        let spin = fill(ACTOR[2].1, &words);
        toml::from_str::<toml::Table>(&spin).unwrap();
        assert!(spin.contains("[component.events]") && spin.contains("[component.streams]"));
    }
}

//! `docs/settings.md`: every setting with its default, its unit and its meaning, in a table for each
//! section, from what is declared.
//!
//! Invariant: the page depends on the declarations alone, not on where it is written.

use tidegate_base::config::{Declared, Section, Settings};

use super::Config;

/// Opens the page.
const OPENING: &str = "\
# Settings

Every setting of the host. `tidegate settings` writes this page from their declarations.
[Operations](operations.md#configuration) says how they are set; `tidegate config` shows what holds.
";

/// The page, as Markdown.
pub fn markdown() -> String {
    let whole = Config::declared();
    let defaults = serde_json::to_value(Config::default()).expect("settings are plain data");
    let mut page = OPENING.to_owned();
    table(&mut page, &whole, &defaults);
    for section in &whole.sections {
        let heading = format!("\n## {}\n\n{}\n", section.name, sentences(section.about));
        page.push_str(&heading);
        table(&mut page, section, &defaults[&section.name]);
    }
    page
}

fn table(page: &mut String, section: &Section, defaults: &serde_json::Value) {
    page.push_str("\n| setting | default | unit | meaning |\n|---|---|---|---|\n");
    for setting in &section.settings {
        let name = setting.name();
        let key = match section.name.as_str() {
            "" => name.clone(),
            section => format!("{section}.{name}"),
        };
        let default = default_of(setting, &defaults[&name]);
        let meaning = cell(&sentences(setting.meaning));
        let row = format!("| `{key}` | {default} | {} | {meaning} |\n", setting.unit);
        page.push_str(&row);
    }
}

/// The default as it would stand in a file, and, if that says little, as people say it.
fn default_of(setting: &Declared, default: &serde_json::Value) -> String {
    if let Some(shown) = setting.default {
        return shown.to_owned();
    }
    let spoken = default
        .as_u64()
        .and_then(|number| spoken(number, setting.unit));
    match (default, spoken) {
        (serde_json::Value::Null, _) => "not set".to_owned(),
        (value, None) => format!("`{value}`"),
        (value, Some(spoken)) => format!("`{value}` ({spoken})"),
    }
}

/// A number in the largest unit of which it is a whole multiple.
fn spoken(number: u64, unit: &str) -> Option<String> {
    let larger: &[(u64, &str)] = match unit {
        "bytes" => &[(1 << 30, "GiB"), (1 << 20, "MiB"), (1 << 10, "KiB")],
        "ms" => &[(3_600_000, "h"), (60_000, "min"), (1_000, "s")],
        _ => &[],
    };
    let fits = |(size, _): &&(u64, &str)| number >= *size && number.is_multiple_of(*size);
    let (size, name) = larger.iter().find(fits)?;
    Some(format!("{} {name}", number / size))
}

/// Lines of documentation as one.
fn sentences(lines: &[&str]) -> String {
    let lines: Vec<&str> = lines.iter().map(|line| line.trim()).collect();
    lines.join(" ")
}

fn cell(text: &str) -> String {
    text.replace('|', "\\|")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_page_is_what_is_declared() {
        let path = concat!(env!("CARGO_MANIFEST_DIR"), "/../../docs/settings.md");
        let kept = std::fs::read_to_string(path).expect("the page is there");
        let stale = "docs/settings.md is stale: `cargo run -p tidegate -- settings` writes it anew";
        assert!(kept == markdown(), "{stale}");
    }

    #[test]
    fn every_setting_says_what_it_means_and_in_which_unit() {
        let whole = Config::declared();
        let settings = whole.all();
        assert!(settings.len() > 60, "{} settings", settings.len());
        for (key, setting) in settings {
            assert!(!setting.unit.trim().is_empty(), "{key} has no unit");
            let meaning = sentences(setting.meaning);
            assert!(meaning.ends_with('.'), "{key} says nothing: `{meaning}`");
            let unit = match key.rsplit(['-', '.']).next() {
                Some("bytes") => "bytes",
                Some("ms") => "ms",
                Some("us") => "µs",
                _ => setting.unit,
            };
            assert_eq!(setting.unit, unit, "{key}");
            let is_rate = key.ends_with("-per-second");
            assert_eq!(setting.unit.ends_with("/s"), is_rate, "{key}");
        }
        for section in &whole.sections {
            assert!(sentences(section.about).ends_with('.'), "{}", section.name);
        }
    }

    #[test]
    fn numbers_are_spoken_in_the_largest_whole_unit() {
        assert_eq!(spoken(4 << 30, "bytes").as_deref(), Some("4 GiB"));
        assert_eq!(spoken(1_500, "ms"), None);
        assert_eq!(spoken(90_000, "ms").as_deref(), Some("90 s"));
        assert_eq!(spoken(0, "bytes"), None);
        assert_eq!(spoken(4_096, "actors"), None);
    }
}

//! Where a setting comes from, and how one that makes no sense is refused.

use std::collections::BTreeSet;
use std::ffi::OsString;
use std::fs;
use std::path::{Path, PathBuf};

use tidegate_base::config::{ConfigError, Setting, Settings, Shown, Source, variable_of};

use super::*;

fn words(words: &[&str]) -> Result<Config, ConfigError> {
    let words: Vec<String> = words.iter().map(|word| (*word).to_owned()).collect();
    Ok(Layers::new().words(&words)?.resolve()?.config)
}

fn variables(variables: &[(&str, &str)]) -> Result<Effective, ConfigError> {
    let variables = variables
        .iter()
        .map(|(name, value)| (OsString::from(name), OsString::from(value)));
    Layers::new().variables(variables)?.resolve()
}

fn shown<'a>(effective: &'a Effective, key: &str) -> &'a Setting {
    let mut settings = effective.settings.iter();
    settings.find(|setting| setting.key == key).unwrap()
}

/// A configuration file that goes with its owner.
struct File(PathBuf);

impl File {
    fn new(name: &str, text: &str) -> File {
        let name = format!("tidegate-config-{name}-{}.toml", std::process::id());
        let path = std::env::temp_dir().join(name);
        fs::write(&path, text).unwrap();
        File(path)
    }

    fn error(&self) -> String {
        match Layers::new().file(&self.0) {
            Ok(_) => panic!("{} is accepted", self.0.display()),
            Err(error) => error.to_string(),
        }
    }
}

impl Drop for File {
    fn drop(&mut self) {
        let _ = fs::remove_file(&self.0);
    }
}

#[test]
fn words_override_defaults_one_by_one() {
    let config = words(&["actors.mailbox-items=7", "gateway.hosts=[\"live.example\"]"]).unwrap();
    assert_eq!(config.actors.mailbox_items, 7);
    assert_eq!(config.actors.idle_timeout_ms, 300_000);
    assert_eq!(config.gateway.hosts, ["live.example"]);
}

#[test]
fn a_bare_string_needs_no_quotes() {
    let config = words(&["engine.cache-dir=/tmp/x"]).unwrap();
    assert_eq!(config.engine.cache_dir, Path::new("/tmp/x"));
}

#[test]
fn a_text_that_looks_like_a_number_stays_a_text() {
    let config = words(&["auth.audience=3", "auth.issuer=\"4\""]).unwrap();
    assert_eq!(config.auth.audience.as_deref(), Some("3"));
    assert_eq!(config.auth.issuer.as_deref(), Some("4"));
    let config = variables(&[("TIDEGATE_AUTH_AUDIENCE", "true")])
        .unwrap()
        .config;
    assert_eq!(config.auth.audience.as_deref(), Some("true"));
}

#[test]
fn a_word_may_set_a_whole_section() {
    let config = words(&[
        "actors={mailbox-items = 7}",
        "actors={max-in-memory = 8, max-stored = 9}",
    ]);
    let actors = config.unwrap().actors;
    assert_eq!(
        (actors.mailbox_items, actors.max_in_memory),
        (7, 8),
        "{actors:?}"
    );
}

#[test]
fn a_list_may_be_words_with_commas_between() {
    let hosts = |text| {
        let effective = variables(&[("TIDEGATE_GATEWAY_HOSTS", text)]).unwrap();
        effective.config.gateway.hosts
    };
    assert_eq!(hosts("a.example, b.example"), ["a.example", "b.example"]);
    assert_eq!(hosts("[\"a.example\"]"), ["a.example"]);
    assert!(hosts("").is_empty());
}

#[test]
fn a_misspelt_setting_is_named_with_those_there_are() {
    let error = words(&["actors.mailbox=7"]).unwrap_err().to_string();
    for part in ["--set", "actors.mailbox:", "mailbox-items"] {
        assert!(error.contains(part), "{error}");
    }
}

#[test]
fn a_word_without_a_value_is_refused() {
    let error = words(&["actors.mailbox-items"]).unwrap_err().to_string();
    assert!(error.contains("key=value"), "{error}");
}

#[test]
fn zero_is_refused_where_it_would_stop_everything() {
    for key in [
        "actors.mailbox-items",
        "access.max-batch",
        "access.max-waiting",
        "admin.max-page",
        "admin.max-uploads",
        "auth.max-token-bytes",
        "auth.reload-interval-ms",
        "component.turn-deadline-ms",
        "engine.compile-threads",
        "gateway.calls-burst",
        "gateway.frames-burst",
        "gateway.max-connections-per-address",
    ] {
        let error = words(&[&format!("{key}=0")]).unwrap_err().to_string();
        let told = error.starts_with(&format!("--set: {key}: expected "));
        assert!(told && error.ends_with("found 0"), "{error}");
    }
}

#[test]
fn no_time_is_too_long_to_be_added_to_a_clock() {
    let effective = Layers::new().resolve().unwrap();
    let times = effective.settings.iter();
    let times = times.filter(|setting| setting.key.ends_with("-ms"));
    let mut count = 0;
    for setting in times {
        let word = format!("{}={}", setting.key, i64::MAX);
        assert!(words(&[&word]).is_err(), "{word} is accepted");
        count += 1;
    }
    assert!(count > 10, "{count} times");
}

#[test]
fn later_layers_win_and_are_named() {
    let file = File::new(
        "layers",
        "[actors]\nmailbox-items = 1\nmax-stored = 1\nmax-in-memory = 1\n",
    );
    let effective = Layers::new()
        .file(&file.0)
        .unwrap()
        .variables([
            ("TIDEGATE_ACTORS_MAX_STORED".into(), "2".into()),
            ("TIDEGATE_ACTORS_MAX_IN_MEMORY".into(), "2".into()),
        ])
        .unwrap()
        .words(&["actors.max-in-memory=3".to_owned()])
        .unwrap()
        .resolve()
        .unwrap();
    let of = |key| {
        (
            &shown(&effective, key).value,
            &shown(&effective, key).source,
        )
    };
    let value = |number: i64| Shown::Value(number.into());
    let (one, two, three) = (value(1), value(2), value(3));
    assert_eq!(
        of("actors.mailbox-items"),
        (&one, &Source::File(file.0.clone()))
    );
    let variable = Source::Variable("TIDEGATE_ACTORS_MAX_STORED".to_owned());
    assert_eq!(of("actors.max-stored"), (&two, &variable));
    assert_eq!(
        of("actors.max-in-memory"),
        (&three, &Source::Argument("--set"))
    );
    assert_eq!(of("actors.resident-instances").1, &Source::Default);
    assert_eq!(effective.config.actors.max_in_memory, 3);
}

#[test]
fn the_short_name_of_a_variable_gives_way_to_the_long_one() {
    let short = ("TIDEGATE_LISTEN", "127.0.0.1:1");
    let long = ("TIDEGATE_GATEWAY_LISTEN", "127.0.0.1:2");
    let port = |given: &[(&str, &str)]| variables(given).unwrap().config.gateway.listen.port();
    assert_eq!(port(&[short]), 1);
    assert_eq!(port(&[long, short]), 2);
}

#[test]
fn no_two_settings_share_a_variable() {
    let effective = Layers::new().resolve().unwrap();
    let keys = effective.settings.iter().map(|setting| &setting.key);
    let names: BTreeSet<String> = keys.map(|key| variable_of(key)).collect();
    assert_eq!(names.len(), effective.settings.len());
    for taken in ["TIDEGATE_CONFIG", "TIDEGATE_LISTEN", "TIDEGATE_URL"] {
        assert!(!names.contains(taken), "{taken} has two meanings");
    }
    assert!(names.contains("TIDEGATE_ACTORS_IDLE_TIMEOUT_MS"));
    // Those that are absent by default.
    for key in [
        "data-dir",
        "auth.key-file",
        "auth.jwks-file",
        "auth.audience",
        "auth.issuer",
        "admin.key",
        "admin.key-file",
    ] {
        assert_eq!(shown(&effective, key).value, Shown::Absent, "{key}");
    }
}

#[test]
fn every_setting_can_be_made_by_its_variable() {
    let effective = Layers::new().resolve().unwrap();
    for setting in &effective.settings {
        let text = match &setting.value {
            Shown::Value(toml::Value::String(text)) => text.clone(),
            Shown::Value(value) => value.to_string(),
            Shown::Absent | Shown::Hidden => "a text of some length".to_owned(),
        };
        let name = variable_of(&setting.key);
        let made = variables(&[(&name, &text)]).unwrap();
        let made = shown(&made, &setting.key);
        assert_eq!(made.source, Source::Variable(name));
        if let Shown::Value(_) = setting.value {
            assert_eq!(made.value, setting.value, "{}", setting.key);
        }
    }
}

#[test]
fn every_field_of_the_settings_is_known() {
    let effective = Layers::new().resolve().unwrap();
    let known: BTreeSet<String> = effective
        .settings
        .into_iter()
        .map(|setting| setting.key)
        .collect();
    let declared = Config::declared();
    let declared: BTreeSet<String> = declared.all().into_iter().map(|(key, _)| key).collect();
    assert_eq!(known, declared);
    assert!(known.len() > 60, "{} settings", known.len());
    // Nothing has a place in a file that is not declared.
    let mut in_files = Vec::new();
    leaves(
        "",
        &serde_json::to_value(Config::default()).unwrap(),
        &mut in_files,
    );
    assert_eq!(in_files.into_iter().collect::<BTreeSet<_>>(), declared);
}

/// The dotted names of all values.
fn leaves(key: &str, value: &serde_json::Value, found: &mut Vec<String>) {
    let Some(members) = value.as_object() else {
        return found.push(key.to_owned());
    };
    for (name, value) in members {
        let dot = if key.is_empty() { "" } else { "." };
        leaves(&format!("{key}{dot}{name}"), value, found);
    }
}

#[test]
fn a_variable_of_the_wrong_kind_is_named() {
    for (name, value, expected) in [
        ("TIDEGATE_GATEWAY_PAGE", "maybe", "true or false"),
        (
            "TIDEGATE_ACTORS_MAILBOX_ITEMS",
            "many",
            "a whole number, found `many`",
        ),
        ("TIDEGATE_GATEWAY_LISTEN", "nowhere", "socket address"),
        ("TIDEGATE_ACCESS_DEFAULT", "ajar", "`open` or `closed`"),
        ("TIDEGATE_LISTEN", "nowhere", "gateway.listen"),
        ("TIDEGATE_GATEWAY_HOSTS", "[a", "a list"),
        ("TIDEGATE_ACTORS_MAILBOX_ITEMS", "-1", "mailbox-items"),
    ] {
        let error = variables(&[(name, value)]).unwrap_err().to_string();
        let begins = error.starts_with(&format!("environment variable {name}: "));
        assert!(begins && error.contains(expected), "{error}");
    }
}

#[test]
fn an_empty_variable_of_an_optional_setting_is_absent() {
    let effective = variables(&[("TIDEGATE_AUTH_ISSUER", ""), ("TIDEGATE_ADMIN_KEY", "")]);
    let effective = effective.unwrap();
    assert_eq!(shown(&effective, "auth.issuer").source, Source::Default);
    assert_eq!(effective.config.admin.key, None);
}

#[test]
fn a_variable_that_is_nearly_a_setting_is_warned_of() {
    let effective = variables(&[
        ("TIDEGATE_ACTORS_MAILBOX_ITEM", "1"),
        ("TIDEGATE_XYZ", "1"),
        ("TIDEGATE_CONFIG", "x.toml"),
        ("TIDEGATE_URL", "http://x"),
        ("HOME", "/"),
    ])
    .unwrap();
    assert_eq!(
        effective.warnings,
        [
            "the environment variable TIDEGATE_ACTORS_MAILBOX_ITEM is no setting; did you mean \
             TIDEGATE_ACTORS_MAILBOX_ITEMS?",
            "the environment variable TIDEGATE_XYZ is no setting",
        ]
    );
}

#[test]
fn a_mistake_in_the_file_is_named_with_its_line() {
    let file = File::new("syntax", "[actors]\nmailbox-items = = 1\n");
    assert!(file.error().contains(".toml:2: "), "{}", file.error());
    let file = File::new("field", "[actors]\n\nmailbox-item = 1\n");
    let error = file.error();
    assert!(
        error.contains(".toml:3: ") && error.contains("mailbox-items"),
        "{error}"
    );
    let file = File::new("range", "actors.mailbox-items = 0\n");
    let layers = Layers::new().file(&file.0).unwrap();
    let error = layers.resolve().unwrap_err().to_string();
    assert!(
        error.ends_with(".toml: actors.mailbox-items: expected 1 or more, found 0"),
        "{error}"
    );
}

#[test]
fn a_mistake_beside_a_secret_does_not_show_it() {
    for text in [
        "admin.key = 's3cret' oops",
        "admin.key = [\"s3cret\"]",
        "admin = { key = { s3cret = 1 } }",
    ] {
        let file = File::new("secret", text);
        assert!(!file.error().contains("s3cret"), "{}", file.error());
    }
}

#[test]
fn a_secret_is_never_among_what_is_shown() {
    let key = "0123456789abcdef";
    let effective = words_of(&[&format!("admin.key={key}")]);
    assert_eq!(effective.config.admin.key.as_deref(), Some(key));
    assert_eq!(shown(&effective, "admin.key").value, Shown::Hidden);
    assert!(!format!("{:?}", effective.settings).contains(key));
}

fn words_of(words: &[&str]) -> Effective {
    let words: Vec<String> = words.iter().map(|word| (*word).to_owned()).collect();
    Layers::new().words(&words).unwrap().resolve().unwrap()
}

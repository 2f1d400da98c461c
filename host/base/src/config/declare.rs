//! How settings are declared: in one place each, with name, default, unit, bounds and meaning.
//!
//! A crate declares its part with [`settings!`](crate::settings), the binary crate all parts
//! together. Invariant: what is declared is all there is to know of a setting; the page of
//! settings, the layers and the checks read nothing else.

use std::fmt;
use std::ops::{RangeFrom, RangeInclusive};

use serde::Serialize;
use serde::de::DeserializeOwned;

/// Longest time that any setting may name: ten years, which can be added to any clock.
pub const MAX_MS: u64 = 10 * 365 * 24 * 60 * 60 * 1000;

/// Settings that were declared with [`settings!`](crate::settings).
pub trait Settings: Clone + Default + DeserializeOwned + Serialize {
    /// What is declared.
    fn declared() -> Section;

    /// Names a setting that the host could not live with.
    fn check(&self) -> Result<(), OutOfRange>;
}

/// What one struct of settings declares.
#[derive(Clone, Debug)]
pub struct Section {
    /// Its name in kebab-case; empty for the whole.
    pub name: String,
    /// What it is about, line by line.
    pub about: &'static [&'static str],
    /// Its own settings, in the order of their declaration.
    pub settings: Vec<Declared>,
    /// The sections within it.
    pub sections: Vec<Section>,
}

impl Section {
    /// Every setting with its dotted name, those of the sections within included.
    pub fn all(&self) -> Vec<(String, &Declared)> {
        let own = self.settings.iter();
        let own = own.map(|setting| (dotted(&self.name, &setting.name()), setting));
        let within = self.sections.iter().flat_map(Section::all);
        let within = within.map(|(key, setting)| (dotted(&self.name, &key), setting));
        own.chain(within).collect()
    }
}

/// What is declared of one setting.
#[derive(Clone, Copy, Debug)]
pub struct Declared {
    /// The name of its field.
    pub field: &'static str,
    /// What its number counts or its text is.
    pub unit: &'static str,
    /// What it means, line by line.
    pub meaning: &'static [&'static str],
    /// What to show as its default where that is not the same everywhere.
    pub default: Option<&'static str>,
    /// Another name that it goes by.
    pub alias: Option<&'static str>,
    /// A short name of its variable.
    pub variable: Option<&'static str>,
    /// It is never shown.
    pub is_secret: bool,
}

impl Declared {
    /// Its name within its section.
    pub fn name(&self) -> String {
        kebab(self.field)
    }
}

/// The name in configuration files of what is called so in Rust.
pub fn kebab(name: &str) -> String {
    name.replace('_', "-")
}

/// The name of something within a section.
pub(super) fn dotted(section: &str, name: &str) -> String {
    match section {
        "" => name.to_owned(),
        _ => format!("{section}.{name}"),
    }
}

/// A setting that the host could not live with.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct OutOfRange {
    /// Its dotted name.
    pub key: String,
    expected: String,
    found: u64,
}

impl fmt::Display for OutOfRange {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let OutOfRange {
            key,
            expected,
            found,
        } = self;
        write!(f, "{key}: expected {expected}, found {found}")
    }
}

impl OutOfRange {
    /// That setting, named from outside of its section.
    pub fn within(self, section: &str) -> OutOfRange {
        OutOfRange {
            key: dotted(&kebab(section), &self.key),
            ..self
        }
    }
}

/// What a number may be.
#[derive(Clone, Copy, Debug)]
pub struct Bounds {
    least: u64,
    most: u64,
}

impl From<RangeInclusive<u64>> for Bounds {
    fn from(range: RangeInclusive<u64>) -> Bounds {
        let (least, most) = range.into_inner();
        Bounds { least, most }
    }
}

impl From<RangeFrom<u64>> for Bounds {
    fn from(range: RangeFrom<u64>) -> Bounds {
        Bounds {
            least: range.start,
            most: u64::MAX,
        }
    }
}

impl Bounds {
    /// Whether the setting of a field is within them.
    pub fn check(self, field: &str, found: impl Number) -> Result<(), OutOfRange> {
        let Bounds { least, most } = self;
        let found = found.number();
        let expected = match most {
            _ if (least..=most).contains(&found) => return Ok(()),
            u64::MAX => format!("{least} or more"),
            _ => format!("{least} to {most}"),
        };
        Err(OutOfRange {
            key: kebab(field),
            expected,
            found,
        })
    }
}

/// A number that has bounds.
pub trait Number: Copy {
    /// Itself, as bounds are given.
    fn number(self) -> u64;
}

impl Number for u32 {
    fn number(self) -> u64 {
        self.into()
    }
}

impl Number for u64 {
    fn number(self) -> u64 {
        self
    }
}

impl Number for usize {
    fn number(self) -> u64 {
        self as u64
    }
}

/// Declares a struct of settings, its defaults and its checks.
///
/// Each field has a meaning (its documentation), a type, a default and a unit, and may have bounds.
/// After the default, `=> "…"` says what to show as such where it is not the same everywhere. In TOML
/// the fields are spelt in kebab-case. `#[alias = "…"]` is another name of a setting, `#[variable =
/// "…"]` a short one of its environment variable, `#[secret = true]` has it never shown; they stand
/// in this order. What bounds of single settings cannot say is checked by a function that is named
/// at the end. The crate needs `serde`.
///
/// ```
/// use tidegate_base::config::{MAX_MS, Settings};
/// use tidegate_base::settings;
///
/// settings! {
///     /// How often to knock.
///     pub struct Door {
///         /// Time between two knocks.
///         interval_ms: u64 = 500, "ms", 1..=MAX_MS;
///         /// What is called through the door.
///         greeting: Option<String> = None => "nothing", "text";
///     }
/// }
///
/// settings! {
///     /// The whole house.
///     pub struct House {} with {
///         /// The door to the street.
///         front_door: Door,
///     }
/// }
///
/// let mut house = House::default();
/// assert_eq!(house.front_door.interval_ms, 500);
/// house.front_door.interval_ms = 0;
/// assert_eq!(
///     house.check().unwrap_err().to_string(),
///     "front-door.interval-ms: expected 1 to 315360000000, found 0"
/// );
/// assert_eq!(House::declared().all()[1].0, "front-door.greeting");
/// ```
#[macro_export]
macro_rules! settings {
    (
        $(#[doc = $about:literal])*
        pub struct $name:ident {
            $(
                $(#[doc = $meaning:literal])*
                $(#[alias = $alias:literal])?
                $(#[variable = $variable:literal])?
                $(#[secret = $secret:literal])?
                $field:ident: $type:ty = $default:expr $(=> $shown:literal)?, $unit:literal
                $(, $bounds:expr)?;
            )*
        }
        $(with {
            $(
                $(#[doc = $part_about:literal])*
                $part:ident: $part_type:ty,
            )*
        })?
        $(checked by $check:path;)?
    ) => {
        $(#[doc = $about])*
        #[derive(Clone, Debug, ::serde::Deserialize, ::serde::Serialize)]
        #[serde(default, deny_unknown_fields, rename_all = "kebab-case")]
        pub struct $name {
            $(
                $(#[doc = $meaning])*
                $(#[serde(alias = $alias)])?
                pub $field: $type,
            )*
            $($(
                $(#[doc = $part_about])*
                pub $part: $part_type,
            )*)?
        }

        impl ::std::default::Default for $name {
            fn default() -> Self {
                $name {
                    $($field: $default,)*
                    $($($part: ::std::default::Default::default(),)*)?
                }
            }
        }

        impl $crate::config::Settings for $name {
            fn declared() -> $crate::config::Section {
                $crate::config::Section {
                    name: ::std::string::String::new(),
                    about: &[$($about),*],
                    settings: ::std::vec![$(
                        $crate::config::Declared {
                            field: ::std::stringify!($field),
                            unit: $unit,
                            meaning: &[$($meaning),*],
                            default: [$($shown)?].first().copied(),
                            alias: [$($alias)?].first().copied(),
                            variable: [$($variable)?].first().copied(),
                            is_secret: false $(|| $secret)?,
                        }
                    ),*],
                    sections: ::std::vec![$($(
                        $crate::config::Section {
                            name: $crate::config::kebab(::std::stringify!($part)),
                            about: &[$($part_about),*],
                            ..<$part_type as $crate::config::Settings>::declared()
                        }
                    ),*)?],
                }
            }

            fn check(&self) -> ::std::result::Result<(), $crate::config::OutOfRange> {
                $($(
                    let bounds = $crate::config::Bounds::from($bounds);
                    bounds.check(::std::stringify!($field), self.$field)?;
                )?)*
                $($(
                    let checked = $crate::config::Settings::check(&self.$part);
                    checked.map_err(|wrong| wrong.within(::std::stringify!($part)))?;
                )*)?
                $($check(self)?;)?
                ::std::result::Result::Ok(())
            }
        }
    };
}

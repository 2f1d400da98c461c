//! What a subschema says about a value itself, without going into another subschema.
//!
//! `evaluate` asks whether it holds, `explain` what does not. Where numbers meet decimal
//! fractions and texts meet patterns, the `jsonschema` crate decides.

use std::cmp::Ordering;
use std::sync::OnceLock;

use jsonschema::Validator;
use serde_json::{Map, Value};

use super::equal::{are_different, is_equal};
use super::{MAX_LISTED, MAX_PATTERN_BYTES, kind_of, options_within, or_list, shown};
use crate::failure::cut;
use crate::json::{Json, Number, Object};
use crate::meter::{Exhausted, Meter, STEP_BYTES};

/// The keywords of this module.
pub(super) const ASSERTIONS: [&str; 18] = [
    "type",
    "enum",
    "const",
    "minimum",
    "maximum",
    "exclusiveMinimum",
    "exclusiveMaximum",
    "multipleOf",
    "minLength",
    "maxLength",
    "pattern",
    "minItems",
    "maxItems",
    "uniqueItems",
    "minProperties",
    "maxProperties",
    "required",
    "dependentRequired",
];

/// What is asked of a value.
#[derive(Default)]
pub(super) struct Assertions(Vec<Assertion>);

/// One keyword.
enum Assertion {
    Type(Types),
    Enum(Vec<Json>),
    Const(Json),
    Bound(Bound, Number),
    MultipleOf(Number, Part),
    Length(Limit, u64),
    Pattern(Box<str>, Part),
    Items(Limit, u64),
    UniqueItems,
    Properties(Limit, u64),
    Required(Vec<Box<str>>),
    DependentRequired(Vec<(Box<str>, Vec<Box<str>>)>),
}

#[derive(Clone, Copy)]
enum Bound {
    Minimum,
    Maximum,
    ExclusiveMinimum,
    ExclusiveMaximum,
}

#[derive(Clone, Copy)]
enum Limit {
    Least,
    Most,
}

/// A set of types.
#[derive(Clone, Copy, Default)]
struct Types(u8);

const TYPES: [(&str, u8); 7] = [
    ("array", 1),
    ("boolean", 2),
    ("integer", 4),
    ("null", 8),
    ("number", 16),
    ("object", 32),
    ("string", 64),
];
const INTEGER: u8 = 4;
const NUMBER: u8 = 16;

impl Types {
    fn read(value: &Value) -> Types {
        let bit = |name: &Value| {
            let found = TYPES.iter().find(|(kind, _)| name.as_str() == Some(kind));
            found.map_or(0, |(_, bit)| *bit)
        };
        Types(match value {
            Value::Array(names) => names.iter().map(bit).fold(0, |all, bit| all | bit),
            name => bit(name),
        })
    }

    fn has(self, value: &Json) -> bool {
        let bits = match value {
            Json::Array(_) => 1,
            Json::Bool(_) => 2,
            Json::Null => 8,
            Json::Object(_) => 32,
            Json::String(_) => 64,
            Json::Number(number) if number.is_integer() => INTEGER | NUMBER,
            Json::Number(_) => NUMBER,
        };
        self.0 & bits != 0
    }

    fn names(self) -> impl Iterator<Item = &'static str> {
        let named = TYPES.iter().filter(move |(_, bit)| self.0 & bit != 0);
        named.map(|(name, _)| *name)
    }
}

/// A part of a schema that the crate decides, compiled when it is first asked.
pub(super) struct Part {
    source: Value,
    compiled: OnceLock<Compiled>,
}

struct Compiled {
    /// None of what does not compile, which allows all.
    validator: Option<Validator>,
    /// How much work it may be for each piece of text, since a pattern may go through all of
    /// itself at each byte: the size of what was compiled, in units of [`WEIGHT_BYTES`].
    weight: u64,
}

/// How much of a compiled pattern makes a step of each piece of text.
const WEIGHT_BYTES: usize = 4096;

impl Part {
    /// The schema of this one keyword.
    pub(super) fn new(keyword: &str, value: &Value) -> Part {
        Part {
            source: Value::Object(Map::from_iter([(keyword.to_owned(), value.clone())])),
            compiled: OnceLock::new(),
        }
    }

    fn allows(&self, value: &Value) -> bool {
        let validator = self.compiled().validator.as_ref();
        validator.is_none_or(|part| part.is_valid(value))
    }

    /// Whether the pattern is found in a text.
    pub(super) fn matches(&self, text: &str) -> bool {
        self.allows(&Value::from(text))
    }

    /// What it costs to look for the pattern in a text.
    pub(super) fn steps(&self, text: &str) -> u64 {
        self.compiled().weight * (1 + (text.len() / STEP_BYTES) as u64)
    }

    fn compiled(&self) -> &Compiled {
        self.compiled.get_or_init(|| self.compile())
    }

    /// Compiles within the smallest power of two that holds it, which weighs it: what is too
    /// large for a size is given up when that is full, so all of it costs twice the last at most.
    fn compile(&self) -> Compiled {
        let mut weight = 1;
        loop {
            let bytes = weight * WEIGHT_BYTES;
            let validator = options_within(bytes).build(&self.source).ok();
            // It compiles in the end, since the whole schema did.
            if validator.is_some() || bytes >= MAX_PATTERN_BYTES {
                let weight = weight as u64;
                return Compiled { validator, weight };
            }
            weight *= 2;
        }
    }
}

/// What does not hold.
pub(super) struct Fault<'a>(&'a Assertion, Option<&'a str>);

impl Assertions {
    /// The assertions among these keywords. What is none of them, or not of the right kind, says
    /// nothing here: the crate has refused it or will.
    pub(super) fn read(keywords: &Map<String, Value>) -> Assertions {
        let read = |name: &&str| read_one(name, keywords.get(*name)?);
        Assertions(ASSERTIONS.iter().filter_map(read).collect())
    }

    pub(super) fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// Whether all of it holds.
    pub(super) fn hold(&self, value: &Json, meter: &mut dyn Meter) -> Result<bool, Exhausted> {
        for assertion in &self.0 {
            // What nearly every rule has is looked at here, without a call for each.
            let holds = match (assertion, value) {
                (Assertion::Type(types), value) => types.has(value),
                (Assertion::Bound(bound, limit), Json::Number(number)) => {
                    bound.admits(*number, *limit)
                }
                (Assertion::Required(names), Json::Object(members)) => {
                    meter.charge(assertion.steps(value))?;
                    has_all(names, members)
                }
                (assertion, value) => assertion.holds(value, meter)?,
            };
            if !holds {
                return Ok(false);
            }
        }
        Ok(true)
    }

    /// Tells all that does not hold.
    pub(super) fn faults<'a>(
        &'a self,
        value: &'a Json,
        meter: &mut dyn Meter,
        mut tell: impl FnMut(Fault<'a>),
    ) -> Result<(), Exhausted> {
        for assertion in &self.0 {
            if let Json::Object(_) = value {
                meter.charge(assertion.steps(value))?;
            }
            let missing: &mut dyn Iterator<Item = &str> = match (assertion, value) {
                (Assertion::Required(names), Json::Object(members)) => &mut missing(names, members),
                (Assertion::DependentRequired(rules), Json::Object(members)) => &mut rules
                    .iter()
                    .filter(|(name, _)| members.contains(name))
                    .flat_map(|(_, names)| missing(names, members)),
                _ => {
                    if !assertion.holds(value, meter)? {
                        tell(Fault(assertion, None));
                    }
                    continue;
                }
            };
            missing.for_each(|name| tell(Fault(assertion, Some(name))));
        }
        Ok(())
    }

    /// Whether numbers that satisfy this are integers, so that one written as `1.0` is meant as
    /// `1`.
    pub(super) fn want_integers(&self) -> bool {
        let is_integer = |value: &Json| {
            matches!(
                value,
                Json::Number(Number::Natural(_) | Number::Negative(_))
            )
        };
        self.0.iter().any(|assertion| match assertion {
            Assertion::Type(types) => types.0 & (INTEGER | NUMBER) == INTEGER,
            Assertion::Const(value) => is_integer(value),
            Assertion::Enum(values) => values.iter().any(is_integer),
            _ => false,
        })
    }

    /// Adds the constants, or else the types, that are asked for. `false` if there are none.
    pub(super) fn names(&self, names: &mut Vec<String>) -> bool {
        let find = |wanted: fn(&Assertion) -> bool| self.0.iter().find(|each| wanted(each));
        let asked = find(|each| matches!(each, Assertion::Const(_)))
            .or_else(|| find(|each| matches!(each, Assertion::Enum(_))))
            .or_else(|| find(|each| matches!(each, Assertion::Type(_))));
        match asked {
            Some(Assertion::Const(value)) => names.push(shown(value)),
            Some(Assertion::Enum(values)) => names.extend(values.iter().map(shown)),
            Some(Assertion::Type(types)) => names.extend(types.names().map(str::to_owned)),
            _ => return false,
        }
        true
    }
}

fn read_one(name: &str, value: &Value) -> Option<Assertion> {
    let number = || match value {
        Value::Number(number) => Some(Number::from(number)),
        _ => None,
    };
    // Integers are compared faster than fractions, and schemas like to write `0.0`.
    let bound = || number().map(|number| number.to_integer().unwrap_or(number));
    // `2.0` is a count as well.
    let count = || match bound()? {
        Number::Natural(count) => Some(count),
        Number::Negative(_) => None,
        Number::Float(_) => Some(u64::MAX),
    };
    let texts = |value: &Value| -> Option<Vec<Box<str>>> {
        let texts = value.as_array()?.iter();
        Some(texts.filter_map(Value::as_str).map(Box::from).collect())
    };
    Some(match name {
        "type" => Assertion::Type(Types::read(value)),
        "enum" => Assertion::Enum(value.as_array()?.iter().map(Json::from).collect()),
        "const" => Assertion::Const(value.into()),
        "minimum" => Assertion::Bound(Bound::Minimum, bound()?),
        "maximum" => Assertion::Bound(Bound::Maximum, bound()?),
        "exclusiveMinimum" => Assertion::Bound(Bound::ExclusiveMinimum, bound()?),
        "exclusiveMaximum" => Assertion::Bound(Bound::ExclusiveMaximum, bound()?),
        "multipleOf" => Assertion::MultipleOf(number()?, Part::new(name, value)),
        "minLength" => Assertion::Length(Limit::Least, count()?),
        "maxLength" => Assertion::Length(Limit::Most, count()?),
        "pattern" => Assertion::Pattern(value.as_str()?.into(), Part::new(name, value)),
        "minItems" => Assertion::Items(Limit::Least, count()?),
        "maxItems" => Assertion::Items(Limit::Most, count()?),
        "uniqueItems" => value.as_bool()?.then_some(Assertion::UniqueItems)?,
        "minProperties" => Assertion::Properties(Limit::Least, count()?),
        "maxProperties" => Assertion::Properties(Limit::Most, count()?),
        "required" => Assertion::Required(texts(value)?),
        "dependentRequired" => {
            let rules = value.as_object()?.iter();
            let rules =
                rules.filter_map(|(name, names)| Some((name.as_str().into(), texts(names)?)));
            Assertion::DependentRequired(rules.collect())
        }
        _ => return None,
    })
}

impl Assertion {
    fn holds(&self, value: &Json, meter: &mut dyn Meter) -> Result<bool, Exhausted> {
        match self.steps(value) {
            0 => {}
            steps => meter.charge(steps)?,
        }
        Ok(match (self, value) {
            (Assertion::Type(types), value) => types.has(value),
            (Assertion::Enum(options), value) => {
                for option in options {
                    if is_equal(option, value, meter)? {
                        return Ok(true);
                    }
                }
                false
            }
            (Assertion::Const(expected), value) => is_equal(expected, value, meter)?,
            (Assertion::Bound(bound, limit), Json::Number(number)) => bound.admits(*number, *limit),
            (Assertion::MultipleOf(_, part), Json::Number(number)) => {
                part.allows(&number.to_value())
            }
            (Assertion::Length(limit, bound), Json::String(text)) => {
                limit.allows(text.chars().count(), *bound)
            }
            (Assertion::Pattern(_, part), Json::String(text)) => part.matches(text),
            (Assertion::Items(limit, bound), Json::Array(elements)) => {
                limit.allows(elements.len(), *bound)
            }
            (Assertion::UniqueItems, Json::Array(elements)) => are_different(elements, meter)?,
            (Assertion::Properties(limit, bound), Json::Object(members)) => {
                limit.allows(members.len(), *bound)
            }
            (Assertion::Required(names), Json::Object(members)) => has_all(names, members),
            (Assertion::DependentRequired(rules), Json::Object(members)) => rules
                .iter()
                .filter(|(name, _)| members.contains(name))
                .all(|(_, names)| has_all(names, members)),
            _ => true,
        })
    }

    /// What it costs beside one.
    fn steps(&self, value: &Json) -> u64 {
        let of_names = |names: &[Box<str>]| names.iter().map(|name| name_steps(name)).sum();
        match (self, value) {
            (Assertion::Length(..), Json::String(text)) => (text.len() / STEP_BYTES) as u64,
            (Assertion::Pattern(_, part), Json::String(text)) => part.steps(text),
            (Assertion::Required(names), Json::Object(_)) => of_names(names),
            (Assertion::DependentRequired(rules), Json::Object(_)) => {
                let each = |(name, names): &(Box<str>, Vec<Box<str>>)| -> u64 {
                    let names: u64 = of_names(names);
                    name_steps(name) + names
                };
                rules.iter().map(each).sum()
            }
            _ => 0,
        }
    }
}

impl Bound {
    #[inline]
    fn admits(self, number: Number, limit: Number) -> bool {
        match (self, number.compare(limit)) {
            (_, Ordering::Equal) => matches!(self, Bound::Minimum | Bound::Maximum),
            (Bound::Minimum | Bound::ExclusiveMinimum, order) => order.is_gt(),
            (Bound::Maximum | Bound::ExclusiveMaximum, order) => order.is_lt(),
        }
    }
}

impl Limit {
    fn allows(self, size: usize, bound: u64) -> bool {
        match self {
            Limit::Least => size as u64 >= bound,
            Limit::Most => size as u64 <= bound,
        }
    }
}

/// What it costs to look for a member of this name.
pub(super) fn name_steps(name: &str) -> u64 {
    1 + (name.len() / STEP_BYTES) as u64
}

fn has_all(names: &[Box<str>], members: &Object) -> bool {
    names.iter().all(|name| members.contains(name))
}

fn missing<'a>(names: &'a [Box<str>], members: &'a Object) -> impl Iterator<Item = &'a str> {
    let names = names.iter().map(|name| &**name);
    names.filter(|name| !members.contains(name))
}

impl<'a> Fault<'a> {
    /// The member that is missing, if it is that.
    pub(super) fn missing(&self) -> Option<&'a str> {
        self.1
    }

    /// A short text that starts with what was expected.
    pub(super) fn describe(&self, found: &Json) -> String {
        let count = |limit: &Limit, bound: u64, unit: &str, size: usize| {
            let bounded = match limit {
                Limit::Least => "at least",
                Limit::Most => "at most",
            };
            let plural = if bound == 1 { "" } else { "s" };
            format!("expected {bounded} {bound} {unit}{plural}, found {size}")
        };
        match (self.0, found) {
            (Assertion::Type(types), found) => {
                let expected = or_list(types.names().map(str::to_owned).collect());
                // `expected integer, found number` would puzzle those who sent 1.5.
                let found = match found {
                    Json::Number(number) if expected.contains("integer") => number.to_string(),
                    found => kind_of(found).to_owned(),
                };
                format!("expected {expected}, found {found}")
            }
            (Assertion::Enum(options), found) => {
                let mut names: Vec<String> = options.iter().take(MAX_LISTED).map(shown).collect();
                match options.len() - names.len() {
                    0 => {}
                    more => names.push(format!("{more} others")),
                }
                format!("expected {}, found {}", or_list(names), shown(found))
            }
            (Assertion::Const(expected), found) => {
                format!("expected {}, found {}", shown(expected), shown(found))
            }
            (Assertion::Bound(bound, limit), found) => {
                let bound = match bound {
                    Bound::Minimum => "at least",
                    Bound::Maximum => "at most",
                    Bound::ExclusiveMinimum => "more than",
                    Bound::ExclusiveMaximum => "less than",
                };
                format!("expected {bound} {limit}, found {}", shown(found))
            }
            (Assertion::MultipleOf(number, _), found) => {
                format!("expected a multiple of {number}, found {}", shown(found))
            }
            (Assertion::Length(limit, bound), Json::String(text)) => {
                count(limit, *bound, "character", text.chars().count())
            }
            (Assertion::Items(limit, bound), Json::Array(elements)) => {
                count(limit, *bound, "element", elements.len())
            }
            (Assertion::Properties(limit, bound), Json::Object(members)) => {
                count(limit, *bound, "member", members.len())
            }
            (Assertion::Pattern(pattern, _), found) => {
                format!(
                    "expected a match of {}, found {}",
                    cut(pattern),
                    shown(found)
                )
            }
            (Assertion::UniqueItems, _) => "expected elements that are all different".to_owned(),
            _ => "does not satisfy the schema".to_owned(),
        }
    }
}

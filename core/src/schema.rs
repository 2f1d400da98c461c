//! JSON Schema (draft 2020-12): compiles what a manifest declares, and checks what callers
//! and guests send.
//!
//! The manifest parser compiles; turns check inputs, results, event payloads and states.
//! Whether a text is a schema, and whether a pattern or a divisor fits, is decided by the
//! `jsonschema` crate, without network access and with the linear-time `regex` engine. Whether
//! a value satisfies a schema is decided by `evaluate`, which charges for it while it works, and
//! why it does not by `explain`, path first.
//!
//! Invariant: the cost of a check is bounded by the product of schema and value, whoever wrote
//! either, and is charged to a [`Meter`] before it is spent. [`Schema::compile`] refuses schemas
//! for which there is no such bound.

mod assertions;
mod changes;
mod equal;
mod evaluate;
mod explain;
mod integers;
mod places;
mod rules;

use std::fmt;
use std::sync::Arc;

use changes::Verdict;
use evaluate::Evaluator;
use jsonschema::error::{TypeKind, ValidationErrorKind};
use jsonschema::{Draft, PatternOptions, ValidationError};
use rules::Rules;
use serde_json::{Value, json};

use crate::failure::{Failure, cut};
use crate::json::Json;
use crate::meter::{Exhausted, Meter, Unmetered};
use crate::patch::PatchOp;
use crate::pointer::{Pointer, write_escaped};

/// The most subschemas that one schema may apply to a value and all that is in it, each
/// counted as often as `$ref` leads to it.
pub const MAX_EXPANSION: u64 = 65_536;
/// The most subschemas that may apply to one and the same place of a value, counted in the
/// same way.
pub const MAX_EXPANSION_IN_PLACE: u64 = 4_096;
/// How deep `$ref`, `allOf` and the like may nest at one place of a value.
pub const MAX_DEPTH_IN_PLACE: usize = 48;
/// The most patterns that one schema may have; each costs memory when it is compiled.
pub const MAX_PATTERNS: usize = 64;
/// The most bytes that one compiled pattern may take.
pub const MAX_PATTERN_BYTES: usize = 1 << 20;
/// How many members and elements a value has at most that is always checked as a whole.
const SMALL: usize = 32;
/// How many violations a message lists.
pub const MAX_LISTED: usize = 8;

/// A compiled JSON Schema.
///
/// `format` and the `content…` keywords are annotations, as the draft has it: they refuse
/// nothing.
///
/// ```
/// use serde_json::json;
/// use tidegate_core::{Json, Schema};
/// let schema = Schema::compile(&json!({
///     "type": "object",
///     "properties": {"text": {"type": "string"}},
///     "required": ["text", "by"],
/// }))
/// .unwrap();
/// let violations = schema.check(&Json::parse(r#"{"text":1}"#).unwrap()).unwrap_err();
/// assert_eq!(
///     violations.to_string(),
///     "/by: missing; /text: expected string, found number"
/// );
/// ```
#[derive(Clone)]
pub struct Schema(Arc<Compiled>);

struct Compiled {
    source: Value,
    rules: Rules,
}

/// Why a value is no schema that this host accepts.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{}: {message}", shown_path(pointer))]
pub struct SchemaError {
    /// The place in the schema, a JSON pointer.
    pub pointer: String,
    /// What was expected there and what was found.
    pub message: String,
}

/// Why a value does not satisfy a schema: at least one violation.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Violations {
    listed: Vec<Violation>,
    more: usize,
}

/// Why a check did not end well.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Refused {
    /// The value does not satisfy the schema.
    #[error(transparent)]
    Violations(#[from] Violations),
    /// The meter gave up before that was known.
    #[error(transparent)]
    Exhausted(#[from] Exhausted),
}

/// One thing that is wrong with a value.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Violation {
    /// The place in the value, a JSON pointer; long member names are cut.
    pub path: String,
    /// What was expected there and what was found.
    pub message: String,
}

impl Schema {
    /// Compiles a schema, or says what is wrong with it.
    pub fn compile(source: &Value) -> Result<Schema, SchemaError> {
        let schema = Schema::trusted(source)?;
        // The crate finds what is no schema, and patterns that do not compile.
        options()
            .build(source)
            .map_err(|error| schema_error(source, &error))?;
        Ok(schema)
    }

    /// Reads a schema without asking whether it is one, which costs far more than checking one
    /// small value: for those who keep nothing between checks. What is no schema may be refused,
    /// or may take or refuse any value.
    pub fn trusted(source: &Value) -> Result<Schema, SchemaError> {
        Ok(Schema(Arc::new(Compiled {
            source: source.clone(),
            rules: Rules::read(source)?,
        })))
    }

    /// Checks a value.
    ///
    /// # Errors
    ///
    /// What is wrong with it.
    pub fn check(&self, value: &Json) -> Result<(), Violations> {
        let found = Evaluator::new(&self.0.rules, &mut Unmetered).holds(Rules::ROOT, value);
        match found {
            Ok(true) => Ok(()),
            Ok(false) | Err(Exhausted) => Err(explain::explain(&self.0.rules, value)),
        }
    }

    /// Checks a value at the cost of subschemas times the values that they apply to. Tells which
    /// of its numbers are integers to the schema and not written as such, `1.0` or `1e2`: they
    /// are to be written so before a typed reader gets them ([`Json::spell_integers`]).
    ///
    /// ```
    /// use serde_json::json;
    /// use tidegate_core::meter::Unmetered;
    /// use tidegate_core::{Json, Schema};
    /// let schema = Schema::compile(&json!({"items": {"type": "integer"}})).unwrap();
    /// let mut value = Json::parse("[1.0, 2, 1e2]").unwrap();
    /// let loose = schema.check_metered(&value, &mut Unmetered).unwrap();
    /// value.spell_integers(&loose);
    /// assert_eq!(value.to_text(), "[1,2,100]");
    /// ```
    ///
    /// # Errors
    ///
    /// What is wrong with the value, or that the meter gave up.
    pub fn check_metered(
        &self,
        value: &Json,
        meter: &mut dyn Meter,
    ) -> Result<Vec<Pointer>, Refused> {
        let rules = &self.0.rules;
        let mut evaluator = Evaluator::new(rules, meter);
        if !evaluator.holds(Rules::ROOT, value)? {
            return Err(explain::explain(rules, value).into());
        }
        match evaluator.has_loose_integers() {
            true => Ok(integers::places(rules, value, meter)?),
            false => Ok(Vec::new()),
        }
    }

    /// [`Schema::check_changes`], at the cost of subschemas times the values that they apply to.
    /// Tells what [`Schema::check_metered`] tells.
    ///
    /// # Errors
    ///
    /// What is wrong with the value, or that the meter gave up.
    pub fn check_changes_metered(
        &self,
        value: &Json,
        changes: &[PatchOp],
        meter: &mut dyn Meter,
    ) -> Result<Vec<Pointer>, Refused> {
        if is_small(value) {
            return self.check_metered(value, meter);
        }
        let rules = &self.0.rules;
        match changes::verdict(rules, value, changes, meter)? {
            Verdict::Holds => Ok(Vec::new()),
            Verdict::HoldsLoosely => Ok(integers::places(rules, value, meter)?),
            Verdict::Fails | Verdict::Unknown => self.check_metered(value, meter),
        }
    }

    /// Checks a value that satisfied the schema before these changes were made to it: with
    /// the answer of [`Schema::check`], at a cost that follows the changes. What changed is
    /// checked, and sizes and member names of what is around it. Where the schema ties the
    /// parts of a value together, by `anyOf`, `enum` or `uniqueItems` for instance, it is
    /// checked from there down as a whole, and so is a text of which a part changed.
    ///
    /// ```
    /// use serde_json::json;
    /// use tidegate_core::{Json, PatchOp, Schema};
    /// let schema = Schema::compile(&json!({"items": {"type": "integer"}, "maxItems": 100})).unwrap();
    /// let mut elements = vec![Json::from(7_u64); 99];
    /// let mut add = |added: u64| {
    ///     let path = format!("/{}", elements.len());
    ///     elements.push(Json::from(added));
    ///     let value: Json = elements.iter().cloned().collect();
    ///     schema.check_changes(&value, &[PatchOp::Add { path, value: Json::from(added) }])
    /// };
    /// assert!(add(99).is_ok());
    /// let violations = add(100).unwrap_err();
    /// assert_eq!(violations.to_string(), "/: expected at most 100 elements, found 101");
    /// ```
    ///
    /// # Errors
    ///
    /// What is wrong with it.
    pub fn check_changes(&self, value: &Json, changes: &[PatchOp]) -> Result<(), Violations> {
        match self.check_changes_metered(value, changes, &mut Unmetered) {
            Ok(_) => Ok(()),
            Err(Refused::Violations(violations)) => Err(violations),
            Err(Refused::Exhausted(Exhausted)) => Err(explain::explain(&self.0.rules, value)),
        }
    }

    /// Whether every value satisfies it, because it asks nothing.
    pub fn takes_all(&self) -> bool {
        match &self.0.source {
            Value::Bool(all) => *all,
            Value::Object(keywords) => keywords.is_empty(),
            _ => false,
        }
    }

    /// The schema as the manifest has it.
    pub fn source(&self) -> &Value {
        &self.0.source
    }

    /// How many patterns the schema compiled.
    pub(crate) fn patterns(&self) -> usize {
        self.0.rules.patterns()
    }
}

impl fmt::Debug for Schema {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Schema({})", self.0.source)
    }
}

impl PartialEq for Schema {
    fn eq(&self, other: &Schema) -> bool {
        self.0.source == other.0.source
    }
}

impl Violations {
    /// The violations that messages list, at most [`MAX_LISTED`].
    pub fn listed(&self) -> &[Violation] {
        &self.listed
    }

    /// `[{"path", "message"}]`: the parameter `issues` of a failure. A path is a JSON pointer, so
    /// that of the whole value is empty.
    pub fn issues(&self) -> Vec<Value> {
        self.listed
            .iter()
            .map(|violation| json!({"path": violation.path, "message": violation.message}))
            .collect()
    }
}

impl Violations {
    /// Those of a value that was not sent at all and was checked as `null`: it is missing,
    /// and nobody is told of a `null` that they have not written.
    pub fn of_absent(mut self) -> Violations {
        for violation in &mut self.listed {
            if violation.path.is_empty() {
                let expected = violation.message.strip_suffix(", found null");
                let expected = expected.map(|expected| format!("missing: {expected}"));
                violation.message = expected.unwrap_or_else(|| "missing".to_owned());
            }
        }
        self
    }
}

/// `/text: expected string, found number; /by: missing`. The whole value is `/`.
impl fmt::Display for Violations {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (index, violation) in self.listed.iter().enumerate() {
            if index > 0 {
                f.write_str("; ")?;
            }
            write!(f, "{}: {}", shown_path(&violation.path), violation.message)?;
        }
        match self.more {
            0 => Ok(()),
            more => write!(f, "; and {more} more"),
        }
    }
}

impl std::error::Error for Violations {}

/// Whether a value has so few parts that checking all of them is the quickest.
fn is_small(value: &Json) -> bool {
    fn fits(value: &Json, left: &mut usize) -> bool {
        let mut take = |parts| {
            let rest = left.checked_sub(parts);
            *left = rest.unwrap_or_default();
            rest.is_some()
        };
        match value {
            Json::Array(elements) => {
                take(elements.len()) && elements.iter().all(|part| fits(part, left))
            }
            Json::Object(members) => {
                take(members.len()) && members.values().all(|part| fits(part, left))
            }
            _ => true,
        }
    }
    let mut left = SMALL;
    fits(value, &mut left)
}

/// The failure of a call whose input, if it has one, its method's schema refuses.
pub fn input_failure(method: &str, input: Option<&str>, violations: Violations) -> Failure {
    let violations = match input {
        Some(_) => violations,
        None => violations.of_absent(),
    };
    Failure::input_invalid(method, &violations, violations.issues())
}

/// A JSON pointer as people are shown it: the root is `/` rather than nothing.
pub(crate) fn shown_path(pointer: &str) -> &str {
    if pointer.is_empty() { "/" } else { pointer }
}

/// Goes one level down in a JSON pointer.
pub(crate) fn push_token(pointer: &mut String, token: &str) {
    pointer.push('/');
    write_escaped(pointer, token).expect("a string takes all that is written to it");
}

/// The name of a value's JSON type.
pub(crate) fn kind_of(value: &Json) -> &'static str {
    value.kind()
}

/// The name of a value's JSON type, of one that a schema is made of.
pub(crate) fn kind_of_value(value: &Value) -> &'static str {
    match value {
        Value::Null => "null",
        Value::Bool(_) => "boolean",
        Value::Number(_) => "number",
        Value::String(_) => "string",
        Value::Array(_) => "array",
        Value::Object(_) => "object",
    }
}

/// A value as messages show it: short, and arrays and objects by their type alone.
pub(crate) fn shown(value: &Json) -> String {
    match value {
        Json::Array(_) | Json::Object(_) => kind_of(value).to_owned(),
        // Cut before encoding, since encoding a megabyte to show 64 characters is waste.
        Json::String(text) => cut(&Value::from(cut(text)).to_string()).into_owned(),
        scalar => scalar.to_text(),
    }
}

/// A part of a schema as messages show it.
pub(crate) fn shown_value(value: &Value) -> String {
    match value {
        Value::Array(_) | Value::Object(_) => kind_of_value(value).to_owned(),
        Value::String(text) => cut(&Value::from(cut(text)).to_string()).into_owned(),
        scalar => scalar.to_string(),
    }
}

fn options() -> jsonschema::ValidationOptions<'static> {
    options_within(MAX_PATTERN_BYTES)
}

/// Options that let a compiled pattern take so many bytes.
fn options_within(bytes: usize) -> jsonschema::ValidationOptions<'static> {
    jsonschema::options()
        .with_draft(Draft::Draft202012)
        .offline()
        .with_pattern_options(PatternOptions::regex().size_limit(bytes))
}

/// What the crate says against a schema, in our words.
fn schema_error(source: &Value, error: &ValidationError<'_>) -> SchemaError {
    let pointer = error.instance_path().as_str();
    let at = |pointer: &str, message: String| SchemaError {
        pointer: pointer.to_owned(),
        message,
    };
    let found = source
        .pointer(pointer)
        .map_or_else(String::new, shown_value);
    if pointer.ends_with("/type") && !matches!(source.pointer(pointer), Some(Value::Array(_))) {
        let message =
            format!("expected the name of a JSON type or an array of them, found {found}");
        return at(pointer, message);
    }
    match error.kind() {
        ValidationErrorKind::Format { format } if format == "regex" => at(
            pointer,
            format!(
                "expected a regular expression of {MAX_PATTERN_BYTES} bytes at most when \
                 compiled, without look-around and back-references, found {found}"
            ),
        ),
        _ => at(pointer, describe(error)),
    }
}

/// One error of the crate as a short text that starts with what was expected.
fn describe(error: &ValidationError<'_>) -> String {
    let found = error.instance().as_ref();
    match error.kind() {
        ValidationErrorKind::Type { kind } => {
            let expected = match kind {
                TypeKind::Single(kind) => kind.to_string(),
                TypeKind::Multiple(kinds) => {
                    or_list(kinds.iter().map(|kind| kind.to_string()).collect())
                }
            };
            // `expected integer, found number` would puzzle those who sent 1.5.
            let found = match found {
                Value::Number(number) if expected.contains("integer") => number.to_string(),
                found => kind_of_value(found).to_owned(),
            };
            format!("expected {expected}, found {found}")
        }
        ValidationErrorKind::Enum { options } => {
            let options = options.as_array().map_or(&[][..], Vec::as_slice);
            let mut names: Vec<String> = options.iter().take(MAX_LISTED).map(shown_value).collect();
            match options.len() - names.len() {
                0 => {}
                more => names.push(format!("{more} others")),
            }
            format!("expected {}, found {}", or_list(names), shown_value(found))
        }
        ValidationErrorKind::Constant { expected_value } => {
            format!(
                "expected {}, found {}",
                shown_value(expected_value),
                shown_value(found)
            )
        }
        ValidationErrorKind::Minimum { limit } => {
            format!("expected at least {limit}, found {}", shown_value(found))
        }
        ValidationErrorKind::Maximum { limit } => {
            format!("expected at most {limit}, found {}", shown_value(found))
        }
        ValidationErrorKind::ExclusiveMinimum { limit } => {
            format!("expected more than {limit}, found {}", shown_value(found))
        }
        ValidationErrorKind::ExclusiveMaximum { limit } => {
            format!("expected less than {limit}, found {}", shown_value(found))
        }
        ValidationErrorKind::MultipleOf { multiple_of } => {
            format!(
                "expected a multiple of {multiple_of}, found {}",
                shown_value(found)
            )
        }
        ValidationErrorKind::MinLength { limit } => size("at least", *limit, "character", found),
        ValidationErrorKind::MaxLength { limit } => size("at most", *limit, "character", found),
        ValidationErrorKind::MinItems { limit } => size("at least", *limit, "element", found),
        ValidationErrorKind::MaxItems { limit } => size("at most", *limit, "element", found),
        ValidationErrorKind::MinProperties { limit } => size("at least", *limit, "member", found),
        ValidationErrorKind::MaxProperties { limit } => size("at most", *limit, "member", found),
        ValidationErrorKind::UniqueItems => "expected elements that are all different".to_owned(),
        ValidationErrorKind::Pattern { pattern } => {
            format!(
                "expected a match of {}, found {}",
                cut(pattern),
                shown_value(found)
            )
        }
        _ => cut_text(error.masked().to_string()),
    }
}

fn size(bound: &str, limit: u64, unit: &str, found: &Value) -> String {
    let size = match found {
        Value::String(text) => text.chars().count(),
        Value::Array(elements) => elements.len(),
        Value::Object(members) => members.len(),
        _ => 0,
    };
    let plural = if limit == 1 { "" } else { "s" };
    format!("expected {bound} {limit} {unit}{plural}, found {size}")
}

/// `a, b or c`.
fn or_list(mut names: Vec<String>) -> String {
    match names.pop() {
        Some(last) if names.is_empty() => last,
        Some(last) => format!("{} or {last}", names.join(", ")),
        None => "nothing".to_owned(),
    }
}

/// Keeps a text of the crate, which may repeat a schema, to one readable line.
fn cut_text(text: String) -> String {
    match text.char_indices().nth(200) {
        Some((at, _)) => format!("{}…", &text[..at]),
        None => text,
    }
}

#[cfg(test)]
mod tests;

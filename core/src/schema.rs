//! JSON Schema (draft 2020-12): compiles what a manifest declares, and checks what callers
//! and guests send.
//!
//! The manifest parser compiles; turns check inputs, results, event payloads and states.
//! Whether a value satisfies a schema is decided by the `jsonschema` crate, without
//! network access and with the linear-time `regex` engine. Why it does not is worked out
//! by `explain`, path first.
//!
//! Invariant: the cost of a check is bounded by the sizes of the schema and the value,
//! whoever wrote either. [`Schema::compile`] refuses schemas for which that would not
//! hold, and errors are gathered by `explain` since the crate's own way takes time and
//! memory exponential in the depth of a value where alternatives are recursive.

mod changes;
mod explain;
mod places;
mod plain;
mod rules;

use std::fmt;
use std::sync::Arc;

use jsonschema::error::{TypeKind, ValidationErrorKind};
use jsonschema::{Draft, PatternOptions, ValidationError, Validator};
use serde_json::{Value, json};

use crate::failure::{Failure, code, cut};
use crate::patch::PatchOp;
use crate::pointer::write_escaped;
pub use plain::is_plainly_valid;
use rules::Rules;

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
/// use tidegate_core::Schema;
/// let schema = Schema::compile(&json!({
///     "type": "object",
///     "properties": {"text": {"type": "string"}},
///     "required": ["text", "by"],
/// }))
/// .unwrap();
/// let violations = schema.check(&json!({"text": 1})).unwrap_err();
/// assert_eq!(
///     violations.to_string(),
///     "/by: missing; /text: expected string, found number"
/// );
/// ```
#[derive(Clone)]
pub struct Schema(Arc<Compiled>);

struct Compiled {
    source: Value,
    validator: Validator,
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
        let rules = Rules::read(source)?;
        let validator = options()
            .build(source)
            .map_err(|error| schema_error(source, &error))?;
        Ok(Schema(Arc::new(Compiled {
            source: source.clone(),
            validator,
            rules,
        })))
    }

    /// Checks a value.
    pub fn check(&self, value: &Value) -> Result<(), Violations> {
        if self.0.validator.is_valid(value) {
            Ok(())
        } else {
            Err(explain::explain(&self.0.rules, value))
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
    /// use tidegate_core::{PatchOp, Schema};
    /// let schema = Schema::compile(&json!({"items": {"type": "integer"}, "maxItems": 100})).unwrap();
    /// let mut value = json!((0..99).collect::<Vec<_>>());
    /// let mut add = |added| {
    ///     let elements = value.as_array_mut().unwrap();
    ///     let path = format!("/{}", elements.len());
    ///     elements.push(json!(added));
    ///     schema.check_changes(&value, &[PatchOp::Add { path, value: json!(added) }])
    /// };
    /// assert!(add(99).is_ok());
    /// let violations = add(100).unwrap_err();
    /// assert_eq!(violations.to_string(), "/: expected at most 100 elements, found 101");
    /// ```
    pub fn check_changes(&self, value: &Value, changes: &[PatchOp]) -> Result<(), Violations> {
        if is_small(value) {
            return self.check(value);
        }
        let Compiled { source, rules, .. } = &*self.0;
        match changes::verdict(rules, source, value, changes) {
            Some(true) => Ok(()),
            Some(false) | None => self.check(value),
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

    /// `{"issues": [{"path", "message"}]}`: the parameters of a failure. A path is a JSON
    /// pointer, so that of the whole value is empty.
    pub fn as_params(&self) -> Value {
        let issues: Vec<Value> = self
            .listed
            .iter()
            .map(|violation| json!({"path": violation.path, "message": violation.message}))
            .collect();
        json!({"issues": issues})
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
fn is_small(value: &Value) -> bool {
    fn fits(value: &Value, left: &mut usize) -> bool {
        let mut take = |parts| {
            let rest = left.checked_sub(parts);
            *left = rest.unwrap_or_default();
            rest.is_some()
        };
        match value {
            Value::Array(elements) => {
                take(elements.len()) && elements.iter().all(|part| fits(part, left))
            }
            Value::Object(members) => {
                take(members.len()) && members.values().all(|part| fits(part, left))
            }
            _ => true,
        }
    }
    let mut left = SMALL;
    fits(value, &mut left)
}

/// The failure of a call whose input its method's schema refuses.
pub fn input_failure(method: &str, violations: &Violations) -> Failure {
    let mut failure = Failure::host(code::INPUT_INVALID)
        .message(format!("Validation failed for {method}: {violations}"));
    failure.params = Some(violations.as_params());
    failure
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
pub(crate) fn kind_of(value: &Value) -> &'static str {
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
pub(crate) fn shown(value: &Value) -> String {
    match value {
        Value::Array(_) | Value::Object(_) => kind_of(value).to_owned(),
        // Cut before encoding, since encoding a megabyte to show 64 characters is waste.
        Value::String(text) => cut(&Value::from(cut(text)).to_string()).into_owned(),
        scalar => scalar.to_string(),
    }
}

fn options() -> jsonschema::ValidationOptions<'static> {
    jsonschema::options()
        .with_draft(Draft::Draft202012)
        .offline()
        .with_pattern_options(PatternOptions::regex().size_limit(MAX_PATTERN_BYTES))
}

/// What the crate says against a schema, in our words.
fn schema_error(source: &Value, error: &ValidationError<'_>) -> SchemaError {
    let pointer = error.instance_path().as_str();
    let at = |pointer: &str, message: String| SchemaError {
        pointer: pointer.to_owned(),
        message,
    };
    let found = source.pointer(pointer).map_or_else(String::new, shown);
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
                found => kind_of(found).to_owned(),
            };
            format!("expected {expected}, found {found}")
        }
        ValidationErrorKind::Enum { options } => {
            let options = options.as_array().map_or(&[][..], Vec::as_slice);
            let mut names: Vec<String> = options.iter().take(MAX_LISTED).map(shown).collect();
            match options.len() - names.len() {
                0 => {}
                more => names.push(format!("{more} others")),
            }
            format!("expected {}, found {}", or_list(names), shown(found))
        }
        ValidationErrorKind::Constant { expected_value } => {
            format!("expected {}, found {}", shown(expected_value), shown(found))
        }
        ValidationErrorKind::Minimum { limit } => {
            format!("expected at least {limit}, found {}", shown(found))
        }
        ValidationErrorKind::Maximum { limit } => {
            format!("expected at most {limit}, found {}", shown(found))
        }
        ValidationErrorKind::ExclusiveMinimum { limit } => {
            format!("expected more than {limit}, found {}", shown(found))
        }
        ValidationErrorKind::ExclusiveMaximum { limit } => {
            format!("expected less than {limit}, found {}", shown(found))
        }
        ValidationErrorKind::MultipleOf { multiple_of } => {
            format!(
                "expected a multiple of {multiple_of}, found {}",
                shown(found)
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
                shown(found)
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

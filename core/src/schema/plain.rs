//! Whether a value satisfies a schema, as far as that can be told without compiling it.
//!
//! Compiling costs far more than checking one small value. Where nothing outlives a request,
//! as on Spin, there is nothing that a compiled schema could be kept for; and most schemas are
//! plain: types, members, elements, bounds. The answer is yes or "ask the compiled one".

use serde_json::{Map, Value};

/// How many subschemas are applied, at most, before it is left to the compiled schema.
const MAX_STEPS: u32 = 1_000_000;
/// How deep they nest, at most.
const MAX_DEPTH: u32 = 128;

/// Whether it is plain that a value satisfies a schema: true only if [`Schema::check`] would
/// say so too, if the schema is one. False says nothing.
///
/// ```
/// use serde_json::json;
/// use tidegate_core::schema::is_plainly_valid;
/// let schema = json!({"type": "object", "properties": {"by": {"type": "integer"}}});
/// assert!(is_plainly_valid(&schema, &json!({"by": 2})));
/// assert!(!is_plainly_valid(&schema, &json!({"by": "2"})));
/// ```
///
/// [`Schema::check`]: super::Schema::check
pub fn is_plainly_valid(schema: &Value, value: &Value) -> bool {
    let mut check = Check {
        root: schema,
        steps: MAX_STEPS,
        depth: MAX_DEPTH,
    };
    check.allows(schema, value)
}

struct Check<'a> {
    root: &'a Value,
    steps: u32,
    depth: u32,
}

impl Check<'_> {
    fn allows(&mut self, schema: &Value, value: &Value) -> bool {
        if self.steps == 0 || self.depth == 0 {
            return false;
        }
        self.steps -= 1;
        self.depth -= 1;
        let allowed = match schema {
            Value::Bool(all) => *all,
            Value::Object(rules) => rules
                .iter()
                .all(|(keyword, rule)| self.satisfies(rules, keyword, rule, value)),
            _ => false,
        };
        self.depth += 1;
        allowed
    }

    fn satisfies(
        &mut self,
        rules: &Map<String, Value>,
        keyword: &str,
        rule: &Value,
        value: &Value,
    ) -> bool {
        match keyword {
            "title" | "description" | "default" | "examples" | "deprecated" | "readOnly"
            | "writeOnly" | "format" | "$comment" | "$defs" | "definitions" => true,
            "$schema" => rule == "https://json-schema.org/draft/2020-12/schema",
            "$ref" => rule
                .as_str()
                .and_then(|pointer| target(self.root, pointer))
                .is_some_and(|schema| self.allows(schema, value)),
            "allOf" => list(rule).is_some_and(|all| all.iter().all(|one| self.allows(one, value))),
            "anyOf" => list(rule).is_some_and(|any| any.iter().any(|one| self.allows(one, value))),
            "type" => match rule {
                Value::String(kind) => is_of(kind, value),
                Value::Array(kinds) => kinds
                    .iter()
                    .any(|kind| kind.as_str().is_some_and(|kind| is_of(kind, value))),
                _ => false,
            },
            "enum" => list(rule).is_some_and(|any| any.contains(value)),
            "const" => rule == value,
            "minimum" => is_within(rule, value, |limit, found| found >= limit),
            "maximum" => is_within(rule, value, |limit, found| found <= limit),
            "exclusiveMinimum" => is_within(rule, value, |limit, found| found > limit),
            "exclusiveMaximum" => is_within(rule, value, |limit, found| found < limit),
            "minLength" | "maxLength" => match value {
                Value::String(text) => is_sized(keyword, rule, text.chars().count()),
                _ => true,
            },
            "minItems" | "maxItems" => match value {
                Value::Array(elements) => is_sized(keyword, rule, elements.len()),
                _ => true,
            },
            "minProperties" | "maxProperties" => match value {
                Value::Object(members) => is_sized(keyword, rule, members.len()),
                _ => true,
            },
            "required" => match value {
                Value::Object(members) => list(rule).is_some_and(|names| {
                    names
                        .iter()
                        .all(|name| name.as_str().is_some_and(|name| members.contains_key(name)))
                }),
                _ => true,
            },
            "properties" => match (rule, value) {
                (Value::Object(declared), Value::Object(members)) => {
                    members
                        .iter()
                        .all(|(name, member)| match declared.get(name) {
                            Some(schema) => self.allows(schema, member),
                            None => true,
                        })
                }
                (Value::Object(_), _) => true,
                _ => false,
            },
            "additionalProperties" => match value {
                Value::Object(members) => {
                    let declared = rules.get("properties").and_then(Value::as_object);
                    let is_declared =
                        |name: &String| declared.is_some_and(|all| all.contains_key(name));
                    members
                        .iter()
                        .filter(|(name, _)| !is_declared(name))
                        .all(|(_, member)| self.allows(rule, member))
                }
                _ => true,
            },
            "items" => match value {
                Value::Array(elements) => elements.iter().all(|one| self.allows(rule, one)),
                _ => true,
            },
            // `patternProperties` and `prefixItems` among them, which those above would heed.
            _ => false,
        }
    }
}

fn list(rule: &Value) -> Option<&[Value]> {
    rule.as_array().map(Vec::as_slice)
}

/// What a reference within the document leads to, if its address is as simple as generators
/// write it.
fn target<'v>(root: &'v Value, pointer: &str) -> Option<&'v Value> {
    let path = pointer.strip_prefix("#/")?;
    // A schema with a name of its own may be a document of its own.
    let is_renamed = |schema: &Value| schema.get("$id").is_some();
    if path.contains(['~', '%']) || is_renamed(root) {
        return None;
    }
    let mut found = root;
    for name in path.split('/') {
        found = found.as_object()?.get(name)?;
        if is_renamed(found) {
            return None;
        }
    }
    Some(found)
}

fn is_of(kind: &str, value: &Value) -> bool {
    match kind {
        "null" => value.is_null(),
        "boolean" => value.is_boolean(),
        "string" => value.is_string(),
        "array" => value.is_array(),
        "object" => value.is_object(),
        "number" => value.is_number(),
        "integer" => value.is_i64() || value.is_u64(),
        _ => false,
    }
}

/// Whether a number is within a bound, where both are whole and so compare exactly. What is no
/// number is none of a bound's affair.
fn is_within(limit: &Value, value: &Value, holds: impl Fn(i128, i128) -> bool) -> bool {
    let whole = |value: &Value| {
        let signed = value.as_i64().map(i128::from);
        signed.or_else(|| value.as_u64().map(i128::from))
    };
    match (whole(limit), whole(value)) {
        (Some(limit), Some(found)) => holds(limit, found),
        _ => limit.is_number() && !value.is_number(),
    }
}

fn is_sized(keyword: &str, limit: &Value, found: usize) -> bool {
    let found = found as u64;
    match (limit.as_u64(), keyword.starts_with("min")) {
        (Some(limit), true) => found >= limit,
        (Some(limit), false) => found <= limit,
        (None, _) => false,
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use serde_json::json;

    use super::*;
    use crate::Schema;

    #[test]
    fn what_a_derived_schema_says_is_plain() {
        let schema = json!({
            "$schema": "https://json-schema.org/draft/2020-12/schema",
            "type": "object",
            "properties": {
                "count": {"type": "integer", "format": "uint64", "minimum": 0},
                "items": {"type": "array", "items": {"$ref": "#/$defs/Item"}},
                "note": {"anyOf": [{"$ref": "#/$defs/Item"}, {"type": "null"}]},
                "by": {"type": "object", "additionalProperties": {"type": "string"}},
            },
            "required": ["count"],
            "additionalProperties": false,
            "$defs": {"Item": {
                "type": "object", "required": ["text"],
                "properties": {"text": {"type": "string", "maxLength": 3}},
            }},
        });
        let valid = json!({
            "count": 3, "items": [{"text": "ä"}], "note": null, "by": {"a": "b"},
        });
        assert!(is_plainly_valid(&schema, &valid));
        for (member, wrong) in [
            ("count", json!(-1)),
            ("count", json!(1.5)),
            ("items", json!([{"text": "long"}])),
            ("items", json!([{}])),
            ("note", json!(7)),
            ("by", json!({"a": 1})),
            ("more", json!(1)),
        ] {
            let mut invalid = valid.clone();
            invalid[member] = wrong;
            assert!(!is_plainly_valid(&schema, &invalid), "{invalid}");
        }
    }

    #[test]
    fn what_is_not_plain_is_left_to_the_compiled_schema() {
        for schema in [
            json!({"pattern": "^a$"}),
            json!({"oneOf": [true]}),
            json!({"not": false}),
            json!({"$ref": "#"}),
            json!({"$ref": "#/$defs/a", "$defs": {"a": {"$id": "b"}}}),
            json!({"allOf": [{"$ref": "#/allOf/0"}]}),
            json!({"type": "integr"}),
            json!({"minLength": -1}),
            json!(7),
        ] {
            assert!(!is_plainly_valid(&schema, &json!("b")), "{schema}");
        }
    }

    fn value() -> impl Strategy<Value = Value> {
        let leaf = prop_oneof![
            Just(json!(null)),
            any::<bool>().prop_map(Value::from),
            (-3_i64..4).prop_map(Value::from),
            (-3_i64..4).prop_map(|number| json!(number as f64 / 2.0)),
            "[abä]{0,3}".prop_map(Value::from),
        ];
        leaf.prop_recursive(3, 12, 3, |inner| {
            prop_oneof![
                prop::collection::vec(inner.clone(), 0..3).prop_map(Value::from),
                prop::collection::btree_map("[ab]", inner, 0..3)
                    .prop_map(|members| members.into_iter().collect::<Map<_, _>>().into()),
            ]
        })
    }

    fn schema() -> impl Strategy<Value = Value> {
        let kind = prop::sample::select(vec![
            "null", "boolean", "string", "array", "object", "number", "integer",
        ]);
        let size = prop::sample::select(vec![
            "minLength",
            "maxLength",
            "minItems",
            "maxItems",
            "minProperties",
            "maxProperties",
        ]);
        let bound = prop::sample::select(vec![
            "minimum",
            "maximum",
            "exclusiveMinimum",
            "exclusiveMaximum",
        ]);
        let leaf = prop_oneof![
            any::<bool>().prop_map(Value::from),
            kind.prop_map(|kind| json!({"type": kind})),
            (size, 0_u64..3).prop_map(|(name, limit)| json!({ name: limit })),
            (bound, -2_i64..3).prop_map(|(name, limit)| json!({ name: limit })),
            value().prop_map(|one| json!({"const": one})),
            prop::collection::vec(value(), 1..3).prop_map(|any| json!({"enum": any})),
            Just(json!({"required": ["a"]})),
            Just(json!({"$ref": "#/$defs/a"})),
        ];
        leaf.prop_recursive(3, 16, 3, |inner| {
            let some = || prop::collection::vec(inner.clone(), 1..3);
            prop_oneof![
                some().prop_map(|all| json!({"allOf": all})),
                some().prop_map(|any| json!({"anyOf": any})),
                inner.clone().prop_map(|each| json!({"items": each})),
                inner
                    .clone()
                    .prop_map(|rest| json!({"additionalProperties": rest})),
                (inner.clone(), inner.clone()).prop_map(|(a, rest)| {
                    json!({"properties": {"a": a}, "additionalProperties": rest})
                }),
            ]
        })
    }

    proptest! {
        #[test]
        fn it_never_allows_what_the_compiled_schema_refuses(
            schema in schema(), a in value(), value in value(),
        ) {
            let mut schema = match schema {
                Value::Object(rules) => rules,
                whole => Map::from_iter([("allOf".to_owned(), json!([whole]))]),
            };
            schema.insert("$defs".to_owned(), json!({"a": {"enum": [a, null]}}));
            let schema = Value::Object(schema);
            if is_plainly_valid(&schema, &value)
                && let Ok(compiled) = Schema::compile(&schema)
            {
                prop_assert!(compiled.check(&value).is_ok(), "{schema} {value}");
            }
        }
    }
}

//! A change is checked as the whole would be: compared over generated schemas and values.

use proptest::prelude::*;
use serde_json::{Value, json};

use super::super::Schema;
use super::super::tests::{any_schema, any_value, schema};
use super::*;
use crate::meter::Unmetered;
use crate::patch::diff;

/// A value and the same with one of its places changed.
fn any_change() -> impl Strategy<Value = (Value, Value)> {
    let parts = (any_value(), any_value(), any_value(), any_value());
    let old = parts.prop_map(|(a, b, c, d)| json!({"a": a, "b": [b, c], "ab": d}));
    let change = (any::<prop::sample::Index>(), any_value(), 0..3);
    (old, change).prop_map(|(old, (index, part, kind))| {
        let mut places = vec![String::new()];
        let mut at = 0;
        while let Some(pointer) = places.get(at).cloned() {
            at += 1;
            match old.pointer(&pointer) {
                Some(Value::Object(members)) => {
                    places.extend(members.keys().map(|name| format!("{pointer}/{name}")));
                }
                Some(Value::Array(elements)) => {
                    places.extend((0..elements.len()).map(|index| format!("{pointer}/{index}")));
                }
                _ => {}
            }
        }
        let pointer = index.get(&places);
        let mut new = old.clone();
        match (kind, new.pointer_mut(pointer).unwrap()) {
            (0, Value::Object(members)) => drop(members.insert("ba".to_owned(), part)),
            (0, Value::Array(elements)) => elements.push(part),
            (1, Value::Object(members)) => drop(members.remove("a")),
            (1, Value::Array(elements)) => drop(elements.pop()),
            (_, place) => *place = part,
        }
        (old, new)
    })
}

/// Whether the new value satisfies the schema, none where that is not to be said.
fn verdict(schema: &Schema, old: &Value, new: &Value) -> Option<bool> {
    let (old, new) = (Json::from(old), Json::from(new));
    of_changes(schema, &new, &diff(&old, &new))
}

fn of_changes(schema: &Schema, value: &Json, changes: &[PatchOp]) -> Option<bool> {
    match super::verdict(&schema.0.rules, value, changes, &mut Unmetered).unwrap() {
        Verdict::Holds | Verdict::HoldsLoosely => Some(true),
        Verdict::Fails => Some(false),
        Verdict::Unknown => None,
    }
}

fn items() -> Value {
    json!({
        "$id": "https://example.com/schema",
        "type": "object",
        "properties": {
            "items": {"$ref": "#/$defs/the%20items"},
            "names": {"$ref": "#names"},
            "either": {"anyOf": [{"items": {"type": "integer"}}, {"type": "null"}]},
            "different": {"uniqueItems": true, "items": {"type": "integer"}},
        },
        "required": ["items"],
        "$defs": {
            "the items": {
                "type": "array",
                "minItems": 1,
                "maxItems": 3,
                "items": {
                    "title": "An item",
                    "properties": {"done": {"type": "boolean"}, "next": {"$ref": "#"}},
                    "patternProperties": {"^x": true},
                    "additionalProperties": false,
                },
            },
        },
        "definitions": {
            "names": {"$anchor": "names", "properties": {"first": {"type": "string"}}},
        },
    })
}

#[test]
fn what_a_change_can_have_broken_is_checked() {
    let schema = schema(items());
    let old = json!({
        "items": [{"done": true}, {"next": {"items": [{}]}}],
        "names": {"first": "a"},
        "either": [1, 2],
        "different": [1, 2],
    });
    schema.check(&Json::from(&old)).unwrap();
    let changed = |pointer: &str, part: Value| {
        let mut new = old.clone();
        let (parent, name) = pointer.rsplit_once('/').unwrap();
        match new.pointer_mut(parent).unwrap() {
            Value::Object(members) => drop(members.insert(name.to_owned(), part)),
            Value::Array(elements) if name == "-" => elements.push(part),
            parent => *parent.get_mut(name.parse::<usize>().unwrap()).unwrap() = part,
        }
        let verdict = verdict(&schema, &old, &new);
        assert_eq!(
            verdict.unwrap_or_else(|| schema.check(&Json::from(&new)).is_ok()),
            schema.check(&Json::from(&new)).is_ok(),
            "{pointer}"
        );
        verdict
    };
    assert_eq!(changed("/items/0/done", json!(false)), Some(true));
    assert_eq!(changed("/items/0/done", json!(1)), Some(false));
    assert_eq!(changed("/items/0/other", json!(1)), Some(false));
    assert_eq!(changed("/items/0/x", json!(1)), Some(true));
    assert_eq!(changed("/items/-", json!({"done": true})), Some(true));
    assert_eq!(changed("/items/-", json!({"done": null})), Some(false));
    assert_eq!(changed("/items/1/next/items/-", json!(1)), Some(true));
    assert_eq!(
        changed("/items/1/next/items/-", json!({"y": 1})),
        Some(false)
    );
    assert_eq!(changed("/items/1/next/items", json!([])), Some(false));
    assert_eq!(changed("/either/0", json!(5)), Some(true));
    assert_eq!(changed("/either/0", json!("5")), Some(false));
    assert_eq!(changed("/different/0", json!(2)), Some(false));
    assert_eq!(changed("/new", json!(2)), Some(true));
    assert_eq!(changed("/names/first", json!(1)), Some(false));
    assert_eq!(changed("/names", json!(1)), Some(true));
}

#[test]
fn a_removal_is_checked_by_what_remains() {
    let schema = schema(items());
    let old = json!({"items": [{"done": true}], "names": {"first": "a"}, "either": [1]});
    let without = |pointer: &str| {
        let mut new = old.clone();
        let (parent, name) = pointer.rsplit_once('/').unwrap();
        match new.pointer_mut(parent).unwrap() {
            Value::Object(members) => drop(members.remove(name)),
            Value::Array(elements) => drop(elements.pop()),
            _ => unreachable!(),
        }
        verdict(&schema, &old, &new)
    };
    assert_eq!(without("/names"), Some(true));
    assert_eq!(without("/items"), Some(false));
    assert_eq!(without("/items/0"), Some(false));
    assert_eq!(without("/items/0/done"), Some(true));
}

#[test]
fn a_violation_after_a_change_reads_as_after_any_check() {
    let schema = schema(json!({"type": "array", "items": {"type": "integer"}}));
    let mut value = json!((0..100).collect::<Vec<_>>());
    value[77] = json!("77");
    let value = Json::from(value);
    let change = PatchOp::Replace {
        path: "/77".to_owned(),
        value: Json::from("77"),
    };
    let violations = schema.check_changes(&value, &[change]).unwrap_err();
    assert_eq!(violations, schema.check(&value).unwrap_err());
}

#[test]
fn many_changes_are_left_to_a_check_of_the_whole() {
    let schema = schema(json!({"items": {"items": {"type": "integer"}}}));
    let value = Json::from(json!([vec![1; 5_000]]));
    let change = |index| PatchOp::Replace {
        path: format!("/0/{index}"),
        value: Json::from(1_u64),
    };
    let changes: Vec<_> = (0..5_000).map(change).collect();
    assert_eq!(of_changes(&schema, &value, &changes), None);
    assert_eq!(of_changes(&schema, &value, &changes[..500]), Some(true));
    schema.check_changes(&value, &changes).unwrap();
}

proptest! {
    #[test]
    fn a_changed_value_gets_the_verdict_of_the_whole(
        source in any_schema(), (old, new) in any_change(),
    ) {
        let Ok(schema) = Schema::compile(&source) else {
            return Ok(());
        };
        if schema.check(&Json::from(&old)).is_ok() && let Some(verdict) = verdict(&schema, &old, &new) {
            prop_assert_eq!(verdict, schema.check(&Json::from(&new)).is_ok());
        }
    }
}

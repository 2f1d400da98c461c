//! Which values a schema takes, what is said of others, and what checking costs.

use proptest::prelude::*;
use serde_json::Map;

use super::*;
use crate::meter::Allowance;

pub(super) fn schema(source: Value) -> Schema {
    Schema::compile(&source).unwrap_or_else(|error| panic!("{source}: {error}"))
}

/// What a schema says against a value; nothing when it satisfies the schema.
fn says(source: Value, value: Value) -> String {
    match schema(source).check(&Json::from(&value)) {
        Ok(()) => String::new(),
        Err(violations) => violations.to_string(),
    }
}

fn refusal(source: Value) -> String {
    Schema::compile(&source).unwrap_err().to_string()
}

/// `value` as the member `x` of an object in an object …, `levels` deep.
fn nested(levels: usize, value: Value) -> Value {
    (0..levels).fold(value, |value, _| json!({"x": value}))
}

#[test]
fn a_value_that_satisfies_the_schema_passes() {
    let input = json!({"type": "object", "properties": {"by": {"type": "integer"}}});
    assert_eq!(says(input.clone(), json!({"by": 1})), "");
    assert_eq!(says(input, json!({})), "");
    assert_eq!(says(json!(true), json!([1])), "");
    assert_eq!(says(json!({}), json!(null)), "");
}

#[test]
fn the_path_comes_first() {
    let message = json!({
        "type": "object",
        "properties": {"text": {"type": "string"}, "to": {"items": {"type": "string"}}},
    });
    assert_eq!(
        says(message.clone(), json!({"text": 1})),
        "/text: expected string, found number"
    );
    assert_eq!(
        says(message.clone(), json!({"to": ["a", null]})),
        "/to/1: expected string, found null"
    );
    assert_eq!(says(message, json!([])), "/: expected object, found array");
}

#[test]
fn member_names_are_escaped_in_paths() {
    let source = json!({"additionalProperties": {"type": "string"}});
    assert_eq!(
        says(source, json!({"a/b~c": 1})),
        "/a~1b~0c: expected string, found number"
    );
}

#[test]
fn a_missing_member_is_named_by_its_path() {
    let source = json!({"properties": {"o": {"required": ["by", "at"]}}});
    assert_eq!(
        says(source, json!({"o": {}})),
        "/o/by: missing; /o/at: missing"
    );
}

#[test]
fn an_unexpected_member_is_named_by_its_path() {
    let source = json!({"properties": {"a": true}, "additionalProperties": false});
    assert_eq!(
        says(source, json!({"a": 1, "b": 2, "c": 3})),
        "/b: unexpected; /c: unexpected"
    );
}

#[test]
fn each_common_keyword_says_what_it_expects() {
    for (source, value, expected) in [
        (
            json!({"type": "integer"}),
            json!(1.5),
            "expected integer, found 1.5",
        ),
        (
            json!({"type": ["string", "null"]}),
            json!(1),
            "expected null or string, found number",
        ),
        (
            json!({"enum": ["a", "b", 3]}),
            json!("c"),
            r#"expected "a", "b" or 3, found "c""#,
        ),
        (json!({"enum": [1]}), json!([1]), "expected 1, found array"),
        (
            json!({"const": "a"}),
            json!("b"),
            r#"expected "a", found "b""#,
        ),
        (
            json!({"minimum": 1}),
            json!(0),
            "expected at least 1, found 0",
        ),
        (
            json!({"maximum": 1.5}),
            json!(2),
            "expected at most 1.5, found 2",
        ),
        (
            json!({"exclusiveMinimum": 1}),
            json!(1),
            "expected more than 1, found 1",
        ),
        (
            json!({"exclusiveMaximum": 1}),
            json!(1),
            "expected less than 1, found 1",
        ),
        (
            json!({"multipleOf": 5}),
            json!(7),
            "expected a multiple of 5, found 7",
        ),
        (
            json!({"minLength": 1}),
            json!(""),
            "expected at least 1 character, found 0",
        ),
        (
            json!({"maxLength": 2}),
            json!("äöü"),
            "expected at most 2 characters, found 3",
        ),
        (
            json!({"pattern": "^a+$"}),
            json!("b"),
            r#"expected a match of ^a+$, found "b""#,
        ),
        (
            json!({"minItems": 2}),
            json!([1]),
            "expected at least 2 elements, found 1",
        ),
        (
            json!({"maxItems": 1}),
            json!([1, 2]),
            "expected at most 1 element, found 2",
        ),
        (
            json!({"minProperties": 1}),
            json!({}),
            "expected at least 1 member, found 0",
        ),
        (
            json!({"maxProperties": 0}),
            json!({"a": 1}),
            "expected at most 0 members, found 1",
        ),
        (
            json!({"uniqueItems": true}),
            json!([1, 1]),
            "expected elements that are all different",
        ),
        (json!(false), json!(1), "expected nothing, found number"),
        (
            json!({"not": {"const": 1}}),
            json!(1),
            "matches what is excluded by `not`",
        ),
        (
            json!({"propertyNames": {"maxLength": 1}}),
            json!({"ab": 1}),
            "a member's name is not allowed",
        ),
    ] {
        assert_eq!(
            says(source.clone(), value),
            format!("/: {expected}"),
            "{source}"
        );
    }
}

#[test]
fn a_long_list_of_options_is_cut() {
    let options: Vec<u32> = (0..100).collect();
    assert_eq!(
        says(json!({"enum": options}), json!("x")),
        r#"/: expected 0, 1, 2, 3, 4, 5, 6, 7 or 92 others, found "x""#
    );
}

#[test]
fn tuples_are_checked_by_position() {
    let source = json!({"prefixItems": [{"type": "string"}, {"type": "number"}], "items": false});
    assert_eq!(
        says(source, json!([1, "a", 3])),
        "/0: expected string, found number; /1: expected number, found string; \
         /2: expected nothing, found number"
    );
}

#[test]
fn pattern_properties_are_checked() {
    let source =
        json!({"patternProperties": {"^n": {"type": "number"}}, "additionalProperties": false});
    assert_eq!(
        says(source, json!({"n1": "x", "m": 1})),
        "/m: unexpected; /n1: expected number, found string"
    );
}

#[test]
fn an_optional_object_is_explained_from_the_inside() {
    let source = json!({
        "anyOf": [{"$ref": "#/$defs/point"}, {"type": "null"}],
        "$defs": {"point": {
            "type": "object", "properties": {"x": {"type": "number"}}, "required": ["x", "y"],
        }},
    });
    assert_eq!(
        says(source.clone(), json!({"x": "1"})),
        "/y: missing; /x: expected number, found string"
    );
    assert_eq!(
        says(source, json!(1)),
        "/: expected object or null, found number"
    );
}

#[test]
fn a_tagged_alternative_is_explained_from_the_inside() {
    let source = json!({"oneOf": [
        {"type": "object", "properties": {"kind": {"const": "line"}, "to": {"type": "number"}}, "required": ["kind", "to"]},
        {"type": "object", "properties": {"kind": {"const": "dot"}}, "required": ["kind"]},
    ]});
    assert_eq!(
        says(source.clone(), json!({"kind": "line"})),
        "/to: missing"
    );
    assert_eq!(
        says(source.clone(), json!({"kind": "line", "to": "x"})),
        "/to: expected number, found string"
    );
    assert_eq!(
        says(source, json!({"kind": "arc"})),
        "/: matches none of 2 alternatives"
    );
}

#[test]
fn an_externally_tagged_alternative_is_explained_from_the_inside() {
    let variant = |name: &str| {
        json!({
            "type": "object", "properties": {name: {"type": "number"}},
            "required": [name], "additionalProperties": false,
        })
    };
    let source =
        json!({"oneOf": [{"type": "string", "enum": ["None"]}, variant("A"), variant("B")]});
    assert_eq!(
        says(source, json!({"B": "x"})),
        "/B: expected number, found string"
    );
}

#[test]
fn alternatives_that_are_constants_are_listed() {
    let source = json!({"oneOf": [{"const": "red"}, {"const": "green", "description": "g"}]});
    assert_eq!(
        says(source, json!("blue")),
        r#"/: expected "red" or "green", found "blue""#
    );
}

#[test]
fn alternatives_of_one_shape_are_counted() {
    let source = json!({"anyOf": [{"type": "object", "required": ["a"]}, {"type": "object", "required": ["b"]}]});
    assert_eq!(says(source, json!({})), "/: matches none of 2 alternatives");
}

#[test]
fn a_value_that_matches_several_alternatives_of_one_of_is_told_so() {
    let source = json!({"properties": {"n": {"oneOf": [{"type": "number"}, {"minimum": 1}]}}});
    assert_eq!(
        says(source, json!({"n": 2})),
        "/n: matches more than one of the alternatives"
    );
}

#[test]
fn what_only_the_validator_understands_is_still_refused_with_a_text() {
    let source = json!({"properties": {"a": true}, "unevaluatedProperties": false});
    assert_eq!(
        says(source, json!({"b": 1})),
        "/: does not satisfy the schema"
    );
}

#[test]
fn at_most_eight_violations_are_listed() {
    let source = json!({"items": {"type": "string"}});
    let values: Vec<usize> = (0..20).collect();
    let text = says(source.clone(), json!(values));
    assert_eq!(text.matches("expected string").count(), 8);
    assert!(
        text.ends_with("/7: expected string, found number; and 12 more"),
        "{text}"
    );
    assert!(!says(source, json!(values[..8])).contains("more"));
}

#[test]
fn offending_values_and_member_names_are_shown_short() {
    let long = "ä".repeat(1 << 20);
    let source = json!({
        "properties": {"a": {"pattern": "^x$"}, "b": {"const": 1}, "c": {"enum": [1]}},
        "additionalProperties": false,
    });
    let violations = schema(source)
        .check(&Json::from(
            json!({"a": long, "b": long, "c": long, &long: 1}),
        ))
        .unwrap_err();
    assert_eq!(violations.listed().len(), 4);
    for violation in violations.listed() {
        let count = |text: &str| text.matches('ä').count();
        assert!(count(&violation.message) <= 64, "{}", violation.message);
        assert!(count(&violation.path) <= 64, "{}", violation.path);
    }
}

#[test]
fn violations_as_parameters_use_json_pointers() {
    let source = json!({"type": "object", "properties": {"text": {"type": "string"}}});
    let params = |value| {
        schema(source.clone())
            .check(&Json::from(&value))
            .unwrap_err()
            .issues()
    };
    assert_eq!(
        params(json!({"text": 1})),
        [json!({"path": "/text", "message": "expected string, found number"})]
    );
    assert_eq!(
        params(json!(1)),
        [json!({"path": "", "message": "expected object, found number"})]
    );
}

#[test]
fn an_input_failure_reads_as_zockets_clients_expect() {
    let source = json!({"properties": {"text": {"type": "string"}}});
    let violations = schema(source)
        .check(&Json::from(json!({"text": 1})))
        .unwrap_err();
    let params = json!({"issues": violations.issues()});
    let failure = input_failure("send", Some(r#"{"text": 1}"#), violations);
    assert_eq!(failure.code, "input.invalid");
    assert_eq!(failure.status, 400);
    assert_eq!(
        failure.text(),
        "Validation failed for send: /text: expected string, found number"
    );
    assert_eq!(failure.params, Some(params));
}

#[test]
fn an_input_that_was_not_sent_is_missing() {
    for (source, said) in [
        (json!({"type": "object"}), "missing: expected object"),
        (json!({"enum": [1, 2]}), "missing: expected 1 or 2"),
        (json!({"not": {}}), "missing"),
    ] {
        let violations = schema(source).check(&Json::Null).unwrap_err();
        let failure = input_failure("send", None, violations);
        assert_eq!(
            failure.text(),
            format!("Validation failed for send: /: {said}")
        );
        let issues = json!({"issues": [{"path": "", "message": said}]});
        assert_eq!(failure.params, Some(issues));
    }
}

#[test]
fn references_within_the_schema_are_followed() {
    for reference in ["#/$defs/a~1b%20c", "#named"] {
        let source = json!({
            "items": {"$ref": reference},
            "$defs": {"a/b c": {"$anchor": "named", "type": "string"}},
        });
        assert_eq!(
            says(source, json!([1])),
            "/0: expected string, found number"
        );
    }
}

#[test]
fn references_out_of_the_schema_are_refused() {
    for reference in [
        "https://example.com/s.json",
        "other.json#/a",
        "urn:x",
        "file:///etc/passwd",
        "",
    ] {
        assert_eq!(
            refusal(json!({"items": {"$ref": reference}})),
            format!(
                "/items/$ref: expected a reference within the same schema, such as \
                 \"#/$defs/name\", found {reference:?}"
            )
        );
    }
}

#[test]
fn references_to_nothing_are_refused() {
    for reference in ["#/$defs/b", "#nowhere", "#/$defs/a/-", "#/$defs/~2"] {
        assert_eq!(
            refusal(json!({"$ref": reference, "$defs": {"a": true}})),
            format!(
                "/$ref: expected a reference to a place that the schema has, found {reference:?}"
            )
        );
    }
    assert!(refusal(json!({"$ref": "#/%zz"})).contains("percent-encoding"));
}

#[test]
fn other_dialects_and_identities_are_refused() {
    assert_eq!(
        refusal(json!({"$schema": "http://json-schema.org/draft-07/schema#"})),
        "/$schema: expected \"https://json-schema.org/draft/2020-12/schema\", found \
         \"http://json-schema.org/draft-07/schema#\""
    );
    assert!(refusal(json!({"items": {"$id": "x:y"}})).starts_with("/items/$id: expected"));
    assert!(refusal(json!({"items": {"$dynamicRef": "#a"}})).starts_with("/items/$dynamicRef: "));
    schema(json!({
        "$schema": "https://json-schema.org/draft/2020-12/schema", "$id": "https://x.test/s",
        "items": {"$ref": "#/$defs/a"}, "$defs": {"a": true},
    }));
}

#[test]
fn keywords_in_data_are_not_keywords() {
    schema(json!({
        "properties": {"$ref": {"type": "string"}, "$id": true},
        "enum": [{"$ref": "https://example.com"}],
        "default": {"$dynamicRef": 1},
    }));
}

#[test]
fn what_is_no_schema_is_refused_where_it_stands() {
    assert_eq!(
        refusal(json!("string")),
        "/: expected a JSON Schema (an object, true or false), found string"
    );
    assert_eq!(
        refusal(json!({"properties": {"a": 3}})),
        "/properties/a: expected a JSON Schema (an object, true or false), found number"
    );
    assert_eq!(
        refusal(json!({"properties": {"a": {"type": "strin"}}})),
        "/properties/a/type: expected the name of a JSON type or an array of them, found \"strin\""
    );
    assert_eq!(
        refusal(json!({"minLength": -1})),
        "/minLength: expected at least 0, found -1"
    );
    assert_eq!(
        refusal(json!({"required": "a"})),
        "/required: expected array, found string"
    );
    assert_eq!(
        refusal(json!({"properties": []})),
        "/properties: expected object, found array"
    );
}

#[test]
fn patterns_that_could_backtrack_are_refused() {
    for pattern in ["(?=a)b", "(a)\\1", "(", "^.{100000}$"] {
        let message = refusal(json!({"pattern": pattern}));
        assert!(
            message.starts_with("/pattern: expected a regular expression of"),
            "{message}"
        );
    }
    let evil = schema(json!({"pattern": "^(a+)+$"}));
    assert!(
        evil.check(&Json::from(json!("a".repeat(100_000) + "b")))
            .is_err()
    );
}

#[test]
fn too_many_patterns_are_refused() {
    let with = |count: usize| json!({"allOf": vec![json!({"pattern": "a"}); count]});
    schema(with(MAX_PATTERNS));
    assert_eq!(
        refusal(with(MAX_PATTERNS + 1)),
        "/: expected 64 patterns at most, found 65"
    );
}

/// Definitions `d0`, `d1`, … each made from the reference to the one before.
fn chain(length: usize, link: impl Fn(Value) -> Value) -> Value {
    let mut defs = Map::from_iter([("d0".to_owned(), json!({"type": "string"}))]);
    for index in 1..=length {
        let before = json!({"$ref": format!("#/$defs/d{}", index - 1)});
        defs.insert(format!("d{index}"), link(before));
    }
    json!({"$ref": format!("#/$defs/d{length}"), "$defs": defs})
}

#[test]
fn references_that_double_at_every_step_are_refused() {
    assert_eq!(
        refusal(chain(30, |before| json!({"allOf": [before, before]}))),
        "/: `$ref`, `allOf` and the like nest deeper than 48 levels"
    );
    assert_eq!(
        refusal(chain(14, |before| json!({"allOf": [before, before]}))),
        "/: more than 4096 subschemas apply to one place of a value"
    );
    let twice = |before: Value| json!({"allOf": [{"properties": {"x": before}}, {"properties": {"x": before}}]});
    assert_eq!(
        refusal(chain(40, twice)),
        "/: with each `$ref` followed it has more than 65536 subschemas"
    );
}

#[test]
fn references_in_a_circle_are_refused() {
    for source in [
        json!({"$ref": "#"}),
        json!({"allOf": [{"$ref": "#"}]}),
        json!({"not": {"$ref": "#"}}),
        json!({"$ref": "#/$defs/a", "$defs": {"a": {"$ref": "#/$defs/b"}, "b": {"$ref": "#/$defs/a"}}}),
    ] {
        assert_eq!(
            refusal(source),
            "/: a `$ref` leads back to itself without going into a member or an element"
        );
    }
}

#[test]
fn long_chains_of_references_are_refused_on_a_small_stack() {
    let long = chain(20_000, |before| before);
    let mut hidden = chain(20_000, |before| json!({"properties": {"x": before}}));
    let defs = hidden["$defs"].take();
    // The definitions are read one by one before anything refers to the last of them.
    let hidden = json!({
        "$ref": "#/properties/b",
        "properties": {
            "a": {"$defs": defs},
            "b": {"properties": {"c": {"$ref": "#/properties/a/$defs/d20000"}}},
        },
    });
    let check = move || [long, hidden].map(|source| Schema::compile(&source).is_err());
    let thread = std::thread::Builder::new().stack_size(2 << 20);
    assert_eq!(thread.spawn(check).unwrap().join().unwrap(), [true, true]);
}

/// A recursive type as `schemars` writes it for an enum with a tag.
fn expression() -> Value {
    let operation = |name: &str| {
        json!({
            "type": "object",
            "properties": {
                "args": {"type": "array", "items": {"$ref": "#/$defs/expression"}},
                "kind": {"const": name},
            },
            "required": ["kind", "args"],
        })
    };
    json!({
        "$ref": "#/$defs/expression",
        "$defs": {"expression": {"oneOf": [operation("and"), operation("or"), {"type": "string"}]}},
    })
}

#[test]
fn a_deep_value_against_recursive_alternatives_is_explained_at_once() {
    let value = (0..60).fold(json!(5), |value, _| json!({"kind": "or", "args": [value]}));
    let text = says(expression(), value);
    assert!(
        text.ends_with("/args/0: expected object or string, found number"),
        "{text}"
    );
    assert_eq!(text.matches("args").count(), 60);
}

#[test]
fn recursive_alternatives_without_tags_are_refused_without_exponential_work() {
    let source = json!({"anyOf": [
        {"type": "object", "properties": {"x": {"$ref": "#"}}, "required": ["a"]},
        {"type": "object", "properties": {"x": {"$ref": "#"}}, "required": ["b"]},
    ]});
    assert!(!says(source, nested(100, json!({}))).is_empty());
}

#[test]
fn definitions_that_all_refer_to_each_other_are_checked_without_exponential_work() {
    let names = ["a", "b", "c", "d", "e", "f"];
    let to_all: Vec<Value> = names
        .iter()
        .map(|name| json!({"properties": {"x": {"$ref": format!("#/$defs/{name}")}}}))
        .collect();
    let defs = Map::from_iter(
        names.map(|name| (name.to_owned(), json!({"type": "object", "allOf": to_all}))),
    );
    let source = json!({"$ref": "#/$defs/a", "$defs": defs});
    assert_eq!(says(source.clone(), nested(100, json!({}))), "");
    assert!(!says(source, nested(100, json!(1))).is_empty());
}

#[test]
fn many_violations_cost_no_more_than_many_steps() {
    let source = json!({"items": {"type": "string"}});
    let text = says(source, json!(vec![1; 300_000]));
    assert!(text.contains("and "), "{text}");
}

#[test]
fn a_check_is_charged_for_each_subschema_and_each_value() {
    let source = json!({"items": {"allOf": vec![json!({"minimum": 0}); 4_000]}});
    let schema = schema(source);
    let value: Json = (0..1_000_u64).map(Json::from).collect();
    let mut few = Allowance::new(1_000_000);
    assert_eq!(
        schema.check_metered(&value, &mut few),
        Err(Refused::Exhausted(Exhausted))
    );
    let mut enough = Allowance::new(10_000_000);
    assert_eq!(schema.check_metered(&value, &mut enough), Ok(Vec::new()));
    assert!(enough.left() < 6_000_000);
    let change = PatchOp::Replace {
        path: "/7".to_owned(),
        value: Json::from(7_u64),
    };
    let mut small = Allowance::new(10_000);
    schema
        .check_changes_metered(&value, std::slice::from_ref(&change), &mut small)
        .unwrap();
    let mut smaller = Allowance::new(1_000);
    assert_eq!(
        schema.check_changes_metered(&value, &[change], &mut smaller),
        Err(Refused::Exhausted(Exhausted))
    );
}

/// 41 patterns that look like nothing.
fn patterns() -> Value {
    let patterns = (0..41).map(|number| (format!("[ab]c{number}$"), json!(false)));
    Value::Object(patterns.collect::<Map<String, Value>>())
}

/// How many steps a check takes.
fn steps(source: Value, value: &Json) -> u64 {
    const MOST: u64 = 1 << 40;
    let mut allowance = Allowance::new(MOST);
    let _ = schema(source).check_metered(value, &mut allowance);
    MOST - allowance.left()
}

#[test]
fn a_long_name_is_charged_for_each_pattern_it_is_looked_at_by() {
    let name = "x".repeat(64_000);
    let value = Json::from(&json!({name: 0}));
    let each = 1_000;
    let declared = json!({"patternProperties": patterns()});
    assert!(steps(declared.clone(), &value) > 41 * each);
    let unevaluated = json!({
        "unevaluatedProperties": {},
        "allOf": vec![json!({"$ref": "#/$defs/p"}); 5],
        "$defs": {"p": declared},
    });
    assert!(steps(unevaluated, &value) > 6 * 41 * each);
    let integers =
        json!({"patternProperties": patterns(), "additionalProperties": {"type": "integer"}});
    let once = steps(integers.clone(), &value);
    let loose = Json::from(&json!({"x".repeat(64_000): 1.0}));
    assert!(steps(integers, &loose) > once + 41 * each);
}

#[test]
fn a_change_to_a_long_name_is_charged_for_each_pattern() {
    let name = "x".repeat(64_000);
    let mut members = Map::from_iter([(name.clone(), json!(0))]);
    members.extend((0..100).map(|number| (number.to_string(), json!(0))));
    let change = PatchOp::Replace {
        path: format!("/{name}"),
        value: Json::from(0_u64),
    };
    let found = schema(json!({"patternProperties": patterns()})).check_changes_metered(
        &Json::from(&Value::Object(members)),
        &[change],
        &mut Allowance::new(40_000),
    );
    assert_eq!(found, Err(Refused::Exhausted(Exhausted)));
}

#[test]
fn a_pattern_is_charged_by_how_large_it_is() {
    let text = Json::from("ab".repeat(32_000));
    let small = steps(json!({"pattern": "^[ab]*$"}), &text);
    let large = steps(
        json!({"pattern": "[ab]*a[ab]{4000}[^ab]"}),
        &Json::from("ab"),
    );
    assert!((1_000..3_000).contains(&small), "{small}");
    assert!(large > 16, "{large}");
    let names = json!({"patternProperties": {"[ab]*a[ab]{4000}[^ab]": {}}});
    assert!(steps(names, &Json::from(&json!({"ab": 0}))) > 16);
}

#[test]
fn a_long_name_that_is_required_is_charged() {
    let name = |number: usize| format!("{}{number}", "x".repeat(6_400));
    let names: Vec<String> = (0..10).map(name).collect();
    for source in [
        json!({"required": names}),
        json!({"dependentRequired": {"y": names}}),
    ] {
        assert!(steps(source, &Json::from(&json!({"y": 0}))) > 1_000);
    }
}

#[test]
fn an_explanation_takes_no_longer_where_there_are_many_members() {
    let members = (0..200_000).map(|number| (format!("name{number}"), json!(0)));
    let members = Value::Object(members.collect::<Map<String, Value>>());
    let list = Value::Array(vec![json!(0); 200_000]);
    for (rule, value) in [
        (json!({"minimum": 0}), &members),
        (json!({"properties": {"x": {}}}), &members),
        (json!({"unevaluatedProperties": {}}), &members),
        (json!({"items": {}}), &list),
    ] {
        let source = json!({
            "required": ["zz"],
            "maxItems": 1,
            "allOf": vec![rule; 4_000],
        });
        let schema = schema(source);
        let value = Json::from(value);
        let began = std::time::Instant::now();
        let violations = explain::explain(&schema.0.rules, &value);
        assert!(began.elapsed().as_secs() < 10);
        assert_eq!(violations.listed().len(), 1);
    }
}

#[test]
fn an_explanation_that_is_cut_short_says_something() {
    let members = (0..2_000_000).map(|number| (number.to_string().into(), Json::Null));
    let mut members: crate::json::Object = members.collect();
    members.insert("last".into(), Json::from("text"));
    let source = json!({"properties": {"first": {}}, "additionalProperties": {"type": "null"}});
    let violations = schema(source).check(&Json::Object(members)).unwrap_err();
    assert_eq!(violations.to_string(), "/: does not satisfy the schema");
}

#[test]
fn zero_may_be_written_with_a_sign() {
    for keyword in ["minimum", "maximum"] {
        let schema = schema(json!({keyword: 0.0}));
        assert!(schema.check(&Json::parse("-0.0").unwrap()).is_ok());
    }
    for keyword in ["exclusiveMinimum", "exclusiveMaximum"] {
        for (limit, value) in [(json!(0.0), "-0.0"), (json!(-0.0), "0.0")] {
            let schema = schema(json!({keyword: limit}));
            assert!(schema.check(&Json::parse(value).unwrap()).is_err());
        }
    }
}

#[test]
fn integers_are_found_where_parts_are_counted_or_left_over() {
    for (source, value, spelled) in [
        (
            json!({"contains": {"type": "integer"}}),
            "[1.0,\"x\"]",
            "[1,\"x\"]",
        ),
        (
            json!({"prefixItems": [{"type": "number"}], "contains": {"type": "integer"}}),
            "[1.0,2.0]",
            "[1,2]",
        ),
        (
            json!({"prefixItems": [{"type": "number"}], "unevaluatedItems": {"type": "integer"}}),
            "[1.0,2.0]",
            "[1.0,2]",
        ),
        (
            json!({
                "properties": {"a": {"type": "number"}},
                "unevaluatedProperties": {"properties": {"b": {"type": "integer"}}},
            }),
            r#"{"a":1.0,"c":{"b":2.0}}"#,
            r#"{"a":1.0,"c":{"b":2}}"#,
        ),
    ] {
        let mut value = Json::parse(value).unwrap();
        let loose = schema(source).check_metered(&value, &mut Unmetered);
        value.spell_integers(&loose.unwrap());
        assert_eq!(value.to_text(), spelled);
    }
}

#[test]
fn numbers_that_are_integers_to_the_schema_are_found_wherever_it_declares_them() {
    let schema = schema(json!({
        "properties": {
            "n": {"type": ["integer", "null"]},
            "f": {"type": "number"},
            "list": {"prefixItems": [{"type": "integer"}], "items": {"$ref": "#/$defs/entry"}},
            "either": {"anyOf": [{"type": "string"}, {"type": "integer"}]},
            "kind": {"enum": [1, 2, "x"]},
        },
        "additionalProperties": {"type": "integer"},
        "$defs": {"entry": {"allOf": [{"properties": {"at": {"type": "integer"}}}]}},
    }));
    let mut value = Json::parse(
        r#"{"n":1.0,"f":2.0,"list":[3.0,{"at":4.0,"of":5.0},{"at":6}],"either":7.0,"kind":2.0,"more":8e0}"#,
    )
    .unwrap();
    let loose = schema.check_metered(&value, &mut Unmetered).unwrap();
    value.spell_integers(&loose);
    assert_eq!(
        value.to_text(),
        r#"{"n":1,"f":2.0,"list":[3,{"at":4,"of":5.0},{"at":6}],"either":7,"kind":2,"more":8}"#
    );
    assert_eq!(
        schema.check_metered(&value, &mut Unmetered).unwrap(),
        Vec::new()
    );
}

#[test]
fn the_deepest_value_against_the_deepest_schema_fits_a_thread_stack() {
    let mut source = chain(
        20,
        |before| json!({"allOf": [{"type": ["object", "string"]}, before]}),
    );
    source["$defs"]["d0"] = json!({"properties": {"x": {"$ref": "#"}}});
    let check = move || {
        let schema = schema(source);
        let valid = schema
            .check(&Json::from(nested(127, json!("leaf"))))
            .is_ok();
        valid && schema.check(&Json::from(nested(127, json!(1)))).is_err()
    };
    let thread = std::thread::Builder::new().stack_size(2 << 20);
    assert!(thread.spawn(check).unwrap().join().unwrap());
}

/// Small schemas over small values, so that both outcomes are common.
pub(super) fn any_schema() -> impl Strategy<Value = Value> {
    let leaf = prop_oneof![
        Just(json!(true)),
        Just(json!(false)),
        prop::sample::select(vec![
            "string", "number", "integer", "null", "object", "array"
        ])
        .prop_map(|kind| json!({"type": kind})),
        Just(json!({"enum": ["a", 1, null]})),
        Just(json!({"const": {"a": 1}})),
        Just(json!({"minimum": 1, "maxLength": 1})),
        Just(json!({"pattern": "^a"})),
        Just(json!({"minItems": 1, "uniqueItems": true})),
        Just(json!({"required": ["a"], "maxProperties": 1})),
    ];
    leaf.prop_recursive(3, 24, 3, |inner| {
        let two = (inner.clone(), inner.clone());
        prop_oneof![
            two.clone().prop_map(|(a, b)| json!({"allOf": [a, b]})),
            two.clone().prop_map(|(a, b)| json!({"anyOf": [a, b]})),
            two.clone().prop_map(|(a, b)| json!({"oneOf": [a, b]})),
            two.clone().prop_map(|(a, b)| json!({"prefixItems": [a], "items": b})),
            two.clone()
                .prop_map(|(a, b)| json!({"properties": {"a": a}, "additionalProperties": b})),
            two.clone()
                .prop_map(|(a, b)| json!({"$defs": {"d": a}, "properties": {"a": {"$ref": "#/$defs/d"}}, "not": b})),
            two.prop_map(|(a, b)| json!({"if": a, "then": b, "contains": {"type": "number"}})),
            inner.prop_map(|a| json!({"patternProperties": {"^a": a}, "unevaluatedProperties": false})),
        ]
    })
}

pub(super) fn any_value() -> impl Strategy<Value = Value> {
    let leaf = prop_oneof![
        Just(json!(null)),
        Just(json!(true)),
        (-1..3i64).prop_map(|n| json!(n)),
        Just(json!(0.5)),
        "[ab]{0,2}".prop_map(|text| json!(text)),
    ];
    leaf.prop_recursive(3, 16, 3, |inner| {
        prop_oneof![
            prop::collection::vec(inner.clone(), 0..3).prop_map(|values| json!(values)),
            prop::collection::btree_map("[ab]", inner, 0..3).prop_map(|members| json!(members)),
        ]
    })
}

/// `$ref` in a generated part counts from the root, which has no definitions.
fn has_dangling_reference(source: &Value) -> bool {
    Schema::compile(source).is_err_and(|error| error.message.contains("a reference to a place"))
}

proptest! {
    #[test]
    fn the_verdict_is_the_validators_and_a_refusal_always_says_something(
        source in any_schema(), value in any_value(),
    ) {
        prop_assume!(!has_dangling_reference(&source));
        let schema = schema(source.clone());
        let verdict = jsonschema::draft202012::is_valid(&source, &value);
        match schema.check(&Json::from(&value)) {
            Ok(()) => prop_assert!(verdict),
            Err(violations) => {
                prop_assert!(!verdict);
                prop_assert!((1..=MAX_LISTED).contains(&violations.listed().len()));
                for violation in violations.listed() {
                    prop_assert!(!violation.message.is_empty());
                    // A path names a place of the value, or a member that is missing there.
                    let parent = violation.path.rfind('/').map_or("", |at| &violation.path[..at]);
                    prop_assert!(value.pointer(parent).is_some(), "{}", violation.path);
                }
            }
        }
    }

    #[test]
    fn a_value_never_makes_compile_panic(source in any_value(), keyword in prop::sample::select(vec![
        "type", "properties", "items", "$ref", "$defs", "allOf", "required", "pattern", "enum",
        "prefixItems", "additionalProperties", "if", "$anchor", "$id", "minimum",
    ])) {
        let _ = Schema::compile(&json!({keyword: source}));
    }
}

//! Random documents for the property tests of patches and documents, and a second
//! opinion on what a patch does: the `json-patch` crate.

use proptest::prelude::*;
use serde_json::{Map, Value, json};

use super::{PatchOp, apply};
use crate::pointer::Pointer;

/// Member names that need escaping, look like indexes or mean something to JavaScript.
pub(crate) fn name() -> impl Strategy<Value = String> {
    prop::sample::select(vec![
        "",
        "a",
        "b",
        "c",
        "a/b~c",
        "~1",
        "/",
        "0",
        "1",
        "-",
        "__proto__",
        "é",
    ])
    .prop_map(str::to_owned)
}

/// Any document, of so few different parts that two of them have much in common.
pub(crate) fn document() -> impl Strategy<Value = Value> {
    let scalar = prop_oneof![
        Just(Value::Null),
        any::<bool>().prop_map(Value::from),
        (-2..3i64).prop_map(Value::from),
        prop::sample::select(vec![u64::MAX, i64::MAX as u64 + 1]).prop_map(Value::from),
        prop::sample::select(vec![0.5, 1.0, -1e300]).prop_map(Value::from),
        "[ab\"é😀]{0,3}".prop_map(Value::from),
    ];
    scalar.prop_recursive(4, 48, 6, |below| {
        prop_oneof![
            prop::collection::vec(below.clone(), 0..6).prop_map(Value::from),
            prop::collection::vec((-2..3i64).prop_map(Value::from), 0..80).prop_map(Value::from),
            prop::collection::vec((name(), below), 0..6)
                .prop_map(|members| Value::Object(Map::from_iter(members))),
        ]
    })
}

/// Applies a patch by the rules of RFC 6902.
pub(crate) fn apply_rfc_6902(document: &mut Value, ops: &[PatchOp]) {
    let ops: json_patch::Patch = serde_json::from_value(json!(ops)).unwrap();
    json_patch::patch(document, &ops).unwrap();
}

/// Every operation of a plain patch keeps to the dialect (see `patch`).
pub(crate) fn assert_dialect(old: &Value, ops: &[PatchOp]) {
    let mut document = old.clone();
    for op in ops {
        let (parent, last) = op.path().rsplit_once('/').unwrap_or(("", ""));
        let length = match Pointer::parse(parent).unwrap().resolve(&document) {
            Some(Value::Array(elements)) if !op.path().is_empty() => Some(elements.len()),
            _ => None,
        };
        match (op, length) {
            (PatchOp::Add { .. }, Some(length)) => assert_eq!(last, length.to_string()),
            (PatchOp::Remove { .. }, Some(length)) => {
                assert_eq!(last, (length - 1).to_string());
            }
            (PatchOp::StrIns { .. }, _) => panic!("{op:?} is not of the dialect"),
            _ => {}
        }
        assert_ne!(op.path(), "/");
        apply(&mut document, std::slice::from_ref(op)).unwrap();
    }
}

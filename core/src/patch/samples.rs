//! Random documents for the property tests of patches and documents, and a second
//! opinion on what a patch does: the `json-patch` crate.

use proptest::prelude::*;
use serde_json::{Value, json};

use super::{PatchOp, apply};
use crate::json::{Json, Number};
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

/// Any document, of so few different parts that two of them have much in common. Objects have
/// their members in any order, some so many that they are indexed.
pub(crate) fn document() -> impl Strategy<Value = Json> {
    let scalar = prop_oneof![
        Just(Json::Null),
        any::<bool>().prop_map(Json::from),
        (-2..3i64).prop_map(Json::from),
        prop::sample::select(vec![u64::MAX, i64::MAX as u64 + 1]).prop_map(Json::from),
        prop::sample::select(vec![0.5, 1.0, -1e300])
            .prop_map(|number| Json::Number(Number::Float(number))),
        "[ab\"é😀]{0,3}".prop_map(Json::from),
    ];
    scalar.prop_recursive(4, 48, 6, |below| {
        let object = |members: Vec<(String, Json)>| {
            let members = members.into_iter();
            Json::Object(members.map(|(name, value)| (name.into(), value)).collect())
        };
        let many = (0..24_u8).prop_map(|number| format!("m{number}"));
        prop_oneof![
            2 => prop::collection::vec(below.clone(), 0..6)
                .prop_map(|elements| elements.into_iter().collect()),
            2 => prop::collection::vec((-2..3i64).prop_map(Json::from), 0..80)
                .prop_map(|elements| elements.into_iter().collect()),
            2 => prop::collection::vec((name(), below), 0..6).prop_map(object),
            1 => prop::collection::vec((many, (0..3i64).prop_map(Json::from)), 0..40)
                .prop_map(object),
        ]
    })
}

/// Applies a patch by the rules of RFC 6902.
pub(crate) fn apply_rfc_6902(document: &mut Json, ops: &[PatchOp]) {
    let ops: json_patch::Patch = serde_json::from_value(json!(ops)).unwrap();
    let mut value: Value = serde_json::to_value(&*document).unwrap();
    json_patch::patch(&mut value, &ops).unwrap();
    *document = value.into();
}

/// Every operation of a plain patch keeps to the dialect (see `patch`).
pub(crate) fn assert_dialect(old: &Json, ops: &[PatchOp]) {
    let mut document = old.clone();
    for op in ops {
        let (parent, last) = op.path().rsplit_once('/').unwrap_or(("", ""));
        let length = match Pointer::parse(parent).unwrap().resolve(&document) {
            Some(Json::Array(elements)) if !op.path().is_empty() => Some(elements.len()),
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

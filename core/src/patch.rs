//! Patches: RFC 6902 operations in the dialect that Zocket's client applies correctly.
//!
//! [`Document::commit`](crate::Document::commit) and the projections of the host make
//! them, the fan-out sends them, and stores replay them. The dialect, which every patch
//! made here keeps:
//!
//! - only `add`, `replace` and `remove`, always with a `value` where one belongs;
//! - arrays are compared by index: `add` only at the tail, with its index and never `-`,
//!   `remove` only from the tail down, so that it does not matter that the client's `add`
//!   assigns to an index where RFC 6902 inserts;
//! - within a container first the changes of what stays, then removals, then additions in the
//!   order in which the members stand, so that whoever sets members as they come has them in the
//!   order of the document;
//! - no operation has the path `/`, which the client takes for the root.
//!
//! An RFC 6902 implementation applies such patches with the same result.
//!
//! Text that grew at its end is the exception: a document gives it as `str_ins`, an
//! operation of the extended JSON Patch, so that a stream of tokens costs what is new of
//! it. [`encode`] writes it for those who understand it, [`encode_plain`] the whole string
//! for all others; only the latter keeps to the dialect.

mod differ;
mod lengths;
mod read;

#[cfg(test)]
pub(crate) mod samples;

use std::borrow::Cow;

pub(crate) use differ::{Differ, Estimate, Place, Token};
pub(crate) use lengths::Lengths;
use serde::Serialize;

use crate::json::Json;
use crate::meter::{Exhausted, Meter, Unmetered};
use crate::pointer::{Pointer, PointerError, array_index, unescape};

/// One operation of a patch. In JSON an RFC 6902 object,
/// `{"op":"add","path":"/a/3","value":3}`, or for text
/// `{"op":"str_ins","path":"/a","pos":5,"str":"…"}`.
#[derive(Clone, Debug, PartialEq, Serialize)]
#[serde(tag = "op", rename_all = "lowercase")]
pub enum PatchOp {
    /// Sets a new member, or appends an element at the index that is the array's length.
    Add {
        /// A JSON pointer.
        path: String,
        /// The new value.
        value: Json,
    },
    /// Changes the value of an existing place.
    Replace {
        /// A JSON pointer.
        path: String,
        /// The new value.
        value: Json,
    },
    /// Removes a member, or an array's last element.
    Remove {
        /// A JSON pointer.
        path: String,
    },
    /// Inserts text into a string. The patches of a document insert at its end only.
    #[serde(rename = "str_ins")]
    StrIns {
        /// A JSON pointer.
        path: String,
        /// Where, counted in UTF-16 code units as JavaScript counts: browsers apply it.
        pos: usize,
        /// The text.
        #[serde(rename = "str")]
        text: String,
    },
}

impl PatchOp {
    /// The JSON pointer of the place that changes.
    pub fn path(&self) -> &str {
        match self {
            Self::Add { path, .. }
            | Self::Replace { path, .. }
            | Self::Remove { path }
            | Self::StrIns { path, .. } => path,
        }
    }
}

/// Why a patch does not apply to a document.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum PatchError {
    /// A path is no JSON pointer.
    #[error(transparent)]
    Path(#[from] PointerError),
    /// An operation leads to a place that the document does not have.
    #[error("expected a document with the place `{path}`, found none there")]
    NoSuchPlace {
        /// The operation's path.
        path: String,
    },
    /// An operation inserts text where the document has no string that is long enough, or
    /// within a surrogate pair.
    #[error("expected a string with the position {pos} at `{path}`, found none there")]
    NoSuchPosition {
        /// The operation's path.
        path: String,
        /// The operation's position.
        pos: usize,
    },
}

/// The patch that leads from one document to the other, with the members of the other in their
/// order; empty when both have the same text.
///
/// ```
/// use tidegate_core::Json;
/// use tidegate_core::patch::{diff, encode};
///
/// let old = Json::parse(r#"{"a":[1,2,3]}"#).unwrap();
/// let new = Json::parse(r#"{"a":[0,1],"b":null}"#).unwrap();
/// let patch = diff(&old, &new);
/// assert_eq!(
///     encode(&patch),
///     r#"[{"op":"replace","path":"/a/0","value":0},{"op":"replace","path":"/a/1","value":1},{"op":"remove","path":"/a/2"},{"op":"add","path":"/b","value":null}]"#
/// );
/// ```
pub fn diff(old: &Json, new: &Json) -> Vec<PatchOp> {
    diff_metered(old, new, &mut Unmetered).expect("who is not metered is not exhausted")
}

/// [`diff`], at the cost of what is compared and copied.
///
/// # Errors
///
/// [`Exhausted`].
pub fn diff_metered(
    old: &Json,
    new: &Json,
    meter: &mut dyn Meter,
) -> Result<Vec<PatchOp>, Exhausted> {
    let mut differ = Differ::new(meter);
    differ.compare(Place::ROOT, old, new)?;
    Ok(differ.finish(new, &mut Lengths::default()))
}

/// Applies a patch as Zocket's client does: `add` at an array index assigns, `-` appends,
/// and the path `/` is the root. Stricter than the client in one respect: an operation on
/// a place that does not exist is an error, since it shows that the patch belongs to
/// another document. The operations before it stay applied.
pub fn apply(document: &mut Json, ops: &[PatchOp]) -> Result<(), PatchError> {
    for op in ops {
        apply_one(document, op)?;
    }
    Ok(())
}

fn apply_one(document: &mut Json, op: &PatchOp) -> Result<(), PatchError> {
    let nowhere = || PatchError::NoSuchPlace {
        path: op.path().to_owned(),
    };
    let pointer = match op.path() {
        "/" => Pointer::root(),
        path => Pointer::parse(path)?,
    };
    if let PatchOp::StrIns { path, pos, text } = op {
        let string = place(document, pointer.tokens()).ok_or_else(nowhere)?;
        return insert(string, *pos, text).ok_or_else(|| PatchError::NoSuchPosition {
            path: path.clone(),
            pos: *pos,
        });
    }
    let Some((last, parents)) = pointer.tokens().split_last() else {
        return match op {
            PatchOp::Add { value, .. } | PatchOp::Replace { value, .. } => {
                *document = value.clone();
                Ok(())
            }
            PatchOp::Remove { .. } | PatchOp::StrIns { .. } => Err(nowhere()),
        };
    };
    let parent = place(document, parents).ok_or_else(nowhere)?;
    match parent {
        Json::Object(members) => match op {
            PatchOp::Add { value, .. } => {
                members.insert(last.as_str().into(), value.clone());
            }
            PatchOp::Replace { value, .. } => {
                *members.get_mut(last).ok_or_else(nowhere)? = value.clone();
            }
            PatchOp::Remove { .. } => {
                members.remove(last).ok_or_else(nowhere)?;
            }
            PatchOp::StrIns { .. } => return Err(nowhere()),
        },
        Json::Array(elements) => {
            let length = elements.len();
            let index = match op {
                PatchOp::Add { .. } if last == "-" => Some(length),
                _ => array_index(last),
            };
            match (op, index.ok_or_else(nowhere)?) {
                (PatchOp::Add { value, .. }, index) if index == length => {
                    elements.push(value.clone());
                }
                (PatchOp::Add { value, .. } | PatchOp::Replace { value, .. }, index) => {
                    let element = elements.make_mut().get_mut(index);
                    *element.ok_or_else(nowhere)? = value.clone();
                }
                (PatchOp::Remove { .. }, index) if index < length => {
                    elements.remove(index);
                }
                (PatchOp::Remove { .. } | PatchOp::StrIns { .. }, _) => return Err(nowhere()),
            }
        }
        _ => return Err(nowhere()),
    }
    Ok(())
}

fn place<'d>(document: &'d mut Json, tokens: &[String]) -> Option<&'d mut Json> {
    tokens
        .iter()
        .try_fold(document, |value, token| value.child_mut(token))
}

/// Inserts text at a position in UTF-16 code units; `None` when there is no such position.
fn insert(value: &mut Json, pos: usize, text: &str) -> Option<()> {
    let Json::String(string) = value else {
        return None;
    };
    // A string is never shorter in bytes than in units, and as short only if it is ASCII.
    let at = if string.len() == pos {
        pos
    } else {
        let mut units = 0;
        let ends = string.char_indices().map(|(at, char)| {
            units += char.len_utf16();
            (units, at + char.len_utf8())
        });
        let mut ends = std::iter::once((0, 0)).chain(ends);
        ends.find(|(units, _)| *units >= pos)
            .filter(|(units, _)| *units == pos)?
            .1
    };
    match at == string.len() {
        true => string.push_str(text),
        false => string.insert_str(at, text),
    }
    Some(())
}

/// The patch as a JSON array, for those who understand `str_ins`.
pub fn encode(ops: &[PatchOp]) -> String {
    serde_json::to_string(ops).expect(EXPRESSIBLE)
}

/// The patch as a JSON array in the dialect that every client understands: a `str_ins` is
/// written as a `replace` by the whole string. `document` is the one that the patch leads
/// to.
///
/// Without a `str_ins` ([`has_str_ins`]) it is the same as [`encode`].
///
/// ```
/// use tidegate_core::patch::{encode, encode_plain};
/// use tidegate_core::{Json, PatchOp};
///
/// let patch = [PatchOp::StrIns { path: "/s".into(), pos: 2, text: "c".into() }];
/// assert_eq!(encode(&patch), r#"[{"op":"str_ins","path":"/s","pos":2,"str":"c"}]"#);
/// assert_eq!(
///     encode_plain(&patch, &Json::parse(r#"{"s":"abc"}"#).unwrap()),
///     r#"[{"op":"replace","path":"/s","value":"abc"}]"#
/// );
/// ```
///
/// # Panics
///
/// When the document has no string where the patch inserts text, since it is then not the
/// one that the patch leads to.
pub fn encode_plain(ops: &[PatchOp], document: &Json) -> String {
    #[derive(Serialize)]
    #[serde(untagged)]
    enum Plain<'a> {
        As(&'a PatchOp),
        Whole {
            op: &'static str,
            path: &'a str,
            value: &'a str,
        },
    }
    let plain = ops.iter().map(|op| match op {
        PatchOp::StrIns { path, .. } => Plain::Whole {
            op: "replace",
            path,
            value: Pointer::parse(path)
                .ok()
                .and_then(|pointer| pointer.resolve(document)?.as_str())
                .expect("the document has a string where the patch that leads to it inserts text"),
        },
        op => Plain::As(op),
    });
    serde_json::to_string(&plain.collect::<Vec<_>>()).expect(EXPRESSIBLE)
}

const EXPRESSIBLE: &str = "an operation holds nothing that JSON cannot express";

/// Whether [`encode`] and [`encode_plain`] differ for this patch.
pub fn has_str_ins(ops: &[PatchOp]) -> bool {
    ops.iter().any(|op| matches!(op, PatchOp::StrIns { .. }))
}

/// The patch as a subscriber may see it: without the operations at or below the hidden
/// top-level members, and without those members in a value for the whole document. It
/// may be empty.
///
/// A patch does not tell members from elements: a hidden name that reads as an array
/// index is only good for documents that are objects.
pub fn without_hidden(mut ops: Vec<PatchOp>, hidden: &[String]) -> Vec<PatchOp> {
    if hidden.is_empty() {
        return ops;
    }
    ops.retain_mut(|op| match op {
        PatchOp::Add { path, value } | PatchOp::Replace { path, value } if path.is_empty() => {
            if let Json::Object(members) = value {
                members.retain(|name| !is_one_of(name, hidden));
            }
            true
        }
        _ => !is_hidden(op.path(), hidden),
    });
    ops
}

/// Whether a path is at or below a hidden top-level member.
fn is_hidden(path: &str, hidden: &[String]) -> bool {
    path.strip_prefix('/')
        .and_then(|tokens| tokens.split('/').next())
        .and_then(unescape)
        .is_some_and(|member| hidden.iter().any(|name| *name == member))
}

/// The document as a subscriber may see it: without the hidden top-level members. What is left
/// shares what the document holds.
pub fn strip_hidden<'v>(document: &'v Json, hidden: &[String]) -> Cow<'v, Json> {
    match document {
        Json::Object(members) if hidden.iter().any(|name| members.contains(name)) => {
            let mut shown = members.clone();
            shown.retain(|name| !is_one_of(name, hidden));
            Cow::Owned(Json::Object(shown))
        }
        _ => Cow::Borrowed(document),
    }
}

fn is_one_of(name: &str, names: &[String]) -> bool {
    names.iter().any(|other| other == name)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::json::testing::json;

    /// The patch between two documents in its JSON form, after both appliers have
    /// confirmed it.
    fn patch(old: Json, new: Json) -> Json {
        let ops = diff(&old, &new);
        assert_leads_to(&ops, &old, &new);
        json!(ops)
    }

    fn assert_leads_to(ops: &[PatchOp], old: &Json, new: &Json) {
        let mut by_dialect = old.clone();
        apply(&mut by_dialect, ops).unwrap();
        assert_eq!(by_dialect.to_text(), new.to_text());
        let mut by_rfc = old.clone();
        samples::apply_rfc_6902(&mut by_rfc, ops);
        assert_eq!(by_rfc, *new);
    }

    fn ops(patch: Json) -> Vec<PatchOp> {
        serde_json::from_str(&patch.to_text()).unwrap()
    }

    #[test]
    fn unshift_replaces_by_index_and_adds_at_the_tail() {
        assert_eq!(
            patch(json!({"a": [1, 2, 3]}), json!({"a": [0, 1, 2, 3]})),
            json!([
                {"op": "replace", "path": "/a/0", "value": 0},
                {"op": "replace", "path": "/a/1", "value": 1},
                {"op": "replace", "path": "/a/2", "value": 2},
                {"op": "add", "path": "/a/3", "value": 3},
            ])
        );
    }

    #[test]
    fn splice_replaces_and_then_removes_from_the_tail_down() {
        assert_eq!(
            patch(json!({"a": [0, 1, 2, 3]}), json!({"a": [0, 3]})),
            json!([
                {"op": "replace", "path": "/a/1", "value": 3},
                {"op": "remove", "path": "/a/3"},
                {"op": "remove", "path": "/a/2"},
            ])
        );
    }

    #[test]
    fn truncating_an_array_removes_its_tail() {
        assert_eq!(
            patch(json!({"a": [0, 3]}), json!({"a": [0]})),
            json!([{"op": "remove", "path": "/a/1"}])
        );
    }

    #[test]
    fn several_elements_are_added_in_ascending_order() {
        assert_eq!(
            patch(json!([1]), json!([1, 2, 3])),
            json!([
                {"op": "add", "path": "/1", "value": 2},
                {"op": "add", "path": "/2", "value": 3},
            ])
        );
    }

    #[test]
    fn names_with_slashes_and_tildes_are_escaped() {
        assert_eq!(
            patch(json!({"o": {}}), json!({"o": {"a/b~c": 1}})),
            json!([{"op": "add", "path": "/o/a~1b~0c", "value": 1}])
        );
        assert_eq!(
            patch(
                json!({"o": {"x/y": {"k": 1}}}),
                json!({"o": {"x/y": {"k": 2}}})
            ),
            json!([{"op": "replace", "path": "/o/x~1y/k", "value": 2}])
        );
    }

    #[test]
    fn equal_documents_have_an_empty_patch() {
        let state = json!({"a": [1, {"b": null}], "n": 1.5});
        assert_eq!(patch(state.clone(), state), json!([]));
    }

    #[test]
    fn a_change_of_kind_replaces_the_value() {
        assert_eq!(
            patch(
                json!({"n": 2}),
                Json::parse(r#"{"n":"not a number","extra":true}"#).unwrap()
            ),
            json!([
                {"op": "replace", "path": "/n", "value": "not a number"},
                {"op": "add", "path": "/extra", "value": true},
            ])
        );
        assert_eq!(
            patch(json!({"a": [1]}), json!({"a": {"0": 1}})),
            json!([{"op": "replace", "path": "/a", "value": {"0": 1}}])
        );
    }

    #[test]
    fn null_is_sent_as_a_value() {
        let added = diff(&json!({"o": {}}), &json!({"o": {"x": null}}));
        assert_eq!(
            encode(&added),
            r#"[{"op":"add","path":"/o/x","value":null}]"#
        );
    }

    #[test]
    fn a_deleted_member_is_removed() {
        assert_eq!(
            patch(json!({"o": {"x": 1, "y": 2}}), json!({"o": {"y": 2}})),
            json!([{"op": "remove", "path": "/o/x"}])
        );
    }

    #[test]
    fn a_new_member_is_added_with_all_that_is_in_it() {
        assert_eq!(
            patch(json!({"o": {}}), json!({"o": {"deep": {"l": [{"v": 1}]}}})),
            json!([{"op": "add", "path": "/o/deep", "value": {"l": [{"v": 1}]}}])
        );
    }

    #[test]
    fn nested_changes_are_sent_where_they_are() {
        assert_eq!(
            patch(
                json!({"o": {"deep": {"l": [{"v": 1}]}}}),
                json!({"o": {"deep": {"l": [{"v": 2}, {"v": 3}]}}})
            ),
            json!([
                {"op": "replace", "path": "/o/deep/l/0/v", "value": 2},
                {"op": "add", "path": "/o/deep/l/1", "value": {"v": 3}},
            ])
        );
    }

    #[test]
    fn changes_come_before_removals_and_removals_before_additions() {
        assert_eq!(
            patch(
                json!({"b": 1, "c": 1}),
                Json::parse(r#"{"c":2,"a":1}"#).unwrap()
            ),
            json!([
                {"op": "replace", "path": "/c", "value": 2},
                {"op": "remove", "path": "/b"},
                {"op": "add", "path": "/a", "value": 1},
            ])
        );
    }

    #[test]
    fn members_in_another_order_come_anew_behind_the_others() {
        let parse = |text: &str| Json::parse(text).unwrap();
        let old = parse(r#"{"a":1,"b":2,"c":3}"#);
        for (new, patch) in [
            (
                r#"{"a":1,"c":3,"b":2}"#,
                r#"[{"op":"remove","path":"/b"},{"op":"add","path":"/b","value":2}]"#,
            ),
            (
                r#"{"a":1,"n":0,"b":2,"c":4}"#,
                r#"[{"op":"remove","path":"/b"},{"op":"remove","path":"/c"},{"op":"add","path":"/n","value":0},{"op":"add","path":"/b","value":2},{"op":"add","path":"/c","value":4}]"#,
            ),
        ] {
            let new = parse(new);
            let ops = diff(&old, &new);
            assert_leads_to(&ops, &old, &new);
            assert_eq!(encode(&ops), patch);
        }
    }

    #[test]
    fn a_root_of_another_kind_is_replaced() {
        assert_eq!(
            patch(json!({"a": 1}), json!([1])),
            json!([{"op": "replace", "path": "", "value": [1]}])
        );
        assert_eq!(
            patch(json!(1), json!(2)),
            json!([{"op": "replace", "path": "", "value": 2}])
        );
    }

    #[test]
    fn the_member_with_the_empty_name_is_never_addressed_alone() {
        assert_eq!(
            patch(json!({"": 1, "a": 1}), json!({"": 2, "a": 1})),
            json!([{"op": "replace", "path": "", "value": {"": 2, "a": 1}}])
        );
        assert_eq!(
            patch(json!({"": {"x": 1}}), json!({"": {"x": 2}})),
            json!([{"op": "replace", "path": "//x", "value": 2}])
        );
        assert_eq!(
            patch(json!({"o": {"": 1}}), json!({"o": {"": 2}})),
            json!([{"op": "replace", "path": "/o/", "value": 2}])
        );
    }

    #[test]
    fn an_array_that_changed_all_over_is_sent_whole() {
        let old = json!({"a": (0..100).collect::<Vec<_>>(), "n": 1});
        let elements = json!((-1..100).collect::<Vec<_>>());
        let new = json!({"a": elements, "n": 1});
        assert_eq!(
            patch(old, new.clone()),
            json!([{"op": "replace", "path": "/a", "value": elements}])
        );
    }

    #[test]
    fn many_changes_stay_separate_while_they_are_shorter_than_the_whole() {
        let long = "x".repeat(200);
        let old: Json = (0..100).map(|n| json!({"text": long, "n": n})).collect();
        let new: Json = (0..100)
            .map(|n| json!({"text": long, "n": n + 1}))
            .collect();
        let ops = diff(&old, &new);
        assert_eq!(ops.len(), 100);
        assert_leads_to(&ops, &old, &new);
    }

    #[test]
    fn few_changes_stay_separate_even_when_longer_than_the_whole() {
        let old: Json = (0..32_u64).map(Json::from).collect();
        let new: Json = (1..33_u64).map(Json::from).collect();
        assert_eq!(diff(&old, &new).len(), 32);
    }

    #[test]
    fn only_the_container_that_changed_all_over_is_sent_whole() {
        let numbers = |from: i64| (from..from + 50).collect::<Vec<_>>();
        let old = json!({"big": [numbers(0), {"k": 1}], "n": 1});
        let new = json!({"big": [numbers(9), {"k": 2}], "n": 1});
        assert_eq!(
            patch(old, new),
            json!([
                {"op": "replace", "path": "/big/0", "value": numbers(9)},
                {"op": "replace", "path": "/big/1/k", "value": 2},
            ])
        );
    }

    #[test]
    fn a_container_sent_whole_leaves_the_changes_beside_it_separate() {
        let rows = |n: i64| {
            let text = "x".repeat(100);
            (0..40).map(|_| json!({"text": text, "n": n})).collect()
        };
        let numbers = |from: i64| (from..from + 1000).collect();
        let state = |numbers: Vec<i64>, rows: Vec<Json>| json!({"numbers": numbers, "rows": rows});
        let (old, new) = (state(numbers(0), rows(1)), state(numbers(1), rows(2)));
        let ops = diff(&old, &new);
        assert_leads_to(&ops, &old, &new);
        assert_eq!(ops.len(), 41);
    }

    #[test]
    fn a_patch_of_large_documents_is_never_much_larger_than_the_document() {
        let name = "n".repeat(1000);
        let wide = |from: i64| json!({ &name: (from..from + 1000).collect::<Vec<_>>() });
        let new = wide(1);
        let patch = encode(&diff(&wide(0), &new));
        assert!(patch.len() < new.to_string().len() + name.len() + 100);
    }

    #[test]
    fn documents_nested_as_deep_as_can_be_parsed_are_compared() {
        let nested = |leaf: &str| {
            let open = "[".repeat(crate::document::MAX_NESTING);
            let close = "]".repeat(crate::document::MAX_NESTING);
            serde_json::from_str::<Json>(&format!("{open}{leaf}{close}")).unwrap()
        };
        let ops = diff(&nested("1"), &nested("2"));
        assert_leads_to(&ops, &nested("1"), &nested("2"));
        assert_eq!(ops[0].path(), "/0".repeat(crate::document::MAX_NESTING));
    }

    #[test]
    fn documents_nested_deeper_are_replaced_below_that() {
        let nested = |leaf: i64| (0..1000).fold(json!(leaf), |below, _| json!([below]));
        let ops = diff(&nested(1), &nested(2));
        assert_leads_to(&ops, &nested(1), &nested(2));
        assert_eq!(ops[0].path(), "/0".repeat(crate::document::MAX_NESTING));
        assert_eq!(diff(&nested(1), &nested(1)), []);
    }

    #[test]
    fn an_add_at_an_index_assigns_like_zockets_client() {
        let mut document = json!({"a": [1, 2]});
        let patch = json!([
            {"op": "add", "path": "/a/0", "value": 0},
            {"op": "add", "path": "/a/2", "value": 3},
            {"op": "add", "path": "/a/-", "value": 4},
            {"op": "remove", "path": "/a/1"},
        ]);
        apply(&mut document, &ops(patch)).unwrap();
        assert_eq!(document, json!({"a": [0, 3, 4]}));
    }

    #[test]
    fn the_path_of_the_empty_name_is_the_root_to_zockets_client() {
        let mut document = json!({"": 1});
        apply(
            &mut document,
            &ops(json!([{"op": "replace", "path": "/", "value": 2}])),
        )
        .unwrap();
        assert_eq!(document, json!(2));
    }

    #[test]
    fn an_operation_on_a_missing_place_is_an_error() {
        for (op, path) in [
            ("add", "/missing/x"),
            ("add", "/n/x"),
            ("add", "/a/2"),
            ("add", "/a/x"),
            ("replace", "/x"),
            ("replace", "/a/1"),
            ("replace", "/a/-"),
            ("remove", "/x"),
            ("remove", "/a/1"),
            ("remove", "/a/00"),
            ("remove", ""),
        ] {
            let mut document = json!({"a": [1], "n": 1});
            let patch = ops(json!([{"op": op, "path": path, "value": 1}]));
            assert_eq!(
                apply(&mut document, &patch),
                Err(PatchError::NoSuchPlace { path: path.into() }),
                "{op} {path}"
            );
            assert_eq!(document, json!({"a": [1], "n": 1}));
        }
        let malformed = ops(json!([{"op": "remove", "path": "n"}]));
        assert!(matches!(
            apply(&mut json!({"n": 1}), &malformed),
            Err(PatchError::Path(_))
        ));
    }

    fn str_ins(path: &str, pos: usize, text: &str) -> PatchOp {
        let (path, text) = (path.to_owned(), text.to_owned());
        PatchOp::StrIns { path, pos, text }
    }

    #[test]
    fn text_is_inserted_at_a_position_in_utf_16_units() {
        for (old, pos, new) in [
            ("", 0, "+"),
            ("abc", 0, "+abc"),
            ("abc", 2, "ab+c"),
            ("abc", 3, "abc+"),
            ("é😀x", 1, "é+😀x"),
            ("é😀x", 3, "é😀+x"),
            ("é😀x", 4, "é😀x+"),
        ] {
            let mut document = json!({"s": [old]});
            apply(&mut document, &[str_ins("/s/0", pos, "+")]).unwrap();
            assert_eq!(document, json!({"s": [new]}), "{old} at {pos}");
        }
        let mut root = json!("a");
        apply(&mut root, &[str_ins("", 1, "b")]).unwrap();
        assert_eq!(root, json!("ab"));
    }

    #[test]
    fn text_at_a_position_that_is_not_there_is_an_error() {
        for (path, pos) in [("/s", 5), ("/s", 2), ("/s", usize::MAX), ("/n", 0), ("", 0)] {
            let mut document = json!({"s": "é😀x", "n": 1});
            let path = path.to_owned();
            assert_eq!(
                apply(&mut document, &[str_ins(&path, pos, "+")]),
                Err(PatchError::NoSuchPosition { path, pos })
            );
            assert_eq!(document, json!({"s": "é😀x", "n": 1}));
        }
        assert_eq!(
            apply(&mut json!({}), &[str_ins("/s", 0, "+")]),
            Err(PatchError::NoSuchPlace { path: "/s".into() })
        );
    }

    #[test]
    fn only_patches_with_text_insertions_have_two_encodings() {
        let document = Json::parse(r#"{"s":"ab","n":1}"#).unwrap();
        let mut patch = diff(&json!({"s": "a"}), &document);
        assert!(!has_str_ins(&patch));
        assert_eq!(encode(&patch), encode_plain(&patch, &document));
        patch[0] = str_ins("/s", 1, "b");
        assert!(has_str_ins(&patch));
        assert_eq!(
            encode_plain(&patch, &document),
            encode(&diff(&json!({"s": "a"}), &document))
        );
        let read: Vec<PatchOp> = serde_json::from_str(&encode(&patch)).unwrap();
        assert_eq!(read, patch);
    }

    #[test]
    fn only_the_operations_of_the_dialect_are_read() {
        for bad in [
            json!({"op": "move", "from": "/a", "path": "/b"}),
            json!({"op": "copy", "from": "/a", "path": "/b"}),
            json!({"op": "test", "path": "/a", "value": 1}),
            json!({"op": "add", "path": "/a"}),
            json!({"op": "remove"}),
            json!({"op": "str_ins", "path": "/a", "str": "x"}),
            json!({"op": "str_ins", "path": "/a", "pos": -1, "str": "x"}),
            json!({"op": "str_del", "path": "/a", "pos": 0, "len": 1}),
        ] {
            assert!(
                serde_json::from_str::<PatchOp>(&bad.to_text()).is_err(),
                "{bad}"
            );
        }
    }

    #[test]
    fn operations_on_hidden_members_are_dropped() {
        let patch = ops(json!([
            {"op": "replace", "path": "/secret", "value": 1},
            {"op": "add", "path": "/secret/x/y", "value": 1},
            {"op": "remove", "path": "/a~1b/0"},
            {"op": "replace", "path": "/secrets", "value": 1},
            {"op": "replace", "path": "/shown/secret", "value": 1},
            {"op": "remove", "path": "/a"},
            {"op": "str_ins", "path": "/secret/text", "pos": 0, "str": "x"},
            {"op": "str_ins", "path": "/text", "pos": 0, "str": "x"},
        ]));
        let hidden = ["secret".to_owned(), "a/b".to_owned()];
        let shown: Vec<_> = without_hidden(patch, &hidden)
            .iter()
            .map(|op| op.path().to_owned())
            .collect();
        assert_eq!(shown, ["/secrets", "/shown/secret", "/a", "/text"]);
    }

    #[test]
    fn hidden_members_are_taken_out_of_whole_documents() {
        let document = json!({"secret": 1, "shown": {"secret": 2}});
        let hidden = ["secret".to_owned()];
        let shown = json!({"shown": {"secret": 2}});
        assert_eq!(*strip_hidden(&document, &hidden), shown);
        let patch = ops(json!([{"op": "replace", "path": "", "value": document}]));
        assert_eq!(
            json!(without_hidden(patch, &hidden)),
            json!([{"op": "replace", "path": "", "value": shown}])
        );
    }

    #[test]
    fn a_document_without_hidden_members_is_not_copied() {
        let hidden = ["secret".to_owned()];
        for document in [json!({"shown": 1}), json!(["secret"])] {
            assert!(matches!(strip_hidden(&document, &hidden), Cow::Borrowed(_)));
        }
    }

    proptest! {
        #[test]
        fn the_patch_between_any_two_documents_leads_from_one_to_the_other(
            old in samples::document(),
            new in samples::document(),
        ) {
            assert_leads_to(&diff(&old, &new), &old, &new);
            prop_assert_eq!(diff(&old, &old), []);
        }

        #[test]
        fn every_patch_keeps_to_the_dialect(
            old in samples::document(),
            new in samples::document(),
        ) {
            samples::assert_dialect(&old, &diff(&old, &new));
        }

        #[test]
        fn hiding_members_commutes_with_patching(
            old in samples::document(),
            new in samples::document(),
            mut hidden in prop::collection::vec(samples::name(), 0..3),
        ) {
            if old.as_array().is_some() || new.as_array().is_some() {
                hidden.retain(|name| array_index(name).is_none());
            }
            let mut shown = strip_hidden(&old, &hidden).into_owned();
            apply(&mut shown, &without_hidden(diff(&old, &new), &hidden)).unwrap();
            prop_assert_eq!(&shown, &*strip_hidden(&new, &hidden));
        }
    }
}

//! Tests of `document`, by behaviour.

use proptest::prelude::*;
use serde_json::Value;

use super::*;
use crate::json::testing::json;
use crate::meter::Allowance;
use crate::patch::{apply, diff, encode, encode_plain, has_str_ins, samples};

fn pointer(text: &str) -> Pointer {
    Pointer::parse(text).unwrap()
}

fn add(at: &str, value: Json) -> Op {
    let pointer = pointer(at);
    Op::Add { pointer, value }
}

fn replace(at: &str, value: Json) -> Op {
    let pointer = pointer(at);
    Op::Replace { pointer, value }
}

fn remove(at: &str) -> Op {
    let pointer = pointer(at);
    Op::Remove { pointer }
}

fn append(at: &str, text: &str) -> Op {
    let (pointer, text) = (pointer(at), text.to_owned());
    Op::Append { pointer, text }
}

/// Applies each list of operations, and returns the value and the patch of the
/// commit, after checking everything that holds of any document.
fn staged<const N: usize>(old: Json, lists: [&[Op]; N]) -> (Json, Json) {
    let mut document = Document::new(old.clone());
    for ops in lists {
        document.apply(ops).unwrap();
        assert_eq!(*document.committed(), old);
    }
    let new = document.value().clone();
    let patch = document.commit();
    assert_leads_to(&patch, &old, &new);
    assert!(!document.is_dirty());
    assert_eq!(*document.committed(), new);
    (new, json!(patch))
}

/// Both encodings lead from one document to the other; returns the plain one, read again.
fn assert_leads_to(patch: &[PatchOp], old: &Json, new: &Json) -> Vec<PatchOp> {
    let extended: Vec<PatchOp> = serde_json::from_str(&encode(patch)).unwrap();
    assert_eq!(extended, patch);
    let plain: Vec<PatchOp> = serde_json::from_str(&encode_plain(patch, new)).unwrap();
    assert!(!has_str_ins(&plain));
    for patch in [&extended, &plain] {
        let mut by_dialect = old.clone();
        apply(&mut by_dialect, patch).unwrap();
        assert_eq!(by_dialect.to_text(), new.to_text());
    }
    let mut by_rfc = old.clone();
    samples::apply_rfc_6902(&mut by_rfc, &plain);
    assert_eq!(by_rfc, *new);
    samples::assert_dialect(old, &plain);
    plain
}

/// The plain patch of a commit has the operations of the one that comparing the documents gives,
/// or, when there are so many changes that containers are weighed, one that does the same.
fn assert_is_the_difference(patch: &[PatchOp], old: &Json, new: &Json) {
    let plain = assert_leads_to(patch, old, new);
    if !has_str_ins(patch) || patch.len() <= 32 && diff(old, new).len() == plain.len() {
        let sorted = |patch: &[PatchOp]| {
            let mut ops: Vec<String> = patch.iter().map(|op| json!(op).to_text()).collect();
            ops.sort_unstable();
            ops
        };
        assert_eq!(sorted(&plain), sorted(&diff(old, new)));
    }
}

#[test]
fn reads_see_what_is_staged() {
    let mut document = Document::new(json!({"n": 1}));
    document
        .apply(&[replace("/n", json!(2)), add("/o", json!({"k": 3}))])
        .unwrap();
    assert_eq!(*document.value(), json!({"n": 2, "o": {"k": 3}}));
    assert_eq!(document.get(&pointer("/o/k")), Some(&json!(3)));
    assert_eq!(document.get(&pointer("/x")), None);
}

#[test]
fn unshift_becomes_replaces_by_index_and_an_add_at_the_tail() {
    let (value, patch) = staged(json!({"a": [1, 2, 3]}), [&[add("/a/0", json!(0))]]);
    assert_eq!(value, json!({"a": [0, 1, 2, 3]}));
    assert_eq!(
        patch,
        json!([
            {"op": "replace", "path": "/a/0", "value": 0},
            {"op": "replace", "path": "/a/1", "value": 1},
            {"op": "replace", "path": "/a/2", "value": 2},
            {"op": "add", "path": "/a/3", "value": 3},
        ])
    );
}

#[test]
fn splice_becomes_replaces_and_removals_from_the_tail_down() {
    let (value, patch) = staged(
        json!({"a": [0, 1, 2, 3]}),
        [&[remove("/a/1"), remove("/a/1")]],
    );
    assert_eq!(value, json!({"a": [0, 3]}));
    assert_eq!(
        patch,
        json!([
            {"op": "replace", "path": "/a/1", "value": 3},
            {"op": "remove", "path": "/a/3"},
            {"op": "remove", "path": "/a/2"},
        ])
    );
}

#[test]
fn truncating_an_array_removes_its_tail() {
    let (_, patch) = staged(json!({"a": [0, 3]}), [&[remove("/a/1")]]);
    assert_eq!(patch, json!([{"op": "remove", "path": "/a/1"}]));
}

#[test]
fn the_end_of_an_array_can_be_named_by_a_dash() {
    let (value, patch) = staged(
        json!({"a": [1]}),
        [&[add("/a/-", json!(2)), add("/a/-", json!(3))]],
    );
    assert_eq!(value, json!({"a": [1, 2, 3]}));
    assert_eq!(
        patch,
        json!([
            {"op": "add", "path": "/a/1", "value": 2},
            {"op": "add", "path": "/a/2", "value": 3},
        ])
    );
}

#[test]
fn names_with_slashes_and_tildes_are_escaped() {
    let (value, patch) = staged(
        json!({"o": {"x/y": {"k": 1}}}),
        [&[add("/o/a~1b~0c", json!(1)), replace("/o/x~1y/k", json!(2))]],
    );
    assert_eq!(value, json!({"o": {"a/b~c": 1, "x/y": {"k": 2}}}));
    assert_eq!(
        patch,
        json!([
            {"op": "replace", "path": "/o/x~1y/k", "value": 2},
            {"op": "add", "path": "/o/a~1b~0c", "value": 1},
        ])
    );
}

#[test]
fn writing_twice_leaves_as_one_operation() {
    let lists: [&[Op]; 2] = [&[replace("/n", json!(1))], &[replace("/n", json!(2))]];
    let (_, patch) = staged(json!({"n": 0}), lists);
    assert_eq!(patch, json!([{"op": "replace", "path": "/n", "value": 2}]));
}

#[test]
fn writing_back_sends_nothing() {
    for lists in [
        [
            &[replace("/o/n", json!(1))] as &[Op],
            &[replace("/o/n", json!(0))],
        ],
        [&[add("/o/x", json!(1))], &[remove("/o/x")]],
        [&[remove("/o/n")], &[add("/o/n", json!(0))]],
        [&[add("/a/0", json!(1))], &[remove("/a/0")]],
        [&[remove("/a/1")], &[add("/a/-", json!("c"))]],
        [&[append("/a/0", "b")], &[replace("/a/0", json!("a"))]],
        [
            &[replace("", json!(1))],
            &[replace("", json!({"o": {"n": 0}, "a": ["a", "c"]}))],
        ],
    ] {
        let (_, patch) = staged(json!({"o": {"n": 0}, "a": ["a", "c"]}), lists);
        assert_eq!(patch, json!([]), "{lists:?}");
    }
}

#[test]
fn writing_what_is_there_stages_nothing() {
    let mut document = Document::new(json!({"n": 0, "s": "x"}));
    let ops = [
        replace("/n", json!(0)),
        add("/n", json!(0)),
        append("/s", ""),
    ];
    document.apply(&ops).unwrap();
    document.apply(&ops[..1]).unwrap();
    document.apply(&[]).unwrap();
    assert!(!document.is_dirty());
    assert_eq!(document.commit(), []);
}

#[test]
fn a_list_may_change_what_the_turn_has_added_before() {
    let lists: [&[Op]; 2] = [
        &[remove("/a/1"), add("/a/-", json!({"k": 1}))],
        &[replace("/a/1/k", json!(2)), replace("/a/0", json!(3))],
    ];
    let (_, patch) = staged(json!({"a": [1, 2]}), lists);
    assert_eq!(
        patch,
        json!([
            {"op": "replace", "path": "/a/0", "value": 3},
            {"op": "replace", "path": "/a/1", "value": {"k": 2}},
        ])
    );
}

#[test]
fn a_deleted_member_is_removed() {
    let (_, patch) = staged(json!({"o": {"x": 1}}), [&[remove("/o/x")]]);
    assert_eq!(patch, json!([{"op": "remove", "path": "/o/x"}]));
}

#[test]
fn changes_in_a_new_member_leave_with_it() {
    let (_, patch) = staged(
        json!({"o": {}}),
        [&[
            add("/o/deep", json!({"l": []})),
            add("/o/deep/l/0", json!({"v": 0})),
            replace("/o/deep/l/0/v", json!(1)),
        ]],
    );
    assert_eq!(
        patch,
        json!([{"op": "add", "path": "/o/deep", "value": {"l": [{"v": 1}]}}])
    );
}

#[test]
fn nested_changes_are_sent_where_they_are() {
    let (_, patch) = staged(
        json!({"o": {"deep": {"l": [{"v": 1}]}}}),
        [&[
            add("/o/deep/l/-", json!({"v": 3})),
            replace("/o/deep/l/0/v", json!(2)),
        ]],
    );
    assert_eq!(
        patch,
        json!([
            {"op": "replace", "path": "/o/deep/l/0/v", "value": 2},
            {"op": "add", "path": "/o/deep/l/1", "value": {"v": 3}},
        ])
    );
}

#[test]
fn the_appends_of_a_turn_are_one_insertion_at_the_end() {
    let lists: [&[Op]; 2] = [
        &[append("/s", "é"), append("/s", "😀")],
        &[append("/s", "!")],
    ];
    let (value, patch) = staged(json!({"s": "abc"}), lists);
    assert_eq!(value, json!({"s": "abcé😀!"}));
    assert_eq!(
        patch,
        json!([{"op": "str_ins", "path": "/s", "pos": 3, "str": "é😀!"}])
    );
}

#[test]
fn an_insertion_is_placed_by_utf_16_units() {
    for (old, pos) in [("", 0), ("é", 1), ("😀", 2), ("a😀é", 4)] {
        let (_, patch) = staged(json!([old]), [&[append("/0", "+")]]);
        assert_eq!(
            patch,
            json!([{"op": "str_ins", "path": "/0", "pos": pos, "str": "+"}])
        );
    }
    let (_, patch) = staged(json!("root"), [&[append("", "+")]]);
    assert_eq!(
        patch,
        json!([{"op": "str_ins", "path": "", "pos": 4, "str": "+"}])
    );
}

#[test]
fn a_string_that_was_also_replaced_is_sent_whole() {
    for lists in [
        [append("/s", "+"), replace("/s", json!("b"))],
        [replace("/s", json!("b")), append("/s", "+")],
        [replace("", json!({"s": "b"})), append("/s", "+")],
    ] {
        let (value, patch) = staged(json!({"s": "a"}), [&lists[..1], &lists[1..]]);
        assert_eq!(
            patch,
            json!([{"op": "replace", "path": "/s", "value": value.get("s").unwrap()}])
        );
    }
    let (_, patch) = staged(json!({}), [&[add("/s", json!("a")), append("/s", "+")]]);
    assert_eq!(patch, json!([{"op": "add", "path": "/s", "value": "a+"}]));
}

#[test]
fn an_append_to_the_member_with_the_empty_name_replaces_the_document() {
    let (_, patch) = staged(json!({"": "a"}), [&[append("/", "+")]]);
    assert_eq!(
        patch,
        json!([{"op": "replace", "path": "", "value": {"": "a+"}}])
    );
}

/// What is known of a long text's length is not mixed up with another text that takes its
/// place.
#[test]
fn the_position_is_right_whatever_has_happened_to_the_string_before() {
    let ascii = || json!("x".repeat(3000));
    let wide = || json!("é".repeat(2000));
    let mut document = Document::new(json!({"a": [ascii(), wide()]}));
    let grow = |document: &mut Document, at: &str, pos: usize| {
        document.apply(&[append(at, "é😀")]).unwrap();
        let expected = json!([{"op": "str_ins", "path": at, "pos": pos, "str": "é😀"}]);
        assert_eq!(json!(document.changes()), expected);
    };
    grow(&mut document, "/a/0", 3000);
    document.rollback();
    grow(&mut document, "/a/0", 3000);
    document.accept();
    grow(&mut document, "/a/0", 3003);
    document.accept();
    // The elements move.
    document.apply(&[remove("/a/0")]).unwrap();
    document.commit();
    grow(&mut document, "/a/0", 2000);
    document.accept();
    document.replace(json!({"a": [ascii()]}));
    document.commit();
    grow(&mut document, "/a/0", 3000);
    document.accept();
    // Nobody has asked what changes.
    document.apply(&[replace("/a", json!([wide()]))]).unwrap();
    document.accept();
    grow(&mut document, "/a/0", 2000);
    document.rollback();
    document.apply(&[replace("/a/0", ascii())]).unwrap();
    document.changes();
    document.rollback();
    grow(&mut document, "/a/0", 2000);
}

#[test]
fn an_array_changed_all_over_is_sent_whole() {
    let old: Vec<_> = (0..100).collect();
    let new: Vec<_> = (-1..100).collect();
    let (_, patch) = staged(json!({"a": old, "n": 1}), [&[add("/a/0", json!(-1))]]);
    assert_eq!(
        patch,
        json!([{"op": "replace", "path": "/a", "value": new}])
    );
}

#[test]
fn a_replaced_document_is_compared() {
    let mut document = Document::new(json!({"a": [1], "n": 1}));
    document
        .apply(&[add("/a/-", json!(2)), replace("/n", json!(2))])
        .unwrap();
    document.replace(json!({"a": [1], "n": 3}));
    document.apply(&[add("/a/-", json!(4))]).unwrap();
    assert_eq!(*document.committed(), json!({"a": [1], "n": 1}));
    assert_eq!(
        json!(document.commit()),
        json!([
            {"op": "add", "path": "/a/1", "value": 4},
            {"op": "replace", "path": "/n", "value": 3},
        ])
    );
}

#[test]
fn committed_content_is_not_copied_while_nothing_is_staged() {
    let mut document = Document::new(json!({"n": 1}));
    assert!(matches!(document.committed(), Cow::Borrowed(_)));
    document.replace(json!({"n": 2}));
    assert!(matches!(document.committed(), Cow::Borrowed(_)));
    document.rollback();
    assert!(matches!(document.committed(), Cow::Borrowed(_)));
}

#[test]
fn changes_can_be_read_before_they_are_accepted_or_rolled_back() {
    let mut document = Document::new(json!({"n": 1}));
    document.apply(&[replace("/n", json!(2))]).unwrap();
    let changes = document.changes();
    assert_eq!(
        json!(changes),
        json!([{"op": "replace", "path": "/n", "value": 2}])
    );
    assert_eq!(*document.committed(), json!({"n": 1}));
    assert_eq!(document.changes(), changes);

    document.accept();
    assert_eq!(*document.committed(), json!({"n": 2}));
    assert_eq!(document.changes(), []);
}

#[test]
fn rollback_returns_to_the_last_commit() {
    let mut document = Document::new(json!({"a": [1, 2, 3], "s": "x"}));
    document.apply(&[append("/s", "y")]).unwrap();
    document.commit();
    document
        .apply(&[
            append("/s", "z"),
            remove("/a/0"),
            add("/b", json!(1)),
            remove("/s"),
        ])
        .unwrap();
    document.rollback();
    assert_eq!(*document.value(), json!({"a": [1, 2, 3], "s": "xy"}));
    assert!(!document.is_dirty());
    assert_eq!(document.commit(), []);
}

#[test]
fn a_failing_list_changes_nothing() {
    let mut document = Document::new(json!({"a": [1, 2], "s": "x", "n": 1}));
    document
        .apply(&[append("/s", "y"), remove("/a/1")])
        .unwrap();
    let before = document.value().clone();
    let failed = document.apply(&[
        append("/s", "z"),
        remove("/s"),
        add("/a/0", json!(0)),
        replace("", json!([])),
        remove("/n"),
    ]);
    assert_eq!(
        failed,
        Err(OpError::NoSuchPlace {
            pointer: "/n".into()
        })
    );
    assert_eq!(*document.value(), before);
    document.rollback();
    assert_eq!(*document.value(), json!({"a": [1, 2], "s": "x", "n": 1}));
}

/// How many slots the objects of a value have, holes and all.
fn slots(value: &Json) -> usize {
    match value {
        Json::Object(members) => members.slot_count() + members.values().map(slots).sum::<usize>(),
        Json::Array(elements) => elements.iter().map(slots).sum(),
        _ => 0,
    }
}

/// Operations that add and remove members of the object here, and of one in it.
fn comings_and_goings(at: &str) -> Vec<Op> {
    let member = |number: usize| format!("{at}/new{number}");
    let added = (0..100).map(|number| add(&member(number), json!({"k": {}})));
    let removed = (0..50).map(|number| remove(&member(number)));
    added.chain(removed).collect()
}

#[test]
fn lists_that_fail_leave_no_holes() {
    let old = json!({"kept": 1, "gone": {"k": 2}, "many": {}, "list": [{}]});
    for dirty in [None, Some(remove("/gone")), Some(add("/other", json!({})))] {
        let mut document = Document::new(old.clone());
        for _ in 0..20 {
            document.apply(dirty.as_slice()).unwrap_or_default();
            let before = slots(document.value());
            for at in ["", "/many", "/list/0"] {
                let mut ops = comings_and_goings(at);
                ops.extend([replace("/many", json!({})), remove("/nowhere")]);
                document.apply(&ops).unwrap_err();
            }
            assert_eq!(slots(document.value()), before);
            document.rollback();
            assert_eq!(document.value().to_text(), old.to_text());
            assert_eq!(slots(document.value()), 5);
        }
        document.apply(dirty.as_slice()).unwrap_or_default();
        document
            .apply(&[add("/x", json!(1)), remove("/y")])
            .unwrap_err();
        document.accept();
        assert!(slots(document.value()) <= 7);
    }
}

#[test]
fn what_is_replaced_after_it_has_changed_comes_back_without_holes() {
    let old = json!({"o": {"k": 1}, "list": [{"k": 1}]});
    let mut document = Document::new(old.clone());
    for _ in 0..20 {
        for at in ["/o", "/list/0"] {
            for op in comings_and_goings(at) {
                document.apply(&[op]).unwrap();
            }
            document.apply(&[replace(at, json!({}))]).unwrap();
        }
        document.rollback();
        assert_eq!(*document.value(), old);
        assert_eq!(slots(document.value()), slots(&old));
    }
}

#[test]
fn holes_that_the_past_does_not_lead_to_are_closed_in_time() {
    let mut document = Document::new(json!({"list": [{"k": 1}]}));
    for _ in 0..200 {
        for _ in 0..10 {
            // The element moves after it has changed; a new member changes in a list of its own.
            document
                .apply(&[add("/list/0/x", json!(1)), remove("/list/0/x")])
                .unwrap();
            document
                .apply(&[add("/list/0", json!(null)), remove("/list/0")])
                .unwrap();
            document.apply(&[add("/new", json!({}))]).unwrap();
            document
                .apply(&[add("/new/x", json!(1)), remove("/new/x")])
                .unwrap();
        }
        document.commit();
        document.apply(&[remove("/new")]).unwrap();
    }
    assert!(slots(document.value()) < 50, "{}", slots(document.value()));
}

#[test]
fn a_text_and_an_array_that_shrink_back_keep_no_room() {
    let mut document = Document::new(json!({"text": "", "list": []}));
    let ops = [
        append("/text", &"x".repeat(100_000)),
        add("/list", json!([])),
        remove("/nowhere"),
    ];
    document.apply(&ops).unwrap_err();
    for number in 0..1000_u64 {
        document.apply(&[add("/list/-", json!(number))]).unwrap();
    }
    document.rollback();
    let Some(Json::String(text)) = document.get(&pointer("/text")) else {
        panic!("expected a text");
    };
    let Some(Json::Array(list)) = document.get(&pointer("/list")) else {
        panic!("expected a list");
    };
    assert!(text.capacity() < 100 && list.capacity() < 100);
}

#[test]
fn a_failing_operation_leaves_the_document_clean() {
    let mut document = Document::new(json!({"o": {"k": 1}, "a": [1]}));
    for op in [
        add("/o/x/y", json!(1)),
        add("/o/k/y", json!(1)),
        add("/a/2", json!(1)),
        add("/a/01", json!(1)),
        add("/a/x", json!(1)),
        replace("/o/x", json!(1)),
        replace("/a/-", json!(1)),
        replace("/a/1", json!(1)),
        remove("/o/x"),
        remove("/a/1"),
        remove("/a/-"),
        append("/o/x", "t"),
    ] {
        let at = op.pointer().to_string();
        let failed = document.apply(&[op]);
        assert_eq!(failed, Err(OpError::NoSuchPlace { pointer: at }));
        assert!(!document.is_dirty());
    }
}

#[test]
fn text_is_appended_to_strings_only() {
    let mut document = Document::new(json!({"n": 1}));
    assert_eq!(
        document.apply(&[append("/n", "1")]),
        Err(OpError::NotAString {
            pointer: "/n".into()
        })
    );
}

#[test]
fn the_document_cannot_be_removed() {
    let mut document = Document::new(json!({}));
    let failed = document.apply(&[remove("")]);
    assert_eq!(failed, Err(OpError::RemovesDocument { pointer: "".into() }));
}

#[test]
fn a_staged_document_nests_only_so_deep_that_it_can_be_read_again() {
    let mut document = Document::new(json!([]));
    let mut deepest = pointer("");
    for _ in 1..MAX_NESTING {
        deepest.push("0");
        let (pointer, value) = (deepest.clone(), json!([]));
        document.apply(&[Op::Add { pointer, value }]).unwrap();
    }
    let text = document.value().to_string();
    assert_eq!(Json::parse(&text).unwrap(), *document.value());

    deepest.push("0");
    let too_deep = OpError::TooDeep {
        pointer: deepest.to_string(),
    };
    let (pointer, value) = (deepest.clone(), json!({}));
    assert_eq!(document.apply(&[Op::Add { pointer, value }]), Err(too_deep));
    let (pointer, value) = (deepest, json!(1));
    document.apply(&[Op::Add { pointer, value }]).unwrap();
    assert!(Json::parse(&document.value().to_string()).is_ok());

    let one_more = format!("[{text}]");
    assert!(Json::parse(&one_more).is_err());
}

/// Copying the string at each append would move a terabyte.
#[test]
fn appending_costs_what_is_appended() {
    let mut document = Document::new(json!({"s": "x".repeat(10_000_000)}));
    let op = [append("/s", "y")];
    for _ in 0..100_000 {
        document.apply(&op).unwrap();
    }
    document.rollback();
    assert_eq!(
        document
            .value()
            .pointer("/s")
            .and_then(Json::as_str)
            .map(str::len),
        Some(10_000_000)
    );
}

/// Reading the string in each turn would visit two terabytes.
#[test]
fn a_turn_that_appends_costs_what_it_appends() {
    let mut document = Document::new(json!({"s": "é".repeat(10_000_000)}));
    let op = [append("/s", "é")];
    for turn in 0..100_000 {
        document.apply(&op).unwrap();
        let patch = document.changes();
        let pos = 10_000_000 + turn / 2;
        let expected = PatchOp::StrIns {
            path: "/s".into(),
            pos,
            text: "é".into(),
        };
        assert_eq!(patch, [expected]);
        if turn % 2 == 0 {
            document.rollback();
        } else {
            document.accept();
        }
    }
}

/// A cost that grew with the document would visit ten thousand million values.
#[test]
fn a_turn_costs_what_it_changes() {
    let rows: Vec<_> = (0..200_000).map(|n| json!({"id": n})).collect();
    let mut document = Document::new(json!({ "rows": rows }));
    for round in 0..25_000 {
        document
            .apply(&[
                replace(&format!("/rows/{round}/id"), json!("x")),
                add("/rows/-", json!(round)),
                remove(&format!("/rows/{}", 200_000)),
            ])
            .unwrap();
        if round % 2 == 0 {
            assert_eq!(document.commit().len(), 1);
        } else {
            document.rollback();
        }
    }
    assert_eq!(
        document
            .value()
            .pointer("/rows")
            .and_then(Json::as_array)
            .map(<[Json]>::len),
        Some(200_000)
    );
}

#[test]
fn work_beyond_the_meter_leaves_the_document_as_it_was() {
    let elements: Json = (0..10_000_u64).map(Json::from).collect();
    let mut document = Document::new(elements);
    document.apply(&[replace("/7", json!("x"))]).unwrap();
    let (value, size) = (document.value().to_text(), document.size());
    let ops = vec![add("/0", json!(0)); 100];
    let error = document
        .apply_metered(&ops, &mut Allowance::new(200_000))
        .unwrap_err();
    assert_eq!(
        error,
        OpError::Exhausted {
            pointer: "/0".to_owned()
        }
    );
    assert_eq!((document.value().to_text(), document.size()), (value, size));
    let mut allowance = Allowance::new(500_000);
    document.apply_metered(&ops, &mut allowance).unwrap();
    assert!(allowance.left() < 150_000, "{}", allowance.left());
    // The comparison of what has moved is charged as well, and may be given up.
    assert_eq!(
        document.changes_metered(&mut Allowance::new(1_000)),
        Err(Exhausted)
    );
    assert_eq!(document.changes().len(), 1, "the array is sent whole");
}

#[test]
fn appending_costs_what_is_appended_whatever_is_there() {
    let elements: Json = (0..100_000_u64).map(Json::from).collect();
    let mut document = Document::new(json!({"a": elements, "s": "x".repeat(1 << 20)}));
    let mut allowance = Allowance::new(100);
    let ops = [add("/a/-", json!(1)), append("/s", "y")];
    document.apply_metered(&ops, &mut allowance).unwrap();
    document.changes_metered(&mut allowance).unwrap();
}

#[test]
fn a_member_that_is_replaced_keeps_its_place_and_a_new_one_comes_last() {
    let mut document = Document::new(Json::parse(r#"{"zz":1,"mm":2,"aa":3}"#).unwrap());
    document
        .apply(&[
            add("/mm", json!(4)),
            add("/b", json!(5)),
            add("/a", json!(6)),
        ])
        .unwrap();
    assert_eq!(
        encode(&document.commit()),
        r#"[{"op":"replace","path":"/mm","value":4},{"op":"add","path":"/b","value":5},{"op":"add","path":"/a","value":6}]"#
    );
    assert_eq!(document.to_text(), r#"{"zz":1,"mm":4,"aa":3,"b":5,"a":6}"#);
}

#[test]
fn a_member_that_goes_and_comes_keeps_its_place_within_a_turn_and_not_after_it() {
    let mut document = Document::new(Json::parse(r#"{"a":1,"b":2,"c":3}"#).unwrap());
    document.apply(&[remove("/a")]).unwrap();
    document
        .apply(&[add("/d", json!(4)), add("/a", json!(5))])
        .unwrap();
    assert_eq!(
        encode(&document.commit()),
        r#"[{"op":"replace","path":"/a","value":5},{"op":"add","path":"/d","value":4}]"#
    );
    assert_eq!(document.to_text(), r#"{"a":5,"b":2,"c":3,"d":4}"#);
    document.apply(&[remove("/a")]).unwrap();
    document.commit();
    document.apply(&[add("/a", json!(6))]).unwrap();
    document.commit();
    assert_eq!(document.to_text(), r#"{"b":2,"c":3,"d":4,"a":6}"#);
}

#[test]
fn a_turn_that_is_undone_restores_the_order() {
    for count in [5, 50] {
        let members = (0..count).map(|n| (format!("m{n}").into(), Json::from(n as u64)));
        let value = Json::Object(members.collect());
        let text = value.to_text();
        let mut document = Document::new(value);
        document
            .apply(&[remove("/m0"), remove("/m3"), add("/x", json!(1))])
            .unwrap();
        document
            .apply(&[add("/m3", json!(0)), remove("/m1")])
            .unwrap();
        assert!(
            document
                .apply(&[remove("/m2"), remove("/nowhere")])
                .is_err()
        );
        assert_eq!(document.committed().to_text(), text);
        document.rollback();
        assert_eq!(document.to_text(), text);
    }
}

#[test]
fn a_whole_new_content_takes_the_order_of_the_old() {
    let parse = |text: &str| Json::parse(text).unwrap();
    let mut document = Document::new(parse(r#"{"b":{"y":1,"x":2},"a":[{"q":1,"p":2}]}"#));
    document.replace(parse(r#"{"a":[{"p":2,"q":3}],"n":0,"b":{"x":2,"y":1}}"#));
    assert_eq!(
        encode(&document.commit()),
        r#"[{"op":"replace","path":"/a/0/q","value":3},{"op":"add","path":"/n","value":0}]"#
    );
    assert_eq!(
        document.to_text(),
        r#"{"b":{"y":1,"x":2},"a":[{"q":3,"p":2}],"n":0}"#
    );
    document.replace(parse(r#"{"n":0,"a":[{"p":2,"q":3}],"b":{"x":2,"y":1}}"#));
    assert_eq!(document.commit(), []);
}

/// A client with a document of its own, which keeps members in the order in which they came. It
/// shares no code with documents.
#[derive(Clone, Debug)]
enum Client {
    Scalar(String),
    Text(String),
    Array(Vec<Client>),
    Object(Vec<(String, Client)>),
}

impl Client {
    fn new(value: &Json) -> Client {
        match value {
            Json::String(text) => Client::Text(text.to_string()),
            Json::Array(elements) => Client::Array(elements.iter().map(Client::new).collect()),
            Json::Object(members) => {
                let member =
                    |(name, value): (&_, _)| (ToString::to_string(name), Client::new(value));
                Client::Object(members.iter().map(member).collect())
            }
            scalar => Client::Scalar(scalar.to_text()),
        }
    }

    fn place(&mut self, tokens: &[String]) -> &mut Client {
        tokens.iter().fold(self, |place, token| match place {
            Client::Array(elements) => &mut elements[token.parse::<usize>().unwrap()],
            Client::Object(members) => {
                &mut members
                    .iter_mut()
                    .find(|(name, _)| name == token)
                    .unwrap()
                    .1
            }
            _ => panic!("there is nothing at {token}"),
        })
    }

    fn apply(&mut self, patch: &[PatchOp]) {
        for op in patch {
            let path = pointer(op.path());
            let Some((last, parents)) = path.tokens().split_last() else {
                match op {
                    PatchOp::Add { value, .. } | PatchOp::Replace { value, .. } => {
                        *self = Client::new(value);
                    }
                    PatchOp::StrIns { text, .. } => self.append(text),
                    PatchOp::Remove { .. } => panic!("the document was removed"),
                }
                continue;
            };
            match (op, self.place(parents)) {
                (PatchOp::Add { value, .. }, Client::Object(members)) => {
                    members.push((last.clone(), Client::new(value)));
                }
                (PatchOp::Add { value, .. }, Client::Array(elements)) => {
                    elements.push(Client::new(value));
                }
                (PatchOp::Remove { .. }, Client::Object(members)) => {
                    members.retain(|(name, _)| name != last);
                }
                (PatchOp::Remove { .. }, Client::Array(elements)) => drop(elements.pop()),
                (PatchOp::Replace { value, .. }, parent) => {
                    *parent.place(std::slice::from_ref(last)) = Client::new(value);
                }
                (PatchOp::StrIns { text, .. }, parent) => {
                    parent.place(std::slice::from_ref(last)).append(text);
                }
                _ => panic!("{op:?}"),
            }
        }
    }

    fn append(&mut self, more: &str) {
        match self {
            Client::Text(text) => text.push_str(more),
            _ => panic!("text is inserted into {self:?}"),
        }
    }

    fn to_text(&self) -> String {
        let quoted = |text: &str| Json::from(text).to_text();
        match self {
            Client::Scalar(text) => text.clone(),
            Client::Text(text) => quoted(text),
            Client::Array(elements) => {
                let elements: Vec<String> = elements.iter().map(Client::to_text).collect();
                format!("[{}]", elements.join(","))
            }
            Client::Object(members) => {
                let member = |(name, value): &(String, Client)| {
                    format!("{}:{}", quoted(name), value.to_text())
                };
                let members: Vec<String> = members.iter().map(member).collect();
                format!("{{{}}}", members.join(","))
            }
        }
    }
}

/// One step of a random turn.
#[derive(Clone, Debug)]
enum Step {
    Apply(Vec<Draft>),
    Replace(Json),
    Commit,
    Rollback,
}

/// A random operation, whose place is chosen when the document is known.
#[derive(Clone, Debug)]
struct Draft {
    kind: u8,
    walk: Vec<usize>,
    last: Last,
    value: Json,
}

/// What becomes of the pointer that a walk down the document has found.
#[derive(Clone, Debug)]
enum Last {
    Stay,
    Other(String),
    Below(String),
}

fn draft() -> impl Strategy<Value = Draft> {
    let token = || {
        prop_oneof![
            samples::name(),
            prop::sample::select(vec!["2", "5", "01", "+1"]).prop_map(str::to_owned),
        ]
    };
    let last = prop_oneof![
        5 => Just(Last::Stay),
        2 => token().prop_map(Last::Other),
        2 => token().prop_map(Last::Below),
    ];
    let walk = prop::collection::vec(any::<usize>(), 0..4);
    (0..4u8, walk, last, samples::document()).prop_map(|(kind, walk, last, value)| Draft {
        kind,
        walk,
        last,
        value,
    })
}

fn step() -> impl Strategy<Value = Step> {
    prop_oneof![
        12 => prop::collection::vec(draft(), 0..4).prop_map(Step::Apply),
        1 => samples::document().prop_map(Step::Replace),
        1 => Just(Step::Commit),
        1 => Just(Step::Rollback),
    ]
}

impl Draft {
    fn op(&self, document: &Json) -> Op {
        let mut tokens = Vec::new();
        let mut here = document;
        for choice in &self.walk {
            let (token, below) = match here {
                Json::Object(members) if !members.is_empty() => {
                    let (name, below) = members.iter().nth(choice % members.len()).unwrap();
                    (name.to_string(), below)
                }
                Json::Array(elements) if !elements.is_empty() => {
                    let index = choice % elements.len();
                    (index.to_string(), &elements[index])
                }
                _ => break,
            };
            tokens.push(token);
            here = below;
        }
        match &self.last {
            Last::Stay => {}
            Last::Other(token) => {
                tokens.pop();
                tokens.push(token.clone());
            }
            Last::Below(token) => tokens.push(token.clone()),
        }
        let mut pointer = Pointer::root();
        tokens.into_iter().for_each(|token| pointer.push(token));
        let value = self.value.clone();
        match self.kind {
            _ if here.is_string() && matches!(self.last, Last::Stay) => Op::Append {
                pointer,
                text: value.to_text(),
            },
            0 => Op::Add { pointer, value },
            1 => Op::Replace { pointer, value },
            2 => Op::Remove { pointer },
            _ => Op::Append {
                pointer,
                text: "t".into(),
            },
        }
    }
}

/// What an operation does, by another implementation: the `json-patch` crate.
fn expect(document: &mut Json, op: &Op) -> Result<(), ()> {
    use serde_json::json;
    let mut value: Value = serde_json::from_str(&document.to_text()).unwrap();
    let path = op.pointer().to_string();
    let op = match op {
        Op::Add { value, .. } => json!({"op": "add", "path": path, "value": value}),
        Op::Replace { value, .. } => json!({"op": "replace", "path": path, "value": value}),
        Op::Remove { .. } => json!({"op": "remove", "path": path}),
        Op::Append { text, .. } => match value.pointer_mut(&path) {
            Some(Value::String(string)) => {
                string.push_str(text);
                *document = value.into();
                return Ok(());
            }
            _ => return Err(()),
        },
    };
    let patch: json_patch::Patch = serde_json::from_value(json!([op])).unwrap();
    let done = json_patch::patch(&mut value, &patch).map_err(|_| ());
    *document = value.into();
    done
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(1000))]

    #[test]
    fn any_sequence_of_turns_keeps_every_promise(
        initial in samples::document(),
        steps in prop::collection::vec(step(), 1..12),
    ) {
        let mut document = Document::new(initial.clone());
        let mut client = Client::new(&initial);
        let mut committed = initial.clone();
        let mut staged = initial;
        for step in steps {
            match step {
                Step::Apply(drafts) => {
                    let mut expected = staged.clone();
                    let mut ops = Vec::new();
                    let mut result = Ok(());
                    for draft in drafts {
                        let op = draft.op(&expected);
                        result = result.and(expect(&mut expected, &op));
                        ops.push(op);
                    }
                    prop_assert_eq!(document.apply(&ops).map_err(|_| ()), result, "{:?}", ops);
                    if result.is_ok() {
                        staged = expected;
                    }
                }
                Step::Replace(value) => {
                    document.replace(value.clone());
                    staged = value;
                }
                Step::Commit => {
                    let patch = document.commit();
                    let value = document.value().clone();
                    assert_is_the_difference(&patch, &committed, &value);
                    prop_assert!(!document.is_dirty());
                    client.apply(&patch);
                    committed = value;
                }
                Step::Rollback => {
                    document.rollback();
                    prop_assert!(!document.is_dirty());
                    staged = committed.clone();
                }
            }
            prop_assert_eq!(document.value(), &staged);
            prop_assert_eq!(document.committed().to_text(), committed.to_text());
            // Who was told of each commit has what a newcomer is shown.
            prop_assert_eq!(client.to_text(), committed.to_text());
            prop_assert_eq!(document.size(), document.value().size());
            prop_assert_eq!(document.size().text, document.to_text().len());
            prop_assert!(document.is_dirty() || staged == committed);
        }
        let patch = document.commit();
        assert_is_the_difference(&patch, &committed, document.value());
    }
}

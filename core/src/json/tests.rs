//! Tests of `json`, by behaviour.

use std::cmp::Ordering;

use proptest::prelude::*;
use serde_json::Value;

use super::*;
use crate::patch::samples;

fn parse(text: &str) -> Json {
    Json::parse(text).unwrap()
}

#[test]
fn members_keep_the_order_of_the_text() {
    for text in [
        r#"{"zz":1,"mm":{"b":1,"a":2},"aa":[{"y":0,"x":0}]}"#,
        r#"{"":0,"10":1,"9":2}"#,
        "{}",
    ] {
        assert_eq!(parse(text).to_text(), text);
    }
    let many: Vec<String> = (0..100)
        .map(|n| format!(r#""{}":{n}"#, (n * 37) % 100))
        .collect();
    let text = format!("{{{}}}", many.join(","));
    assert_eq!(parse(&text).to_text(), text);
    assert_eq!(parse(&text).get("37"), Some(&Json::from(1_u64)));
}

#[test]
fn of_two_members_with_one_name_the_first_gives_the_place_and_the_last_the_value() {
    assert_eq!(
        parse(r#"{"a":1,"b":2,"a":3}"#).to_text(),
        r#"{"a":3,"b":2}"#
    );
    let error = Json::parse_unambiguous(r#"[{"a":1,"b":2,"a":3}]"#).unwrap_err();
    assert!(
        error.to_string().contains("the member \"a\" twice"),
        "{error}"
    );
    assert!(Json::parse_unambiguous(r#"[{"a":1},{"a":2}]"#).is_ok());
    assert!(Json::parse_unambiguous("[] 1").is_err());
}

#[test]
fn a_text_without_ambiguity_is_read_within_a_bound() {
    let text = r#"{"list":[1,2,3]}"#;
    let size = parse(text).size().memory;
    let read = |text: &str, bytes: usize| Json::parse_unambiguous_within(text, bytes);
    assert_eq!(read(text, size).unwrap(), parse(text));
    assert!(matches!(
        read(text, size - 1),
        Err(ParseError::TooLarge { bytes }) if bytes == size - 1
    ));
    assert!(matches!(
        read(r#"{"a":1,"a":2}"#, 1000),
        Err(ParseError::Malformed(_))
    ));
}

#[test]
fn numbers_are_written_as_they_were_read() {
    for text in [
        "0",
        "-1",
        "18446744073709551615",
        "-9223372036854775808",
        "1.0",
        "-0.0",
        "0.1",
    ] {
        assert_eq!(parse(text).to_text(), text);
    }
    assert_eq!(parse("1e2").to_text(), "100.0");
    assert_eq!(parse(&parse("1e300").to_text()), parse("1e300"));
    assert_ne!(parse("1"), parse("1.0"));
}

#[test]
fn a_number_without_a_fraction_is_spelled_as_an_integer_if_64_bits_hold_it() {
    for (text, integer) in [
        ("1.0", "1"),
        ("1e2", "100"),
        ("-0", "0"),
        ("-0.0", "0"),
        ("-3.0", "-3"),
        ("9007199254740994.0", "9007199254740994"),
        ("1e19", "10000000000000000000"),
        ("18446744073709549568.0", "18446744073709549568"),
        ("-9223372036854775808.0", "-9223372036854775808"),
    ] {
        let mut value = parse(text);
        value.spell_integers(&[Pointer::root()]);
        assert_eq!(value.to_text(), integer, "{text}");
    }
    for text in ["1.5", "1e20", "18446744073709551616.0", "-1e19", "1"] {
        let Json::Number(number) = parse(text) else {
            panic!("{text} is a number");
        };
        assert!(number.to_integer().is_none(), "{text}");
    }
}

#[test]
fn integers_and_fractions_compare_exactly() {
    let number = |text: &str| match parse(text) {
        Json::Number(number) => number,
        other => panic!("{other} is no number"),
    };
    for (less, more) in [
        ("1", "1.5"),
        ("-1.5", "-1"),
        ("9007199254740992.0", "9007199254740993"),
        ("18446744073709551615", "18446744073709551616.0"),
        ("-1e300", "-9223372036854775808"),
        ("0.5", "1"),
        ("-0.5", "0"),
    ] {
        assert_eq!(number(less).compare(number(more)), Ordering::Less, "{less}");
        assert_eq!(number(more).compare(number(less)), Ordering::Greater);
    }
    assert!(number("1").is_equal(number("1.0")));
    assert!(number("0").is_equal(number("-0.0")));
}

#[test]
fn zero_is_as_great_as_minus_zero() {
    let zeros = [Number::Float(0.0), Number::Float(-0.0), Number::Natural(0)];
    for one in zeros {
        for other in zeros {
            assert_eq!(one.compare(other), Ordering::Equal);
            assert!(one.is_equal(other));
        }
    }
}

#[test]
fn a_member_that_was_there_keeps_its_place_and_one_that_comes_again_is_last() {
    for count in [3, 40] {
        let mut object: Object = (0..count)
            .map(|n| (format!("m{n}").into(), Json::from(n as u64)))
            .collect();
        object.insert("m1".into(), Json::Null);
        assert_eq!(object.names().nth(1).unwrap(), "m1");
        object.remove("m1");
        object.insert("m1".into(), Json::Null);
        assert_eq!(object.names().last().unwrap(), "m1");
        assert_eq!(object.len(), count);
    }
}

#[test]
fn objects_that_lose_and_gain_members_for_ever_stay_small() {
    let mut object: Object = (0..100)
        .map(|n| (format!("m{n}").into(), Json::from(n as u64)))
        .collect();
    for n in 100..10_000_u64 {
        object.remove(&format!("m{}", n - 100)).unwrap();
        object.insert(format!("m{n}").into(), Json::from(n));
    }
    assert_eq!(object.len(), 100);
    assert!(object.entries().last().unwrap().0 < 400);
    assert_eq!(object.names().next().unwrap(), "m9900");
}

#[test]
fn a_copy_is_not_changed_with_what_it_was_made_of() {
    let mut value = parse(r#"{"a":[{"b":1}]}"#);
    let copy = value.clone();
    assert!(value.is_same_as(&copy));
    *value.child_mut("a").unwrap().child_mut("0").unwrap() = Json::Null;
    assert_eq!(copy.to_text(), r#"{"a":[{"b":1}]}"#);
    assert_eq!(value.to_text(), r#"{"a":[null]}"#);
}

#[test]
fn the_size_of_the_smallest_objects_is_what_the_documentation_says() {
    let size = parse(r#"[{"":0},{"":0}]"#).size();
    assert_eq!(size.text, 15);
    // The root, its allocation, and each object with its allocation and one member.
    assert_eq!(size.memory, 24 + 16 + 2 * (24 + 16 + 16 + 24));
}

/// What operations on objects must do, with a vector.
#[derive(Clone, Debug)]
enum Change {
    Insert(u8, i64),
    Remove(u8),
    TakeAndPutBack(u8, i64),
}

fn change() -> impl Strategy<Value = Change> {
    prop_oneof![
        (0..40_u8, 0..3_i64).prop_map(|(name, value)| Change::Insert(name, value)),
        (0..40_u8).prop_map(Change::Remove),
        (0..40_u8, 0..3_i64).prop_map(|(name, value)| Change::TakeAndPutBack(name, value)),
    ]
}

proptest! {
    #[test]
    fn an_object_does_what_a_list_of_members_does(
        changes in prop::collection::vec(change(), 0..120),
    ) {
        let mut object = Object::new();
        let mut list: Vec<(String, Json)> = Vec::new();
        for change in changes {
            match change {
                Change::Insert(name, value) => {
                    let (name, value) = (name.to_string(), Json::from(value));
                    object.insert(name.as_str().into(), value.clone());
                    match list.iter_mut().find(|(other, _)| *other == name) {
                        Some((_, place)) => *place = value,
                        None => list.push((name, value)),
                    }
                }
                Change::Remove(name) => {
                    let name = name.to_string();
                    let removed = object.remove(&name);
                    let at = list.iter().position(|(other, _)| *other == name);
                    prop_assert_eq!(removed, at.map(|at| list.remove(at).1));
                }
                Change::TakeAndPutBack(name, value) => {
                    let (name, value) = (name.to_string(), Json::from(value));
                    if let Some((slot, _)) = object.take(&name) {
                        object.put_back(slot, name.as_str().into(), value.clone());
                    }
                    if let Some((_, place)) = list.iter_mut().find(|(other, _)| *other == name) {
                        *place = value;
                    }
                }
            }
            let members: Vec<(String, Json)> = object
                .iter()
                .map(|(name, value)| (name.to_string(), value.clone()))
                .collect();
            prop_assert_eq!(&members, &list);
            prop_assert_eq!(object.len(), list.len());
            for name in 0..40_u8 {
                let found = list.iter().find(|(other, _)| *other == name.to_string());
                prop_assert_eq!(object.get(&name.to_string()), found.map(|(_, value)| value));
            }
        }
    }

    #[test]
    fn a_value_is_what_its_text_says(value in samples::document()) {
        let text = value.to_text();
        let read = Json::parse(&text).unwrap();
        prop_assert_eq!(read.to_text(), text.as_str());
        prop_assert_eq!(&read, &value);
        prop_assert_eq!(read.to_string(), text.as_str());
        prop_assert_eq!(read.size().text, text.len());
        prop_assert_eq!(read.size(), value.size());
        // Another reader of JSON sees the same.
        let other: Value = serde_json::from_str(&text).unwrap();
        prop_assert_eq!(Json::from(&other), value);
    }
}

//! One spelling for all JSON texts that are equal, so that equal inputs have equal digests.
//!
//! Equal is what JSON Schema 2020-12 calls so (section 4.2.2): objects whatever the order of
//! their members, strings whatever their escapes, numbers by their mathematical value as a
//! reader of doubles has it: `1`, `1.0` and `1e0` are one number.

use std::borrow::Cow;
use std::fmt;
use std::ops::Range;

use serde::Deserializer;
use serde::de::{DeserializeSeed, Error as _, MapAccess, SeqAccess, Visitor};

use crate::failure::json;

/// The spelling that a JSON text shares with all that are equal to it.
///
/// A text that is no JSON, or in which an object has a member twice, equals itself alone.
///
/// ```
/// use tidegate_core::canonical::spelling;
/// assert_eq!(spelling(r#"{ "b": 1.0, "a": "\u0041" }"#), r#"{"a":"A","b":1}"#);
/// assert_eq!(spelling("-0"), spelling("0.0"));
/// assert_ne!(spelling("[1,2]"), spelling("[2,1]"));
/// ```
pub fn spelling(text: &str) -> Cow<'_, str> {
    let mut spelled = String::with_capacity(text.len());
    let mut deserializer = serde_json::Deserializer::from_str(text);
    let read = Spell(&mut spelled).deserialize(&mut deserializer);
    match read.and_then(|()| deserializer.end()) {
        Ok(()) => Cow::Owned(spelled),
        Err(_) => Cow::Borrowed(text),
    }
}

/// Writes one value behind what is there.
struct Spell<'o>(&'o mut String);

impl<'de> DeserializeSeed<'de> for Spell<'_> {
    type Value = ();

    fn deserialize<D: Deserializer<'de>>(self, deserializer: D) -> Result<(), D::Error> {
        deserializer.deserialize_any(self)
    }
}

impl<'de> Visitor<'de> for Spell<'_> {
    type Value = ();

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a JSON value")
    }

    fn visit_unit<E>(self) -> Result<(), E> {
        self.0.push_str("null");
        Ok(())
    }

    fn visit_bool<E>(self, value: bool) -> Result<(), E> {
        self.0.push_str(if value { "true" } else { "false" });
        Ok(())
    }

    fn visit_u64<E>(self, value: u64) -> Result<(), E> {
        self.0.push_str(&value.to_string());
        Ok(())
    }

    fn visit_i64<E>(self, value: i64) -> Result<(), E> {
        self.0.push_str(&value.to_string());
        Ok(())
    }

    fn visit_f64<E>(self, value: f64) -> Result<(), E> {
        // What fits an integer type may have been written as one.
        let is_integer = value.fract() == 0.0 && (-TWO_TO_63..TWO_TO_64).contains(&value);
        match is_integer {
            true => self.0.push_str(&(value as i128).to_string()),
            false => self.0.push_str(&json(&value)),
        }
        Ok(())
    }

    fn visit_str<E>(self, value: &str) -> Result<(), E> {
        self.0.push_str(&json(&value));
        Ok(())
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut seq: A) -> Result<(), A::Error> {
        self.0.push('[');
        let start = self.0.len();
        loop {
            let before = self.0.len();
            if before > start {
                self.0.push(',');
            }
            if seq.next_element_seed(Spell(self.0))?.is_none() {
                self.0.truncate(before);
                break;
            }
        }
        self.0.push(']');
        Ok(())
    }

    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<(), A::Error> {
        let start = self.0.len();
        let mut members: Vec<(String, Range<usize>)> = Vec::new();
        let mut are_in_order = true;
        while let Some(name) = map.next_key::<String>()? {
            let begin = self.0.len();
            self.0.push(if members.is_empty() { '{' } else { ',' });
            self.0.push_str(&json(&name));
            self.0.push(':');
            map.next_value_seed(Spell(self.0))?;
            if let Some((last, _)) = members.last() {
                are_in_order &= *last < name;
            }
            members.push((name, begin..self.0.len()));
        }
        if members.is_empty() {
            self.0.push('{');
        }
        if !are_in_order {
            members.sort_by(|(one, _), (other, _)| one.cmp(other));
            if members.windows(2).any(|pair| pair[0].0 == pair[1].0) {
                return Err(A::Error::custom("a member twice"));
            }
            let mut sorted = String::with_capacity(self.0.len() - start);
            for (place, (_, range)) in members.into_iter().enumerate() {
                sorted.push(if place == 0 { '{' } else { ',' });
                // Without what separated it from its neighbour.
                sorted.push_str(&self.0[range.start + 1..range.end]);
            }
            self.0.truncate(start);
            self.0.push_str(&sorted);
        }
        self.0.push('}');
        Ok(())
    }
}

const TWO_TO_63: f64 = 9_223_372_036_854_775_808.0;
const TWO_TO_64: f64 = 18_446_744_073_709_551_616.0;

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use serde_json::Value;

    use super::*;

    #[test]
    fn equal_values_have_one_spelling() {
        for (one, other) in [
            ("1", "1.0"),
            ("100", "1e2"),
            ("0", "-0"),
            ("0", "-0.0"),
            ("-5", "-5.000"),
            ("1e400", "1e400"),
            ("18446744073709551615", "18446744073709551615"),
            (r#""é/""#, r#""\u00e9\/""#),
            (
                r#"{"a":1,"b":[{"c":2,"d":3}]}"#,
                " {\"b\":[{\"d\":3.0,\"c\":2}] ,\n\"a\":1}",
            ),
            (r#"{"a":{},"b":[]}"#, r#"{ "b":[ ], "a":{ } }"#),
            (r#"{"":1,"z":0}"#, r#"{"z":0,"":1}"#),
        ] {
            assert_eq!(spelling(one), spelling(other), "{one} {other}");
        }
    }

    #[test]
    fn different_values_have_different_spellings() {
        for (one, other) in [
            ("1", "1.5"),
            ("1", "\"1\""),
            ("null", "{}"),
            ("[]", "{}"),
            ("[[],1]", "[1,[]]"),
            ("9007199254740993", "9007199254740992"),
            (r#"{"a":1,"a":1}"#, r#"{"a":1}"#),
            (r#"{"a":1,"b":2}"#, r#"{"a":2,"b":1}"#),
            (r#"["a,b"]"#, r#"["a","b"]"#),
        ] {
            assert_ne!(spelling(one), spelling(other), "{one} {other}");
        }
    }

    #[test]
    fn what_is_no_json_equals_itself_alone() {
        for text in ["", "{", "1 2", r#"{"b":1,"a":2,"b":3}"#, "1e999"] {
            assert_eq!(spelling(text), text);
        }
    }

    fn any_json() -> impl Strategy<Value = Value> {
        let leaf = prop_oneof![
            Just(Value::Null),
            any::<bool>().prop_map(Value::from),
            any::<i64>().prop_map(Value::from),
            any::<u64>().prop_map(Value::from),
            (-1e18..1e18f64).prop_map(Value::from),
            ".{0,6}".prop_map(Value::from),
        ];
        leaf.prop_recursive(4, 32, 5, |inner| {
            prop_oneof![
                proptest::collection::vec(inner.clone(), 0..5).prop_map(Value::from),
                proptest::collection::btree_map(".{0,3}", inner, 0..5)
                    .prop_map(|members| Value::Object(members.into_iter().collect())),
            ]
        })
    }

    proptest! {
        #[test]
        fn a_spelling_is_json_of_the_same_value_and_its_own_spelling(value in any_json()) {
            let text = value.to_string();
            let pretty = serde_json::to_string_pretty(&value).unwrap();
            let spelled = spelling(&text).into_owned();
            prop_assert_eq!(&spelling(&pretty), &spelled);
            prop_assert_eq!(&spelling(&spelled), &spelled);
            let again: Value = serde_json::from_str(&spelled).unwrap();
            let again = again.to_string();
            prop_assert_eq!(spelling(&again), spelled);
        }
    }
}

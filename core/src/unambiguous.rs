//! JSON texts that mean the same to every reader.
//!
//! Of two members with one name some parsers take the first, some the last. What is
//! checked here and read elsewhere (manifests, inputs) must therefore have no such pair.

use std::fmt;

use serde::Deserializer;
use serde::de::{DeserializeSeed, Error as _, MapAccess, SeqAccess, Visitor};
use serde_json::{Map, Value};

use crate::schema::shown_value as shown;

/// Parses a JSON text, unless an object in it has two members of the same name. For texts whose
/// members have no order: manifests, claims. Of others
/// [`Json::parse_unambiguous`](crate::Json::parse_unambiguous) keeps it.
///
/// ```
/// use tidegate_core::unambiguous::parse;
/// assert!(parse(r#"{"by":1}"#).is_ok());
/// let error = parse(r#"{"by":1,"by":2}"#).unwrap_err();
/// assert!(error.to_string().contains("the member \"by\" twice"));
/// ```
pub fn parse(text: &str) -> Result<Value, serde_json::Error> {
    let mut deserializer = serde_json::Deserializer::from_str(text);
    let value = Members.deserialize(&mut deserializer)?;
    deserializer.end()?;
    Ok(value)
}

struct Members;

impl<'de> DeserializeSeed<'de> for Members {
    type Value = Value;

    fn deserialize<D: Deserializer<'de>>(self, deserializer: D) -> Result<Value, D::Error> {
        deserializer.deserialize_any(self)
    }
}

impl<'de> Visitor<'de> for Members {
    type Value = Value;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a JSON value")
    }

    fn visit_bool<E>(self, value: bool) -> Result<Value, E> {
        Ok(value.into())
    }

    fn visit_i64<E>(self, value: i64) -> Result<Value, E> {
        Ok(value.into())
    }

    fn visit_u64<E>(self, value: u64) -> Result<Value, E> {
        Ok(value.into())
    }

    fn visit_f64<E>(self, value: f64) -> Result<Value, E> {
        Ok(value.into())
    }

    fn visit_str<E>(self, value: &str) -> Result<Value, E> {
        Ok(value.into())
    }

    fn visit_string<E>(self, value: String) -> Result<Value, E> {
        Ok(value.into())
    }

    fn visit_unit<E>(self) -> Result<Value, E> {
        Ok(Value::Null)
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut seq: A) -> Result<Value, A::Error> {
        let mut elements = Vec::new();
        while let Some(element) = seq.next_element_seed(Members)? {
            elements.push(element);
        }
        Ok(Value::Array(elements))
    }

    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Value, A::Error> {
        let mut members = Map::new();
        while let Some(name) = map.next_key::<String>()? {
            let value = map.next_value_seed(Members)?;
            if members.contains_key(&name) {
                let name = shown(&Value::String(name));
                return Err(A::Error::custom(format_args!("the member {name} twice")));
            }
            members.insert(name, value);
        }
        Ok(Value::Object(members))
    }
}

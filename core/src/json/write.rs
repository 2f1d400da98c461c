//! Values as text.

use std::fmt;
use std::io;

use serde::ser::{Serialize, SerializeMap, SerializeSeq, Serializer};

use super::{Json, Number, Object};

impl Serialize for Json {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        match self {
            Json::Null => serializer.serialize_unit(),
            Json::Bool(value) => serializer.serialize_bool(*value),
            Json::Number(number) => number.serialize(serializer),
            Json::String(text) => serializer.serialize_str(text),
            Json::Array(elements) => {
                let mut seq = serializer.serialize_seq(Some(elements.len()))?;
                elements
                    .iter()
                    .try_for_each(|element| seq.serialize_element(element))?;
                seq.end()
            }
            Json::Object(members) => members.serialize(serializer),
        }
    }
}

impl Serialize for Object {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let mut map = serializer.serialize_map(Some(self.len()))?;
        for (name, value) in self.iter() {
            map.serialize_entry(name.as_str(), value)?;
        }
        map.end()
    }
}

impl Serialize for Number {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        match self {
            Number::Natural(number) => serializer.serialize_u64(*number),
            Number::Negative(number) => serializer.serialize_i64(*number),
            Number::Float(number) => serializer.serialize_f64(*number),
        }
    }
}

impl Json {
    /// The value's text, without spaces.
    pub fn to_text(&self) -> String {
        serde_json::to_string(self).expect("a JSON value can be written")
    }

    /// The value's text, which has this length: all of the room for it is taken at once.
    pub fn to_text_of(&self, length: usize) -> String {
        let mut bytes = Vec::with_capacity(length);
        serde_json::to_writer(&mut bytes, self).expect("a JSON value can be written");
        String::from_utf8(bytes).expect("JSON is UTF-8")
    }
}

/// The value's text, without spaces.
impl fmt::Display for Json {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        struct Writer<'a, 'f>(&'a mut fmt::Formatter<'f>);
        impl io::Write for Writer<'_, '_> {
            fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
                let text = std::str::from_utf8(bytes).map_err(io::Error::other)?;
                self.0.write_str(text).map_err(io::Error::other)?;
                Ok(bytes.len())
            }

            fn flush(&mut self) -> io::Result<()> {
                Ok(())
            }
        }
        serde_json::to_writer(Writer(f), self).map_err(|_| fmt::Error)
    }
}

//! JSON values as the host keeps them: states, patches, inputs that are checked.
//!
//! A [`Json`] is small in memory, keeps the members of objects in the order in which they were
//! put in, and is read from text and written to text without anything in between. Copies share
//! their parts until one of them changes, so that a state that is pinned, patched or stored is
//! not held twice.
//!
//! Invariant: `{"a":1,"b":2}` and `{"b":2,"a":1}` are equal, as JSON has it; their texts differ.

mod number;
mod object;
mod parse;
mod size;
mod write;

pub use ecow::EcoString;
use ecow::EcoVec;
pub use number::Number;
pub use object::Object;
pub use parse::ParseError;
use serde_json::Value;
pub use size::Size;

use crate::pointer::{Pointer, array_index};

/// A JSON value.
///
/// ```
/// use tidegate_core::Json;
///
/// let value = Json::parse(r#"{"zz":1,"aa":[1.0,2]}"#).unwrap();
/// assert_eq!(value.to_text(), r#"{"zz":1,"aa":[1.0,2]}"#);
/// assert_eq!(value, Json::parse(r#"{"aa":[1.0,2],"zz":1}"#).unwrap());
/// ```
#[derive(Clone, Debug, Default, PartialEq)]
pub enum Json {
    /// `null`
    #[default]
    Null,
    /// `true` or `false`
    Bool(bool),
    /// A number.
    Number(Number),
    /// A string; up to 15 bytes take no memory of their own.
    String(EcoString),
    /// An array.
    Array(EcoVec<Json>),
    /// An object.
    Object(Object),
}

// What a state costs in memory follows from this.
#[cfg(target_pointer_width = "64")]
const _: () = assert!(size_of::<Json>() == 24 && size_of::<Option<Json>>() == 24);

impl Json {
    /// An array of no elements.
    pub const fn array() -> Json {
        Json::Array(EcoVec::new())
    }

    /// The name of the value's JSON type.
    pub fn kind(&self) -> &'static str {
        match self {
            Json::Null => "null",
            Json::Bool(_) => "boolean",
            Json::Number(_) => "number",
            Json::String(_) => "string",
            Json::Array(_) => "array",
            Json::Object(_) => "object",
        }
    }

    /// Whether this is `null`.
    pub fn is_null(&self) -> bool {
        matches!(self, Json::Null)
    }

    /// Whether this is a string.
    pub fn is_string(&self) -> bool {
        matches!(self, Json::String(_))
    }

    /// Whether this is an object.
    pub fn is_object(&self) -> bool {
        matches!(self, Json::Object(_))
    }

    /// Whether this is an array or an object.
    pub fn is_container(&self) -> bool {
        matches!(self, Json::Array(_) | Json::Object(_))
    }

    /// The text of a string.
    pub fn as_str(&self) -> Option<&str> {
        match self {
            Json::String(text) => Some(text),
            _ => None,
        }
    }

    /// A number that is a natural one and fits.
    pub fn as_u64(&self) -> Option<u64> {
        match self {
            Json::Number(number) => number.as_u64(),
            _ => None,
        }
    }

    /// A number that is an integer and fits.
    pub fn as_i64(&self) -> Option<i64> {
        match self {
            Json::Number(number) => number.as_i64(),
            _ => None,
        }
    }

    /// The elements of an array.
    pub fn as_array(&self) -> Option<&[Json]> {
        match self {
            Json::Array(elements) => Some(elements),
            _ => None,
        }
    }

    /// The members of an object.
    pub fn as_object(&self) -> Option<&Object> {
        match self {
            Json::Object(members) => Some(members),
            _ => None,
        }
    }

    /// The member of an object that has this name.
    pub fn get(&self, name: &str) -> Option<&Json> {
        self.as_object()?.get(name)
    }

    /// The part that a token of a pointer leads to.
    pub fn child(&self, token: &str) -> Option<&Json> {
        match self {
            Json::Object(members) => members.get(token),
            Json::Array(elements) => elements.get(array_index(token)?),
            _ => None,
        }
    }

    /// The part that a token of a pointer leads to, to be changed.
    pub fn child_mut(&mut self, token: &str) -> Option<&mut Json> {
        match self {
            Json::Object(members) => members.get_mut(token),
            Json::Array(elements) => {
                let index = array_index(token).filter(|index| *index < elements.len())?;
                elements.make_mut().get_mut(index)
            }
            _ => None,
        }
    }

    /// The value at a place that is named as text.
    pub fn pointer(&self, pointer: &str) -> Option<&Json> {
        Pointer::parse(pointer).ok()?.resolve(self)
    }

    /// Writes the numbers at these places as integers: `1.0` becomes `1`. They are those that a
    /// [`Schema`](crate::Schema) has found where it declares integers.
    pub fn spell_integers(&mut self, places: &[Pointer]) {
        for place in places {
            let mut tokens = place.tokens().iter();
            let found = tokens.try_fold(&mut *self, |value, token| value.child_mut(token));
            if let Some(Json::Number(number)) = found
                && let Some(integer) = number.to_integer()
            {
                *number = integer;
            }
        }
    }

    /// Whether the two share what they hold, and so are equal.
    pub(crate) fn is_same_as(&self, other: &Json) -> bool {
        match (self, other) {
            (Json::Array(one), Json::Array(other)) => {
                std::ptr::eq(one.as_slice(), other.as_slice())
            }
            (Json::Object(one), Json::Object(other)) => one.is_same_as(other),
            _ => false,
        }
    }
}

impl From<bool> for Json {
    fn from(value: bool) -> Json {
        Json::Bool(value)
    }
}

impl From<u64> for Json {
    fn from(value: u64) -> Json {
        Json::Number(value.into())
    }
}

impl From<i64> for Json {
    fn from(value: i64) -> Json {
        Json::Number(value.into())
    }
}

impl From<&str> for Json {
    fn from(text: &str) -> Json {
        Json::String(text.into())
    }
}

impl From<String> for Json {
    fn from(text: String) -> Json {
        Json::String(text.into())
    }
}

impl FromIterator<Json> for Json {
    fn from_iter<I: IntoIterator<Item = Json>>(elements: I) -> Json {
        Json::Array(elements.into_iter().collect())
    }
}

/// Members stand in the order that the map gives them in.
impl From<&Value> for Json {
    fn from(value: &Value) -> Json {
        match value {
            Value::Null => Json::Null,
            Value::Bool(value) => Json::Bool(*value),
            Value::Number(number) => Json::Number(number.into()),
            Value::String(text) => Json::String(text.into()),
            Value::Array(elements) => elements.iter().map(Json::from).collect(),
            Value::Object(members) => {
                let members = members.iter();
                Json::Object(
                    members
                        .map(|(name, value)| (name.into(), Json::from(value)))
                        .collect(),
                )
            }
        }
    }
}

impl From<Value> for Json {
    fn from(value: Value) -> Json {
        Json::from(&value)
    }
}

#[cfg(test)]
pub(crate) mod testing;
#[cfg(test)]
mod tests;

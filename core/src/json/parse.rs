//! Values from text, without another form of them in between.
//!
//! Parts gather on one stack and move from there into containers of the right size, so that what
//! is read takes no more room than it needs.

use std::collections::HashSet;
use std::fmt;

use ecow::{EcoString, EcoVec};
use serde::de::{Deserialize, DeserializeSeed, Deserializer, Error, MapAccess, SeqAccess, Visitor};
use smallvec::SmallVec;

use super::object::FEW;
use super::size::{HEADER, INLINE, NAME, VALUE, heap};
use super::{Json, Number, Object};
use crate::schema::shown;

impl Json {
    /// Reads a JSON text. Of two members with one name the first gives the place, the last the
    /// value.
    ///
    /// # Errors
    ///
    /// What is wrong with the text, and where.
    pub fn parse(text: &str) -> Result<Json, serde_json::Error> {
        serde_json::from_str(text)
    }

    /// Reads a JSON text, unless an object in it has two members of the same name.
    ///
    /// # Errors
    ///
    /// What is wrong with the text, and where.
    pub fn parse_unambiguous(text: &str) -> Result<Json, serde_json::Error> {
        let mut reader = Reader::new(Twice::Refused, usize::MAX);
        reader.text(text)
    }

    /// Reads a JSON text as [`Json::parse_unambiguous`] does, unless what it says would take more
    /// memory than this.
    ///
    /// # Errors
    ///
    /// What is wrong with the text, and where, or that it says too much.
    pub fn parse_unambiguous_within(text: &str, bytes: usize) -> Result<Json, ParseError> {
        Reader::new(Twice::Refused, bytes).text_within(text, bytes)
    }

    /// Reads a JSON text as [`Json::parse`] does, unless what it says would take more memory than
    /// this.
    ///
    /// # Errors
    ///
    /// What is wrong with the text, and where, or that it says too much.
    pub fn parse_within(text: &str, bytes: usize) -> Result<Json, ParseError> {
        Reader::new(Twice::LastCounts, bytes).text_within(text, bytes)
    }
}

/// Why a text is not read.
#[derive(Debug, thiserror::Error)]
pub enum ParseError {
    /// It is not JSON.
    #[error(transparent)]
    Malformed(serde_json::Error),
    /// It would take more memory than it may.
    #[error("expected a value that takes {bytes} bytes of memory at most, found a larger one")]
    TooLarge {
        /// What it may take.
        bytes: usize,
    },
}

impl<'de> Deserialize<'de> for Json {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Json, D::Error> {
        let mut reader = Reader::new(Twice::LastCounts, usize::MAX);
        Part(&mut reader).deserialize(deserializer)
    }
}

/// How many parts gather without a memory of their own: most inputs have no more.
const AT_HAND: usize = 4;

/// What becomes of a second member with the same name.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Twice {
    LastCounts,
    Refused,
}

struct Reader {
    /// The elements of the arrays that are being read.
    elements: SmallVec<[Json; AT_HAND]>,
    /// The members of the objects that are being read.
    members: SmallVec<[(EcoString, Json); AT_HAND]>,
    names: Names,
    twice: Twice,
    /// What may still be taken of the memory.
    left: usize,
    /// More than that was asked for.
    is_full: bool,
}

impl Reader {
    fn new(twice: Twice, bytes: usize) -> Reader {
        Reader {
            elements: SmallVec::new(),
            members: SmallVec::new(),
            names: Names::default(),
            twice,
            left: bytes,
            is_full: false,
        }
    }

    fn text(&mut self, text: &str) -> Result<Json, serde_json::Error> {
        let mut deserializer = serde_json::Deserializer::from_str(text);
        let value = Part(self).deserialize(&mut deserializer)?;
        deserializer.end()?;
        Ok(value)
    }

    /// Reads a text with a reader that was made for so many bytes.
    fn text_within(mut self, text: &str, bytes: usize) -> Result<Json, ParseError> {
        self.text(text).map_err(|error| match self.is_full {
            true => ParseError::TooLarge { bytes },
            false => ParseError::Malformed(error),
        })
    }

    fn take<E: Error>(&mut self, bytes: usize) -> Result<(), E> {
        match self.left.checked_sub(bytes) {
            Some(left) => {
                self.left = left;
                Ok(())
            }
            None => {
                self.is_full = true;
                Err(E::custom("too much"))
            }
        }
    }
}

/// Long names that came before, to be shared by the objects that have them.
#[derive(Default)]
struct Names(Vec<EcoString>);

impl Names {
    /// How many are remembered.
    const KEPT: usize = 64;

    fn of(&mut self, name: &str) -> EcoString {
        const LONGEST: usize = 64;
        if name.len() <= INLINE || name.len() > LONGEST {
            return name.into();
        }
        if self.0.is_empty() {
            self.0.resize(Names::KEPT, EcoString::new());
        }
        // Which of them is forgotten does not matter, so it may be anybody's choice.
        let sum = name.bytes().fold(0_usize, |sum, byte| {
            sum.wrapping_mul(31).wrapping_add(byte.into())
        });
        let kept = &mut self.0[sum % Names::KEPT];
        if *kept != name {
            *kept = name.into();
        }
        kept.clone()
    }
}

/// One value.
struct Part<'r>(&'r mut Reader);

impl<'de> DeserializeSeed<'de> for Part<'_> {
    type Value = Json;

    fn deserialize<D: Deserializer<'de>>(self, deserializer: D) -> Result<Json, D::Error> {
        deserializer.deserialize_any(self)
    }
}

impl<'de> Visitor<'de> for Part<'_> {
    type Value = Json;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a JSON value")
    }

    fn visit_bool<E: Error>(self, value: bool) -> Result<Json, E> {
        self.0.take(VALUE)?;
        Ok(Json::Bool(value))
    }

    fn visit_i64<E: Error>(self, value: i64) -> Result<Json, E> {
        self.0.take(VALUE)?;
        Ok(value.into())
    }

    fn visit_u64<E: Error>(self, value: u64) -> Result<Json, E> {
        self.0.take(VALUE)?;
        Ok(value.into())
    }

    fn visit_f64<E: Error>(self, value: f64) -> Result<Json, E> {
        self.0.take(VALUE)?;
        Ok(match value.is_finite() {
            true => Json::Number(Number::Float(value)),
            false => Json::Null,
        })
    }

    fn visit_str<E: Error>(self, value: &str) -> Result<Json, E> {
        self.0.take(VALUE + heap(value.len()))?;
        Ok(value.into())
    }

    fn visit_unit<E: Error>(self) -> Result<Json, E> {
        self.0.take(VALUE)?;
        Ok(Json::Null)
    }

    fn visit_none<E: Error>(self) -> Result<Json, E> {
        self.visit_unit()
    }

    fn visit_some<D: Deserializer<'de>>(self, deserializer: D) -> Result<Json, D::Error> {
        deserializer.deserialize_any(self)
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut seq: A) -> Result<Json, A::Error> {
        let reader = self.0;
        reader.take(VALUE + HEADER)?;
        let start = reader.elements.len();
        while let Some(element) = seq.next_element_seed(Part(reader))? {
            reader.elements.push(element);
        }
        let mut elements = EcoVec::with_capacity(reader.elements.len() - start);
        elements.extend(reader.elements.drain(start..));
        Ok(Json::Array(elements))
    }

    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Json, A::Error> {
        let reader = self.0;
        reader.take(VALUE + HEADER)?;
        let start = reader.members.len();
        while let Some(name) = map.next_key_seed(NameOf(&mut reader.names))? {
            reader.take(NAME + heap(name.len()))?;
            let value = map.next_value_seed(Part(reader))?;
            reader.members.push((name, value));
        }
        let members = &reader.members[start..];
        let is_refused = reader.twice == Twice::Refused;
        // Where it is not refused, one look at each name does for both.
        let is_looked_for = is_refused || members.len() <= FEW;
        let twice = is_looked_for.then(|| said_twice(members)).flatten();
        if let Some(name) = twice.filter(|_| is_refused) {
            let name = shown(&Json::String(name.clone()));
            return Err(A::Error::custom(format_args!("the member {name} twice")));
        }
        let is_distinct = is_looked_for && twice.is_none();
        let members = reader.members.drain(start..);
        Ok(Json::Object(match is_distinct {
            true => Object::from_distinct(members),
            false => members.collect(),
        }))
    }
}

/// A name that two of these members have.
fn said_twice(members: &[(EcoString, Json)]) -> Option<&EcoString> {
    if members.len() <= FEW {
        let mut names = members.iter().map(|(name, _)| name).enumerate();
        let is_said = |place: usize, name| members[..place].iter().any(|(said, _)| said == name);
        let twice = names.find(|(place, name)| is_said(*place, *name));
        return twice.map(|(_, name)| name);
    }
    let mut seen = HashSet::with_capacity(members.len());
    let mut names = members.iter().map(|(name, _)| name);
    names.find(|name| !seen.insert(*name))
}

struct NameOf<'r>(&'r mut Names);

impl<'de> DeserializeSeed<'de> for NameOf<'_> {
    type Value = EcoString;

    fn deserialize<D: Deserializer<'de>>(self, deserializer: D) -> Result<EcoString, D::Error> {
        deserializer.deserialize_str(self)
    }
}

impl Visitor<'_> for NameOf<'_> {
    type Value = EcoString;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("the name of a member")
    }

    fn visit_str<E>(self, name: &str) -> Result<EcoString, E> {
        Ok(self.0.of(name))
    }
}

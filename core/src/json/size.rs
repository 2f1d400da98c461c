//! What a value takes: as text, and in memory.

use super::{Json, Number, Object, object};

/// What a value takes, exactly.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Size {
    /// The length of its text, in bytes.
    pub text: usize,
    /// What it takes in memory, in bytes: 24 for each value, 40 for each member (its name and
    /// its value), 16 more for each array or object that is not empty and each name or string of
    /// more than 15 bytes, which also counts its length, and 12 for each member of an object of
    /// more than 16. Arrays and strings that grew keep room for as much again at most.
    pub memory: usize,
}

/// A value where it stands: in an array, in a member, or by itself.
pub(super) const VALUE: usize = 24;
/// A member's name, beside its value.
pub(super) const NAME: usize = 16;
/// What is kept beside the content of an allocation.
pub(super) const HEADER: usize = 16;
/// A member's share of the index of its object.
const INDEXED: usize = 12;
/// Strings up to this take no memory of their own.
pub(super) const INLINE: usize = 15;

impl Size {
    /// What it costs to look at all of it, as a [`Meter`](crate::Meter) counts: at least one
    /// for each value.
    pub fn steps(self) -> u64 {
        1 + (self.memory / VALUE) as u64
    }

    /// Counts what is there of this as well.
    pub(crate) fn add(&mut self, other: Size) {
        self.text += other.text;
        self.memory += other.memory;
    }

    /// No longer counts this.
    pub(crate) fn subtract(&mut self, other: Size) {
        self.text = self.text.saturating_sub(other.text);
        self.memory = self.memory.saturating_sub(other.memory);
    }

    /// What an array has beside its parts.
    fn of_array(length: usize) -> Size {
        Size {
            text: 2 + length.saturating_sub(1),
            memory: if length == 0 { 0 } else { HEADER },
        }
    }

    /// What an object has beside its members.
    fn of_object(length: usize) -> Size {
        Size {
            text: 2 + length.saturating_sub(1),
            memory: match length {
                0 => 0,
                length if length > object::FEW => HEADER + length * INDEXED,
                _ => HEADER,
            },
        }
    }

    /// What a container has beside its parts, now, and with one less or one more of them.
    pub(crate) fn of_frames(container: &Json, removes: bool) -> (Size, Size) {
        let other = |length: usize| match removes {
            true => length.saturating_sub(1),
            false => length + 1,
        };
        match container {
            Json::Array(elements) => {
                let length = elements.len();
                (Size::of_array(length), Size::of_array(other(length)))
            }
            Json::Object(members) => {
                let length = members.len();
                (Size::of_object(length), Size::of_object(other(length)))
            }
            _ => Default::default(),
        }
    }

    /// What a member takes beside its value: its name and the colon.
    pub(crate) fn of_name(name: &str) -> Size {
        Size {
            text: text_length(name) + 1,
            memory: NAME + heap(name.len()),
        }
    }

    /// What text takes that is appended to a string of so many bytes.
    pub(crate) fn of_appended(before: usize, appended: &str) -> Size {
        Size {
            text: text_length(appended) - 2,
            memory: heap(before + appended.len()) - heap(before),
        }
    }
}

impl Json {
    /// What the value takes, at the cost of looking at all of it.
    pub fn size(&self) -> Size {
        let mut size = Size {
            text: 0,
            memory: VALUE,
        };
        match self {
            Json::Null => size.text = 4,
            Json::Bool(value) => size.text = if *value { 4 } else { 5 },
            Json::Number(number) => size.text = number_length(*number),
            Json::String(text) => {
                size.text = text_length(text);
                size.memory += heap(text.len());
            }
            Json::Array(elements) => {
                size.add(Size::of_array(elements.len()));
                elements.iter().for_each(|element| size.add(element.size()));
            }
            Json::Object(members) => {
                size.add(Size::of_object(members.len()));
                add_members(&mut size, members);
            }
        }
        size
    }
}

fn add_members(size: &mut Size, members: &Object) {
    for (name, value) in members.iter() {
        size.add(Size::of_name(name));
        size.add(value.size());
    }
}

/// What a string of this length takes beside its place.
pub(super) fn heap(length: usize) -> usize {
    match length {
        0..=INLINE => 0,
        length => HEADER + length,
    }
}

/// The length of a string as JSON writes it: quotes, and escapes for what must not stand in it.
fn text_length(text: &str) -> usize {
    let extra = |byte: u8| match byte {
        b'"' | b'\\' | b'\n' | b'\r' | b'\t' | 0x08 | 0x0c => 1,
        0..0x20 => 5,
        _ => 0,
    };
    text.len() + 2 + text.bytes().map(extra).sum::<usize>()
}

fn number_length(number: Number) -> usize {
    let digits = |number: u64| number.checked_ilog10().unwrap_or(0) as usize + 1;
    match number {
        Number::Natural(number) => digits(number),
        Number::Negative(number) => 1 + digits(number.unsigned_abs()),
        Number::Float(_) => number.to_string().len(),
    }
}

// A name is a string, whose size the figures above assume.
#[cfg(target_pointer_width = "64")]
const _: () =
    assert!(size_of::<ecow::EcoString>() == NAME && ecow::EcoBytes::INLINE_LIMIT == INLINE);

//! The document of an actor, with the changes that the running turn has staged.
//!
//! The host's turn reads and stages through it, commits it at a tick or at the end, or
//! rolls it back; subscribers that join meanwhile get what was last committed. The value
//! is changed in place; what its changed places held before stands beside it, in `past`.
//! So reads see what is staged, and the cost of staging, committing and rolling back
//! follows the change, not the document.
//!
//! Invariant: the value with its past undone is the last committed content.

mod past;

use std::borrow::Cow;
use std::mem;

use serde_json::Value;

use crate::meter::{Exhausted, Meter, Unmetered};
use crate::patch::{Differ, Lengths, PatchOp, Place};
use crate::pointer::{Pointer, array_index, resolve};
use past::Past;

/// How deep arrays and objects may nest. It is what `serde_json` parses, so that every
/// staged document can be read again.
pub const MAX_NESTING: usize = 127;

/// A JSON document with staged changes.
///
/// ```
/// use serde_json::json;
/// use tidegate_core::document::{Document, Op};
/// use tidegate_core::{PatchOp, Pointer};
///
/// let mut document = Document::new(json!({"count": 1}));
/// let pointer = Pointer::parse("/count").unwrap();
/// document.apply(&[Op::Replace { pointer, value: json!(2) }]).unwrap();
///
/// assert_eq!(*document.value(), json!({"count": 2}));
/// assert_eq!(*document.committed(), json!({"count": 1}));
/// assert_eq!(
///     document.commit(),
///     [PatchOp::Replace { path: "/count".into(), value: json!(2) }]
/// );
/// ```
#[derive(Debug)]
pub struct Document {
    value: Value,
    past: Past,
    /// What is known of the texts in the last committed content.
    lengths: Lengths,
    /// Whether `lengths` will also be true of what is staged, once it is committed.
    examined: bool,
}

/// A change to one place of a document, as `state.op` of the contract defines it.
#[derive(Clone, Debug, PartialEq)]
pub enum Op {
    /// RFC 6902 `add`: sets a member, or inserts before an array index; the index `-` is
    /// the array's end.
    Add {
        /// The place.
        pointer: Pointer,
        /// Its new value.
        value: Value,
    },
    /// RFC 6902 `replace`: the place must exist.
    Replace {
        /// The place.
        pointer: Pointer,
        /// Its new value.
        value: Value,
    },
    /// RFC 6902 `remove`: the place must exist.
    Remove {
        /// The place.
        pointer: Pointer,
    },
    /// Appends text to the string at the place.
    Append {
        /// The place.
        pointer: Pointer,
        /// The text.
        text: String,
    },
}

/// Why an [`Op`] cannot be applied.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum OpError {
    /// The document has no such place.
    #[error("expected an existing place, found none at `{pointer}`")]
    NoSuchPlace {
        /// The operation's pointer.
        pointer: String,
    },
    /// Text can be appended to strings only.
    #[error("expected a string to append to, found another kind of value at `{pointer}`")]
    NotAString {
        /// The operation's pointer.
        pointer: String,
    },
    /// A document always has a value: it can be replaced, not removed.
    #[error("expected a place within the document, found a removal of the whole")]
    RemovesDocument {
        /// The operation's pointer, which is empty.
        pointer: String,
    },
    /// The value would make the document nest deeper than [`MAX_NESTING`].
    #[error("expected at most {MAX_NESTING} nested arrays and objects, found more at `{pointer}`")]
    TooDeep {
        /// The operation's pointer.
        pointer: String,
    },
    /// The meter lets no more work be done.
    #[error("applying the operation at `{pointer}` takes more work than it may")]
    Exhausted {
        /// The operation's pointer.
        pointer: String,
    },
}

impl Op {
    /// The place that changes.
    pub fn pointer(&self) -> &Pointer {
        match self {
            Self::Add { pointer, .. }
            | Self::Replace { pointer, .. }
            | Self::Remove { pointer }
            | Self::Append { pointer, .. } => pointer,
        }
    }
}

impl OpError {
    /// The pointer of the operation that cannot be applied.
    pub fn pointer(&self) -> &str {
        match self {
            Self::NoSuchPlace { pointer }
            | Self::NotAString { pointer }
            | Self::RemovesDocument { pointer }
            | Self::TooDeep { pointer }
            | Self::Exhausted { pointer } => pointer,
        }
    }
}

impl Document {
    /// A document whose last committed content is `value`.
    pub fn new(value: Value) -> Self {
        Self {
            value,
            past: Past::Same,
            lengths: Lengths::default(),
            examined: true,
        }
    }

    /// The content with all that is staged.
    pub fn value(&self) -> &Value {
        &self.value
    }

    /// The value at a place, with all that is staged.
    pub fn get(&self, pointer: &Pointer) -> Option<&Value> {
        pointer.resolve(&self.value)
    }

    /// Stages a whole new content. The next commit compares it with the old one, at a
    /// cost that grows with both.
    pub fn replace(&mut self, value: Value) {
        let old = mem::replace(&mut self.value, value);
        self.past.displace(Some(old));
        self.examined = false;
    }

    /// Stages changes in their order: all of them, or none when one of them fails.
    pub fn apply(&mut self, ops: &[Op]) -> Result<(), OpError> {
        self.apply_metered(ops, &mut Unmetered)
    }

    /// [`Document::apply`], at the cost of values that are compared or made and of elements
    /// that move. Where the meter gives up, none of the changes stays.
    ///
    /// # Errors
    ///
    /// Those of [`Document::apply`], and [`OpError::Exhausted`].
    pub fn apply_metered(&mut self, ops: &[Op], meter: &mut dyn Meter) -> Result<(), OpError> {
        for op in ops {
            meter.charge(1).map_err(|Exhausted| OpError::Exhausted {
                pointer: op.pointer().to_string(),
            })?;
        }
        self.examined = false;
        // A failing operation changes nothing, so a single one needs no past of its own.
        if let [op] = ops {
            return stage(&mut self.value, &mut self.past, op);
        }
        let mut past = Past::Same;
        for op in ops {
            if let Err(error) = stage(&mut self.value, &mut past, op) {
                past.undo(&mut self.value);
                return Err(error);
            }
        }
        self.past.absorb(past);
        Ok(())
    }

    /// Whether something is staged, though perhaps what was there before.
    pub fn is_dirty(&self) -> bool {
        !matches!(self.past, Past::Same)
    }

    /// The patch from the last committed content to what is staged; empty when both are
    /// equal.
    ///
    /// A string to which [`Op::Append`] alone was applied is in it as one
    /// [`PatchOp::StrIns`], at a cost that follows what was appended; the string is counted
    /// once, when it first grows.
    pub fn changes(&mut self) -> Vec<PatchOp> {
        self.changes_metered(&mut Unmetered)
            .expect("who is not metered is not exhausted")
    }

    /// [`Document::changes`], at the cost of what is compared and copied. Where the meter gives
    /// up, everything stays staged.
    ///
    /// # Errors
    ///
    /// [`Exhausted`].
    pub fn changes_metered(&mut self, meter: &mut dyn Meter) -> Result<Vec<PatchOp>, Exhausted> {
        meter.charge(1)?;
        let mut differ = Differ::new();
        self.past.collect(&self.value, &mut differ, Place::ROOT);
        let patch = differ.finish(&self.value, &mut self.lengths);
        let displaced = |op: &&PatchOp| !matches!(op, PatchOp::StrIns { .. });
        for op in patch.iter().filter(displaced) {
            self.lengths.forget(op.path());
        }
        self.examined = true;
        Ok(patch)
    }

    /// Makes what is staged the committed content. For a caller that has made
    /// [`Document::changes`] durable before; others [`Document::commit`].
    pub fn accept(&mut self) {
        if !mem::replace(&mut self.examined, true) {
            self.lengths.clear();
        }
        self.past = Past::Same;
    }

    /// Makes what is staged the committed content, and returns the patch that leads to it
    /// from the content before. The patch is empty when both are equal.
    pub fn commit(&mut self) -> Vec<PatchOp> {
        let patch = self.changes();
        self.accept();
        patch
    }

    /// Discards what is staged.
    pub fn rollback(&mut self) {
        mem::take(&mut self.past).undo(&mut self.value);
        self.examined = true;
    }

    /// The last committed content. It is copied when parts of it have staged changes.
    pub fn committed(&self) -> Cow<'_, Value> {
        match &self.past {
            Past::Same => Cow::Borrowed(&self.value),
            Past::Was(old) => Cow::Borrowed(old),
            past => {
                let mut value = self.value.clone();
                past.clone().undo(&mut value);
                Cow::Owned(value)
            }
        }
    }
}

/// What an operation that can be applied would do.
enum Outcome {
    Change,
    /// It writes what is there already.
    Nothing,
}

/// Applies one operation and notes in `past` what it changed. An operation that fails or
/// changes nothing leaves both untouched, so every reason for that is found first.
fn stage(document: &mut Value, past: &mut Past, op: &Op) -> Result<(), OpError> {
    match check(document, op)? {
        Outcome::Nothing => Ok(()),
        Outcome::Change => change(document, past, op).ok_or_else(|| no_such_place(op)),
    }
}

fn no_such_place(op: &Op) -> OpError {
    OpError::NoSuchPlace {
        pointer: op.pointer().to_string(),
    }
}

fn check(document: &Value, op: &Op) -> Result<Outcome, OpError> {
    let pointer = op.pointer();
    if let Op::Add { value, .. } | Op::Replace { value, .. } = op
        && !nests_within(value, MAX_NESTING.saturating_sub(pointer.tokens().len()))
    {
        return Err(OpError::TooDeep {
            pointer: pointer.to_string(),
        });
    }
    let current = pointer.resolve(document);
    let same = match op {
        Op::Add { value, .. } => {
            let parent = pointer.tokens().split_last();
            match parent.map(|(last, parents)| (last, resolve(parents, document))) {
                None | Some((_, Some(Value::Object(_)))) => current == Some(value),
                Some((last, Some(Value::Array(elements)))) => {
                    insertion_index(last, elements.len()).ok_or_else(|| no_such_place(op))?;
                    false
                }
                Some(_) => return Err(no_such_place(op)),
            }
        }
        Op::Replace { value, .. } => current.ok_or_else(|| no_such_place(op))? == value,
        Op::Remove { .. } if pointer.is_root() => {
            return Err(OpError::RemovesDocument {
                pointer: pointer.to_string(),
            });
        }
        Op::Remove { .. } => {
            current.ok_or_else(|| no_such_place(op))?;
            false
        }
        Op::Append { text, .. } => {
            if !current.ok_or_else(|| no_such_place(op))?.is_string() {
                return Err(OpError::NotAString {
                    pointer: pointer.to_string(),
                });
            }
            text.is_empty()
        }
    };
    Ok(if same {
        Outcome::Nothing
    } else {
        Outcome::Change
    })
}

/// Carries out an operation that [`check`] let pass; `None` when the place is missing.
fn change(document: &mut Value, past: &mut Past, op: &Op) -> Option<()> {
    let tokens = op.pointer().tokens();
    match (op, tokens.split_last()) {
        (Op::Replace { value, .. }, _) | (Op::Add { value, .. }, None) => {
            let (current, past) = descend(document, past, tokens)?;
            let old = mem::replace(current, value.clone());
            if let Some(past) = past {
                past.displace(Some(old));
            }
        }
        (Op::Append { text, .. }, _) => {
            let (Value::String(current), past) = descend(document, past, tokens)? else {
                return None;
            };
            if let Some(past) = past {
                past.before_append(current.len());
            }
            current.push_str(text);
        }
        (Op::Add { value, .. }, Some((last, parents))) => match descend(document, past, parents)? {
            (Value::Object(members), past) => {
                let old = members.insert(last.clone(), value.clone());
                if let Some(past) = past.and_then(|past| past.member(last)) {
                    past.displace(old);
                }
            }
            (Value::Array(elements), past) => {
                let index = insertion_index(last, elements.len())?;
                if let Some(past) = past {
                    past.before_insertion(index, elements);
                }
                elements.insert(index, value.clone());
            }
            _ => return None,
        },
        (Op::Remove { .. }, Some((last, parents))) => match descend(document, past, parents)? {
            (Value::Object(members), past) => {
                let old = members.remove(last)?;
                if let Some(past) = past.and_then(|past| past.member(last)) {
                    past.displace(Some(old));
                }
            }
            (Value::Array(elements), past) => {
                let index = array_index(last).filter(|index| *index < elements.len())?;
                let old = elements.remove(index);
                if let Some(past) = past {
                    past.after_removal(index, old, elements);
                }
            }
            _ => return None,
        },
        (Op::Remove { .. }, None) => return None,
    }
    Some(())
}

/// The value at a place together with its past, which is `None` where the past of a place
/// further up covers it.
fn descend<'d>(
    document: &'d mut Value,
    past: &'d mut Past,
    tokens: &[String],
) -> Option<(&'d mut Value, Option<&'d mut Past>)> {
    let mut here = (document, Some(past));
    for token in tokens {
        here = match here {
            (Value::Object(members), past) => (
                members.get_mut(token)?,
                past.and_then(|past| past.member(token)),
            ),
            (Value::Array(elements), past) => {
                let index = array_index(token)?;
                let length = elements.len();
                (
                    elements.get_mut(index)?,
                    past.and_then(|past| past.element(index, length)),
                )
            }
            _ => return None,
        };
    }
    Some(here)
}

/// Where `add` inserts in an array: at most at its end, which is also called `-`.
fn insertion_index(token: &str, length: usize) -> Option<usize> {
    match token {
        "-" => Some(length),
        _ => array_index(token).filter(|index| *index <= length),
    }
}

/// Whether a value has at most `levels` arrays and objects within each other.
fn nests_within(value: &Value, levels: usize) -> bool {
    let Some(below) = levels.checked_sub(1) else {
        return !matches!(value, Value::Array(_) | Value::Object(_));
    };
    match value {
        Value::Array(elements) => elements.iter().all(|child| nests_within(child, below)),
        Value::Object(members) => members.values().all(|child| nests_within(child, below)),
        _ => true,
    }
}

#[cfg(test)]
mod tests;

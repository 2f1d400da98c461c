//! The document of an actor, with the changes that the running turn has staged.
//!
//! The host's turn reads and stages through it, commits it at a tick or at the end, or
//! rolls it back; subscribers that join meanwhile get what was last committed. The value
//! is changed in place; what its changed places held before stands beside it, in `undo`.
//! So reads see what is staged, and the cost of staging, committing and rolling back
//! follows the change, not the document.
//!
//! Members keep their places. A new one comes last; one that is replaced, also by a whole new
//! content, stays where it is, and so does one that a turn takes out and puts back. So whoever
//! applies the patches has the members in the order of the document.
//!
//! Invariants: the value, with its changes undone, is the last committed content. Holes that members
//! leave where they are taken out (see [`Object`](crate::json::Object)) are at any time no more
//! than the members removed since the last commit, and some in proportion to the document.

mod undo;

use std::borrow::Cow;
use std::mem;

use undo::Undo;

use crate::json::{Json, Size};
use crate::meter::{Exhausted, Meter, STEP_BYTES, Unmetered};
use crate::patch::{Differ, Lengths, PatchOp, Place};
use crate::pointer::{Pointer, array_index, resolve};

/// How deep arrays and objects may nest. It is what `serde_json` parses, so that every
/// staged document can be read again.
pub const MAX_NESTING: usize = 127;

/// A JSON document with staged changes.
///
/// ```
/// use tidegate_core::document::{Document, Op};
/// use tidegate_core::{Json, PatchOp, Pointer};
///
/// let mut document = Document::new(Json::parse(r#"{"count":1}"#).unwrap());
/// let pointer = Pointer::parse("/count").unwrap();
/// document.apply(&[Op::Replace { pointer, value: Json::from(2_u64) }]).unwrap();
///
/// assert_eq!(document.value().to_text(), r#"{"count":2}"#);
/// assert_eq!(document.committed().to_text(), r#"{"count":1}"#);
/// assert_eq!(
///     document.commit(),
///     [PatchOp::Replace { path: "/count".into(), value: Json::from(2_u64) }]
/// );
/// ```
#[derive(Debug)]
pub struct Document {
    value: Json,
    undo: Undo,
    /// What the value takes.
    size: Size,
    /// What the last committed content takes.
    committed_size: Size,
    /// What is known of the texts in the last committed content.
    lengths: Lengths,
    /// Whether `lengths` will also be true of what is staged, once it is committed.
    examined: bool,
    /// How many members were taken out since holes were last looked for everywhere. The undo leads
    /// to most of their holes, but not to those of values that moved within an array or that were
    /// new when a list of changes began.
    taken: usize,
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
        value: Json,
    },
    /// RFC 6902 `replace`: the place must exist.
    Replace {
        /// The place.
        pointer: Pointer,
        /// Its new value.
        value: Json,
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
    pub fn new(value: Json) -> Self {
        let size = value.size();
        Self {
            value,
            undo: Undo::Same,
            size,
            committed_size: size,
            lengths: Lengths::default(),
            examined: true,
            taken: 0,
        }
    }

    /// The content with all that is staged.
    pub fn value(&self) -> &Json {
        &self.value
    }

    /// What the content takes, with all that is staged.
    pub fn size(&self) -> Size {
        self.size
    }

    /// What the last committed content takes.
    pub fn committed_size(&self) -> Size {
        self.committed_size
    }

    /// The content as text, with all that is staged.
    pub fn to_text(&self) -> String {
        self.value.to_text_of(self.size.text)
    }

    /// The value at a place, with all that is staged.
    pub fn get(&self, pointer: &Pointer) -> Option<&Json> {
        pointer.resolve(&self.value)
    }

    /// Stages a whole new content. The next commit compares it with the old one, at a
    /// cost that grows with both, and gives its members the order of the old one.
    pub fn replace(&mut self, value: Json) {
        self.size = value.size();
        let old = mem::replace(&mut self.value, value);
        self.undo.displace(Some(old));
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
        self.examined = false;
        let removals = ops.iter().filter(|op| matches!(op, Op::Remove { .. }));
        self.taken += removals.count();
        let Document {
            value, undo, size, ..
        } = self;
        // A failing operation changes nothing, so a single one needs no undo of its own.
        if let [op] = ops {
            return stage(value, undo, size, op, meter);
        }
        let before = *size;
        let mut changes = Undo::Same;
        for op in ops {
            if let Err(error) = stage(value, &mut changes, size, op, meter) {
                changes.undo(value);
                *size = before;
                return Err(error);
            }
        }
        undo.absorb(changes);
        Ok(())
    }

    /// Stages that the numbers at these places are written as integers. They are those that a
    /// [`Schema`](crate::Schema) has found where it declares integers.
    pub fn spell_integers(&mut self, places: &[Pointer]) {
        let spell = |pointer: &Pointer| match self.get(pointer)? {
            Json::Number(number) => Some(Op::Replace {
                pointer: pointer.clone(),
                value: Json::Number(number.to_integer()?),
            }),
            _ => None,
        };
        let ops: Vec<Op> = places.iter().filter_map(spell).collect();
        self.apply(&ops).expect("a number can be replaced");
    }

    /// Whether something is staged, though perhaps what was there before.
    pub fn is_dirty(&self) -> bool {
        !matches!(self.undo, Undo::Same)
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
        self.undo.arrange(&mut self.value, meter)?;
        let mut differ = Differ::new(meter);
        self.undo.collect(&self.value, &mut differ, Place::ROOT)?;
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
        mem::take(&mut self.undo).close_holes(&mut self.value);
        self.committed_size = self.size;
        self.close_all_holes();
    }

    /// Closes the holes of all objects, once so many members were taken out that it pays to look
    /// for them.
    fn close_all_holes(&mut self) {
        if self.taken as u64 > self.committed_size.steps() {
            self.taken = 0;
            Undo::to_holes(&self.value).close_holes(&mut self.value);
        }
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
        mem::take(&mut self.undo).undo(&mut self.value);
        self.size = self.committed_size;
        self.examined = true;
    }

    /// The last committed content. What has staged changes in it is copied, all else shared.
    pub fn committed(&self) -> Cow<'_, Json> {
        match &self.undo {
            Undo::Same => Cow::Borrowed(&self.value),
            Undo::Was(old) => Cow::Borrowed(old),
            undo => {
                let mut value = self.value.clone();
                undo.clone().undo(&mut value);
                Cow::Owned(value)
            }
        }
    }

    /// The text of the last committed content.
    pub fn committed_text(&self) -> String {
        self.committed().to_text_of(self.committed_size.text)
    }
}

/// What an operation that can be applied would do.
enum Outcome {
    /// It makes the document take so much more, and so much less.
    Change(Size, Size),
    /// It writes what is there already.
    Nothing,
}

/// Applies one operation and notes in `undo` what it changed. An operation that fails or
/// changes nothing leaves both untouched, so every reason for that is found first, and what it
/// costs is charged.
fn stage(
    document: &mut Json,
    undo: &mut Undo,
    size: &mut Size,
    op: &Op,
    meter: &mut dyn Meter,
) -> Result<(), OpError> {
    match check(document, undo, op, meter)? {
        Outcome::Nothing => Ok(()),
        Outcome::Change(more, less) => {
            change(document, undo, op).ok_or_else(|| no_such_place(op))?;
            size.add(more);
            size.subtract(less);
            Ok(())
        }
    }
}

fn no_such_place(op: &Op) -> OpError {
    OpError::NoSuchPlace {
        pointer: op.pointer().to_string(),
    }
}

fn check(document: &Json, undo: &Undo, op: &Op, meter: &mut dyn Meter) -> Result<Outcome, OpError> {
    let pointer = op.pointer();
    let mut charge = |steps: u64| {
        meter.charge(steps).map_err(|Exhausted| OpError::Exhausted {
            pointer: pointer.to_string(),
        })
    };
    charge(1 + pointer.tokens().len() as u64)?;
    let mut more = Size::default();
    if let Op::Add { value, .. } | Op::Replace { value, .. } = op {
        if !nests_within(value, MAX_NESTING.saturating_sub(pointer.tokens().len())) {
            return Err(OpError::TooDeep {
                pointer: pointer.to_string(),
            });
        }
        more = value.size();
        charge(more.steps())?;
    }
    let current = pointer.resolve(document);
    // An insertion moves what is there; nothing else that is added does.
    let mut is_inserted = false;
    let parent = pointer.tokens().split_last();
    let parent = parent.map(|(last, parents)| (last, parents, resolve(parents, document)));
    let same = match op {
        Op::Add { value, .. } => match parent {
            None | Some((.., Some(Json::Object(_)))) => current == Some(value),
            Some((last, _, Some(Json::Array(elements)))) => {
                insertion_index(last, elements.len()).ok_or_else(|| no_such_place(op))?;
                is_inserted = true;
                false
            }
            Some(_) => return Err(no_such_place(op)),
        },
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
            let Json::String(current) = current.ok_or_else(|| no_such_place(op))? else {
                return Err(OpError::NotAString {
                    pointer: pointer.to_string(),
                });
            };
            more = Size::of_appended(current.len(), text);
            charge((text.len() / STEP_BYTES) as u64)?;
            text.is_empty()
        }
    };
    if same {
        return Ok(Outcome::Nothing);
    }
    let mut less = Size::default();
    let displaced = current.filter(|_| !is_inserted && !matches!(op, Op::Append { .. }));
    if let Some(displaced) = displaced {
        less = displaced.size();
        charge(less.steps())?;
    }
    let resizes =
        matches!(op, Op::Remove { .. }) || matches!(op, Op::Add { .. }) && displaced.is_none();
    if let Some((last, parents, Some(parent))) = parent.filter(|_| resizes) {
        let removes = matches!(op, Op::Remove { .. });
        let (before, after) = Size::of_frames(parent, removes);
        more.add(after);
        less.add(before);
        match parent {
            Json::Array(elements) => {
                let index = insertion_index(last, elements.len()).unwrap_or_default();
                let moved = elements.len() - index;
                charge((moved * size_of::<Json>() / STEP_BYTES) as u64)?;
                charge(undo.to_be_kept(parents, index, elements.len()) as u64)?;
            }
            _ if removes => less.add(Size::of_name(last)),
            _ => more.add(Size::of_name(last)),
        }
    }
    Ok(Outcome::Change(more, less))
}

/// Carries out an operation that [`check`] let pass; `None` when the place is missing.
fn change(document: &mut Json, undo: &mut Undo, op: &Op) -> Option<()> {
    let tokens = op.pointer().tokens();
    match (op, tokens.split_last()) {
        (Op::Replace { value, .. }, _) | (Op::Add { value, .. }, None) => {
            let (current, undo) = descend(document, undo, tokens)?;
            let old = mem::replace(current, value.clone());
            if let Some(undo) = undo {
                undo.displace(Some(old));
            }
        }
        (Op::Append { text, .. }, _) => {
            let (Json::String(current), undo) = descend(document, undo, tokens)? else {
                return None;
            };
            if let Some(undo) = undo {
                undo.before_append(current.len());
            }
            current.push_str(text);
        }
        (Op::Add { value, .. }, Some((last, parents))) => match descend(document, undo, parents)? {
            (Json::Object(members), undo) => {
                let slots = members.slot_count();
                let undo = undo.and_then(|undo| undo.member(last, slots));
                let name = last.as_str().into();
                match undo.as_deref() {
                    Some(Undo::Gone { slot, .. }) if !members.contains(last) => {
                        members.put_back(*slot, name, value.clone());
                    }
                    _ => {
                        let old = members.insert(name, value.clone());
                        if let Some(undo) = undo {
                            undo.displace(old);
                        }
                    }
                }
            }
            (Json::Array(elements), undo) => {
                let index = insertion_index(last, elements.len())?;
                if let Some(undo) = undo {
                    undo.before_insertion(index, elements);
                }
                elements.insert(index, value.clone());
            }
            _ => return None,
        },
        (Op::Remove { .. }, Some((last, parents))) => match descend(document, undo, parents)? {
            (Json::Object(members), undo) => {
                let slots = members.slot_count();
                match undo.and_then(|undo| undo.member(last, slots)) {
                    Some(undo) => {
                        let (slot, old) = members.take(last)?;
                        undo.gone(slot, old);
                    }
                    None => drop(members.remove(last)?),
                }
            }
            (Json::Array(elements), undo) => {
                let index = array_index(last).filter(|index| *index < elements.len())?;
                let old = elements.remove(index);
                if let Some(undo) = undo {
                    undo.after_removal(index, old, elements);
                }
            }
            _ => return None,
        },
        (Op::Remove { .. }, None) => return None,
    }
    Some(())
}

/// The value at a place together with its undo, which is `None` where the undo of a place
/// further up covers it.
fn descend<'d>(
    document: &'d mut Json,
    undo: &'d mut Undo,
    tokens: &[String],
) -> Option<(&'d mut Json, Option<&'d mut Undo>)> {
    let mut here = (document, Some(undo));
    for token in tokens {
        here = match here {
            (Json::Object(members), undo) => {
                let slots = members.slot_count();
                (
                    members.get_mut(token)?,
                    undo.and_then(|undo| undo.member(token, slots)),
                )
            }
            (Json::Array(elements), undo) => {
                let index = array_index(token)?;
                let length = elements.len();
                (
                    elements.make_mut().get_mut(index)?,
                    undo.and_then(|undo| undo.element(index, length)),
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
fn nests_within(value: &Json, levels: usize) -> bool {
    let Some(below) = levels.checked_sub(1) else {
        return !value.is_container();
    };
    match value {
        Json::Array(elements) => elements.iter().all(|child| nests_within(child, below)),
        Json::Object(members) => members.values().all(|child| nests_within(child, below)),
        _ => true,
    }
}

#[cfg(test)]
mod tests;

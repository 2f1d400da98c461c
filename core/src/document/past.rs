//! What the changed places of a document held when it was last committed.
//!
//! A [`Past`] stands beside a value, shaped like the part of it that has changed. Undoing
//! it yields the earlier value; comparing it with the value yields the patch. Each place
//! has one past however often it is written, which is why several writes of a turn leave
//! as one operation. Only the parent module uses it, and tells it of every change.

use std::collections::BTreeMap;
use std::mem;

use serde_json::Value;

use crate::patch::{Differ, Place, Token};

/// What one place held before.
#[derive(Clone, Debug, Default)]
pub(super) enum Past {
    /// What it holds now.
    #[default]
    Same,
    /// Nothing: the place is new.
    Absent,
    /// This value. It covers all that is below: changes there need no past of their own.
    Was(Value),
    /// The first bytes of the string that it holds now, so many of them. Appending stays
    /// cheap, and the text from here on is what the patch carries.
    Shorter(usize),
    /// An object, of which these members had another past than `Same`.
    Members(BTreeMap<String, Past>),
    /// An array.
    Elements(Elements),
}

/// What an array held before: its first `kept` places, and then `tail`.
#[derive(Clone, Debug)]
pub(super) struct Elements {
    /// How many elements from the front are still at their index. The array has at least
    /// so many now; what follows them is covered by `tail`.
    kept: usize,
    /// The pasts of the elements below `kept` that have changed.
    changed: BTreeMap<usize, Past>,
    /// The elements from index `kept` on, the last one first, so that the removals of a
    /// turn each push one.
    tail: Vec<Value>,
}

impl Past {
    /// The past of a member of the object at this place, `None` when this one covers it.
    pub(super) fn member(&mut self, name: &str) -> Option<&mut Self> {
        if matches!(self, Self::Same) {
            *self = Self::Members(BTreeMap::new());
        }
        let Self::Members(members) = self else {
            return None;
        };
        if !members.contains_key(name) {
            members.insert(name.to_owned(), Self::Same);
        }
        members.get_mut(name)
    }

    /// The past of an element of the array at this place, which has `length` elements;
    /// `None` when this one covers it.
    pub(super) fn element(&mut self, index: usize, length: usize) -> Option<&mut Self> {
        let elements = self.elements(length)?;
        (index < elements.kept).then(|| elements.changed.entry(index).or_default())
    }

    fn elements(&mut self, length: usize) -> Option<&mut Elements> {
        if matches!(self, Self::Same) {
            *self = Self::Elements(Elements {
                kept: length,
                changed: BTreeMap::new(),
                tail: Vec::new(),
            });
        }
        match self {
            Self::Elements(elements) => Some(elements),
            _ => None,
        }
    }

    /// Notes that the whole content of this place was exchanged or removed: `gone` is
    /// what it held until now, `None` when it was empty.
    pub(super) fn displace(&mut self, gone: Option<Value>) {
        if matches!(self, Self::Was(_) | Self::Absent) {
            return;
        }
        *self = match gone {
            Some(gone) => Self::Was(mem::take(self).before(|| gone)),
            None => Self::Absent,
        };
    }

    /// Notes that the string here, `length` bytes long, is about to grow.
    pub(super) fn before_append(&mut self, length: usize) {
        if matches!(self, Self::Same) {
            *self = Self::Shorter(length);
        }
    }

    /// Notes that an element is about to be inserted into `current`, the array here.
    pub(super) fn before_insertion(&mut self, index: usize, current: &[Value]) {
        if let Some(elements) = self.elements(current.len()) {
            elements.keep(index, current, 0);
        }
    }

    /// Notes that `gone` was removed from the array here, of which `current` is left.
    pub(super) fn after_removal(&mut self, index: usize, gone: Value, current: &[Value]) {
        if let Some(elements) = self.elements(current.len() + 1) {
            if index >= elements.kept {
                return;
            }
            elements.keep(index + 1, current, 1);
            elements.push_tail(|| gone);
        }
    }

    /// Makes this the past of both its own changes and those that came `later`.
    pub(super) fn absorb(&mut self, later: Past) {
        match (&mut *self, later) {
            (_, Past::Same) | (Past::Was(_) | Past::Absent, _) => {}
            (Past::Same, later) => *self = later,
            (_, Past::Was(value)) => self.displace(Some(value)),
            (Past::Members(members), Past::Members(later)) => {
                for (name, later) in later {
                    members.entry(name).or_default().absorb(later);
                }
            }
            (Past::Elements(elements), Past::Elements(later)) => elements.absorb(later),
            // The string was shortest when it first grew.
            (Past::Shorter(_), Past::Shorter(_)) => {}
            (Past::Shorter(_) | Past::Members(_) | Past::Elements(_), _) => {
                unreachable!("{KIND}")
            }
        }
    }

    /// Brings a value back to what it was.
    pub(super) fn undo(self, value: &mut Value) {
        match (self, value) {
            (Past::Same, _) => {}
            (Past::Was(old), value) => *value = old,
            (Past::Shorter(length), Value::String(text)) => text.truncate(length),
            (Past::Members(pasts), Value::Object(members)) => {
                for (name, past) in pasts {
                    match past {
                        Past::Absent => {
                            members.remove(&name);
                        }
                        Past::Was(old) => {
                            members.insert(name, old);
                        }
                        past => past.undo(members.get_mut(&name).expect(PRESENT)),
                    }
                }
            }
            (Past::Elements(pasts), Value::Array(elements)) => {
                elements.truncate(pasts.kept);
                for (index, past) in pasts.changed {
                    past.undo(&mut elements[index]);
                }
                elements.extend(pasts.tail.into_iter().rev());
            }
            (Past::Absent | Past::Shorter(_) | Past::Members(_) | Past::Elements(_), _) => {
                unreachable!("{KIND}")
            }
        }
    }

    /// What the place held before, given what it holds now.
    fn before(self, now: impl FnOnce() -> Value) -> Value {
        match self {
            Past::Was(old) => old,
            past => {
                let mut value = now();
                past.undo(&mut value);
                value
            }
        }
    }

    /// Collects the changes from the past to `now`, and returns a lower bound of the
    /// encoded size of `now`.
    pub(super) fn collect<'a>(
        &'a self,
        now: &'a Value,
        differ: &mut Differ<'a>,
        at: Place,
    ) -> usize {
        match (self, now) {
            (Past::Same, _) => 0,
            (Past::Was(old), _) => differ.compare(at, old, now),
            (Past::Shorter(length), Value::String(text)) if text.len() > *length => {
                differ.append(at, text, *length)
            }
            (Past::Shorter(_), Value::String(_)) => 0,
            (Past::Members(pasts), Value::Object(members)) => {
                let mark = differ.mark();
                let (mut removed, mut added) = (Vec::new(), Vec::new());
                let mut size = 0;
                for (name, past) in pasts {
                    match (past, members.get(name)) {
                        (Past::Absent, Some(value)) => added.push((name.as_str(), value)),
                        (Past::Absent, None) => {}
                        (past, Some(value)) => {
                            size += differ.within(at, Token::Member(name), |differ, at| {
                                past.collect(value, differ, at)
                            });
                        }
                        (_, None) => removed.push(name.as_str()),
                    }
                }
                size += differ.members_came_and_went(at, removed, added);
                differ.close(mark, at, now, size)
            }
            (Past::Elements(pasts), Value::Array(elements)) => {
                let mark = differ.mark();
                let mut size = 0;
                for (&index, past) in &pasts.changed {
                    size += differ.within(at, Token::Element(index), |differ, at| {
                        past.collect(&elements[index], differ, at)
                    });
                }
                let tail = pasts.tail.iter().rev();
                size += differ.compare_elements(at, pasts.kept, tail, &elements[pasts.kept..]);
                differ.close(mark, at, now, size)
            }
            (Past::Absent | Past::Shorter(_) | Past::Members(_) | Past::Elements(_), _) => {
                unreachable!("{KIND}")
            }
        }
    }
}

impl Elements {
    /// Moves the elements from `index` on into the tail, as they were before. In
    /// `current` they stand `shift` places further to the front.
    fn keep(&mut self, index: usize, current: &[Value], shift: usize) {
        while self.kept > index {
            let now = &current[self.kept - 1 - shift];
            self.push_tail(|| now.clone());
        }
    }

    /// Moves the last kept element into the tail; `now` is what it holds at present.
    fn push_tail(&mut self, now: impl FnOnce() -> Value) {
        self.kept -= 1;
        let past = self.changed.remove(&self.kept).unwrap_or_default();
        self.tail.push(past.before(now));
    }

    fn absorb(&mut self, later: Elements) {
        for (index, past) in later.changed {
            if index < self.kept {
                self.changed.entry(index).or_default().absorb(past);
            }
        }
        // The later tail is what stood there between; what this past kept of it moves on
        // to the tail of both, beginning with its last element.
        let between = self.kept.saturating_sub(later.kept);
        let beyond = later.tail.len().saturating_sub(between);
        for value in later.tail.into_iter().skip(beyond) {
            self.push_tail(|| value);
        }
    }
}

const KIND: &str = "a place whose past is not a whole value is of the same kind as before";
const PRESENT: &str = "a member whose past is not a whole value is still there";

//! What the changed places of a document held when it was last committed.
//!
//! An [`Undo`] stands beside a value, shaped like the part of it that has changed. Undoing
//! it yields the earlier value; comparing it with the value yields the patch. Each place
//! has one however often it is written, which is why several writes of a turn leave
//! as one operation. Only the parent module uses it, and tells it of every change.

use std::collections::BTreeMap;
use std::mem;

use ecow::EcoVec;

use crate::json::{EcoString, Json, Object};
use crate::meter::{Exhausted, Meter};
use crate::patch::{Differ, Estimate, Place, Token};
use crate::pointer::array_index;

/// What one place held before.
#[derive(Clone, Debug, Default)]
pub(super) enum Undo {
    /// What it holds now.
    #[default]
    Same,
    /// Nothing: the place is new.
    Absent,
    /// This value. It covers all that is below: changes there need no undo of their own.
    Was(Json),
    /// This value, a member that was taken out of the object at this slot. It may have been put
    /// back, with another value.
    Gone { was: Json, slot: usize },
    /// The first bytes of the string that it holds now, so many of them. Appending stays
    /// cheap, and the text from here on is what the patch carries.
    Shorter(usize),
    /// An object.
    Members(Members),
    /// An array.
    Elements(Elements),
}

/// What the members of an object held before.
#[derive(Clone, Debug)]
pub(super) struct Members {
    /// How many slots the object had. New members stand behind them, so that undoing can give
    /// back all that they took.
    slots: usize,
    /// The members that have another undo than `Same`.
    undos: BTreeMap<EcoString, Undo>,
}

/// What an array held before: its first `kept` places, and then `tail`.
#[derive(Clone, Debug)]
pub(super) struct Elements {
    /// How many elements from the front are still at their index. The array has at least
    /// so many now; what follows them is covered by `tail`.
    kept: usize,
    /// The undos of the elements below `kept` that have changed.
    changed: BTreeMap<usize, Undo>,
    /// The elements from index `kept` on, the last one first, so that the removals of a
    /// turn each push one.
    tail: Vec<Json>,
}

impl Undo {
    /// The undo of a member of the object at this place, which has so many slots; `None` when
    /// this one covers it.
    pub(super) fn member(&mut self, name: &str, slots: usize) -> Option<&mut Self> {
        if matches!(self, Self::Same) {
            *self = Self::Members(Members {
                slots,
                undos: BTreeMap::new(),
            });
        }
        let Self::Members(Members { undos, .. }) = self else {
            return None;
        };
        if !undos.contains_key(name) {
            undos.insert(name.into(), Self::Same);
        }
        undos.get_mut(name)
    }

    /// The undo of an element of the array at this place, which has `length` elements;
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
    pub(super) fn displace(&mut self, gone: Option<Json>) {
        if self.is_whole() {
            return;
        }
        *self = match gone {
            Some(gone) => Self::Was(mem::take(self).before(|| gone)),
            None => Self::Absent,
        };
    }

    /// Whether it says all of what the place held.
    fn is_whole(&self) -> bool {
        matches!(self, Self::Was(_) | Self::Gone { .. } | Self::Absent)
    }

    /// Notes that `now`, the member at this place, was taken out of its slot.
    pub(super) fn gone(&mut self, slot: usize, now: Json) {
        *self = match mem::take(self) {
            undo @ (Self::Gone { .. } | Self::Absent) => undo,
            undo => Self::Gone {
                was: undo.before(|| now),
                slot,
            },
        };
    }

    /// Notes that the string here, `length` bytes long, is about to grow.
    pub(super) fn before_append(&mut self, length: usize) {
        if matches!(self, Self::Same) {
            *self = Self::Shorter(length);
        }
    }

    /// Notes that an element is about to be inserted into `current`, the array here.
    pub(super) fn before_insertion(&mut self, index: usize, current: &[Json]) {
        if let Some(elements) = self.elements(current.len()) {
            elements.keep(index, current, 0);
        }
    }

    /// Notes that `gone` was removed from the array here, of which `current` is left.
    pub(super) fn after_removal(&mut self, index: usize, gone: Json, current: &[Json]) {
        if let Some(elements) = self.elements(current.len() + 1) {
            if index >= elements.kept {
                return;
            }
            elements.keep(index + 1, current, 1);
            elements.push_tail(|| gone);
        }
    }

    /// How many elements have to be copied before one can be inserted or removed at an index of
    /// the array that these tokens lead to, which has `length` elements.
    pub(super) fn to_be_kept(&self, tokens: &[String], index: usize, length: usize) -> usize {
        let all = length - index;
        match (self, tokens) {
            (Undo::Same, _) => all,
            (Undo::Elements(elements), []) => elements.kept.saturating_sub(index),
            (Undo::Members(members), [token, below @ ..]) => members
                .undos
                .get(token.as_str())
                .map_or(all, |undo| undo.to_be_kept(below, index, length)),
            (Undo::Elements(elements), [token, below @ ..]) => match array_index(token) {
                Some(at) if at < elements.kept => elements
                    .changed
                    .get(&at)
                    .map_or(all, |undo| undo.to_be_kept(below, index, length)),
                _ => 0,
            },
            _ => 0,
        }
    }

    /// Makes this the undo of both its own changes and those that came `later`.
    pub(super) fn absorb(&mut self, later: Undo) {
        match (&mut *self, later) {
            (_, Undo::Same) | (Undo::Gone { .. } | Undo::Absent, _) => {}
            (Undo::Was(was), Undo::Gone { slot, .. }) => {
                let was = mem::take(was);
                *self = Undo::Gone { was, slot };
            }
            (Undo::Was(_), _) => {}
            (Undo::Same, later) => *self = later,
            (_, Undo::Was(value)) => self.displace(Some(value)),
            (_, Undo::Gone { was, slot }) => self.gone(slot, was),
            (Undo::Members(members), Undo::Members(later)) => {
                for (name, later) in later.undos {
                    members.undos.entry(name).or_default().absorb(later);
                }
            }
            (Undo::Elements(elements), Undo::Elements(later)) => elements.absorb(later),
            // The string was shortest when it first grew.
            (Undo::Shorter(_), Undo::Shorter(_)) => {}
            (Undo::Shorter(_) | Undo::Members(_) | Undo::Elements(_), _) => {
                unreachable!("{KIND}")
            }
        }
    }

    /// Brings a value back to what it was. Members have the slots that they had, and what new ones
    /// took is given back.
    pub(super) fn undo(self, value: &mut Json) {
        match (self, value) {
            (Undo::Same, _) => {}
            (Undo::Was(old) | Undo::Gone { was: old, .. }, value) => *value = old,
            (Undo::Shorter(length), Json::String(text)) => {
                let is_wide = text.len() / 2 > length;
                text.truncate(length);
                if is_wide {
                    *text = EcoString::from(text.as_str());
                }
            }
            (Undo::Members(Members { slots, undos }), Json::Object(members)) => {
                for (name, undo) in undos {
                    match undo {
                        Undo::Absent => {
                            members.take(&name);
                        }
                        Undo::Gone { was, slot } => {
                            members.take(&name);
                            members.put_back(slot, name, was);
                        }
                        undo => undo.undo(members.get_mut(&name).expect(PRESENT)),
                    }
                }
                members.truncate(slots);
            }
            (Undo::Elements(undos), Json::Array(elements)) => {
                let is_wide = elements.len() / 2 > undos.kept + undos.tail.len();
                elements.truncate(undos.kept);
                if is_wide {
                    let mut narrow = EcoVec::with_capacity(undos.kept + undos.tail.len());
                    narrow.extend(elements.iter().cloned());
                    *elements = narrow;
                }
                if !undos.changed.is_empty() {
                    let elements = elements.make_mut();
                    for (index, undo) in undos.changed {
                        undo.undo(&mut elements[index]);
                    }
                }
                elements.extend(undos.tail.into_iter().rev());
            }
            (Undo::Absent | Undo::Shorter(_) | Undo::Members(_) | Undo::Elements(_), _) => {
                unreachable!("{KIND}")
            }
        }
    }

    /// What the place held before, given what it holds now.
    fn before(self, now: impl FnOnce() -> Json) -> Json {
        match self {
            Undo::Was(old) => old,
            undo => {
                let mut value = now();
                undo.undo(&mut value);
                value
            }
        }
    }

    /// Closes the holes that taking members out has left in a value, once nobody goes by slots
    /// any more.
    pub(super) fn close_holes(self, value: &mut Json) {
        match (self, value) {
            (Undo::Members(Members { undos, .. }), Json::Object(members)) => {
                if members.has_holes() {
                    members.close_holes();
                }
                for (name, undo) in undos {
                    if undo.has_parts()
                        && let Some(value) = members.get_mut(&name)
                    {
                        undo.close_holes(value);
                    }
                }
            }
            (Undo::Elements(undos), Json::Array(elements)) => {
                let with_parts = |(_, undo): &(usize, Undo)| undo.has_parts();
                for (index, undo) in undos.changed.into_iter().filter(with_parts) {
                    if let Some(value) = elements.make_mut().get_mut(index) {
                        undo.close_holes(value);
                    }
                }
            }
            _ => {}
        }
    }

    /// What leads to all objects in a value that have holes.
    pub(super) fn to_holes(value: &Json) -> Undo {
        match value {
            Json::Object(members) => {
                let parts = members.iter().filter(|(_, part)| part.is_container());
                let undos = parts.map(|(name, part)| (name.clone(), Undo::to_holes(part)));
                let undos: BTreeMap<EcoString, Undo> =
                    undos.filter(|(_, undo)| undo.has_parts()).collect();
                match undos.is_empty() && !members.has_holes() {
                    true => Undo::Same,
                    false => Undo::Members(Members {
                        slots: members.slot_count(),
                        undos,
                    }),
                }
            }
            Json::Array(elements) => {
                let parts = elements.iter().enumerate();
                let parts = parts.filter(|(_, part)| part.is_container());
                let undos = parts.map(|(index, part)| (index, Undo::to_holes(part)));
                let changed: BTreeMap<usize, Undo> =
                    undos.filter(|(_, undo)| undo.has_parts()).collect();
                match changed.is_empty() {
                    true => Undo::Same,
                    false => Undo::Elements(Elements {
                        kept: elements.len(),
                        changed,
                        tail: Vec::new(),
                    }),
                }
            }
            _ => Undo::Same,
        }
    }

    fn has_parts(&self) -> bool {
        matches!(self, Undo::Members(_) | Undo::Elements(_))
    }

    /// Gives the members of what replaced something the order that they had in it, and puts
    /// members that were taken out and set again into their places.
    pub(super) fn arrange(&self, now: &mut Json, meter: &mut dyn Meter) -> Result<(), Exhausted> {
        match (self, now) {
            (Undo::Was(old) | Undo::Gone { was: old, .. }, now) => arrange(old, now, meter),
            (Undo::Members(Members { undos, .. }), Json::Object(members)) => {
                meter.charge(undos.len() as u64)?;
                for (name, undo) in undos {
                    if let Undo::Gone { slot, .. } = undo
                        && members.slot_of(name).is_some_and(|other| other != *slot)
                        && let Some((_, value)) = members.take(name)
                    {
                        members.put_back(*slot, name.clone(), value);
                    }
                    if !matches!(undo, Undo::Same | Undo::Absent | Undo::Shorter(_))
                        && let Some(now) = members.get_mut(name)
                    {
                        undo.arrange(now, meter)?;
                    }
                }
                Ok(())
            }
            (Undo::Elements(undos), Json::Array(elements)) => {
                if undos.changed.is_empty() && undos.tail.is_empty() {
                    return Ok(());
                }
                let elements = elements.make_mut();
                for (index, undo) in &undos.changed {
                    undo.arrange(&mut elements[*index], meter)?;
                }
                let pairs = undos.tail.iter().rev().zip(&mut elements[undos.kept..]);
                meter.charge(pairs.len() as u64)?;
                for (old, now) in pairs {
                    arrange(old, now, meter)?;
                }
                Ok(())
            }
            _ => Ok(()),
        }
    }

    /// Collects the changes from the undo to `now`, and returns a lower bound of the
    /// encoded size of `now`.
    pub(super) fn collect<'a>(
        &'a self,
        now: &'a Json,
        differ: &mut Differ<'a, '_>,
        at: Place,
    ) -> Estimate {
        match (self, now) {
            (Undo::Same, _) => Ok(0),
            (Undo::Was(old) | Undo::Gone { was: old, .. }, _) => differ.compare(at, old, now),
            (Undo::Shorter(length), Json::String(text)) if text.len() > *length => {
                differ.append(at, text, *length)
            }
            (Undo::Shorter(_), Json::String(_)) => Ok(0),
            (Undo::Members(Members { undos, .. }), Json::Object(members)) => {
                let mark = differ.mark();
                let (mut removed, mut added) = (Vec::new(), Vec::new());
                let mut size = 0;
                for (name, undo) in undos {
                    match (undo, members.get(name)) {
                        (Undo::Absent, Some(value)) => added.push((name.as_str(), value)),
                        (Undo::Absent, None) => {}
                        (undo, Some(value)) => {
                            size += differ.within(at, Token::Member(name), |differ, at| {
                                undo.collect(value, differ, at)
                            })?;
                        }
                        (_, None) => removed.push(name.as_str()),
                    }
                }
                added.sort_by_key(|(name, _)| members.slot_of(name));
                size += differ.members_came_and_went(at, removed, added)?;
                differ.close(mark, at, now, size)
            }
            (Undo::Elements(undos), Json::Array(elements)) => {
                let mark = differ.mark();
                let mut size = 0;
                for (&index, undo) in &undos.changed {
                    size += differ.within(at, Token::Element(index), |differ, at| {
                        undo.collect(&elements[index], differ, at)
                    })?;
                }
                let tail = undos.tail.iter().rev();
                size += differ.compare_elements(at, undos.kept, tail, &elements[undos.kept..])?;
                differ.close(mark, at, now, size)
            }
            (Undo::Absent | Undo::Shorter(_) | Undo::Members(_) | Undo::Elements(_), _) => {
                unreachable!("{KIND}")
            }
        }
    }
}

/// Gives the members of `new` the order that they have in `old`, all the way down; what is not
/// in `old` comes behind.
fn arrange(old: &Json, new: &mut Json, meter: &mut dyn Meter) -> Result<(), Exhausted> {
    if old.is_same_as(new) {
        return Ok(());
    }
    match (old, new) {
        (Json::Object(olds), Json::Object(news)) => {
            meter.charge((olds.len() + news.len()) as u64)?;
            if !is_in_order(olds, news) {
                *news = news.ordered_like(olds);
            }
            for (name, old) in olds.iter().filter(|(_, old)| old.is_container()) {
                if news.get(name).is_some_and(Json::is_container)
                    && let Some(new) = news.get_mut(name)
                {
                    arrange(old, new, meter)?;
                }
            }
        }
        (Json::Array(olds), Json::Array(news)) => {
            meter.charge(olds.len().min(news.len()) as u64)?;
            if olds.iter().any(Json::is_container) {
                for (old, new) in olds.iter().zip(news.make_mut()) {
                    arrange(old, new, meter)?;
                }
            }
        }
        _ => {}
    }
    Ok(())
}

/// Whether the members that both have stand first in the new object, in the order of the old.
fn is_in_order(olds: &Object, news: &Object) -> bool {
    if olds.names().eq(news.names()) {
        return true;
    }
    let mut rest = olds
        .entries()
        .map(|(slot, name, _)| (slot, name))
        .peekable();
    let mut are_new = false;
    for name in news.names() {
        if rest.peek().is_some_and(|(_, before)| *before == name) && !are_new {
            rest.next();
            continue;
        }
        match olds.slot_of(name) {
            None => are_new = true,
            Some(_) if are_new => return false,
            Some(slot) => {
                let passed = rest.peek().is_none_or(|(next, _)| slot < *next);
                if passed {
                    return false;
                }
                while rest.next_if(|(next, _)| *next <= slot).is_some() {}
            }
        }
    }
    true
}

impl Elements {
    /// Moves the elements from `index` on into the tail, as they were before. In
    /// `current` they stand `shift` places further to the front.
    fn keep(&mut self, index: usize, current: &[Json], shift: usize) {
        while self.kept > index {
            let now = &current[self.kept - 1 - shift];
            self.push_tail(|| now.clone());
        }
    }

    /// Moves the last kept element into the tail; `now` is what it holds at present.
    fn push_tail(&mut self, now: impl FnOnce() -> Json) {
        self.kept -= 1;
        let undo = self.changed.remove(&self.kept).unwrap_or_default();
        self.tail.push(undo.before(now));
    }

    fn absorb(&mut self, later: Elements) {
        for (index, undo) in later.changed {
            if index < self.kept {
                self.changed.entry(index).or_default().absorb(undo);
            }
        }
        // The later tail is what stood there between; what this undo kept of it moves on
        // to the tail of both, beginning with its last element.
        let between = self.kept.saturating_sub(later.kept);
        let beyond = later.tail.len().saturating_sub(between);
        for value in later.tail.into_iter().skip(beyond) {
            self.push_tail(|| value);
        }
    }
}

const KIND: &str = "a place whose undo is not a whole value is of the same kind as before";
const PRESENT: &str = "a member whose undo is not a whole value is still there";

//! The members of an object, in the order in which they were put in.
//!
//! Members stand in slots, one behind the other. Up to [`FEW`] of them are searched one by one,
//! more have an index of their names. A member that is taken out leaves a hole, which readers
//! pass over, so that it can be put back where it was and the others keep their slots; holes are
//! closed when there are many and nobody knows a slot any more.

use std::hash::{BuildHasher, RandomState};
use std::sync::Arc;

use ecow::{EcoString, EcoVec};
use hashbrown::HashTable;

use super::Json;

/// How many slots are searched without an index.
pub(crate) const FEW: usize = 16;

/// The members of an object.
#[derive(Clone, Debug, Default)]
pub struct Object(Slots);

#[derive(Clone, Debug)]
enum Slots {
    Few(EcoVec<Slot>),
    Many(Arc<Many>),
}

/// A member, or a hole where one was.
#[derive(Clone, Debug)]
struct Slot {
    name: EcoString,
    /// None is a hole, whose name means nothing.
    value: Option<Json>,
}

#[derive(Clone, Debug)]
struct Many {
    slots: Vec<Slot>,
    /// The slots by their names.
    index: HashTable<u32>,
    /// Names come from outside: who chooses them must not choose where they collide.
    hash: RandomState,
}

impl Default for Slots {
    fn default() -> Slots {
        Slots::Few(EcoVec::new())
    }
}

impl Many {
    fn slot_of(&self, name: &str) -> Option<usize> {
        let is_it = |slot: &u32| self.slots[*slot as usize].name == name;
        let found = self.index.find(self.hash.hash_one(name), is_it);
        found.map(|slot| *slot as usize)
    }

    fn from_slots(slots: Vec<Slot>) -> Many {
        let mut many = Many {
            index: HashTable::with_capacity(slots.len()),
            slots,
            hash: RandomState::new(),
        };
        many.make_index();
        many
    }

    fn make_index(&mut self) {
        self.index.clear();
        for slot in 0..self.slots.len() {
            if self.slots[slot].value.is_some() {
                self.note(slot);
            }
        }
    }

    /// Enters a slot in the index.
    fn note(&mut self, slot: usize) {
        let Many { slots, index, hash } = self;
        let name = |slot: &u32| hash.hash_one(slots[*slot as usize].name.as_str());
        let slot = u32::try_from(slot).expect("an object has fewer members than 32 bits count");
        index.insert_unique(name(&slot), slot, name);
    }

    /// Gives back the memory that is not needed.
    fn shrink(&mut self) {
        let Many { slots, index, hash } = self;
        slots.shrink_to_fit();
        index.shrink_to_fit(|slot: &u32| hash.hash_one(slots[*slot as usize].name.as_str()));
    }

    fn take(&mut self, slot: usize) -> Option<Json> {
        let hash = self.hash.hash_one(self.slots[slot].name.as_str());
        let is_it = |other: &u32| *other as usize == slot;
        if let Ok(entry) = self.index.find_entry(hash, is_it) {
            entry.remove();
        }
        self.slots[slot].name = EcoString::new();
        self.slots[slot].value.take()
    }
}

impl Object {
    /// No members.
    pub const fn new() -> Object {
        Object(Slots::Few(EcoVec::new()))
    }

    fn slots(&self) -> &[Slot] {
        match &self.0 {
            Slots::Few(slots) => slots,
            Slots::Many(many) => &many.slots,
        }
    }

    /// How many members there are.
    pub fn len(&self) -> usize {
        match &self.0 {
            Slots::Few(_) => self.iter().count(),
            Slots::Many(many) => many.index.len(),
        }
    }

    /// Whether there is none.
    pub fn is_empty(&self) -> bool {
        self.iter().next().is_none()
    }

    /// Names and values, in their order.
    pub fn iter(&self) -> impl DoubleEndedIterator<Item = (&EcoString, &Json)> {
        let members = self.slots().iter();
        members.filter_map(|slot| Some((&slot.name, slot.value.as_ref()?)))
    }

    /// Slots, names and values, in their order.
    pub(crate) fn entries(&self) -> impl Iterator<Item = (usize, &EcoString, &Json)> {
        let members = self.slots().iter().enumerate();
        members.filter_map(|(number, slot)| Some((number, &slot.name, slot.value.as_ref()?)))
    }

    /// The names, in their order.
    pub fn names(&self) -> impl Iterator<Item = &EcoString> {
        self.iter().map(|(name, _)| name)
    }

    /// The values, in their order.
    pub fn values(&self) -> impl Iterator<Item = &Json> {
        self.iter().map(|(_, value)| value)
    }

    /// How many slots there are, with the holes.
    pub(crate) fn slot_count(&self) -> usize {
        self.slots().len()
    }

    /// Gives back all slots but so many from the front. What is behind them must be holes.
    pub(crate) fn truncate(&mut self, count: usize) {
        if self.slots().len() <= count {
            return;
        }
        debug_assert!(
            self.slots()[count..]
                .iter()
                .all(|slot| slot.value.is_none())
        );
        match &mut self.0 {
            Slots::Few(slots) => slots.truncate(count),
            Slots::Many(many) => {
                let many = Arc::make_mut(many);
                many.slots.truncate(count);
                if many.slots.capacity() > FEW + 2 * count {
                    many.shrink();
                }
            }
        }
    }

    /// Where a member stands, for comparing places with each other.
    pub(crate) fn slot_of(&self, name: &str) -> Option<usize> {
        match &self.0 {
            Slots::Few(slots) => slots
                .iter()
                .position(|slot| slot.value.is_some() && slot.name == name),
            Slots::Many(many) => many.slot_of(name),
        }
    }

    /// The member with this name.
    pub fn get(&self, name: &str) -> Option<&Json> {
        self.slots()[self.slot_of(name)?].value.as_ref()
    }

    /// Whether there is a member with this name.
    pub fn contains(&self, name: &str) -> bool {
        self.slot_of(name).is_some()
    }

    /// The member with this name, to be changed.
    pub fn get_mut(&mut self, name: &str) -> Option<&mut Json> {
        let slot = self.slot_of(name)?;
        self.slot_mut(slot)
    }

    fn slot_mut(&mut self, slot: usize) -> Option<&mut Json> {
        let slots = match &mut self.0 {
            Slots::Few(slots) => slots.make_mut(),
            Slots::Many(many) => &mut Arc::make_mut(many).slots,
        };
        slots[slot].value.as_mut()
    }

    /// Sets a member: one that there is keeps its place, a new one comes last. Returns what it
    /// was before.
    pub fn insert(&mut self, name: EcoString, value: Json) -> Option<Json> {
        if let Some(slot) = self.slot_of(&name) {
            return self
                .slot_mut(slot)
                .map(|place| std::mem::replace(place, value));
        }
        self.push(name, value);
        None
    }

    /// Adds a member whose name is not there yet.
    fn push(&mut self, name: EcoString, value: Json) {
        let value = Some(value);
        match &mut self.0 {
            Slots::Few(slots) if slots.len() < FEW => slots.push(Slot { name, value }),
            Slots::Few(slots) => {
                let mut slots: Vec<Slot> = std::mem::take(slots).into_iter().collect();
                slots.push(Slot { name, value });
                self.0 = Slots::Many(Arc::new(Many::from_slots(slots)));
            }
            Slots::Many(many) => {
                let many = Arc::make_mut(many);
                many.slots.push(Slot { name, value });
                many.note(many.slots.len() - 1);
            }
        }
    }

    /// Takes a member out. The others move up.
    pub fn remove(&mut self, name: &str) -> Option<Json> {
        let (_, value) = self.take(name)?;
        self.close_holes();
        Some(value)
    }

    /// Takes a member out and leaves a hole, whose slot it returns: all others keep theirs.
    pub(crate) fn take(&mut self, name: &str) -> Option<(usize, Json)> {
        let slot = self.slot_of(name)?;
        let value = match &mut self.0 {
            Slots::Few(slots) => {
                let slot = &mut slots.make_mut()[slot];
                slot.name = EcoString::new();
                slot.value.take()
            }
            Slots::Many(many) => Arc::make_mut(many).take(slot),
        };
        Some((slot, value?))
    }

    /// Puts a member into the hole that it left.
    pub(crate) fn put_back(&mut self, slot: usize, name: EcoString, value: Json) {
        match &mut self.0 {
            Slots::Few(slots) => {
                slots.make_mut()[slot] = Slot {
                    name,
                    value: Some(value),
                };
            }
            Slots::Many(many) => {
                let many = Arc::make_mut(many);
                many.slots[slot] = Slot {
                    name,
                    value: Some(value),
                };
                many.note(slot);
            }
        }
    }

    /// Whether there are holes.
    pub(crate) fn has_holes(&self) -> bool {
        match &self.0 {
            Slots::Few(slots) => slots.iter().any(|slot| slot.value.is_none()),
            Slots::Many(many) => many.slots.len() > many.index.len(),
        }
    }

    /// Closes the holes, if there are so many that it pays. Members get other slots.
    pub(crate) fn close_holes(&mut self) {
        match &mut self.0 {
            Slots::Few(slots) => {
                if slots.iter().any(|slot| slot.value.is_none()) {
                    slots.retain(|slot| slot.value.is_some());
                }
            }
            Slots::Many(many) => {
                if many.slots.len() > FEW + 2 * many.index.len() {
                    let many = Arc::make_mut(many);
                    many.slots.retain(|slot| slot.value.is_some());
                    many.make_index();
                    many.shrink();
                }
            }
        }
    }

    /// Keeps those members of which this is true.
    pub fn retain(&mut self, keep: impl Fn(&str) -> bool) {
        let gone: Vec<EcoString> = self.names().filter(|name| !keep(name)).cloned().collect();
        for name in gone {
            self.take(&name);
        }
        self.close_holes();
    }

    /// Its members in another order: those that the other object has as they stand there,
    /// then the rest.
    pub(crate) fn ordered_like(&self, other: &Object) -> Object {
        let kept = other.iter().filter_map(|(name, _)| {
            let slot = self.slot_of(name)?;
            Some(&self.slots()[slot])
        });
        let rest = self.slots().iter();
        let rest = rest.filter(|slot| slot.value.is_some() && !other.contains(&slot.name));
        let slots: Vec<Slot> = kept.chain(rest).cloned().collect();
        Object::from_slots(slots)
    }

    fn with_room(length: usize) -> Object {
        Object(match length {
            0..=FEW => Slots::Few(EcoVec::with_capacity(length)),
            _ => Slots::Many(Arc::new(Many {
                slots: Vec::with_capacity(length),
                index: HashTable::with_capacity(length),
                hash: RandomState::new(),
            })),
        })
    }

    /// These members, no two of which have one name.
    pub(super) fn from_distinct(
        members: impl ExactSizeIterator<Item = (EcoString, Json)>,
    ) -> Object {
        let mut object = Object::with_room(members.len());
        for (name, value) in members {
            debug_assert!(!object.contains(&name));
            object.push(name, value);
        }
        object
    }

    fn from_slots(slots: Vec<Slot>) -> Object {
        match slots.len() {
            0..=FEW => {
                let mut few = EcoVec::with_capacity(slots.len());
                few.extend(slots);
                Object(Slots::Few(few))
            }
            _ => Object(Slots::Many(Arc::new(Many::from_slots(slots)))),
        }
    }

    /// Whether the two share their members.
    pub(crate) fn is_same_as(&self, other: &Object) -> bool {
        match (&self.0, &other.0) {
            (Slots::Few(one), Slots::Few(other)) => std::ptr::eq(one.as_slice(), other.as_slice()),
            (Slots::Many(one), Slots::Many(other)) => Arc::ptr_eq(one, other),
            _ => false,
        }
    }
}

/// Of two members with one name the first gives the place, the last the value.
impl FromIterator<(EcoString, Json)> for Object {
    fn from_iter<I: IntoIterator<Item = (EcoString, Json)>>(members: I) -> Object {
        let members = members.into_iter();
        let mut object = Object::with_room(members.size_hint().0);
        for (name, value) in members {
            object.insert(name, value);
        }
        object
    }
}

impl PartialEq for Object {
    fn eq(&self, other: &Object) -> bool {
        self.is_same_as(other)
            || self.len() == other.len()
                && self
                    .iter()
                    .all(|(name, value)| other.get(name).is_some_and(|other| value == other))
    }
}

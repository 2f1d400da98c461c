//! Where the value of each key lies, in memory.
//!
//! Invariant: a segment's `live` is the sum of the lengths of the places in it that the
//! index names, so a segment whose `live` is 0 holds no value.

use std::collections::BTreeMap;
use std::ops::Bound;

use super::Space;
use super::format::{EntryRef, Kind};

/// Where an entry lies.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Place {
    pub(super) segment: u32,
    pub(super) offset: u32,
    pub(super) length: u32,
}

impl Place {
    /// No entry is that short.
    const NONE: Place = Place {
        segment: 0,
        offset: 0,
        length: 0,
    };
}

/// What is known of one key.
#[derive(Debug)]
struct Slot {
    tag: u64,
    base: Place,
    /// Most keys have none most of the time, and then this is 8 bytes and not 24.
    #[expect(clippy::box_collection)]
    deltas: Option<Box<Vec<Place>>>,
}

impl Slot {
    fn places(&self) -> impl Iterator<Item = Place> {
        let base = (self.base != Place::NONE).then_some(self.base);
        base.into_iter()
            .chain(self.deltas.iter().flat_map(|deltas| deltas.iter().copied()))
    }
}

/// What is known of one segment.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct SegmentUse {
    /// The length of its file.
    pub(super) bytes: u64,
    /// The length of its entries.
    pub(super) entries: u64,
    /// The length of those that the index names.
    pub(super) live: u64,
    /// The length of its deletions, which may hide entries of older segments.
    pub(super) deletes: u64,
}

/// All keys and segments.
#[derive(Debug, Default)]
pub(super) struct Index {
    spaces: BTreeMap<Space, BTreeMap<Box<str>, Slot>>,
    pub(super) segments: BTreeMap<u32, SegmentUse>,
    keys: usize,
    deltas: usize,
    key_bytes: usize,
    /// Keys that have deltas and no base. There are some while a journal is read whose
    /// older segments are gone, and none at its end.
    baseless: usize,
}

impl Index {
    /// Takes in what an entry of this segment says. Entries come in the order of the log.
    pub(super) fn apply(&mut self, segment: u32, entry: &EntryRef<'_>) {
        let length = u64::from(entry.length);
        let place = Place {
            segment,
            offset: entry.offset,
            length: entry.length,
        };
        let usage = self.segments.entry(segment).or_default();
        usage.entries += length;
        match entry.kind {
            Kind::Put => {
                usage.live += length;
                self.release(entry);
                let space = self.spaces.entry(entry.space).or_default();
                match space.get_mut(entry.key) {
                    Some(slot) => {
                        slot.base = place;
                        slot.tag = entry.tag;
                    }
                    None => {
                        let slot = Slot {
                            tag: entry.tag,
                            base: place,
                            deltas: None,
                        };
                        space.insert(entry.key.into(), slot);
                        self.keys += 1;
                        self.key_bytes += entry.key.len();
                    }
                }
            }
            Kind::Delta => {
                usage.live += length;
                self.deltas += 1;
                let space = self.spaces.entry(entry.space).or_default();
                match space.get_mut(entry.key) {
                    Some(slot) => {
                        slot.tag = entry.tag;
                        slot.deltas.get_or_insert_default().push(place);
                    }
                    None => {
                        let slot = Slot {
                            tag: entry.tag,
                            base: Place::NONE,
                            deltas: Some(Box::new(vec![place])),
                        };
                        space.insert(entry.key.into(), slot);
                        self.keys += 1;
                        self.key_bytes += entry.key.len();
                        self.baseless += 1;
                    }
                }
            }
            Kind::Delete => {
                usage.deletes += length;
                self.release(entry);
                if let Some(space) = self.spaces.get_mut(&entry.space)
                    && space.remove(entry.key).is_some()
                {
                    self.keys -= 1;
                    self.key_bytes -= entry.key.len();
                }
            }
            Kind::Seal | Kind::Drop => usage.entries -= length,
        }
    }

    /// Gives up the places of a key, which keeps an empty slot.
    fn release(&mut self, entry: &EntryRef<'_>) {
        let slot = self.spaces.get_mut(&entry.space);
        let Some(slot) = slot.and_then(|space| space.get_mut(entry.key)) else {
            return;
        };
        for place in slot.places() {
            if let Some(usage) = self.segments.get_mut(&place.segment) {
                usage.live -= u64::from(place.length);
            }
        }
        self.deltas -= slot.deltas.as_ref().map_or(0, |deltas| deltas.len());
        self.baseless -= usize::from(slot.base == Place::NONE);
        slot.base = Place::NONE;
        slot.deltas = None;
    }

    fn slot(&self, space: Space, key: &str) -> Option<&Slot> {
        self.spaces.get(&space)?.get(key)
    }

    /// Whether a key has a value.
    pub(super) fn contains(&self, space: Space, key: &str) -> bool {
        self.slot(space, key).is_some()
    }

    /// Where the base and the deltas of a key lie, in order.
    pub(super) fn places(&self, space: Space, key: &str) -> Option<Vec<Place>> {
        Some(self.slot(space, key)?.places().collect())
    }

    /// Whether an entry is part of its key's value.
    pub(super) fn is_live(&self, segment: u32, entry: &EntryRef<'_>) -> bool {
        let slot = self.slot(entry.space, entry.key);
        let at = (segment, entry.offset);
        // Deltas lie in the order of the log.
        slot.is_some_and(|slot| {
            (slot.base.segment, slot.base.offset) == at
                || slot.deltas.as_ref().is_some_and(|deltas| {
                    let found = deltas.binary_search_by_key(&at, |p| (p.segment, p.offset));
                    found.is_ok()
                })
        })
    }

    pub(super) fn keys(
        &self,
        space: Space,
        prefix: &str,
        after: Option<&str>,
        limit: usize,
    ) -> Vec<Box<str>> {
        let Some(space) = self.spaces.get(&space) else {
            return Vec::new();
        };
        let from = match after {
            Some(after) if after >= prefix => Bound::Excluded(after),
            _ => Bound::Included(prefix),
        };
        space
            .range::<str, _>((from, Bound::Unbounded))
            .map(|(key, _)| key)
            .take_while(|key| key.starts_with(prefix))
            .take(limit)
            .cloned()
            .collect()
    }

    pub(super) fn tagged(&self, space: Space) -> Vec<(Box<str>, u64)> {
        self.spaces
            .get(&space)
            .into_iter()
            .flatten()
            .filter(|(_, slot)| slot.tag != 0)
            .map(|(key, slot)| (key.clone(), slot.tag))
            .collect()
    }

    pub(super) fn len(&self) -> usize {
        self.keys
    }

    pub(super) fn baseless(&self) -> usize {
        self.baseless
    }

    /// About how many bytes of memory it takes.
    pub(super) fn bytes(&self) -> usize {
        // A node of the map is three quarters full on average; an allocation costs some 8
        // bytes and is rounded up.
        let slot = size_of::<(Box<str>, Slot)>() * 4 / 3;
        self.keys * (slot + 16) + self.key_bytes + self.deltas * size_of::<Place>() * 3 / 2
    }
}

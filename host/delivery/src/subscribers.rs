//! Those who are to have one stream, and the fan-out to them.
//!
//! A concern keeps one under its own lock, which orders what newcomers are told and what is
//! published.
//!
//! Invariant: each receiver is there once.

use std::collections::HashSet;
use std::sync::Arc;

use indexmap::IndexMap;

use super::frame::SharedFrame;
use super::outlet::{Close, Offer, Outlet};

/// Receivers by their ids.
#[derive(Default)]
pub struct Subscribers(IndexMap<Arc<str>, Arc<dyn Outlet>>);

/// Which subscribers something is for, by connection id.
#[derive(Clone, Debug, PartialEq)]
pub enum Recipients {
    /// All of them.
    Everyone,
    /// These, each once.
    Only(HashSet<String>),
    /// All but these.
    Except(HashSet<String>),
}

impl Subscribers {
    /// Adds one, or puts it in the place of the one with its id.
    pub fn insert(&mut self, outlet: Arc<dyn Outlet>) {
        self.0.insert(outlet.id().clone(), outlet);
    }

    /// Takes one out.
    pub fn remove(&mut self, id: &str) {
        self.0.swap_remove(id);
    }

    /// How many there are.
    pub fn len(&self) -> usize {
        self.0.len()
    }

    /// Whether there are none.
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// All of them.
    pub fn iter(&self) -> impl Iterator<Item = &Arc<dyn Outlet>> {
        self.0.values()
    }

    /// Those among them that have these ids.
    pub fn those<'s>(
        &'s self,
        ids: &'s HashSet<String>,
    ) -> impl Iterator<Item = &'s Arc<dyn Outlet>> {
        ids.iter().filter_map(|id| self.0.get(id.as_str()))
    }

    /// Offers those it is for what cannot be made up for: who is owed too much already is closed.
    /// Returns how many took it.
    ///
    /// Where it is the others who are owed too much, they make room first, and a receiver is
    /// closed only if that was not enough: it must learn that it has missed something.
    pub fn publish(&mut self, frame: &SharedFrame, to: &Recipients) -> u64 {
        let mut gone = Vec::new();
        let mut taken = 0;
        let mut has_room = true;
        let mut offer = |outlet: &Arc<dyn Outlet>| {
            let mut offered = outlet.offer(frame);
            if let Offer::NoRoom(_) = offered {
                // Once for all of them, who may be many.
                if std::mem::take(&mut has_room) {
                    outlet.make_room();
                }
                offered = outlet.offer(frame);
            }
            match offered {
                Offer::Taken => taken += 1,
                Offer::Full | Offer::NoRoom(_) => outlet.close(Close::Slow),
                Offer::Gone => gone.push(outlet.id().clone()),
            }
        };
        match to {
            Recipients::Everyone => self.0.values().for_each(offer),
            Recipients::Only(ids) => self.those(ids).for_each(offer),
            Recipients::Except(ids) => {
                for (id, outlet) in &self.0 {
                    if !ids.contains(&**id) {
                        offer(outlet);
                    }
                }
            }
        }
        for id in gone {
            self.0.swap_remove(&id);
        }
        taken
    }
}

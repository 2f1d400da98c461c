//! The numbers of a value that its schema declares to be integers and that are written
//! otherwise, as `1.0` or `1e2`.
//!
//! JSON Schema counts them as integers, typed readers of many languages do not. So whoever hands
//! a checked value on writes them as integers first.

use std::collections::HashSet;

use super::rules::{Id, Rules};
use crate::json::Json;
use crate::meter::{Exhausted, Meter};
use crate::pointer::Pointer;

/// The places of such numbers. Where alternatives differ, a number counts that one of them
/// declares to be an integer: the others take an integer for a number too.
pub(super) fn places(
    rules: &Rules,
    value: &Json,
    meter: &mut dyn Meter,
) -> Result<Vec<Pointer>, Exhausted> {
    let mut search = Search {
        rules,
        meter,
        seen: HashSet::new(),
        way: Vec::new(),
        found: Vec::new(),
    };
    search.follow(vec![Rules::ROOT], value)?;
    Ok(search.found)
}

struct Search<'a, 'm> {
    rules: &'a Rules,
    meter: &'m mut dyn Meter,
    /// Which rules were applied to which values, by their addresses.
    seen: HashSet<(Id, *const Json)>,
    /// The tokens from the root to here.
    way: Vec<String>,
    found: Vec<Pointer>,
}

impl Search<'_, '_> {
    /// Looks at a place by these rules and all that they lead to there.
    fn follow(&mut self, ids: Vec<Id>, value: &Json) -> Result<(), Exhausted> {
        let is_loose = match value {
            Json::Number(number) => number.to_integer().is_some(),
            _ => false,
        };
        if !is_loose && !value.is_container() {
            return self.meter.charge(1);
        }
        let mut rules = ids;
        let mut at = 0;
        while let Some(id) = rules.get(at).copied() {
            at += 1;
            self.meter.charge(1)?;
            if !self.seen.insert((id, value)) {
                continue;
            }
            let rule = self.rules.get(id);
            if is_loose && rule.wants_integer {
                self.found.push(self.here());
                return Ok(());
            }
            rules.extend(rule.in_place());
            match value {
                Json::Object(members) if rule.has_members => {
                    for (name, member) in members.iter() {
                        self.meter
                            .charge(1 + rule.pattern_properties.len() as u64)?;
                        let mut ids: Vec<Id> = rule.declared(name).collect();
                        if ids.is_empty() {
                            ids.extend(rule.additional_properties);
                        }
                        self.follow_part(ids, name, member)?;
                    }
                }
                Json::Array(elements) if rule.has_elements => {
                    for (index, element) in elements.iter().enumerate() {
                        let id = rule.prefix_items.get(index).copied().or(rule.items);
                        let ids = id.into_iter().collect();
                        self.follow_part(ids, &index.to_string(), element)?;
                    }
                }
                _ => {}
            }
        }
        Ok(())
    }

    fn here(&self) -> Pointer {
        let mut place = Pointer::root();
        self.way.iter().for_each(|token| place.push(token.as_str()));
        place
    }

    fn follow_part(&mut self, ids: Vec<Id>, token: &str, value: &Json) -> Result<(), Exhausted> {
        if ids.is_empty() {
            return Ok(());
        }
        self.way.push(token.to_owned());
        self.follow(ids, value)?;
        self.way.pop();
        Ok(())
    }
}

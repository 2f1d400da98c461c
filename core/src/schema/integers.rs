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

/// How much is remembered of what was looked at; after that, things are looked at again.
const MAX_SEEN: usize = 1 << 20;

/// The places of such numbers. Where alternatives differ, a number counts that one of them
/// declares to be an integer: the others take an integer for a number too. So do rules for parts
/// that no other has seen, which are followed whether others have seen them or not.
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
    /// Which rules that several lead to were applied to which values, by their addresses.
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
            let rule = self.rules.get(id);
            if rule.is_shared && !self.is_new(id, value) {
                continue;
            }
            if is_loose && rule.wants_integer {
                self.found.push(self.here());
                return Ok(());
            }
            rules.extend(rule.in_place());
            let more = rule.conditions.as_ref();
            let unevaluated_members = more.and_then(|more| more.unevaluated_properties);
            let unevaluated_elements = more.and_then(|more| more.unevaluated_items);
            let contains = more.and_then(|more| more.contains).map(|(id, ..)| id);
            match value {
                Json::Object(members) if rule.has_members => {
                    for (name, member) in members.iter() {
                        self.meter.charge(rule.declared_steps(name))?;
                        let mut ids: Vec<Id> = rule.declared(name).collect();
                        if ids.is_empty() {
                            ids.extend(rule.additional_properties.or(unevaluated_members));
                        }
                        self.follow_part(ids, name, member)?;
                    }
                }
                Json::Array(elements) if rule.has_elements => {
                    for (index, element) in elements.iter().enumerate() {
                        self.meter.charge(1)?;
                        let id = rule.prefix_items.get(index).copied().or(rule.items);
                        let id = id.or(unevaluated_elements);
                        let ids = id.into_iter().chain(contains).collect();
                        self.follow_part(ids, &index.to_string(), element)?;
                    }
                }
                _ => {}
            }
        }
        Ok(())
    }

    /// Whether the rule was not applied to the value before, as far as is remembered.
    fn is_new(&mut self, id: Id, value: &Json) -> bool {
        match self.seen.len() < MAX_SEEN {
            true => self.seen.insert((id, value)),
            false => !self.seen.contains(&(id, std::ptr::from_ref(value))),
        }
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

//! Whether a value satisfies a schema, rule by rule, charged as it goes.
//!
//! Rules that must all hold at one place are followed in a list, not by calls, so that long
//! chains of `$ref` and `allOf` take little stack. What was found out of a rule that several lead to
//! is remembered for arrays and objects, so that recursive definitions cost no more than rules
//! times values.

use std::collections::{HashMap, HashSet};

use super::assertions::name_steps;
use super::rules::{Id, Rule, Rules};
use crate::json::{Json, Object};
use crate::meter::{Exhausted, Meter};

/// How deep alternatives and parts of values may nest, together. A value of the deepest nesting
/// may have five alternatives within each other at each of its places, and the stack of a thread
/// holds it.
const MAX_LEVELS: usize = 768;

/// How much is remembered of rules that several lead to: some 60 MB of it. What is found out
/// after that is found out again, and charged again.
const MAX_KNOWN: usize = 1 << 20;

/// A check under way.
pub(super) struct Evaluator<'a, 'm> {
    rules: &'a Rules,
    meter: &'m mut dyn Meter,
    /// What is known of rules that several others lead to, by the value's address.
    /// Most schemas have none such.
    known: Option<HashMap<(Id, *const Json), bool>>,
    levels: usize,
    /// A number that is not written as an integer has counted as one.
    has_loose_integers: bool,
}

/// A verdict, or that the meter has given up.
type Verdict = Result<bool, Exhausted>;

impl<'a, 'm> Evaluator<'a, 'm> {
    pub(super) fn new(rules: &'a Rules, meter: &'m mut dyn Meter) -> Evaluator<'a, 'm> {
        Evaluator {
            rules,
            meter,
            known: None,
            levels: MAX_LEVELS,
            has_loose_integers: false,
        }
    }

    /// Whether a number that is not written as an integer has counted as one.
    pub(super) fn has_loose_integers(&self) -> bool {
        self.has_loose_integers
    }

    /// Charges what is done beside the check.
    pub(super) fn charge(&mut self, steps: u64) -> Result<(), Exhausted> {
        self.meter.charge(steps)
    }

    /// Whether the value is what the rule says of it itself.
    pub(super) fn asserts(&mut self, id: Id, value: &Json) -> Verdict {
        let rules = self.rules;
        rules.get(id).assertions.hold(value, &mut *self.meter)
    }

    /// Whether the value satisfies the rule and all that it leads to.
    pub(super) fn holds(&mut self, id: Id, value: &Json) -> Verdict {
        let rule = self.rules.get(id);
        let is_kept = rule.is_shared && value.is_container();
        if is_kept
            && let Some(known) = &self.known
            && let Some(known) = known.get(&(id, std::ptr::from_ref(value)))
        {
            self.meter.charge(1)?;
            return Ok(*known);
        }
        self.levels = self.levels.checked_sub(1).ok_or(Exhausted)?;
        let verdict = match rule.all_of.is_empty() {
            true => self.holds_itself(rule, value),
            false => self.holds_with_all(id, value),
        };
        self.levels += 1;
        let verdict = verdict?;
        if is_kept {
            let known = self.known.get_or_insert_default();
            if known.len() < MAX_KNOWN {
                known.insert((id, std::ptr::from_ref(value)), verdict);
            }
        }
        Ok(verdict)
    }

    /// Whether a value holds to a rule with `$ref` or `allOf`.
    fn holds_with_all(&mut self, id: Id, value: &Json) -> Verdict {
        let mut open = vec![id];
        let mut at = 0;
        while let Some(id) = open.get(at).copied() {
            at += 1;
            let rule = self.rules.get(id);
            // Of one that several lead to it may be known already.
            let holds = match at > 1 && rule.is_shared {
                true => self.holds(id, value)?,
                false => {
                    open.extend(&rule.all_of);
                    self.holds_itself(rule, value)?
                }
            };
            if !holds {
                return Ok(false);
            }
        }
        Ok(true)
    }

    /// Whether all holds that the rule asks, but for what it leads to by `$ref` and `allOf`.
    fn holds_itself(&mut self, rule: &'a Rule, value: &Json) -> Verdict {
        self.meter.charge(1)?;
        if rule.never || !rule.assertions.hold(value, &mut *self.meter)? {
            return Ok(false);
        }
        if rule.wants_integer
            && let Json::Number(number) = value
            && number.to_integer().is_some()
        {
            self.has_loose_integers = true;
        }
        if !(rule.any_of.is_empty() || self.any_holds(&rule.any_of, value)?)
            || !(rule.one_of.is_empty() || self.one_holds(&rule.one_of, value)?)
        {
            return Ok(false);
        }
        if let Some(more) = &rule.conditions
            && !(self.not_holds(more.not, value)?
                && self.if_holds(rule, value)?
                && self.dependents_hold(rule, value)?)
        {
            return Ok(false);
        }
        match value {
            Json::Object(members) if rule.has_members => self.members_hold(rule, value, members),
            Json::Array(elements) if rule.has_elements => self.elements_hold(rule, value, elements),
            _ => Ok(true),
        }
    }

    fn any_holds(&mut self, ids: &[Id], value: &Json) -> Verdict {
        for id in ids {
            if self.holds(*id, value)? {
                return Ok(true);
            }
        }
        Ok(false)
    }

    fn one_holds(&mut self, ids: &[Id], value: &Json) -> Verdict {
        let mut holding = 0;
        for id in ids {
            holding += usize::from(self.holds(*id, value)?);
            if holding > 1 {
                return Ok(false);
            }
        }
        Ok(holding == 1)
    }

    fn not_holds(&mut self, not: Option<Id>, value: &Json) -> Verdict {
        match not {
            Some(id) => Ok(!self.holds(id, value)?),
            None => Ok(true),
        }
    }

    /// `not`
    pub(super) fn is_not_excluded(&mut self, rule: &Rule, value: &Json) -> Verdict {
        self.not_holds(rule.conditions.as_ref().and_then(|more| more.not), value)
    }

    /// `if`, `then` and `else`
    pub(super) fn if_holds(&mut self, rule: &Rule, value: &Json) -> Verdict {
        let Some(more) = &rule.conditions else {
            return Ok(true);
        };
        let Some(condition) = more.if_ else {
            return Ok(true);
        };
        let branch = match self.holds(condition, value)? {
            true => more.then,
            false => more.else_,
        };
        branch.map_or(Ok(true), |id| self.holds(id, value))
    }

    /// `dependentSchemas`
    pub(super) fn dependents_hold(&mut self, rule: &Rule, value: &Json) -> Verdict {
        let (Some(more), Json::Object(members)) = (&rule.conditions, value) else {
            return Ok(true);
        };
        for (name, id) in &more.dependent_schemas {
            self.meter.charge(name_steps(name))?;
            if members.contains(name) && !self.holds(*id, value)? {
                return Ok(false);
            }
        }
        Ok(true)
    }

    /// `propertyNames`
    pub(super) fn names_hold(&mut self, rule: &Rule, value: &Json) -> Verdict {
        let names = rule
            .conditions
            .as_ref()
            .and_then(|more| more.property_names);
        let (Some(id), Json::Object(members)) = (names, value) else {
            return Ok(true);
        };
        for name in members.names() {
            if !self.holds(id, &Json::String(name.clone()))? {
                return Ok(false);
            }
        }
        Ok(true)
    }

    /// `contains`, `minContains` and `maxContains`
    pub(super) fn contains_holds(&mut self, rule: &Rule, value: &Json) -> Verdict {
        let contains = rule.conditions.as_ref().and_then(|more| more.contains);
        let (Some((id, least, most)), Json::Array(elements)) = (contains, value) else {
            return Ok(true);
        };
        let mut count = 0;
        for element in elements {
            count += u64::from(self.holds(id, element)?);
            if count > most {
                return Ok(false);
            }
        }
        Ok(count >= least)
    }

    fn members_hold(&mut self, rule: &'a Rule, value: &Json, members: &Object) -> Verdict {
        let count = members.len();
        let only_declared =
            rule.pattern_properties.is_empty() && rule.additional_properties.is_none();
        if only_declared && rule.properties.len() <= count {
            for (name, id) in &rule.properties {
                self.meter.charge(name_steps(name))?;
                if let Some(member) = members.get(name)
                    && !self.holds(*id, member)?
                {
                    return Ok(false);
                }
            }
        } else {
            for (name, member) in members.iter() {
                self.meter.charge(rule.declared_steps(name))?;
                let mut is_declared = false;
                for id in rule.declared(name) {
                    is_declared = true;
                    if !self.holds(id, member)? {
                        return Ok(false);
                    }
                }
                if let Some(id) = rule.additional_properties.filter(|_| !is_declared)
                    && !self.holds(id, member)?
                {
                    return Ok(false);
                }
            }
        }
        if rule.conditions.is_none() {
            return Ok(true);
        }
        Ok(self.names_hold(rule, value)? && self.other_members_hold(rule, value, members)?)
    }

    fn elements_hold(&mut self, rule: &'a Rule, value: &Json, elements: &[Json]) -> Verdict {
        for (element, id) in elements.iter().zip(&rule.prefix_items) {
            if !self.holds(*id, element)? {
                return Ok(false);
            }
        }
        if let Some(id) = rule.items {
            for element in elements.iter().skip(rule.prefix_items.len()) {
                if !self.holds(id, element)? {
                    return Ok(false);
                }
            }
        }
        if rule.conditions.is_none() {
            return Ok(true);
        }
        Ok(self.contains_holds(rule, value)? && self.other_elements_hold(rule, value, elements)?)
    }

    /// `unevaluatedProperties`
    fn other_members_hold(&mut self, rule: &'a Rule, value: &Json, members: &Object) -> Verdict {
        let other = rule.conditions.as_ref();
        let Some(id) = other.and_then(|more| more.unevaluated_properties) else {
            return Ok(true);
        };
        let mut seen = Seen::default();
        self.see(rule, value, &mut seen, Is::TheRule)?;
        if seen.all {
            return Ok(true);
        }
        for (name, member) in members.iter() {
            self.meter.charge(name_steps(name))?;
            if !seen.names.contains(name.as_str()) && !self.holds(id, member)? {
                return Ok(false);
            }
        }
        Ok(true)
    }

    /// `unevaluatedItems`
    fn other_elements_hold(&mut self, rule: &'a Rule, value: &Json, elements: &[Json]) -> Verdict {
        let other = rule.conditions.as_ref();
        let Some(id) = other.and_then(|more| more.unevaluated_items) else {
            return Ok(true);
        };
        let mut seen = Seen::default();
        self.see(rule, value, &mut seen, Is::TheRule)?;
        if seen.all {
            return Ok(true);
        }
        for (index, element) in elements.iter().enumerate().skip(seen.first) {
            if !seen.indexes.contains(&index) && !self.holds(id, element)? {
                return Ok(false);
            }
        }
        Ok(true)
    }

    /// Notes which parts of a value a rule, which holds, and those that it leads to at the same
    /// place have looked at.
    fn see(
        &mut self,
        rule: &'a Rule,
        value: &Json,
        seen: &mut Seen,
        is: Is,
    ) -> Result<(), Exhausted> {
        self.levels = self.levels.checked_sub(1).ok_or(Exhausted)?;
        self.meter.charge(1)?;
        match value {
            Json::Object(members) => {
                if rule.additional_properties.is_some() {
                    seen.all = true;
                }
                for name in members.names() {
                    self.meter.charge(rule.declared_steps(name))?;
                    if rule.declared(name).next().is_some() {
                        seen.names.insert(name.to_string());
                    }
                }
            }
            Json::Array(elements) => {
                seen.first = seen.first.max(rule.prefix_items.len());
                seen.all |= rule.items.is_some();
                let contains = rule.conditions.as_ref().and_then(|more| more.contains);
                if let Some((id, ..)) = contains {
                    for (index, element) in elements.iter().enumerate() {
                        if self.holds(id, element)? {
                            seen.indexes.insert(index);
                        }
                    }
                }
            }
            _ => {}
        }
        let mut ids: Vec<Id> = [&rule.all_of, &rule.any_of, &rule.one_of]
            .into_iter()
            .flatten()
            .copied()
            .collect();
        if let Some(more) = &rule.conditions {
            let others = more.unevaluated_properties.filter(|_| value.is_object());
            let others = others.or(more.unevaluated_items.filter(|_| !value.is_object()));
            seen.all |= others.is_some() && is == Is::Below;
            if let Some(condition) = more.if_ {
                if self.holds(condition, value)? {
                    ids.push(condition);
                    ids.extend(more.then);
                } else {
                    ids.extend(more.else_);
                }
            }
            if let Json::Object(members) = value {
                let dependents = more.dependent_schemas.iter();
                let steps = dependents.clone().map(|(name, _)| name_steps(name));
                self.meter.charge(steps.sum())?;
                let there = dependents.filter(|(name, _)| members.contains(name));
                ids.extend(there.map(|(_, id)| *id));
            }
        }
        for id in ids {
            if self.holds(id, value)? {
                self.see(self.rules.get(id), value, seen, Is::Below)?;
            }
        }
        self.levels += 1;
        Ok(())
    }
}

/// Whose parts are looked for.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Is {
    /// The rule that asks for what others have not seen.
    TheRule,
    /// One that it leads to.
    Below,
}

/// Which parts of a value rules have looked at.
#[derive(Default)]
struct Seen {
    all: bool,
    names: HashSet<String>,
    /// So many from the front.
    first: usize,
    indexes: HashSet<usize>,
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;
    use crate::meter::Unmetered;

    #[test]
    fn no_more_is_remembered_than_there_is_room_for() {
        let source = json!({
            "items": {"allOf": [{"$ref": "#/$defs/a"}, {"$ref": "#/$defs/a"}]},
            "$defs": {"a": {"type": "array", "maxItems": 0}},
        });
        let rules = Rules::read(&source).unwrap();
        let mut value = vec![Json::parse("[]").unwrap(); MAX_KNOWN + 1000];
        let holds = |value: &[Json]| {
            let mut meter = Unmetered;
            let mut evaluator = Evaluator::new(&rules, &mut meter);
            let value = value.iter().cloned().collect();
            let holds = evaluator.holds(Rules::ROOT, &value);
            assert_eq!(evaluator.known.map(|known| known.len()), Some(MAX_KNOWN));
            holds
        };
        assert_eq!(holds(&value), Ok(true));
        value.push(Json::parse("[1]").unwrap());
        assert_eq!(holds(&value), Ok(false));
    }
}

//! Whether a value that satisfied a schema still does after a patch, at a cost that follows
//! the patch rather than the value.
//!
//! `Schema::check_changes` asks. Each operation is followed down from the root, as long as
//! what a rule says of a value is no more than what it says of its size, of its members'
//! names and of each of its parts; those a [`Rule`] calls open. What changed is then checked
//! against the rules of its own place, and around it sizes and names alone. A rule that is
//! not open, alternatives for instance, is checked against the whole of its place.

use std::collections::HashSet;

use super::evaluate::Evaluator;
use super::rules::{Id, Rule, Rules};
use crate::json::Json;
use crate::meter::{Exhausted, Meter};
use crate::patch::PatchOp;
use crate::pointer::{Pointer, array_index};

/// How many rules are followed before the whole value is checked instead.
const MAX_STEPS: usize = 4_096;

/// What the changes tell of a value.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Verdict {
    /// It satisfies the schema.
    Holds,
    /// It does, with a number that is not written as the integer that it is.
    HoldsLoosely,
    /// It does not.
    Fails,
    /// Nothing: the whole value must be checked.
    Unknown,
}

/// Whether the value satisfies the schema.
pub(super) fn verdict(
    rules: &Rules,
    value: &Json,
    changes: &[PatchOp],
    meter: &mut dyn Meter,
) -> Result<Verdict, Exhausted> {
    let mut search = Search {
        rules,
        evaluator: Evaluator::new(rules, meter),
        steps: MAX_STEPS,
        checked: HashSet::new(),
    };
    for change in changes {
        let Ok(pointer) = Pointer::parse(change.path()) else {
            return Ok(Verdict::Unknown);
        };
        match search.follow(Rules::ROOT, value, pointer.tokens(), change)? {
            Some(true) => {}
            Some(false) => return Ok(Verdict::Fails),
            None => return Ok(Verdict::Unknown),
        }
    }
    Ok(match search.evaluator.has_loose_integers() {
        true => Verdict::HoldsLoosely,
        false => Verdict::Holds,
    })
}

/// What is checked of a place.
#[derive(Clone, Copy, PartialEq, Eq, Hash)]
enum Extent {
    All,
    /// Its type, its size, and the names of its members.
    Itself,
}

struct Search<'a, 'm> {
    rules: &'a Rules,
    evaluator: Evaluator<'a, 'm>,
    /// How many steps are left.
    steps: usize,
    /// What has been checked, by the place's address: many changes may be in one place.
    checked: HashSet<(Id, *const Json, Extent)>,
}

/// Whether a place satisfies a rule, none where the whole value must be checked, or that the
/// meter has given up.
type Found = Result<Option<bool>, Exhausted>;

impl Search<'_, '_> {
    /// Checks what a change to a place below `value` can have broken of a rule.
    fn follow(&mut self, id: Id, value: &Json, tokens: &[String], change: &PatchOp) -> Found {
        let Some(left) = self.steps.checked_sub(1) else {
            return Ok(None);
        };
        self.steps = left;
        self.evaluator.charge(1)?;
        let rules = self.rules;
        let rule = rules.get(id);
        let Some((token, below)) = tokens.split_first().filter(|_| rule.is_open) else {
            return self.all(id, value);
        };
        for next in &rule.all_of {
            let found = self.follow(*next, value, tokens, change)?;
            if found != Some(true) {
                return Ok(found);
            }
        }
        let is_parent = below.is_empty();
        let resizes = matches!(change, PatchOp::Add { .. } | PatchOp::Remove { .. });
        if is_parent && resizes && !self.itself(id, value)? {
            return Ok(Some(false));
        }
        let Some(child) = value.child(token) else {
            let is_gone = is_parent && matches!(change, PatchOp::Remove { .. });
            return Ok(is_gone.then_some(true));
        };
        if value.is_object() {
            self.evaluator.charge(rule.declared_steps(token))?;
        }
        for next in next(rule, value, token) {
            let found = self.follow(next, child, below, change)?;
            if found != Some(true) {
                return Ok(found);
            }
        }
        Ok(Some(true))
    }

    fn all(&mut self, id: Id, value: &Json) -> Found {
        if id == Rules::ROOT {
            return Ok(None);
        }
        if !self.checked.insert((id, value, Extent::All)) {
            return Ok(Some(true));
        }
        self.evaluator.holds(id, value).map(Some)
    }

    fn itself(&mut self, id: Id, value: &Json) -> Result<bool, Exhausted> {
        match self.checked.insert((id, value, Extent::Itself)) {
            true => self.evaluator.asserts(id, value),
            false => Ok(true),
        }
    }
}

/// The rules for a part of a value that has one of this name.
fn next(rule: &Rule, value: &Json, token: &str) -> Vec<Id> {
    match value {
        Json::Object(_) => {
            let declared: Vec<Id> = rule.declared(token).collect();
            if declared.is_empty() {
                rule.additional_properties.into_iter().collect()
            } else {
                declared
            }
        }
        _ => {
            let of_position = array_index(token).and_then(|index| rule.prefix_items.get(index));
            of_position.copied().or(rule.items).into_iter().collect()
        }
    }
}

#[cfg(test)]
mod tests;

//! Whether a value that satisfied a schema still does after a patch, at a cost that follows
//! the patch rather than the value.
//!
//! `Schema::check_changes` asks. Each operation is followed down from the root, as long as
//! what a rule says of a value is no more than what it says of its size, of its members'
//! names and of each of its parts; those a [`Rule`] calls open. What changed is then checked
//! against the rules of its own place, and around it sizes and names alone. A rule that is
//! not open, alternatives for instance, is checked against the whole of its place.

use std::collections::HashSet;

use serde_json::Value;

use super::rules::{Id, Rule, Rules};
use crate::patch::PatchOp;
use crate::pointer::{Pointer, array_index};

/// How many rules are followed before the whole value is checked instead.
const MAX_STEPS: usize = 4_096;

/// Whether the value satisfies the schema. `None` when that is not to be said from the
/// changes, and the whole value must be checked.
pub(super) fn verdict(
    rules: &Rules,
    source: &Value,
    value: &Value,
    changes: &[PatchOp],
) -> Option<bool> {
    let mut search = Search {
        rules,
        source,
        steps: MAX_STEPS,
        checked: HashSet::new(),
    };
    for change in changes {
        let pointer = Pointer::parse(change.path()).ok()?;
        if !search.follow(Rules::ROOT, value, pointer.tokens(), change)? {
            return Some(false);
        }
    }
    Some(true)
}

/// What is checked of a place.
#[derive(Clone, Copy, PartialEq, Eq, Hash)]
enum Extent {
    All,
    /// Its type, its size, and the names of its members.
    Itself,
}

struct Search<'a> {
    rules: &'a Rules,
    source: &'a Value,
    /// How many steps are left.
    steps: usize,
    /// What has been checked, by the place's address: many changes may be in one place.
    checked: HashSet<(Id, *const Value, Extent)>,
}

impl Search<'_> {
    /// Checks what a change to a place below `value` can have broken of a rule.
    fn follow(
        &mut self,
        id: Id,
        value: &Value,
        tokens: &[String],
        change: &PatchOp,
    ) -> Option<bool> {
        self.steps = self.steps.checked_sub(1)?;
        let rules = self.rules;
        let rule = rules.get(id);
        let Some((token, below)) = tokens.split_first().filter(|_| rule.is_open) else {
            return self.all(id, value);
        };
        for next in &rule.all_of {
            if !self.follow(*next, value, tokens, change)? {
                return Some(false);
            }
        }
        let is_parent = below.is_empty();
        let resizes = matches!(change, PatchOp::Add { .. } | PatchOp::Remove { .. });
        if is_parent && resizes && !self.itself(id, value) {
            return Some(false);
        }
        let Some(child) = child(value, token) else {
            let is_gone = is_parent && matches!(change, PatchOp::Remove { .. });
            return is_gone.then_some(true);
        };
        for next in next(rule, value, token) {
            if !self.follow(next, child, below, change)? {
                return Some(false);
            }
        }
        Some(true)
    }

    fn all(&mut self, id: Id, value: &Value) -> Option<bool> {
        if id == Rules::ROOT {
            return None;
        }
        if self.rules.get(id).never {
            return Some(false);
        }
        if !self.checked.insert((id, value, Extent::All)) {
            return Some(true);
        }
        let part = self.rules.part(id, self.source)?;
        Some(part.is_valid(value))
    }

    fn itself(&mut self, id: Id, value: &Value) -> bool {
        !self.checked.insert((id, value, Extent::Itself))
            || self.rules.get(id).assertions.allows(value)
    }
}

fn child<'v>(value: &'v Value, token: &str) -> Option<&'v Value> {
    match value {
        Value::Object(members) => members.get(token),
        Value::Array(elements) => elements.get(array_index(token)?),
        _ => None,
    }
}

/// The rules for a part of a value that has one of this name.
fn next(rule: &Rule, value: &Value, token: &str) -> Vec<Id> {
    match value {
        Value::Object(_) => {
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

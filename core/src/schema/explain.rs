//! Why a value does not satisfy a schema, for people.
//!
//! `Schema::check` asks when the validator has refused a value. The answer follows the
//! rules down the value, within a fixed number of steps; it may leave out details of rare
//! keywords.
//!
//! Invariants: whatever is walked through is counted, as a step or as a cost, and the search ends
//! where either is used up. At least one violation is named, if only that of the whole.

use super::evaluate::Evaluator;
use super::rules::{Id, Rule, Rules};
use super::{MAX_LISTED, Violation, Violations, kind_of, or_list, push_token, shown};
use crate::failure::cut;
use crate::json::Json;
use crate::meter::{Allowance, Exhausted, Meter};

/// How many rules are tried against places of the value before the search ends.
const MAX_STEPS: usize = 4_096;
/// How much may be spent on finding out what does not hold, in steps of a [`Meter`](crate::Meter).
const MAX_COST: u64 = 1 << 20;
/// How deep rules are followed, a level being a step into a subschema. Each takes some of
/// the stack; what lies deeper is left unexplained.
const MAX_LEVELS: usize = 512;

pub(super) fn explain(rules: &Rules, value: &Json) -> Violations {
    let mut search = Search {
        rules,
        path: String::new(),
        listed: Vec::new(),
        found: 0,
        keep: MAX_LISTED,
        steps: MAX_STEPS,
        levels: MAX_LEVELS,
        cost: Allowance::new(MAX_COST),
        suspicion: None,
    };
    search.walk(Rules::ROOT, value);
    if search.found == 0 {
        let suspicion = search.suspicion.take();
        search.path = suspicion.clone().unwrap_or_default();
        search.add(match suspicion {
            Some(_) => "matches more than one of the alternatives".to_owned(),
            None => "does not satisfy the schema".to_owned(),
        });
    }
    Violations {
        more: search.found - search.listed.len(),
        listed: search.listed,
    }
}

/// How many alternatives may match.
enum Wanted {
    /// `anyOf`
    AtLeastOne,
    /// `oneOf`
    One,
}

struct Search<'a> {
    rules: &'a Rules,
    /// The place in the value, a JSON pointer.
    path: String,
    listed: Vec<Violation>,
    found: usize,
    /// How many violations to list; the others are counted.
    keep: usize,
    /// How many steps are left.
    steps: usize,
    /// How many levels are left.
    levels: usize,
    /// What may still be spent.
    cost: Allowance,
    /// Where several alternatives of a `oneOf` seem to match, which counts only when
    /// nothing else is wrong: the search does not look at every keyword.
    suspicion: Option<String>,
}

impl Search<'_> {
    fn add(&mut self, message: String) {
        let violation = Violation {
            path: self.path.clone(),
            message,
        };
        // Two rules that say the same of one place are one violation to a reader.
        if self.listed.contains(&violation) {
            return;
        }
        self.found += 1;
        if self.listed.len() < self.keep {
            self.listed.push(violation);
        }
    }

    fn within<T>(&mut self, token: &str, then: impl FnOnce(&mut Self) -> T) -> T {
        let length = self.path.len();
        push_token(&mut self.path, &cut(token));
        let done = then(self);
        self.path.truncate(length);
        done
    }

    /// Whether so much may still be spent, which then is. Where it may not, the search ends here
    /// and elsewhere.
    fn may(&mut self, steps: u64) -> bool {
        let may = self.cost.charge(steps).is_ok();
        if !may {
            self.steps = 0;
        }
        may
    }

    fn walk(&mut self, id: Id, value: &Json) {
        if self.steps == 0 || self.levels == 0 {
            return;
        }
        self.steps -= 1;
        self.levels -= 1;
        self.apply(self.rules.get(id), value);
        self.levels += 1;
    }

    fn apply(&mut self, rule: &Rule, value: &Json) {
        if rule.never {
            return self.add(format!("expected nothing, found {}", kind_of(value)));
        }
        let mut faults = Vec::new();
        let tell = |fault| faults.push(fault);
        // What is too much to look at is left out.
        let _ = rule.assertions.faults(value, &mut self.cost, tell);
        for fault in faults {
            self.steps = self.steps.saturating_sub(1);
            match fault.missing() {
                Some(name) => self.within(name, |this| this.add("missing".to_owned())),
                None => self.add(fault.describe(value)),
            }
        }
        for next in &rule.all_of {
            self.walk(*next, value);
        }
        self.alternatives(&rule.any_of, Wanted::AtLeastOne, value);
        self.alternatives(&rule.one_of, Wanted::One, value);
        match value {
            Json::Object(members) if rule.has_members => {
                for (name, member) in members.iter() {
                    if self.steps == 0 || !self.may(rule.declared_steps(name)) {
                        break;
                    }
                    self.within(name, |this| this.member(rule, name, member));
                }
            }
            Json::Array(elements) if rule.has_elements => {
                for (index, element) in elements.iter().enumerate() {
                    let next = rule.prefix_items.get(index).copied().or(rule.items);
                    match next {
                        Some(_) if self.steps == 0 || !self.may(1) => break,
                        Some(next) => {
                            self.within(&index.to_string(), |this| this.walk(next, element));
                        }
                        None => break,
                    }
                }
            }
            _ => {}
        }
        if rule.conditions.is_some() {
            self.conditions(rule, value);
        }
    }

    /// What is decided as a whole, and what is said of it.
    fn conditions(&mut self, rule: &Rule, value: &Json) {
        type Check = fn(&mut Evaluator<'_, '_>, &Rule, &Json) -> Result<bool, Exhausted>;
        const CONDITIONS: [(Check, &str); 5] = [
            (
                |evaluator, rule, value| evaluator.is_not_excluded(rule, value),
                "matches what is excluded by `not`",
            ),
            (
                |evaluator, rule, value| evaluator.contains_holds(rule, value),
                "the number of elements that match `contains` is wrong",
            ),
            (
                |evaluator, rule, value| evaluator.names_hold(rule, value),
                "a member's name is not allowed",
            ),
            (
                |evaluator, rule, value| evaluator.dependents_hold(rule, value),
                "does not fit the members that are there",
            ),
            (
                |evaluator, rule, value| evaluator.if_holds(rule, value),
                "does not satisfy the schema's `if`, `then` and `else`",
            ),
        ];
        for (check, text) in CONDITIONS {
            let mut evaluator = Evaluator::new(self.rules, &mut self.cost);
            if let Ok(false) = check(&mut evaluator, rule, value) {
                self.add(text.to_owned());
            }
        }
    }

    fn member(&mut self, rule: &Rule, name: &str, member: &Json) {
        let mut declared = false;
        for next in rule.declared(name) {
            declared = true;
            self.walk(next, member);
        }
        match rule.additional_properties {
            Some(next) if !declared && self.rules.get(next).never => {
                self.add("unexpected".to_owned());
            }
            Some(next) if !declared => self.walk(next, member),
            _ => {}
        }
    }

    /// Explains why none of the alternatives fits, by the one that was meant if that can
    /// be told.
    fn alternatives(&mut self, ids: &[Id], wanted: Wanted, value: &Json) {
        if ids.is_empty() {
            return;
        }
        let meant: Vec<Id> = ids
            .iter()
            .copied()
            .filter(|id| self.is_shaped(*id, value))
            .collect();
        if self.steps == 0 {
            return;
        }
        match meant[..] {
            [] => self.none_shaped(ids, value),
            [only] => self.walk(only, value),
            _ => {
                let refused = meant
                    .iter()
                    .filter(|id| self.is_refused(**id, value))
                    .count();
                if refused == meant.len() {
                    self.add(format!("matches none of {} alternatives", ids.len()));
                } else if refused + 1 < meant.len()
                    && matches!(wanted, Wanted::One)
                    && self.steps > 0
                {
                    self.suspicion.get_or_insert_with(|| self.path.clone());
                }
            }
        }
    }

    /// Whether the value has the shape that tells this alternative from the others.
    fn is_shaped(&mut self, id: Id, value: &Json) -> bool {
        let rule = self.rules.get(id);
        self.steps = self.steps.saturating_sub(1);
        self.steps > 0
            && !rule.never
            && rule.shape.fits(value, &mut self.cost).unwrap_or(true)
            && rule.all_of.iter().all(|next| self.is_shaped(*next, value))
    }

    /// Whether this search finds anything against the value.
    fn is_refused(&mut self, id: Id, value: &Json) -> bool {
        let mut search = Search {
            rules: self.rules,
            path: String::new(),
            listed: Vec::new(),
            found: 0,
            keep: 0,
            steps: self.steps,
            levels: self.levels,
            cost: self.cost,
            suspicion: None,
        };
        search.walk(id, value);
        self.steps = search.steps;
        self.cost = search.cost;
        search.found > 0
    }

    /// No alternative has the value's shape: what shapes there are.
    fn none_shaped(&mut self, ids: &[Id], value: &Json) {
        let mut expected = Vec::new();
        for id in ids {
            let mut simple = Vec::new();
            if !self.simple_shape(*id, value, &mut simple) {
                return self.add(format!("matches none of {} alternatives", ids.len()));
            }
            expected.extend(simple);
        }
        expected.dedup();
        if expected.len() > MAX_LISTED {
            let more = expected.len() - MAX_LISTED;
            expected.truncate(MAX_LISTED);
            expected.push(format!("{more} others"));
        }
        const TYPES: [&str; 6] = ["null", "boolean", "number", "string", "array", "object"];
        let found = if expected.iter().all(|name| TYPES.contains(&name.as_str())) {
            kind_of(value).to_owned()
        } else {
            shown(value)
        };
        self.add(format!("expected {}, found {found}", or_list(expected)));
    }

    /// The types or constants that an alternative wants, when that is all that its shape
    /// says.
    fn simple_shape(&self, id: Id, value: &Json, names: &mut Vec<String>) -> bool {
        let rule = self.rules.get(id);
        match rule.all_of[..] {
            [only] if rule.shape.is_empty() => self.simple_shape(only, value, names),
            [] => rule.shape.names(value, names),
            _ => false,
        }
    }
}

//! Works out patches: collects the changes between two documents, or those that a staged
//! document knows of, and writes them as [`PatchOp`]s.
//!
//! `patch::diff` and the past of a document drive it. It keeps the dialect (see the
//! parent module) and the bound on a patch's size: a container whose changes are many
//! and longer than itself is sent whole.
//!
//! What it makes leads to the new document with its members in their order: one that does not
//! stand where it comes to stand by the other changes is removed and added again.

use std::fmt::Write;

use super::{Lengths, PatchOp};
use crate::document::MAX_NESTING;
use crate::json::{Json, Number, Object};
use crate::meter::{Exhausted, Meter, STEP_BYTES};
use crate::pointer::write_escaped;

/// Changes that a container may have before their size is weighed against its own.
const FEW: usize = 32;

/// Bytes of an encoded operation beside its path and its value.
const FRAME: usize = r#"{"op":"replace","path":"","value":},"#.len();

/// A patch in the making. Values and names stay borrowed until [`Differ::finish`], so
/// that changes which end up inside a replaced container cost no copies.
pub(crate) struct Differ<'a, 'm> {
    meter: &'m mut dyn Meter,
    /// The tokens of all changed places, each knowing the one above it.
    steps: Vec<Step<'a>>,
    changes: Vec<Change<'a>>,
    /// The estimated encoded size of `changes`.
    bytes: usize,
    /// Whether a change is at a place whose path the dialect reads as the root.
    root_must_be_replaced: bool,
}

struct Step<'a> {
    above: Option<usize>,
    token: Token<'a>,
}

/// One token of a path.
#[derive(Clone, Copy)]
pub(crate) enum Token<'a> {
    Member(&'a str),
    Element(usize),
}

struct Change<'a> {
    step: Option<usize>,
    kind: Kind<'a>,
}

enum Kind<'a> {
    Add(&'a Json),
    Replace(&'a Json),
    Remove,
    /// The string has grown: what it was, and what has come at its end.
    Append(&'a str, &'a str),
}

/// Where the differ is in the document.
#[derive(Clone, Copy)]
pub(crate) struct Place {
    /// The last step of the path; the root has none.
    step: Option<usize>,
    depth: usize,
    path_bytes: usize,
}

/// How far the patch was when a container was entered.
#[derive(Clone, Copy)]
pub(crate) struct Mark {
    changes: usize,
    bytes: usize,
}

impl Place {
    pub(crate) const ROOT: Place = Place {
        step: None,
        depth: 0,
        path_bytes: 0,
    };
}

/// An estimate of an encoded size, or that the meter has given up.
pub(crate) type Estimate = Result<usize, Exhausted>;

impl<'a, 'm> Differ<'a, 'm> {
    pub(crate) fn new(meter: &'m mut dyn Meter) -> Self {
        Self {
            meter,
            steps: Vec::new(),
            changes: Vec::new(),
            bytes: 0,
            root_must_be_replaced: false,
        }
    }

    /// Collects the changes that lead from `old` to `new` at a place, and returns a lower bound
    /// of the encoded size of `new`.
    pub(crate) fn compare(&mut self, at: Place, old: &'a Json, new: &'a Json) -> Estimate {
        if old.is_same_as(new) {
            self.meter.charge(1)?;
            return Ok(2);
        }
        match (old, new) {
            (Json::Object(olds), Json::Object(news)) if at.depth < MAX_NESTING => {
                let mark = self.mark();
                let size = 2 + self.compare_members(at, olds, news)?;
                self.close(mark, at, new, size)
            }
            (Json::Array(olds), Json::Array(news)) if at.depth < MAX_NESTING => {
                let mark = self.mark();
                let size = 2 + self.compare_elements(at, 0, olds.iter(), news)?;
                self.close(mark, at, new, size)
            }
            _ => {
                self.meter.charge(steps_to_compare(old, new))?;
                if old == new {
                    Ok(encoded_size_up_to(new, SCALAR))
                } else {
                    self.replace(at, new)
                }
            }
        }
    }

    /// Members that stand in both in the same order are compared. From the first on that does
    /// not, they are removed and added: then they come to stand behind the others.
    fn compare_members(&mut self, at: Place, olds: &'a Object, news: &'a Object) -> Estimate {
        self.meter.charge((olds.len() + news.len()) as u64)?;
        let mut size = 0;
        // What of the old object has not been passed yet.
        let mut rest = olds.entries().peekable();
        let mut removed = Vec::new();
        let mut members = news.iter().peekable();
        while let Some((name, new)) = members.peek().copied() {
            let is_next = rest.peek().is_some_and(|(_, before, _)| *before == name);
            if !is_next {
                let slot = olds.slot_of(name);
                let behind = rest.peek().map(|(slot, ..)| *slot);
                if slot.zip(behind).is_none_or(|(slot, behind)| slot < behind) {
                    break;
                }
            }
            for (_, before, old) in rest.by_ref() {
                if before == name {
                    let token = Token::Member(name);
                    size += member_overhead(name)
                        + self.within(at, token, |differ, at| differ.compare(at, old, new))?;
                    break;
                }
                removed.push(before.as_str());
            }
            members.next();
        }
        removed.extend(rest.map(|(_, name, _)| name.as_str()));
        let added = members.map(|(name, value)| (name.as_str(), value));
        Ok(size + self.members_came_and_went(at, removed, added)?)
    }

    /// Collects members that are gone, then members that are new; returns the size of the
    /// new ones.
    pub(crate) fn members_came_and_went(
        &mut self,
        at: Place,
        removed: impl IntoIterator<Item = &'a str>,
        added: impl IntoIterator<Item = (&'a str, &'a Json)>,
    ) -> Estimate {
        for name in removed {
            self.within(at, Token::Member(name), Self::remove)?;
        }
        let mut size = 0;
        for (name, value) in added {
            let token = Token::Member(name);
            size += member_overhead(name)
                + self.within(at, token, |differ, at| differ.add(at, value))?;
        }
        Ok(size)
    }

    /// Compares the ends of two arrays by index, where both ends start at index `start`:
    /// changes at the common indexes, then removals from the tail down or additions at
    /// the tail. Returns the size of the new end.
    pub(crate) fn compare_elements(
        &mut self,
        at: Place,
        start: usize,
        mut olds: impl ExactSizeIterator<Item = &'a Json>,
        news: &'a [Json],
    ) -> Estimate {
        let mut size = 0;
        let common = olds.len().min(news.len());
        let (both, added) = news.split_at(common);
        for (index, (new, old)) in (start..).zip(both.iter().zip(olds.by_ref())) {
            let token = Token::Element(index);
            size += 1 + self.within(at, token, |differ, at| differ.compare(at, old, new))?;
        }
        let end = start + common;
        for index in (end..end + olds.len()).rev() {
            self.within(at, Token::Element(index), Self::remove)?;
        }
        for (index, new) in (end..).zip(added) {
            let token = Token::Element(index);
            size += 1 + self.within(at, token, |differ, at| differ.add(at, new))?;
        }
        Ok(size)
    }

    /// Runs `collect` one level further down.
    pub(crate) fn within<R>(
        &mut self,
        at: Place,
        token: Token<'a>,
        collect: impl FnOnce(&mut Self, Place) -> R,
    ) -> R {
        let (step, changes) = (self.steps.len(), self.changes.len());
        self.steps.push(Step {
            above: at.step,
            token,
        });
        let below = Place {
            step: Some(step),
            depth: at.depth + 1,
            path_bytes: at.path_bytes + 1 + token.size(),
        };
        let result = collect(self, below);
        if self.changes.len() == changes {
            self.steps.truncate(step);
        }
        result
    }

    /// Adds a value at a place and returns its estimated encoded size.
    pub(crate) fn add(&mut self, at: Place, value: &'a Json) -> Estimate {
        let size = encoded_size(value);
        self.push(at, Kind::Add(value), size)?;
        Ok(size)
    }

    /// Replaces the value at a place and returns the new one's estimated encoded size.
    pub(crate) fn replace(&mut self, at: Place, value: &'a Json) -> Estimate {
        let size = encoded_size(value);
        self.push(at, Kind::Replace(value), size)?;
        Ok(size)
    }

    /// Appends the bytes of `text` from `start` on to the string at a place, and returns the
    /// estimated encoded size of the whole.
    pub(crate) fn append(&mut self, at: Place, text: &'a str, start: usize) -> Estimate {
        let (before, appended) = text.split_at(start);
        self.push(at, Kind::Append(before, appended), appended.len() + 2)?;
        Ok(text.len() + 2)
    }

    fn remove(&mut self, at: Place) -> Result<(), Exhausted> {
        self.push(at, Kind::Remove, 0)
    }

    fn push(&mut self, at: Place, kind: Kind<'a>, value_bytes: usize) -> Result<(), Exhausted> {
        let bytes = FRAME + at.path_bytes + value_bytes;
        self.meter.charge(1 + (bytes / STEP_BYTES) as u64)?;
        // The path of the root's member "" is "/", which the dialect takes for the root.
        self.root_must_be_replaced |= at.depth == 1 && at.path_bytes == 1;
        self.bytes += bytes;
        self.changes.push(Change {
            step: at.step,
            kind,
        });
        Ok(())
    }

    /// Marks where a container's changes begin, for [`Differ::close`].
    pub(crate) fn mark(&self) -> Mark {
        Mark {
            changes: self.changes.len(),
            bytes: self.bytes,
        }
    }

    /// Ends a container: sends it whole when its changes since `mark` are many and longer
    /// than itself. `at_least` is a lower bound of its encoded size; so is the result.
    ///
    /// Sizing stops at the size of the changes, so that few changes in a large container
    /// stay cheap.
    pub(crate) fn close(
        &mut self,
        mark: Mark,
        at: Place,
        container: &'a Json,
        at_least: usize,
    ) -> Estimate {
        let changes = self.changes.len() - mark.changes;
        let bytes = self.bytes - mark.bytes;
        let overhead = FRAME + at.path_bytes;
        if changes <= FEW || bytes <= overhead + at_least {
            return Ok(at_least);
        }
        let size = encoded_size_up_to(container, bytes);
        if bytes <= overhead + size {
            return Ok(size.max(at_least));
        }
        self.changes.truncate(mark.changes);
        self.steps.truncate(at.step.map_or(0, |step| step + 1));
        self.bytes = mark.bytes;
        self.push(at, Kind::Replace(container), size)?;
        Ok(size)
    }

    /// The patch; `document` is what it leads to, and `lengths` what is known of the texts
    /// in the document before. Its values share what the document holds.
    pub(crate) fn finish(self, document: &Json, lengths: &mut Lengths) -> Vec<PatchOp> {
        if self.root_must_be_replaced {
            return vec![PatchOp::Replace {
                path: String::new(),
                value: document.clone(),
            }];
        }
        self.changes
            .iter()
            .map(|change| {
                let path = self.path(change.step);
                match change.kind {
                    Kind::Add(value) => PatchOp::Add {
                        path,
                        value: value.clone(),
                    },
                    Kind::Replace(value) => PatchOp::Replace {
                        path,
                        value: value.clone(),
                    },
                    Kind::Remove => PatchOp::Remove { path },
                    Kind::Append(before, appended) => PatchOp::StrIns {
                        pos: lengths.units(&path, before),
                        path,
                        text: appended.to_owned(),
                    },
                }
            })
            .collect()
    }

    fn path(&self, last: Option<usize>) -> String {
        let mut tokens = Vec::new();
        let mut next = last;
        while let Some(index) = next {
            let step = &self.steps[index];
            tokens.push(step.token);
            next = step.above;
        }
        let mut path = String::new();
        for token in tokens.into_iter().rev() {
            path.push('/');
            match token {
                Token::Member(name) => write_escaped(&mut path, name),
                Token::Element(index) => write!(path, "{index}"),
            }
            .expect("writing to a string does not fail");
        }
        path
    }
}

impl Token<'_> {
    fn size(self) -> usize {
        match self {
            Token::Member(name) => name.len(),
            Token::Element(index) => digits(index as u64),
        }
    }
}

/// Quotes, colon and comma of a member, and its name.
fn member_overhead(name: &str) -> usize {
    name.len() + 4
}

fn digits(number: u64) -> usize {
    number.checked_ilog10().unwrap_or(0) as usize + 1
}

/// More than any scalar takes that is not a string, and enough to know of one.
const SCALAR: usize = 64;

/// What it costs to compare two values of which one at least is a scalar.
fn steps_to_compare(old: &Json, new: &Json) -> u64 {
    match (old, new) {
        (Json::String(old), Json::String(new)) => {
            1 + (old.len().min(new.len()) / STEP_BYTES) as u64
        }
        _ => 1,
    }
}

/// The encoded size of a value, but for escapes in strings and the digits of fractions.
fn encoded_size(value: &Json) -> usize {
    encoded_size_up_to(value, usize::MAX)
}

/// The encoded size of a value, or some size from `enough` up when it is at least that.
fn encoded_size_up_to(value: &Json, enough: usize) -> usize {
    let children_up_to = |sizes: &mut dyn Iterator<Item = (usize, &Json)>| {
        let mut size = 2;
        for (overhead, child) in sizes {
            if size >= enough {
                break;
            }
            size += overhead;
            size += encoded_size_up_to(child, enough.saturating_sub(size));
        }
        size
    };
    match value {
        Json::Null => 4,
        Json::Bool(_) => 5,
        Json::Number(Number::Natural(number)) => digits(*number),
        Json::Number(Number::Negative(number)) => 1 + digits(number.unsigned_abs()),
        Json::Number(Number::Float(_)) => 18,
        Json::String(text) => text.len() + 2,
        Json::Array(elements) => children_up_to(&mut elements.iter().map(|child| (1, child))),
        Json::Object(members) => children_up_to(
            &mut members
                .iter()
                .map(|(name, child)| (member_overhead(name), child)),
        ),
    }
}

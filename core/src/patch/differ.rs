//! Works out patches: collects the changes between two documents, or those that a staged
//! document knows of, and writes them as [`PatchOp`]s.
//!
//! `patch::diff` and the past of a document drive it. It keeps the dialect (see the
//! parent module) and the bound on a patch's size: a container whose changes are many
//! and longer than itself is sent whole.

use std::fmt::Write;

use serde_json::{Map, Value};

use super::{Lengths, PatchOp};
use crate::document::MAX_NESTING;
use crate::pointer::write_escaped;

/// Changes that a container may have before their size is weighed against its own.
const FEW: usize = 32;

/// Bytes of an encoded operation beside its path and its value.
const FRAME: usize = r#"{"op":"replace","path":"","value":},"#.len();

/// A patch in the making. Values and names stay borrowed until [`Differ::finish`], so
/// that changes which end up inside a replaced container cost no copies.
pub(crate) struct Differ<'a> {
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
    Add(&'a Value),
    Replace(&'a Value),
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

impl<'a> Differ<'a> {
    pub(crate) fn new() -> Self {
        Self {
            steps: Vec::new(),
            changes: Vec::new(),
            bytes: 0,
            root_must_be_replaced: false,
        }
    }

    /// Collects the changes that lead from `old` to `new` at a place, and returns the
    /// estimated encoded size of `new`.
    pub(crate) fn compare(&mut self, at: Place, old: &'a Value, new: &'a Value) -> usize {
        match (old, new) {
            (Value::Object(olds), Value::Object(news)) if at.depth < MAX_NESTING => {
                let mark = self.mark();
                let size = 2 + self.compare_members(at, olds, news);
                self.close(mark, at, new, size)
            }
            (Value::Array(olds), Value::Array(news)) if at.depth < MAX_NESTING => {
                let mark = self.mark();
                let size = 2 + self.compare_elements(at, 0, olds.iter(), news);
                self.close(mark, at, new, size)
            }
            _ => {
                if old == new {
                    encoded_size(new)
                } else {
                    self.replace(at, new)
                }
            }
        }
    }

    fn compare_members(
        &mut self,
        at: Place,
        olds: &'a Map<String, Value>,
        news: &'a Map<String, Value>,
    ) -> usize {
        let mut size = 0;
        let mut added = Vec::new();
        for (name, new) in news {
            match olds.get(name) {
                Some(old) => {
                    let token = Token::Member(name);
                    size += member_overhead(name)
                        + self.within(at, token, |differ, at| differ.compare(at, old, new));
                }
                None => added.push((name.as_str(), new)),
            }
        }
        let removed = olds
            .keys()
            .map(String::as_str)
            .filter(|name| !news.contains_key(*name));
        size + self.members_came_and_went(at, removed, added)
    }

    /// Collects members that are gone, then members that are new; returns the size of the
    /// new ones.
    pub(crate) fn members_came_and_went(
        &mut self,
        at: Place,
        removed: impl IntoIterator<Item = &'a str>,
        added: impl IntoIterator<Item = (&'a str, &'a Value)>,
    ) -> usize {
        for name in removed {
            self.within(at, Token::Member(name), Self::remove);
        }
        let mut size = 0;
        for (name, value) in added {
            let token = Token::Member(name);
            size +=
                member_overhead(name) + self.within(at, token, |differ, at| differ.add(at, value));
        }
        size
    }

    /// Compares the ends of two arrays by index, where both ends start at index `start`:
    /// changes at the common indexes, then removals from the tail down or additions at
    /// the tail. Returns the size of the new end.
    pub(crate) fn compare_elements(
        &mut self,
        at: Place,
        start: usize,
        mut olds: impl ExactSizeIterator<Item = &'a Value>,
        news: &'a [Value],
    ) -> usize {
        let mut size = 0;
        let common = olds.len().min(news.len());
        let (both, added) = news.split_at(common);
        for (index, (new, old)) in (start..).zip(both.iter().zip(olds.by_ref())) {
            let token = Token::Element(index);
            size += 1 + self.within(at, token, |differ, at| differ.compare(at, old, new));
        }
        let end = start + common;
        for index in (end..end + olds.len()).rev() {
            self.within(at, Token::Element(index), Self::remove);
        }
        for (index, new) in (end..).zip(added) {
            let token = Token::Element(index);
            size += 1 + self.within(at, token, |differ, at| differ.add(at, new));
        }
        size
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
    pub(crate) fn add(&mut self, at: Place, value: &'a Value) -> usize {
        let size = encoded_size(value);
        self.push(at, Kind::Add(value), size);
        size
    }

    /// Replaces the value at a place and returns the new one's estimated encoded size.
    pub(crate) fn replace(&mut self, at: Place, value: &'a Value) -> usize {
        let size = encoded_size(value);
        self.push(at, Kind::Replace(value), size);
        size
    }

    /// Appends the bytes of `text` from `start` on to the string at a place, and returns the
    /// estimated encoded size of the whole.
    pub(crate) fn append(&mut self, at: Place, text: &'a str, start: usize) -> usize {
        let (before, appended) = text.split_at(start);
        self.push(at, Kind::Append(before, appended), appended.len() + 2);
        text.len() + 2
    }

    fn remove(&mut self, at: Place) {
        self.push(at, Kind::Remove, 0);
    }

    fn push(&mut self, at: Place, kind: Kind<'a>, value_bytes: usize) {
        // The path of the root's member "" is "/", which the dialect takes for the root.
        self.root_must_be_replaced |= at.depth == 1 && at.path_bytes == 1;
        self.bytes += FRAME + at.path_bytes + value_bytes;
        self.changes.push(Change {
            step: at.step,
            kind,
        });
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
        container: &'a Value,
        at_least: usize,
    ) -> usize {
        let changes = self.changes.len() - mark.changes;
        let bytes = self.bytes - mark.bytes;
        let overhead = FRAME + at.path_bytes;
        if changes <= FEW || bytes <= overhead + at_least {
            return at_least;
        }
        let size = encoded_size_up_to(container, bytes);
        if bytes <= overhead + size {
            return size.max(at_least);
        }
        self.changes.truncate(mark.changes);
        self.steps.truncate(at.step.map_or(0, |step| step + 1));
        self.bytes = mark.bytes;
        self.push(at, Kind::Replace(container), size);
        size
    }

    /// The patch; `document` is what it leads to, and `lengths` what is known of the texts
    /// in the document before.
    pub(crate) fn finish(self, document: &Value, lengths: &mut Lengths) -> Vec<PatchOp> {
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

/// The encoded size of a value, but for escapes in strings and the digits of fractions.
fn encoded_size(value: &Value) -> usize {
    encoded_size_up_to(value, usize::MAX)
}

/// The encoded size of a value, or some size from `enough` up when it is at least that.
fn encoded_size_up_to(value: &Value, enough: usize) -> usize {
    let children_up_to = |sizes: &mut dyn Iterator<Item = (usize, &Value)>| {
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
        Value::Null => 4,
        Value::Bool(_) => 5,
        Value::Number(number) => match (number.as_u64(), number.as_i64()) {
            (Some(natural), _) => digits(natural),
            (None, Some(negative)) => 1 + digits(negative.unsigned_abs()),
            (None, None) => 18,
        },
        Value::String(text) => text.len() + 2,
        Value::Array(elements) => children_up_to(&mut elements.iter().map(|child| (1, child))),
        Value::Object(members) => children_up_to(
            &mut members
                .iter()
                .map(|(name, child)| (member_overhead(name), child)),
        ),
    }
}

//! Where the rules of a schema stand in its text: as JSON pointers, for people.

use std::borrow::Cow;

use super::push_token;
use super::rules::Id;

/// The places of rules, by their ids.
#[derive(Default)]
pub(super) struct Places(Vec<Place>);

/// Where a subschema stands, written out only when something is wrong with it.
pub(super) enum Place {
    Root,
    /// Where a `$ref` leads to: its text.
    Target(Box<str>),
    Keyword(Id, &'static str),
    Member(Id, &'static str, Box<str>),
    Element(Id, &'static str, usize),
}

impl Places {
    /// Adds the place of the rule with the next id.
    pub(super) fn push(&mut self, place: Place) {
        self.0.push(place);
    }

    /// The JSON pointer of a subschema. Of one below an anchor that a `$ref` leads to, it begins
    /// with the anchor's name.
    pub(super) fn pointer(&self, id: Id) -> String {
        let (start, tokens) = self.way(id);
        let start = start.trim_start_matches('#');
        let mut pointer = percent_decoded(start).unwrap_or_default();
        for token in tokens {
            push_token(&mut pointer, &token);
        }
        pointer
    }

    /// The way to a subschema: the reference to where it starts, and the tokens from there.
    fn way(&self, id: Id) -> (&str, Vec<Cow<'_, str>>) {
        let mut tokens: Vec<Cow<str>> = Vec::new();
        let mut here = id;
        let start = loop {
            here = match &self.0[here] {
                Place::Root => break "#",
                Place::Target(reference) => break reference,
                Place::Keyword(parent, keyword) => {
                    tokens.push(Cow::Borrowed(keyword));
                    *parent
                }
                Place::Member(parent, keyword, name) => {
                    tokens.extend([Cow::Borrowed(&**name), Cow::Borrowed(*keyword)]);
                    *parent
                }
                Place::Element(parent, keyword, index) => {
                    tokens.extend([Cow::Owned(index.to_string()), Cow::Borrowed(*keyword)]);
                    *parent
                }
            };
        };
        tokens.reverse();
        (start, tokens)
    }
}

/// The text of a URI's fragment.
pub(super) fn percent_decoded(text: &str) -> Option<String> {
    let mut bytes = Vec::with_capacity(text.len());
    let mut rest = text.as_bytes();
    while let [first, after @ ..] = rest {
        if *first == b'%' {
            let digits = after.get(..2)?;
            let digits = digits.iter().all(u8::is_ascii_hexdigit).then_some(digits)?;
            let digits = std::str::from_utf8(digits).ok()?;
            bytes.push(u8::from_str_radix(digits, 16).ok()?);
            rest = &after[2..];
        } else {
            bytes.push(*first);
            rest = after;
        }
    }
    String::from_utf8(bytes).ok()
}

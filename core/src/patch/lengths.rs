//! How long texts are in UTF-16 code units, as far as that is known.
//!
//! A document keeps it between its commits, so that a text which grows is not counted from
//! its beginning each time.
//!
//! Invariant: the text at a known path of the last committed content begins with so many
//! bytes that are so many units. It is the one who commits other changes of a place that
//! has to [`forget`](Lengths::forget) it.

use std::collections::BTreeMap;

/// Texts shorter than this, in bytes, are counted each time. Tests know short texts too, so
/// that random documents reach all of this.
const SHORT: usize = if cfg!(test) { 4 } else { 1024 };
/// How many texts are known; beyond that all are forgotten.
const MAX_KNOWN: usize = 64;

/// What is known of the texts of a document.
#[derive(Debug, Default)]
pub(crate) struct Lengths {
    known: BTreeMap<String, Beginning>,
}

#[derive(Clone, Copy, Debug)]
struct Beginning {
    bytes: usize,
    units: usize,
}

impl Lengths {
    /// How many UTF-16 units the text at a path has in the last committed content. It costs
    /// what has been appended since this was last asked.
    pub(crate) fn units(&mut self, path: &str, text: &str) -> usize {
        if text.len() < SHORT {
            return count(text);
        }
        if let Some(beginning) = self.known.get_mut(path) {
            beginning.units += count(&text[beginning.bytes..]);
            beginning.bytes = text.len();
            return beginning.units;
        }
        if self.known.len() == MAX_KNOWN {
            self.known.clear();
        }
        let (bytes, units) = (text.len(), count(text));
        self.known
            .insert(path.to_owned(), Beginning { bytes, units });
        units
    }

    /// Forgets the text at a path and those below it.
    pub(crate) fn forget(&mut self, path: &str) {
        if self.known.is_empty() {
            return;
        }
        self.known.remove(path);
        // `0` follows `/`, so these bounds enclose what begins with the path and a slash.
        let below = format!("{path}/")..format!("{path}0");
        while let Some((path, _)) = self.known.range(below.clone()).next() {
            let path = path.clone();
            self.known.remove(&path);
        }
    }

    /// Forgets everything.
    pub(crate) fn clear(&mut self) {
        self.known.clear();
    }
}

/// The UTF-16 code units of a text: one for each character, and another one for those that
/// take four bytes in UTF-8.
fn count(text: &str) -> usize {
    let units = |byte: u8| usize::from(byte & 0xC0 != 0x80) + usize::from(byte >= 0xF0);
    text.bytes().map(units).sum()
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn forgetting_a_place_forgets_what_is_below_it_and_nothing_else() {
        let long = "x".repeat(SHORT);
        let mut lengths = Lengths::default();
        for path in ["", "/a", "/a/b", "/a/b/0", "/a-b", "/a0", "/ab", "/b"] {
            lengths.units(path, &long);
        }
        lengths.forget("/a");
        let left: Vec<&String> = lengths.known.keys().collect();
        assert_eq!(left, ["", "/a-b", "/a0", "/ab", "/b"]);
        lengths.forget("");
        assert!(lengths.known.is_empty());
    }

    #[test]
    fn only_so_many_texts_are_known() {
        let long = "x".repeat(SHORT);
        let mut lengths = Lengths::default();
        for n in 0..1000 {
            assert_eq!(lengths.units(&format!("/{n}"), &long), SHORT);
        }
        assert!(lengths.known.len() <= MAX_KNOWN);
    }

    proptest! {
        #[test]
        fn a_growing_text_is_counted_as_encode_utf16_has_it(parts in prop::collection::vec(".*", 0..5)) {
            let mut lengths = Lengths::default();
            let mut text = String::new();
            for part in parts {
                text.push_str(&part);
                prop_assert_eq!(lengths.units("/t", &text), text.encode_utf16().count());
            }
        }
    }
}

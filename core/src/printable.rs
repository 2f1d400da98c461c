//! Text from outside within lines for people: in the log, and on an operator's terminal.
//!
//! A character that ends a line, moves the cursor or turns the direction of writing around
//! would let whoever wrote it say something in somebody else's name. Such characters are shown
//! by their escapes, as Rust writes them in strings. The tab, which does none of this, stays.

use std::borrow::Cow;
use std::fmt::{self, Write};

/// Whether a character stands for itself and nothing else.
fn is_plain(character: char) -> bool {
    match character {
        '\t' => true,
        // Line and paragraph separator, which some take for line breaks.
        '\u{2028}' | '\u{2029}' => false,
        // What turns the direction of writing around (UAX #9, sections 2.1 to 2.6).
        '\u{061c}' | '\u{200e}' | '\u{200f}' => false,
        '\u{202a}'..='\u{202e}' | '\u{2066}'..='\u{2069}' => false,
        // C0, DEL and C1.
        other => !other.is_control(),
    }
}

/// Writes plain text to what is in it.
pub struct Printable<W>(pub W);

impl<W: Write> Write for Printable<W> {
    fn write_str(&mut self, text: &str) -> fmt::Result {
        let mut rest = text;
        while let Some(place) = rest.find(|character| !is_plain(character)) {
            let (plain, found) = rest.split_at(place);
            self.0.write_str(plain)?;
            let mut characters = found.chars();
            if let Some(character) = characters.next() {
                write!(self.0, "{}", character.escape_default())?;
            }
            rest = characters.as_str();
        }
        self.0.write_str(rest)
    }
}

/// The text in one line.
pub fn line(text: &str) -> Cow<'_, str> {
    match text.chars().all(is_plain) {
        true => Cow::Borrowed(text),
        false => {
            let mut escaped = Printable(String::with_capacity(text.len() + 16));
            // Writing to a string cannot fail.
            let _ = escaped.write_str(text);
            Cow::Owned(escaped.0)
        }
    }
}

/// The text with its line breaks. What follows one is indented, so that it does not pass for a
/// line of the program's own.
pub fn lines(text: &str) -> String {
    let lines: Vec<_> = text.lines().map(line).collect();
    lines.join("\n  ")
}

/// JSON that means the same: what is not plain stands in a string there, where JSON has escapes
/// of its own. Line breaks, which may stand between values, stay.
pub fn json(text: &str) -> Cow<'_, str> {
    let stays = |character: char| is_plain(character) || character == '\n';
    if text.chars().all(stays) {
        return Cow::Borrowed(text);
    }
    let mut escaped = String::with_capacity(text.len() + 16);
    for character in text.chars() {
        match stays(character) {
            true => escaped.push(character),
            // All of them lie in the basic plane; writing to a string cannot fail.
            false => {
                let _ = write!(escaped, "\\u{:04x}", u32::from(character));
            }
        }
    }
    Cow::Owned(escaped)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Each kind of character that is not plain, and one before and behind them.
    const ODD: &str = "a\0\n\r\u{1b}\u{7f}\u{85}\u{9b}\u{2028}\u{2029}\u{202e}\u{2066}\u{200f}z";

    #[test]
    fn nothing_of_a_text_ends_a_line_or_steers_a_terminal() {
        assert_eq!(
            line(ODD),
            "a\\u{0}\\n\\r\\u{1b}\\u{7f}\\u{85}\\u{9b}\\u{2028}\\u{2029}\\u{202e}\\u{2066}\\u{200f}z"
        );
    }

    #[test]
    fn all_else_stays_as_it_is() {
        let text = "Grüße, 漢字 \u{1f600}\t\\n \"quoted\"";
        assert!(matches!(line(text), Cow::Borrowed(same) if same == text));
        assert!(matches!(json(text), Cow::Borrowed(same) if same == text));
    }

    #[test]
    fn a_further_line_is_indented() {
        assert_eq!(
            lines("one\ntidegate: two\r\n\u{1b}[2J"),
            "one\n  tidegate: two\n  \\u{1b}[2J"
        );
    }

    #[test]
    fn escaped_json_means_the_same() {
        let value = serde_json::json!({ (ODD): [ODD] });
        for written in [value.to_string(), format!("{value:#}")] {
            let escaped = json(&written);
            assert!(escaped.chars().all(|c| is_plain(c) || c == '\n'));
            assert_eq!(
                serde_json::from_str::<serde_json::Value>(&escaped).unwrap(),
                value
            );
        }
    }
}

//! Names on the wire: how they follow from Rust's, and which the manifest allows.

use proc_macro2::Span;
use syn::{Error, Ident, LitStr, Result};

/// The words of an identifier, in lower case: `sendMessage`, `send_message` and
/// `SendMessage` are all `send`, `message`. A run of capitals is one word.
fn words(ident: &Ident) -> Vec<String> {
    let name = ident.to_string();
    let name = name.strip_prefix("r#").unwrap_or(&name);
    let mut words: Vec<String> = Vec::new();
    for part in name.split('_').filter(|part| !part.is_empty()) {
        let chars: Vec<char> = part.chars().collect();
        for (i, &c) in chars.iter().enumerate() {
            let after_lower = i > 0 && !chars[i - 1].is_uppercase();
            let before_lower = chars.get(i + 1).is_some_and(|next| next.is_lowercase());
            let starts = i == 0 || c.is_uppercase() && (after_lower || before_lower);
            if starts {
                words.push(String::new());
            }
            if let Some(word) = words.last_mut() {
                word.extend(c.to_lowercase());
            }
        }
    }
    words
}

/// `send_message` and `SendMessage` become `sendMessage`.
pub(crate) fn camel(ident: &Ident) -> String {
    let mut name = String::new();
    for word in words(ident) {
        let mut chars = word.chars();
        match chars.next() {
            Some(first) if !name.is_empty() => {
                name.extend(first.to_uppercase());
                name.push_str(chars.as_str());
            }
            _ => name.push_str(&word),
        }
    }
    name
}

/// `TooLong` becomes `too-long`.
pub(crate) fn kebab(ident: &Ident) -> String {
    words(ident).join("-")
}

/// Whether the manifest allows this as the name of an actor, a method or an event.
pub(crate) fn check(name: &str, span: Span) -> Result<()> {
    let mut bytes = name.bytes();
    let fits = bytes
        .next()
        .is_some_and(|first| first.is_ascii_alphabetic())
        && bytes.all(|byte| byte.is_ascii_alphanumeric() || matches!(byte, b'_' | b'-'))
        && name.len() <= 64;
    if fits {
        return Ok(());
    }
    Err(Error::new(
        span,
        format!(
            "`{name}` cannot be a name on the wire: names match [A-Za-z][A-Za-z0-9_-]* and have \
             at most 64 bytes; give another one with `name = \"…\"`"
        ),
    ))
}

/// A checked name from an attribute.
pub(crate) fn literal(literal: &LitStr) -> Result<String> {
    check(&literal.value(), literal.span())?;
    Ok(literal.value())
}

/// Whether this can be the code of a failure.
pub(crate) fn check_code(code: &str, span: Span) -> Result<()> {
    let is_part = |part: &str| {
        !part.is_empty()
            && part
                .bytes()
                .all(|byte| byte.is_ascii_lowercase() || byte.is_ascii_digit())
    };
    if code.len() <= 128 && code.split(['-', '.']).all(is_part) {
        return Ok(());
    }
    Err(Error::new(
        span,
        format!(
            "`{code}` cannot be the code of a failure: codes match \
             [a-z0-9]+([-.][a-z0-9]+)* and have at most 128 bytes"
        ),
    ))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn ident(name: &str) -> Ident {
        Ident::new(name, Span::call_site())
    }

    #[test]
    fn names_become_lower_camel_case() {
        for (rust, wire) in [
            ("increment", "increment"),
            ("send_message", "sendMessage"),
            ("SendMessage", "sendMessage"),
            ("HTTPServer", "httpServer"),
            ("Room2", "room2"),
            ("_unused", "unused"),
            ("a_b", "aB"),
        ] {
            assert_eq!(camel(&ident(rust)), wire);
        }
        assert_eq!(camel(&Ident::new_raw("type", Span::call_site())), "type");
    }

    #[test]
    fn variants_become_kebab_case() {
        assert_eq!(kebab(&ident("TooLong")), "too-long");
        assert_eq!(kebab(&ident("Forbidden")), "forbidden");
    }

    #[test]
    fn the_wire_has_rules_for_names() {
        let check = |name| check(name, Span::call_site()).is_ok();
        assert!(check("sendMessage") && check("a-b_c9"));
        assert!(!check("") && !check("9lives") && !check("größe") && !check(&"x".repeat(65)));
    }

    #[test]
    fn the_wire_has_rules_for_codes() {
        let check = |code| check_code(code, Span::call_site()).is_ok();
        assert!(check("chat.too-long") && check("a"));
        assert!(!check("") && !check("Chat") && !check("a..b") && !check("a-") && !check("a b"));
    }
}

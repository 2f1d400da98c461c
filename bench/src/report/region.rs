//! The part of a page that the results of a run replace; all else is left as it is.

use anyhow::{Context, Result, ensure};

const BEGIN: &str = "<!-- bench -->";
const END: &str = "<!-- /bench -->";

/// The page with this text between its markers.
pub(crate) fn with_region(page: &str, text: &str) -> Result<String> {
    let (before, rest) = page
        .split_once(BEGIN)
        .with_context(|| format!("expected a line {BEGIN}"))?;
    let (_, behind) = rest
        .split_once(END)
        .with_context(|| format!("expected a line {END} behind {BEGIN}"))?;
    ensure!(!behind.contains(BEGIN), "expected one region, found two");
    let text = text.trim();
    Ok(format!("{before}{BEGIN}\n\n{text}\n\n{END}{behind}"))
}

#[cfg(test)]
mod tests {
    use super::*;

    const PAGE: &str = "# Title\n\n<!-- bench -->\nold\n<!-- /bench -->\n\nThe end.\n";

    #[test]
    fn what_is_between_the_markers_is_replaced() {
        let new = with_region(PAGE, "new\n").unwrap();
        let expected = "# Title\n\n<!-- bench -->\n\nnew\n\n<!-- /bench -->\n\nThe end.\n";
        assert_eq!(new, expected);
    }

    #[test]
    fn replacing_twice_is_replacing_once() {
        let once = with_region(PAGE, "new").unwrap();
        assert_eq!(with_region(&once, "new").unwrap(), once);
    }

    #[test]
    fn a_page_without_its_markers_is_refused() {
        for page in [
            "no region",
            "<!-- bench --> no end",
            "<!-- /bench --><!-- bench -->",
        ] {
            assert!(with_region(page, "new").is_err(), "{page}");
        }
        let twice = format!("{PAGE}{PAGE}");
        assert!(with_region(&twice, "new").is_err());
    }
}

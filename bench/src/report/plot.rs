//! Horizontal bars as SVG. The plot stands on a card of its own and follows the reader's choice
//! of light or dark, so that it can be read on either kind of page.

use std::fmt::Write as _;

use super::figure::{Spread, shown};

/// Bars that can be compared.
pub(super) struct Panel {
    pub(super) title: &'static str,
    /// The unit, and which end is the good one.
    pub(super) unit: &'static str,
    pub(super) bars: Vec<Bar>,
}

/// A contestant.
pub(super) struct Bar {
    pub(super) name: String,
    pub(super) side: Side,
    pub(super) spread: Spread,
}

/// What a contestant is to the reader.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Side {
    /// The host.
    Ours,
    /// Somebody else's server.
    Peer,
    /// What cannot be gone below.
    Floor,
}

/// All lengths are in pixels.
const WIDTH: usize = 860;
const MARGIN: usize = 24;
const GAP: usize = 36;
const COLUMNS: usize = 2;
const PANEL: usize = (WIDTH - 2 * MARGIN - GAP) / COLUMNS;
/// The column of names, and of figures behind the bars.
const NAMES: usize = 128;
const FIGURES: usize = 62;
/// From one bar to the next, and the height of one.
const PITCH: usize = 22;
const THICK: usize = 14;
/// The panel's title and unit.
const HEAD: usize = 48;
/// From one line of text to the next.
const LINE: usize = 18;

const STYLE: &str = "\
svg{font-family:-apple-system,BlinkMacSystemFont,'Segoe UI',Helvetica,Arial,sans-serif;font-size:12px}\
.card{fill:#fff;stroke:#d0d7de}.title{fill:#1f2328;font-size:14px;font-weight:600}\
.text{fill:#1f2328}.quiet{fill:#59636e}.ours{fill:#0f766e}.peer{fill:#9aa5b1}\
.floor{fill:#e3e7ec;stroke:#9aa5b1}.strong{font-weight:600}.spread{stroke:#1f2328;stroke-opacity:.55}\
@media(prefers-color-scheme:dark){.card{fill:#0d1117;stroke:#3d444d}.title,.text{fill:#f0f6fc}\
.quiet{fill:#9198a1}.ours{fill:#2dd4bf}.peer{fill:#6e7884}.floor{fill:#21282f;stroke:#6e7884}\
.spread{stroke:#f0f6fc}}";

/// The panels side by side and below each other, and lines below them.
pub(super) fn svg(panels: &[Panel], footer: &[String]) -> String {
    let mut body = String::new();
    let mut top = MARGIN;
    for row in panels.chunks(COLUMNS) {
        for (column, panel) in row.iter().enumerate() {
            draw(&mut body, panel, MARGIN + column * (PANEL + GAP), top);
        }
        let bars = row.iter().map(|panel| panel.bars.len()).max().unwrap_or(0);
        top += HEAD + bars * PITCH + GAP / 2;
    }
    for line in footer {
        text(&mut body, "quiet", MARGIN, top + 8, "start", line);
        top += LINE;
    }
    let height = top + MARGIN - LINE / 2;
    let (card_width, card_height) = (WIDTH - 1, height - 1);
    format!(
        "<svg xmlns=\"http://www.w3.org/2000/svg\" width=\"{WIDTH}\" height=\"{height}\" \
         viewBox=\"0 0 {WIDTH} {height}\">\n<style>{STYLE}</style>\n\
         <rect class=\"card\" x=\"0.5\" y=\"0.5\" width=\"{card_width}\" height=\"{card_height}\" rx=\"6\"/>\n\
         {body}</svg>\n"
    )
}

fn draw(out: &mut String, panel: &Panel, left: usize, top: usize) {
    text(out, "title", left, top + 14, "start", panel.title);
    text(out, "quiet", left, top + 31, "start", panel.unit);
    let room = (PANEL - NAMES - FIGURES) as f64;
    let longest = panel.bars.iter().map(|bar| bar.spread.max);
    let longest = longest.fold(f64::MIN_POSITIVE, f64::max);
    let length = |figure: f64| figure / longest * room;
    let begin = left + NAMES;
    for (place, bar) in panel.bars.iter().enumerate() {
        let top = top + HEAD + place * PITCH;
        let baseline = top + THICK - 3;
        let (class, weight) = match bar.side {
            Side::Ours => ("ours", "text strong"),
            Side::Peer => ("peer", "text"),
            Side::Floor => ("floor", "quiet"),
        };
        text(out, weight, begin - 8, baseline, "end", &bar.name);
        let Spread { median, min, max } = &bar.spread;
        let width = length(*median).max(1.0);
        // Writing to a string cannot fail.
        let _ = writeln!(
            out,
            "<rect class=\"{class}\" x=\"{begin}\" y=\"{top}\" width=\"{width:.1}\" height=\"{THICK}\" rx=\"2\"/>"
        );
        let (from, to) = (begin as f64 + length(*min), begin as f64 + length(*max));
        if to - from >= 1.0 {
            let middle = top + THICK / 2;
            let _ = writeln!(
                out,
                "<line class=\"spread\" x1=\"{from:.1}\" y1=\"{middle}\" x2=\"{to:.1}\" y2=\"{middle}\"/>"
            );
        }
        let behind = begin + length(max.max(*median)).max(1.0).ceil() as usize + 6;
        text(out, weight, behind, baseline, "start", &shown(*median));
    }
}

fn text(out: &mut String, class: &str, x: usize, y: usize, anchor: &str, text: &str) {
    let text = text.replace('&', "&amp;").replace('<', "&lt;");
    let _ = writeln!(
        out,
        "<text class=\"{class}\" x=\"{x}\" y=\"{y}\" text-anchor=\"{anchor}\">{text}</text>"
    );
}

#[cfg(test)]
mod tests {
    use super::*;

    fn bar(name: &str, figure: f64) -> Bar {
        Bar {
            name: name.to_owned(),
            side: Side::Peer,
            spread: Spread::of(&[figure]).unwrap(),
        }
    }

    fn panel(bars: Vec<Bar>) -> Panel {
        let (title, unit) = ("CPU per call", "µs, less is better");
        Panel { title, unit, bars }
    }

    #[test]
    fn the_longest_bar_takes_the_room_there_is() {
        let svg = svg(
            &[panel(vec![bar("a", 1.0), bar("b", 4.0)])],
            &["here".to_owned()],
        );
        let room = PANEL - NAMES - FIGURES;
        assert!(svg.contains(&format!("width=\"{room}.0\"")), "{svg}");
        assert!(svg.contains(&format!("width=\"{:.1}\"", room as f64 / 4.0)));
    }

    #[test]
    fn names_are_text() {
        let svg = svg(&[panel(vec![bar("a<b & c", 1.0)])], &["here".to_owned()]);
        assert!(svg.contains("a&lt;b &amp; c"), "{svg}");
    }

    #[test]
    fn nothing_is_drawn_of_nothing() {
        let empty = svg(&[], &["here".to_owned()]);
        assert!(empty.starts_with("<svg") && empty.ends_with("</svg>\n"));
        assert!(svg(&[panel(Vec::new())], &["here".to_owned()]).contains("CPU per call"));
    }
}

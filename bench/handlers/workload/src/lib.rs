//! The actors that the benchmarks drive, where no example does: `document` is a large state
//! of few long texts or of many small items, with a number that changes, `board` tells its subscribers what it is told, `pulse`
//! streams.

use std::time::{Duration, Instant};

use tidegate_sdk::prelude::*;

tidegate_sdk::export!(Document, Board, Pulse);

/// The length of each of a document's texts, in bytes.
const CELL: usize = 1_000;

/// A state of any length with numbers in it.
#[derive(Default, Serialize, Deserialize, JsonSchema)]
pub struct Document {
    count: u64,
    cells: Vec<String>,
    items: Vec<Item>,
}

/// One of many small things that a state has.
#[derive(Clone, Serialize, Deserialize, JsonSchema)]
pub struct Item {
    name: String,
    count: u64,
    done: bool,
}

impl Item {
    /// How long one is in a state, about, in bytes.
    const LENGTH: usize = 50;

    fn new() -> Item {
        Item {
            name: "the thing".to_owned(),
            count: 1_000_000,
            done: false,
        }
    }
}

#[actor]
impl Document {
    /// Makes the state about so many bytes long.
    pub fn fill(&mut self, bytes: usize) {
        self.cells = vec!["x".repeat(CELL); bytes.div_ceil(CELL)];
    }

    /// Makes the state about so many bytes long, of items.
    pub fn fill_with_items(&mut self, bytes: usize) {
        self.items = vec![Item::new(); bytes.div_ceil(Item::LENGTH)];
    }

    /// Counts; the whole state is encoded and compared.
    pub fn increment(&mut self) -> u64 {
        self.count += 1;
        self.count
    }

    /// Counts by place; the state stays with the host.
    pub fn increment_tracked(state: &mut Tracked<Self>) -> Result<u64> {
        let count = state.get(["count"])?.unwrap_or(0) + 1;
        state.set(["count"], &count)?;
        Ok(count)
    }

    /// Counts the first item by place.
    pub fn increment_item_tracked(state: &mut Tracked<Self>) -> Result<u64> {
        let place = ["items", "0", "count"];
        let count = state.get(place)?.unwrap_or(0) + 1;
        state.set(place, &count)?;
        Ok(count)
    }
}

/// Where things are published; it remembers none of them.
#[derive(Default, Serialize, Deserialize, JsonSchema)]
pub struct Board {}

/// Something was published.
#[derive(Event, Serialize, JsonSchema)]
pub struct Posted {
    /// Which publication it is.
    pub number: u64,
    /// What was published.
    pub text: String,
}

#[actor(events = Posted)]
impl Board {
    /// Tells all subscribers.
    pub fn publish(&self, ctx: &mut Context<Self>, number: u64, text: String) {
        ctx.emit(Posted { number, text });
    }
}

/// A number that changes by the clock.
#[derive(Default, Serialize, Deserialize, JsonSchema)]
pub struct Pulse {
    beat: u64,
}

#[actor]
impl Pulse {
    /// Beats every 50 ms, so many times.
    #[stream(interval = "50ms")]
    #[deadline("10m")]
    pub fn beat50(state: &mut Live<Self>, times: u32) -> Result<u64> {
        beat(state, Duration::from_millis(50), times)
    }

    /// Beats every 16 ms, so many times.
    #[stream(interval = "16ms")]
    #[deadline("10m")]
    pub fn beat16(state: &mut Live<Self>, times: u32) -> Result<u64> {
        beat(state, Duration::from_millis(16), times)
    }

    /// Beats so many times, and waits twice its interval after each, however late that was: what
    /// a beat has changed is let out at once, and no two of them together.
    #[stream(interval = "16ms")]
    #[deadline("10m")]
    pub fn beat_spaced(state: &mut Live<Self>, times: u32) -> Result<u64> {
        for _ in 0..times {
            state.beat += 1;
            state.ctx().sleep(Duration::from_millis(32))?;
        }
        Ok(state.beat)
    }
}

/// Beats on a grid from now on: a late beat does not move those that follow.
fn beat(state: &mut Live<Pulse>, step: Duration, times: u32) -> Result<u64> {
    let began = Instant::now();
    for beat in 1..=times {
        state.beat += 1;
        let left = (step * beat).saturating_sub(began.elapsed());
        state.ctx().sleep(left)?;
    }
    Ok(state.beat)
}

#[cfg(test)]
mod tests {
    use super::*;
    use tidegate_sdk::test::{self, Emitted, json};

    #[test]
    fn a_document_counts_by_either_path() {
        let mut document = test::Actor::<Document>::new("a");
        document.invoke("fill", json!({"bytes": 2500})).unwrap();
        assert_eq!(document.invoke("increment", None), Ok(json!(1)));
        assert_eq!(document.invoke("incrementTracked", None), Ok(json!(2)));
        let cells = document.state()["cells"].as_array().map(Vec::len);
        assert_eq!(cells, Some(3));
    }

    #[test]
    fn an_item_of_a_document_counts() {
        let mut document = test::Actor::<Document>::new("a");
        let input = json!({"bytes": 2_500});
        document.invoke("fillWithItems", input).unwrap();
        let counted = document.invoke("incrementItemTracked", None);
        assert_eq!(counted, Ok(json!(1_000_001)));
        let items = &document.state()["items"];
        assert_eq!(items.as_array().map(Vec::len), Some(50));
        assert_eq!(items.to_string().len() / 50, Item::LENGTH);
    }

    #[test]
    fn what_is_published_is_told() {
        let mut board = test::Actor::<Board>::new("a");
        let input = json!({"number": 7, "text": "Hi"});
        board.invoke("publish", input).unwrap();
        let text = "Hi".to_owned();
        let posted = Emitted::everyone(Posted { number: 7, text });
        assert_eq!(board.emitted(), [posted]);
    }

    #[test]
    fn a_pulse_beats() {
        let mut pulse = test::Actor::<Pulse>::new("a");
        assert_eq!(pulse.invoke("beat50", json!({"times": 3})), Ok(json!(3)));
        let spaced = pulse.invoke("beatSpaced", json!({"times": 2}));
        assert_eq!(spaced, Ok(json!(5)));
    }
}

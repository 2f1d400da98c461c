//! An actor that writes down every entry that it is told, so that one that was lost and one
//! that was made twice both show.

use tidegate_sdk::prelude::*;

/// How many of the latest entries are kept one by one.
const LATEST: usize = 32;

/// Which entries were made.
#[derive(Default, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct Ledger {
    /// How many were made.
    total: u64,
    /// The latest, in the order in which they were made.
    latest: Vec<u64>,
    /// All others, as ranges from the first to the last of each, ascending.
    ranges: Vec<(u64, u64)>,
    /// Those that were found to be there already, when they were to become part of a range.
    twice: Vec<u64>,
}

impl Ledger {
    fn file(&mut self, entry: u64) {
        let place = self.ranges.partition_point(|(_, last)| *last < entry);
        if self
            .ranges
            .get(place)
            .is_some_and(|(first, _)| *first <= entry)
        {
            return self.twice.push(entry);
        }
        self.ranges.insert(place, (entry, entry));
        self.join_at(place + 1);
        self.join_at(place);
    }

    /// Makes one of a range and the one before it, if nothing is between them.
    fn join_at(&mut self, place: usize) {
        let Some(before) = place.checked_sub(1) else {
            return;
        };
        let (Some(&(first, end)), Some(&(begin, last))) =
            (self.ranges.get(before), self.ranges.get(place))
        else {
            return;
        };
        if end + 1 == begin {
            self.ranges[before] = (first, last);
            self.ranges.remove(place);
        }
    }
}

#[actor]
impl Ledger {
    /// Makes an entry, whether it is there or not; gives the number of all.
    pub fn add(&mut self, entry: u64) -> u64 {
        self.latest.push(entry);
        if self.latest.len() > LATEST {
            for entry in std::mem::take(&mut self.latest) {
                self.file(entry);
            }
        }
        self.total += 1;
        self.total
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use tidegate_sdk::test::{Actor, json};

    #[test]
    fn entries_become_ranges_and_none_hides_another() {
        let mut ledger = Actor::<Ledger>::new("l");
        let entries = (1..=20).rev().chain([30, 7]).chain(40..=50);
        for entry in entries {
            ledger.invoke("add", json!({"entry": entry})).unwrap();
        }
        let state = ledger.state();
        assert_eq!(state["total"], 33);
        assert_eq!(state["latest"], json!([]));
        assert_eq!(state["ranges"], json!([[1, 20], [30, 30], [40, 50]]));
        assert_eq!(state["twice"], json!([7]));
    }
}

//! The arena, without players: how far a boat gets in a tick, where pearls lie, who is near
//! enough to take one. Pure functions of integers, so that equal rounds end equally.

use tidegate_sdk::prelude::*;

/// How wide the arena is.
pub const WIDTH: i32 = 4_000;
/// How high it is.
pub const HEIGHT: i32 = 3_000;
/// How long the vector of a steering is that asks for full speed.
pub const FULL_HELM: i32 = 100;

/// How far a boat gets in a tick.
const SPEED: f64 = 24.0;
/// How close to the edge a boat gets.
const HULL: i32 = 130;
/// How close to the edge pearls lie.
const SHORE: i32 = 220;
/// From how far a boat reaches a pearl.
const REACH: i32 = 205;
/// How far from all boats pearls come up, so that one has to sail there; and how often
/// another place is tried for that.
const CLEARANCE: i32 = 2 * REACH;
const TRIES: usize = 8;
/// How many pearls there are at a time.
const PEARLS: usize = 6;
/// One pearl in so many is golden.
const GOLDEN_ONE_IN: u32 = 5;
/// What a golden pearl is worth.
const GOLDEN: u32 = 3;
/// How far from the middle boats start.
const START_CIRCLE: f64 = 900.0;
/// Which eighth of the circle is whose, so that the first ones are far from each other.
const START_ORDER: [u8; 8] = [0, 4, 2, 6, 1, 5, 3, 7];

/// A place in the arena, from its upper left corner.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Place {
    pub(crate) x: i32,
    pub(crate) y: i32,
}

/// How far a boat gets in a tick, and in which direction.
#[derive(Debug, Default, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct Course {
    x: i32,
    y: i32,
}

/// A pearl that nobody has taken yet.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct Pearl {
    /// How far from the left edge.
    pub x: i32,
    /// How far from the upper edge.
    pub y: i32,
    /// How many points it gives.
    pub worth: u32,
}

/// Where pearls come up: numbers that look random, all of them from one seed (xorshift32).
#[derive(Debug, Default, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(transparent)]
pub struct Chance(u32);

impl Chance {
    pub(crate) fn from_seed(seed: u32) -> Self {
        // The one state that xorshift never leaves.
        Self(seed.max(1))
    }

    fn below(&mut self, bound: u32) -> u32 {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 17;
        self.0 ^= self.0 << 5;
        self.0 % bound
    }

    fn between(&mut self, low: i32, high: i32) -> i32 {
        low + self.below(low.abs_diff(high)) as i32
    }

    fn place(&mut self) -> Place {
        Place {
            x: self.between(SHORE, WIDTH - SHORE),
            y: self.between(SHORE, HEIGHT - SHORE),
        }
    }

    /// Another pearl, away from these boats.
    pub(crate) fn pearl(&mut self, boats: &[Place]) -> Pearl {
        let is_clear = |place: Place| {
            let mut boats = boats.iter();
            boats.all(|boat| !place.is_within(CLEARANCE, *boat))
        };
        let mut place = self.place();
        for _ in 0..TRIES {
            if is_clear(place) {
                break;
            }
            place = self.place();
        }
        let is_golden = self.below(GOLDEN_ONE_IN) == 0;
        Pearl {
            x: place.x,
            y: place.y,
            worth: if is_golden { GOLDEN } else { 1 },
        }
    }

    /// The pearls that a round begins with.
    pub(crate) fn pearls(&mut self, boats: &[Place]) -> Vec<Pearl> {
        (0..PEARLS).map(|_| self.pearl(boats)).collect()
    }
}

impl Pearl {
    /// Which boat takes it: the nearest of those that reach it.
    pub(crate) fn taker<T>(&self, boats: impl Iterator<Item = (T, Place)>) -> Option<T> {
        let (x, y) = (self.x, self.y);
        let here = Place { x, y };
        boats
            .filter(|(_, boat)| boat.is_within(REACH, here))
            .min_by_key(|(_, boat)| boat.distance_squared(here))
            .map(|(taker, _)| taker)
    }
}

impl Course {
    /// The course of a boat that is steered to there. Beyond [`FULL_HELM`] only the direction
    /// counts.
    pub(crate) fn steered(dx: i32, dy: i32) -> Self {
        let (x, y) = (f64::from(dx), f64::from(dy));
        let speed = SPEED / x.hypot(y).max(f64::from(FULL_HELM));
        Self {
            x: (x * speed).round() as i32,
            y: (y * speed).round() as i32,
        }
    }
}

impl Place {
    /// Where the boat of this color starts, around the middle.
    pub(crate) fn start(color: usize) -> Self {
        let eighth = START_ORDER[color % START_ORDER.len()];
        let angle = std::f64::consts::FRAC_PI_4 * f64::from(eighth);
        Self {
            x: WIDTH / 2 + (angle.sin() * START_CIRCLE).round() as i32,
            y: HEIGHT / 2 - (angle.cos() * START_CIRCLE).round() as i32,
        }
    }

    fn distance_squared(self, other: Self) -> i32 {
        let (x, y) = (self.x - other.x, self.y - other.y);
        x * x + y * y
    }

    fn is_within(self, distance: i32, other: Self) -> bool {
        self.distance_squared(other) <= distance * distance
    }

    /// Where a boat is after a tick.
    pub(crate) fn after(self, course: Course) -> Self {
        Self {
            x: (self.x + course.x).clamp(HULL, WIDTH - HULL),
            y: (self.y + course.y).clamp(HULL, HEIGHT - HULL),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn no_boat_is_faster_than_another() {
        assert_eq!(Course::steered(100, 0), Course { x: 24, y: 0 });
        assert_eq!(Course::steered(0, -50), Course { x: 0, y: -12 });
        assert_eq!(Course::steered(0, 0), Course::default());
        for (dx, dy) in [(100, 100), (-100, 37), (3, -100), (-71, -71)] {
            let Course { x, y } = Course::steered(dx, dy);
            let speed = f64::from(x).hypot(f64::from(y));
            assert!((23.0..25.0).contains(&speed), "({dx}, {dy}): {speed}");
        }
    }

    #[test]
    fn the_edge_stops_a_boat() {
        let mut boat = Place { x: 300, y: 300 };
        for _ in 0..100 {
            boat = boat.after(Course::steered(-100, -20));
        }
        assert_eq!(boat, Place { x: HULL, y: HULL });
    }

    #[test]
    fn pearls_lie_in_the_arena_wherever_chance_begins() {
        for seed in [0, 1, 77, u32::MAX] {
            let mut chance = Chance::from_seed(seed);
            let pearls: Vec<Pearl> = (0..200).map(|_| chance.pearl(&[])).collect();
            for pearl in &pearls {
                assert!((SHORE..WIDTH - SHORE).contains(&pearl.x), "{pearl:?}");
                assert!((SHORE..HEIGHT - SHORE).contains(&pearl.y), "{pearl:?}");
            }
            let golden = pearls.iter().filter(|pearl| pearl.worth == GOLDEN).count();
            assert!((10..80).contains(&golden), "{golden} of 200 are golden");
        }
    }

    #[test]
    fn a_pearl_comes_up_where_no_boat_is() {
        let boats = [Place::start(0), Place::start(1)];
        let mut chance = Chance::from_seed(7);
        for pearl in (0..1_000).map(|_| chance.pearl(&boats)) {
            let place = Place {
                x: pearl.x,
                y: pearl.y,
            };
            assert!(boats.iter().all(|boat| !boat.is_within(REACH, place)));
        }
    }

    #[test]
    fn the_nearest_boat_takes_a_pearl() {
        let pearl = Pearl {
            x: 1_000,
            y: 1_000,
            worth: 1,
        };
        let boat = |x| Place { x, y: 1_000 };
        let boats = [
            ("far", boat(1_206)),
            ("near", boat(900)),
            ("here", boat(1_150)),
        ];
        assert_eq!(pearl.taker(boats.into_iter()), Some("near"));
        assert_eq!(pearl.taker(boats.into_iter().take(1)), None);
    }

    #[test]
    fn every_boat_starts_in_a_place_of_its_own() {
        let places: Vec<Place> = (0..8).map(Place::start).collect();
        for (n, place) in places.iter().enumerate() {
            assert!(!places[..n].contains(place));
            assert_eq!(*place, place.after(Course::default()), "in the arena");
        }
    }
}

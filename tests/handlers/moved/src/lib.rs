//! The example `counter` with another state, which it makes from the old one. Some counts it
//! refuses, each in its own way, and what its self-test does a variable says.

use tidegate_sdk::prelude::*;

/// What a sum is at most.
const MOST: i64 = 1_000;

/// A counter that knows how many states it was made from.
#[derive(Default, Serialize, Deserialize, JsonSchema)]
pub struct Counter {
    #[schemars(range(max = MOST))]
    sum: i64,
    made_from: Vec<u32>,
}

/// As the example has it.
#[derive(Deserialize)]
struct Count {
    count: i64,
}

/// As a later version has it.
#[derive(Deserialize)]
struct Halves {
    halves: i64,
}

#[actor(version = 1)]
impl Counter {
    /// Adds to the sum and returns it.
    pub fn increment(&mut self, by: i64) -> i64 {
        self.sum += by;
        self.sum
    }

    /// The sum.
    pub fn value(&self) -> i64 {
        self.sum
    }

    #[migrate]
    fn from_stored(stored: &Stored) -> Result<Self> {
        println!("migrates {} of {}", stored.text(), stored.id());
        let sum = match stored.version() {
            0 => stored.read::<Count>()?.count,
            2 => stored.read::<Halves>()?.halves / 2,
            version => {
                return Err(Failure::new("counter.from-the-future").param("version", version));
            }
        };
        match sum {
            13 => Err(Failure::new("counter.unlucky").message("13 is no sum")),
            14 => panic!("on purpose"),
            #[expect(clippy::empty_loop, reason = "it has a deadline")]
            15 => loop {},
            _ => Ok(Counter {
                sum,
                made_from: vec![stored.version()],
            }),
        }
    }
}

#[self_test]
fn as_the_variable_says() -> Result<()> {
    match std::env::var("SELF_TEST").as_deref() {
        Ok("fail") => Err(Failure::new("moved.unwell").message("not today")),
        Ok("panic") => panic!("on purpose"),
        #[expect(clippy::empty_loop, reason = "it has a deadline")]
        Ok("loop") => loop {},
        _ => Ok(()),
    }
}

tidegate_sdk::export!(migrating Counter);

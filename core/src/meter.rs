//! What work on documents costs, charged while it is done.
//!
//! The cost of such work is often a product: operations × elements that move, subschemas ×
//! values. What does the work charges its steps to a [`Meter`] before it takes them, and gives
//! up where the meter says so; so nobody has to guess the product from one of its factors.

/// How many bytes of text that is read, copied or compared make one step.
pub const STEP_BYTES: usize = 64;

/// Counts steps, and says when enough were taken.
///
/// A step is one JSON value that is made, moved, looked at or compared, or [`STEP_BYTES`] of
/// text.
pub trait Meter {
    /// Charges this many steps, which are taken if this succeeds.
    ///
    /// # Errors
    ///
    /// [`Exhausted`] where the steps must not be taken. Whoever is told so leaves what it works
    /// on as it was.
    fn charge(&mut self, steps: u64) -> Result<(), Exhausted>;
}

/// The work is given up: it would take more steps, or more time, than it may.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("the work takes more than it may")]
pub struct Exhausted;

/// Lets everything pass, for work whose size is known to be bounded otherwise.
#[derive(Clone, Copy, Debug, Default)]
pub struct Unmetered;

impl Meter for Unmetered {
    fn charge(&mut self, _: u64) -> Result<(), Exhausted> {
        Ok(())
    }
}

/// Allows a fixed number of steps.
#[derive(Clone, Copy, Debug)]
pub struct Allowance {
    left: u64,
}

impl Allowance {
    /// Allows this many.
    pub fn new(steps: u64) -> Allowance {
        Allowance { left: steps }
    }

    /// How many may still be taken.
    pub fn left(&self) -> u64 {
        self.left
    }
}

impl Meter for Allowance {
    fn charge(&mut self, steps: u64) -> Result<(), Exhausted> {
        self.left = self.left.checked_sub(steps).ok_or(Exhausted)?;
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_allowance_ends_where_it_would_be_passed() {
        let mut allowance = Allowance::new(5);
        assert_eq!(allowance.charge(5), Ok(()));
        assert_eq!(allowance.charge(1), Err(Exhausted));
        assert_eq!(allowance.charge(0), Ok(()));
    }
}

//! When frames arrived: their count and how far apart they were, for tests and examples that
//! print figures.
//!
//! Invariant: nothing is asserted here; how fast a machine is decides no test.

use std::fmt;
use std::time::{Duration, Instant};

/// The arrivals of one stream of frames.
#[derive(Clone, Debug, Default)]
pub struct Spacing {
    arrivals: Vec<Instant>,
}

impl Spacing {
    /// Notes that a frame has arrived.
    pub fn arrived(&mut self) {
        self.arrivals.push(Instant::now());
    }

    /// How many have arrived.
    pub fn count(&self) -> usize {
        self.arrivals.len()
    }

    /// From the first to the last.
    pub fn span(&self) -> Duration {
        match (self.arrivals.first(), self.arrivals.last()) {
            (Some(first), Some(last)) => *last - *first,
            _ => Duration::ZERO,
        }
    }

    /// The gaps between neighbours, shortest first.
    fn gaps(&self) -> Vec<Duration> {
        let pairs = self.arrivals.windows(2);
        let mut gaps: Vec<Duration> = pairs.map(|pair| pair[1] - pair[0]).collect();
        gaps.sort_unstable();
        gaps
    }
}

/// `126 frames in 2.003 s, apart 14.9 / 16.0 / 17.1 / 19.8 ms (min / median / p95 / max)`
impl fmt::Display for Spacing {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (count, span) = (self.count(), self.span().as_secs_f64());
        write!(f, "{count} frames in {span:.3} s")?;
        let gaps = self.gaps();
        let Some(last) = gaps.len().checked_sub(1) else {
            return Ok(());
        };
        let at = |percent: usize| gaps[(last * percent).div_ceil(100)].as_secs_f64() * 1e3;
        write!(
            f,
            ", apart {:.1} / {:.1} / {:.1} / {:.1} ms (min / median / p95 / max)",
            at(0),
            at(50),
            at(95),
            at(100)
        )
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_figures_are_of_the_gaps() {
        let first = Instant::now();
        let at = |ms: &u64| first + Duration::from_millis(*ms);
        let spacing = Spacing {
            arrivals: [0, 10, 30, 70].iter().map(at).collect(),
        };
        assert_eq!(
            spacing.to_string(),
            "4 frames in 0.070 s, apart 10.0 / 20.0 / 40.0 / 40.0 ms (min / median / p95 / max)"
        );
        assert_eq!(Spacing::default().to_string(), "0 frames in 0.000 s");
    }
}

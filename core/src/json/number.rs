//! Numbers, as what their text says they are: an integer of 64 bits or a fraction.

use std::cmp::Ordering;
use std::fmt;

/// A JSON number.
///
/// A text without fraction and exponent is an integer if 64 bits hold it, all else a `f64`;
/// written back it says the same. Two of them are equal when their texts are: `1` and `1.0` are
/// not, though a schema counts both as the integer 1.
#[derive(Clone, Copy, Debug)]
pub enum Number {
    /// A natural number.
    Natural(u64),
    /// A number below zero.
    Negative(i64),
    /// Any other; never infinite and never `NaN`.
    Float(f64),
}

impl Number {
    /// A natural number that is written as one, and fits.
    pub fn as_u64(self) -> Option<u64> {
        match self {
            Number::Natural(number) => Some(number),
            _ => None,
        }
    }

    /// An integer that is written as one, and fits.
    pub fn as_i64(self) -> Option<i64> {
        match self {
            Number::Natural(number) => number.try_into().ok(),
            Number::Negative(number) => Some(number),
            Number::Float(_) => None,
        }
    }

    /// The nearest `f64`.
    pub fn as_f64(self) -> f64 {
        match self {
            Number::Natural(number) => number as f64,
            Number::Negative(number) => number as f64,
            Number::Float(number) => number,
        }
    }

    /// Whether JSON Schema counts it as an integer: it has no fraction, however it is written.
    pub fn is_integer(self) -> bool {
        match self {
            Number::Natural(_) | Number::Negative(_) => true,
            Number::Float(number) => number.fract() == 0.0,
        }
    }

    /// A fraction or an exponent that says an integer, as that integer: `1.0`, `1e2` and `-0`
    /// as `1`, `100` and `0`. None of those that are integers already, that have a fraction, or
    /// that 64 bits do not hold.
    pub fn to_integer(self) -> Option<Number> {
        // Both are powers of two, so no `f64` lies between them and what a cast can hold.
        const NATURALS_END: f64 = 18_446_744_073_709_551_616.0;
        const LEAST: f64 = -9_223_372_036_854_775_808.0;
        match self {
            Number::Float(number) if number.fract() == 0.0 => {
                if (0.0..NATURALS_END).contains(&number) {
                    Some(Number::Natural(number as u64))
                } else if (LEAST..0.0).contains(&number) {
                    Some(Number::Negative(number as i64))
                } else {
                    None
                }
            }
            _ => None,
        }
    }

    /// Which is the greater number, exactly.
    pub fn compare(self, other: Number) -> Ordering {
        match (self, other) {
            (Number::Natural(one), Number::Natural(other)) => one.cmp(&other),
            // `0.0` and `-0.0` are one number, and none is `NaN`.
            (Number::Float(one), Number::Float(other)) => {
                one.partial_cmp(&other).unwrap_or(Ordering::Equal)
            }
            (Number::Float(one), other) => compare_float(one, other.to_i128()),
            (one, Number::Float(other)) => compare_float(other, one.to_i128()).reverse(),
            (one, other) => one.to_i128().cmp(&other.to_i128()),
        }
    }

    /// Whether both are one number, however they are written.
    pub fn is_equal(self, other: Number) -> bool {
        match (self, other) {
            (Number::Float(one), Number::Float(other)) => one == other,
            _ => self.compare(other) == Ordering::Equal,
        }
    }

    /// The integer; of a fraction the part before the point.
    fn to_i128(self) -> i128 {
        match self {
            Number::Natural(number) => number.into(),
            Number::Negative(number) => number.into(),
            Number::Float(number) => number as i128,
        }
    }

    pub(crate) fn to_value(self) -> serde_json::Value {
        match self {
            Number::Natural(number) => number.into(),
            Number::Negative(number) => number.into(),
            Number::Float(number) => number.into(),
        }
    }
}

/// How a float and an integer of 64 bits compare.
fn compare_float(float: f64, integer: i128) -> Ordering {
    // What i128 does not hold is saturated, and beyond all integers of 64 bits either way.
    let whole = float as i128;
    whole.cmp(&integer).then_with(|| {
        let fraction = float.fract();
        fraction.partial_cmp(&0.0).unwrap_or(Ordering::Equal)
    })
}

impl PartialEq for Number {
    fn eq(&self, other: &Number) -> bool {
        match (self, other) {
            (Number::Natural(one), Number::Natural(other)) => one == other,
            (Number::Negative(one), Number::Negative(other)) => one == other,
            // `0.0` and `-0.0` are written differently.
            (Number::Float(one), Number::Float(other)) => one.to_bits() == other.to_bits(),
            _ => false,
        }
    }
}

impl From<u64> for Number {
    fn from(number: u64) -> Number {
        Number::Natural(number)
    }
}

impl From<i64> for Number {
    fn from(number: i64) -> Number {
        match u64::try_from(number) {
            Ok(natural) => Number::Natural(natural),
            Err(_) => Number::Negative(number),
        }
    }
}

impl From<&serde_json::Number> for Number {
    fn from(number: &serde_json::Number) -> Number {
        match (number.as_u64(), number.as_i64()) {
            (Some(natural), _) => Number::Natural(natural),
            (None, Some(negative)) => Number::Negative(negative),
            (None, None) => Number::Float(number.as_f64().unwrap_or_default()),
        }
    }
}

/// As JSON writes it.
impl fmt::Display for Number {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Number::Natural(number) => number.fmt(f),
            Number::Negative(number) => number.fmt(f),
            Number::Float(_) => self.to_value().fmt(f),
        }
    }
}

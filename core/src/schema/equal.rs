//! When two values are one to a schema: numbers by what they say, `1.0` and `1` being the same,
//! and objects whatever the order of their members.

use std::collections::HashMap;
use std::hash::{BuildHasher, Hash, Hasher, RandomState};

use crate::json::{Json, Number};
use crate::meter::{Exhausted, Meter, STEP_BYTES};

/// Whether two values are equal.
pub(super) fn is_equal(one: &Json, other: &Json, meter: &mut dyn Meter) -> Result<bool, Exhausted> {
    meter.charge(1)?;
    Ok(match (one, other) {
        (Json::Null, Json::Null) => true,
        (Json::Bool(one), Json::Bool(other)) => one == other,
        (Json::Number(one), Json::Number(other)) => one.is_equal(*other),
        (Json::String(one), Json::String(other)) => {
            one.len() == other.len() && {
                meter.charge((one.len() / STEP_BYTES) as u64)?;
                one == other
            }
        }
        (Json::Array(one), Json::Array(other)) => {
            if one.len() != other.len() {
                return Ok(false);
            }
            for (one, other) in one.iter().zip(other) {
                if !is_equal(one, other, meter)? {
                    return Ok(false);
                }
            }
            true
        }
        (Json::Object(one), Json::Object(other)) => {
            if one.len() != other.len() {
                return Ok(false);
            }
            for (name, one) in one.iter() {
                meter.charge((name.len() / STEP_BYTES) as u64)?;
                match other.get(name) {
                    Some(other) if is_equal(one, other, meter)? => {}
                    _ => return Ok(false),
                }
            }
            true
        }
        _ => false,
    })
}

/// Whether no two of these are equal.
pub(super) fn are_different(values: &[Json], meter: &mut dyn Meter) -> Result<bool, Exhausted> {
    let state = RandomState::new();
    let mut seen: HashMap<u64, Vec<&Json>> = HashMap::with_capacity(values.len());
    for value in values {
        meter.charge(1 + value.size().steps())?;
        let alike = seen.entry(digest(value, &state)).or_default();
        for other in alike.iter() {
            if is_equal(value, other, meter)? {
                return Ok(false);
            }
        }
        alike.push(value);
    }
    Ok(true)
}

/// A number that equal values share.
fn digest(value: &Json, state: &RandomState) -> u64 {
    let mut hasher = state.build_hasher();
    match value {
        Json::Null => 0_u8.hash(&mut hasher),
        Json::Bool(value) => (1_u8, value).hash(&mut hasher),
        Json::Number(number) => match number.to_integer().unwrap_or(*number) {
            Number::Natural(number) => (2_u8, number).hash(&mut hasher),
            Number::Negative(number) => (3_u8, number).hash(&mut hasher),
            Number::Float(number) => (4_u8, number.to_bits()).hash(&mut hasher),
        },
        Json::String(text) => (5_u8, text.as_str()).hash(&mut hasher),
        Json::Array(elements) => {
            6_u8.hash(&mut hasher);
            let digests = elements.iter().map(|element| digest(element, state));
            digests.for_each(|digest| digest.hash(&mut hasher));
        }
        Json::Object(members) => {
            let digest = |(name, value): (&ecow::EcoString, &Json)| {
                state.hash_one((name.as_str(), digest(value, state)))
            };
            // In whatever order they stand.
            let sum = members.iter().map(digest).fold(0, u64::wrapping_add);
            (7_u8, sum).hash(&mut hasher);
        }
    }
    hasher.finish()
}

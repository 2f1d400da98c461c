//! Whether the input of a call is one: JSON without ambiguity, as the method's schema has it.
//!
//! `actor` asks before each turn: here, where that is little, and else on a worker's thread, under
//! the turn's deadline.

use std::time::Instant;

use tidegate_core::Failure;
use tidegate_core::meter::Exhausted;
use tidegate_core::schema::Schema;
use tidegate_core::turn::check;
use tidegate_engine::Component;
use tidegate_engine::config::Limits;

use super::work::{Budget, TurnMeter, elsewhere, is_short};

/// What a check has found: the input with its integers written as such, none where they are.
type Checked = Result<Option<String>, Failure>;

/// Checks an input, and returns it with its integers written as such, none where they are. None
/// at all where that takes too long here.
pub fn check_input(
    method: &str,
    schema: Option<&Schema>,
    input: Option<&str>,
    limits: &Limits,
) -> Option<Checked> {
    if input.is_some_and(|input| !is_short(input.len())) {
        return None;
    }
    let mut allowance = Budget::new(limits.work_steps).at_once();
    let most = limits.state_memory_bytes;
    check::input(method, schema, input, most, &mut allowance).ok()
}

/// Checks an input on a worker's thread.
///
/// # Errors
///
/// Those of the input, `turn.work-limit` or `turn.deadline`.
pub async fn check_input_elsewhere(
    method: &str,
    schema: Option<&Schema>,
    input: Option<&str>,
    component: &Component,
    deadline: Instant,
) -> Checked {
    let mut budget = Budget::new(component.limits().work_steps);
    let most = component.limits().state_memory_bytes;
    let (method, schema) = (method.to_owned(), schema.cloned());
    let input = input.map(str::to_owned);
    let check = move |meter: &mut TurnMeter| {
        let input = input.as_deref();
        meter.charge_text(input.map_or(0, str::len))?;
        let checked = check::input(&method, schema.as_ref(), input, most, meter);
        checked.unwrap_or_else(|Exhausted| Err(meter.failure()))
    };
    elsewhere(component, &mut budget, deadline, check).await
}

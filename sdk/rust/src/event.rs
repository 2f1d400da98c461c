//! [`Event`]: what actors emit to their subscribers, and [`EventOf`], by which the compiler
//! knows which actor declares which events. Both are implemented by macros.

use crate::schema::Document;

/// An event, or a family of them: a name and a payload.
/// [Derive it](derive@crate::Event).
///
/// ```
/// use tidegate_sdk::prelude::*;
///
/// #[derive(Event)]
/// enum DoorEvent { Opened { at: u64 }, Closed }
///
/// assert_eq!(DoorEvent::NAMES, ["opened", "closed"]);
/// assert_eq!(DoorEvent::Opened { at: 5 }.payload().unwrap(), r#"{"at":5}"#);
/// ```
pub trait Event {
    /// The names of all events of this type.
    const NAMES: &'static [&'static str];

    /// The name of this event.
    fn name(&self) -> &'static str;

    /// The payload as JSON text.
    fn payload(&self) -> Result<String, serde_json::Error>;

    /// The JSON Schema of each payload, in the order of [`NAMES`](Self::NAMES).
    #[doc(hidden)]
    fn schemas() -> Vec<Document>;
}

/// Says that the actor `A` declares these events: `#[actor(events = …)]` implements it.
///
/// ```
/// use tidegate_sdk::prelude::*;
/// use tidegate_sdk::EventOf;
///
/// #[derive(Default, Serialize, Deserialize, JsonSchema)]
/// struct Door {}
///
/// #[derive(Event)]
/// enum DoorEvent { Opened }
///
/// #[actor(events = DoorEvent)]
/// impl Door {}
///
/// /// Works for every actor that declares the events of a door.
/// fn announce<A>(ctx: &mut Context<A>)
/// where
///     DoorEvent: EventOf<A>,
/// {
///     ctx.emit(DoorEvent::Opened);
/// }
///
/// let mut ctx = Context::<Door>::test();
/// announce(&mut ctx);
/// assert_eq!(ctx.emitted().len(), 1);
/// ```
#[diagnostic::on_unimplemented(
    message = "`{Self}` is not an event of the actor `{A}`",
    label = "not an event of `{A}`",
    note = "declare it: `#[actor(events = {Self})]` on the `impl` block of `{A}`"
)]
pub trait EventOf<A>: Event {}

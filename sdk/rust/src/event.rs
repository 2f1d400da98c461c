//! [`Event`]: what actors emit to their subscribers, and [`Emits`], by which the compiler
//! knows which actor declares which events. Both are implemented by macros.

use crate::schema::Document;

/// An event, or a family of them: a name and a payload. Derive it.
///
/// On an enum, each variant is an event: its name in lower camelCase, and as payload what
/// the variant holds (`null` when it holds nothing). Fields are camelCase on the wire; they
/// take `#[serde(…)]` and `#[schemars(…)]` attributes. On a struct, which then needs
/// `Serialize` and `JsonSchema`, the event's name is the struct's and the payload the
/// struct. `#[event(name = "…")]` on either gives another name.
///
/// ```
/// use tidegate_sdk::prelude::*;
/// use tidegate_sdk::Event as _;
///
/// #[derive(Serialize, JsonSchema)]
/// pub struct Message { text: String }
///
/// #[derive(Event)]
/// pub enum ChatEvent {
///     /// Somebody said something.
///     MessageSent(Message),
///     Typing { user_name: String },
///     Cleared,
/// }
///
/// let typing = ChatEvent::Typing { user_name: "Ann".into() };
/// assert_eq!(typing.name(), "typing");
/// assert_eq!(typing.payload().unwrap(), r#"{"userName":"Ann"}"#);
/// assert_eq!(ChatEvent::Cleared.payload().unwrap(), "null");
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

/// Says that an actor declares the events of type `E`: `#[actor(events = E)]`.
#[diagnostic::on_unimplemented(
    message = "the actor `{Self}` does not declare the events of `{E}`",
    label = "not an event of `{Self}`",
    note = "declare them: `#[actor(events = {E})]` on the `impl` block of `{Self}`"
)]
pub trait Emits<E: Event> {}

//! What `#[actor]` makes of an actor's methods so that they can be named without being run:
//! by timers ([`timer`](crate::timer)) and by other actors ([`invocation`](crate::invocation)).
//! The type that it writes has the same methods with the same parameters; each turns into the
//! method's name and an encoded input, which a [`Way`] takes from there.

use serde::Serialize;

use crate::Failure;

/// The methods of an actor, to be invoked by way of `Way`.
pub trait Proxy {
    /// How they are invoked.
    type Way;
    /// The methods, invoked this way.
    fn over(way: Self::Way) -> Self;
    /// The way itself.
    fn way(&mut self) -> &mut Self::Way;
}

/// An input as JSON text, or nothing.
pub(crate) type Encoded = Result<Option<String>, Failure>;

/// A way to invoke a method whose result is a `T`.
#[diagnostic::on_unimplemented(
    message = "the result of this method, `{T}`, cannot be read by a caller",
    note = "derive `Deserialize` for it, or `send` instead of `call`"
)]
pub trait Way<T> {
    /// What naming the method gives.
    type Returned;
    /// Whether it gives the method's result.
    const READS: bool;
    /// Invokes the method.
    fn invoke(self, method: &'static str, input: Encoded) -> Self::Returned;
}

/// Whether an input can be sent this way. The bound names the way so that it is checked
/// where a method is invoked: what nobody sends needs no `Serialize`.
pub trait Carries<T> {
    /// The input as JSON text.
    fn encode(input: &T) -> Encoded;
}

impl<W, T: Serialize> Carries<T> for W {
    fn encode(input: &T) -> Encoded {
        encode(input).map(Some)
    }
}

/// An input as JSON text.
pub(crate) fn encode(input: &(impl Serialize + ?Sized)) -> Result<String, Failure> {
    serde_json::to_string(input).map_err(|error| {
        Failure::new("input.invalid")
            .message(format!("the input is not JSON: {error}"))
            .status(500)
    })
}

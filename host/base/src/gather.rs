//! What follows right upon each other, done together.
//!
//! Invariant: nothing is gathered while whoever gathers waits.

use std::pin::Pin;

/// Somewhere that things gather, to be done together when whoever gathers has come to rest.
pub trait Gather: Send + Sync + 'static {
    /// Keeps things gathering; they are done when it is dropped.
    type Gathering<'g>: Send;

    /// Begins to gather.
    fn gather(&self) -> Self::Gathering<'_>;

    /// Whether things have been gathering long enough.
    fn is_due(gathering: &Self::Gathering<'_>) -> bool;
}

/// Nowhere: everything is done at once.
impl Gather for () {
    type Gathering<'g> = ();

    fn gather(&self) {}

    fn is_due((): &()) -> bool {
        false
    }
}

/// Runs a future; should it have to wait, what has gathered does not wait with it.
///
/// It takes a reference, because a future that takes another over has room for it twice.
pub async fn while_ready<G, T>(
    gathering: &mut Option<G>,
    mut future: Pin<&mut impl Future<Output = T>>,
) -> T {
    std::future::poll_fn(|context| {
        let poll = future.as_mut().poll(context);
        if poll.is_pending() {
            *gathering = None;
        }
        poll
    })
    .await
}

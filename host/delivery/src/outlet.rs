//! Receivers, and what becomes of what they are offered.
//!
//! The gateway implements [`Outlet`] for its streams, and [`connections`](super::connections) for
//! WebSockets; a concern implements [`Source`] for what can be sent anew.
//!
//! Invariant: offering never waits, so a receiver that does not read slows nobody.

use std::sync::Arc;

use tidegate_base::budget::Exhausted;
use tidegate_core::{Client, Failure};

use super::frame::SharedFrame;

/// What became of an offer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Offer {
    /// It will be sent.
    Taken,
    /// The receiver is owed too much already; nothing was taken.
    Full,
    /// All receivers together are owed too much, which need not be this one's fault; nothing was
    /// taken.
    NoRoom(Exhausted),
    /// The receiver is gone.
    Gone,
}

/// Why a receiver is ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Close {
    /// It does not read what cannot be made up for.
    Slow,
    /// What it watches is lost, by a fault of the host.
    Lost,
}

/// A receiver: a WebSocket connection or a stream of server-sent events.
pub trait Outlet: Send + Sync + 'static {
    /// Unique among the receivers of a host. For a connection, its id.
    fn id(&self) -> &Arc<str>;
    /// Takes a frame, or not; never waits.
    fn offer(&self, frame: &SharedFrame) -> Offer;
    /// Promises a [`Source::refresh`] of this source, once, as soon as the receiver has
    /// read enough; to promise it twice is the same. Between one that found no room and the next
    /// there is a pause.
    fn refresh_later(&self, source: Arc<dyn Source>);
    /// Has those closed who are owed most, where there is no room for all; never waits.
    fn make_room(&self) {}
    /// Ends the receiver.
    fn close(&self, why: Close);
    /// Who receives.
    fn client(&self) -> Client;
    /// Tells the receiver that it is subscribed to this source no longer, and why.
    fn end(&self, source: &dyn Source, failure: &Failure);
    /// Gathers what it takes until as many [`Outlet::uncork`].
    fn cork(&self) {}
    /// Ends one [`Outlet::cork`].
    fn uncork(&self) {}
}

/// Something whose whole content can be sent anew, in place of changes that were missed.
pub trait Source: Send + Sync {
    /// Sends it to the subscriber with this id.
    fn refresh(&self, outlet: &str);
    /// The failure with its name among the parameters, for a receiver of several sources.
    fn name_in(&self, failure: Failure) -> Failure;
}

/// When a subscriber is told something that can be made up for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Told {
    /// It was taken.
    Now,
    /// The source will be sent anew in its place.
    Later,
    /// The receiver is gone, or it is told that its subscription has ended.
    Never,
}

/// Offers a subscriber something of a source, and sees to it that it is made up for if it is not
/// taken. `is_whole` is for the whole content: nothing could make up for one that never fits.
pub fn show(
    outlet: &Arc<dyn Outlet>,
    frame: &SharedFrame,
    source: &Arc<dyn Source>,
    is_whole: bool,
) -> Told {
    match outlet.offer(frame) {
        Offer::Taken => Told::Now,
        Offer::NoRoom(exhausted) if is_whole && exhausted.is_for_good() => {
            outlet.end(&**source, &exhausted.failure());
            Told::Never
        }
        Offer::Full | Offer::NoRoom(_) => {
            outlet.refresh_later(source.clone());
            Told::Later
        }
        Offer::Gone => Told::Never,
    }
}

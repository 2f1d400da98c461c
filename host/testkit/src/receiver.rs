//! A receiver for tests: it takes everything, and tells of what holds it back.

use std::sync::Arc;

use tidegate_core::{Client, Failure};
use tidegate_delivery::{Close, Offer, Outlet, SharedFrame, Source};

/// A subscriber that takes everything.
pub struct Receiver {
    id: Arc<str>,
    told: Box<dyn Fn(Told) + Send + Sync>,
}

/// What a receiver is told beside what it is sent.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Told {
    /// Something gathers for it.
    Hold,
    /// What has gathered is to be written.
    Release,
}

impl Receiver {
    /// One with this id, which passes on what it is told.
    pub fn new(id: &str, told: impl Fn(Told) + Send + Sync + 'static) -> Arc<Receiver> {
        Arc::new(Receiver {
            id: id.into(),
            told: Box::new(told),
        })
    }
}

impl Outlet for Receiver {
    fn id(&self) -> &Arc<str> {
        &self.id
    }

    fn offer(&self, _: &SharedFrame) -> Offer {
        Offer::Taken
    }

    fn refresh_later(&self, _: Arc<dyn Source>) {}

    fn close(&self, _: Close) {}

    fn client(&self) -> Client {
        Client::default()
    }

    fn end(&self, _: &dyn Source, _: &Failure) {}

    fn cork(&self) {
        (self.told)(Told::Hold);
    }

    fn uncork(&self) {
        (self.told)(Told::Release);
    }
}

//! A receiver for tests: it takes everything, and tells of what holds it back.

use std::sync::Arc;

use tidegate_core::{ActorKey, Failure};

use super::{Close, Message, Offer, Outlet, Refresh};
use tidegate_core::Client;

pub(crate) struct Receiver {
    id: Arc<str>,
    told: Box<dyn Fn(Told) + Send + Sync>,
}

#[derive(Clone, Copy, PartialEq, Eq)]
pub(crate) enum Told {
    Hold,
    Release,
}

impl Receiver {
    pub(crate) fn new(id: &str, told: impl Fn(Told) + Send + Sync + 'static) -> Arc<Receiver> {
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

    fn offer(&self, _: &Message) -> Offer {
        Offer::Taken
    }

    fn refresh_later(&self, _: Arc<dyn Refresh>) {}

    fn close(&self, _: Close) {}

    fn client(&self) -> Client {
        Client::default()
    }

    fn end(&self, _: &ActorKey, _: &Failure) {}

    fn hold(&self) {
        (self.told)(Told::Hold);
    }

    fn release(&self) {
        (self.told)(Told::Release);
    }
}

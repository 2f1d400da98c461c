//! Which connections have had contact with an actor and are open.
//!
//! Invariant: what the store has, with the changes since, is who is here.

use std::sync::Arc;

use indexmap::IndexMap;
use tidegate_core::Client;
use tidegate_core::turn::{Connected, ConnectionChange};

/// Those that have contact, in the order in which they came.
#[derive(Default)]
pub(crate) struct Presence {
    /// By their ids, with the claims of each at its first contact.
    connections: IndexMap<Arc<str>, Option<Arc<str>>>,
    /// What has changed since the last commit.
    changes: Vec<ConnectionChange>,
    /// The handler is told of connections that have closed.
    pub(crate) announces_ends: bool,
}

impl Presence {
    /// Those of an actor as it was stored.
    pub(crate) fn restored(connected: Vec<Connected>) -> Presence {
        let mut presence = Presence::default();
        presence.extend(connected.into_iter());
        presence
    }

    /// Notes connections that had contact before.
    pub(crate) fn extend(&mut self, connected: impl Iterator<Item = Connected>) {
        let connected = connected.map(|connected| (connected.id, connected.user));
        self.connections.extend(connected);
    }

    /// Notes a connection that has contact.
    pub(crate) fn add(&mut self, id: Arc<str>, user: Option<Arc<str>>) {
        self.connections.insert(id.clone(), user.clone());
        let opened = ConnectionChange::Opened(Connected { id, user });
        self.changes.push(opened);
    }

    /// Forgets a connection. False if it had no contact.
    pub(crate) fn remove(&mut self, id: &Arc<str>) -> bool {
        let had_contact = self.connections.shift_remove(id).is_some();
        if had_contact {
            let closed = ConnectionChange::Closed(id.clone());
            self.changes.push(closed);
        }
        had_contact
    }

    /// Those that have contact, as they were at their first.
    pub(crate) fn clients(&self) -> Vec<Client> {
        let client = |(id, user): (&Arc<str>, &Option<Arc<str>>)| Client {
            connection: Some(id.clone()),
            user: user.clone(),
        };
        self.connections.iter().map(client).collect()
    }

    /// Their ids.
    pub(crate) fn ids(&self) -> impl Iterator<Item = &Arc<str>> {
        self.connections.keys()
    }

    /// What a commit says of them: nothing where the handler does not want to be told of their
    /// ends, and the store need not know them.
    pub(crate) fn take_changes(&mut self) -> Vec<ConnectionChange> {
        let changes = std::mem::take(&mut self.changes);
        match self.announces_ends {
            true => changes,
            false => Vec::new(),
        }
    }

    /// As they are stored.
    pub(crate) fn to_stored(&self) -> Vec<Connected> {
        let connected = |(id, user): (&Arc<str>, &Option<Arc<str>>)| Connected {
            id: id.clone(),
            user: user.clone(),
        };
        self.connections.iter().map(connected).collect()
    }
}

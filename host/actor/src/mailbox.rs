//! The queue of one actor: bounded, first in, first out, with one consumer at a time.
//!
//! Pure data; `activation` puts it behind a lock.

use std::collections::VecDeque;
use std::time::Instant;

use tidegate_base::budget::Share;
use tidegate_base::clock::instant;
use tidegate_base::timer::Due;
use tidegate_core::{ActorKey, CallEnvelope, Client, Failure};
use tokio::sync::oneshot;
use tokio_util::sync::CancellationToken;
use tracing::warn;

use crate::metrics::Stopwatch;
use crate::turn::{ReplyTo, Which};

/// One piece of work for an actor.
pub(super) enum Item {
    /// A call of a client or of another actor. Boxed, because a queue keeps room for its items.
    Call(Box<Call>),
    /// A timer or schedule of the actor is due.
    Due(Which, Due),
    /// First contact of a connection.
    Connect(Box<Arrival>),
    /// A connection that had contact has closed.
    Disconnect(Client),
    /// Another component serves the actor: its state is to be one of that component's.
    Fit(oneshot::Sender<Result<(), Failure>>),
    /// The actor may leave memory.
    Retire(Retire),
    /// The actor's state is to be forgotten.
    Destroy(oneshot::Sender<Result<(), Failure>>),
}

impl Item {
    /// Whether the actor, or its state, is no more behind it.
    fn ends_actor(&self) -> bool {
        matches!(
            self,
            Item::Destroy(_) | Item::Retire(Retire::Always | Retire::Withdrawn | Retire::Moved)
        )
    }

    /// Answers for an item that will not be run.
    pub(super) fn refuse(self, actor: &ActorKey, failure: Failure) {
        match self {
            Item::Call(call) => call.reply.send(Err(failure)),
            Item::Connect(arrival) => hook_lost(actor, &arrival.client, &failure),
            Item::Disconnect(client) => hook_lost(actor, &client, &failure),
            Item::Retire(_) | Item::Due(..) => {}
            // Who does not wait any longer wants no answer.
            Item::Fit(done) | Item::Destroy(done) => drop(done.send(Err(failure))),
        }
    }
}

fn hook_lost(actor: &ActorKey, client: &Client, failure: &Failure) {
    warn!(%actor, connection = ?client.connection, %failure, "a hook will not run");
}

/// The first contact of a connection with an actor.
pub(super) struct Arrival {
    pub(super) client: Client,
    /// Dropped when the actor has been told of it, or never will be.
    pub(super) _told: Option<oneshot::Sender<()>>,
}

impl Item {
    /// The first contact of a connection, which nobody waits for.
    #[cfg(test)]
    pub(super) fn connect(client: Client) -> Item {
        Item::Connect(Box::new(Arrival {
            client,
            _told: None,
        }))
    }
}

/// How much an actor resists leaving memory.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Retire {
    /// Only while it is idle.
    WhenIdle,
    /// In any case: the host stops.
    Always,
    /// In any case: no component serves its type any more.
    Withdrawn,
    /// In any case: it goes on at another host.
    Moved,
}

/// Why the turns of an actor end before they would by themselves.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Ending {
    /// The actor's state is to be forgotten.
    Destroyed,
    /// No component serves its type any more.
    Withdrawn,
    /// The host stops.
    Stopping,
}

/// A method call, with what of it exists on this host only.
pub struct Call {
    /// What is said of it.
    pub envelope: CallEnvelope,
    /// When the caller stops waiting.
    pub deadline: Option<Instant>,
    /// What it has taken of the host's budget, where no connection answers for that.
    pub share: Option<Share>,
    /// Set when nobody wants the result any longer.
    pub cancel: CancellationToken,
    /// When it came.
    pub arrived: Instant,
    /// Notes how long its stages take.
    pub watch: Stopwatch,
    /// Who gets the result.
    pub reply: ReplyTo,
}

impl Call {
    /// A call that arrives now and that nobody limits or measures.
    pub fn new(envelope: CallEnvelope, reply: ReplyTo) -> Call {
        Call {
            envelope,
            deadline: None,
            share: None,
            cancel: CancellationToken::new(),
            arrived: instant(),
            watch: Stopwatch::default(),
            reply,
        }
    }
}

/// Bounds of a mailbox.
#[derive(Clone, Copy, Debug)]
pub(super) struct Bounds {
    pub(super) items: usize,
    pub(super) bytes: usize,
}

#[derive(Default)]
pub(super) struct Mailbox {
    items: VecDeque<Item>,
    bytes: usize,
    calls: usize,
    /// Connections whose `connect` is queued.
    contacts: usize,
    /// Somebody consumes the queue.
    draining: bool,
    /// The actor has left memory; its key belongs to a successor.
    gone: bool,
    /// What ends the running turn.
    running: Option<CancellationToken>,
    /// No turn begins or goes on, until the queue has come to what ends the actor.
    ending: Option<Ending>,
}

/// What became of a delivery.
pub(super) enum Delivered {
    /// It is queued, and the queue has a consumer.
    Queued,
    /// It is queued; the caller must start a consumer.
    Idle,
    /// There are too many calls.
    Full(Item),
    /// The actor has left memory: try its successor.
    Gone(Item),
}

impl Mailbox {
    /// Queues an item. Calls and new connections are bounded; the others are few by nature (one
    /// more for each connection, at most one of the rest) and must not be lost.
    pub(super) fn deliver(&mut self, item: Item, bounds: Bounds) -> Delivered {
        if self.gone {
            return Delivered::Gone(item);
        }
        if let Item::Call(call) = &item {
            if self.calls >= bounds.items || self.bytes >= bounds.bytes {
                return Delivered::Full(item);
            }
            self.calls += 1;
            self.bytes += weight(call);
        }
        if let Item::Connect(_) = &item {
            if self.contacts >= bounds.items {
                return Delivered::Full(item);
            }
            self.contacts += 1;
        }
        self.items.push_back(item);
        match std::mem::replace(&mut self.draining, true) {
            true => Delivered::Queued,
            false => Delivered::Idle,
        }
    }

    /// The next item, and whether there are more; none ends the consumer's job.
    pub(super) fn next(&mut self) -> Option<(Item, bool)> {
        let item = self.items.pop_front();
        self.running = None;
        if self.ending.is_some() && item.as_ref().is_none_or(Item::ends_actor) {
            self.ending = None;
        }
        match &item {
            Some(Item::Call(call)) => {
                self.calls -= 1;
                self.bytes -= weight(call);
            }
            Some(Item::Connect(_)) => self.contacts -= 1,
            Some(_) => {}
            None => self.draining = false,
        }
        // A burst's capacity is given back.
        if self.items.is_empty() && self.items.capacity() > 64 {
            self.items = VecDeque::new();
        }
        item.map(|item| (item, !self.items.is_empty()))
    }

    /// Becomes the consumer if there is none; false if there is, or the actor is gone.
    pub(super) fn begin(&mut self) -> bool {
        !self.gone && !std::mem::replace(&mut self.draining, true)
    }

    /// Notes what ends a turn that begins; says why it must not, if so.
    pub(super) fn begin_turn(&mut self, cancel: &CancellationToken) -> Result<(), Ending> {
        match self.ending {
            Some(ending) => Err(ending),
            None => {
                self.running = Some(cancel.clone());
                Ok(())
            }
        }
    }

    /// Why turns end, while they do.
    pub(super) fn ending(&self) -> Option<Ending> {
        self.ending
    }

    /// Ends the turns that stand between the actor and its end, if it is still to come. Returns
    /// what is to be cancelled for that.
    pub(super) fn end_turns(&mut self, ending: Ending) -> Option<CancellationToken> {
        let is_to_come = match ending {
            Ending::Stopping => self.draining,
            Ending::Destroyed | Ending::Withdrawn => self.items.iter().any(Item::ends_actor),
        };
        if !is_to_come {
            return None;
        }
        self.ending = Some(ending);
        self.running.take()
    }

    /// Whether nothing is queued and nobody consumes.
    pub(super) fn is_idle(&self) -> bool {
        self.items.is_empty() && !self.draining
    }

    /// Takes the calls out that nobody wants the results of.
    pub(super) fn take_cancelled(&mut self) -> Vec<Call> {
        let (cancelled, rest): (VecDeque<Item>, VecDeque<Item>) = std::mem::take(&mut self.items)
            .into_iter()
            .partition(|item| matches!(item, Item::Call(call) if call.cancel.is_cancelled()));
        self.items = rest;
        let cancelled = cancelled.into_iter().filter_map(|item| match item {
            Item::Call(call) => Some(*call),
            _ => None,
        });
        let cancelled: Vec<Call> = cancelled.collect();
        for call in &cancelled {
            self.calls -= 1;
            self.bytes -= weight(call);
        }
        cancelled
    }

    /// Takes one call out that was just cancelled; the newest come first, since those are
    /// the ones that wait longest.
    pub(super) fn take_newest_cancelled(&mut self) -> Option<Call> {
        let is_cancelled =
            |item: &Item| matches!(item, Item::Call(call) if call.cancel.is_cancelled());
        let place = self.items.iter().rposition(is_cancelled)?;
        match self.items.remove(place) {
            Some(Item::Call(call)) => {
                self.calls -= 1;
                self.bytes -= weight(&call);
                Some(*call)
            }
            _ => None,
        }
    }

    /// How many items wait.
    pub(super) fn len(&self) -> usize {
        self.items.len()
    }

    pub(super) fn is_gone(&self) -> bool {
        self.gone
    }

    /// Ends the mailbox if nothing is queued, or in any case.
    pub(super) fn close(&mut self, retire: Retire) -> bool {
        if self.items.is_empty() || retire != Retire::WhenIdle {
            self.gone = true;
        }
        self.gone
    }

    /// What is left in a mailbox that ends.
    pub(super) fn take_rest(&mut self) -> VecDeque<Item> {
        self.gone = true;
        std::mem::take(&mut self.items)
    }
}

fn weight(call: &Call) -> usize {
    size_of::<Item>() + size_of::<Call>() + call.envelope.bytes()
}

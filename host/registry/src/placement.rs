//! Where entities are at home, and the way to hosts where others are: the seam for many hosts.
//!
//! A concern asks [`Homes`] once, where something comes for an entity, and hands it to [`Links`]
//! where the entity is elsewhere. Alone, everything is here, and nothing is handed over.
//!
//! Invariants: at any time at most one host finds an entity here; what is handed over is answered
//! by the host that it reached, or nobody knows what became of it.

use std::pin::Pin;
use std::sync::Arc;

use tidegate_core::Failure;
use tidegate_core::place::{EntityKey, Incarnation, Kind, Term};

/// Something that is there later.
pub type Pending<T> = Pin<Box<dyn Future<Output = T> + Send>>;

/// Where an entity is at home.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Home {
    /// On this host, which owns its shard for this term.
    Here(Term),
    /// On another one.
    There(Incarnation),
    /// On its way: nobody runs it until it has arrived.
    Moving,
}

/// Knows where entities are at home.
pub trait Homes: Send + Sync + 'static {
    /// Where this one is now.
    fn of(&self, key: EntityKey<'_>) -> Home;

    /// Completes once some home has changed after this call.
    fn changed(&self) -> Pending<()>;
}

/// What one concern says to its like on another host. The text is the concern's own affair.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Parcel {
    /// Whose it is.
    pub kind: Kind,
    /// What it says, as JSON text.
    pub text: String,
}

/// The way to other hosts. What goes to one of them arrives in the order in which it was sent, or
/// not at all.
pub trait Links: Send + Sync + 'static {
    /// Asks a host something.
    ///
    /// # Errors
    /// What the other one answered; or `call.lost`: it may have been done, or not.
    fn ask(&self, to: &Incarnation, parcel: Parcel) -> Pending<Result<String, Failure>>;

    /// Tells a host something that nobody waits for. False where it takes no more now, or is gone:
    /// then nothing was sent.
    fn tell(&self, to: &Incarnation, parcel: Parcel) -> bool;

    /// Completes once a host that took no more takes more, or is gone.
    fn room(&self, to: &Incarnation) -> Pending<()>;
}

/// Carries what all hosts are to hear that care for a subject: broadcasts to a room whose members
/// are connected to several. What somebody says on this host its concern tells on this host itself;
/// the others hear it by the bus, where they listen, or not at all. What one host says of a subject
/// is heard in the order in which it was said.
pub trait Bus: Send + Sync + 'static {
    /// Tells the other hosts that listen to a subject. False where it takes no more now: then
    /// nothing was sent.
    fn publish(&self, subject: &str, parcel: Parcel) -> bool;

    /// Listens to a subject, until what is returned is dropped.
    fn listen(&self, subject: &str, hear: Box<dyn Fn(Parcel) + Send + Sync>) -> Listening;
}

/// Somebody listens to a subject of a [`Bus`] as long as it is kept.
pub type Listening = Box<dyn Send + Sync>;

/// Where a host stands among the others.
#[derive(Clone)]
pub struct Placement {
    /// Where entities are at home.
    pub homes: Arc<dyn Homes>,
    /// The way to those that are elsewhere.
    pub links: Arc<dyn Links>,
    /// What all hosts hear that listen.
    pub bus: Arc<dyn Bus>,
}

impl Placement {
    /// That of a host that is alone.
    pub fn alone() -> Placement {
        Placement {
            homes: Arc::new(Alone),
            links: Arc::new(Alone),
            bus: Arc::new(Alone),
        }
    }
}

/// One host, which is home to everything.
#[derive(Clone, Copy, Debug, Default)]
pub struct Alone;

impl Homes for Alone {
    fn of(&self, _: EntityKey<'_>) -> Home {
        Home::Here(Term::default())
    }

    fn changed(&self) -> Pending<()> {
        Box::pin(std::future::pending())
    }
}

impl Links for Alone {
    fn ask(&self, _: &Incarnation, _: Parcel) -> Pending<Result<String, Failure>> {
        Box::pin(std::future::ready(Err(Failure::call_lost())))
    }

    fn tell(&self, _: &Incarnation, _: Parcel) -> bool {
        false
    }

    fn room(&self, _: &Incarnation) -> Pending<()> {
        Box::pin(std::future::ready(()))
    }
}

impl Bus for Alone {
    fn publish(&self, _: &str, _: Parcel) -> bool {
        true
    }

    fn listen(&self, _: &str, _: Box<dyn Fn(Parcel) + Send + Sync>) -> Listening {
        Box::new(())
    }
}

//! Frames that many receivers share.
//!
//! A [`SharedFrame`] is encoded at most once per form and its bytes are shared by all who are sent
//! it. What it says, and how that reads, is its [`Content`]'s affair.

use std::any::Any;
use std::fmt;
use std::sync::{Arc, OnceLock};

use bytes::Bytes;
use tidegate_base::budget::{Budget, Exhausted, Lasting};
use tidegate_ws::Frame;

/// What a receiver understands beyond the least that all do.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Dialect {
    /// Patches in the operations of JSON Patch.
    #[default]
    Plain,
    /// `str_ins` as well, which appends to a text without sending it anew.
    StrIns,
}

/// What a frame says.
pub trait Content: Any + fmt::Debug + Send + Sync {
    /// Whether it reads otherwise in the extended dialect.
    fn is_extended(&self) -> bool {
        false
    }

    /// As the text of a WebSocket frame.
    fn text(&self, dialect: Dialect) -> String;

    /// As a server-sent event (WHATWG HTML, section 9.2); see [`sse`].
    fn server_sent_event(&self, dialect: Dialect) -> String;
}

/// Something that many are told.
#[derive(Debug)]
pub struct SharedFrame<C: ?Sized = dyn Content> {
    frames: Forms<Frame>,
    events: Forms<Bytes>,
    /// Where these are found while others are still to be sent them.
    lasting: Option<Arc<LastingForms>>,
    content: C,
}

/// The forms of what comes again: held by those who are sent them alone.
#[derive(Debug, Default)]
struct LastingForms {
    frame: Lasting,
    event: Lasting,
}

/// One thing in each dialect, made once somebody wants it.
#[derive(Debug)]
struct Forms<T> {
    plain: OnceLock<T>,
    extended: OnceLock<T>,
}

impl<T> Default for Forms<T> {
    fn default() -> Forms<T> {
        Forms {
            plain: OnceLock::new(),
            extended: OnceLock::new(),
        }
    }
}

impl<T> Forms<T> {
    /// The form in this dialect, made if need be.
    fn get_or_make(
        &self,
        is_extended: bool,
        make: impl FnOnce() -> Result<T, Exhausted>,
    ) -> Result<&T, Exhausted> {
        let place = match is_extended {
            true => &self.extended,
            false => &self.plain,
        };
        if let Some(made) = place.get() {
            return Ok(made);
        }
        let made = make()?;
        Ok(place.get_or_init(|| made))
    }
}

impl<C: Content> SharedFrame<C> {
    /// A frame that nobody has asked for in any form yet.
    pub fn new(content: C) -> SharedFrame<C> {
        SharedFrame {
            frames: Forms::default(),
            events: Forms::default(),
            lasting: None,
            content,
        }
    }

    /// A frame that is kept and comes [`again`](SharedFrame::again), alike in each dialect.
    pub fn lasting(content: C) -> SharedFrame<C> {
        SharedFrame {
            lasting: Some(Arc::default()),
            ..SharedFrame::new(content)
        }
    }
}

impl<C: Content + Clone> SharedFrame<C> {
    /// A frame that is kept, to be sent: whoever is sent it while another still has it shares
    /// that one's form.
    pub fn again(&self) -> SharedFrame<C> {
        SharedFrame {
            lasting: self.lasting.clone(),
            ..self.bare()
        }
    }

    /// Its content in no form yet: for who keeps it. Forms belong to those that they are sent to,
    /// and are taken from the memory that there is for these.
    pub fn bare(&self) -> SharedFrame<C> {
        SharedFrame::new(self.content.clone())
    }
}

impl<C: Content + ?Sized> SharedFrame<C> {
    /// What it says.
    pub fn content(&self) -> &C {
        &self.content
    }

    fn is_extended(&self, dialect: Dialect) -> bool {
        dialect == Dialect::StrIns && self.content.is_extended()
    }

    /// As a WebSocket frame of the protocol, taken from the budget when it is made.
    pub fn frame(&self, dialect: Dialect, budget: &Arc<Budget>) -> Result<&Frame, Exhausted> {
        let text = || self.content.text(dialect);
        let make = || match &self.lasting {
            None => Frame::shared_text(text(), budget),
            Some(lasting) => {
                let make = || budget.shared(Frame::encoded_text(text()));
                let shared = lasting.frame.or_make(make);
                shared.map(|shared| Frame::of_shared(&shared))
            }
        };
        self.frames.get_or_make(self.is_extended(dialect), make)
    }

    /// As a server-sent event, taken from the budget when it is made.
    pub fn server_sent_event(
        &self,
        dialect: Dialect,
        budget: &Arc<Budget>,
    ) -> Result<&Bytes, Exhausted> {
        let text = || self.content.server_sent_event(dialect).into_bytes();
        let make = || match &self.lasting {
            None => budget.bytes(text()),
            Some(lasting) => {
                let shared = lasting.event.or_make(|| budget.shared(text()));
                shared.map(|shared| shared.bytes())
            }
        };
        self.events.get_or_make(self.is_extended(dialect), make)
    }
}

/// One server-sent event. Line breaks in JSON text are white space between tokens, never
/// part of a string, so they may become spaces.
pub fn sse(event: &str, id: Option<(&str, u64)>, json: &str) -> String {
    let id = id.map_or(String::new(), |(epoch, version)| {
        format!("id: {epoch}:{version}\n")
    });
    let json = if json.contains(['\n', '\r']) {
        std::borrow::Cow::Owned(json.replace(['\n', '\r'], " "))
    } else {
        std::borrow::Cow::Borrowed(json)
    };
    format!("event: {event}\n{id}data: {json}\n\n")
}

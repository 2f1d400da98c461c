//! The examples of Zocket's roadmap, translated: a module for each of its chapters, with the
//! names that it gives to actors, methods and fields. Delays are shorter than there.
//!
//! What the roadmap says about its examples without showing it (a timer set in a hook, a turn
//! that fails) has an actor of its own beside them.

pub mod calls;
pub mod chunks;
pub mod cron;
pub mod events;
pub mod streams;
pub mod timers;
pub mod together;

use calls::{Lobby, Manager, Match, Rally, Researcher, Worker};
use chunks::Agent;
use cron::{Presence, Pulse};
use streams::Writer;
use together::{AgentRun, Tool};

tidegate_sdk::export!(
    events::GameRoom,
    timers::GameRoom,
    timers::Alarm,
    timers::Metronome,
    Presence,
    Pulse,
    Lobby,
    Match,
    Manager,
    Researcher,
    Worker,
    Rally,
    Writer,
    Agent,
    AgentRun,
    Tool,
);

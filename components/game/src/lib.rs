//! A game for up to eight: steer your boat to the pearls before the others do.
//!
//! People join a lobby; one of them starts a countdown, which a timer ends; a round then ticks
//! every 16 ms until another timer ends it. Each tick is a short turn, so that what players
//! steer meanwhile takes its place between two ticks, in the same queue. Outside of rounds
//! nothing runs but a schedule that removes, twice a minute, who has gone for good.
//!
//! The state is what a client draws. Only boats that move change it, and a patch names only
//! the numbers that changed.

mod arena;

use std::collections::BTreeMap;

use arena::Place;
use tidegate_sdk::prelude::*;

pub use arena::{Chance, Course, FULL_HELM, HEIGHT, Pearl, WIDTH};

/// How many can play.
const PLAYERS_MAX: usize = 8;
/// How many characters a name may have.
const NAME_MAX: usize = 20;
/// How long a countdown is, and how long it may be.
const COUNTDOWN_SECONDS: u32 = 3;
const COUNTDOWN_SECONDS_MAX: u32 = 10;
/// How long a round is, and how long it may be.
const ROUND_SECONDS: u32 = 20;
const ROUND_SECONDS_MAX: u32 = 120;
/// How long somebody who has gone may come back and find their points.
const ABSENCE_MAX_MS: u64 = 30_000;
/// What its own timers and schedules call, and nobody else.
const BY_THE_CLOCK: [&str; 5] = ["beginRound", "countDown", "tick", "endRound", "cleanup"];

/// A bay with boats and pearls.
#[derive(Default, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct Game {
    phase: Phase,
    /// Until the countdown or the round ends.
    seconds_left: u32,
    /// 0 before the first round.
    round: u32,
    /// By name.
    players: BTreeMap<String, Player>,
    /// What there is to take; empty outside of rounds.
    pearls: Vec<Pearl>,
    /// Who won the last round; several who have the same score.
    winners: Vec<String>,
    /// How many connections have the game open, players included.
    watching: usize,
    /// Hidden: by connection, who steers which boat. A player without a helm is absent.
    helms: BTreeMap<String, Helm>,
    /// Hidden: the timers of the phase.
    timers: Vec<TimerId>,
    /// Hidden, so that nobody foresees where pearls come up.
    chance: Chance,
}

/// What the game is at.
#[derive(Debug, Default, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
pub enum Phase {
    /// Waiting for somebody to start.
    #[default]
    Lobby,
    /// About to begin.
    Countdown,
    /// Boats move.
    Playing,
}

/// Somebody who plays, and their boat.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct Player {
    /// From 0; no two players have the same.
    pub color: usize,
    /// What the pearls were worth that they took in this round, or the last one.
    pub score: u32,
    /// How far the boat is from the left edge.
    pub x: i32,
    /// How far it is from the upper edge.
    pub y: i32,
    /// Since when their connection is gone, in milliseconds since the Unix epoch.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub absent_since: Option<u64>,
}

#[derive(Serialize, Deserialize, JsonSchema)]
struct Helm {
    player: String,
    course: Course,
}

/// What passes by.
#[derive(Event)]
pub enum GameEvent {
    /// Somebody took a pearl.
    Collected {
        /// Who took it.
        name: String,
        /// Which pearl.
        pearl: Pearl,
    },
    /// The time was up.
    RoundEnded {
        /// Which round it was.
        round: u32,
        /// Nobody, if nobody took a pearl.
        winners: Vec<String>,
    },
}

/// Why the game refuses.
#[derive(Debug, PartialEq, Failure)]
#[failure(prefix = "game")]
pub enum GameError {
    /// A plain HTTP request, which cannot play.
    #[failure(message = "only a WebSocket connection can play")]
    NoConnection,
    /// The name is empty, or too long.
    #[failure(message = "a name has 1 to {max} characters")]
    InvalidName {
        /// How many characters are allowed.
        max: usize,
    },
    /// Somebody else here has it.
    #[failure(status = 409, message = "{name} is already playing")]
    NameTaken {
        /// The name.
        name: String,
    },
    /// The caller has a boat.
    #[failure(status = 409, message = "you are playing as {name}")]
    AlreadyJoined {
        /// Their name.
        name: String,
    },
    /// There is no boat left.
    #[failure(status = 409, message = "all {boats} boats are taken")]
    Full {
        /// How many there are.
        boats: usize,
    },
    /// The caller has no boat.
    #[failure(status = 403, message = "join the game first")]
    NotJoined,
    /// A countdown or a round is running.
    #[failure(status = 409, message = "the game has started already")]
    AlreadyStarted,
    /// A number is too small or too large.
    #[failure(message = "{name} is from {min} to {max}")]
    OutOfRange {
        /// Which number.
        name: String,
        /// The smallest.
        min: i64,
        /// The largest.
        max: i64,
    },
    /// It is not for players to say when.
    #[failure(status = 403, message = "the game calls {method} itself")]
    ByTheClock {
        /// What was called.
        method: String,
    },
    /// The system gave no random numbers.
    #[failure(
        status = 500,
        message = "there are no random numbers to hide pearls with"
    )]
    NoRandomness,
}

#[actor(events = GameEvent, hidden("helms", "timers", "chance"))]
impl Game {
    /// Runs ahead of what others call, not of what timers do.
    #[before]
    fn admit(&self, call: &Call<'_>) -> Result<(), GameError> {
        if BY_THE_CLOCK.contains(&call.method()) {
            let method = call.method().to_owned();
            return Err(GameError::ByTheClock { method });
        }
        Ok(())
    }

    /// Takes a boat, at any time; gives its color. Under the name of somebody who is absent,
    /// takes over theirs: it is they who come back, as far as one can know.
    pub fn join(&mut self, ctx: &Context<Self>, name: String) -> Result<usize, GameError> {
        let connection = ctx.connection().ok_or(GameError::NoConnection)?;
        let name = name.trim().to_owned();
        if name.is_empty() || name.chars().count() > NAME_MAX {
            return Err(GameError::InvalidName { max: NAME_MAX });
        }
        if let Some(helm) = self.helms.get(connection) {
            let name = helm.player.clone();
            return Err(GameError::AlreadyJoined { name });
        }
        let color = match self.players.get_mut(&name) {
            Some(player) if player.absent_since.is_none() => {
                return Err(GameError::NameTaken { name });
            }
            Some(player) => {
                player.absent_since = None;
                player.color
            }
            None => self.add_player(&name)?,
        };
        let helm = Helm {
            player: name,
            course: Course::default(),
        };
        self.helms.insert(connection.to_owned(), helm);
        Ok(color)
    }

    /// Gives the boat back, and its points.
    pub fn leave(&mut self, ctx: &mut Context<Self>) -> Result<(), GameError> {
        let connection = ctx.connection().ok_or(GameError::NoConnection)?;
        let helm = self.helms.remove(connection);
        let helm = helm.ok_or(GameError::NotJoined)?;
        self.players.remove(&helm.player);
        self.stop_if_deserted(ctx);
        Ok(())
    }

    /// Starts the countdown to a round. Whoever joins until then, or later, plays.
    pub fn start(
        &mut self,
        ctx: &mut Context<Self>,
        /// How many seconds until the round begins.
        countdown: Option<u32>,
        /// How many seconds it lasts.
        seconds: Option<u32>,
    ) -> Result<(), GameError> {
        self.helm_of(ctx)?;
        let countdown = countdown.unwrap_or(COUNTDOWN_SECONDS);
        let seconds = seconds.unwrap_or(ROUND_SECONDS);
        check("countdown", countdown, 1, COUNTDOWN_SECONDS_MAX)?;
        check("seconds", seconds, 1, ROUND_SECONDS_MAX)?;
        if self.phase != Phase::Lobby {
            return Err(GameError::AlreadyStarted);
        }
        // Here and not when the round begins: the clock could tell nobody of a failure.
        let seed = getrandom::u32().map_err(|_| GameError::NoRandomness)?;
        self.chance = Chance::from_seed(seed);
        self.enter(ctx, Phase::Countdown, countdown);
        self.timers = vec![
            ctx.after(secs(countdown.into())).begin_round(seconds),
            ctx.every(secs(1)).count_down(),
        ];
        Ok(())
    }

    /// Steers the caller's boat, until told otherwise or the round ends; in a countdown, from
    /// the first tick on. Right and down are positive, a vector 100 long is full speed, and
    /// `{"dx": 0, "dy": 0}` stops the boat.
    pub fn steer(&mut self, ctx: &Context<Self>, dx: i32, dy: i32) -> Result<(), GameError> {
        let helm = self.helm_of(ctx)?;
        check("dx", dx, -FULL_HELM, FULL_HELM)?;
        check("dy", dy, -FULL_HELM, FULL_HELM)?;
        helm.course = Course::steered(dx, dy);
        Ok(())
    }

    /// By a timer: the countdown is over.
    pub fn begin_round(&mut self, ctx: &mut Context<Self>, seconds: u32) {
        self.enter(ctx, Phase::Playing, seconds);
        self.round += 1;
        self.winners.clear();
        for player in self.players.values_mut() {
            player.score = 0;
            player.moor();
        }
        let boats: Vec<Place> = self.players.values().map(Player::place).collect();
        self.pearls = self.chance.pearls(&boats);
        self.timers = vec![
            ctx.every(millis(16)).tick(),
            ctx.every(secs(1)).count_down(),
            ctx.after(secs(seconds.into())).end_round(),
        ];
    }

    /// By a timer, every second of a countdown and of a round.
    pub fn count_down(&mut self) {
        self.seconds_left = self.seconds_left.saturating_sub(1);
    }

    /// By a timer, every 16 ms of a round: moves the boats, and gives them what they reach.
    pub fn tick(&mut self, ctx: &mut Context<Self>) {
        let (mut names, mut boats) = (Vec::new(), Vec::new());
        for helm in self.helms.values() {
            let Some(player) = self.players.get_mut(&helm.player) else {
                continue;
            };
            let place = player.place().after(helm.course);
            (player.x, player.y) = (place.x, place.y);
            names.push(&helm.player);
            boats.push(place);
        }
        for pearl in &mut self.pearls {
            let sailing = names.iter().zip(boats.iter().copied());
            let Some(name) = pearl.taker(sailing) else {
                continue;
            };
            // Another comes up in its stead, so that a patch is a few numbers.
            let taken = std::mem::replace(pearl, self.chance.pearl(&boats));
            if let Some(player) = self.players.get_mut(*name) {
                player.score += taken.worth;
            }
            ctx.emit(GameEvent::Collected {
                name: (*name).clone(),
                pearl: taken,
            });
        }
    }

    /// By a timer: the time is up. Who is absent may have won all the same.
    pub fn end_round(&mut self, ctx: &mut Context<Self>) {
        self.enter(ctx, Phase::Lobby, 0);
        let best = self.players.values().map(|player| player.score).max();
        self.winners = self
            .players
            .iter()
            .filter(|(_, player)| player.score > 0 && Some(player.score) == best)
            .map(|(name, _)| name.clone())
            .collect();
        ctx.emit(GameEvent::RoundEnded {
            round: self.round,
            winners: self.winners.clone(),
        });
    }

    /// Removes who has been absent for long.
    #[cron(every = "30s")]
    pub fn cleanup(&mut self, ctx: &Context<Self>) {
        let now = ctx.now();
        let is_gone = |since: u64| now.saturating_sub(since) >= ABSENCE_MAX_MS;
        self.players
            .retain(|_, player| !player.absent_since.is_some_and(is_gone));
    }

    #[connect]
    fn came(&mut self, ctx: &Context<Self>) {
        self.watching = ctx.connections().len();
    }

    #[disconnect]
    fn went(&mut self, ctx: &mut Context<Self>) {
        self.watching = ctx.connections().len();
        self.forget_closed(ctx);
        self.stop_if_deserted(ctx);
    }

    /// Timers do not survive that the actor left memory, and connections that closed
    /// meanwhile, such as in a crash of the host, have not said goodbye.
    #[activate]
    fn woke(&mut self, ctx: &mut Context<Self>) {
        self.watching = ctx.connections().len();
        self.forget_closed(ctx);
        self.stop(ctx);
    }

    fn helm_of(&mut self, ctx: &Context<Self>) -> Result<&mut Helm, GameError> {
        let connection = ctx.connection().ok_or(GameError::NoConnection)?;
        self.helms.get_mut(connection).ok_or(GameError::NotJoined)
    }

    /// Gives somebody new the first color that is free; in place of one who is absent, if
    /// all boats are taken.
    fn add_player(&mut self, name: &str) -> Result<usize, GameError> {
        if self.players.len() >= PLAYERS_MAX {
            let absent = self.players.iter();
            let absent = absent.filter_map(|(name, player)| Some((player.absent_since?, name)));
            let longest = absent.min().map(|(_, name)| name.clone());
            let longest = longest.ok_or(GameError::Full { boats: PLAYERS_MAX })?;
            self.players.remove(&longest);
        }
        let is_free = |color: &usize| self.players.values().all(|other| other.color != *color);
        let color = (0..PLAYERS_MAX).find(is_free).unwrap_or_default();
        let mut player = Player {
            color,
            score: 0,
            x: 0,
            y: 0,
            absent_since: None,
        };
        player.moor();
        self.players.insert(name.to_owned(), player);
        Ok(color)
    }

    /// Begins a phase: what the one before had set up ends.
    fn enter(&mut self, ctx: &mut Context<Self>, phase: Phase, seconds: u32) {
        for timer in self.timers.drain(..) {
            ctx.cancel(timer);
        }
        self.phase = phase;
        self.seconds_left = seconds;
        if phase != Phase::Playing {
            self.pearls.clear();
            for helm in self.helms.values_mut() {
                helm.course = Course::default();
            }
        }
    }

    /// Without anybody at a helm, nothing is worth ticking for.
    fn stop_if_deserted(&mut self, ctx: &mut Context<Self>) {
        if self.helms.is_empty() {
            self.stop(ctx);
        }
    }

    fn stop(&mut self, ctx: &mut Context<Self>) {
        match self.phase {
            Phase::Lobby => {}
            Phase::Countdown => self.enter(ctx, Phase::Lobby, 0),
            Phase::Playing => self.end_round(ctx),
        }
    }

    /// Players whose connection has closed are absent.
    fn forget_closed(&mut self, ctx: &Context<Self>) {
        let open = ctx.connections();
        self.helms.retain(|connection, _| open.contains(connection));
        for (name, player) in &mut self.players {
            if !self.helms.values().any(|helm| helm.player == *name) {
                player.absent_since.get_or_insert(ctx.now());
            }
        }
    }
}

impl Player {
    fn place(&self) -> Place {
        Place {
            x: self.x,
            y: self.y,
        }
    }

    /// Puts the boat where it starts.
    fn moor(&mut self) {
        let start = Place::start(self.color);
        (self.x, self.y) = (start.x, start.y);
    }
}

fn check<T: PartialOrd + Into<i64>>(name: &str, found: T, min: T, max: T) -> Result<(), GameError> {
    if min <= found && found <= max {
        return Ok(());
    }
    Err(GameError::OutOfRange {
        name: name.to_owned(),
        min: min.into(),
        max: max.into(),
    })
}

tidegate_sdk::export!(Game);

#[cfg(test)]
mod tests;

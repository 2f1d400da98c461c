//! A card table for two to six: everybody gets five cards, the highest card of the suit that
//! was led takes the trick, and who holds that suit must play it.
//!
//! The state is what lies on the table and is broadcast. What a player alone may know leaves
//! by an event to that player's connection; deck and hands are hidden members of the state.
//!
//! `join` gives a key: with it, a player whose connection broke takes the same seat again.

mod card;

use tidegate_sdk::prelude::*;

pub use card::{Card, Suit};

/// How many can play.
const SEATS: usize = 6;
/// How many cards everybody gets.
const HAND: usize = 5;
/// How many characters a name may have.
const NAME_MAX: usize = 40;

/// A card table.
#[derive(Default, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct Cards {
    /// 0 before the first round.
    round: u32,
    /// In the order of their seats.
    players: Vec<Player>,
    /// The seat whose turn it is; absent between rounds.
    turn: Option<usize>,
    /// The cards on the table, in the order in which they were played.
    trick: Vec<Played>,
    /// Hidden: what was not dealt.
    deck: Vec<Card>,
    /// Hidden: by seat.
    hands: Vec<Vec<Card>>,
    /// Hidden: who may sit where.
    seats: Vec<Seat>,
}

/// What everybody sees of a player.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct Player {
    /// The name.
    pub name: String,
    /// How many tricks they took, over all rounds.
    pub score: u32,
    /// Whether they are connected.
    pub online: bool,
    /// How many cards they hold.
    pub cards: usize,
}

/// A card on the table.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
pub struct Played {
    /// Whose it is.
    pub seat: usize,
    /// Which card.
    pub card: Card,
}

#[derive(Serialize, Deserialize, JsonSchema)]
struct Seat {
    key: String,
    connection: Option<String>,
}

/// A seat at the table, as its player learns of it.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
pub struct Joined {
    /// Which: an index into the players.
    pub seat: usize,
    /// What to join with again after the connection broke. Nobody else learns of it.
    pub key: String,
}

/// What happens at the table.
#[derive(Event)]
pub enum CardsEvent {
    /// Cards were dealt.
    RoundStarted {
        /// 1 for the first.
        round: u32,
        /// The seat that leads.
        leader: usize,
    },
    /// To one player: the cards they hold.
    YourHand {
        /// Sorted by suit and rank.
        cards: Vec<Card>,
    },
    /// Everybody has played a card.
    TrickTaken {
        /// The seat that took it.
        seat: usize,
        /// The cards, in the order in which they were played.
        cards: Vec<Played>,
    },
    /// The last card was played, or the round was abandoned.
    RoundFinished {
        /// Which round it was.
        round: u32,
    },
}

/// Why the table refuses.
#[derive(Debug, PartialEq, Failure)]
#[failure(prefix = "cards")]
pub enum CardsError {
    /// A plain HTTP request, which cannot sit.
    #[failure(message = "only a WebSocket connection can sit at a table")]
    NoConnection,
    /// The caller has no seat.
    #[failure(status = 403, message = "join the table first")]
    NotSeated,
    /// The name is empty, or too long.
    #[failure(message = "a name has 1 to {max} characters")]
    InvalidName {
        /// How many characters are allowed.
        max: usize,
    },
    /// The key fits no seat.
    #[failure(status = 403, message = "this key fits no seat here")]
    UnknownKey,
    /// All seats are taken.
    #[failure(status = 409, message = "all {seats} seats are taken")]
    TableFull {
        /// How many there are.
        seats: usize,
    },
    /// Not while cards are being played.
    #[failure(status = 409, message = "wait until the round is over")]
    RoundRunning,
    /// No cards have been dealt.
    #[failure(status = 409, message = "no round is running")]
    NoRound,
    /// One cannot play alone.
    #[failure(status = 409, message = "at least {min} must be at the table")]
    TooFewPlayers {
        /// How many it takes.
        min: usize,
    },
    /// It is somebody else's turn.
    #[failure(status = 409, message = "it is the turn of seat {turn}")]
    NotYourTurn {
        /// Whose it is.
        turn: usize,
    },
    /// The player does not hold this card.
    #[failure(message = "you do not hold {card}")]
    NotInHand {
        /// The card.
        card: Card,
    },
    /// The player holds a card of the suit that was led.
    #[failure(message = "you hold {suit:?} and must play them")]
    MustFollow {
        /// The suit.
        suit: Suit,
    },
    /// Nobody has left.
    #[failure(status = 409, message = "everybody is still here")]
    NobodyLeft,
    /// The system gave no random numbers.
    #[failure(status = 500, message = "there are no random numbers to shuffle with")]
    NoRandomness,
}

#[actor(events = CardsEvent, hidden("deck", "hands", "seats"))]
impl Cards {
    /// Takes a seat; with the key of one, that seat again, and the hand that belongs to it.
    pub fn join(
        &mut self,
        ctx: &mut Context<Self>,
        name: String,
        key: Option<String>,
    ) -> Result<Joined, CardsError> {
        let connection = ctx.connection().ok_or(CardsError::NoConnection)?.to_owned();
        if let Some(key) = key {
            return self.rejoin(ctx, connection, key);
        }
        if let Ok(seat) = self.seat_of(ctx) {
            let key = self.seats[seat].key.clone();
            return Ok(Joined { seat, key });
        }
        let name = name.trim().to_owned();
        if name.is_empty() || name.chars().count() > NAME_MAX {
            return Err(CardsError::InvalidName { max: NAME_MAX });
        }
        if self.turn.is_some() {
            return Err(CardsError::RoundRunning);
        }
        if self.players.len() == SEATS {
            self.free_deserted_seats();
        }
        if self.players.len() == SEATS {
            return Err(CardsError::TableFull { seats: SEATS });
        }
        let key = new_key()?;
        self.players.push(Player {
            name,
            score: 0,
            online: true,
            cards: 0,
        });
        self.hands.push(Vec::new());
        self.seats.push(Seat {
            key: key.clone(),
            connection: Some(connection),
        });
        let seat = self.players.len() - 1;
        Ok(Joined { seat, key })
    }

    /// Starts a round: shuffles, and gives everybody their cards.
    pub fn deal(&mut self, ctx: &mut Context<Self>) -> Result<(), CardsError> {
        self.seat_of(ctx)?;
        let mut deck = Card::deck();
        card::shuffle(&mut deck, || {
            getrandom::u32().map_err(|_| CardsError::NoRandomness)
        })?;
        self.start_round(ctx, deck)
    }

    /// Plays a card from the caller's hand.
    pub fn play(&mut self, ctx: &mut Context<Self>, card: Card) -> Result<(), CardsError> {
        let seat = self.seat_of(ctx)?;
        let turn = self.turn.ok_or(CardsError::NoRound)?;
        if turn != seat {
            return Err(CardsError::NotYourTurn { turn });
        }
        let hand = &mut self.hands[seat];
        let Some(held) = hand.iter().position(|held| *held == card) else {
            return Err(CardsError::NotInHand { card });
        };
        if let Some(led) = self.trick.first().map(|first| first.card.suit())
            && card.suit() != led
            && hand.iter().any(|held| held.suit() == led)
        {
            return Err(CardsError::MustFollow { suit: led });
        }
        hand.remove(held);
        self.players[seat].cards = hand.len();
        self.trick.push(Played { seat, card });
        self.turn = Some((seat + 1) % self.players.len());
        if self.trick.len() == self.players.len() {
            self.take_trick(ctx);
        }
        Ok(())
    }

    /// The cards that the caller holds.
    pub fn hand(&self, ctx: &Context<Self>) -> Result<Vec<Card>, CardsError> {
        Ok(self.hands[self.seat_of(ctx)?].clone())
    }

    /// Ends a round that somebody who left holds up. Tricks that were taken count.
    pub fn abandon(&mut self, ctx: &mut Context<Self>) -> Result<(), CardsError> {
        self.seat_of(ctx)?;
        if self.turn.is_none() {
            return Err(CardsError::NoRound);
        }
        if self.players.iter().all(|player| player.online) {
            return Err(CardsError::NobodyLeft);
        }
        self.finish_round(ctx);
        Ok(())
    }

    #[disconnect]
    fn left(&mut self, ctx: &mut Context<Self>) {
        if let Ok(seat) = self.seat_of(ctx) {
            self.seats[seat].connection = None;
            self.players[seat].online = false;
        }
    }

    /// Connections that closed while the actor was not in memory, such as in a crash of the
    /// host, have not said goodbye.
    #[activate]
    fn woke(&mut self, ctx: &mut Context<Self>) {
        let open = ctx.connections();
        for (seat, player) in self.seats.iter_mut().zip(&mut self.players) {
            seat.connection = seat.connection.take().filter(|id| open.contains(id));
            player.online = seat.connection.is_some();
        }
    }

    fn seat_of(&self, ctx: &Context<Self>) -> Result<usize, CardsError> {
        let connection = ctx.connection().ok_or(CardsError::NoConnection)?;
        let sits = |seat: &Seat| seat.connection.as_deref() == Some(connection);
        self.seats
            .iter()
            .position(sits)
            .ok_or(CardsError::NotSeated)
    }

    fn rejoin(
        &mut self,
        ctx: &mut Context<Self>,
        connection: String,
        key: String,
    ) -> Result<Joined, CardsError> {
        let fits = |seat: &Seat| seat.key == key;
        let seat = self
            .seats
            .iter()
            .position(fits)
            .ok_or(CardsError::UnknownKey)?;
        // One connection sits on one seat: a second one is left as if it had disconnected.
        if let Ok(other) = self.seat_of(ctx) {
            self.seats[other].connection = None;
            self.players[other].online = false;
        }
        self.seats[seat].connection = Some(connection);
        self.players[seat].online = true;
        if self.turn.is_some() {
            let cards = self.hands[seat].clone();
            ctx.caller().emit(CardsEvent::YourHand { cards });
        }
        Ok(Joined { seat, key })
    }

    fn start_round(
        &mut self,
        ctx: &mut Context<Self>,
        mut deck: Vec<Card>,
    ) -> Result<(), CardsError> {
        if self.turn.is_some() {
            return Err(CardsError::RoundRunning);
        }
        self.free_deserted_seats();
        if self.players.len() < 2 {
            return Err(CardsError::TooFewPlayers { min: 2 });
        }
        self.round += 1;
        let leader = self.round as usize % self.players.len();
        self.turn = Some(leader);
        ctx.emit(CardsEvent::RoundStarted {
            round: self.round,
            leader,
        });
        for (seat, player) in self.players.iter_mut().enumerate() {
            let mut cards = deck.split_off(deck.len() - HAND);
            cards.sort();
            player.cards = cards.len();
            self.hands[seat].clone_from(&cards);
            ctx.to(self.seats[seat].connection.as_ref())
                .emit(CardsEvent::YourHand { cards });
        }
        self.deck = deck;
        Ok(())
    }

    fn take_trick(&mut self, ctx: &mut Context<Self>) {
        let cards = std::mem::take(&mut self.trick);
        let led = cards.first().map(|first| first.card.suit());
        let best = cards
            .iter()
            .filter(|played| Some(played.card.suit()) == led)
            .max_by_key(|played| played.card);
        let Some(seat) = best.map(|played| played.seat) else {
            return;
        };
        self.players[seat].score += 1;
        self.turn = Some(seat);
        ctx.emit(CardsEvent::TrickTaken { seat, cards });
        if self.hands.iter().all(Vec::is_empty) {
            self.finish_round(ctx);
        }
    }

    fn finish_round(&mut self, ctx: &mut Context<Self>) {
        self.turn = None;
        self.trick.clear();
        self.deck.clear();
        for (hand, player) in self.hands.iter_mut().zip(&mut self.players) {
            hand.clear();
            player.cards = 0;
        }
        ctx.emit(CardsEvent::RoundFinished { round: self.round });
    }

    /// Between rounds, who has left gives up the seat.
    fn free_deserted_seats(&mut self) {
        for seat in (0..self.players.len()).rev() {
            if !self.players[seat].online {
                self.players.remove(seat);
                self.hands.remove(seat);
                self.seats.remove(seat);
            }
        }
    }
}

fn new_key() -> Result<String, CardsError> {
    let mut bytes = [0; 16];
    getrandom::fill(&mut bytes).map_err(|_| CardsError::NoRandomness)?;
    Ok(bytes.iter().map(|byte| format!("{byte:02x}")).collect())
}

tidegate_sdk::export!(Cards);

#[cfg(test)]
mod tests {
    use super::*;
    use tidegate_sdk::test::{self, Value, json};

    type Table = test::Actor<Cards>;

    fn join(table: &mut Table, connection: &str, name: &str) -> Joined {
        let joined = table
            .from(connection)
            .invoke("join", json!({"name": name}))
            .unwrap();
        serde_json_from(joined)
    }

    fn serde_json_from<T: for<'a> Deserialize<'a>>(value: Value) -> T {
        T::deserialize(value).unwrap()
    }

    /// Ann (`c1`, seat 0) and Ben (`c2`, seat 1), not yet dealt.
    fn table() -> Table {
        let mut table = Table::new("t");
        join(&mut table, "c1", "Ann");
        join(&mut table, "c2", "Ben");
        table
    }

    fn dealt() -> Table {
        let mut table = table();
        table.from("c1").invoke("deal", None).unwrap();
        table
    }

    fn hand(table: &mut Table, connection: &str) -> Vec<Card> {
        serde_json_from(table.from(connection).invoke("hand", None).unwrap())
    }

    fn play(table: &mut Table, connection: &str, card: Card) -> Result<Value> {
        table.from(connection).invoke("play", json!({"card": card}))
    }

    fn code(result: Result<Value>) -> String {
        result.unwrap_err().code().to_owned()
    }

    /// What everybody is shown: the state without its hidden members.
    fn shown(table: &Table) -> Value {
        let mut state = table.state();
        let hidden = table.manifest()["state"]["hidden"].clone();
        for name in hidden.as_array().unwrap() {
            state
                .as_object_mut()
                .unwrap()
                .remove(name.as_str().unwrap());
        }
        state
    }

    #[test]
    fn everybody_gets_a_hand_that_nobody_else_sees() {
        let mut table = dealt();
        let mut all: Vec<Card> = Vec::new();
        for connection in ["c1", "c2"] {
            let received = table.received(connection);
            let names: Vec<&str> = received.iter().map(|(name, _)| name.as_str()).collect();
            assert_eq!(names, ["roundStarted", "yourHand"]);
            let cards: Vec<Card> = serde_json_from(received[1].1["cards"].clone());
            assert_eq!(cards, hand(&mut table, connection));
            all.extend(cards);
        }
        all.sort();
        all.dedup();
        assert_eq!(all.len(), 2 * HAND, "no card was dealt twice");
        let shown = shown(&table).to_string();
        for card in Card::deck() {
            assert!(!shown.contains(&format!("\"{card}\"")), "{card} in {shown}");
        }
    }

    #[test]
    fn the_keys_are_hidden() {
        let mut table = Table::new("t");
        let key = join(&mut table, "c1", "Ann").key;
        assert!(!shown(&table).to_string().contains(&key));
    }

    #[test]
    fn a_whole_round_gives_every_trick_to_somebody() {
        let mut table = dealt();
        let connections = ["c1", "c2"];
        while let Some(turn) = table.state()["turn"].as_u64() {
            let connection = connections[turn as usize];
            let cards = hand(&mut table, connection);
            // The rules leave at least one card to play.
            let played = cards
                .into_iter()
                .any(|card| play(&mut table, connection, card).is_ok());
            assert!(played);
        }
        let state = table.state();
        let score = |seat: usize| state["players"][seat]["score"].as_u64().unwrap();
        assert_eq!(score(0) + score(1), HAND as u64);
        let taken = table
            .received("c1")
            .into_iter()
            .filter(|(name, _)| name == "trickTaken")
            .count();
        assert_eq!(taken, HAND);
        table.from("c2").invoke("deal", None).unwrap();
        assert_eq!(table.state()["round"], 2);
    }

    /// A round in which Ann holds all spades up to six and Ben 7 of spades and hearts.
    fn arranged() -> (Cards, test::TestContext<Cards>) {
        let mut cards = Cards::default();
        for (name, connection) in [("Ann", "c1"), ("Ben", "c2")] {
            let mut ctx = Context::test().connection(connection);
            cards.join(&mut ctx, name.to_owned(), None).unwrap();
        }
        let mut ctx = Context::test().connection("c1");
        cards.start_round(&mut ctx, Card::deck()).unwrap();
        cards.hands = vec![
            parse(&["2S", "3S", "4S", "5S", "6H"]),
            parse(&["7S", "2H", "3H", "4H", "5H"]),
        ];
        cards.turn = Some(0);
        (cards, ctx)
    }

    fn parse(codes: &[&str]) -> Vec<Card> {
        codes.iter().map(|code| code.parse().unwrap()).collect()
    }

    fn at(connection: &str) -> test::TestContext<Cards> {
        Context::test().connection(connection)
    }

    #[test]
    fn the_suit_that_was_led_must_be_followed() {
        let (mut cards, _) = arranged();
        cards.play(&mut at("c1"), "2S".parse().unwrap()).unwrap();
        let refused = cards.play(&mut at("c2"), "5H".parse().unwrap());
        assert_eq!(refused, Err(CardsError::MustFollow { suit: Suit::Spades }));
        cards.play(&mut at("c2"), "7S".parse().unwrap()).unwrap();
        assert_eq!(
            cards.players[1].score, 1,
            "the higher spade takes the trick"
        );
        assert_eq!(cards.turn, Some(1), "and its player leads");
    }

    #[test]
    fn another_suit_takes_no_trick() {
        let (mut cards, _) = arranged();
        cards.hands[1] = parse(&["AH"]);
        cards.play(&mut at("c1"), "2S".parse().unwrap()).unwrap();
        cards.play(&mut at("c2"), "AH".parse().unwrap()).unwrap();
        assert_eq!(cards.players[0].score, 1);
    }

    #[test]
    fn one_plays_in_turn_and_what_one_holds() {
        let (mut cards, mut ctx) = arranged();
        let card: Card = "AC".parse().unwrap();
        let refused = cards.play(&mut at("c2"), card);
        assert_eq!(refused, Err(CardsError::NotYourTurn { turn: 0 }));
        let refused = cards.play(&mut ctx, card);
        assert_eq!(refused, Err(CardsError::NotInHand { card }));
    }

    #[test]
    fn a_broken_connection_takes_its_seat_again() {
        let mut table = Table::new("t");
        let ann = join(&mut table, "c1", "Ann");
        join(&mut table, "c2", "Ben");
        table.from("c2").invoke("deal", None).unwrap();
        let cards = hand(&mut table, "c1");
        table.disconnect("c1").unwrap();
        assert_eq!(table.state()["players"][0]["online"], false);
        let again = table
            .from("c9")
            .invoke("join", json!({"name": "Ann", "key": ann.key}));
        assert_eq!(again, Ok(json!(ann)));
        let received = table.received("c9");
        assert_eq!(received, [("yourHand".to_owned(), json!({"cards": cards}))]);
        assert_eq!(table.state()["players"][0]["online"], true);
    }

    #[test]
    fn a_key_that_fits_nowhere_is_refused() {
        let mut table = table();
        let guess = json!({"name": "Eve", "key": "guess"});
        let refused = table.from("c3").invoke("join", guess);
        assert_eq!(code(refused), "cards.unknown-key");
    }

    #[test]
    fn nobody_joins_or_deals_while_a_round_runs() {
        let mut table = dealt();
        let late = table.from("c3").invoke("join", json!({"name": "Cem"}));
        assert_eq!(code(late), "cards.round-running");
        let again = table.from("c1").invoke("deal", None);
        assert_eq!(code(again), "cards.round-running");
    }

    #[test]
    fn it_takes_two() {
        let mut table = Table::new("t");
        assert_eq!(
            code(table.from("c1").invoke("deal", None)),
            "cards.not-seated"
        );
        join(&mut table, "c1", "Ann");
        assert_eq!(
            code(table.from("c1").invoke("deal", None)),
            "cards.too-few-players"
        );
    }

    #[test]
    fn a_round_that_was_left_can_be_abandoned() {
        let mut table = dealt();
        let refused = table.from("c1").invoke("abandon", None);
        assert_eq!(code(refused), "cards.nobody-left");
        table.disconnect("c2").unwrap();
        table.from("c1").invoke("abandon", None).unwrap();
        assert_eq!(table.state()["turn"], Value::Null);
        assert_eq!(table.state()["hands"], json!([[], []]));
    }

    #[test]
    fn a_full_table_has_room_when_somebody_has_left() {
        let mut table = Table::new("t");
        for n in 0..SEATS {
            join(&mut table, &format!("c{n}"), "Ann");
        }
        let full = table.from("c9").invoke("join", json!({"name": "Zoe"}));
        assert_eq!(code(full), "cards.table-full");
        table.disconnect("c3").unwrap();
        let joined = join(&mut table, "c9", "Zoe");
        assert_eq!(joined.seat, SEATS - 1);
    }

    #[test]
    fn something_else_than_a_card_is_refused() {
        let mut table = dealt();
        let refused = table.from("c1").invoke("play", json!({"card": "1X"}));
        assert_eq!(code(refused), "input.invalid");
    }
}

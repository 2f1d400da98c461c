//! "`emit.to(connectionId, event, payload)` — send to one specific connection."

use std::collections::BTreeMap;

use tidegate_sdk::prelude::*;

/// A room in which cards are dealt.
#[derive(Default, Serialize, Deserialize, JsonSchema)]
pub struct GameRoom {
    players: BTreeMap<String, Player>,
}

/// Who plays.
#[derive(Serialize, Deserialize, JsonSchema)]
pub struct Player {
    hand: Vec<String>,
    score: u32,
}

/// What the room tells.
#[derive(Event)]
pub enum GameRoomEvent {
    /// To everybody.
    RoundStarted {
        /// Which one.
        round: u32,
    },
    /// To one player.
    YourHand {
        /// What was dealt.
        cards: Vec<String>,
    },
}

#[actor(events = GameRoomEvent)]
impl GameRoom {
    /// Sits the caller down with these cards.
    pub fn join(&mut self, ctx: &mut Context<Self>, hand: Vec<String>) {
        if let Some(id) = ctx.connection() {
            self.players
                .insert(id.to_owned(), Player { hand, score: 0 });
        }
    }

    /// Tells everybody that a round has started, and each player their private hand.
    pub fn deal_cards(&mut self, ctx: &mut Context<Self>) {
        ctx.emit(GameRoomEvent::RoundStarted { round: 1 });
        for id in ctx.connections() {
            if let Some(player) = self.players.get(&id) {
                let cards = player.hand.clone();
                ctx.to(&id).emit(GameRoomEvent::YourHand { cards });
            }
        }
    }

    /// Who is connected.
    pub fn list(&self, ctx: &Context<Self>) -> Vec<String> {
        ctx.connections()
    }
}

//! Playing cards: how they are written (`QH`, `10S`), ordered and shuffled.

use std::fmt;
use std::str::FromStr;

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

/// The suit of a card.
#[derive(
    Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize, JsonSchema,
)]
#[serde(rename_all = "lowercase")]
pub enum Suit {
    /// `C`
    Clubs,
    /// `D`
    Diamonds,
    /// `H`
    Hearts,
    /// `S`
    Spades,
}

impl Suit {
    const ALL: [(Self, char); 4] = [
        (Self::Clubs, 'C'),
        (Self::Diamonds, 'D'),
        (Self::Hearts, 'H'),
        (Self::Spades, 'S'),
    ];
}

const RANKS: [&str; 13] = [
    "2", "3", "4", "5", "6", "7", "8", "9", "10", "J", "Q", "K", "A",
];

/// A card of the 52: written as rank and suit, such as `QH` for the queen of hearts. Within
/// a suit the order is by rank, the ace highest.
#[derive(
    Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize, JsonSchema,
)]
#[serde(into = "String", try_from = "String")]
#[schemars(with = "String", extend("pattern" = "^([2-9JQKA]|10)[CDHS]$"))]
pub struct Card {
    suit: Suit,
    /// An index into `RANKS`.
    rank: usize,
}

impl Card {
    /// All 52, in order.
    pub(crate) fn deck() -> Vec<Self> {
        let of = |(suit, _)| (0..RANKS.len()).map(move |rank| Self { suit, rank });
        Suit::ALL.into_iter().flat_map(of).collect()
    }

    /// The suit.
    pub fn suit(self) -> Suit {
        self.suit
    }
}

impl fmt::Display for Card {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(RANKS[self.rank])?;
        let letters = Suit::ALL.iter().filter(|(suit, _)| *suit == self.suit);
        letters
            .into_iter()
            .try_for_each(|(_, letter)| write!(f, "{letter}"))
    }
}

impl From<Card> for String {
    fn from(card: Card) -> Self {
        card.to_string()
    }
}

/// The text is not a card.
#[derive(Debug, PartialEq, Eq)]
pub struct NotACard(String);

impl fmt::Display for NotACard {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:?} is not a card such as \"QH\" or \"10S\"", self.0)
    }
}

impl FromStr for Card {
    type Err = NotACard;

    fn from_str(text: &str) -> Result<Self, NotACard> {
        let card = |(suit, letter): (Suit, char)| {
            let rank = text.strip_suffix(letter)?;
            let rank = RANKS.iter().position(|known| *known == rank)?;
            Some(Self { suit, rank })
        };
        Suit::ALL
            .into_iter()
            .find_map(card)
            .ok_or_else(|| NotACard(text.to_owned()))
    }
}

impl TryFrom<String> for Card {
    type Error = NotACard;

    fn try_from(text: String) -> Result<Self, NotACard> {
        text.parse()
    }
}

/// Brings cards into an order that is as random as the numbers are (Fisher–Yates).
pub(crate) fn shuffle<E>(
    cards: &mut [Card],
    mut random: impl FnMut() -> Result<u32, E>,
) -> Result<(), E> {
    for end in (1..cards.len()).rev() {
        cards.swap(end, below(end as u32 + 1, &mut random)? as usize);
    }
    Ok(())
}

/// A number below `bound`, each as likely as the others: numbers from the incomplete last
/// stretch of multiples are drawn again.
fn below<E>(bound: u32, random: &mut impl FnMut() -> Result<u32, E>) -> Result<u32, E> {
    let stretches = u32::MAX - u32::MAX % bound;
    loop {
        let number = random()?;
        if number < stretches {
            return Ok(number % bound);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::convert::Infallible;

    #[test]
    fn a_card_is_read_as_it_is_written() {
        let deck = Card::deck();
        assert_eq!(deck.len(), 52);
        for card in deck {
            assert_eq!(card.to_string().parse(), Ok(card));
        }
        for junk in ["", "H", "1H", "11H", "QX", "hQ", "QHH"] {
            assert_eq!(junk.parse::<Card>(), Err(NotACard(junk.to_owned())));
        }
    }

    #[test]
    fn the_ace_is_the_highest_of_its_suit() {
        let [ace, ten, nine]: [Card; 3] = ["AS", "10S", "9S"].map(|code| code.parse().unwrap());
        assert!(ace > ten && ten > nine);
    }

    #[test]
    fn a_shuffled_deck_has_the_same_cards_in_another_order() {
        let mut number = 1_u32;
        let mut deck = Card::deck();
        let shuffled = shuffle(&mut deck, || {
            number = number.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
            Ok::<u32, Infallible>(number)
        });
        assert!(shuffled.is_ok());
        assert_ne!(deck, Card::deck());
        deck.sort();
        assert_eq!(deck, Card::deck());
    }

    #[test]
    fn numbers_that_would_favour_some_are_drawn_again() {
        let mut numbers = [u32::MAX, 7].into_iter();
        let drawn = below(5, &mut || numbers.next().ok_or(()));
        assert_eq!(drawn, Ok(2));
    }
}

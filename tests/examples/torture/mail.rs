//! What is to happen once although it may be tried again: messages between actors, and calls
//! with idempotency keys.
//!
//! `caller` actors send entries to `ledger` actors of their own; a message whose sending was
//! acknowledged must be entered once, however often the host dies on the way. Calls with a key
//! are made again in the next round unless they were answered, and must be entered once, too.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use serde_json::{Value, json};
use tidegate_tests::{Actor, Host, Socket, actor};

use crate::Random;
use crate::tally::entries;

/// Actors that send.
const SENDERS: u64 = 3;
/// Ledgers for messages, and as many for calls with keys.
const RECEIVERS: u64 = 3;

/// Entries by ledger, and which of them must be there.
type Book = Vec<Vec<bool>>;

/// What the clients have sent.
#[derive(Clone)]
pub(crate) struct Mail {
    messages: Arc<Mutex<Book>>,
    keyed: Arc<Mutex<Book>>,
}

fn book(book: &Mutex<Book>) -> MutexGuard<'_, Book> {
    book.lock().unwrap_or_else(PoisonError::into_inner)
}

fn open() -> Arc<Mutex<Book>> {
    Arc::new(Mutex::new(vec![Vec::new(); RECEIVERS as usize]))
}

impl Mail {
    pub(crate) fn new() -> Mail {
        Mail {
            messages: open(),
            keyed: open(),
        }
    }

    /// Sends messages until the connection breaks.
    pub(crate) async fn send(self, mut socket: Socket, mut random: Random) {
        loop {
            let sender = random.below(SENDERS);
            let receiver = random.below(RECEIVERS);
            let entry = {
                let mut book = book(&self.messages);
                book[receiver as usize].push(false);
                book[receiver as usize].len() - 1
            };
            if !send(&mut socket, sender, receiver, entry as u64).await {
                return;
            }
            book(&self.messages)[receiver as usize][entry] = true;
        }
    }

    /// Calls with keys until the connection breaks, first what was not answered before.
    pub(crate) async fn call(self, mut socket: Socket, mut random: Random) {
        let left = {
            let book = book(&self.keyed);
            let all = book.iter().enumerate();
            let left = all.flat_map(|(ledger, entries)| {
                let left = entries.iter().enumerate().filter(|(_, made)| !**made);
                left.map(move |(entry, _)| (ledger, entry))
            });
            left.collect::<Vec<_>>()
        };
        for (ledger, entry) in left {
            if !self.enter(&mut socket, ledger, entry).await {
                return;
            }
        }
        loop {
            let ledger = random.below(RECEIVERS) as usize;
            let entry = {
                let mut book = book(&self.keyed);
                book[ledger].push(false);
                book[ledger].len() - 1
            };
            if !self.enter(&mut socket, ledger, entry).await {
                return;
            }
        }
    }

    async fn enter(&self, socket: &mut Socket, ledger: usize, entry: usize) -> bool {
        let call = json!({
            "type": "rpc", "id": format!("k{entry}"), "actor": "ledger",
            "actorId": format!("keyed-{ledger}"), "method": "add", "input": {"entry": entry},
            "key": format!("entry {entry}"),
        });
        if !socket.try_send(call).await {
            return false;
        }
        let Ok(answer) = socket.try_next().await else {
            return false;
        };
        assert!(
            answer["result"].is_u64(),
            "a call with a key failed: {answer}"
        );
        book(&self.keyed)[ledger][entry] = true;
        true
    }

    /// What is wrong with what there is.
    pub(crate) async fn account(&self, host: &Host) -> Account {
        let mut socket = host.connect().await;
        // Behind all that is still on its way, since messages keep their order.
        for receiver in 0..RECEIVERS {
            for sender in 0..SENDERS {
                let entry = {
                    let mut book = book(&self.messages);
                    book[receiver as usize].push(true);
                    book[receiver as usize].len() as u64 - 1
                };
                assert!(send(&mut socket, sender, receiver, entry).await);
                let is_there = |state: &Value| entries(state).any(|found| found == entry);
                socket.watch(&mailed(receiver), is_there).await;
                socket.unsubscribe_state(&mailed(receiver)).await;
            }
        }
        let mut account = Account::default();
        let messages = book(&self.messages).clone();
        for (receiver, expected) in messages.iter().enumerate() {
            let ledger = mailed(receiver as u64);
            account.messages += expected.len();
            account.check(&mut socket, &ledger, expected).await;
        }
        let keyed = book(&self.keyed).clone();
        for (ledger, expected) in keyed.iter().enumerate() {
            let ledger = actor("ledger", &format!("keyed-{ledger}"));
            account.keyed += expected.len();
            account.check(&mut socket, &ledger, expected).await;
        }
        account
    }
}

fn mailed(receiver: u64) -> Actor {
    actor("ledger", &format!("mailed-{receiver}"))
}

/// Has an actor send an entry; false if that is not certain.
async fn send(socket: &mut Socket, sender: u64, receiver: u64, entry: u64) -> bool {
    let sender = actor("caller", &sender.to_string());
    let order = json!({
        "actor": "ledger", "id": format!("mailed-{receiver}"), "method": "add",
        "input": {"entry": entry},
    });
    if !socket.try_call(&sender, "send", order).await {
        return false;
    }
    match socket.try_next().await {
        Ok(answer) => {
            assert_eq!(answer["type"], "rpc:result", "{answer}");
            assert!(
                answer.get("error").is_none(),
                "a message was refused: {answer}"
            );
            true
        }
        Err(_) => false,
    }
}

/// What has become of it.
#[derive(Default)]
pub(crate) struct Account {
    messages: usize,
    keyed: usize,
    pub(crate) wrong: Vec<String>,
}

impl Account {
    async fn check(&mut self, socket: &mut Socket, ledger: &Actor, expected: &[bool]) {
        let state = socket.watch(ledger, |_| true).await;
        socket.unsubscribe_state(ledger).await;
        let mut counts = vec![0; expected.len()];
        for entry in entries(&state) {
            match counts.get_mut(entry as usize) {
                Some(count) => *count += 1,
                None => self
                    .wrong
                    .push(format!("{ledger}: nobody has sent {entry}")),
            }
        }
        for (entry, (count, must_be)) in counts.iter().zip(expected).enumerate() {
            match (count, must_be) {
                (0, true) => self.wrong.push(format!("{ledger}: {entry} was lost")),
                (0, false) | (1, _) => {}
                _ => {
                    let what = format!("{ledger}: {entry} was entered {count} times");
                    self.wrong.push(what);
                }
            }
        }
    }
}

impl std::fmt::Display for Account {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let (messages, keyed) = (self.messages, self.keyed);
        write!(f, "messages {messages}, calls with keys {keyed}")?;
        for wrong in &self.wrong {
            write!(f, "\n{wrong}")?;
        }
        Ok(())
    }
}

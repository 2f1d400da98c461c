//! The clients of one round: callers over WebSockets, callers over HTTP, and subscribers.
//!
//! Each ends when its connection breaks, which is what a kill does to it.

use std::collections::HashMap;

use serde_json::{Value, json};
use tidegate_tests::{Host, Request, Socket, actor, dialect};
use tokio::task::JoinSet;

use crate::Random;
use crate::errands::Errands;
use crate::mail::Mail;
use crate::tally::{Shown, Tallies};
use crate::watchers::Watchers;

/// Callers over WebSockets.
const SOCKETS: usize = 6;
/// Calls that each of them has under way.
const WINDOW: usize = 16;
/// Callers over HTTP, one call at a time.
const HTTP: usize = 2;
/// Subscribers, each to all actors.
const SUBSCRIBERS: usize = 2;

/// Clients that run errands.
const RUNNERS: usize = 2;

/// Clients that are at work.
pub(crate) struct Load(JoinSet<()>);

impl Load {
    /// Connects all clients and lets them begin.
    pub(crate) async fn start(
        host: &Host,
        tallies: &Tallies,
        errands: &Errands,
        mail: &Mail,
        (watchers, watching): (&Watchers, Socket),
        seed: u64,
    ) -> Load {
        let mut clients = JoinSet::new();
        let mut random = Random(seed);
        let mut subscribers = Vec::new();
        for _ in 0..SUBSCRIBERS {
            subscribers.push(host.connect().await);
        }
        let mut callers = Vec::new();
        for _ in 0..SOCKETS {
            callers.push(host.connect().await);
        }
        let mut runners = Vec::new();
        for _ in 0..RUNNERS {
            runners.push(host.connect().await);
        }
        let (sender, caller) = (host.connect().await, host.connect().await);
        clients.spawn(watchers.clone().follow(watching));
        clients.spawn(mail.clone().send(sender, Random(random.next())));
        clients.spawn(mail.clone().call(caller, Random(random.next())));
        for socket in runners {
            let random = Random(random.next());
            clients.spawn(errands.clone().run(socket, random));
        }
        for socket in subscribers {
            clients.spawn(subscribe(socket, tallies.clone()));
        }
        for socket in callers {
            clients.spawn(call(socket, tallies.clone(), Random(random.next())));
        }
        for _ in 0..HTTP {
            let address = host.address().to_owned();
            clients.spawn(post(address, tallies.clone(), Random(random.next())));
        }
        Load(clients)
    }

    /// Waits until all have noticed that the host is gone.
    pub(crate) async fn ended(mut self) {
        while let Some(ended) = self.0.join_next().await {
            ended.expect("a client does not panic");
        }
    }
}

/// Takes an entry for any actor.
fn order(tallies: &Tallies, random: &mut Random) -> (usize, usize) {
    let actor = random.below(tallies.len() as u64) as usize;
    (actor, tallies.of(actor).send())
}

async fn call(mut socket: Socket, tallies: Tallies, mut random: Random) {
    let mut under_way: HashMap<String, (usize, usize)> = HashMap::new();
    let mut calls = 0_u64;
    loop {
        while under_way.len() < WINDOW {
            let (number, entry) = order(&tallies, &mut random);
            calls += 1;
            let id = calls.to_string();
            under_way.insert(id.clone(), (number, entry));
            let call = json!({
                "type": "rpc", "id": id, "actor": "ledger", "actorId": number.to_string(),
                "method": "add", "input": {"entry": entry},
            });
            if !socket.try_send(call).await {
                return;
            }
        }
        let Ok(frame) = socket.try_next().await else {
            return;
        };
        let id = frame["id"].as_str().unwrap_or_default();
        let Some((number, entry)) = under_way.remove(id) else {
            return tallies.of(0).wrong(format!("nobody asked for {frame}"));
        };
        let mut tally = tallies.of(number);
        match frame["result"].as_u64() {
            Some(total) => tally.acknowledge(entry, total),
            None => tally.wrong(format!("a call failed: {frame}")),
        }
    }
}

async fn post(address: String, tallies: Tallies, mut random: Random) {
    loop {
        let (number, entry) = order(&tallies, &mut random);
        let path = format!("/actors/ledger/{number}/add");
        let request = Request::new(&address, http::Method::POST, &path);
        let answer = request.json(&json!({"entry": entry})).try_send().await;
        let Some(answer) = answer else {
            return;
        };
        let mut tally = tallies.of(number);
        let total = serde_json::from_slice::<Value>(&answer.body);
        match total.ok().and_then(|total| total.as_u64()) {
            Some(total) if answer.status == 200 => tally.acknowledge(entry, total),
            _ => tally.wrong(format!("a request failed: {answer:?}")),
        }
    }
}

async fn subscribe(mut socket: Socket, tallies: Tallies) {
    let mut shown: HashMap<usize, Shown> = HashMap::new();
    for number in 0..tallies.len() {
        let ledger = actor("ledger", &number.to_string());
        if !socket.try_subscribe_state(&ledger).await {
            break;
        }
    }
    while let Ok(frame) = socket.try_next().await {
        let id = frame["actorId"].as_str().unwrap_or_default();
        let number = id.parse().unwrap_or_default();
        let fits = match (frame["type"].as_str(), shown.get_mut(&number)) {
            (Some("state:snapshot"), None) => {
                shown.insert(number, Shown::snapshot(&frame));
                true
            }
            (Some("state:patch"), Some(shown)) => {
                let follows = frame["from"] == shown.version && frame["epoch"] == *shown.epoch;
                dialect::apply(&mut shown.state, &frame["patches"]);
                shown.version = frame["version"].as_u64().unwrap_or_default();
                follows && shown.total() == Some(shown.version)
            }
            _ => false,
        };
        if !fits {
            let what = format!("a subscriber was told {frame}");
            tallies.of(number).wrong(what);
        }
    }
    for (number, shown) in shown {
        tallies.of(number).show(shown);
    }
}

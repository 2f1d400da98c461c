//! Who is shut out of an actor while it commits, in truly parallel threads like [`joining`].
//!
//! In each round some come, come back, read and lag while the right to look is taken away
//! between two turns. Whatever was committed from there on must reach none of them.
//!
//! [`joining`]: super::joining

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use serde_json::{Value, json};
use tidegate_base::sync::Mutex;
use tidegate_core::protocol::Since;
use tidegate_core::{ActorKey, Client, Failure};
use tidegate_delivery::{Close, Offer, Outlet, SharedFrame, Source};
use tokio::sync::Notify;

use super::super::{FirstContact, Stream};
use super::cast::Dice;
use super::joining::{Kind, Stage, client_of, on_threads, rounds};
use crate::live::{Body, Update};

/// Far beyond what a round takes on the slowest machine.
const LONG: Duration = Duration::from_secs(60);

/// Somebody who may look no longer from some turn on.
struct Guest {
    id: Arc<str>,
    user: &'static str,
    /// The versions of the state and the numbers of events that it was sent.
    seen: Mutex<Vec<u64>>,
    is_out: AtomicBool,
    changed: Notify,
    dice: Dice,
}

impl Guest {
    fn new(id: &str, user: &'static str, dice: &Dice) -> Arc<Guest> {
        Arc::new(Guest {
            id: id.into(),
            user,
            seen: Mutex::default(),
            is_out: AtomicBool::new(false),
            changed: Notify::new(),
            dice: dice.clone(),
        })
    }

    fn most(&self) -> u64 {
        let seen = self.seen.lock();
        seen.iter().copied().max().unwrap_or_default()
    }

    fn leaves(&self) {
        self.is_out.store(true, Ordering::Relaxed);
        self.changed.notify_one();
    }
}

impl Outlet for Guest {
    fn id(&self) -> &Arc<str> {
        &self.id
    }

    fn offer(&self, message: &SharedFrame) -> Offer {
        let number = match &Update::of(message).body {
            Body::Snapshot { version, .. } | Body::Patch { version, .. } => {
                if self.dice.percent(20) {
                    return Offer::Full;
                }
                *version
            }
            Body::Event { payload, .. } => {
                let payload: Value = serde_json::from_str(payload).expect("payloads are JSON");
                let text = payload["text"].as_str().unwrap_or_default();
                text.parse().expect("a number")
            }
        };
        let mut seen = self.seen.lock();
        seen.push(number);
        Offer::Taken
    }

    fn refresh_later(&self, source: Arc<dyn Source>) {
        let (id, dice) = (self.id.clone(), self.dice.clone());
        tokio::spawn(async move {
            dice.pause(3).await;
            source.refresh(&id);
        });
    }

    fn close(&self, _: Close) {
        self.leaves();
    }

    fn client(&self) -> Client {
        client_of(self.user, &self.id)
    }

    fn end(&self, _: &dyn Source, _: &Failure) {
        self.leaves();
    }
}

/// What is called in a round, and when it is enough.
struct Play {
    actor: ActorKey,
    stream: Stream,
    user: &'static str,
    /// Each may be followed.
    open: Vec<(&'static str, Value)>,
    /// None of these may.
    closed: Vec<(&'static str, Value)>,
    /// The highest number that anybody may be sent.
    most: u64,
}

impl Stage {
    /// A gate that is closed: nobody may see its state from then on.
    fn closing(&self, round: u64) -> Play {
        let most = 3 + self.dice.below(8) as u64;
        let set = |open: bool, reads: u64| ("set", json!({"open": open, "reads": reads}));
        Play {
            actor: Kind::Gate.actor(&format!("s{round}")),
            stream: Stream::State,
            user: "ben",
            open: (1..=most).map(|version| set(true, version)).collect(),
            closed: (most + 1..most + 6).map(|v| set(false, v)).collect(),
            most,
        }
    }

    /// A vault out of which somebody is barred, who listens to its events.
    fn barring(&self, round: u64) -> Play {
        let most = self.dice.below(4) as u64;
        let ring = |number: u64| ("ring", json!({"text": number.to_string()}));
        let mut open = vec![
            ("claim", json!({})),
            ("admitUser", json!({"sub": "ben"})),
            ("put", json!({"secret": "x"})),
        ];
        open.extend((1..=most).map(ring));
        let mut closed = vec![("barUser", json!({"sub": "ben"}))];
        closed.extend((most + 1..most + 6).map(ring));
        Play {
            actor: Kind::Guest.actor(&format!("s{round}")),
            stream: Stream::Events,
            user: "ben",
            open,
            closed,
            most,
        }
    }

    async fn shut_out(self: &Arc<Self>, play: Play) -> Result<(), String> {
        let (actor, most) = (play.actor, play.most);
        for call in play.open.iter().take(3) {
            self.call(&actor, call.clone()).await;
        }
        let epoch = self.place(&actor).await.epoch;
        let mut guests = Vec::new();
        let mut joining = Vec::new();
        for number in 0..1 + self.dice.below(3) {
            let guest = Guest::new(&format!("{actor}.{number}"), play.user, &self.dice);
            guests.push(guest.clone());
            let (stage, actor, stream) = (self.clone(), actor.clone(), play.stream);
            let since = self.dice.percent(50).then(|| Since {
                epoch: epoch.clone(),
                version: 1 + self.dice.below(3) as u64,
            });
            let pause = Duration::from_micros(self.dice.below(4_000) as u64);
            joining.push(tokio::spawn(async move {
                tokio::time::sleep(pause).await;
                let actors = &stage.actors;
                let mut contact = FirstContact::Past;
                let outlet = guest.clone();
                let subscribed =
                    actors.subscribe(&actor, stream, outlet, since.as_ref(), &mut contact);
                if subscribed.await.is_err() {
                    guest.leaves();
                }
            }));
        }
        let read = {
            let (stage, actor, user) = (self.clone(), actor.clone(), play.user);
            let is_state = play.stream == Stream::State;
            tokio::spawn(async move {
                let mut latest = 0;
                if !is_state {
                    return latest;
                }
                loop {
                    let read = stage.actors.read(&actor, client_of(user, &"reader".into()));
                    match read.await {
                        Ok(read) => latest = read.version,
                        Err(_) => break latest,
                    }
                }
            })
        };
        let mut results = Vec::new();
        for call in play.open.into_iter().skip(3).chain(play.closed) {
            let result = self.begin(&actor, call);
            match self.dice.percent(50) {
                true => results.push(result),
                false => drop(result.await),
            }
        }
        for result in results {
            let result = result.await.expect("calls are answered");
            result.map_err(|failure| failure.to_string())?;
        }
        for joined in joining {
            joined.await.map_err(|error| error.to_string())?;
        }
        for guest in guests {
            let out = async {
                while !guest.is_out.load(Ordering::Relaxed) {
                    guest.changed.notified().await;
                }
            };
            let out = tokio::time::timeout(LONG, out).await;
            out.map_err(|_| format!("{} is not told that it is out", guest.id))?;
            if guest.most() > most {
                let seen = guest.most();
                return Err(format!("{} was sent {seen} and may see {most}", guest.id));
            }
        }
        match read.await.map_err(|error| error.to_string())? {
            latest if latest <= most => Ok(()),
            latest => Err(format!("{actor} was read at {latest} instead of {most}")),
        }
    }
}

#[test]
fn who_may_look_no_longer_is_shown_no_later_state() {
    on_threads(async {
        let stage = Arc::new(Stage::new(0));
        for round in 0..rounds() {
            let ended = stage.shut_out(stage.closing(round)).await;
            assert_eq!(ended, Ok(()), "in round {round}");
        }
    });
}

#[test]
fn who_may_listen_no_longer_hears_no_later_event() {
    on_threads(async {
        let stage = Arc::new(Stage::new(1));
        for round in 0..rounds() {
            let ended = stage.shut_out(stage.barring(round)).await;
            assert_eq!(ended, Ok(()), "in round {round}");
        }
    });
}

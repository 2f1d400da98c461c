//! A fixed number of calls in rounds: in each, every connection sends its calls in one write, and
//! the next round begins when all answers have come, and the patches of all who subscribe. How many
//! calls a server finds at once then depends on neither side's pace.

use std::time::Duration;

use anyhow::{Context, Result, ensure};

use super::call::{Incoming, Method, recognise, subscription};
use super::connection::Connection;
use crate::server::Server;

/// How long one round may take.
const PATIENCE: Duration = Duration::from_secs(60);
/// The actor that is called, of the method's type.
const ACTOR: u64 = 0;

/// Who calls, and who looks on.
pub(crate) struct Plan {
    pub(crate) connections: usize,
    /// Calls of each in a round.
    pub(crate) depth: usize,
    pub(crate) method: Method,
    /// Connections that subscribe to the state and are told of each call.
    pub(crate) subscribers: usize,
}

/// The connections of a plan.
pub(crate) struct Rounds {
    callers: Vec<Connection>,
    subscribers: Vec<Connection>,
    depth: usize,
    method: Method,
}

impl Rounds {
    /// Opens them all.
    pub(crate) async fn open(server: &Server, plan: Plan) -> Result<Rounds> {
        let (mut callers, mut subscribers) = (Vec::new(), Vec::new());
        for number in 0..plan.connections {
            callers.push(Connection::open(server, number).await?);
        }
        for number in 0..plan.subscribers {
            let mut connection = Connection::open(server, plan.connections + number).await?;
            let text = subscription("state:sub", plan.method.actor, ACTOR);
            connection.outgoing().text(text.as_bytes());
            connection.flush().await?;
            connection.message().await.context("the snapshot")?;
            subscribers.push(connection);
        }
        Ok(Rounds {
            callers,
            subscribers,
            depth: plan.depth,
            method: plan.method,
        })
    }

    /// How many calls a round has.
    pub(crate) fn calls(&self) -> u64 {
        (self.callers.len() * self.depth) as u64
    }

    /// Has so many rounds.
    pub(crate) async fn run(&mut self, rounds: u64) -> Result<()> {
        for _ in 0..rounds {
            tokio::time::timeout(PATIENCE, self.round())
                .await
                .context("waiting for the end of a round")??;
        }
        Ok(())
    }

    async fn round(&mut self) -> Result<()> {
        let mut text = Vec::new();
        for caller in &mut self.callers {
            for id in 0..self.depth {
                self.method.write(&mut text, id as u64, ACTOR);
                caller.outgoing().text(&text);
            }
            caller.flush().await?;
        }
        for caller in &mut self.callers {
            let mut answers = 0;
            while answers < self.depth {
                caller
                    .receive(|message, _| {
                        if let Incoming::Result(_) = recognise(message)? {
                            answers += 1;
                        }
                        Ok(())
                    })
                    .await?;
            }
        }
        for subscriber in &mut self.subscribers {
            let patch = subscriber.message().await?;
            ensure!(patch.starts_with(r#"{"type":"state:patch""#), "{patch}");
        }
        Ok(())
    }
}

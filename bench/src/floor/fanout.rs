//! The floor under a fan-out: the publisher's task writes one frame to all sockets.

use std::sync::{Arc, Mutex, PoisonError};

use anyhow::Result;
use tokio::net::tcp::OwnedWriteHalf;

use super::connection::{Connection, write_all};
use crate::load::frame::{self, From, Kind};

/// Who wants to be told.
#[derive(Default)]
pub(super) struct Subscribers(Mutex<Arc<Vec<Arc<OwnedWriteHalf>>>>);

impl Subscribers {
    fn add(&self, writer: Arc<OwnedWriteHalf>) {
        let mut all = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        Arc::make_mut(&mut all).push(writer);
    }

    fn all(&self) -> Arc<Vec<Arc<OwnedWriteHalf>>> {
        let all = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        Arc::clone(&all)
    }
}

pub(super) async fn run(mut connection: Connection, subscribers: &Subscribers) -> Result<()> {
    let mut out = Vec::new();
    loop {
        while let Some(place) = connection.buffered()? {
            let text = connection.text(place);
            out.clear();
            if text.starts_with(br#"{"type":"event:sub""#) {
                subscribers.add(connection.writer().clone());
            } else if text.starts_with(br#"{"type":"state:sub""#) {
                // What is subscribed to before this is acknowledged by it.
                frame::append(&mut out, From::Server, Kind::Text, text);
                write_all(connection.writer(), &out).await?;
            } else if text.starts_with(br#"{"type":"event""#) {
                frame::append(&mut out, From::Server, Kind::Text, text);
                for subscriber in subscribers.all().iter() {
                    // One that is gone is no reason not to tell the others.
                    let _ = write_all(subscriber, &out).await;
                }
            }
        }
        connection.fill().await?;
    }
}

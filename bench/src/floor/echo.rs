//! The floor under a call: what came at once goes back in one write.

use anyhow::Result;

use super::connection::{Connection, write_all};
use crate::load::frame::{self, From, Kind};

pub(super) async fn run(mut connection: Connection) -> Result<()> {
    let mut out = Vec::new();
    loop {
        while let Some(place) = connection.buffered()? {
            let text = connection.text(place);
            frame::append(&mut out, From::Server, Kind::Text, text);
        }
        write_all(connection.writer(), &out).await?;
        out.clear();
        connection.fill().await?;
    }
}

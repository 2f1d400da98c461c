//! Floors: servers on the same async runtime, and as many threads, as the host has, without
//! WebAssembly, JSON or actors, and the WebAssembly engine without a server. What the host
//! costs beyond them is its own.

mod bare;
mod connection;
mod echo;
mod fanout;

use std::sync::Arc;

use anyhow::Result;
use tokio::net::TcpListener;

use crate::server::Floor;
pub(crate) use bare::measure as measure_bare;
use connection::Connection;

/// Serves until the process is killed.
pub(crate) fn serve(floor: Floor) -> Result<()> {
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .enable_all()
        .build()?;
    runtime.block_on(async {
        let listener = TcpListener::bind("127.0.0.1:0").await?;
        println!("listening on http://{}", listener.local_addr()?);
        let subscribers = Arc::new(fanout::Subscribers::default());
        loop {
            let (stream, _) = listener.accept().await?;
            let subscribers = subscribers.clone();
            tokio::spawn(async move {
                // A client that goes away is the end of its connection and nothing else.
                let Ok(connection) = Connection::accept(stream).await else {
                    return;
                };
                let _ = match floor {
                    Floor::Echo => echo::run(connection).await,
                    Floor::Fanout => fanout::run(connection, &subscribers).await,
                };
            });
        }
    })
}

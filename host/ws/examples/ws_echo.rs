//! A plain echo over the WebSocket layer: what the Autobahn test suite is run against, and the
//! floor under every benchmark of a call.
//!
//! `cargo run --example ws_echo -- 9001` listens on 127.0.0.1:9001.

use std::convert::Infallible;
use std::sync::Arc;

use anyhow::Context;
use bytes::Bytes;
use http_body_util::Full;
use hyper::body::Incoming;
use hyper::service::service_fn;
use hyper::{Request, Response};
use hyper_util::rt::TokioIo;
use tidegate_ws::{self as ws, CloseCode, Frame, Inbound, Outbound, Refused, Settings, Socket};
use tokio::net::{TcpListener, TcpStream};

#[tokio::main]
async fn main() -> anyhow::Result<()> {
    let port: u16 = match std::env::args().nth(1) {
        Some(port) => port.parse().context("expected a port number")?,
        None => 9001,
    };
    let listener = TcpListener::bind(("127.0.0.1", port)).await?;
    println!("echoing on ws://{}", listener.local_addr()?);
    loop {
        match listener.accept().await {
            Ok((stream, _)) => drop(tokio::spawn(serve(stream))),
            Err(error) => eprintln!("accept: {error}"),
        }
    }
}

/// One connection, from its HTTP request to the end of its WebSocket.
async fn serve(stream: TcpStream) {
    let served = hyper::server::conn::http1::Builder::new()
        .serve_connection(TokioIo::new(stream), service_fn(answer))
        .with_upgrades()
        .await;
    if let Err(error) = served {
        eprintln!("http: {error}");
    }
}

async fn answer(mut request: Request<Incoming>) -> Result<Response<Full<Bytes>>, Infallible> {
    let accepted = ws::handshake::accept(request.method(), request.version(), request.headers());
    Ok(match accepted {
        Ok(accepted) => {
            let upgrade = hyper::upgrade::on(&mut request);
            tokio::spawn(async move {
                let ended = match upgrade.await {
                    Ok(upgraded) => echo(upgraded).await,
                    Err(error) => Err(error.into()),
                };
                if let Err(error) = ended {
                    eprintln!("upgrade: {error}");
                }
            });
            accepted.response()
        }
        Err(error) => error.response(Full::from(format!("{error}\n"))),
    })
}

async fn echo(upgraded: hyper::upgrade::Upgraded) -> anyhow::Result<()> {
    let socket = Socket::from_upgraded(upgraded, Settings::default())?;
    let outbound = Arc::clone(socket.outbound());
    socket
        .run(&mut |message| {
            let outbound = Arc::clone(&outbound);
            async move {
                match message {
                    Inbound::Text(text) => send(&outbound, Frame::text(text)).await,
                    Inbound::Binary(bytes) => send(&outbound, Frame::binary(bytes)).await,
                    Inbound::TooLarge { size, .. } | Inbound::NoRoom { size, .. } => {
                        outbound.close(CloseCode::TOO_LARGE, format!("{size} bytes"));
                    }
                }
            }
        })
        .await;
    Ok(())
}

/// Pushes once there is room; until then, the client is not read.
async fn send(outbound: &Outbound, frame: Frame) {
    while outbound.push(frame.clone()) == Err(Refused::Full) {
        outbound.drained().await;
    }
}

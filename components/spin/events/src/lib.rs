//! Serves event streams on Spin: who subscribes to an actor is told what its turns leave in
//! the outbox. It holds no user code, so that a handler that crashes or hangs cuts nobody's
//! stream. Who may see an actor, and what of it, it asks the actor's own component.
//!
//! Spin routes by path alone, so that other requests to the same paths arrive here as well:
//! they are passed on.

// Natively there is nothing but the tests.
#![cfg_attr(not(target_family = "wasm"), allow(dead_code))]

mod forward;
mod poll;
mod question;
mod stream;

use tidegate_core::Failure;
use tidegate_spin_base::database::Database;
use tidegate_spin_base::head::{Head, Route, Target};
use tidegate_spin_base::response::Response;
use tidegate_spin_base::tokens::{self, TokenFrom};
use tidegate_spin_base::{door, incoming};
use wasip2::exports::http::incoming_handler::Guest;
use wasip2::http::types::{IncomingRequest, ResponseOutparam};

struct Events;

impl Guest for Events {
    fn handle(request: IncomingRequest, out: ResponseOutparam) {
        let head = incoming::head(&request);
        let Some(mut response) = door::open(&head, out) else {
            return;
        };
        if let Err(failure) = answer(&head, &request, &mut response) {
            response.fail(&failure);
        }
    }
}

fn answer(head: &Head, request: &IncomingRequest, response: &mut Response) -> Result<(), Failure> {
    let is_read = matches!(head.method.as_str(), "GET" | "HEAD");
    match head.route() {
        Route::Health if is_read => response.json(200, r#"{"ok":true}"#),
        Route::Ready if is_read => {
            Database::open()?;
            response.json(200, r#"{"ready":true}"#);
        }
        Route::Actor(target) if is_read && is_stream(head, &target) => {
            // A browser's EventSource cannot set headers.
            let identity = tokens::identify(head, TokenFrom::HeaderOrQuery)?;
            stream::serve(head, &target, identity, response)?;
        }
        Route::Actor(target) if is_read || head.method == "POST" => {
            forward::to_actor(head, request, &target, response)?;
        }
        Route::Tick if head.method == "POST" => forward::tick(head, request, response)?,
        Route::None | Route::Wake(_) | Route::Look(_) => return Err(head.not_found()),
        _ => door::refuse_method(head, response),
    }
    Ok(())
}

fn is_stream(head: &Head, target: &Target) -> bool {
    match target.what() {
        Some("events") => true,
        Some("state") => head.wants_events(),
        _ => false,
    }
}

// Other linkers refuse the names that a component's exports have.
#[cfg(target_family = "wasm")]
wasip2::http::proxy::export!(Events);

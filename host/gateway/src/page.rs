//! The example page at `/`: a chat, a counter, a game and an agent, in a browser.
//!
//! Its files are part of the program, and the browser takes nothing from elsewhere. The
//! gateway adds the routes, unless `gateway.page` is off.
//!
//! Invariant: a request to upgrade at `/` becomes a WebSocket, as on any path of no route.

use std::sync::Arc;

use axum::Router;
use axum::body::Body;
use axum::extract::State;
use axum::response::{IntoResponse, Response};
use axum::routing::get;
use http::Request;
use http::header;
use tidegate_ws::handshake;

use super::config;
use super::{Shared, upgrade};

const HTML: &str = "text/html; charset=utf-8";
const CSS: &str = "text/css; charset=utf-8";
const JAVASCRIPT: &str = "text/javascript; charset=utf-8";
const SVG: &str = "image/svg+xml";

/// Nothing but the page's own files, and no text that is run. `'self'` covers WebSockets to
/// the same host and port (CSP level 3, section 6.7.2.8).
const CONTENT_SECURITY_POLICY: &str = "default-src 'none'; script-src 'self'; \
    style-src 'self'; img-src 'self'; connect-src 'self'; base-uri 'none'; \
    form-action 'none'; frame-ancestors 'none'";

/// What the page is made of, beside `index.html`.
const ASSETS: [(&str, &str, &str); 9] = [
    ("/_page/agent.js", JAVASCRIPT, include_str!("page/agent.js")),
    ("/_page/app.js", JAVASCRIPT, include_str!("page/app.js")),
    ("/_page/chat.js", JAVASCRIPT, include_str!("page/chat.js")),
    (
        "/_page/client.js",
        JAVASCRIPT,
        include_str!("page/client.js"),
    ),
    (
        "/_page/counter.js",
        JAVASCRIPT,
        include_str!("page/counter.js"),
    ),
    ("/_page/game.js", JAVASCRIPT, include_str!("page/game.js")),
    ("/_page/page.js", JAVASCRIPT, include_str!("page/page.js")),
    ("/_page/style.css", CSS, include_str!("page/style.css")),
    ("/_page/icon.svg", SVG, include_str!("page/icon.svg")),
];

/// The page's routes, or none when it is off.
pub(super) fn routes(settings: &config::Gateway) -> Router<Arc<Shared>> {
    if !settings.page {
        return Router::new();
    }
    let page = Router::new().route("/", get(index));
    ASSETS.into_iter().fold(page, |page, (path, media, text)| {
        page.route(path, get(async move || file(media, text)))
    })
}

/// `/`: the page, or a WebSocket, since clients may connect to a host without naming a path.
async fn index(shared: State<Arc<Shared>>, request: Request<Body>) -> Response {
    if handshake::is_upgrade(request.headers()) {
        return upgrade(shared, request).await;
    }
    file(HTML, include_str!("page/index.html"))
}

fn file(media: &'static str, text: &'static str) -> Response {
    let headers = [
        (header::CONTENT_TYPE, media),
        // A newer host brings a newer page.
        (header::CACHE_CONTROL, "no-cache"),
        (header::CONTENT_SECURITY_POLICY, CONTENT_SECURITY_POLICY),
        (header::X_CONTENT_TYPE_OPTIONS, "nosniff"),
        // The page's address may hold a token.
        (header::REFERRER_POLICY, "no-referrer"),
    ];
    (headers, text).into_response()
}

//! Server-sent events (WHATWG HTML, section 9.2), as the host writes them.

use std::borrow::Cow;

/// One event. A line break in the data, which can only stand between the tokens of JSON,
/// becomes a space.
pub fn event(name: &str, id: Option<&str>, json: &str) -> String {
    let id = id.map_or(String::new(), |id| format!("id: {id}\n"));
    let json = match json.contains(['\n', '\r']) {
        true => Cow::Owned(json.replace(['\n', '\r'], " ")),
        false => Cow::Borrowed(json),
    };
    format!("event: {name}\n{id}data: {json}\n\n")
}

/// The id of an event of the state: a place in its history.
pub fn place(epoch: &str, version: u64) -> String {
    format!("{epoch}:{version}")
}

/// What a silent stream says now and then, to proxies above all.
pub const KEEP_ALIVE: &str = ": keep-alive\n\n";

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_event_is_one_line_of_data() {
        assert_eq!(
            event("chunk", None, "{\n1}"),
            "event: chunk\ndata: { 1}\n\n"
        );
        let id = place("ab", 7);
        assert_eq!(
            event("patch", Some(&id), "[]"),
            "event: patch\nid: ab:7\ndata: []\n\n"
        );
    }
}

//! Requests and answers as handlers see them.

use super::*;

/// A body in these pieces, and then its end or a failure.
struct Scripted {
    pieces: std::vec::IntoIter<Vec<u8>>,
    end: Result<()>,
}

impl Source for Scripted {
    fn read(&mut self) -> Result<Option<Vec<u8>>> {
        match self.pieces.next() {
            Some(piece) => Ok(Some(piece)),
            None => self.end.clone().map(|()| None),
        }
    }
}

fn response(pieces: &[&[u8]], end: Result<()>) -> Response {
    let pieces: Vec<Vec<u8>> = pieces.iter().map(|piece| piece.to_vec()).collect();
    Response {
        status: 200,
        headers: vec![("content-type".to_owned(), "text/plain".to_owned())],
        host: "server.test".to_owned(),
        body: Box::new(Scripted {
            pieces: pieces.into_iter(),
            end,
        }),
    }
}

fn lines(pieces: &[&[u8]], end: Result<()>) -> Vec<Result<String, String>> {
    let shown = |line: Result<String>| {
        line.map_err(|failure| failure.params()["reason"].as_str().unwrap().to_owned())
    };
    response(pieces, end).lines().map(shown).collect()
}

fn texts(texts: &[&str]) -> Vec<Result<String, String>> {
    texts.iter().map(|text| Ok((*text).to_owned())).collect()
}

#[test]
fn lines_do_not_depend_on_how_the_body_is_cut() {
    let body = "one\r\n\ntwö\nthree".as_bytes();
    let expected = texts(&["one", "", "twö", "three"]);
    assert_eq!(lines(&[body], Ok(())), expected);
    let bytes: Vec<&[u8]> = body.chunks(1).collect();
    assert_eq!(lines(&bytes, Ok(())), expected);
    for at in 1..body.len() {
        let (head, tail) = body.split_at(at);
        assert_eq!(lines(&[head, tail], Ok(())), expected, "cut at {at}");
    }
}

#[test]
fn a_last_line_break_ends_a_line_and_begins_none() {
    assert_eq!(lines(&[b"a\nb\n"], Ok(())), texts(&["a", "b"]));
    assert_eq!(lines(&[], Ok(())), []);
}

#[test]
fn a_body_that_breaks_off_ends_with_a_failure_in_place_of_the_broken_line() {
    let broken = Err(failed("server.test", "incomplete"));
    let mut expected = texts(&["a"]);
    expected.push(Err("incomplete".to_owned()));
    assert_eq!(lines(&[b"a\nhal"], broken), expected);
}

#[test]
fn a_line_that_is_no_text_is_the_last_item() {
    let mut expected = texts(&["a"]);
    expected.push(Err("not-utf8".to_owned()));
    assert_eq!(lines(&[b"a\n\xff\nb\n"], Ok(())), expected);
}

#[test]
fn a_line_without_end_does_not_fill_the_memory() {
    let piece = vec![b'x'; 1 << 20];
    let pieces = vec![piece.as_slice(); 17];
    assert_eq!(lines(&pieces, Ok(())), [Err("too-large".to_owned())]);
    let whole = response(&pieces, Ok(())).bytes().unwrap_err();
    assert_eq!(whole.params()["reason"], "too-large");
}

#[test]
fn a_whole_body_is_text_or_json() {
    let answer = || response(&[b"{\"a\":", b"[1,2]}"], Ok(()));
    assert_eq!(answer().text().unwrap(), "{\"a\":[1,2]}");
    let value: serde_json::Value = answer().json().unwrap();
    assert_eq!(value["a"][1], 2);
    let failure = response(&[b"{"], Ok(()))
        .json::<serde_json::Value>()
        .unwrap_err();
    assert_eq!(failure.code(), "http.failed");
    assert_eq!(failure.params()["reason"], "invalid-json");
    assert_eq!(answer().header("Content-Type"), Some("text/plain"));
}

#[test]
fn a_url_is_taken_apart() {
    let parse = |url| {
        let url = Url::parse(url)?;
        Some((url.tls, url.authority.to_owned(), url.path))
    };
    let parts =
        |tls, authority: &str, path: &str| Some((tls, authority.to_owned(), path.to_owned()));
    for (url, expected) in [
        ("https://a.test", parts(true, "a.test", "/")),
        ("HTTP://a.test:80/b?c#d", parts(false, "a.test:80", "/b?c")),
        ("http://a.test?b", parts(false, "a.test", "/?b")),
        ("http://[::1]:80/", parts(false, "[::1]:80", "/")),
        ("a.test", None),
        ("ftp://a.test", None),
        ("http://", None),
        ("http:///path", None),
        ("http://user@a.test", None),
        ("http://a.test/a b", None),
        ("http://a.test/\r\nx:y", None),
    ] {
        assert_eq!(parse(url), expected, "{url}");
    }
}

#[test]
fn what_cannot_be_sent_fails_with_a_reason() {
    let reason = |request: Request| {
        let failure = request.send().unwrap_err();
        assert_eq!(failure.code(), "http.failed");
        failure.params()["reason"].as_str().unwrap().to_owned()
    };
    assert_eq!(reason(Request::get("nowhere")), "invalid-url");
    let keys = std::collections::BTreeMap::from([((1, 2), 3)]);
    let request = Request::post("http://a.test").json(&keys);
    assert_eq!(reason(request), "invalid-body");
    assert_eq!(reason(Request::get("http://a.test")), "not-in-a-component");
}

mod while_waiting {
    use std::rc::Rc;

    use super::*;
    use crate::host::{Host, Op};
    use crate::prelude::*;
    use crate::recorder::Recorder;
    use serde_json::json;

    #[derive(Default, Serialize, Deserialize, JsonSchema)]
    struct Reader {
        n: u32,
    }

    #[actor]
    impl Reader {}

    /// A streaming method that has staged a change which nobody was told of.
    fn streaming() -> (Rc<Recorder>, Context<Reader>) {
        let host = Rc::new(Recorder::new(json!({"n": 0})));
        host.begin(Some(50));
        let turn = Context::<Reader>::test().turn().clone();
        let mut ctx = Context::new(Rc::clone(&host) as Rc<dyn Host>, turn).streaming();
        let (pointer, value) = ("/n", "1");
        ctx.staged(host.patch(Op::Replace { pointer, value }));
        (host, ctx)
    }

    /// What subscribers have seen by the time of the next tick.
    fn seen(host: &Recorder) -> usize {
        host.sleep(millis(50));
        host.with(|recording| recording.updates.len())
    }

    #[test]
    fn what_is_staged_is_seen_while_a_line_is_waited_for() {
        let (host, mut ctx) = streaming();
        let mut lines = response(&[b"a\n"], Ok(())).lines();
        assert_eq!(seen(&host), 0);
        assert_eq!(lines.next_in(&mut ctx), Some(Ok("a".to_owned())));
        assert_eq!(seen(&host), 1);
        assert_eq!(lines.next_in(&mut ctx), None);
    }

    #[test]
    fn what_is_staged_is_seen_while_a_response_is_waited_for() {
        let (host, mut ctx) = streaming();
        let sent = Request::get("http://a.test").send_in(&mut ctx);
        assert_eq!(sent.unwrap_err().code(), "http.failed");
        assert_eq!(seen(&host), 1);
    }

    #[test]
    fn a_turn_that_is_to_fail_does_not_wait() {
        let (_, mut ctx) = streaming();
        ctx.note(Err(Failure::new("state.too-large")));
        let mut lines = response(&[b"a\n", b"b\n"], Ok(())).lines();
        let failure = lines.next_in(&mut ctx).unwrap().unwrap_err();
        assert_eq!(failure.code(), "state.too-large");
        assert_eq!(lines.next_in(&mut ctx), None);
        let failure = Request::get("http://a.test").send_in(&mut ctx).unwrap_err();
        assert_eq!(failure.code(), "state.too-large");
    }
}

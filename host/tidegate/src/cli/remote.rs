//! A running host, as the commands that administer one see it: its address, the admin key
//! and its failures as sentences.
//!
//! Invariants: the key is never a word of the command line, is never printed, and goes to
//! no other address than the one named: redirects are not followed.

use std::borrow::Cow;
use std::io::{BufRead, Read};
use std::net::IpAddr;
use std::path::{Path, PathBuf};
use std::time::Duration;

use anyhow::{Context, bail};
use serde::Deserialize;
use serde::de::DeserializeOwned;
use serde_json::Value;
use tidegate_core::printable;
use ureq::http::{Method, Request, Response, StatusCode, Uri};
use ureq::{Agent, AsSendBody, Body};

/// Holds the admin key where neither an argument nor a file names one.
const KEY_VARIABLE: &str = "TIDEGATE_ADMIN_KEY";
/// Where a host that was started in this folder keeps its key.
const OWN_KEY_FILE: &str = ".tidegate/admin.key";
/// Where keys come from, for who has none or a wrong one.
const KEY_SOURCES: &str = "the admin key is read from --key-file FILE, else from the variable \
    TIDEGATE_ADMIN_KEY, else, for a host on this machine, from .tidegate/admin.key in the \
    current folder; a host that has no key configured writes a random one to admin.key in \
    its data folder and prints the path when it starts";
/// What to look at when an answer makes no sense.
const OTHER_HOST: &str = "is it a Tidegate host of this version?";
/// Longest answer that is not a stream, in bytes.
const MAX_ANSWER_BYTES: u64 = 64 << 20;
/// Longest line of a stream, in bytes.
const MAX_LINE_BYTES: u64 = 4 << 20;
/// Time to connect.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(10);

#[derive(clap::Args)]
pub(crate) struct Remote {
    /// The host, such as http://127.0.0.1:3000.
    #[arg(long = "to", alias = "from", value_name = "URL", env = "TIDEGATE_URL")]
    url: String,
    /// The file that holds the admin key [default: the variable TIDEGATE_ADMIN_KEY, or for
    /// a host on this machine .tidegate/admin.key in the current folder].
    #[arg(long, value_name = "FILE")]
    key_file: Option<PathBuf>,
    /// Time for all of it, in milliseconds.
    #[arg(long, value_name = "MS", default_value_t = 600_000)]
    timeout_ms: u64,
}

impl Remote {
    /// Finds the key; nothing is sent yet.
    pub(super) fn client(self) -> anyhow::Result<Client> {
        let address = Address::parse(&self.url)?;
        let key = find_key(self.key_file.as_deref(), &address)?;
        if address.is_plain && !address.is_loopback {
            eprintln!(
                "tidegate: warning: {} is not https: whoever is on the way can read the admin key",
                address.base
            );
        }
        let mut config = Agent::config_builder()
            .http_status_as_error(false)
            .max_redirects(0)
            .timeout_connect(Some(CONNECT_TIMEOUT))
            .timeout_global(Some(Duration::from_millis(self.timeout_ms)))
            .user_agent(concat!("tidegate/", env!("CARGO_PKG_VERSION")));
        if address.is_loopback {
            // A proxy has another loopback.
            config = config.proxy(None);
        }
        Ok(Client {
            agent: config.build().new_agent(),
            base: address.base,
            key,
            timeout_ms: self.timeout_ms,
        })
    }
}

/// Where a host is.
#[derive(Debug)]
struct Address {
    /// Without a slash at its end.
    base: String,
    is_plain: bool,
    is_loopback: bool,
}

impl Address {
    fn parse(url: &str) -> anyhow::Result<Address> {
        let wrong = |what: &str| {
            anyhow::anyhow!("--to {url}: {what}; expected an address such as http://127.0.0.1:3000")
        };
        // The parser drops what follows a `#`.
        if url.contains('#') {
            return Err(wrong("a fragment has no meaning here"));
        }
        let uri: Uri = url
            .parse()
            .map_err(|error| wrong(&format!("not a URL ({error})")))?;
        let is_plain = match uri.scheme_str() {
            Some("http") => true,
            Some("https") => false,
            _ => return Err(wrong("it does not begin with http:// or https://")),
        };
        if uri.query().is_some() {
            return Err(wrong("a query has no meaning here"));
        }
        if !matches!(uri.path(), "" | "/") {
            return Err(wrong("a path has no meaning here"));
        }
        let Some(authority) = uri.authority() else {
            return Err(wrong("it names no host"));
        };
        if authority.as_str().contains('@') {
            return Err(anyhow::anyhow!(
                "--to: a URL with a user or password in it; {KEY_SOURCES}"
            ));
        }
        let host = authority.host();
        let ip = host.trim_start_matches('[').trim_end_matches(']');
        Ok(Address {
            base: url.trim_end_matches('/').to_owned(),
            is_plain,
            is_loopback: host.eq_ignore_ascii_case("localhost")
                || ip.parse().is_ok_and(|ip: IpAddr| ip.is_loopback()),
        })
    }
}

/// The bearer key. It has no `Debug`, so that it gets into no message.
struct Key(String);

fn find_key(file: Option<&Path>, address: &Address) -> anyhow::Result<Key> {
    if let Some(file) = file {
        return read_key(file);
    }
    match std::env::var(KEY_VARIABLE) {
        Ok(key) if !key.is_empty() => return Key::parse(&key).context(KEY_VARIABLE),
        Ok(_) | Err(std::env::VarError::NotPresent) => {}
        Err(std::env::VarError::NotUnicode(_)) => bail!("{KEY_VARIABLE}: expected UTF-8"),
    }
    let own = Path::new(OWN_KEY_FILE);
    if address.is_loopback && own.exists() {
        return read_key(own);
    }
    bail!("no admin key is given: {KEY_SOURCES}")
}

fn read_key(file: &Path) -> anyhow::Result<Key> {
    let name = file.display();
    let text = std::fs::read_to_string(file)
        .with_context(|| format!("cannot read the admin key from {name}"))?;
    Key::parse(&text).with_context(|| format!("the admin key in {name}"))
}

impl Key {
    fn parse(text: &str) -> anyhow::Result<Key> {
        let text = text.trim();
        if text.is_empty() || !text.bytes().all(|byte| byte.is_ascii_graphic()) {
            bail!("expected one word of printable ASCII characters");
        }
        Ok(Key(text.to_owned()))
    }
}

/// What a host says went wrong.
#[derive(Deserialize)]
struct Failure {
    code: String,
    #[serde(default)]
    message: Option<String>,
    /// What hosts tell operators besides.
    #[serde(default)]
    detail: Option<String>,
}

#[derive(Deserialize)]
struct Failed {
    error: Failure,
}

impl Failure {
    fn into_error(self) -> anyhow::Error {
        let detail = self.detail.map(|detail| format!(": {detail}"));
        let detail = detail.unwrap_or_default();
        match self.message {
            Some(message) if !message.is_empty() => {
                anyhow::anyhow!("the host refuses: {message}{detail} ({})", self.code)
            }
            _ => anyhow::anyhow!("the host refuses: {}{detail}", self.code),
        }
    }
}

/// A host that can be asked.
pub(super) struct Client {
    agent: Agent,
    base: String,
    key: Key,
    timeout_ms: u64,
}

impl Client {
    /// Where the host is.
    pub(super) fn base(&self) -> &str {
        &self.base
    }

    /// Begins a request to a path of the host, which is already escaped.
    pub(super) fn request(&self, method: Method, path: &str) -> ureq::http::request::Builder {
        Request::builder()
            .method(method)
            .uri(format!("{}{path}", self.base))
            .header("authorization", format!("Bearer {}", self.key.0))
    }

    /// Sends a request; an answer that is no success is an error that says why.
    pub(super) fn send(&self, request: Request<impl AsSendBody>) -> anyhow::Result<Answer> {
        let response = self.agent.run(request).map_err(|error| self.lost(error))?;
        let answer = Answer {
            base: self.base.clone(),
            timeout_ms: self.timeout_ms,
            response,
        };
        match answer.response.status() {
            status if status.is_success() => Ok(answer),
            status => Err(answer.refusal(status)),
        }
    }

    fn lost(&self, error: ureq::Error) -> anyhow::Error {
        lost(&self.base, self.timeout_ms, error)
    }
}

fn lost(base: &str, timeout_ms: u64, error: ureq::Error) -> anyhow::Error {
    match error {
        ureq::Error::Timeout(ureq::Timeout::Global) => {
            anyhow::anyhow!("{base} has not answered within {timeout_ms} ms (--timeout-ms)")
        }
        ureq::Error::Io(error) => anyhow::anyhow!("cannot reach {base}: {error}"),
        error => anyhow::anyhow!("cannot reach {base}: {error}"),
    }
}

/// What a host answered.
pub(super) struct Answer {
    base: String,
    timeout_ms: u64,
    response: Response<Body>,
}

impl Answer {
    /// Whether events come, one by one, rather than one JSON text.
    pub(super) fn is_stream(&self) -> bool {
        let kind = self.response.headers().get("content-type");
        kind.and_then(|kind| kind.to_str().ok())
            .is_some_and(|kind| kind.starts_with("text/event-stream"))
    }

    /// The answer as JSON.
    pub(super) fn json<T: DeserializeOwned>(self) -> anyhow::Result<T> {
        let base = self.base.clone();
        let text = self.text()?;
        read(&text)
            .with_context(|| format!("{base} answers something else than expected; {OTHER_HOST}"))
    }

    /// The answer as it comes.
    pub(super) fn into_reader(self) -> impl Read {
        self.response.into_body().into_reader()
    }

    /// The events as they come.
    pub(super) fn events(self) -> Events {
        Events {
            base: self.base,
            timeout_ms: self.timeout_ms,
            lines: std::io::BufReader::new(Box::new(self.response.into_body().into_reader())),
        }
    }

    fn text(mut self) -> anyhow::Result<String> {
        let body = self.response.body_mut().with_config();
        body.limit(MAX_ANSWER_BYTES)
            .read_to_string()
            .map_err(|error| lost(&self.base, self.timeout_ms, error))
    }

    fn refusal(self, status: StatusCode) -> anyhow::Error {
        let base = self.base.clone();
        let text = self.text().unwrap_or_default();
        let failed: Option<Failed> = read(&text).ok();
        match failed {
            _ if status == StatusCode::UNAUTHORIZED => {
                anyhow::anyhow!("{base} does not take this admin key; {KEY_SOURCES}")
            }
            Some(failed) => failed.error.into_error(),
            None if status.is_redirection() => {
                anyhow::anyhow!("{base} redirects elsewhere ({status}); name the host itself")
            }
            None => anyhow::anyhow!("{base} answers {status} without saying why; {OTHER_HOST}"),
        }
    }
}

/// Server-sent events (the HTML standard, section 9.2) of one answer.
pub(super) struct Events {
    base: String,
    timeout_ms: u64,
    lines: std::io::BufReader<Box<dyn Read>>,
}

/// One of them.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Event {
    /// Its type.
    pub(super) name: String,
    /// What it carries.
    pub(super) data: String,
}

impl Events {
    /// The next event, unless the stream has ended.
    pub(super) fn next(&mut self) -> anyhow::Result<Option<Event>> {
        let mut event = Event {
            name: String::new(),
            data: String::new(),
        };
        while let Some(line) = self.line()? {
            if line.is_empty() {
                if !event.data.is_empty() {
                    return Ok(Some(event));
                }
                event.name.clear();
                continue;
            }
            let (field, value) = line.split_once(':').unwrap_or((&line, ""));
            let value = value.strip_prefix(' ').unwrap_or(value);
            match field {
                "event" => value.clone_into(&mut event.name),
                "data" => {
                    if !event.data.is_empty() {
                        event.data.push('\n');
                    }
                    event.data.push_str(value);
                }
                // Comments, ids and what else there may be.
                _ => {}
            }
        }
        Ok(None)
    }

    fn line(&mut self) -> anyhow::Result<Option<String>> {
        let mut line = String::new();
        let read = (&mut self.lines)
            .take(MAX_LINE_BYTES)
            .read_line(&mut line)
            .map_err(|error| lost(&self.base, self.timeout_ms, ureq::Error::from(error)))?;
        match line.strip_suffix('\n') {
            Some(line) => Ok(Some(line.strip_suffix('\r').unwrap_or(line).to_owned())),
            None if read as u64 == MAX_LINE_BYTES => {
                bail!("{} sends a line beyond {MAX_LINE_BYTES} bytes", self.base)
            }
            // What has no line break is an event that was cut off.
            None => Ok(None),
        }
    }
}

/// Reads what a host says. All text in it is made fit for a line on a terminal here, so that
/// no command shows any other.
pub(super) fn read<T: DeserializeOwned>(text: &str) -> serde_json::Result<T> {
    let mut said: Value = serde_json::from_str(text)?;
    make_printable(&mut said);
    serde_json::from_value(said)
}

fn make_printable(said: &mut Value) {
    match said {
        Value::String(text) => {
            if let Cow::Owned(escaped) = printable::line(text) {
                *text = escaped;
            }
        }
        Value::Array(items) => items.iter_mut().for_each(make_printable),
        Value::Object(members) => members.values_mut().for_each(make_printable),
        Value::Null | Value::Bool(_) | Value::Number(_) => {}
    }
}

/// The error that an event of a failure carries.
pub(super) fn failure_in(data: &str) -> anyhow::Error {
    match read::<Failed>(data) {
        Ok(failed) => failed.error.into_error(),
        Err(_) => anyhow::anyhow!("the host refuses without saying why"),
    }
}

/// The path of a component, whatever its name holds.
pub(super) fn component_path(name: &str) -> String {
    use std::fmt::Write;
    let mut path = String::from("/_tidegate/components/");
    for byte in name.bytes() {
        match byte {
            b'a'..=b'z' | b'A'..=b'Z' | b'0'..=b'9' | b'-' | b'_' | b'~' => path.push(byte.into()),
            // Dots as well, since `..` would be another path; writing to a string cannot fail.
            other => {
                let _ = write!(path, "%{other:02X}");
            }
        }
    }
    path
}

/// What a path ends with that is to be obeyed also while actors are live.
pub(super) fn forced(force: bool) -> &'static str {
    if force { "?force=true" } else { "" }
}

/// The beginning of a digest, enough to tell it from others.
pub(super) fn short(digest: &str) -> &str {
    digest.get(..12).unwrap_or(digest)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_address_is_a_scheme_and_a_host() {
        for (url, is_plain, is_loopback) in [
            ("http://127.0.0.1:3000", true, true),
            ("http://[::1]:3000/", true, true),
            ("http://localhost", true, true),
            ("https://live.example", false, false),
            ("http://127.0.0.1.example", true, false),
            ("http://localhost.example", true, false),
        ] {
            let address = Address::parse(url).unwrap();
            assert_eq!(
                (address.is_plain, address.is_loopback),
                (is_plain, is_loopback),
                "{url}"
            );
            assert_eq!(address.base, url.trim_end_matches('/'));
        }
    }

    #[test]
    fn an_address_holds_nothing_else() {
        for (url, said) in [
            ("http://x/path", "a path"),
            ("http://x/?q=1", "a query"),
            ("http://x?q=1", "a query"),
            ("http://x/#f", "a fragment"),
            ("ftp://x", "http://"),
            ("127.0.0.1:3000", "http"),
            ("localhost", "http"),
            ("http://ann:s3cret@x", "a user or password"),
            ("", "not a URL"),
        ] {
            let error = Address::parse(url).unwrap_err().to_string();
            assert!(error.contains(said), "{url}: {error}");
            assert!(!error.contains("s3cret"), "{error}");
        }
    }

    #[test]
    fn a_key_is_one_printable_word() {
        assert_eq!(Key::parse(" abc123\n").ok().unwrap().0, "abc123");
        for text in ["", "\n", "two words", "line\r\nx: y", "schlüssel"] {
            assert!(Key::parse(text).is_err(), "{text:?}");
        }
    }

    #[test]
    fn a_name_stays_within_its_segment() {
        assert_eq!(component_path("chat-2"), "/_tidegate/components/chat-2");
        assert_eq!(
            component_path("../é?"),
            "/_tidegate/components/%2E%2E%2F%C3%A9%3F"
        );
    }

    fn events(text: &'static str) -> Events {
        Events {
            base: "http://host".to_owned(),
            timeout_ms: 1,
            lines: std::io::BufReader::new(Box::new(text.as_bytes())),
        }
    }

    #[test]
    fn events_are_read_with_comments_and_line_breaks_of_both_kinds() {
        let mut events = events(
            ": hello\n\nevent: progress\ndata: {\"a\":\ndata: 1}\n\nevent:result\r\ndata:2\r\n\r\n",
        );
        let event = |name: &str, data: &str| Event {
            name: name.to_owned(),
            data: data.to_owned(),
        };
        assert_eq!(
            events.next().unwrap(),
            Some(event("progress", "{\"a\":\n1}"))
        );
        assert_eq!(events.next().unwrap(), Some(event("result", "2")));
        assert_eq!(events.next().unwrap(), None);
    }

    #[test]
    fn an_event_that_is_cut_off_is_none() {
        for text in [
            "event: result\ndata: 1",
            "event: result\ndata: 1\n",
            "event: res",
        ] {
            assert_eq!(events(text).next().unwrap(), None, "{text:?}");
        }
    }
}

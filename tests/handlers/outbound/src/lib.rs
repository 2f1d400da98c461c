//! What the end-to-end tests of outbound requests run: `asker` reads what a server sends,
//! and leaves requests open.

use std::time::Duration;

use tidegate_sdk::http::Request;
use tidegate_sdk::prelude::*;

tidegate_sdk::export!(Asker);

/// What was read so far.
#[derive(Default, Serialize, Deserialize, JsonSchema)]
pub struct Asker {
    lines: Vec<String>,
}

/// A response, as a client of the actor sees it.
#[derive(Serialize, JsonSchema)]
pub struct Answer {
    status: u16,
    kind: Option<String>,
    text: String,
}

/// The name and the value of a header.
type Header = (String, String);

#[actor]
impl Asker {
    /// Reads a whole response.
    pub fn get(&mut self, url: String) -> Result<Answer> {
        answer(Request::get(url))
    }

    /// Sends a body of so many bytes.
    pub fn post(&mut self, url: String, bytes: usize, headers: Vec<Header>) -> Result<Answer> {
        let request = Request::post(url).body("x".repeat(bytes));
        let add = |request: Request, (name, value)| request.header(name, value);
        answer(headers.into_iter().fold(request, add))
    }

    /// Reads lines, and keeps them when all goes well.
    pub fn lines(&mut self, url: String, silence_ms: Option<u64>) -> Result<usize> {
        let mut request = Request::get(url);
        if let Some(silence) = silence_ms {
            request = request.timeout(Duration::from_millis(silence));
        }
        for line in request.send()?.lines() {
            self.lines.push(line?);
        }
        Ok(self.lines.len())
    }

    /// Reads lines, and asks for a page after each, before it reads on.
    pub fn acknowledge(&mut self, url: String, page: String) -> Result<usize> {
        for line in Request::get(url).send()?.lines() {
            let answer = Request::get(format!("{page}?{}", line?)).send()?;
            self.lines.push(answer.text()?);
        }
        Ok(self.lines.len())
    }

    /// Reads lines until the first failure, which is the last item.
    pub fn tolerate(&mut self, url: String) -> Result<Vec<String>> {
        let shown = |line: Result<String>| line.unwrap_or_else(|failure| shown(&failure));
        Ok(Request::get(url).send()?.lines().map(shown).collect())
    }

    /// Asks again and again without reading the answers, and says how that went.
    pub fn flood(&mut self, url: String, times: usize) -> Vec<String> {
        let mut open = Vec::new();
        let ask = |_| match Request::get(url.as_str()).send() {
            Ok(response) => {
                open.push(response);
                "ok".to_owned()
            }
            Err(failure) => shown(&failure),
        };
        (0..times).map(ask).collect()
    }

    /// Asks, and forgets the answer without giving it back.
    pub fn leak(&mut self, url: String) -> Result<u16> {
        let response = Request::get(url).send()?;
        let status = response.status();
        std::mem::forget(response);
        Ok(status)
    }

    /// Makes header fields until the host refuses.
    pub fn hoard(&mut self) -> usize {
        let mut fields = Vec::new();
        loop {
            fields.push(fields_of_a_kilobyte());
            if fields.len() == 1_000_000 {
                return fields.len();
            }
        }
    }
}

fn answer(request: Request) -> Result<Answer> {
    let response = request.send()?;
    Ok(Answer {
        status: response.status(),
        kind: response.header("content-type").map(str::to_owned),
        text: response.text()?,
    })
}

/// The failure in one line: `http.failed incomplete`.
fn shown(failure: &Failure) -> String {
    match failure
        .params()
        .get("reason")
        .and_then(|reason| reason.as_str())
    {
        Some(reason) => format!("{} {reason}", failure.code()),
        None => failure.code().to_owned(),
    }
}

fn fields_of_a_kilobyte() -> wasip2::http::types::Fields {
    let fields = wasip2::http::types::Fields::new();
    // A field that is refused weighs nothing, which is as well.
    let _ = fields.append("x-weight", &[b'x'; 1024]);
    fields
}

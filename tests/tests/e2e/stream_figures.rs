//! What streams cost on the wire, as figures that are printed (`-- --nocapture`) beside what
//! must hold of them on any machine.

use serde_json::{Value, json};
use tidegate_tests::spacing::Spacing;
use tidegate_tests::{Actor, Host, Socket, actor, dialect};

/// A subscriber that keeps its own copy of a state, and counts what that takes.
struct Follower {
    socket: Socket,
    state: Value,
    version: Value,
    spacing: Spacing,
    /// Bytes of patches.
    bytes: usize,
    /// How many of the patches were sent as `str_ins`.
    inserts: usize,
}

impl Follower {
    async fn of(mut socket: Socket, actor: &Actor) -> Follower {
        let snapshot = socket.subscribe_state(actor).await;
        Follower {
            socket,
            state: snapshot["state"].clone(),
            version: snapshot["version"].clone(),
            spacing: Spacing::default(),
            bytes: 0,
            inserts: 0,
        }
    }

    /// Follows until the state is as wanted.
    async fn until(&mut self, wanted: impl Fn(&Value) -> bool) {
        while !wanted(&self.state) {
            let frame = self.socket.expect_type("state:patch").await;
            self.spacing.arrived();
            self.bytes += frame.to_string().len();
            assert_eq!(frame["from"], self.version, "a gap");
            self.version = frame["version"].clone();
            let operation = &frame["patches"][0];
            match operation["op"].as_str() {
                Some("str_ins") => self.insert(operation),
                _ => dialect::apply(&mut self.state, &frame["patches"]),
            }
        }
    }

    fn insert(&mut self, operation: &Value) {
        self.inserts += 1;
        let path = operation["path"].as_str().expect("a path");
        let place = self.state.pointer_mut(path).expect("a place");
        let text = place.as_str().expect("a text");
        let length = text.encode_utf16().count() as u64;
        assert_eq!(operation["pos"], length, "an insertion is at the end");
        let inserted = operation["str"].as_str().expect("a text");
        *place = json!(format!("{text}{inserted}"));
    }
}

#[tokio::test]
async fn a_stream_at_16_ms_is_spaced_and_adds_up_for_who_joins_late() {
    let host = Host::serving(["lab"]).await;
    let ticker = actor("ticker", "t");
    let mut first = Follower::of(host.connect().await, &ticker).await;
    let mut caller = host.connect().await;
    let input = json!({"stepMs": 1, "forMs": 2_000});
    let call = caller.begin_call(&ticker, "count16", input).await;
    first.until(|state| state["n"].as_u64() >= Some(100)).await;
    let mut late = Follower::of(host.connect().await, &ticker).await;
    assert_eq!(late.state["status"], "counting", "it joins in the middle");
    let done = |state: &Value| state["status"] == "done";
    tokio::join!(first.until(done), late.until(done));
    let counted = caller.result_of(&call).await.result();
    println!("state:patch at 16 ms for 2 s: {}", first.spacing);
    println!("who joins in the middle:      {}", late.spacing);
    assert_eq!(first.state["n"], counted);
    assert_eq!((&late.state, &late.version), (&first.state, &first.version));
    // One for each 16 ms at most; fewer where the machine has other things to do.
    let span = first.spacing.span().as_millis() as usize;
    assert!(first.spacing.count() <= span.max(2_000) / 16 + 10);
    assert!(first.spacing.count() >= 20 && late.spacing.count() >= 2);
}

const TOKEN: &str = "tide ";
const TOKENS: usize = 1_000;
/// What a patch may cost beside the text in it: names, versions, a place.
const ENVELOPE: usize = 220;

/// Follows as one that understands `str_ins` and as one that does not, until both have all
/// tokens; asserts and prints what that took.
async fn compare(what: &str, mut extended: Follower, mut plain: Follower, text: &str) {
    let whole = TOKEN.repeat(TOKENS);
    let all = |state: &Value| state[text] == *whole;
    tokio::join!(extended.until(all), plain.until(all));
    for (name, follower) in [("?patch=str_ins", &extended), ("plain", &plain)] {
        let (patches, bytes) = (follower.spacing.count(), follower.bytes);
        println!("{what}, {name}: {bytes} bytes in {patches} patches");
    }
    assert_eq!(extended.state, plain.state);
    assert_eq!(extended.version, plain.version);
    let patches = extended.spacing.count();
    assert!(
        extended.bytes <= whole.len() + patches * ENVELOPE,
        "{} bytes in {patches} patches",
        extended.bytes
    );
    assert!(extended.inserts + 10 >= patches && plain.inserts == 0);
    assert!(extended.bytes * 2 < plain.bytes);
}

#[tokio::test]
async fn tokens_of_a_streaming_method_cost_their_length() {
    let host = Host::serving(["lab"]).await;
    let ticker = actor("ticker", "t");
    let extended = Socket::connect(&host, "/ws?patch=str_ins").await;
    let extended = Follower::of(extended, &ticker).await;
    let plain = Follower::of(host.connect().await, &ticker).await;
    let mut caller = host.connect().await;
    let input = json!({"token": TOKEN, "times": TOKENS, "stepMs": 2});
    let call = caller.begin_call(&ticker, "write", input).await;
    let what = format!("{TOKENS} tokens in one method");
    compare(&what, extended, plain, "text").await;
    caller.result_of(&call).await.result();
}

#[tokio::test]
async fn tokens_in_turns_of_their_own_cost_their_length() {
    let host = Host::serving(["roadmap"]).await;
    let writer = actor("writer", "w");
    let extended = Socket::connect(&host, "/ws?patch=str_ins").await;
    let extended = Follower::of(extended, &writer).await;
    let plain = Follower::of(host.connect().await, &writer).await;
    let mut caller = host.connect().await;
    for _ in 0..TOKENS {
        let input = json!({"token": TOKEN});
        caller.begin_call(&writer, "append", input).await;
    }
    let what = format!("{TOKENS} tokens in as many turns");
    compare(&what, extended, plain, "output").await;
}

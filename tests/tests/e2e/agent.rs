//! The example agent, end to end: a provider on loopback says what each test has it say.

use serde_json::{Value, json};
use tidegate_tests::provider::{Exchange, Provider};
use tidegate_tests::{Actor, Builder, Host, Reply, Socket, actor, dialect, project};

const KEY: &str = "sk-of-the-tests";

fn agent() -> Actor {
    actor("agent", "run-1")
}

/// A host whose agent asks this provider.
fn asking(provider: &Provider) -> Builder {
    Host::builder()
        .component("agent")
        .allow(&provider.host())
        .variable("OPENAI_BASE_URL", &provider.base_url())
        .variable("OPENAI_MODEL", "test-1")
        .variable("OPENAI_API_KEY", KEY)
}

async fn started() -> (Provider, Host) {
    let provider = Provider::start().await;
    let host = asking(&provider).start().await;
    (provider, host)
}

async fn begin(socket: &mut Socket, prompt: &str) -> String {
    let prompt = json!({"prompt": prompt});
    socket.begin_call(&agent(), "start", prompt).await
}

async fn state(host: &Host) -> Value {
    let response = host.get("/actors/agent/run-1/state").send().await;
    response.json()["state"].clone()
}

fn chunks(reply: &Reply) -> Vec<&str> {
    let frames = reply.before.iter();
    let frames = frames.filter(|frame| frame["type"] == "rpc:stream");
    frames
        .map(|frame| frame["chunk"].as_str().unwrap())
        .collect()
}

/// A subscriber, and the state as it follows from what it was sent.
struct Watcher {
    socket: Socket,
    state: Value,
    /// The operations that it got.
    ops: Vec<Value>,
}

impl Watcher {
    async fn of(mut socket: Socket) -> Watcher {
        let snapshot = socket.subscribe_state(&agent()).await;
        Watcher {
            socket,
            state: snapshot["state"].clone(),
            ops: Vec::new(),
        }
    }

    async fn until(&mut self, wanted: impl Fn(&Value) -> bool) {
        while !wanted(&self.state) {
            let patch = self.socket.expect_type("state:patch").await;
            for op in patch["patches"].as_array().unwrap() {
                apply(&mut self.state, op);
                self.ops.push(op.clone());
            }
        }
    }

    async fn until_text(&mut self, at: usize, text: &str) {
        self.until(|state| state["messages"][at]["content"] == text)
            .await;
    }
}

/// Before the first prompt the agent is idle, too.
fn is_answered(state: &Value) -> bool {
    state["status"] == "idle" && state["messages"][1]["role"] == "assistant"
}

/// Applies an operation also of the extended dialect, whose positions count UTF-16.
fn apply(state: &mut Value, op: &Value) {
    if op["op"] != "str_ins" {
        return dialect::apply(state, &json!([op]));
    }
    let place = state.pointer_mut(op["path"].as_str().unwrap()).unwrap();
    let mut text: Vec<u16> = place.as_str().unwrap().encode_utf16().collect();
    let at = op["pos"].as_u64().unwrap() as usize;
    let new: Vec<u16> = op["str"].as_str().unwrap().encode_utf16().collect();
    text.splice(at..at, new);
    *place = json!(String::from_utf16(&text).unwrap());
}

#[tokio::test]
async fn everybody_sees_the_answer_grow_while_it_is_made() {
    let (mut provider, host) = started().await;
    let mut plain = Watcher::of(host.connect().await).await;
    let mut extended = Watcher::of(Socket::connect(&host, "/ws?patch=str_ins").await).await;
    let mut caller = host.connect().await;
    let call = begin(&mut caller, " Which way? ").await;
    let mut exchange = provider.asked().await;
    let tokens = [
        "With ", "the ", "tide", ", ", "as ", "every ", "wise ", "boat ", "🌊",
    ];
    let mut said = String::new();
    for token in tokens {
        exchange.say(token).await;
        said.push_str(token);
        // The provider says nothing more before both have seen this.
        for watcher in [&mut plain, &mut extended] {
            watcher.until_text(1, &said).await;
            assert_eq!(watcher.state["status"], "running");
        }
    }
    exchange.finish("stop").await;
    let reply = caller.result_of(&call).await;
    assert_eq!(reply.result(), said);
    assert_eq!(chunks(&reply), tokens);
    for watcher in [&mut plain, &mut extended] {
        watcher.until(|state| state["status"] == "idle").await;
        assert_eq!(
            watcher.state,
            json!({
                "messages": [
                    {"role": "user", "content": "Which way?"},
                    {"role": "assistant", "content": said},
                ],
                "status": "idle", "error": null,
            })
        );
    }
    assert!(plain.ops.iter().all(|op| op["op"] != "str_ins"));
    assert!(
        extended.ops.iter().any(|op| op["op"] == "str_ins"),
        "{:?}",
        extended.ops
    );
}

#[tokio::test]
async fn a_long_answer_costs_those_who_understand_appends_its_length() {
    const TOKENS: usize = 300;
    let (mut provider, host) = started().await;
    let mut watcher = Watcher::of(Socket::connect(&host, "/ws?patch=str_ins").await).await;
    let mut caller = host.connect().await;
    let call = begin(&mut caller, "Count").await;
    let mut exchange = provider.asked().await;
    let mut said = String::new();
    for number in 0..TOKENS {
        let token = format!("{number:04} ");
        exchange.say(&token).await;
        said.push_str(&token);
    }
    exchange.finish("stop").await;
    assert_eq!(caller.result_of(&call).await.result(), said);
    watcher.until(is_answered).await;
    assert_eq!(watcher.state["messages"][1]["content"], said);
    let is_text = |op: &&Value| op["path"] == "/messages/1/content";
    let texts = watcher.ops.iter().filter(is_text);
    let sent: usize = texts.map(|op| op.to_string().len()).sum();
    // An operation per tick, each with some 60 bytes around its text.
    assert!(
        sent < said.len() + TOKENS * 80,
        "{sent} bytes for {}",
        said.len()
    );
}

#[tokio::test]
async fn over_http_tokens_are_events() {
    let (mut provider, host) = started().await;
    let request = host
        .post("/actors/agent/run-1/start")
        .json(&json!({"prompt": "Hi"}));
    let mut stream = request.stream().await;
    let mut exchange = provider.asked().await;
    for token in ["Hel", "lo"] {
        exchange.say(token).await;
        assert_eq!(stream.expect("chunk").await.data, token);
    }
    exchange.finish("stop").await;
    assert_eq!(stream.expect("result").await.data, "Hello");
    stream.ends().await;
}

#[tokio::test]
async fn the_provider_is_asked_as_openai_wants_it() {
    let (mut provider, host) = started().await;
    let mut socket = host.connect().await;
    for (prompt, answer) in [("One?", "Two."), ("Three?", "Four.")] {
        let call = begin(&mut socket, prompt).await;
        let mut exchange = provider.asked().await;
        assert_eq!(exchange.path, "/v1/chat/completions");
        assert_eq!(exchange.headers["authorization"], format!("Bearer {KEY}"));
        assert_eq!(exchange.headers["content-type"], "application/json");
        assert_eq!(exchange.body["model"], "test-1");
        assert_eq!(exchange.body["stream"], true);
        let tools = exchange.body["tools"].as_array().unwrap();
        let names: Vec<_> = tools.iter().map(|tool| &tool["function"]["name"]).collect();
        assert_eq!(names, ["clock", "calculator"]);
        let messages = exchange.body["messages"].as_array().unwrap();
        assert_eq!(messages[0]["role"], "system");
        let mut expected = vec![json!({"role": "user", "content": prompt})];
        if prompt == "Three?" {
            expected.insert(0, json!({"role": "user", "content": "One?"}));
            expected.insert(1, json!({"role": "assistant", "content": "Two."}));
        }
        assert_eq!(messages[1..], expected);
        exchange.say(answer).await;
        exchange.finish("stop").await;
        assert_eq!(socket.result_of(&call).await.result(), answer);
    }
    assert!(!state(&host).await.to_string().contains(KEY));
}

#[tokio::test]
async fn the_model_calls_tools_and_reads_what_they_say() {
    let (mut provider, host) = started().await;
    let mut socket = host.connect().await;
    let call = begin(&mut socket, "What is six times seven?").await;
    let mut exchange = provider.asked().await;
    exchange.say("Let me see. ").await;
    exchange
        .call_tool(
            0,
            "a",
            "calculator",
            &["{\"expre", "ssion\": ", "\"6 * 7\"}"],
        )
        .await;
    exchange.call_tool(1, "b", "oracle", &["{}"]).await;
    exchange
        .call_tool(2, "c", "calculator", &["{\"expression\""])
        .await;
    exchange.finish("tool_calls").await;

    let mut exchange = provider.asked().await;
    let messages = exchange.body["messages"].as_array().unwrap();
    let of_tools: Vec<_> = messages[3..]
        .iter()
        .map(|message| {
            assert_eq!(message["role"], "tool");
            (
                message["tool_call_id"].as_str().unwrap(),
                message["content"].as_str().unwrap(),
            )
        })
        .collect();
    assert_eq!(of_tools[0], ("a", "42"));
    assert_eq!(
        of_tools[1],
        (
            "b",
            "error: there is no tool oracle; there are clock and calculator"
        )
    );
    assert!(
        of_tools[2]
            .1
            .starts_with("error: the arguments are no JSON"),
        "{of_tools:?}"
    );
    let calls = messages[2]["tool_calls"].as_array().unwrap();
    assert_eq!(calls.len(), 3);
    assert_eq!(
        calls[0]["function"]["arguments"],
        "{\"expression\": \"6 * 7\"}"
    );
    exchange.say("It is 42.").await;
    exchange.finish("stop").await;

    let reply = socket.result_of(&call).await;
    assert_eq!(reply.result(), "It is 42.");
    assert_eq!(chunks(&reply), ["Let me see. ", "It is 42."]);
    let state = state(&host).await;
    let roles: Vec<_> = state["messages"]
        .as_array()
        .unwrap()
        .iter()
        .map(|message| message["role"].as_str().unwrap())
        .collect();
    assert_eq!(
        roles,
        ["user", "assistant", "tool", "tool", "tool", "assistant"]
    );
    assert_eq!(state["messages"][2]["name"], "calculator");
    let uses = host.get("/actors/tool/calculator/state").send().await;
    assert_eq!(uses.json()["state"]["uses"], 1);
}

#[tokio::test]
async fn a_model_that_only_calls_tools_is_ended() {
    let (mut provider, host) = started().await;
    let mut socket = host.connect().await;
    let call = begin(&mut socket, "Again").await;
    for _ in 0..6 {
        let mut exchange = provider.asked().await;
        exchange.call_tool(0, "a", "clock", &["{}"]).await;
        exchange.finish("tool_calls").await;
    }
    let reply = socket.result_of(&call).await;
    assert_eq!(reply.code(), "agent.too-many-rounds");
    assert!(provider.is_idle());
    // The conversation goes on from there.
    let call = begin(&mut socket, "Well?").await;
    let mut exchange = provider.asked().await;
    assert_eq!(exchange.body["messages"].as_array().unwrap().len(), 15);
    exchange.say("Well.").await;
    exchange.finish("stop").await;
    assert_eq!(socket.result_of(&call).await.result(), "Well.");
}

/// Asserts that a run which has said `Hel` fails with this code, and that the caller, the
/// state and who looks hear the same of it.
async fn fails_behind_some_text(
    builder: Builder,
    provider: &mut Provider,
    code: &str,
    fail: impl AsyncFnOnce(Exchange),
) {
    let host = builder.start().await;
    let mut watcher = Watcher::of(host.connect().await).await;
    let mut socket = host.connect().await;
    let call = begin(&mut socket, "Hi").await;
    let mut exchange = provider.asked().await;
    exchange.say("Hel").await;
    watcher.until_text(1, "Hel").await;
    fail(exchange).await;
    let reply = socket.result_of(&call).await;
    assert_eq!((reply.code(), chunks(&reply)), (code, vec!["Hel"]));
    watcher.until(|state| state["status"] == "failed").await;
    assert_eq!(watcher.state["error"]["code"], code);
    assert_eq!(watcher.state["error"]["message"], reply.error());
    let messages = json!([
        {"role": "user", "content": "Hi"}, {"role": "assistant", "content": "Hel"},
    ]);
    assert_eq!(watcher.state["messages"], messages);
    assert_eq!(state(&host).await, watcher.state);
    // It is over, and the next prompt is answered, with what was said until then.
    let call = begin(&mut socket, "Go on").await;
    let mut exchange = provider.asked().await;
    assert_eq!(exchange.body["messages"].as_array().unwrap().len(), 4);
    exchange.say("lo").await;
    exchange.finish("stop").await;
    assert_eq!(socket.result_of(&call).await.result(), "lo");
    watcher.until(|state| state["status"] == "idle").await;
    assert_eq!(watcher.state["error"], Value::Null);
}

#[tokio::test]
async fn a_provider_that_stalls_is_given_up() {
    let mut provider = Provider::start().await;
    let builder = asking(&provider).variable("OPENAI_TIMEOUT_MS", "200");
    let stalls = async |exchange: Exchange| exchange.closed().await;
    fails_behind_some_text(builder, &mut provider, "agent.stalled", stalls).await;
}

#[tokio::test]
async fn a_provider_that_closes_in_a_line_is_a_failure() {
    let mut provider = Provider::start().await;
    let closes = async |mut exchange: Exchange| {
        exchange
            .send("data: {\"choices\": [{\"delta\": {\"cont")
            .await;
        exchange.break_off().await;
    };
    let builder = asking(&provider);
    fails_behind_some_text(builder, &mut provider, "agent.broke-off", closes).await;
}

#[tokio::test]
async fn a_response_that_ends_before_the_answer_is_a_failure() {
    let mut provider = Provider::start().await;
    let ends = async |exchange: Exchange| drop(exchange);
    let builder = asking(&provider);
    fails_behind_some_text(builder, &mut provider, "agent.broke-off", ends).await;
}

#[tokio::test]
async fn garbage_is_a_failure() {
    for garbage in [
        b"data: <html>\n\n".as_slice(),
        b"data: {\"choices\": 7}\n\n",
        b"\xff\xfe\xfd\n",
    ] {
        let mut provider = Provider::start().await;
        let builder = asking(&provider);
        let sends = async |mut exchange: Exchange| exchange.send(garbage).await;
        fails_behind_some_text(builder, &mut provider, "agent.garbage", sends).await;
    }
}

#[tokio::test]
async fn a_line_without_end_is_a_failure_that_costs_no_memory() {
    let mut provider = Provider::start().await;
    let builder = asking(&provider);
    let sends = async |mut exchange: Exchange| {
        let megabyte = vec![b'x'; 1 << 20];
        exchange.send("data: ").await;
        // The last ones may find nobody who reads.
        for _ in 0..16 {
            exchange.offer(megabyte.clone()).await;
        }
        exchange.closed().await;
    };
    fails_behind_some_text(builder, &mut provider, "agent.garbage", sends).await;
}

#[tokio::test]
async fn an_event_that_is_too_long_is_a_failure() {
    let mut provider = Provider::start().await;
    let builder = asking(&provider);
    let sends = async |mut exchange: Exchange| exchange.say(&"x".repeat(2 << 20)).await;
    fails_behind_some_text(builder, &mut provider, "agent.too-long", sends).await;
}

#[tokio::test]
async fn a_provider_that_fails_in_the_middle_says_why() {
    let mut provider = Provider::start().await;
    let builder = asking(&provider);
    let error = json!({"error": {"message": "overloaded"}}).to_string();
    let fails = async |mut exchange: Exchange| exchange.event(&error).await;
    fails_behind_some_text(builder, &mut provider, "agent.provider-failed", fails).await;
}

#[tokio::test]
async fn what_the_provider_refuses_has_codes() {
    let (mut provider, host) = started().await;
    let mut socket = host.connect().await;
    for (status, code, http) in [
        (401, "agent.key-refused", 502),
        (429, "agent.rate-limited", 503),
        (500, "agent.provider-failed", 502),
    ] {
        for over_http in [false, true] {
            let error = json!({"error": {"message": format!("no, not with {KEY}")}});
            let failure = if over_http {
                let request = host
                    .post("/actors/agent/run-1/start")
                    .json(&json!({"prompt": "Hi"}));
                let refuse = async { provider.asked().await.refuse(status, error).await };
                let (response, ()) = tokio::join!(request.send(), refuse);
                response.failed(http, code)
            } else {
                let call = begin(&mut socket, "Hi").await;
                provider.asked().await.refuse(status, error).await;
                let reply = socket.result_of(&call).await;
                assert_eq!(reply.code(), code);
                reply.frame["failure"].clone()
            };
            assert_eq!(failure["params"]["said"], "no, not with …");
        }
        let state = state(&host).await;
        assert_eq!(
            (&state["status"], &state["error"]["code"]),
            (&json!("failed"), &json!(code))
        );
        let last = state["messages"].as_array().unwrap().last().unwrap();
        assert_eq!(
            last["role"], "user",
            "an answer that said nothing leaves no message"
        );
    }
}

#[tokio::test]
async fn what_is_no_event_stream_is_garbage() {
    let (mut provider, host) = started().await;
    let mut socket = host.connect().await;
    let call = begin(&mut socket, "Hi").await;
    provider
        .asked()
        .await
        .refuse(200, json!({"choices": []}))
        .await;
    let reply = socket.result_of(&call).await;
    assert_eq!(reply.code(), "agent.garbage");
    assert!(
        reply.error().contains("application/json"),
        "{}",
        reply.error()
    );
}

#[tokio::test]
async fn a_provider_that_is_not_allowed_is_not_asked() {
    let mut provider = Provider::start().await;
    let host = Host::builder()
        .component("agent")
        .variable("OPENAI_BASE_URL", &provider.base_url())
        .start()
        .await;
    let mut socket = host.connect().await;
    let reply = socket
        .call(&agent(), "start", json!({"prompt": "Hi"}))
        .await;
    assert_eq!(reply.code(), "agent.not-allowed");
    assert!(
        reply.error().contains("allowed_outbound_hosts"),
        "{}",
        reply.error()
    );
    assert_eq!(state(&host).await["status"], "failed");
    assert!(provider.is_idle());
}

#[tokio::test]
async fn a_provider_that_is_not_there_is_a_failure() {
    let provider = Provider::start().await;
    let host = asking(&provider).start().await;
    drop(provider);
    let mut socket = host.connect().await;
    let reply = socket
        .call(&agent(), "start", json!({"prompt": "Hi"}))
        .await;
    assert_eq!(reply.code(), "agent.unreachable");
    assert!(
        reply.error().contains("connection-refused"),
        "{}",
        reply.error()
    );
}

#[tokio::test]
async fn without_a_provider_the_agent_says_so() {
    let host = Host::serving(["agent"]).await;
    let mut watcher = Watcher::of(host.connect().await).await;
    let mut socket = host.connect().await;
    let call = begin(&mut socket, "Hi").await;
    let reply = socket.result_of(&call).await;
    let said = reply.result();
    let said = said.as_str().unwrap();
    assert!(
        said.starts_with("No provider is configured, so this is a scripted reply"),
        "{said}"
    );
    assert_eq!(chunks(&reply).concat(), said);
    watcher.until(is_answered).await;
    assert_eq!(watcher.state["messages"][1]["content"], said);
    let grown = watcher
        .ops
        .iter()
        .filter(|op| op["path"] == "/messages/1/content")
        .count();
    assert!(grown > 10, "it was seen to grow {grown} times");
}

#[tokio::test]
async fn what_spin_toml_serves_answers_out_of_the_box() {
    let manifest = project().join("spin.toml");
    let host = Host::builder().application(&manifest).start().await;
    let mut socket = host.connect().await;
    let call = begin(&mut socket, "Hi").await;
    let said = socket.result_of(&call).await.result();
    let said = said.as_str().unwrap();
    assert!(said.starts_with("No provider is configured"), "{said}");
}

#[tokio::test]
async fn an_answer_that_is_complete_does_not_wait_for_the_end_of_the_response() {
    let (mut provider, host) = started().await;
    let mut socket = host.connect().await;
    let call = begin(&mut socket, "Hi").await;
    let mut exchange = provider.asked().await;
    exchange.say("Hello").await;
    let last = json!({"choices": [{"index": 0, "delta": {}, "finish_reason": "stop"}]});
    exchange.event(&last.to_string()).await;
    assert_eq!(socket.result_of(&call).await.result(), "Hello");
    exchange.closed().await;
}

#[tokio::test]
async fn a_second_prompt_waits_for_the_first_answer() {
    let (mut provider, host) = started().await;
    let (mut ann, mut ben) = (host.connect().await, host.connect().await);
    let first = begin(&mut ann, "One?").await;
    let mut exchange = provider.asked().await;
    let second = begin(&mut ben, "Two?").await;
    exchange.say("One.").await;
    assert_eq!(ann.expect_type("rpc:stream").await["chunk"], "One.");
    assert!(provider.is_idle(), "the second waits");
    exchange.finish("stop").await;
    assert_eq!(ann.result_of(&first).await.result(), "One.");
    let mut exchange = provider.asked().await;
    let messages = exchange.body["messages"].as_array().unwrap();
    assert_eq!(messages.last().unwrap()["content"], "Two?");
    assert_eq!(messages.len(), 4);
    exchange.say("Two.").await;
    exchange.finish("stop").await;
    assert_eq!(ben.result_of(&second).await.result(), "Two.");
}

#[tokio::test]
async fn who_asked_may_stop_the_answer() {
    let mut provider = Provider::start().await;
    let patient = asking(&provider).set("actors.cancel-grace-ms=20000");
    let host = patient.start().await;
    let mut watcher = Watcher::of(host.connect().await).await;
    let mut socket = host.connect().await;
    let call = begin(&mut socket, "Hi").await;
    let mut exchange = provider.asked().await;
    exchange.say("Hel").await;
    watcher.until_text(1, "Hel").await;
    socket.send(json!({"type": "rpc:cancel", "id": call})).await;
    exchange.keep_alive_until_closed().await;
    assert_eq!(socket.result_of(&call).await.result(), "Hel");
    watcher.until(|state| state["status"] == "stopped").await;
    assert_eq!(watcher.state["messages"][1]["content"], "Hel");
    assert_eq!(watcher.state["error"], Value::Null);
}

#[tokio::test]
async fn an_answer_that_is_stopped_while_the_provider_is_silent_is_looked_after() {
    let mut provider = Provider::start().await;
    let impatient = asking(&provider).set("actors.cancel-grace-ms=50");
    let host = impatient.start().await;
    let mut watcher = Watcher::of(host.connect().await).await;
    let mut socket = host.connect().await;
    let call = begin(&mut socket, "Hi").await;
    let mut exchange = provider.asked().await;
    exchange.say("Hel").await;
    watcher.until_text(1, "Hel").await;
    socket.send(json!({"type": "rpc:cancel", "id": call})).await;
    let reply = socket.result_of(&call).await;
    assert_eq!(reply.code(), "call.cancelled");
    exchange.closed().await;
    // The run could not say that it ended; the timer does.
    watcher.until(|state| state["status"] == "failed").await;
    assert_eq!(watcher.state["error"]["code"], "agent.interrupted");
    assert_eq!(watcher.state["messages"][1]["content"], "Hel");
}

#[tokio::test]
async fn an_answer_stops_when_who_asked_has_left() {
    let (mut provider, host) = started().await;
    let mut watcher = Watcher::of(host.connect().await).await;
    let mut socket = host.connect().await;
    begin(&mut socket, "Hi").await;
    let mut exchange = provider.asked().await;
    exchange.say("Hel").await;
    watcher.until_text(1, "Hel").await;
    socket.close().await;
    exchange.keep_alive_until_closed().await;
    watcher.until(|state| state["status"] == "stopped").await;
    assert_eq!(watcher.state["messages"][1]["content"], "Hel");
}

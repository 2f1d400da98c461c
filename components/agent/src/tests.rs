//! Runs without a host: lines of a response in place of a provider, answers in place of
//! tools.

use super::*;
use tidegate_sdk::test::{self, TestContext, json};

fn provider() -> Provider {
    Provider::test()
}

/// A conversation in which the model is about to speak, as message 1.
fn asked() -> (Tracked<Agent>, TestContext<Agent>) {
    let agent = Agent {
        messages: vec![
            Message::said(Role::User, "Hi"),
            Message::said(Role::Assistant, ""),
        ],
        status: Status::Running,
        ..Agent::default()
    };
    (Tracked::test(&agent), Context::test())
}

fn content(state: &Tracked<Agent>) -> String {
    state
        .get(pointer!["messages", 1, "content"])
        .unwrap()
        .unwrap()
}

fn chunk(text: &str) -> String {
    let chunk = json!({"choices": [{"delta": {"content": text}}]});
    format!("data: {chunk}")
}

fn hear(
    state: &mut Tracked<Agent>,
    ctx: &mut Context<Agent>,
    lines: Vec<Result<String>>,
) -> Result<Round> {
    let mut lines = lines.into_iter();
    let until = Instant::now() + RUN_MAX;
    listen(state, ctx, &provider(), 1, until, |_| lines.next())
}

fn of(lines: &[&str]) -> Vec<Result<String>> {
    lines.iter().map(|line| Ok((*line).to_owned())).collect()
}

#[test]
fn each_piece_of_text_goes_to_the_state_and_to_the_caller() {
    let (mut state, mut ctx) = asked();
    let lines = of(&[
        &chunk("Hel"),
        "",
        ": wait",
        "",
        &chunk("lo"),
        "",
        "data: [DONE]",
        "",
        "data: {}",
        "",
    ]);
    let complete = Complete {
        text: "Hello".to_owned(),
        calls: Vec::new(),
    };
    assert_eq!(
        hear(&mut state, &mut ctx, lines),
        Ok(Round::Complete(complete))
    );
    assert_eq!(content(&state), "Hello");
    assert_eq!(ctx.chunks(), ["Hel", "lo"]);
}

#[test]
fn what_was_said_stays_when_the_rest_is_no_good() {
    let silent = Failure::new("http.timeout").param("host", "a.test");
    let broken = Failure::new("http.failed").param("reason", "incomplete");
    for (end, code) in [
        (vec![], "agent.broke-off"),
        (vec![Err(broken)], "agent.broke-off"),
        (vec![Err(silent)], "agent.stalled"),
        (of(&["data: {", ""]), "agent.garbage"),
        (of(&["data: {\"error\": {}}", ""]), "agent.provider-failed"),
        (of(&[&chunk(&"x".repeat(300_000)), ""]), "agent.too-long"),
        (of(&[&chunk(&"x".repeat(2_000_000)), ""]), "agent.too-long"),
    ] {
        let (mut state, mut ctx) = asked();
        let mut lines = of(&[&chunk("Hel"), ""]);
        lines.extend(end);
        let failure = hear(&mut state, &mut ctx, lines).unwrap_err();
        assert_eq!(failure.code(), code);
        assert_eq!(content(&state), "Hel");
    }
}

#[test]
fn a_run_that_is_cancelled_stops_at_the_next_line() {
    let (mut state, ctx) = asked();
    let mut ctx = ctx.cancelled();
    let heard = hear(&mut state, &mut ctx, of(&[&chunk("Hel"), ""]));
    assert_eq!(heard, Ok(Round::Stopped(String::new())));
}

#[test]
fn a_run_that_takes_too_long_ends() {
    let (mut state, mut ctx) = asked();
    let mut lines = of(&[": wait"]).into_iter();
    let now = Instant::now();
    let heard = listen(&mut state, &mut ctx, &provider(), 1, now, |_| lines.next());
    assert_eq!(heard.unwrap_err().code(), "agent.timed-out");
}

#[test]
fn what_a_tool_says_is_for_the_model_also_when_it_fails() {
    let mut ctx = Context::<Agent>::test().on_call(|call| match call.id() {
        "clock" => Ok(json!("noon")),
        id => Err(Failure::new("tool.unknown").message(format!("no {id}"))),
    });
    let call = |name: &str, arguments: &str| ToolCall {
        id: "a".to_owned(),
        name: name.to_owned(),
        arguments: arguments.to_owned(),
    };
    assert_eq!(use_tool(&mut ctx, &call("clock", "")), "noon");
    assert_eq!(
        use_tool(&mut ctx, &call("oracle", "{\"a\": 1}")),
        "error: no oracle"
    );
    let broken = use_tool(&mut ctx, &call("clock", "{"));
    assert!(
        broken.starts_with("error: the arguments are no JSON"),
        "{broken}"
    );
    let calls = ctx.calls();
    let seen: Vec<_> = calls
        .iter()
        .map(|call| (call.actor(), call.id(), call.input()))
        .collect();
    assert_eq!(
        seen,
        [
            ("tool", "clock", Some(json!({"args": {}}))),
            ("tool", "oracle", Some(json!({"args": {"a": 1}}))),
        ]
    );
}

#[test]
fn without_a_provider_it_says_so_word_by_word() {
    let mut agent = test::Actor::<Agent>::new("a");
    let said = agent.invoke("start", json!({"prompt": " Hi "}));
    assert_eq!(said, Ok(json!(SCRIPT)));
    assert!(SCRIPT.starts_with("No provider is configured, so this is a scripted reply"));
    let state = agent.state();
    assert_eq!(
        state["messages"],
        json!([{"role": "user", "content": "Hi"}, {"role": "assistant", "content": SCRIPT}])
    );
    assert_eq!(
        (&state["status"], &state["error"]),
        (&json!("idle"), &json!(null))
    );
    assert_eq!(agent.timers(), [], "nothing is left to look after");

    let words = SCRIPT.split_inclusive(' ').count();
    assert_eq!(agent.chunks().len(), words);
    let updates = agent.updates();
    let mut seen: Vec<String> = updates
        .iter()
        .filter_map(|update| {
            let content = &update.state()["messages"][1]["content"];
            content.as_str().map(str::to_owned)
        })
        .collect();
    seen.dedup();
    assert_eq!(seen.len(), words, "each word is seen");
    assert!(seen.windows(2).all(|two| two[1].starts_with(&two[0])));
}

#[test]
fn a_caller_that_leaves_stops_it() {
    let mut agent = test::Actor::<Agent>::new("a");
    agent.set_cancelled(true);
    assert_eq!(
        agent.invoke("start", json!({"prompt": "Hi"})),
        Ok(json!(""))
    );
    let state = agent.state();
    assert_eq!(state["status"], "stopped");
    assert_eq!(
        state["messages"],
        json!([{"role": "user", "content": "Hi"}]),
        "nothing was said"
    );
}

#[test]
fn a_prompt_has_something_in_it_and_an_end() {
    let mut agent = test::Actor::<Agent>::new("a");
    for (prompt, code) in [
        (" \n".to_owned(), "agent.empty-prompt"),
        ("x".repeat(PROMPT_MAX + 1), "agent.prompt-too-long"),
    ] {
        let failure = agent
            .invoke("start", json!({"prompt": prompt}))
            .unwrap_err();
        assert_eq!(failure.code(), code);
    }
    assert_eq!(agent.state()["messages"], json!([]));
}

/// The state that a run leaves which was interrupted.
fn interrupted(said: &str) -> Value {
    json!({
        "messages": [{"role": "user", "content": "Hi"}, {"role": "assistant", "content": said}],
        "status": "running", "error": null, "timer": 7,
    })
}

#[test]
fn a_run_that_was_interrupted_is_looked_after() {
    for (said, kept) in [("Hel", 2), ("", 1)] {
        let mut agent = test::Actor::<Agent>::new("a");
        agent.activate().unwrap();
        agent.set_state(interrupted(said));
        agent.invoke("timeout", None).unwrap();
        let state = agent.state();
        assert_eq!(state["status"], "failed");
        assert_eq!(state["error"]["code"], "agent.interrupted");
        assert_eq!(state["messages"].as_array().unwrap().len(), kept);
    }
}

#[test]
fn a_host_that_comes_back_finds_no_run_under_way() {
    let mut agent = test::Actor::<Agent>::new("a");
    agent.set_state(interrupted("Hel"));
    agent.activate().unwrap();
    assert_eq!(agent.state()["status"], "failed");
}

#[test]
fn the_conversation_can_go_on_after_a_failure_and_begin_anew() {
    let mut agent = test::Actor::<Agent>::new("a");
    agent.activate().unwrap();
    agent.set_state(interrupted("Hel"));
    agent.invoke("start", json!({"prompt": "Again"})).unwrap();
    assert_eq!(agent.state()["messages"].as_array().unwrap().len(), 4);
    agent.invoke("clear", None).unwrap();
    assert_eq!(
        agent.state(),
        json!({"messages": [], "status": "idle", "error": null, "timer": null})
    );
}

#[test]
fn a_prompt_behind_a_run_that_was_interrupted_need_not_wait_for_its_timer() {
    let mut agent = test::Actor::<Agent>::new("a");
    agent.activate().unwrap();
    agent.set_state(interrupted(""));
    agent.invoke("start", json!({"prompt": "Again"})).unwrap();
    let state = agent.state();
    let messages = state["messages"].as_array().unwrap();
    let roles: Vec<_> = messages.iter().map(|message| &message["role"]).collect();
    assert_eq!(roles, ["user", "user", "assistant"]);
    agent.invoke("timeout", None).unwrap();
    assert_eq!(agent.state()["status"], "idle");
}

#[test]
fn a_long_conversation_forgets_its_beginning() {
    let mut agent = test::Actor::<Agent>::new("a");
    let message = json!({"role": "user", "content": "Hi"});
    let messages = vec![message; 2 * HISTORY + 1];
    agent.set_state(json!({"messages": messages, "status": "idle", "error": null, "timer": null}));
    agent.invoke("start", json!({"prompt": "Hi"})).unwrap();
    let state = agent.state();
    assert_eq!(state["messages"].as_array().unwrap().len(), HISTORY + 2);
}

//! What an actor does with time and with other actors, as the harness plays it: timers,
//! schedules, streams, chunks, calls.

use tidegate_core::Manifest;
use tidegate_sdk::prelude::*;
use tidegate_sdk::test::{Actor, Value, json};
use tidegate_sdk::{Firing, Origin};

#[derive(Default, Serialize, Deserialize, JsonSchema)]
struct Bench {
    log: Vec<String>,
    timer: Option<TimerId>,
    text: String,
}

#[derive(Event)]
enum BenchEvent {
    Step { n: u32 },
}

/// What only a `Deserialize` input can be: nobody sends it.
#[derive(Deserialize, JsonSchema)]
struct OneWay {
    #[expect(dead_code)]
    n: u32,
}

#[derive(Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
struct Step {
    step_size: u32,
}

type Answer<T> = std::result::Result<T, Failure>;

#[actor(events = BenchEvent)]
impl Bench {
    #[before]
    fn signed_in(&self, ctx: &Context<Self>) -> Result<String> {
        Ok(ctx.id().to_owned())
    }

    pub fn one_way(&self, input: OneWay) -> OneWayOut {
        let _ = input;
        OneWayOut {}
    }

    pub fn aliased(&mut self) -> Answer<()> {
        self.log.push("aliased".into());
        Ok(())
    }

    pub fn note(&mut self, ctx: &Context<Self>, the_text: String, times: Option<u32>) {
        let late = ctx.lateness().map(|late| late.as_millis());
        let line = format!("{the_text} {times:?} at {} late {late:?}", ctx.now());
        self.log.push(line);
    }

    pub fn step(&mut self, input: Step) {
        self.log.push(format!("step {}", input.step_size));
    }

    pub fn arm(&mut self, ctx: &mut Context<Self>) {
        ctx.after(millis(10)).note("once".into(), Some(2));
        self.timer = Some(ctx.every(millis(4)).step(Step { step_size: 3 }));
        ctx.after(secs(1)).aliased();
    }

    pub fn disarm(&mut self, ctx: &mut Context<Self>) -> bool {
        self.timer.take().is_some_and(|timer| ctx.cancel(timer))
    }

    pub fn arm_and_fail(&mut self, ctx: &mut Context<Self>) -> Result<()> {
        ctx.after(millis(1)).step(Step { step_size: 1 });
        self.timer.map(|timer| ctx.cancel(timer));
        ctx.send::<Self>("other").step(Step { step_size: 1 });
        Err(Failure::new("bench.no"))
    }

    pub fn arm_badly(&mut self, ctx: &mut Context<Self>) {
        ctx.every(millis(0)).aliased();
        self.log.push("not reached by the state".into());
    }

    pub fn dawdle(&mut self, ctx: &mut Context<Self>) -> Result<()> {
        ctx.sleep(millis(10))?;
        self.log.push(format!("dawdled from {}", ctx.now()));
        Ok(())
    }

    #[cron(every = "1s")]
    #[deadline("5m")]
    pub fn tidy(&mut self, ctx: &Context<Self>, _how: Option<String>) {
        assert!(matches!(ctx.origin(), Origin::Cron(_)));
        self.log.push(format!("tidy at {}", ctx.now()));
    }

    #[cron(schedule = "0 3 * * *")]
    pub fn report(&self) -> String {
        "done".into()
    }

    #[stream]
    pub fn count(
        state: &mut Live<Self>,
        #[before] id: &String,
        to: u32,
        pause: u64,
    ) -> Result<usize> {
        for n in 1..=to {
            state.log.push(format!("{id} {n}"));
            state.ctx().emit(BenchEvent::Step { n });
            if n == 7 {
                return Err(Failure::new("bench.seven"));
            }
            state.ctx().sleep(millis(pause))?;
        }
        Ok(state.log.len())
    }

    #[stream(interval = "16ms")]
    pub fn write(
        state: &mut Tracked<Self>,
        ctx: &mut Context<Self>,
        words: Vec<String>,
    ) -> Result<()> {
        for word in words {
            state.append(["text"], &word)?;
            ctx.chunk(&word)?;
            ctx.sleep(millis(10))?;
        }
        Ok(())
    }

    #[stream]
    pub fn compute(state: &mut Live<Self>, rounds: u32) -> Result<()> {
        for n in 0..rounds {
            state.log = vec![n.to_string()];
            // What a test may do that stands for computing: time passes, unseen by the state.
            let _ = n;
        }
        state.ctx().flush()
    }

    #[stream]
    pub fn until_cancelled(state: &mut Live<Self>, at_most: u32) -> Result<u32> {
        let mut n = 0;
        while n < at_most && !state.ctx().cancelled() {
            n += 1;
            state.ctx().sleep(millis(1))?;
        }
        Ok(n)
    }

    pub fn ask(&self, ctx: &mut Context<Self>, ids: Vec<String>) -> Vec<Result<u32, String>> {
        let calls = ids
            .iter()
            .map(|id| Invocation::by_name("bench", id, "count", &json!({"to": 1})));
        let answers = ctx.call_all(calls.map(|call| call.within(secs(2)).key("k")));
        let code = |failure: Failure| failure.code().to_owned();
        answers
            .into_iter()
            .map(|answer| answer.map_err(code))
            .collect()
    }

    pub fn relay(&mut self, ctx: &mut Context<Self>, fail: bool) -> Result<usize> {
        self.log.push("relayed".into());
        let lines = ctx.call::<Self>("next").count(3, 5)?;
        ctx.send::<Self>("last").note("bye".into(), None);
        if fail {
            return Err(Failure::new("bench.no"));
        }
        Ok(lines)
    }
}

#[derive(Serialize, JsonSchema)]
struct OneWayOut {}

fn bench() -> Actor<Bench> {
    Actor::new("b")
}

fn log(bench: &Actor<Bench>) -> Vec<String> {
    serde_json::from_value(bench.state()["log"].clone()).unwrap()
}

#[test]
fn the_manifest_says_what_streams_and_what_runs_by_the_clock() {
    let manifest = bench().manifest();
    assert_eq!(
        manifest["cron"],
        json!({"tidy": {"everyMs": 1_000}, "report": {"schedule": "0 3 * * *"}})
    );
    assert_eq!(
        manifest["methods"]["count"]["streaming"],
        json!({"intervalMs": 50})
    );
    assert_eq!(
        manifest["methods"]["write"]["streaming"],
        json!({"intervalMs": 16})
    );
    assert_eq!(manifest["methods"]["tidy"]["deadlineMs"], 300_000);
    assert!(manifest["methods"]["note"].get("streaming").is_none());
    let whole = json!({"tidegate": "0.1", "actors": {"bench": manifest}});
    Manifest::parse(&whole.to_string()).unwrap();
}

#[test]
fn timers_fire_when_time_passes_with_the_input_that_they_were_given() {
    let mut bench = bench();
    bench.set_now(100);
    bench.invoke("arm", None).unwrap();
    let inputs: Vec<Option<Value>> = bench.timers().iter().map(|timer| timer.input()).collect();
    assert_eq!(
        inputs,
        [
            Some(json!({"theText": "once", "times": 2})),
            Some(json!({"stepSize": 3})),
            None
        ]
    );
    let fired = bench.advance(12);
    let methods: Vec<(&str, u64)> = fired.iter().map(|f| (f.method.as_str(), f.due)).collect();
    assert_eq!(
        methods,
        [("step", 104), ("step", 108), ("note", 110), ("step", 112)]
    );
    assert_eq!(log(&bench)[2], "once Some(2) at 110 late Some(0)");
}

#[test]
fn a_cancelled_timer_fires_no_more() {
    let mut bench = bench();
    bench.invoke("arm", None).unwrap();
    bench.advance(4);
    assert_eq!(bench.invoke("disarm", None), Ok(json!(true)));
    assert_eq!(bench.invoke("disarm", None), Ok(json!(false)));
    let fired = bench.advance(900);
    assert_eq!(fired.len(), 1);
}

#[test]
fn a_turn_that_fails_sets_cancels_and_sends_nothing() {
    let mut bench = bench();
    bench.invoke("arm", None).unwrap();
    let timers = bench.timers();
    bench.invoke("armAndFail", None).unwrap_err();
    assert_eq!(bench.timers(), timers);
    assert!(bench.sent().is_empty());
}

#[test]
fn a_timer_that_cannot_be_set_fails_the_turn() {
    let mut bench = bench();
    let failure = bench.invoke("armBadly", None).unwrap_err();
    assert_eq!(failure.code(), "timer.invalid-delay");
    assert!(log(&bench).is_empty());
}

#[test]
fn intervals_that_a_slow_turn_misses_are_not_made_up_for() {
    let mut bench = bench();
    bench.invoke("arm", None).unwrap();
    bench.invoke("dawdle", None).unwrap();
    let fired = bench.advance(10);
    let due: Vec<u64> = fired
        .iter()
        .filter(|fired| fired.method == "step")
        .map(|fired| fired.due)
        .collect();
    assert_eq!(due, [4, 12, 16, 20]);
}

#[test]
fn timers_and_schedules_end_when_the_actor_leaves_memory() {
    let mut bench = bench();
    bench.invoke("arm", None).unwrap();
    bench.deactivate().unwrap();
    assert!(bench.advance(10_000).is_empty());
    bench.activate().unwrap();
    let fired = bench.advance(2_500);
    let due: Vec<u64> = fired.iter().map(|fired| fired.due).collect();
    assert_eq!(due, [11_000, 12_000]);
}

#[test]
fn a_schedule_with_an_expression_runs_on_demand() {
    assert_eq!(bench().cron("report"), Ok(json!("done")));
}

#[test]
fn a_streaming_method_is_seen_at_intervals_and_at_its_end() {
    let mut bench = bench();
    assert_eq!(
        bench.invoke("count", json!({"to": 6, "pause": 20})),
        Ok(json!(6))
    );
    let seen: Vec<(u64, usize)> = bench
        .updates()
        .iter()
        .map(|update| {
            (
                update.at(),
                update.state()["log"].as_array().map_or(0, Vec::len),
            )
        })
        .collect();
    assert_eq!(seen, [(50, 3), (100, 5), (120, 6)]);
    assert_eq!(bench.now(), 120);
}

#[test]
fn a_stream_that_fails_keeps_what_was_seen() {
    let mut bench = bench();
    let failure = bench
        .invoke("count", json!({"to": 9, "pause": 20}))
        .unwrap_err();
    assert_eq!(failure.code(), "bench.seven");
    assert_eq!(log(&bench).len(), 5, "the sixth and the seventh are gone");
    assert_eq!(bench.emitted().len(), 5);
    bench.invoke("aliased", None).unwrap();
    assert_eq!(log(&bench).len(), 6);
}

#[test]
fn tracked_streams_append() {
    let mut bench = bench();
    let words = json!({"words": ["a", "b", "c"]});
    bench.invoke("write", words).unwrap();
    let updates = bench.updates();
    let seen: Vec<(u64, &Value)> = updates
        .iter()
        .map(|update| (update.at(), &update.state()["text"]))
        .collect();
    assert_eq!(seen, [(16, &json!("ab")), (30, &json!("abc"))]);
    assert_eq!(bench.chunks(), ["a", "b", "c"]);
}

#[test]
fn a_flush_is_seen_at_once() {
    let mut bench = bench();
    bench.invoke("compute", json!({"rounds": 3})).unwrap();
    let updates = bench.updates();
    assert_eq!(updates.len(), 1);
    assert_eq!(
        (updates[0].at(), &updates[0].state()["log"]),
        (0, &json!(["2"]))
    );
}

#[test]
fn a_method_sees_that_its_caller_cancelled() {
    let mut bench = bench();
    let input = json!({"atMost": 5});
    assert_eq!(bench.invoke("untilCancelled", input.clone()), Ok(json!(5)));
    bench.set_cancelled(true);
    assert_eq!(bench.invoke("untilCancelled", input), Ok(json!(0)));
}

#[test]
fn calls_are_answered_in_their_order_and_carry_their_options() {
    let mut bench = bench();
    bench.on_call(|call| match call.id() {
        "no" => Err(Failure::new("call.deadlock")),
        "odd" => Ok(json!("?")),
        id => Ok(json!(id.len())),
    });
    assert_eq!(
        bench.invoke("ask", json!({"ids": ["a", "no", "odd", "abc"]})),
        Ok(json!([
            {"Ok": 1},
            {"Err": "call.deadlock"},
            {"Err": "call.mismatch"},
            {"Ok": 3}
        ]))
    );
    let call = &bench.calls()[3];
    assert_eq!((call.timeout(), call.key()), (Some(2_000), Some("k")));
}

#[test]
fn a_call_is_live_and_a_send_is_staged() {
    let mut bench = bench();
    bench.on_call(|_| Ok(json!(3)));
    assert_eq!(bench.invoke("relay", json!({"fail": false})), Ok(json!(3)));
    assert_eq!(bench.calls()[0].input(), Some(json!({"to": 3, "pause": 5})));
    assert_eq!(
        bench.sent()[0].input(),
        Some(json!({"theText": "bye", "times": null}))
    );
    bench.invoke("relay", json!({"fail": true})).unwrap_err();
    assert_eq!((bench.calls().len(), bench.sent().len()), (1, 0));
}

#[test]
fn a_call_that_nobody_answers_fails() {
    let failure = bench().invoke("relay", json!({"fail": false})).unwrap_err();
    assert_eq!(failure.code(), "actor.unknown");
}

#[test]
fn lateness_is_the_time_since_a_firing_was_due() {
    let ctx = Context::<Bench>::test()
        .now(70)
        .origin(Origin::Timer(Firing::new(4, 50)));
    assert_eq!(ctx.lateness(), Some(millis(20)));
}

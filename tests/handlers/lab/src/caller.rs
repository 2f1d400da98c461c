//! An actor that calls others: whom it is told to, in every way there is.

use serde_json::Value;
use tidegate_sdk::Origin;
use tidegate_sdk::prelude::*;

/// How often it was called, and by whom last.
#[derive(Default, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct Caller {
    calls: u32,
    /// `client`, `actor/id` of the calling actor, `timer`, `cron` or `host`.
    last_origin: String,
    last_key: Option<String>,
}

/// A call to make.
#[derive(Clone, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct Order {
    actor: String,
    id: String,
    method: String,
    input: Option<Value>,
    timeout_ms: Option<u64>,
    key: Option<String>,
}

impl Order {
    fn invocation(self) -> Invocation<Value> {
        let mut call = Invocation::by_name(self.actor, self.id, self.method, &self.input);
        if let Some(ms) = self.timeout_ms {
            call = call.within(millis(ms));
        }
        if let Some(key) = self.key {
            call = call.key(key);
        }
        call
    }
}

/// What became of one of several calls.
#[derive(Serialize, JsonSchema)]
#[serde(untagged)]
pub enum Answer {
    /// It succeeded.
    Result {
        /// What was returned.
        result: Value,
    },
    /// It failed.
    Failure {
        /// Which failure it was.
        code: String,
    },
}

#[actor]
impl Caller {
    /// Calls, and returns what was returned.
    pub fn call(&mut self, ctx: &mut Context<Self>, input: Order) -> Result<Value> {
        self.calls += 1;
        input.invocation().call(ctx)
    }

    /// Calls, and then fails with `caller.no`, whatever was returned.
    pub fn call_and_fail(&mut self, ctx: &mut Context<Self>, input: Order) -> Result<()> {
        self.calls += 1;
        input.invocation().call(ctx)?;
        Err(Failure::new("caller.no"))
    }

    /// Calls one after the other, so many times; gives the last result.
    pub fn call_often(
        &mut self,
        ctx: &mut Context<Self>,
        order: Order,
        times: u32,
    ) -> Result<Value> {
        let mut last = Value::Null;
        for _ in 0..times {
            last = order.clone().invocation().call(ctx)?;
        }
        Ok(last)
    }

    /// Calls all at once.
    pub fn call_all(&self, ctx: &mut Context<Self>, orders: Vec<Order>) -> Vec<Answer> {
        let answers = ctx.call_all(orders.into_iter().map(Order::invocation));
        let answer = |answer: Result<Value>| match answer {
            Ok(result) => Answer::Result { result },
            Err(failure) => Answer::Failure {
                code: failure.code().to_owned(),
            },
        };
        answers.into_iter().map(answer).collect()
    }

    /// Calls without waiting.
    pub fn send(&mut self, ctx: &mut Context<Self>, input: Order) {
        self.calls += 1;
        input.invocation().send(ctx);
    }

    /// Calls without waiting, and fails with `caller.no`.
    pub fn send_and_fail(&mut self, ctx: &mut Context<Self>, input: Order) -> Result<()> {
        input.invocation().send(ctx);
        Err(Failure::new("caller.no"))
    }

    /// Has the first of these callers relay to the others; gives how many have relayed. With
    /// its own id it calls itself.
    pub fn relay(&mut self, ctx: &mut Context<Self>, ids: Vec<String>) -> Result<u32> {
        self.heard(ctx)?;
        match ids.split_first() {
            Some((next, rest)) => Ok(ctx.call::<Self>(next).relay(rest.to_vec())? + 1),
            None => Ok(0),
        }
    }

    /// Notes who called; gives how often somebody has.
    pub fn heard(&mut self, ctx: &Context<Self>) -> Result<u32> {
        self.calls += 1;
        self.last_key = ctx.turn().key.clone();
        self.last_origin = match ctx.origin() {
            Origin::Client(_) => "client".to_owned(),
            Origin::Actor { actor, id } => format!("{actor}/{id}"),
            Origin::Timer(_) => "timer".to_owned(),
            Origin::Cron(_) => "cron".to_owned(),
            _ => "host".to_owned(),
        };
        Ok(self.calls)
    }

    /// Waits, then does as `heard`.
    pub fn slow(&mut self, ctx: &mut Context<Self>, ms: u64) -> Result<u32> {
        ctx.sleep(millis(ms))?;
        self.heard(ctx)
    }

    /// Fails with `caller.refused`, and a parameter.
    pub fn refuse(&mut self) -> Result<()> {
        self.calls += 1;
        Err(Failure::new("caller.refused")
            .param("why", "told to")
            .status(418))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use tidegate_sdk::test::{Actor, json};

    #[test]
    fn a_relay_calls_the_next_one_with_the_rest() {
        let mut caller = Actor::<Caller>::new("a");
        caller.on_call(|_| Ok(json!(1)));
        let ids = json!({"ids": ["b", "c"]});
        assert_eq!(caller.invoke("relay", ids), Ok(json!(2)));
        let call = &caller.calls()[0];
        assert_eq!((call.actor(), call.id()), ("caller", "b"));
        assert_eq!(call.input(), Some(json!({"ids": ["c"]})));
    }

    #[test]
    fn several_are_called_at_once() {
        let mut caller = Actor::<Caller>::new("a");
        caller.on_call(|call| match call.method() {
            "zero" => Ok(json!(0)),
            _ => Err(Failure::new("method.unknown")),
        });
        let to = |method: &str| json!({"actor": "lab", "id": "1", "method": method});
        let orders = json!({"orders": [to("zero"), to("one")]});
        assert_eq!(
            caller.invoke("callAll", orders),
            Ok(json!([{"result": 0}, {"code": "method.unknown"}]))
        );
    }
}

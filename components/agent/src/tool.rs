//! The tools that the model may call. Each is an actor of the type `tool` whose id is its
//! name: `tool/clock`, `tool/calculator`. The agent calls them as any actor calls another.

use serde_json::{Value, json};
use tidegate_sdk::prelude::*;

use crate::arithmetic;

/// A tool, by its id.
#[derive(Default, Serialize, Deserialize, JsonSchema)]
pub struct Tool {
    /// How often it was of use.
    uses: u64,
}

/// Why a tool is of no use.
#[derive(Debug, PartialEq, Failure)]
#[failure(prefix = "tool")]
pub enum ToolError {
    /// There is no tool of this name.
    #[failure(status = 404, message = "there is no tool {name}; there are {known}")]
    Unknown {
        /// Which one was wanted.
        name: String,
        /// Which ones there are.
        known: String,
    },
    /// It cannot do anything with what it was given.
    #[failure(message = "{problem}")]
    InvalidArguments {
        /// What is wrong.
        problem: String,
    },
}

/// What a provider is told of the tools.
pub(crate) fn descriptions() -> Value {
    let describe = |name: &str, description: &str, properties: Value, required: &[&str]| {
        let parameters = json!({
            "type": "object", "properties": properties, "required": required,
        });
        let function = json!({
            "name": name, "description": description, "parameters": parameters,
        });
        json!({"type": "function", "function": function})
    };
    json!([
        describe("clock", "The date and the time, in UTC.", json!({}), &[]),
        describe(
            "calculator",
            "The value of an arithmetic expression with + - * / ^ and parentheses.",
            json!({"expression": {"type": "string"}}),
            &["expression"],
        ),
    ])
}

#[actor]
impl Tool {
    /// Does what the tool does; gives what the model is to read.
    pub fn execute(&mut self, ctx: &Context<Self>, args: Value) -> Result<String, ToolError> {
        let result = match ctx.id() {
            "clock" => date_and_time(ctx.now()),
            "calculator" => calculate(&args)?,
            name => {
                return Err(ToolError::Unknown {
                    name: name.to_owned(),
                    known: "clock and calculator".to_owned(),
                });
            }
        };
        self.uses += 1;
        Ok(result)
    }
}

fn calculate(args: &Value) -> Result<String, ToolError> {
    let expression = args["expression"].as_str();
    let expression = expression.ok_or("`expression` is not a text".to_owned());
    let value = expression.and_then(arithmetic::value_of);
    let value = value.map_err(|problem| ToolError::InvalidArguments { problem })?;
    Ok(value.to_string())
}

/// `2026-01-31 12:30:00 UTC` of milliseconds since the Unix epoch.
fn date_and_time(ms: u64) -> String {
    let (days, seconds) = (ms / 86_400_000, ms / 1_000 % 86_400);
    // Howard Hinnant's `civil_from_days`: years begin in March, so that leap days end them.
    let day = days + 719_468;
    let (era, day_of_era) = (day / 146_097, day % 146_097);
    let year_of_era =
        (day_of_era - day_of_era / 1_460 + day_of_era / 36_524 - day_of_era / 146_096) / 365;
    let day_of_year = day_of_era - (365 * year_of_era + year_of_era / 4 - year_of_era / 100);
    let shifted = (5 * day_of_year + 2) / 153;
    let day = day_of_year - (153 * shifted + 2) / 5 + 1;
    let month = if shifted < 10 {
        shifted + 3
    } else {
        shifted - 9
    };
    let year = year_of_era + era * 400 + u64::from(month <= 2);
    let (hour, minute, second) = (seconds / 3_600, seconds / 60 % 60, seconds % 60);
    format!("{year:04}-{month:02}-{day:02} {hour:02}:{minute:02}:{second:02} UTC")
}

#[cfg(test)]
mod tests {
    use super::*;
    use tidegate_sdk::test::Actor;

    #[test]
    fn the_clock_tells_the_time() {
        for (ms, shown) in [
            (0, "1970-01-01 00:00:00 UTC"),
            (951_782_400_000, "2000-02-29 00:00:00 UTC"),
            (1_769_862_599_999, "2026-01-31 12:29:59 UTC"),
            (4_107_542_400_000, "2100-03-01 00:00:00 UTC"),
        ] {
            let mut clock = Actor::<Tool>::new("clock");
            clock.set_now(ms);
            assert_eq!(
                clock.invoke("execute", json!({"args": {}})),
                Ok(json!(shown))
            );
        }
    }

    #[test]
    fn the_calculator_calculates_and_counts_what_was_of_use() {
        let mut calculator = Actor::<Tool>::new("calculator");
        let mut calculate = |args: Value| calculator.invoke("execute", json!({"args": args}));
        assert_eq!(calculate(json!({"expression": "6 * 7"})), Ok(json!("42")));
        assert_eq!(
            calculate(json!({"expression": "1 / 8"})),
            Ok(json!("0.125"))
        );
        for args in [
            json!({"expression": "six"}),
            json!({}),
            json!(null),
            json!([1]),
        ] {
            let failure = calculate(args).unwrap_err();
            assert_eq!(failure.code(), "tool.invalid-arguments");
        }
        assert_eq!(calculator.state()["uses"], 2);
    }

    #[test]
    fn another_name_is_no_tool() {
        let mut other = Actor::<Tool>::new("oracle");
        let failure = other.invoke("execute", json!({"args": {}})).unwrap_err();
        assert_eq!(failure.code(), "tool.unknown");
        assert!(failure.text().contains("oracle"));
    }

    #[test]
    fn the_tools_that_are_described_are_there() {
        for tool in descriptions().as_array().unwrap() {
            let name = tool["function"]["name"].as_str().unwrap();
            let mut tool = Actor::<Tool>::new(name);
            let args = json!({"args": {"expression": "1"}});
            assert!(tool.invoke("execute", args).is_ok(), "{name}");
        }
    }
}

//! Sums for the calculator: `2 * (3 + 4) ^ 2`, with the usual precedence.

/// How deep an expression may nest: each level is a level of the stack.
const DEPTH: usize = 50;

/// The value of an expression, or what is wrong with it.
pub(crate) fn value_of(expression: &str) -> Result<f64, String> {
    let mut reader = Reader {
        rest: expression.trim_start(),
        depth: 0,
    };
    let value = reader.sum()?;
    if !reader.rest.is_empty() {
        return Err(format!("expected the end, found `{}`", reader.shown()));
    }
    match value.is_finite() {
        true => Ok(value),
        false => Err("the result is no number".to_owned()),
    }
}

struct Reader<'a> {
    /// Begins with no space.
    rest: &'a str,
    depth: usize,
}

impl Reader<'_> {
    fn shown(&self) -> String {
        self.rest.chars().take(20).collect()
    }

    fn take(&mut self, sign: char) -> bool {
        let Some(rest) = self.rest.strip_prefix(sign) else {
            return false;
        };
        self.rest = rest.trim_start();
        true
    }

    fn sum(&mut self) -> Result<f64, String> {
        let mut value = self.product()?;
        loop {
            if self.take('+') {
                value += self.product()?;
            } else if self.take('-') {
                value -= self.product()?;
            } else {
                return Ok(value);
            }
        }
    }

    fn product(&mut self) -> Result<f64, String> {
        let mut value = self.signed()?;
        loop {
            if self.take('*') {
                value *= self.signed()?;
            } else if self.take('/') {
                value /= self.signed()?;
            } else {
                return Ok(value);
            }
        }
    }

    fn signed(&mut self) -> Result<f64, String> {
        self.depth += 1;
        if self.depth > DEPTH {
            return Err(format!("it nests deeper than {DEPTH} levels"));
        }
        let value = match self.take('-') {
            true => -self.signed()?,
            false => self.power()?,
        };
        self.depth -= 1;
        Ok(value)
    }

    fn power(&mut self) -> Result<f64, String> {
        let base = self.operand()?;
        match self.take('^') {
            true => Ok(base.powf(self.signed()?)),
            false => Ok(base),
        }
    }

    fn operand(&mut self) -> Result<f64, String> {
        if self.take('(') {
            let value = self.sum()?;
            return match self.take(')') {
                true => Ok(value),
                false => Err(format!("expected `)`, found `{}`", self.shown())),
            };
        }
        let is_digit = |letter: char| letter.is_ascii_digit() || letter == '.';
        let end = self.rest.find(|letter| !is_digit(letter));
        let (digits, rest) = self.rest.split_at(end.unwrap_or(self.rest.len()));
        let number = digits.parse();
        let number = number.map_err(|_| format!("expected a number, found `{}`", self.shown()))?;
        self.rest = rest.trim_start();
        Ok(number)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn operators_have_their_usual_precedence() {
        for (expression, value) in [
            ("7", 7.0),
            (" 1 + 2 * 3 ", 7.0),
            ("(1 + 2) * 3", 9.0),
            ("10 - 4 - 3", 3.0),
            ("8 / 4 / 2", 1.0),
            ("2 ^ 3 ^ 2", 512.0),
            ("-2 ^ 2", -4.0),
            ("2 ^ -1", 0.5),
            ("--1.5", 1.5),
            ("2 * -3", -6.0),
        ] {
            assert_eq!(value_of(expression), Ok(value), "{expression}");
        }
    }

    #[test]
    fn what_is_no_sum_is_refused() {
        for expression in [
            "", "1 +", "(1", "1)", "a", "1 2", "1..2", "1 / 0", "0 / 0", "9^9^9^9",
        ] {
            assert!(value_of(expression).is_err(), "{expression}");
        }
    }

    #[test]
    fn nesting_has_a_bound() {
        for sign in ["(", "-", "1^"] {
            assert!(value_of(&sign.repeat(100_000)).is_err(), "{sign}");
        }
        let nested = format!("{}1{}", "(".repeat(DEPTH - 1), ")".repeat(DEPTH - 1));
        assert_eq!(value_of(&nested), Ok(1.0));
    }
}

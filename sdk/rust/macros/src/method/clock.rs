//! What of a method has to do with time: `#[cron(…)]`, `#[stream]` and `#[deadline(…)]`.

use proc_macro2::{Span, TokenStream};
use quote::quote;
use syn::spanned::Spanned;
use syn::{Attribute, Error, LitStr, Meta, Result, Type};

use super::{Access, Member, Parameter, is_named};

const STREAM_MS: u64 = 50;
const SECOND: u64 = 1_000;
const DAY: u64 = 86_400 * SECOND;

/// When a method runs by the clock.
pub(super) enum Cron {
    Every(u64),
    Schedule(String),
}

/// What the attributes say, and where.
#[derive(Default)]
pub(super) struct Clock {
    cron: Option<(Cron, Span)>,
    stream_ms: Option<(u64, Span)>,
    deadline_ms: Option<(u64, Span)>,
}

impl Clock {
    /// Reads an attribute, if it is one of these.
    pub(super) fn take(&mut self, attribute: &Attribute) -> Option<Result<()>> {
        let path = attribute.path();
        let taken = if path.is_ident("cron") {
            read_cron(attribute).map(|cron| self.cron.replace((cron, path.span())).is_some())
        } else if path.is_ident("stream") {
            read_stream(attribute).map(|ms| self.stream_ms.replace((ms, path.span())).is_some())
        } else if path.is_ident("deadline") {
            read_deadline(attribute).map(|ms| self.deadline_ms.replace((ms, path.span())).is_some())
        } else {
            return None;
        };
        Some(taken.and_then(|second| match second {
            true => Err(Error::new(path.span(), "once is enough")),
            false => Ok(()),
        }))
    }

    pub(super) fn span(&self) -> Option<Span> {
        let cron = self.cron.as_ref().map(|(_, span)| *span);
        let others = [self.stream_ms, self.deadline_ms];
        cron.or(others.into_iter().flatten().map(|(_, span)| span).next())
    }

    /// Whether they fit the method.
    pub(super) fn check(
        &self,
        access: Access,
        parameters: &[Parameter],
        signature: &syn::Signature,
    ) -> Result<()> {
        if self.cron.is_some()
            && let Some(at) = parameters.iter().position(is_required)
        {
            return Err(Error::new_spanned(
                &signature.inputs[at + 1],
                "the clock sends no input: a method with #[cron] takes none, or `Option`s only",
            ));
        }
        let is_live = matches!(access, Access::Live);
        match self.stream_ms {
            Some((_, span)) if matches!(access, Access::Read | Access::Write) => Err(Error::new(
                span,
                "subscribers see the state of a streaming method while it runs: take \
                 `state: &mut Live<Self>` (or `state: &mut Tracked<Self>`) in the place of `self`",
            )),
            Some((_, span)) if matches!(access, Access::Tracked { mutable: false }) => {
                Err(Error::new(
                    span,
                    "a method that changes nothing has nothing to stream: take `state: &mut \
                     Tracked<Self>`",
                ))
            }
            None if is_live => Err(Error::new_spanned(
                &signature.inputs[0],
                "only a streaming method takes `Live<Self>`: mark it with #[stream]",
            )),
            _ => Ok(()),
        }
    }

    /// The fields of the method's entry.
    pub(super) fn fields(&self) -> TokenStream {
        let some = |ms: Option<(u64, Span)>| match ms {
            Some((ms, _)) => quote!(::core::option::Option::Some(#ms)),
            None => quote!(::core::option::Option::None),
        };
        let (stream_ms, deadline_ms) = (some(self.stream_ms), some(self.deadline_ms));
        let cron = match &self.cron {
            Some((Cron::Every(ms), _)) => quote! {
                ::core::option::Option::Some(::tidegate_sdk::__private::Cron::Every(#ms))
            },
            Some((Cron::Schedule(text), _)) => quote! {
                ::core::option::Option::Some(::tidegate_sdk::__private::Cron::Schedule(#text))
            },
            None => quote!(::core::option::Option::None),
        };
        quote! {
            stream_ms: #stream_ms,
            deadline_ms: #deadline_ms,
            cron: #cron,
        }
    }
}

/// Whether the method cannot do without this part of the input.
fn is_required(parameter: &Parameter) -> bool {
    let optional = |ty: &Type| is_named(ty, "Option");
    match parameter {
        Parameter::Whole { ty } => !optional(ty),
        Parameter::Member(Member { ty, attributes, .. }) => {
            let has_default = attributes.iter().any(|attribute| {
                let mut found = false;
                if attribute.path().is_ident("serde") {
                    // Whatever else stands there is serde's to judge.
                    let _ = attribute.parse_nested_meta(|meta| {
                        found |= meta.path.is_ident("default");
                        if meta.input.peek(syn::Token![=]) {
                            meta.value()?.parse::<syn::Expr>()?;
                        }
                        Ok(())
                    });
                }
                found
            });
            !optional(ty) && !has_default
        }
        _ => false,
    }
}

fn read_cron(attribute: &Attribute) -> Result<Cron> {
    const EXPECTED: &str = "expected `every = \"30s\"` or `schedule = \"0 3 * * *\"`";
    let mut cron = None;
    let mut twice = None;
    if !matches!(attribute.meta, Meta::List(_)) {
        return Err(Error::new_spanned(
            attribute,
            "say when: #[cron(every = \"30s\")] or #[cron(schedule = \"0 3 * * *\")]",
        ));
    }
    attribute.parse_nested_meta(|meta| {
        let read = if meta.path.is_ident("every") {
            Cron::Every(duration(&meta.value()?.parse()?, 100, 31 * DAY)?)
        } else if meta.path.is_ident("schedule") {
            Cron::Schedule(schedule(&meta.value()?.parse()?)?)
        } else {
            return Err(meta.error(EXPECTED));
        };
        if cron.replace(read).is_some() {
            twice = Some(meta.path.span());
        }
        Ok(())
    })?;
    match (cron, twice) {
        (_, Some(span)) => Err(Error::new(span, "one schedule is enough")),
        (Some(cron), None) => Ok(cron),
        (None, None) => Err(Error::new_spanned(attribute, EXPECTED)),
    }
}

fn read_stream(attribute: &Attribute) -> Result<u64> {
    let mut ms = STREAM_MS;
    if !matches!(attribute.meta, Meta::Path(_)) {
        attribute.parse_nested_meta(|meta| {
            if meta.path.is_ident("interval") {
                ms = duration(&meta.value()?.parse()?, 1, 60 * SECOND)?;
                Ok(())
            } else {
                Err(meta.error("expected `interval = \"16ms\"`"))
            }
        })?;
    }
    Ok(ms)
}

fn read_deadline(attribute: &Attribute) -> Result<u64> {
    let text: LitStr = attribute
        .parse_args()
        .map_err(|error| Error::new(error.span(), "say how long: #[deadline(\"5m\")]"))?;
    duration(&text, 1, DAY)
}

/// A duration in milliseconds: a whole number and a unit.
fn duration(literal: &LitStr, low: u64, high: u64) -> Result<u64> {
    let text = literal.value();
    let digits = text.len() - text.trim_start_matches(|c: char| c.is_ascii_digit()).len();
    let (number, unit) = text.split_at(digits);
    let unit = match unit.trim_start() {
        "ms" => Some(1),
        "s" => Some(SECOND),
        "m" => Some(60 * SECOND),
        "h" => Some(3_600 * SECOND),
        "d" => Some(DAY),
        _ => None,
    };
    let number = number.parse::<u64>().ok();
    let Some(ms) = number.zip(unit).and_then(|(n, unit)| n.checked_mul(unit)) else {
        return Err(Error::new(
            literal.span(),
            format!(
                "`{text}` is no duration: write a whole number and one of the units ms, s, m, h \
                 and d, such as \"30s\""
            ),
        ));
    };
    if (low..=high).contains(&ms) {
        return Ok(ms);
    }
    Err(Error::new(
        literal.span(),
        format!("a duration of {low} to {high} ms is expected here, `{text}` is {ms} ms"),
    ))
}

/// A cron expression, as far as can be told at once. The host reads it in full.
fn schedule(literal: &LitStr) -> Result<String> {
    let text = literal.value();
    let fields = text.split_ascii_whitespace().count();
    let known =
        |c: char| c.is_ascii_alphanumeric() || c.is_ascii_whitespace() || "*/,-#".contains(c);
    if (5..=6).contains(&fields) && text.chars().all(known) && text.len() <= 128 {
        return Ok(text);
    }
    Err(Error::new(
        literal.span(),
        format!(
            "`{text}` is no cron expression: it has five fields, the minute, the hour, the day \
             of the month, the month and the day of the week, or six with the second first"
        ),
    ))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn literal(text: &str) -> LitStr {
        LitStr::new(text, Span::call_site())
    }

    #[test]
    fn durations_have_a_number_and_a_unit() {
        let ms = |text| duration(&literal(text), 1, 31 * DAY).ok();
        assert_eq!(ms("16ms"), Some(16));
        assert_eq!(ms("30 s"), Some(30_000));
        assert_eq!(ms("5m"), Some(300_000));
        assert_eq!(ms("2h"), Some(7_200_000));
        assert_eq!(ms("1d"), Some(DAY));
        for text in [
            "",
            "30",
            "s",
            "1.5s",
            "-1s",
            "1w",
            "0s",
            "32d",
            "9999999999999999999d",
        ] {
            assert_eq!(ms(text), None, "{text}");
        }
    }

    #[test]
    fn cron_expressions_have_five_fields_or_six() {
        let fits = |text| schedule(&literal(text)).is_ok();
        assert!(fits("0 3 * * *") && fits("*/10 0 3 L * MON-FRI") && fits("0 0 * * 1#2"));
        assert!(!fits("") && !fits("0 3 * *") && !fits("0 3 * * * * *") && !fits("0 3 * * (1)"));
    }
}

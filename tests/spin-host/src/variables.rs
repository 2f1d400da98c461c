//! `fermyon:spin/variables`: the application's variables, as templates of the component.
//!
//! A value comes from the environment (`SPIN_VARIABLE_NAME`), else from the manifest's
//! default.

use std::collections::BTreeMap;

use crate::bindings::variables::{self, Error};
use crate::guest::Guest;
use crate::manifest::Variable;

/// The application's variables with their values.
#[derive(Clone, Debug, Default)]
pub(crate) struct Values(BTreeMap<String, String>);

impl Values {
    /// Takes the values from `environment`, where it has them. A variable that is required
    /// and has none is an error, as it is to Spin.
    pub(crate) fn resolve(
        declared: &BTreeMap<String, Variable>,
        environment: impl Fn(&str) -> Option<String>,
    ) -> anyhow::Result<Values> {
        let mut values = BTreeMap::new();
        for (name, variable) in declared {
            let given = environment(&format!("SPIN_VARIABLE_{}", name.to_ascii_uppercase()));
            let value = given.or_else(|| variable.default.clone());
            let value = value.ok_or_else(|| {
                anyhow::anyhow!("no provider resolved required variable(s): {name}")
            })?;
            values.insert(name.clone(), value);
        }
        Ok(Values(values))
    }

    /// Fills `{{ name }}` in.
    pub(crate) fn fill(&self, template: &str) -> anyhow::Result<String> {
        let (mut filled, mut rest) = (String::new(), template);
        while let Some((before, behind)) = rest.split_once("{{") {
            let (name, after) = behind
                .split_once("}}")
                .ok_or_else(|| anyhow::anyhow!("`{template}`: `{{{{` without `}}}}`"))?;
            let name = name.trim();
            let value = self.0.get(name);
            let value = value.ok_or_else(|| anyhow::anyhow!("unknown variable `{name}`"))?;
            filled += before;
            filled += value;
            rest = after;
        }
        Ok(filled + rest)
    }
}

impl variables::Host for Guest {
    async fn get(&mut self, name: String) -> wasmtime::Result<Result<String, Error>> {
        if !is_name(&name) {
            return Ok(Err(Error::InvalidName(name)));
        }
        let value = self.component.variables.get(&name).cloned();
        Ok(value.ok_or_else(|| Error::Undefined(format!("no variable `{name}`"))))
    }
}

/// Lower-case words with underscores between them.
fn is_name(name: &str) -> bool {
    let allowed = |byte: u8| byte.is_ascii_lowercase() || byte.is_ascii_digit() || byte == b'_';
    name.bytes().all(allowed)
        && name.starts_with(|first: char| first.is_ascii_lowercase())
        && !name.ends_with('_')
        && !name.contains("__")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn declared() -> BTreeMap<String, Variable> {
        let with = |default: Option<&str>| Variable {
            default: default.map(str::to_owned),
        };
        [
            ("a_key", with(Some("from the manifest"))),
            ("other", with(None)),
        ]
        .map(|(name, variable)| (name.to_owned(), variable))
        .into()
    }

    #[test]
    fn the_environment_goes_before_the_manifest() {
        let environment = |name: &str| (name == "SPIN_VARIABLE_OTHER").then(|| "given".to_owned());
        let values = Values::resolve(&declared(), environment).unwrap();
        let filled = values.fill("{{a_key}}, {{ other }}!").unwrap();
        assert_eq!(filled, "from the manifest, given!");
        assert!(values.fill("{{ nothing }}").is_err());
    }

    #[test]
    fn a_required_variable_needs_a_value() {
        let error = Values::resolve(&declared(), |_| None).unwrap_err();
        assert!(error.to_string().contains("other"), "{error}");
    }

    #[test]
    fn names_are_lower_case_words() {
        assert!(["a", "a_b", "a1"].iter().all(|name| is_name(name)));
        let wrong = ["", "_a", "a_", "a__b", "A", "1a", "a-b"];
        assert!(!wrong.iter().any(|name| is_name(name)));
    }
}

//! The application's settings: Spin's variables for what is secret, the environment for the
//! rest. `docs/spin.md` lists them.

use tidegate_core::Failure;

use crate::bindings::fermyon::spin::variables;
use crate::tokens::{MIN_SECRET_BYTES, Tokens};

/// A variable of the manifest; none when it is not declared, or empty.
fn variable(name: &str) -> Result<Option<String>, Failure> {
    match variables::get(name) {
        Ok(value) => Ok(Some(value).filter(|value| !value.is_empty())),
        Err(variables::Error::Undefined(_)) => Ok(None),
        Err(
            variables::Error::InvalidName(detail)
            | variables::Error::Provider(detail)
            | variables::Error::Other(detail),
        ) => Err(misconfigured(format!(
            "the variable `{name}` cannot be read: {detail}"
        ))),
    }
}

fn misconfigured(message: String) -> Failure {
    crate::log!("{message}");
    Failure::internal("the application is not set up as it should be")
}

/// A secret, which must be long enough to be one.
fn secret(name: &str) -> Result<Option<Vec<u8>>, Failure> {
    let Some(secret) = variable(name)? else {
        return Ok(None);
    };
    match secret.len() >= MIN_SECRET_BYTES {
        true => Ok(Some(secret.into_bytes())),
        false => Err(misconfigured(format!(
            "the variable `{name}`: expected at least {MIN_SECRET_BYTES} bytes, found {}",
            secret.len()
        ))),
    }
}

/// What verifies tokens; none where everybody is anonymous.
///
/// An audience or issuer without a secret is refused, so that a forgotten secret does not
/// let everybody in.
pub fn tokens() -> Result<Option<Tokens>, Failure> {
    let audience = variable("tidegate_auth_audience")?;
    let issuer = variable("tidegate_auth_issuer")?;
    match secret("tidegate_auth_secret")? {
        Some(secret) => Ok(Some(Tokens {
            secret,
            audience,
            issuer,
        })),
        None if audience.is_some() || issuer.is_some() => Err(misconfigured(
            "`tidegate_auth_audience` or `tidegate_auth_issuer` is set, but not \
             `tidegate_auth_secret`"
                .to_owned(),
        )),
        None => Ok(None),
    }
}

/// Whether clients without a token are let in where tokens are verified.
pub fn allows_anonymous() -> Result<bool, Failure> {
    Ok(variable("tidegate_auth_allow_anonymous")?.is_some_and(|value| value == "true"))
}

/// The key by which the components of the application trust each other.
pub fn internal_key() -> Result<Option<Vec<u8>>, Failure> {
    secret("tidegate_internal_key")
}

/// The key of the clock's door.
pub fn tick_key() -> Result<Option<String>, Failure> {
    variable("tidegate_tick_key")
}

/// The pages of other sites that may connect, in lower case.
pub fn origins() -> Vec<String> {
    let listed = std::env::var("TIDEGATE_ORIGINS").unwrap_or_default();
    let origins = listed.split([',', ' ']).filter(|origin| !origin.is_empty());
    origins.map(str::to_ascii_lowercase).collect()
}

/// Which component serves an actor type: as `TIDEGATE_ACTORS` says (`actor=component`, with
/// commas between), and `actor.unknown` for one that is not listed there. Where nothing is
/// listed it is the component of the same name.
///
/// A request to a component that the application does not have ends whoever sends it, so
/// that a list is better than none.
pub fn component_of(actor: &str) -> Result<String, Failure> {
    let listed = std::env::var("TIDEGATE_ACTORS").unwrap_or_default();
    component_in(&listed, actor).ok_or_else(|| Failure::unknown_actor(actor))
}

fn component_in(listed: &str, actor: &str) -> Option<String> {
    let mut pairs = listed.split(',').filter_map(|pair| pair.split_once('='));
    let component = match listed.trim().is_empty() {
        true => actor,
        false => pairs.find(|(name, _)| name.trim() == actor)?.1.trim(),
    };
    // It becomes the name of a host.
    let is_name = |b: u8| b.is_ascii_alphanumeric() || b == b'-' || b == b'_';
    let is_named = !component.is_empty() && component.bytes().all(is_name);
    is_named.then(|| component.to_owned())
}

/// Whether a loss of power may cost the last commits (`TIDEGATE_DURABILITY=relaxed`).
pub fn is_relaxed() -> bool {
    std::env::var("TIDEGATE_DURABILITY").is_ok_and(|value| value == "relaxed")
}

/// A number of the environment, in place of a default.
pub fn number(name: &str, default: u64) -> u64 {
    let value = std::env::var(name).ok();
    value
        .and_then(|value| value.parse().ok())
        .unwrap_or(default)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_actor_type_is_served_by_the_component_that_is_listed() {
        let component = |listed, actor| component_in(listed, actor);
        let listed = "counter=numbers, chat = talk";
        assert_eq!(component(listed, "counter").as_deref(), Some("numbers"));
        assert_eq!(component(listed, "chat").as_deref(), Some("talk"));
        assert_eq!(component(listed, "game"), None);
    }

    #[test]
    fn without_a_list_it_is_the_component_of_its_name() {
        assert_eq!(component_in("", "game").as_deref(), Some("game"));
        assert_eq!(component_in("", "evil.example/"), None);
    }
}

//! Where a request carries its token: `Authorization: Bearer` (RFC 6750), `?token=`, or among
//! the subprotocols that a WebSocket's client offers.

use std::borrow::Cow;

use http::HeaderMap;
use http::header::AUTHORIZATION;
use tidegate_core::Failure;

use super::Reason;

/// What the `Authorization` header says.
#[derive(Debug, PartialEq)]
pub(super) enum Authorization<'a> {
    Absent,
    Bearer(&'a str),
    /// It has another scheme, or is not of the shape of any.
    Other,
    /// It is there several times.
    Several,
}

pub(super) fn authorization(headers: &HeaderMap) -> Authorization<'_> {
    let mut values = headers.get_all(AUTHORIZATION).iter();
    let value = match (values.next(), values.next()) {
        (None, _) => return Authorization::Absent,
        (Some(value), None) => value,
        (Some(_), Some(_)) => return Authorization::Several,
    };
    let token = value
        .to_str()
        .ok()
        .and_then(|text| text.split_once(' '))
        .filter(|(scheme, _)| scheme.eq_ignore_ascii_case("bearer"))
        .map(|(_, token)| token.trim_matches(' '))
        .filter(|token| !token.is_empty() && token.bytes().all(|b| b.is_ascii_graphic()));
    token.map_or(Authorization::Other, Authorization::Bearer)
}

/// The token of a request, from its headers, its query or what it `offered` as subprotocols;
/// `None` when it has none.
///
/// `auth.invalid` when it has two different ones, an empty one, or only credentials that
/// are no token: whoever sends some does not mean to be anonymous. A header of another
/// scheme beside a token elsewhere is some proxy's and does not count.
pub fn bearer<'a>(
    headers: &HeaderMap,
    query: Option<&'a str>,
    offered: impl IntoIterator<Item = &'a str>,
) -> Result<Option<String>, Failure> {
    let malformed = |message: &str| Err(Reason::Malformed.failure(message));
    let mut token: Option<String> = None;
    let pairs = form_urlencoded::parse(query.unwrap_or_default().as_bytes());
    let asked = pairs
        .filter(|(name, _)| name == "token")
        .map(|(_, token)| token);
    for found in asked.chain(offered.into_iter().map(Cow::Borrowed)) {
        match &token {
            _ if found.is_empty() => return malformed("the token is empty"),
            None => token = Some(found.into_owned()),
            Some(first) if *first == found => {}
            Some(_) => return malformed("two different tokens are sent"),
        }
    }
    match (authorization(headers), token) {
        (Authorization::Several, _) => malformed("more than one Authorization header"),
        (Authorization::Absent, token) => Ok(token),
        (Authorization::Bearer(header), None) => Ok(Some(header.to_owned())),
        (Authorization::Bearer(header), Some(token)) if header == token => Ok(Some(token)),
        (Authorization::Bearer(_), Some(_)) => {
            malformed("the Authorization header and another token differ")
        }
        (Authorization::Other, Some(token)) => Ok(Some(token)),
        (Authorization::Other, None) => malformed("expected `Authorization: Bearer TOKEN`"),
    }
}

#[cfg(test)]
mod tests {
    use http::HeaderValue;
    use proptest::prelude::*;
    use serde_json::json;

    use super::*;

    fn headers(values: &[&str]) -> HeaderMap {
        let mut headers = HeaderMap::new();
        for value in values {
            headers.append(AUTHORIZATION, value.parse().unwrap());
        }
        headers
    }

    fn token(values: &[&str], query: &str) -> Option<String> {
        bearer(&headers(values), Some(query), []).unwrap()
    }

    fn refusal(values: &[&str], query: &str) -> Failure {
        bearer(&headers(values), Some(query), []).unwrap_err()
    }

    #[test]
    fn without_a_token_there_is_none() {
        assert_eq!(bearer(&headers(&[]), None, []), Ok(None));
        assert_eq!(token(&[], "a=b&tokens=c&Token=d"), None);
    }

    #[test]
    fn the_header_is_read_whatever_the_case_of_its_scheme() {
        for value in ["Bearer a.b.c", "bearer a.b.c", "BEARER   a.b.c "] {
            assert_eq!(token(&[value], "").as_deref(), Some("a.b.c"), "{value}");
        }
    }

    #[test]
    fn the_query_is_percent_decoded() {
        assert_eq!(token(&[], "x=1&token=a%2Eb.%63").as_deref(), Some("a.b.c"));
        assert_eq!(token(&[], "tok%65n=a").as_deref(), Some("a"));
    }

    #[test]
    fn the_same_token_twice_is_one() {
        assert_eq!(
            token(&["Bearer a"], "token=a&token=%61").as_deref(),
            Some("a")
        );
    }

    #[test]
    fn an_offered_token_is_one_like_any_other() {
        let offered = |values: &[&str], query: &str, offered: &[&'static str]| {
            bearer(&headers(values), Some(query), offered.iter().copied())
        };
        let a = Ok(Some("a".to_owned()));
        assert_eq!(offered(&[], "", &["a"]), a);
        assert_eq!(offered(&["Bearer a"], "token=a", &["a", "a"]), a);
        assert_eq!(offered(&["Basic eA=="], "", &["a"]), a);
        for (values, query, tokens) in [
            (&[][..], "", &[""][..]),
            (&[], "", &["a", "b"]),
            (&[], "token=a", &["b"]),
            (&["Bearer a"], "", &["b"]),
        ] {
            assert!(offered(values, query, tokens).is_err(), "{tokens:?}");
        }
    }

    #[test]
    fn two_different_tokens_are_refused() {
        refusal(&["Bearer a"], "token=b");
        refusal(&[], "token=a&token=b");
        refusal(&["Bearer a", "Bearer a"], "");
        refusal(&["Bearer a", "Basic eA=="], "token=a");
    }

    #[test]
    fn credentials_that_are_no_token_are_not_taken_for_none() {
        for value in ["Basic eA==", "Bearer", "Bearer ", "Bearer a b", "", "a.b.c"] {
            let failure = refusal(&[value], "");
            assert_eq!(
                failure.params,
                Some(json!({"reason": "malformed"})),
                "{value}"
            );
            assert_eq!(failure.status, 401);
        }
        refusal(&[], "token=");
        refusal(&[], "token=a&token");
    }

    #[test]
    fn a_proxys_own_credentials_do_not_hide_the_token_of_the_query() {
        assert_eq!(token(&["Basic eA=="], "token=a").as_deref(), Some("a"));
    }

    #[test]
    fn a_header_that_is_not_text_is_refused() {
        let mut headers = HeaderMap::new();
        let value = HeaderValue::from_bytes(b"Bearer \xff").unwrap();
        headers.insert(AUTHORIZATION, value);
        assert!(bearer(&headers, None, []).is_err());
    }

    proptest! {
        #[test]
        fn no_header_and_no_query_make_it_panic_or_give_an_empty_token(
            value in proptest::collection::vec(any::<u8>(), 0..40), query in ".{0,40}",
        ) {
            let mut headers = HeaderMap::new();
            if let Ok(value) = HeaderValue::from_bytes(&value) {
                headers.insert(AUTHORIZATION, value);
            }
            if let Ok(Some(token)) = bearer(&headers, Some(&query), []) {
                prop_assert!(!token.is_empty());
            }
        }

        #[test]
        fn a_token_in_the_query_is_read_as_it_was_written(token in ".{1,40}") {
            let query = form_urlencoded::Serializer::new(String::new())
                .append_pair("token", &token)
                .finish();
            prop_assert_eq!(bearer(&HeaderMap::new(), Some(&query), []), Ok(Some(token)));
        }
    }
}

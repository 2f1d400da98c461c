//! Tests of tokens and their keys, by behaviour.

use std::path::Path;
use std::time::Duration;

use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use jsonwebtoken::jwk::Jwk;
use jsonwebtoken::{DecodingKey, EncodingKey};
use proptest::prelude::*;
use serde_json::json;
use tidegate_core::failure::code;

use super::super::testing::*;
use super::*;

/// The time at which the tests take place.
const NOW_MS: u64 = 1_800_000_000_000;
const NOW: u64 = NOW_MS / 1000;

fn claims(value: Value) -> Map<String, Value> {
    match value {
        Value::Object(claims) => claims,
        other => panic!("{other} is no object"),
    }
}

fn mint(algorithm: Algorithm, key: &str, value: Value) -> String {
    Tokens::mint(claims(value), None, algorithm, key.as_bytes(), None).unwrap()
}

fn named(kid: &str, algorithm: Algorithm, key: &str) -> String {
    let claims = claims(json!({"sub": "ann"}));
    Tokens::mint(
        claims,
        None,
        algorithm,
        key.as_bytes(),
        Some(kid.to_owned()),
    )
    .unwrap()
}

/// A token with this head and these claims as texts, signed with the secret.
fn raw(head: &str, claims: &str) -> String {
    let encode = |text: &str| URL_SAFE_NO_PAD.encode(text);
    let message = format!("{}.{}", encode(head), encode(claims));
    let key = EncodingKey::from_secret(SECRET.as_bytes());
    let algorithm = jsonwebtoken::Algorithm::HS256;
    let signature = jsonwebtoken::crypto::sign(message.as_bytes(), &key, algorithm).unwrap();
    format!("{message}.{signature}")
}

fn with_claims(claims: &str) -> String {
    raw(r#"{"alg":"HS256"}"#, claims)
}

fn settings(algorithms: &[&str]) -> config::Auth {
    config::Auth {
        algorithms: algorithms.iter().map(|name| name.to_string()).collect(),
        ..Default::default()
    }
}

fn key_file(algorithm: &str, path: &Path) -> config::Auth {
    config::Auth {
        key_file: Some(path.to_owned()),
        ..settings(&[algorithm])
    }
}

fn jwks_file(algorithms: &[&str], path: &Path) -> config::Auth {
    config::Auth {
        jwks_file: Some(path.to_owned()),
        ..settings(algorithms)
    }
}

/// Verifies with this one key; `change` sees the settings first.
fn tokens_with(algorithm: &str, key: &str, change: impl FnOnce(&mut config::Auth)) -> Tokens {
    let folder = Folder::new();
    let mut settings = key_file(algorithm, &folder.file("key", key));
    change(&mut settings);
    Tokens::open(&settings).unwrap().unwrap()
}

fn tokens(algorithm: &str, key: &str) -> Tokens {
    tokens_with(algorithm, key, |_| {})
}

fn secret_tokens() -> Tokens {
    tokens("HS256", SECRET)
}

fn verify(tokens: &Tokens, token: &str) -> Result<Identity, Failure> {
    tokens.verify_at(token, NOW_MS, 0)
}

/// The reason for which a token is refused.
#[track_caller]
fn reason(tokens: &Tokens, token: &str) -> String {
    let failure = verify(tokens, token).unwrap_err();
    assert_eq!((&*failure.code, failure.status), (code::AUTH_INVALID, 401));
    assert!(token.len() < 8 || !failure.to_string().contains(token));
    failure.params.unwrap()["reason"]
        .as_str()
        .unwrap()
        .to_owned()
}

fn error(settings: &config::Auth) -> String {
    Tokens::open(settings).unwrap_err().to_string()
}

fn problem(algorithm: &str, key: impl AsRef<[u8]>) -> String {
    let folder = Folder::new();
    error(&key_file(algorithm, &folder.file("key", key)))
}

fn set_problem(algorithms: &[&str], set: impl AsRef<[u8]>) -> String {
    let folder = Folder::new();
    error(&jwks_file(algorithms, &folder.file("set", set)))
}

/// The public part of a private key as an entry of a set.
fn entry(kid: &str, algorithm: Algorithm, key: &str) -> Value {
    if algorithm == Algorithm::EdDsa {
        let public = DecodingKey::from_ed_pem(ED_1_PUBLIC.as_bytes()).unwrap();
        let x = URL_SAFE_NO_PAD.encode(public.as_bytes());
        return json!({"kty": "OKP", "crv": "Ed25519", "kid": kid, "x": x});
    }
    let key = match algorithm {
        Algorithm::Rs256 => EncodingKey::from_rsa_pem(key.as_bytes()).unwrap(),
        Algorithm::Es256 => EncodingKey::from_ec_pem(key.as_bytes()).unwrap(),
        _ => EncodingKey::from_secret(key.as_bytes()),
    };
    let mut entry =
        serde_json::to_value(Jwk::from_encoding_key(&key, algorithm.jwt()).unwrap()).unwrap();
    entry["kid"] = json!(kid);
    entry
}

fn set(entries: &[Value]) -> String {
    json!({"keys": entries}).to_string()
}

#[test]
fn a_good_token_gives_its_claims_and_its_subject() {
    let value = json!({"sub": "ann", "exp": NOW + 60, "iat": 1, "roles": ["a", {"b": 1.5}]});
    let token = mint(Algorithm::Hs256, SECRET, value.clone());
    let identity = verify(&secret_tokens(), &token).unwrap();
    assert_eq!(identity.subject.as_deref(), Some("ann"));
    assert_eq!(identity.expires_at_ms, Some(NOW_MS + 60_000));
    assert_eq!(identity.refused_from_ms, Some(NOW_MS + 65_000));
    assert_eq!(*identity.claims, *value.to_string());
}

#[test]
fn every_algorithm_verifies_what_its_key_signed_and_nothing_else() {
    for (algorithm, private, public, other) in [
        (
            Algorithm::Hs256,
            SECRET,
            SECRET,
            "another secret, of 32 bytes and more",
        ),
        (Algorithm::Rs256, RSA_1, RSA_1_PUBLIC, RSA_2),
        (Algorithm::Rs256, RSA_1_PKCS1, RSA_1_PKCS1_PUBLIC, RSA_2),
        (Algorithm::Es256, P256_1, P256_1_PUBLIC, P256_2),
        (Algorithm::EdDsa, ED_1, ED_1_PUBLIC, ED_2),
    ] {
        let tokens = tokens(algorithm.name(), public);
        let token = mint(algorithm, private, json!({"sub": "ann"}));
        assert_eq!(
            verify(&tokens, &token).unwrap().subject.as_deref(),
            Some("ann")
        );
        let forged = mint(algorithm, other, json!({"sub": "ann"}));
        assert_eq!(reason(&tokens, &forged), "signature", "{algorithm}");
    }
}

#[test]
fn a_token_that_is_not_signed_is_refused() {
    let none = |signature: &str| {
        let encode = |text: &str| URL_SAFE_NO_PAD.encode(text);
        format!(
            "{}.{}.{signature}",
            encode(r#"{"alg":"none"}"#),
            encode("{}")
        )
    };
    for tokens in [secret_tokens(), tokens("RS256", RSA_1_PUBLIC)] {
        assert_eq!(reason(&tokens, &none("")), "algorithm");
        assert_eq!(reason(&tokens, &none("AAAA")), "algorithm");
    }
    assert_eq!(
        reason(&secret_tokens(), &raw(r#"{"alg":"None"}"#, "{}")),
        "algorithm"
    );
}

#[test]
fn a_public_key_is_no_secret_to_sign_with() {
    for (algorithm, public) in [("RS256", RSA_1_PUBLIC), ("ES256", P256_1_PUBLIC)] {
        let tokens = tokens(algorithm, public);
        for secret in [public, public.trim_end()] {
            // What is signed with the text of the PEM file, as old attacks have it.
            let key = EncodingKey::from_secret(secret.as_bytes());
            let header = jsonwebtoken::Header::default();
            let token = jsonwebtoken::encode(&header, &json!({"sub": "ann"}), &key).unwrap();
            assert_eq!(reason(&tokens, &token), "algorithm");
        }
    }
}

#[test]
fn a_public_key_of_a_set_is_no_secret_to_sign_with_even_beside_one() {
    let folder = Folder::new();
    let secret = entry("s", Algorithm::Hs256, SECRET);
    let rsa = entry("r", Algorithm::Rs256, RSA_1);
    let path = folder.file("set", set(&[secret, rsa.clone()]));
    let tokens = Tokens::open(&jwks_file(&["HS256", "RS256"], &path))
        .unwrap()
        .unwrap();
    let modulus = URL_SAFE_NO_PAD.decode(rsa["n"].as_str().unwrap()).unwrap();
    for secret in [RSA_1_PUBLIC.as_bytes(), &modulus] {
        let header = jsonwebtoken::Header {
            kid: Some("r".to_owned()),
            ..Default::default()
        };
        let key = EncodingKey::from_secret(secret);
        let token = jsonwebtoken::encode(&header, &json!({}), &key).unwrap();
        assert_eq!(reason(&tokens, &token), "algorithm");
    }
}

#[test]
fn an_algorithm_that_is_not_configured_is_refused_though_a_key_would_fit() {
    let tokens = secret_tokens();
    assert_eq!(
        reason(&tokens, &raw(r#"{"alg":"HS512"}"#, "{}")),
        "algorithm"
    );
    assert_eq!(
        reason(&tokens, &raw(r#"{"alg":"hs256"}"#, "{}")),
        "algorithm"
    );
    let token = mint(Algorithm::Rs256, RSA_1, json!({}));
    assert_eq!(reason(&tokens, &token), "algorithm");
}

#[test]
fn a_long_token_is_refused_before_it_is_read() {
    let long = "x".repeat(100 << 10);
    let token = mint(Algorithm::Hs256, SECRET, json!({"sub": long}));
    assert!(token.len() > 100 << 10);
    assert_eq!(reason(&secret_tokens(), &token), "too-long");
    assert_eq!(reason(&secret_tokens(), &long), "too-long");
    let larger = tokens_with("HS256", SECRET, |settings| {
        settings.max_token_bytes = 1 << 20
    });
    assert!(verify(&larger, &token).is_ok());
}

#[test]
fn a_token_is_refused_wherever_it_is_cut_off_or_changed() {
    let tokens = secret_tokens();
    let token = mint(Algorithm::Hs256, SECRET, json!({"sub": "ann"}));
    assert!(verify(&tokens, &token).is_ok());
    for end in 0..token.len() {
        assert!(verify(&tokens, &token[..end]).is_err(), "{}", &token[..end]);
    }
    for at in 0..token.len() {
        let mut changed = token.clone().into_bytes();
        changed[at] = if changed[at] == b'A' { b'B' } else { b'A' };
        let changed = String::from_utf8(changed).unwrap();
        assert!(verify(&tokens, &changed).is_err(), "{changed}");
    }
}

#[test]
fn what_is_no_token_is_malformed() {
    let tokens = secret_tokens();
    let good = with_claims("{}");
    let (head, rest) = good.split_once('.').unwrap();
    for bad in [
        "",
        ".",
        "..",
        "...",
        "a.b",
        "a.b.c",
        "é.é.é",
        "\u{0}",
        &format!("{good}."),
        &format!(".{good}"),
        &format!("{good}="),
        &format!(" {good}"),
        &format!("{head}.{head}.{rest}"),
        &format!("{}.{rest}", URL_SAFE_NO_PAD.encode("[]")),
        &format!("{}.{rest}", URL_SAFE_NO_PAD.encode("not json")),
    ] {
        assert_eq!(reason(&tokens, bad), "malformed", "{bad}");
    }
}

#[test]
fn a_head_that_is_not_understood_is_malformed() {
    for head in [
        "{}",
        r#"{"alg":null}"#,
        r#"{"alg":["HS256"]}"#,
        r#"{"alg":"none","alg":"HS256"}"#,
        r#"{"alg":"HS256","kid":7}"#,
        r#"{"alg":"HS256","crit":["exp"]}"#,
        r#"{"alg":"HS256","crit":[]}"#,
    ] {
        assert_eq!(
            reason(&secret_tokens(), &raw(head, "{}")),
            "malformed",
            "{head}"
        );
    }
}

#[test]
fn claims_that_are_no_unambiguous_object_are_malformed() {
    let deep = format!(r#"{{"a":{}{}}}"#, "[".repeat(500), "]".repeat(500));
    for claims in [
        "[]",
        "\"ann\"",
        "null",
        "",
        "{",
        "{} {}",
        r#"{"sub":"ann","sub":"bob"}"#,
        r#"{"sub":"ann","a":{"b":1,"b":2}}"#,
        r#"{"a":1e400}"#,
        r#"{"a":"\ud800"}"#,
        &deep,
    ] {
        assert_eq!(
            reason(&secret_tokens(), &with_claims(claims)),
            "malformed",
            "{claims}"
        );
    }
}

#[test]
fn a_subject_that_is_empty_or_no_text_is_malformed() {
    for claims in [r#"{"sub":""}"#, r#"{"sub":7}"#, r#"{"sub":null}"#] {
        assert_eq!(reason(&secret_tokens(), &with_claims(claims)), "malformed");
    }
    assert_eq!(
        verify(&secret_tokens(), &with_claims("{}"))
            .unwrap()
            .subject,
        None
    );
}

#[test]
fn a_token_expires_to_the_millisecond_after_the_leeway() {
    let tokens = secret_tokens();
    let token = with_claims(&format!(r#"{{"exp":{NOW}.5}}"#));
    let end = NOW_MS + 500 + 5_000;
    let identity = tokens.verify_at(&token, end - 1, 0).unwrap();
    assert_eq!(identity.expires_at_ms, Some(NOW_MS + 500));
    assert_eq!(identity.refused_from_ms, Some(end));
    let failure = tokens.verify_at(&token, end, 0).unwrap_err();
    assert_eq!((&*failure.code, failure.status), (code::AUTH_EXPIRED, 401));
}

#[test]
fn a_token_without_an_end_does_not_expire() {
    let token = with_claims(r#"{"sub":"ann"}"#);
    let identity = secret_tokens().verify_at(&token, u64::MAX, 0).unwrap();
    assert_eq!(
        (identity.expires_at_ms, identity.refused_from_ms),
        (None, None)
    );
}

#[test]
fn a_token_becomes_valid_the_leeway_before_its_beginning() {
    let tokens = secret_tokens();
    let token = with_claims(&format!(r#"{{"nbf":{}}}"#, NOW + 5));
    assert!(tokens.verify_at(&token, NOW_MS, 0).is_ok());
    let failure = tokens.verify_at(&token, NOW_MS - 1, 0).unwrap_err();
    assert_eq!(failure.params, Some(json!({"reason": "not-yet-valid"})));
}

#[test]
fn times_that_are_no_numbers_of_seconds_are_malformed() {
    for time in [
        "1e400",
        "-1",
        "-0.5",
        "\"1800000000\"",
        "null",
        "[]",
        "true",
    ] {
        for name in ["exp", "nbf"] {
            let token = with_claims(&format!(r#"{{"{name}":{time}}}"#));
            assert_eq!(
                reason(&secret_tokens(), &token),
                "malformed",
                "{name} {time}"
            );
        }
    }
}

#[test]
fn an_end_in_milliseconds_is_refused_and_said_to_look_like_it() {
    let refused = |claims: String| {
        let failure = verify(&secret_tokens(), &with_claims(&claims)).unwrap_err();
        (
            failure.params.unwrap()["reason"].clone(),
            failure.message.unwrap(),
        )
    };
    let (reason, message) = refused(format!(r#"{{"exp":{}}}"#, NOW_MS + 3_600_000));
    assert_eq!(reason, "too-far");
    assert!(message.contains("looks like milliseconds"), "{message}");
    let (reason, message) = refused(format!(r#"{{"nbf":{NOW_MS}}}"#));
    assert_eq!(reason, "not-yet-valid");
    assert!(message.contains("looks like milliseconds"), "{message}");
    let (reason, message) = refused(r#"{"exp":1e300}"#.to_owned());
    assert_eq!(reason, "too-far");
    assert!(!message.contains("milliseconds"), "{message}");
    // What people write who mean "never".
    for end in ["9999999999", "253402300799"] {
        assert!(
            verify(
                &secret_tokens(),
                &with_claims(&format!(r#"{{"exp":{end}}}"#))
            )
            .is_ok()
        );
    }
}

#[test]
fn how_far_away_an_end_may_be_is_a_setting() {
    let tokens = tokens_with("HS256", SECRET, |settings| {
        settings.max_lifetime_ms = 60_000
    });
    let ends_in = |seconds| with_claims(&format!(r#"{{"exp":{}}}"#, NOW + seconds));
    assert!(verify(&tokens, &ends_in(60)).is_ok());
    assert_eq!(reason(&tokens, &ends_in(61)), "too-far");
}

#[test]
fn an_end_that_is_out_of_reach_is_the_latest_time_that_browsers_can_tell() {
    let tokens = tokens_with("HS256", SECRET, |settings| {
        settings.max_lifetime_ms = MAX_TIME_MS;
    });
    for end in ["18446744073709551615", "1e300", "8640000000001"] {
        let token = with_claims(&format!(r#"{{"exp":{end}}}"#));
        let identity = verify(&tokens, &token).unwrap();
        assert_eq!(identity.expires_at_ms, Some(MAX_TIME_MS), "{end}");
    }
}

#[test]
fn an_expired_token_of_another_key_is_not_said_to_be_expired() {
    let tokens = secret_tokens();
    let token = mint(
        Algorithm::Hs256,
        "another secret, of 32 bytes and more",
        json!({"exp": 1}),
    );
    assert_eq!(reason(&tokens, &token), "signature");
}

#[test]
fn the_audience_is_checked_where_one_is_configured() {
    let tokens = tokens_with("HS256", SECRET, |settings| {
        settings.audience = Some("live".to_owned());
    });
    for good in [r#"{"aud":"live"}"#, r#"{"aud":["x","live"]}"#] {
        assert!(verify(&tokens, &with_claims(good)).is_ok(), "{good}");
    }
    for bad in [
        "{}",
        r#"{"aud":"Live"}"#,
        r#"{"aud":[]}"#,
        r#"{"aud":["x"]}"#,
        r#"{"aud":[["live"]]}"#,
        r#"{"aud":{"live":1}}"#,
        r#"{"aud":null}"#,
    ] {
        assert_eq!(reason(&tokens, &with_claims(bad)), "audience", "{bad}");
    }
    assert!(verify(&secret_tokens(), &with_claims(r#"{"aud":"x"}"#)).is_ok());
}

#[test]
fn the_issuer_is_checked_where_one_is_configured() {
    let tokens = tokens_with("HS256", SECRET, |settings| {
        settings.issuer = Some("https://id.example".to_owned());
    });
    assert!(verify(&tokens, &with_claims(r#"{"iss":"https://id.example"}"#)).is_ok());
    for bad in [
        "{}",
        r#"{"iss":"https://id.example/"}"#,
        r#"{"iss":["https://id.example"]}"#,
    ] {
        assert_eq!(reason(&tokens, &with_claims(bad)), "issuer", "{bad}");
    }
}

#[test]
fn a_single_key_is_used_whatever_the_token_calls_it() {
    assert!(verify(&secret_tokens(), &named("any", Algorithm::Hs256, SECRET)).is_ok());
}

#[test]
fn the_key_of_a_set_is_the_one_that_the_token_names() {
    let folder = Folder::new();
    let path = folder.file(
        "set",
        set(&[
            entry("one", Algorithm::Rs256, RSA_1),
            entry("two", Algorithm::Rs256, RSA_2),
            entry("three", Algorithm::Es256, P256_1),
            entry("four", Algorithm::EdDsa, ED_1),
            entry("five", Algorithm::Hs256, SECRET),
        ]),
    );
    let all = ["RS256", "ES256", "EdDSA", "HS256"];
    let tokens = Tokens::open(&jwks_file(&all, &path)).unwrap().unwrap();
    for (kid, algorithm, key) in [
        ("one", Algorithm::Rs256, RSA_1),
        ("two", Algorithm::Rs256, RSA_2),
        ("three", Algorithm::Es256, P256_1),
        ("four", Algorithm::EdDsa, ED_1),
        ("five", Algorithm::Hs256, SECRET),
    ] {
        assert!(
            verify(&tokens, &named(kid, algorithm, key)).is_ok(),
            "{kid}"
        );
    }
    assert_eq!(
        reason(&tokens, &named("one", Algorithm::Rs256, RSA_2)),
        "signature"
    );
    assert_eq!(
        reason(&tokens, &named("three", Algorithm::Rs256, RSA_1)),
        "algorithm"
    );
    assert_eq!(
        reason(&tokens, &named("six", Algorithm::Rs256, RSA_1)),
        "unknown-key"
    );
    assert_eq!(
        reason(&tokens, &named("", Algorithm::Rs256, RSA_1)),
        "unknown-key"
    );
}

#[test]
fn a_token_without_a_key_name_needs_exactly_one_key_that_fits() {
    let folder = Folder::new();
    let path = folder.file(
        "set",
        set(&[
            entry("one", Algorithm::Rs256, RSA_1),
            entry("two", Algorithm::Rs256, RSA_2),
            entry("three", Algorithm::Es256, P256_1),
        ]),
    );
    let all = ["RS256", "ES256", "EdDSA"];
    let tokens = Tokens::open(&jwks_file(&all, &path)).unwrap().unwrap();
    assert!(verify(&tokens, &mint(Algorithm::Es256, P256_1, json!({}))).is_ok());
    let token = mint(Algorithm::Rs256, RSA_1, json!({}));
    assert_eq!(reason(&tokens, &token), "unknown-key");
    let token = mint(Algorithm::EdDsa, ED_1, json!({}));
    assert_eq!(reason(&tokens, &token), "algorithm");
}

#[test]
fn keys_of_a_set_that_are_for_something_else_are_passed_over() {
    let rsa = entry("one", Algorithm::Rs256, RSA_1);
    let with = |name: &str, value: Value| {
        let mut entry = rsa.clone();
        entry[name] = value;
        entry
    };
    let others = [
        with("use", json!("enc")),
        with("key_ops", json!(["encrypt"])),
        with("alg", json!("RS512")),
        json!({"kty": "EC", "crv": "secp256k1", "x": "", "y": ""}),
        json!({"kty": "OKP", "crv": "X25519", "x": ""}),
        json!({"kty": "AKP", "alg": "ML-DSA-44", "pub": ""}),
        json!({}),
    ];
    for other in &others {
        let error = set_problem(&["RS256"], set(std::slice::from_ref(other)));
        assert!(error.contains("found 1 that do not"), "{other}: {error}");
    }
    let folder = Folder::new();
    let good = with("use", json!("sig"));
    let path = folder.file("set", set(&[&others[..], &[good]].concat()));
    let tokens = Tokens::open(&jwks_file(&["RS256"], &path))
        .unwrap()
        .unwrap();
    assert!(verify(&tokens, &named("one", Algorithm::Rs256, RSA_1)).is_ok());
}

#[test]
fn a_set_that_is_not_usable_is_explained() {
    let secret = json!({"kty": "oct", "k": URL_SAFE_NO_PAD.encode(SECRET)});
    let mut private = entry("one", Algorithm::Rs256, RSA_1);
    private["d"] = json!("AQAB");
    let twice = entry("one", Algorithm::Rs256, RSA_1);
    for (text, says) in [
        ("not json".to_owned(), "not an unambiguous JSON text"),
        (
            r#"{"keys":[],"keys":[]}"#.to_owned(),
            "not an unambiguous JSON text",
        ),
        ("[]".to_owned(), "an array `keys`"),
        (r#"{"keys":{}}"#.to_owned(), "an array `keys`"),
        (set(&[]), "expected a key that verifies RS256"),
        (set(&[json!(1)]), "/keys/0: expected an object"),
        (set(&[secret]), "/keys/0: a symmetric key"),
        (set(&[private]), "/keys/0: a private key"),
        (
            set(&[twice.clone(), twice]),
            "/keys/1: another key has the same",
        ),
        (set(&[json!({"kty": "RSA"})]), "/keys/0: `n`: missing"),
        (
            set(&[json!({"kty": "RSA", "n": 1, "e": ""})]),
            "`n`: expected a string",
        ),
        (
            set(&[json!({"kty": "RSA", "n": "?", "e": "AQAB"})]),
            "base64url",
        ),
        (
            set(&[json!({"kty": "RSA", "n": "AQAB", "e": "AQAB"})]),
            "RSA key",
        ),
    ] {
        let error = set_problem(&["RS256"], &text);
        assert!(error.starts_with("auth.jwks-file: "), "{error}");
        assert!(error.contains(says), "{text}: {error}");
    }
}

#[test]
fn keys_of_a_set_that_are_not_on_their_curve_or_too_short_are_refused() {
    let short = URL_SAFE_NO_PAD.encode("too short");
    let bytes = URL_SAFE_NO_PAD.encode([1; 32]);
    for (algorithm, key) in [
        ("HS256", json!({"kty": "oct", "k": short})),
        ("EdDSA", json!({"kty": "OKP", "crv": "Ed25519", "x": short})),
        ("EdDSA", json!({"kty": "OKP", "crv": "Ed25519", "x": ""})),
        (
            "ES256",
            json!({"kty": "EC", "crv": "P-256", "x": short, "y": short}),
        ),
        (
            "ES256",
            json!({"kty": "EC", "crv": "P-256", "x": bytes, "y": bytes}),
        ),
    ] {
        let error = set_problem(&[algorithm], set(std::slice::from_ref(&key)));
        assert!(error.contains("/keys/0: "), "{key}: {error}");
    }
}

#[test]
fn without_a_key_file_everybody_is_anonymous() {
    assert!(Tokens::open(&config::Auth::default()).unwrap().is_none());
}

#[test]
fn what_asks_for_a_key_without_naming_one_is_refused() {
    let mut audience = settings(&[]);
    audience.audience = Some("live".to_owned());
    let mut issuer = settings(&[]);
    issuer.issuer = Some("x".to_owned());
    for (settings, name) in [
        (settings(&["HS256"]), "auth.algorithms: "),
        (audience, "auth.audience: "),
        (issuer, "auth.issuer: "),
    ] {
        let error = error(&settings);
        assert!(
            error.starts_with(name) && error.contains("auth.key-file"),
            "{error}"
        );
    }
}

#[test]
fn settings_that_contradict_each_other_are_named() {
    let folder = Folder::new();
    let path = folder.file("key", SECRET);
    let mut both = key_file("HS256", &path);
    both.jwks_file = Some(path.clone());
    assert!(error(&both).contains("auth.jwks-file is set as well"));
    let none = config::Auth {
        algorithms: Vec::new(),
        ..key_file("HS256", &path)
    };
    assert!(error(&none).starts_with("auth.algorithms: expected what tokens are signed with"));
    assert!(error(&key_file("none", &path)).contains("found `none`"));
    let two = config::Auth {
        algorithms: vec!["HS256".to_owned(), "RS256".to_owned()],
        ..key_file("HS256", &path)
    };
    assert!(error(&two).contains("found 2"));
}

#[test]
fn a_key_file_that_cannot_be_read_is_named() {
    let folder = Folder::new();
    let missing = folder.path("missing");
    let error_of = |path: &Path| error(&key_file("HS256", path));
    let error = error_of(&missing);
    assert!(error.starts_with("auth.key-file: cannot read"), "{error}");
    assert!(error.contains(&missing.display().to_string()), "{error}");
    assert!(error_of(&folder.path("")).contains("expected a file"));
    let huge = folder.file("huge", vec![b'x'; (1 << 20) + 1]);
    assert!(error_of(&huge).contains("at most 1048576 bytes"));
}

#[test]
fn a_key_that_does_not_fit_its_algorithm_is_explained() {
    let several = format!("{RSA_1_PUBLIC}{P256_1_PUBLIC}");
    for (algorithm, key, says) in [
        ("HS256", "short", "at least 32 bytes for HS256, found 5"),
        ("HS256", "", "at least 32 bytes"),
        ("HS256", RSA_1_PUBLIC, "found a key in PEM"),
        (
            "HS256",
            r#"{"keys": [{"kty": "oct", "k": "AAAA"}]}"#,
            "found a JSON object",
        ),
        ("RS256", SECRET, "found no PEM"),
        ("RS256", "", "found no PEM"),
        ("RS256", RSA_1, "found a private key"),
        ("RS256", RSA_1_PKCS1, "found a private key"),
        ("RS256", P256_1_PUBLIC, "another kind"),
        ("RS256", RSA_1024_PUBLIC, "at least 2048 bits, found 1024"),
        ("RS256", &several, "found 2 PEM blocks"),
        ("ES256", RSA_1_PUBLIC, "another kind"),
        ("ES256", RSA_1_PKCS1_PUBLIC, "found `RSA PUBLIC KEY`"),
        ("ES256", ED_1_PUBLIC, "another kind"),
        ("ES256", P384_PUBLIC, "not a point of the algorithm's curve"),
        ("EdDSA", P256_1_PUBLIC, "another kind"),
        ("EdDSA", ED_1, "found a private key"),
    ] {
        let error = problem(algorithm, key);
        assert!(error.starts_with("auth.key-file: "), "{error}");
        assert!(error.contains(says), "{algorithm}: {error}");
        assert!(key.len() < 6 || !error.contains(key), "{error}");
    }
}

#[test]
fn a_damaged_pem_is_refused_wherever_it_is_cut_off() {
    for (algorithm, key) in [
        ("RS256", RSA_1_PUBLIC),
        ("ES256", P256_1_PUBLIC),
        ("EdDSA", ED_1_PUBLIC),
    ] {
        let end = key.trim_end().len();
        for cut in (0..end).step_by(7) {
            problem(algorithm, &key[..cut]);
        }
    }
}

#[test]
fn a_line_break_at_the_end_of_a_secret_is_not_part_of_it() {
    let token = mint(Algorithm::Hs256, SECRET, json!({}));
    for end in ["", "\n", "\r\n"] {
        let tokens = tokens("HS256", &format!("{SECRET}{end}"));
        assert!(verify(&tokens, &token).is_ok(), "{end:?}");
    }
    let tokens = tokens("HS256", &format!("{SECRET}\n\n"));
    assert_eq!(reason(&tokens, &token), "signature");
}

const INTERVAL_MS: u64 = 2_000;
const OTHER_SECRET: &str = "another secret, of 32 bytes and more";

/// Whether tokens of the first and of the other secret are accepted so long after start.
fn accepted(tokens: &Tokens, uptime_ms: u64) -> (bool, bool) {
    let accepts = |secret: &str| {
        let token = mint(Algorithm::Hs256, secret, json!({}));
        tokens.verify_at(&token, NOW_MS, uptime_ms).is_ok()
    };
    (accepts(SECRET), accepts(OTHER_SECRET))
}

#[test]
fn a_replaced_key_is_in_force_after_the_interval_and_the_old_one_no_longer() {
    let folder = Folder::new();
    let path = folder.file("key", SECRET);
    let tokens = Tokens::open(&key_file("HS256", &path)).unwrap().unwrap();
    std::fs::rename(folder.file("new", OTHER_SECRET), &path).unwrap();
    assert_eq!(accepted(&tokens, INTERVAL_MS - 1), (true, false));
    assert_eq!(accepted(&tokens, INTERVAL_MS), (false, true));
}

#[test]
fn a_key_that_is_overwritten_in_place_with_one_as_long_is_noticed() {
    let folder = Folder::new();
    let other = &format!("{OTHER_SECRET}0123")[..SECRET.len()];
    let path = folder.file("key", SECRET);
    let tokens = Tokens::open(&key_file("HS256", &path)).unwrap().unwrap();
    std::fs::write(&path, other).unwrap();
    let token = mint(Algorithm::Hs256, other, json!({}));
    assert!(tokens.verify_at(&token, NOW_MS, INTERVAL_MS).is_ok());
}

#[test]
fn a_damaged_or_missing_replacement_leaves_the_old_key_in_force() {
    let folder = Folder::new();
    let path = folder.file("key", SECRET);
    let tokens = Tokens::open(&key_file("HS256", &path)).unwrap().unwrap();
    folder.file("key", "short");
    assert_eq!(accepted(&tokens, INTERVAL_MS), (true, false));
    std::fs::remove_file(&path).unwrap();
    assert_eq!(accepted(&tokens, 2 * INTERVAL_MS), (true, false));
    folder.file("key", OTHER_SECRET);
    assert_eq!(accepted(&tokens, 3 * INTERVAL_MS), (false, true));
}

#[test]
fn an_interval_of_zero_looks_every_time() {
    let folder = Folder::new();
    let path = folder.file("key", SECRET);
    let settings = config::Auth {
        reload_interval_ms: 0,
        ..key_file("HS256", &path)
    };
    let tokens = Tokens::open(&settings).unwrap().unwrap();
    folder.file("key", OTHER_SECRET);
    assert_eq!(accepted(&tokens, 0), (false, true));
    folder.file("key", SECRET);
    assert_eq!(accepted(&tokens, 0), (true, false));
}

#[test]
fn a_key_that_is_not_known_yet_is_looked_for_before_the_interval_is_over() {
    let folder = Folder::new();
    let one = entry("one", Algorithm::Rs256, RSA_1);
    let path = folder.file("set", set(std::slice::from_ref(&one)));
    let settings = config::Auth {
        reload_interval_ms: 3_600_000,
        ..jwks_file(&["RS256"], &path)
    };
    let tokens = Tokens::open(&settings).unwrap().unwrap();
    folder.file("set", set(&[one, entry("two", Algorithm::Rs256, RSA_2)]));
    let token = named("two", Algorithm::Rs256, RSA_2);
    let failure = tokens.verify_at(&token, NOW_MS, 999).unwrap_err();
    assert_eq!(failure.params, Some(json!({"reason": "unknown-key"})));
    assert!(tokens.verify_at(&token, NOW_MS, 1_000).is_ok());
}

#[test]
fn keys_change_under_load_without_a_refusal() {
    let folder = Folder::new();
    let path = folder.file("key", SECRET);
    let settings = config::Auth {
        reload_interval_ms: 0,
        ..key_file("HS256", &path)
    };
    let tokens = Tokens::open(&settings).unwrap().unwrap();
    let token = mint(Algorithm::Hs256, SECRET, json!({}));
    std::thread::scope(|scope| {
        for _ in 0..2 {
            scope.spawn(|| {
                for _ in 0..500 {
                    assert!(verify(&tokens, &token).is_ok());
                }
            });
        }
        for n in 0..100 {
            let line_break = if n % 2 == 0 { "\n" } else { "" };
            let new = folder.file("new", format!("{SECRET}{line_break}"));
            std::fs::rename(new, &path).unwrap();
        }
    });
}

#[test]
fn a_minted_token_is_issued_now_and_ends_after_its_time() {
    let before = system_ms() / 1000;
    let ttl = Some(Duration::from_secs(60));
    let key = SECRET.as_bytes();
    let token = Tokens::mint(Map::new(), ttl, Algorithm::Hs256, key, None).unwrap();
    let identity = secret_tokens().verify(&token).unwrap();
    let claims: Value = serde_json::from_str(&identity.claims).unwrap();
    let issued = claims["iat"].as_u64().unwrap();
    assert!((before..=system_ms() / 1000).contains(&issued));
    let end = claims["exp"].as_u64().unwrap();
    assert!(end == issued + 60 || end == issued + 61, "{claims}");
}

#[test]
fn claims_that_are_given_are_kept_when_minting() {
    let given = json!({"iat": 1, "exp": NOW + 1, "sub": "ann"});
    let ttl = Some(Duration::from_secs(60));
    let key = SECRET.as_bytes();
    let token = Tokens::mint(claims(given.clone()), ttl, Algorithm::Hs256, key, None).unwrap();
    let identity = verify(&secret_tokens(), &token).unwrap();
    assert_eq!(*identity.claims, *given.to_string());
}

#[test]
fn minting_with_a_key_that_does_not_fit_is_explained() {
    for (algorithm, key, says) in [
        (Algorithm::Hs256, "short", "at least 32 bytes"),
        (Algorithm::Hs256, RSA_1, "found a key in PEM"),
        (Algorithm::Rs256, RSA_1_PUBLIC, "found `PUBLIC KEY`"),
        (Algorithm::Rs256, P256_1, "another kind"),
        (Algorithm::Rs256, SECRET, "found 0 PEM blocks"),
        (Algorithm::Es256, P256_1_SEC1, "openssl pkcs8"),
        (Algorithm::Es256, ED_1, "another kind"),
        (Algorithm::EdDsa, RSA_1, "another kind"),
    ] {
        let error = Tokens::mint(Map::new(), None, algorithm, key.as_bytes(), None).unwrap_err();
        assert!(error.to_string().contains(says), "{error}");
    }
}

#[test]
fn debug_shows_no_key() {
    let text = format!("{:?}", secret_tokens());
    assert!(!text.contains("secret") && text.contains("Hs256"), "{text}");
}

proptest! {
    #[test]
    fn no_text_makes_verify_panic_or_pass(token in ".{0,200}") {
        prop_assert!(verify(&secret_tokens(), &token).is_err());
    }

    #[test]
    fn no_head_and_no_claims_make_verify_panic(
        head in "\\{\"alg\":\"[HREdDS256A]{0,6}\"[a-z\":,{}0-9]{0,20}\\}",
        claims in "\\{\"(exp|nbf|aud|sub)\":[-0-9.e\"\\[\\]{}a-z]{0,20}\\}",
    ) {
        let _ = verify(&secret_tokens(), &raw(&head, &claims));
        let _ = verify(&secret_tokens(), &with_claims(&claims));
    }

    #[test]
    fn no_key_file_makes_opening_panic(
        bytes in proptest::collection::vec(any::<u8>(), 0..200),
        members in "[a-z\":,{}\\[\\]0-9]{0,60}",
    ) {
        let text = format!("-----BEGIN PUBLIC KEY-----\n{}\n-----END PUBLIC KEY-----\n",
            base64::engine::general_purpose::STANDARD.encode(&bytes));
        for algorithm in [Algorithm::Rs256, Algorithm::Es256, Algorithm::EdDsa] {
            prop_assert!(super::super::keys::Keys::parse(&Format::Single(algorithm), text.as_bytes()).is_err());
        }
        let set = format!(r#"{{"keys":[{{"kty":"OKP","crv":"Ed25519",{members}}}]}}"#);
        let format = Format::Set(vec![Algorithm::EdDsa]);
        let _ = super::super::keys::Keys::parse(&format, set.as_bytes());
    }
}

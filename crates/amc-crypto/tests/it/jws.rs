//! Receipts: the known attacks on JWS, and receipts of other logs.

use amc_core::{AgentId, SessionId};
use amc_crypto::jws::{Receipt, ReceiptClaims, ReceiptError, ReceiptKind, ReceiptTrust, assemble, signing_input};
use amc_crypto::note::VerifierKey;
use amc_crypto::{Unverified, sha256};
use base64::Engine as _;
use base64::engine::general_purpose::{URL_SAFE, URL_SAFE_NO_PAD};
use serde_json::{Value, json};

use super::TestKey;

/// A defect's name, and what makes it.
type Case = (&'static str, fn(&mut Value));

fn monitor() -> TestKey {
    TestKey::log("acme/evidence", 1)
}

fn claims() -> ReceiptClaims {
    ReceiptClaims {
        v: 1,
        receipt_id: "r-1".into(),
        kind: ReceiptKind::LlmResponse,
        ts: "2026-01-02T03:04:05Z".into(),
        agent_id: AgentId::new("agent").expect("an id"),
        session_id: SessionId([7; 16]),
        request_id: "q-1".into(),
        provider: "openai".into(),
        model: Some("m".into()),
        log: "acme/evidence".into(),
        event_index: 4,
        event_hash: sha256(b"event"),
        body_sha256: sha256(b"body"),
    }
}

fn mint(key: &TestKey, claims: &ReceiptClaims) -> String {
    let input = signing_input(&key.verifier, claims);
    assemble(&input, &key.sign(input.as_bytes()))
}

/// A receipt with any header and claims, rightly signed.
fn mint_json(header: &Value, claims: &Value) -> String {
    let part = |json: &Value| URL_SAFE_NO_PAD.encode(json.to_string());
    let input = format!("{}.{}", part(header), part(claims));
    let signature = monitor().sign(input.as_bytes());
    assemble(&input, &signature)
}

fn header() -> Value {
    json!({"alg": "EdDSA", "typ": "amc-receipt+jws", "kid": monitor().verifier.kid()})
}

fn verify(text: &str, keys: &[VerifierKey]) -> Result<ReceiptClaims, ReceiptError> {
    Unverified::new(Receipt::parse(text)?).verify(&ReceiptTrust { keys }).map(amc_crypto::Verified::into_inner)
}

#[test]
fn a_receipt_verifies() {
    let text = mint(&monitor(), &claims());
    assert_eq!(verify(&text, &[monitor().verifier]).expect("verifies"), claims());
    let claims_json = serde_json::to_value(claims()).expect("JSON");
    assert!(verify(&mint_json(&header(), &claims_json), &[monitor().verifier]).is_ok());
}

#[test]
fn rightly_signed_headers_that_are_refused() {
    let claims = serde_json::to_value(claims()).expect("JSON");
    let cases: [Case; 9] = [
        ("alg none", |header| header["alg"] = json!("none")),
        ("alg HS256", |header| header["alg"] = json!("HS256")),
        ("alg in other case", |header| header["alg"] = json!("eddsa")),
        ("other typ", |header| header["typ"] = json!("JWT")),
        ("no typ", |header| drop(header.as_object_mut().expect("an object").remove("typ"))),
        ("no kid", |header| drop(header.as_object_mut().expect("an object").remove("kid"))),
        ("a key in the header", |header| header["jwk"] = json!({"kty": "OKP"})),
        ("critical extensions", |header| header["crit"] = json!(["b64"])),
        ("unencoded payload", |header| header["b64"] = json!(false)),
    ];
    for (name, change) in cases {
        let mut header = header();
        change(&mut header);
        let text = mint_json(&header, &claims);
        assert!(Receipt::parse(&text).is_err(), "{name}");
    }
}

#[test]
fn rightly_signed_claims_that_are_refused() {
    let cases: [Case; 6] = [
        ("version 2", |claims| claims["v"] = json!(2)),
        ("unknown claim", |claims| claims["admin"] = json!(true)),
        ("missing claim", |claims| drop(claims.as_object_mut().expect("an object").remove("event_hash"))),
        ("an agent id that is none", |claims| claims["agent_id"] = json!("../x")),
        ("a hash in upper case", |claims| claims["body_sha256"] = json!("A".repeat(64))),
        ("an unknown kind", |claims| claims["kind"] = json!("llm_dream")),
    ];
    for (name, change) in cases {
        let mut claims = serde_json::to_value(claims()).expect("JSON");
        change(&mut claims);
        assert!(Receipt::parse(&mint_json(&header(), &claims)).is_err(), "{name}");
    }
}

#[test]
fn malformed_texts() {
    let good = mint(&monitor(), &claims());
    let parts: Vec<&str> = good.split('.').collect();
    let padded = URL_SAFE.encode(URL_SAFE_NO_PAD.decode(parts[2]).expect("base64url"));
    assert!(padded.ends_with('='));
    for (name, bad) in [
        ("empty", String::new()),
        ("two parts", format!("{}.{}", parts[0], parts[1])),
        ("an extra part", format!("{good}.e30")),
        ("no signature", format!("{}.{}.", parts[0], parts[1])),
        ("padded base64", format!("{}.{}.{padded}", parts[0], parts[1])),
        ("standard base64", format!("{}.{}.{}", parts[0], parts[1], "+/".repeat(43))),
        ("a line ending", format!("{good}\n")),
        ("a space in front", format!(" {good}")),
        ("a signature of 63 bytes", format!("{}.{}.{}", parts[0], parts[1], "A".repeat(84))),
    ] {
        assert!(Receipt::parse(&bad).is_err(), "{name}");
    }
    assert!(matches!(Receipt::parse(&"a".repeat(8 * 1024 + 1)), Err(ReceiptError::TooLong)));
}

#[test]
fn unknown_kid() {
    let other = TestKey::log("acme/evidence", 2);
    let error = verify(&mint(&monitor(), &claims()), &[other.verifier]).expect_err("refused");
    assert!(matches!(error, ReceiptError::UnknownKey(kid) if kid == monitor().verifier.kid()));
    assert!(verify(&mint(&monitor(), &claims()), &[]).is_err(), "nothing pinned");
}

#[test]
fn the_key_of_another_log() {
    let other = TestKey::log("other/evidence", 2);
    // The other log's monitor mints a receipt that names our log; both are pinned.
    let error = verify(&mint(&other, &claims()), &[monitor().verifier, other.verifier]).expect_err("refused");
    assert!(matches!(error, ReceiptError::UnknownKey(_)), "{error}");
}

#[test]
fn signed_by_another_key_under_our_kid() {
    let input = signing_input(&monitor().verifier, &claims());
    let forged = assemble(&input, &TestKey::log("x", 2).sign(input.as_bytes()));
    let error = verify(&forged, &[monitor().verifier]).expect_err("refused");
    assert!(matches!(error, ReceiptError::BadSignature(_)), "{error}");
}

#[test]
fn claims_swapped() {
    let good = mint(&monitor(), &claims());
    let other = mint(&monitor(), &ReceiptClaims { event_index: 5, ..claims() });
    let (a, b): (Vec<_>, Vec<_>) = (good.split('.').collect(), other.split('.').collect());
    let error = verify(&[a[0], b[1], a[2]].join("."), &[monitor().verifier]).expect_err("refused");
    assert!(matches!(error, ReceiptError::BadSignature(_)), "{error}");
}

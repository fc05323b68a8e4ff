//! DSSE envelopes and statements: what verifies, and what an attacker would try.

use amc_crypto::dsse::{Envelope, EnvelopeError, PAYLOAD_TYPE, StatementTrust, pae};
use amc_crypto::statement::StatementError;
use amc_crypto::{PredicateType, PublicKey, Statement, Subject, Unverified, sha256};
use base64::{Engine as _, engine::general_purpose::STANDARD};
use serde_json::{Value, json};

use super::TestKey;

/// A defect's name, and what makes it.
type Case = (&'static str, fn(&mut Value));

fn key() -> TestKey {
    TestKey::log("acme/audit", 1)
}

fn statement() -> Statement {
    let subject = vec![Subject::new("report.json", sha256(b"report"))];
    Statement::new(PredicateType::Run, subject, &json!({"run": "run-1"})).expect("a statement")
}

fn sign(key: &TestKey, payload: &[u8]) -> Envelope {
    Envelope::new(payload, key.public(), &key.sign(&pae(PAYLOAD_TYPE, payload)))
}

fn envelope_json() -> Value {
    serde_json::from_str(&sign(&key(), &statement().to_json()).to_json()).expect("JSON")
}

fn verify(envelope: Envelope, keys: &[PublicKey]) -> Result<Statement, EnvelopeError> {
    let trust = StatementTrust { keys, wanted: PredicateType::Run };
    Unverified::new(envelope).verify(&trust).map(|signed| signed.into_inner().statement)
}

fn reparse(json: &Value) -> Result<Envelope, EnvelopeError> {
    Envelope::parse(json.to_string().as_bytes())
}

#[test]
fn the_encoding_is_that_of_the_specification() {
    assert_eq!(
        pae("http://example.com/HelloWorld", b"hello world"),
        b"DSSEv1 29 http://example.com/HelloWorld 11 hello world"
    );
}

#[test]
fn a_signed_statement_verifies_under_any_pinned_key() {
    let envelope = reparse(&envelope_json()).expect("parses");
    let other = TestKey::log("other/audit", 2).public();
    assert_eq!(verify(envelope, &[other, key().public()]).expect("verifies"), statement());
}

#[test]
fn wrong_key() {
    let other = TestKey::log("other/audit", 2).public();
    let error = verify(reparse(&envelope_json()).expect("parses"), &[other]).expect_err("refused");
    assert!(matches!(&error, EnvelopeError::Untrusted { keyid } if *keyid == key().public().dsse_key_id()), "{error}");
    assert!(verify(reparse(&envelope_json()).expect("parses"), &[]).is_err(), "nothing pinned");
}

#[test]
fn a_key_id_is_a_hint_only() {
    let mut json = envelope_json();
    json["signatures"][0]["keyid"] = json!("whatever");
    verify(reparse(&json).expect("parses"), &[key().public()]).expect("the pinned key signed it");
    let mut forged: Value =
        serde_json::from_str(&sign(&TestKey::log("x", 2), &statement().to_json()).to_json()).expect("JSON");
    forged["signatures"][0]["keyid"] = json!(key().public().dsse_key_id());
    let error = verify(reparse(&forged).expect("parses"), &[key().public()]).expect_err("refused");
    assert!(matches!(error, EnvelopeError::BadSignature { .. }), "{error}");
}

#[test]
fn payload_swapped() {
    let mut json = envelope_json();
    let mut other = statement();
    other.subject[0].name = "another.json".into();
    json["payload"] = json!(STANDARD.encode(other.to_json()));
    let error = verify(reparse(&json).expect("parses"), &[key().public()]).expect_err("refused");
    assert!(matches!(error, EnvelopeError::BadSignature { .. }), "{error}");
}

#[test]
fn signed_without_the_envelopes_encoding() {
    let payload = statement().to_json();
    let bare = Envelope::new(&payload, key().public(), &key().sign(&payload));
    assert!(verify(bare, &[key().public()]).is_err(), "a signature over the bare payload");
    let other_type = Envelope::new(&payload, key().public(), &key().sign(&pae("application/json", &payload)));
    assert!(verify(other_type, &[key().public()]).is_err(), "a signature for another payload type");
}

#[test]
fn malformed_envelopes() {
    let edit = |change: fn(&mut Value)| {
        let mut json = envelope_json();
        change(&mut json);
        reparse(&json)
    };
    let cases: [Case; 8] = [
        ("no signatures", |json| json["signatures"] = json!([])),
        ("nine signatures", |json| json["signatures"] = Value::Array(vec![json["signatures"][0].clone(); 9])),
        ("signatures absent", |json| drop(json.as_object_mut().expect("an object").remove("signatures"))),
        ("key id absent", |json| drop(json["signatures"][0].as_object_mut().expect("an object").remove("keyid"))),
        ("another payload type", |json| json["payloadType"] = json!("application/json")),
        ("unknown field", |json| json["extra"] = json!(1)),
        ("unknown field of a signature", |json| json["signatures"][0]["cert"] = json!("")),
        ("payload no string", |json| json["payload"] = json!({})),
    ];
    for (name, change) in cases {
        assert!(edit(change).is_err(), "{name}");
    }
    let text = envelope_json().to_string();
    let twice = text.replacen('{', r#"{"payload":"e30=","#, 1);
    assert!(Envelope::parse(twice.as_bytes()).is_err(), "payload twice");
    assert!(Envelope::parse(format!("{text} x").as_bytes()).is_err(), "something behind");
    assert!(matches!(Envelope::parse(&vec![b' '; (4 << 20) + 1]), Err(EnvelopeError::TooLong)));
}

#[test]
fn malformed_signatures_and_payloads() {
    let cases: [Case; 4] = [
        ("sig not base64", |json| json["signatures"][0]["sig"] = json!("!!!!")),
        ("sig of 63 bytes", |json| json["signatures"][0]["sig"] = json!(STANDARD.encode([0; 63]))),
        ("payload not base64", |json| json["payload"] = json!("!")),
        ("payload base64url", |json| json["payload"] = json!("__8=")),
    ];
    for (name, change) in cases {
        let mut json = envelope_json();
        change(&mut json);
        let error = verify(reparse(&json).expect("parses"), &[key().public()]).expect_err(name);
        assert!(matches!(error, EnvelopeError::Malformed(_)), "{name}: {error}");
    }
}

#[test]
fn signed_payloads_that_are_no_statement() {
    let good: Value = serde_json::from_slice(&statement().to_json()).expect("JSON");
    let cases: [Case; 9] = [
        ("another type", |json| json["_type"] = json!("https://in-toto.io/Statement/v0.1")),
        ("no subject", |json| json["subject"] = json!([])),
        ("a subject without SHA-256", |json| json["subject"][0]["digest"] = json!({"sha512": "00"})),
        ("an upper-case digest", |json| json["subject"][0]["digest"]["sha256"] = json!("A".repeat(64))),
        ("an empty predicate", |json| json["predicate"] = json!({})),
        ("a predicate that is no object", |json| json["predicate"] = json!([1])),
        ("an unknown predicate type", |json| json["predicateType"] = json!("urn:amc:predicate:run:v2")),
        ("an unknown field", |json| json["extra"] = json!(1)),
        ("the kind of another place", |json| json["predicateType"] = json!("urn:amc:predicate:config:v1")),
    ];
    for (name, change) in cases {
        let mut json = good.clone();
        change(&mut json);
        let error = verify(sign(&key(), json.to_string().as_bytes()), &[key().public()]).expect_err(name);
        assert!(matches!(error, EnvelopeError::Statement(_)), "{name}: {error}");
    }
}

#[test]
fn statements_are_checked_when_they_are_made() {
    let subject = || vec![Subject::new("f", sha256(b""))];
    let make = |subject, predicate: Value| Statement::new(PredicateType::Run, subject, &predicate);
    assert!(matches!(make(vec![], json!({"a": 1})), Err(StatementError::Shape)));
    assert!(matches!(make(subject(), json!({})), Err(StatementError::Shape)));
    assert!(matches!(make(subject(), json!(7)), Err(StatementError::Shape)));
    assert!(make(subject(), json!({"a": 1})).is_ok());
}

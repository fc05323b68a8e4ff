//! Certificates: what one proves, when it stops, and who can say that it stopped.

use std::io::Cursor;

use amc_bundle::certificate::{
    CertificatePlan, CertificatePredicate, badge, certificate_statement, pack_certificate, page, revocation_statement,
};
use amc_bundle::gate::{PolicyFile, PolicyTrust};
use amc_bundle::{CertificateVerdict, Revocation, member, verify_certificate};
use amc_core::FindingCode as Code;
use amc_core::timestamp::from_rfc3339;
use amc_crypto::{PredicateType, Statement, Subject, Unverified};

use crate::world::{DAY, Key, Keys, Parts, Plan, S, World};

/// A run without sessions, which is VALID.
fn world() -> World {
    World::planned(Plan { sessions: 0, window_days: 14 })
}

const POLICY: &str = r#"{"agentId": "alpha", "minIntegrityBp": 0}"#;
const DAYS: u64 = 30;

fn issued_s(world: &World) -> u64 {
    u64::try_from(world.audit.now_ns() / S + 60).expect("positive")
}

/// What the issuer would sign for this policy.
fn predicate(world: &World, policy: &str) -> CertificatePredicate {
    let auditor = &world.keys.auditor;
    let signature = auditor.config_sig("agents/alpha/gatePolicy.json", 4, None, policy.as_bytes());
    let file = PolicyFile { bytes: policy.as_bytes(), signature: Some(&signature) };
    let trust = PolicyTrust { keys: &[auditor.public()], digest: None };
    let signed = Unverified::new(file).verify(&trust).expect("signed");
    let from = issued_s(world);
    let plan = CertificatePlan {
        report: &world.report,
        policy,
        signed: &signed,
        not_before_s: from,
        not_after_s: from + DAYS * 86_400,
    };
    plan.predicate()
}

fn signed_by(key: &Key, world: &World, predicate: &CertificatePredicate) -> Vec<u8> {
    key.envelope(&certificate_statement(predicate, &world.report)).to_json().into_bytes()
}

/// A policy that sets every key that this run can pass: the longest page that is likely.
fn demanding(world: &World) -> String {
    let layers: Vec<String> = world.report.layers.iter().map(|layer| format!("\"{}\": 0", layer.id)).collect();
    format!(
        r#"{{"agentId": "alpha", "minIntegrityBp": 0, "minOverallBp": 0, "minLayerBp": {{{}}},
        "requireObservedForLevel5": true, "requireStatusValid": true, "maxAgeHours": 9999, "maxAsOfAgeHours": 9999,
        "minWindowDays": 14, "allowedUpstreams": ["https://api.openai.com", "https://api.anthropic.com"],
        "forbidFindings": ["CHERRY_PICK_GAP", "CLOCK_ROLLBACK", "LEDGER_RECOVERED", "SESSION_GAP", "SESSION_UNSEALED"],
        "witnessQuorum": 1}}"#,
        layers.join(", ")
    )
}

/// `AMC_WRITE_PAGES=DIR` also writes it: `cargo xtask browser` prints it on one sheet.
#[test]
fn the_page_of_a_policy_with_every_key() {
    let world = world();
    let says = predicate(&world, &demanding(&world));
    let bytes = packed(&world, signed_by(&world.keys.auditor, &world, &says));
    let verdict = verified(&world, &bytes, &[], now(&world));
    let page = page(verdict.certificate().unwrap_or_else(|| panic!("{:#?}", verdict.findings)));
    for rule in ["minLayerBp.", "allowedUpstreams", "forbidFindings", "witnessQuorum", "maxAsOfAgeHours"] {
        assert!(page.contains(rule), "{rule}");
    }
    if let Some(dir) = std::env::var_os("AMC_WRITE_PAGES") {
        std::fs::write(std::path::Path::new(&dir).join("certificate.html"), page).expect("a file");
    }
}

/// The archive with this certificate.
fn packed(world: &World, certificate: Vec<u8>) -> Vec<u8> {
    let mut parts = Parts::of(&world.export());
    parts.members.insert(member::CERTIFICATE.into(), certificate);
    parts.pack(&world.keys.auditor)
}

fn good(world: &World) -> (CertificatePredicate, Vec<u8>) {
    let predicate = predicate(world, POLICY);
    let certificate = world.keys.auditor.envelope(&certificate_statement(&predicate, &world.report));
    let mut bytes = Vec::new();
    let mut bundle = Cursor::new(world.export());
    let written = pack_certificate(&mut bundle, &certificate, &world.keys.auditor, &mut bytes).expect("packs");
    assert_eq!(written, bytes.len() as u64);
    let mut again = Cursor::new(bytes.clone());
    assert!(pack_certificate(&mut again, &certificate, &world.keys.auditor, Vec::new()).is_err(), "one certificate");
    (predicate, bytes)
}

fn verified(world: &World, bytes: &[u8], revocations: &[Revocation], now_ns: i64) -> CertificateVerdict {
    verify_certificate(Cursor::new(bytes), &world.keys.policy(), revocations, now_ns)
        .expect("reading from memory does not fail")
}

fn now(world: &World) -> i64 {
    world.audit.now_ns() + DAY
}

fn codes(verdict: &CertificateVerdict) -> Vec<Code> {
    verdict.findings.iter().filter(|finding| finding.is_error()).map(|finding| finding.code).collect()
}

#[track_caller]
fn refused(name: &str, verdict: &CertificateVerdict, code: Code) {
    assert!(!verdict.is_good(), "{name}: it verifies");
    assert!(codes(verdict).contains(&code), "{name}: wanted {code}, found {:?}", verdict.findings);
    assert_eq!(verdict.data().certificate_id, None, "{name}: nothing of it is repeated as if it were true");
}

#[test]
fn a_certificate_verifies_and_so_does_the_bundle_in_it() {
    let world = world();
    let (says, bytes) = good(&world);
    let verdict = verified(&world, &bytes, &[], now(&world));
    assert_eq!(codes(&verdict), []);
    let certificate = verdict.certificate().expect("verifies");
    assert_eq!(certificate.predicate, says);
    assert_eq!(certificate.bundle.report, world.report);
    assert!(crate::world::verify(&bytes, &world.keys.policy()).is_good());
    let shown = amc_bundle::inspect(bytes.as_slice()).expect("an archive");
    assert_eq!(shown.certificate, Some(says));
}

#[test]
fn a_bundle_is_no_certificate() {
    let world = world();
    refused("bundle", &verified(&world, &world.export(), &[], now(&world)), Code::BundleMalformed);
}

#[test]
fn its_time_is_enforced_to_the_second() {
    let world = world();
    let (says, bytes) = good(&world);
    let from = from_rfc3339(&says.not_before).expect("a time");
    let to = from_rfc3339(&says.not_after).expect("a time");
    for now_ns in [from, from - 300 * S, to, to + S - 1] {
        assert!(verified(&world, &bytes, &[], now_ns).is_good(), "{now_ns}");
    }
    for now_ns in [from - 300 * S - 1, to + S, to + 400 * DAY, 0, i64::MAX] {
        refused(&now_ns.to_string(), &verified(&world, &bytes, &[], now_ns), Code::CertExpired);
    }
}

#[test]
fn a_certificate_by_somebody_else_is_refused() {
    let world = world();
    let says = predicate(&world, POLICY);
    let stranger = Keys::new("ws-1", 60);
    for (name, key) in [("stranger", &stranger.auditor), ("monitor", &world.keys.monitor)] {
        let bytes = packed(&world, signed_by(key, &world, &says));
        refused(name, &verified(&world, &bytes, &[], now(&world)), Code::BundleMemberMismatch);
    }
    let (_, bytes) = good(&world);
    let verdict = verify_certificate(Cursor::new(&bytes), &stranger.policy(), &[], now(&world)).expect("reads");
    refused("not pinned", &verdict, Code::IssuerUntrusted);
}

#[test]
fn a_certificate_that_says_otherwise_than_its_run_is_refused() {
    let world = world();
    type Change = fn(&mut CertificatePredicate);
    let cases: [(&str, Change); 9] = [
        ("another agent", |says| says.agent = crate::world::other_agent()),
        ("another run", |says| says.run_id = amc_core::RunId::new(format!("run-{}", "0".repeat(32))).expect("an id")),
        ("another issuer", |says| says.issuer = "ws-2/audit".into()),
        ("a longer time", |says| says.not_after = "2027-01-01T00:00:00Z".into()),
        ("an earlier start", |says| says.not_before = "2026-01-01T00:00:00Z".into()),
        ("no time", |says| says.not_after = "never".into()),
        ("another policy", |says| says.policy.text = "{}".into()),
        ("another version of the format", |says| says.version = 2),
        ("another id", |says| {
            says.certificate_id = amc_core::CertificateId::new(format!("cert-{}", "1".repeat(32))).expect("an id");
        }),
    ];
    for (name, change) in cases {
        let mut says = predicate(&world, POLICY);
        change(&mut says);
        let bytes = packed(&world, signed_by(&world.keys.auditor, &world, &says));
        refused(name, &verified(&world, &bytes, &[], now(&world)), Code::BundleMemberMismatch);
    }
}

#[test]
fn a_time_longer_than_any_may_be_is_refused() {
    let world = world();
    let from = issued_s(&world);
    for (days, holds) in [(366, true), (367, false)] {
        let auditor = &world.keys.auditor;
        let signature = auditor.config_sig("p", 1, None, POLICY.as_bytes());
        let file = PolicyFile { bytes: POLICY.as_bytes(), signature: Some(&signature) };
        let signed = Unverified::new(file).verify(&PolicyTrust { keys: &[auditor.public()], digest: None });
        let signed = signed.expect("signed");
        let not_after_s = from + days * 86_400;
        let plan =
            CertificatePlan { report: &world.report, policy: POLICY, signed: &signed, not_before_s: from, not_after_s };
        let bytes = packed(&world, signed_by(auditor, &world, &plan.predicate()));
        assert_eq!(verified(&world, &bytes, &[], now(&world)).is_good(), holds, "{days} days");
    }
}

#[test]
fn an_issuer_cannot_certify_what_its_policy_denies() {
    let world = world();
    for policy in [r#"{"denyIfLowTrust": true}"#, r#"{"minWindowDays": 15}"#, r#"{"agentId": "beta"}"#, "not JSON"] {
        let says = predicate_unchecked(&world, policy);
        let bytes = packed(&world, signed_by(&world.keys.auditor, &world, &says));
        refused(policy, &verified(&world, &bytes, &[], now(&world)), Code::BundleMemberMismatch);
    }
    // A run that is INVALID passes no policy.
    let invalid = World::new();
    let says = predicate_unchecked(&invalid, r#"{"minWindowDays": 0}"#);
    let bytes = packed(&invalid, signed_by(&invalid.keys.auditor, &invalid, &says));
    refused("INVALID", &verified(&invalid, &bytes, &[], now(&invalid)), Code::BundleMemberMismatch);
}

/// What a lying issuer would sign: the id fits, and nobody looked at the policy.
fn predicate_unchecked(world: &World, policy: &str) -> CertificatePredicate {
    let signed = {
        let signature = world.keys.auditor.config_sig("p", 4, None, b"{}");
        let file = PolicyFile { bytes: b"{}", signature: Some(&signature) };
        Unverified::new(file).verify(&PolicyTrust { keys: &[world.keys.auditor.public()], digest: None })
    };
    let signed = signed.expect("signed");
    let from = issued_s(world);
    let not_after_s = from + DAYS * 86_400;
    CertificatePlan { report: &world.report, policy, signed: &signed, not_before_s: from, not_after_s }.predicate()
}

#[test]
fn a_certificate_of_another_run_is_refused() {
    let world = world();
    let other = World::planned(Plan { sessions: 0, window_days: 15 });
    let (says, _) = good(&other);
    let bytes = packed(&world, signed_by(&other.keys.auditor, &other, &says));
    refused("moved", &verified(&world, &bytes, &[], now(&world)), Code::BundleMemberMismatch);
}

#[test]
fn a_statement_of_another_kind_is_no_certificate() {
    let world = world();
    let says = predicate(&world, POLICY);
    let subject = || vec![Subject::new(member::REPORT_JSON, amc_crypto::sha256(&world.report.to_bytes()))];
    let as_run = Statement::new(PredicateType::Run, subject(), &says).expect("a statement");
    let other_subject = vec![Subject::new("report.json", amc_crypto::sha256(&world.report.to_bytes()))];
    let named = Statement::new(PredicateType::Certificate, other_subject, &says).expect("a statement");
    let two = Statement::new(PredicateType::Certificate, [subject(), subject()].concat(), &says).expect("a statement");
    for (name, statement) in [("run", as_run), ("subject's name", named), ("two subjects", two)] {
        let envelope = world.keys.auditor.envelope(&statement).to_json().into_bytes();
        let verdict = verified(&world, &packed(&world, envelope), &[], now(&world));
        refused(name, &verdict, Code::BundleMemberMismatch);
    }
}

fn revocation(key: &Key, world: &World, says: &CertificatePredicate, issuer: &str) -> Revocation {
    let sha256 = amc_crypto::sha256(&signed_by(&world.keys.auditor, world, says));
    let statement =
        revocation_statement(&says.certificate_id, sha256, issuer, issued_s(world) + 5, "the agent was replaced", &[]);
    Revocation::parse(key.envelope(&statement).to_json().as_bytes()).expect("a revocation")
}

#[test]
fn the_issuers_revocation_ends_it() {
    let world = world();
    let (says, bytes) = good(&world);
    let revocation = revocation(&world.keys.auditor, &world, &says, "ws-1/audit");
    let verdict = verified(&world, &bytes, &[revocation], now(&world));
    refused("revoked", &verdict, Code::CertRevoked);
    let message = &verdict.first_error().expect("refused").message;
    assert!(message.contains("the agent was replaced"), "{message}");
}

#[test]
fn a_strangers_revocation_is_named_and_does_not_count() {
    let world = world();
    let (says, bytes) = good(&world);
    let stranger = Keys::new("ws-1", 60);
    for (name, key, issuer) in [
        ("stranger", &stranger.auditor, "ws-1/audit"),
        ("monitor", &world.keys.monitor, "ws-1/audit"),
        ("for another issuer", &world.keys.auditor, "ws-2/audit"),
    ] {
        let verdict = verified(&world, &bytes, &[revocation(key, &world, &says, issuer)], now(&world));
        assert!(verdict.is_good(), "{name}");
        let found: Vec<Code> = verdict.findings.iter().map(|finding| finding.code).collect();
        assert_eq!(found, [Code::RevocationIssuerMismatch], "{name}");
    }
}

#[test]
fn a_revocation_of_another_certificate_says_nothing() {
    let world = world();
    let (_, bytes) = good(&world);
    let other = predicate_unchecked(&world, "{}");
    let verdict =
        verified(&world, &bytes, &[revocation(&world.keys.auditor, &world, &other, "ws-1/audit")], now(&world));
    assert!(verdict.is_good() && verdict.findings.is_empty(), "{:?}", verdict.findings);
}

#[test]
fn what_is_no_revocation_is_not_skipped() {
    let world = world();
    let says = predicate(&world, POLICY);
    let certificate = signed_by(&world.keys.auditor, &world, &says);
    for (name, bytes) in [("certificate", certificate), ("empty", Vec::new()), ("text", b"{}".to_vec())] {
        assert!(Revocation::parse(&bytes).is_err(), "{name}");
    }
}

#[test]
fn page_and_badge_show_the_verified_figures() {
    let world = world();
    let (says, bytes) = good(&world);
    let verdict = verified(&world, &bytes, &[], now(&world));
    let certificate = verdict.certificate().expect("verifies");
    let (page, badge) = (page(certificate), badge(certificate));
    let report = &world.report;
    let level = format!("{}.{:02}", report.overall_bp / 10_000, report.overall_bp % 10_000 / 100);
    for wanted in [
        says.certificate_id.as_str(),
        report.run_id.as_str(),
        &says.not_after,
        &says.not_before,
        &level,
        report.label.as_str(),
        "VALID",
        "minIntegrityBp",
        &world.keys.auditor.public().dsse_key_id(),
    ] {
        assert!(page.contains(wanted), "{wanted}");
    }
    assert!(!page.contains("not asked for") && !page.contains("<script"), "only what was asked");
    for wanted in [&level, "alpha", says.not_after.get(..10).expect("a day"), says.certificate_id.as_str()] {
        assert!(badge.contains(wanted), "{wanted}: {badge}");
    }
}

#[test]
fn schema_page_and_predicate_agree() {
    let schema: serde_json::Value =
        serde_json::from_str(include_str!("../../../../docs/formats/certificate.schema.json")).expect("JSON");
    let page = include_str!("../../../../docs/formats/certificate.md");
    let says = serde_json::to_value(predicate(&world(), POLICY)).expect("plain values serialise");
    let keys = |value: &serde_json::Value| value.as_object().expect("an object").keys().cloned().collect::<Vec<_>>();
    assert_eq!(keys(&schema["properties"]), keys(&says));
    assert_eq!(keys(&schema["properties"]["policy"]["properties"]), keys(&says["policy"]));
    let required = schema["required"].as_array().expect("a list").len();
    assert_eq!(required, keys(&says).len(), "every member is required");
    for key in keys(&says) {
        assert!(page.contains(&format!("`{key}`")), "{key} is on the page");
    }
}

#[test]
fn a_revocation_under_a_key_that_followed_the_issuers_counts() {
    let mut world = world();
    let (says, bytes) = good(&world);
    let policy = world.keys.policy();
    let sha256 = amc_crypto::sha256(&signed_by(&world.keys.auditor, &world, &says));
    let (at_s, now_ns) = (issued_s(&world) + 5, now(&world));
    // The issuer changed its key after the certificate; the verifier pins what it pinned.
    let next = Key::new(51);
    world.audit.rotate(amc_core::kinds::KeyPurpose::Log, &next);
    let rotated = world.audit.events.last().expect("just appended").signed.clone();
    let revoked = |key: &Key, events: &[amc_evidence::SignedEvent]| {
        let statement = revocation_statement(&says.certificate_id, sha256, "ws-1/audit", at_s, "replaced", events);
        let revocation = Revocation::parse(key.envelope(&statement).to_json().as_bytes()).expect("a revocation");
        verify_certificate(Cursor::new(&bytes), &policy, &[revocation], now_ns).expect("reads")
    };
    refused("followed", &revoked(&next, std::slice::from_ref(&rotated)), Code::CertRevoked);
    // Without the event that names it, by another key, or with a forged event, it is a stranger's.
    let stranger = Key::new(60);
    let mut forged = rotated.clone();
    forged.signature = stranger.sign(b"anything");
    for (name, key, events) in [
        ("no events", &next, vec![]),
        ("another key", &stranger, vec![rotated]),
        ("a forged event", &next, vec![forged]),
    ] {
        let verdict = revoked(key, &events);
        assert!(verdict.is_good(), "{name}");
        assert!(verdict.findings.iter().any(|found| found.code == Code::RevocationIssuerMismatch), "{name}");
    }
}

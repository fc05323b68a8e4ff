//! A judgement as SARIF 2.1.0 (OASIS): a rule for each rule of the policy, a result for each.
//!
//! A rule that holds is a result of kind `pass`, one that does not is an `error`. What the verification
//! found stands beside them under its finding code.

use amc_core::{SOFTWARE, Severity};
use serde_json::{Value, json};

use super::judge::Judgement;

const SCHEMA: &str = "https://docs.oasis-open.org/sarif/sarif/v2.1.0/errata01/os/schemas/sarif-schema-2.1.0.json";

/// The log; `artifact` is the bundle's name, which becomes a relative URI.
pub fn sarif(judgement: &Judgement, artifact: &str) -> Value {
    let place = json!([{ "physicalLocation": { "artifactLocation": { "uri": uri(artifact), "index": 0 } } }]);
    let mut rules: Vec<Value> = Vec::new();
    let mut results: Vec<Value> = Vec::new();
    for rule in &judgement.decision.rules {
        let (kind, level) = if rule.pass { ("pass", "none") } else { ("fail", "error") };
        let text = format!("{}: wanted {}, found {}", rule.rule, rule.wanted, rule.found);
        let index = rule_index(&mut rules, &rule.rule, "A rule of the gate's policy.");
        results.push(json!({
            "ruleId": rule.rule, "ruleIndex": index, "kind": kind, "level": level,
            "message": { "text": text }, "locations": place,
        }));
    }
    for finding in &judgement.findings {
        let level = match finding.severity {
            Severity::Error => "error",
            Severity::Warn => "warning",
            Severity::Info => "note",
        };
        let index = rule_index(&mut rules, finding.code.as_str(), "A finding of the verification.");
        results.push(json!({
            "ruleId": finding.code, "ruleIndex": index, "kind": "fail", "level": level,
            "message": { "text": format!("{}: {}", finding.subject, finding.message) }, "locations": place,
        }));
    }
    let version = SOFTWARE.rsplit(' ').next().unwrap_or(SOFTWARE);
    json!({
        "$schema": SCHEMA,
        "version": "2.1.0",
        "runs": [{
            "tool": { "driver": { "name": "amc gate", "semanticVersion": version, "rules": rules } },
            "artifacts": [{
                "location": { "uri": uri(artifact) },
                "hashes": { "sha-256": judgement.bundle_sha256 },
            }],
            "results": results,
        }],
    })
}

/// The place of a rule among the descriptors, put there when it is new.
fn rule_index(rules: &mut Vec<Value>, id: &str, what: &str) -> usize {
    rules.iter().position(|rule| rule["id"] == id).unwrap_or_else(|| {
        rules.push(json!({ "id": id, "shortDescription": { "text": what } }));
        rules.len() - 1
    })
}

/// A file name as a relative URI reference (RFC 3986).
fn uri(name: &str) -> String {
    let plain = |byte: u8| byte.is_ascii_alphanumeric() || b"-._~/".contains(&byte);
    name.bytes().map(|byte| if plain(byte) { char::from(byte).to_string() } else { format!("%{byte:02X}") }).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_name_becomes_a_relative_reference() {
        assert_eq!(uri("dir/bot 1:é.amcbundle"), "dir/bot%201%3A%C3%A9.amcbundle");
    }
}

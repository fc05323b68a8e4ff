//! The names that members may have. There is a fixed list and two directories; nothing else.

/// The signed list of all other members; always first.
pub const MANIFEST: &str = "manifest.dsse.json";
/// The newest cosigned checkpoint of the audit log.
pub const AUDIT_CHECKPOINT: &str = "audit/checkpoint";
/// Entries of the audit log.
pub const AUDIT_EVENTS: &str = "audit/events";
/// Their multiproof.
pub const AUDIT_PROOF: &str = "audit/proof";
/// The question bank.
pub const BANK: &str = "bank.toml";
/// Its signature, where it has one.
pub const BANK_SIG: &str = "bank.toml.sig";
/// The checkpoint of the evidence log up to which the run goes.
pub const EVIDENCE_CHECKPOINT: &str = "evidence/checkpoint";
/// Events of the evidence log.
pub const EVIDENCE_EVENTS: &str = "evidence/events";
/// Their payloads, unless they are withheld.
pub const EVIDENCE_PAYLOADS: &str = "evidence/payloads.zst";
/// Their multiproof.
pub const EVIDENCE_PROOF: &str = "evidence/proof";
/// The certificate, in an `.amccert` alone.
pub const CERTIFICATE: &str = "certificate.dsse.json";
/// The claims, where the run had some.
pub const CLAIMS: &str = "run/claims.json";
/// The report as a page.
pub const REPORT_HTML: &str = "run/report.html";
/// The report.
pub const REPORT_JSON: &str = "run/report.json";
/// The report as text.
pub const REPORT_MD: &str = "run/report.md";
/// The run's seal.
pub const SEAL: &str = "run/seal.dsse.json";
/// A copy of the issuer's trust policy, for reading.
pub const TRUST_POLICY: &str = "trust.policy";
/// Below it: workspace-relative paths of configuration files, each with its `.sig`.
pub const CONFIG_DIR: &str = "config/";
/// Below it: the target profile with its `.sig`.
pub const TARGET_DIR: &str = "target/";

/// Longest name: what the name field of a header holds, so that no prefix is ever needed.
pub const NAME_BYTES_MAX: usize = 100;

/// Members that every bundle has.
pub const REQUIRED: [&str; 13] = [
    AUDIT_CHECKPOINT,
    AUDIT_EVENTS,
    AUDIT_PROOF,
    BANK,
    EVIDENCE_CHECKPOINT,
    EVIDENCE_EVENTS,
    EVIDENCE_PROOF,
    REPORT_HTML,
    REPORT_JSON,
    REPORT_MD,
    SEAL,
    TRUST_POLICY,
    MANIFEST,
];

const OPTIONAL: [&str; 4] = [BANK_SIG, CERTIFICATE, EVIDENCE_PAYLOADS, CLAIMS];

/// Whether a member may have this name.
///
/// # Errors
/// A sentence that says why not.
pub fn check_name(name: &str) -> Result<(), String> {
    if name.len() > NAME_BYTES_MAX {
        return Err(format!("a member's name has {} bytes, more than {NAME_BYTES_MAX}", name.len()));
    }
    if REQUIRED.contains(&name) || OPTIONAL.contains(&name) {
        return Ok(());
    }
    let below = [CONFIG_DIR, TARGET_DIR].iter().find_map(|dir| name.strip_prefix(dir));
    match below {
        Some(path) if path.split('/').all(is_plain) => Ok(()),
        _ => Err(format!("{name:?} is not a name that a member may have")),
    }
}

/// A part of a path that means the same everywhere: no dot first, no separator, no space.
fn is_plain(part: &str) -> bool {
    !part.is_empty()
        && !part.starts_with('.')
        && part.bytes().all(|byte| byte.is_ascii_alphanumeric() || b"._-".contains(&byte))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_lists_are_valid_names() {
        for name in REQUIRED.iter().chain(&OPTIONAL) {
            assert_eq!(check_name(name), Ok(()), "{name}");
        }
        assert_eq!(check_name("config/agents/a-1/agent.config.yaml.sig"), Ok(()));
        let longest = format!("config/agents/{}/agent.config.yaml.sig", "a".repeat(64));
        assert_eq!(check_name(&longest), Ok(()), "the longest agent id fits");
    }

    #[test]
    fn path_tricks_are_no_names() {
        for bad in [
            "",
            "/etc/passwd",
            "config/",
            "config",
            "config/../x",
            "config/..",
            "config/./x",
            "config//x",
            "config/x/",
            "config/.hidden",
            "config/a b",
            "config/a\\b",
            "config/a\n",
            "config/é",
            "evidence/extra",
            "./bank.toml",
            "bank.toml/",
            "BANK.TOML",
            "config/C:x",
            "other/x",
        ] {
            assert!(check_name(bad).is_err(), "{bad:?}");
        }
        assert!(check_name(&format!("config/{}", "a".repeat(94))).is_err(), "101 bytes");
    }
}

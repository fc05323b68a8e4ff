//! Trust anchors: where they come from, showing them, and pinning more.

mod pin;

use std::path::{Path, PathBuf};

use amc_core::limits;
use amc_crypto::TrustPolicy;
use amc_workspace::home::{self, Home};
use amc_workspace::{Answer, Failure, Opening};
use serde_json::json;

pub(crate) use pin::pin;

/// The policy that is meant: the flag, `$AMC_TRUST`, the workspace's, the user's.
pub(crate) fn anchor(opening: &Opening, named: Option<&Path>) -> Result<(PathBuf, TrustPolicy), Failure> {
    let variable = std::env::var_os("AMC_TRUST").map(PathBuf::from);
    let path = match named.map(Path::to_owned).or(variable) {
        Some(path) => path,
        None => match opening.home() {
            Ok(home) => home.trust_policy_path(),
            Err(no_home) => user_policy().filter(|path| path.is_file()).ok_or_else(|| {
                let how = "name one with --trust FILE or AMC_TRUST; the issuer gives it out with `amc trust export`";
                Failure::wrong(format!("no trust policy: {}; {how}", no_home.message))
            })?,
        },
    };
    let bytes = home::read_bounded(&path, limits::POLICY_BYTES_MAX).map_err(Failure::wrong)?;
    let policy = TrustPolicy::parse(&bytes).map_err(|error| Failure::wrong(format!("{}: {error}", path.display())))?;
    Ok((path, policy))
}

fn user_policy() -> Option<PathBuf> {
    let config = std::env::var_os("XDG_CONFIG_HOME").map(PathBuf::from);
    let config = config.or_else(|| Some(PathBuf::from(std::env::var_os("HOME")?).join(".config")))?;
    Some(config.join("amc/trust.policy"))
}

pub(crate) fn show(opening: &Opening) -> Result<Answer, Failure> {
    let (path, policy) = anchor(opening, None)?;
    let logs: Vec<_> = policy
        .logs()
        .iter()
        .map(|key| json!({ "origin": key.name(), "key": key.to_string(), "key_id": key.public().dsse_key_id() }))
        .collect();
    let witnesses: Vec<_> = policy
        .witnesses()
        .iter()
        .map(|witness| json!({ "name": witness.name, "key": witness.key.to_string(), "url": witness.url }))
        .collect();
    let mut text = format!("{}\n", path.display());
    for key in policy.logs() {
        text += &format!("log      {key}\n");
    }
    for witness in policy.witnesses() {
        text += &format!("witness  {} {}\n", witness.name, witness.key);
    }
    Ok(Answer::new(&json!({ "path": path, "logs": logs, "witnesses": witnesses }), text))
}

pub(crate) fn export(opening: &Opening, out: Option<&Path>) -> Result<Answer, Failure> {
    let home: Home = opening.home()?;
    let bytes = home::read_bounded(&home.trust_policy_path(), limits::POLICY_BYTES_MAX).map_err(Failure::wrong)?;
    let text = String::from_utf8(bytes).map_err(|_| Failure::wrong("trust.policy is not UTF-8"))?;
    match out {
        None => Ok(Answer::new(&json!({ "policy": text }), text)),
        Some(out) => {
            home::write_atomic(out, text.as_bytes()).map_err(Failure::wrong)?;
            Ok(Answer::new(&json!({ "out": out }), format!("Wrote {}\n", out.display())))
        }
    }
}

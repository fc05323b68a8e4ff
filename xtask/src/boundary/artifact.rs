//! Built artifacts: the signer crate carries a tripwire, a `#[used]` static that survives optimisation and linking.
//! It must be found in every signer binary and in nothing that must never link a signer.

use super::class::{Class, Members, Trust};
use super::{Profile, Rule, Violation};
use crate::workspace::{Workspace, cargo};
use crate::{Failure, process};
use serde_json::Value;
use std::collections::BTreeSet;
use std::fs;
use std::path::{Path, PathBuf};

/// Builds, searches, judges.
pub(super) fn check(
    workspace: &Workspace,
    members: &Members,
    target: Option<&Path>,
    profile: Profile,
) -> Result<BTreeSet<Violation>, Failure> {
    let artifacts = build(workspace, target, profile)?;
    let mut violations = BTreeSet::new();
    let (mut controls, mut agent_libraries) = (0_usize, 0_usize);
    for artifact in &artifacts {
        let Some(class) = members.get(&artifact.package) else { continue };
        match expected(*class, artifact.executable) {
            Some(true) => controls += 1,
            Some(false) if class.trust == Trust::Agent && artifact.cdylib => agent_libraries += 1,
            _ => {}
        }
        violations.extend(judge(*class, artifact)?);
    }
    // A check that looked at nothing must not pass.
    if controls == 0 {
        violations.insert(nothing("signer binary", "without one that holds the tripwire, its absence proves nothing"));
    }
    if agent_libraries == 0 {
        violations.insert(nothing("cdylib of class agent", "what an agent loads was not built, so not searched"));
    }
    Ok(violations)
}

/// One file that the build made.
struct Artifact {
    package: String,
    file: PathBuf,
    executable: bool,
    cdylib: bool,
}

/// Whether the tripwire has to be in it; `None` where either is right (tools, and the signer's own libraries).
fn expected(class: Class, executable: bool) -> Option<bool> {
    match class.trust {
        Trust::Tool => None,
        Trust::Signer => executable.then_some(true),
        Trust::Core | Trust::Verifier | Trust::Agent | Trust::Host => Some(false),
    }
}

fn judge(class: Class, artifact: &Artifact) -> Result<Option<Violation>, Failure> {
    let Some(wanted) = expected(class, artifact.executable) else { return Ok(None) };
    let bytes =
        fs::read(&artifact.file).map_err(|error| Failure::from(error).during(&artifact.file.display().to_string()))?;
    if contains(&bytes, tripwire().as_bytes()) == wanted {
        return Ok(None);
    }
    let file = artifact.file.file_name().unwrap_or_default().to_string_lossy().into_owned();
    let (rule, advice) = if wanted {
        let advice = "a signer binary without the signer's tripwire: is it still `#[used] static` and linked?";
        (Rule::TripwireControl, advice)
    } else {
        let advice = "code of the signer crate is linked into it: find the source that is shared and take it out";
        (Rule::Tripwire, advice)
    };
    Ok(Some(Violation { rule, from: artifact.package.clone(), to: file, advice: advice.into() }))
}

fn nothing(what: &str, why: &str) -> Violation {
    let advice = format!("the workspace builds no {what}: {why}");
    Violation { rule: Rule::TripwireControl, from: "workspace".into(), to: what.into(), advice }
}

fn build(workspace: &Workspace, target: Option<&Path>, profile: Profile) -> Result<Vec<Artifact>, Failure> {
    let mut command = cargo(&workspace.root);
    command.args(["build", "--workspace", "--locked", "--message-format", "json-render-diagnostics"]);
    if profile == Profile::Release {
        command.arg("--release");
    }
    if let Some(target) = target {
        command.arg("--target-dir").arg(target);
    }
    let mut artifacts = Vec::new();
    process::each_line(&mut command, |line| {
        // Anything else on stdout is no message and says nothing of artifacts.
        if let Ok(message) = serde_json::from_str::<Value>(line) {
            artifacts.extend(files(workspace, &message));
        }
    })?;
    Ok(artifacts)
}

/// The searchable files of one `compiler-artifact` message of a member.
fn files(workspace: &Workspace, message: &Value) -> Vec<Artifact> {
    let of_member = |package: &&crate::workspace::Package| message["package_id"] == package.id.as_str();
    let Some(package) = workspace.packages.iter().find(of_member) else { return Vec::new() };
    let kinds: Vec<&str> =
        message["target"]["kind"].as_array().into_iter().flatten().filter_map(Value::as_str).collect();
    if message["reason"] != "compiler-artifact" || kinds.contains(&"custom-build") {
        return Vec::new();
    }
    let names = message["filenames"].as_array().into_iter().flatten().filter_map(Value::as_str).map(PathBuf::from);
    names
        .filter(|file| file.extension().is_none_or(|extension| extension != "rmeta"))
        .map(|file| Artifact {
            package: package.name.clone(),
            executable: message["executable"] == file.to_string_lossy().as_ref(),
            cdylib: kinds.contains(&"cdylib") && file.extension().is_some_and(|extension| extension != "rlib"),
            file,
        })
        .collect()
}

/// The bytes that the signer crate holds. Put together at run time, so that no artifact has them by way of this text.
fn tripwire() -> String {
    ["AMC-TRIPWIRE", "SIGNER-LINKED", "v1"].join("-")
}

fn contains(bytes: &[u8], wanted: &[u8]) -> bool {
    let Some((first, rest)) = wanted.split_first() else { return true };
    let mut left = bytes;
    while let Some(at) = left.iter().position(|byte| byte == first) {
        left = &left[at + 1..];
        if left.starts_with(rest) {
            return true;
        }
    }
    false
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_tripwire_is_found_wherever_it_stands() {
        let text = tripwire();
        let wanted = text.as_bytes();
        for padding in [0, 1, 4096] {
            let bytes = [&vec![b'A'; padding][..], wanted, &vec![0; padding][..]].concat();
            assert!(contains(&bytes, wanted), "{padding}");
        }
        assert!(!contains(&wanted[..wanted.len() - 1], wanted));
        assert!(!contains(b"", wanted));
    }
}

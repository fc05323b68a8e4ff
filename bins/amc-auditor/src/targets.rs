//! Targets: which level each question is to reach, signed for one agent and one bank.

use std::path::PathBuf;

use amc_core::{AgentId, limits};
use amc_scoring::{Bank, Target};
use amc_workspace::home::{self, Home};
use amc_workspace::{Answer, Failure, Opening, SignedFile};
use clap::Args;
use serde_json::json;

use crate::configs;
use crate::run::bank_in_force;
use crate::unlock::{Unlocked, unlock};

/// The target to be put in force.
#[derive(Args)]
pub(crate) struct Plan {
    /// The target's file.
    file: PathBuf,
}

/// A target in force, with its bytes and where it stands.
pub(crate) struct InForce {
    pub(crate) target: Target,
    pub(crate) file: SignedFile,
}

pub(crate) fn set(opening: &Opening, plan: &Plan) -> Result<Answer, Failure> {
    let bytes = home::read_bounded(&plan.file, limits::CONFIG_BYTES_MAX).map_err(Failure::wrong)?;
    let agent = Target::agent_of(&bytes).map_err(Failure::wrong)?;
    let unlocked = unlock(opening)?;
    let (bank, _) = bank_in_force(&unlocked)?;
    let target = Target::parse(&bytes, &agent, &bank).map_err(Failure::wrong)?;
    let path = path_of(&agent, &target.id);
    let file = unlocked.home.file(&path);
    home::make_dir(file.parent().expect("the path has directories")).map_err(Failure::unable)?;
    home::write_atomic(&file, &bytes).map_err(Failure::unable)?;
    let version = unlocked.sign_config(&path, Some(&agent), &bytes)?;
    configs::close(unlocked)?;
    let data = json!({
        "agent_id": agent, "target": target.id, "path": path, "version": version, "sha256": target.sha256,
        "questions": target.levels.len(),
    });
    let text =
        format!("Signed target {} of {agent} as version {version}: {} questions\n", target.id, target.levels.len());
    Ok(Answer::new(&data, text))
}

/// The target that a run names: signed for this agent, and the newest version of its path.
pub(crate) fn in_force(unlocked: &Unlocked, agent: &AgentId, id: &str, bank: &Bank) -> Result<InForce, Failure> {
    if !Target::is_id(id) {
        return Err(Failure::wrong(format!("{id:?} is no target's id")));
    }
    let path = path_of(agent, id);
    if !unlocked.home.file(&path).is_file() {
        let known = known(&unlocked.home, agent);
        return Err(Failure::wrong(format!(
            "{agent} has no target {id:?}; it has {known}. Set one with `amc target set FILE`"
        )));
    }
    let file = unlocked.newest_signed(&path, Some(agent))?;
    let target = Target::parse(&file.bytes, agent, bank).map_err(Failure::wrong)?;
    Ok(InForce { target, file })
}

fn path_of(agent: &AgentId, id: &str) -> String {
    format!("agents/{agent}/targets/{id}.json")
}

fn known(home: &Home, agent: &AgentId) -> String {
    let entries = std::fs::read_dir(home.file(&format!("agents/{agent}/targets")));
    let names = entries.into_iter().flatten().filter_map(|entry| entry.ok()?.file_name().into_string().ok());
    let mut names: Vec<String> = names.filter_map(|name| Some(name.strip_suffix(".json")?.to_owned())).collect();
    names.sort();
    if names.is_empty() { "none".to_owned() } else { names.join(", ") }
}

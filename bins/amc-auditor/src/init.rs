//! A new workspace: keys, logs, trust policy and signed defaults, whole or not at all.

use std::fs;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use amc_core::kinds::{LogOpened, Role};
use amc_core::{AgentId, SOFTWARE, WorkspaceName};
use amc_crypto::VerifierKey;
use amc_crypto::policy::TrustPolicy;
use amc_crypto::signer::{CheckpointSigner as _, Cosigner as _, EventSigner as _};
use amc_ledger::Signers;
use amc_scoring::SHIPPED_BANK;
use amc_vault::{AuditorKeys, Passphrase, RoleKeys, ScryptParams, Vault};
use amc_workspace::config::{AmcConfig, GatewayConfig, TrustBoundaryMode};
use amc_workspace::home::{self, Home};
use amc_workspace::passphrase::{self, Source};
use amc_workspace::{Answer, Failure, Opening, SystemClock, hardening};
use clap::Args;
use serde::Serialize;
use zeroize::Zeroizing;

use crate::InitRole;
use crate::monitor;
use crate::unlock::{self, Beside, Unlocked, log_failure, vault_failure};

/// What is to be created.
#[derive(Args)]
pub(crate) struct Plan {
    /// Whose part: both on one machine, or one role on its own.
    #[arg(long, value_enum, default_value = "all")]
    role: InitRole,
    /// The workspace's name; by default the directory's name and a random suffix.
    #[arg(long, value_name = "W")]
    name: Option<WorkspaceName>,
    /// An agent to set up; may be given more than once.
    #[arg(long = "agent", value_name = "ID")]
    agents: Vec<AgentId>,
    /// What amc.yaml declares about the trust boundary; `amc init` tries it and sets this.
    #[arg(long, value_parser = ["shared", "isolated"], default_value = "shared")]
    boundary: String,
}

#[derive(Serialize)]
struct Created {
    home: PathBuf,
    workspace: WorkspaceName,
    agents: Vec<AgentId>,
    log_keys: Vec<String>,
}

pub(crate) struct Keys {
    log: VerifierKey,
    witness: VerifierKey,
}

pub(crate) fn init(opening: &Opening, auditor_file: Option<&Path>, plan: &Plan) -> Result<Answer, Failure> {
    let root = opening.new_home();
    if fs::read_dir(&root).is_ok_and(|mut entries| entries.next().is_some()) || root.is_file() {
        return Err(Failure::wrong(home::HomeError::Exists(root)));
    }
    if plan.role == InitRole::Monitor {
        return Err(Failure::wrong("the monitor's own part is created by `amc-monitor init`"));
    }
    hardening::protect()?;
    let name = plan.name.clone().map_or_else(|| default_name(&root), Ok)?;
    let passphrases = Passphrases::read(opening, auditor_file, plan.role)?;
    let staging = staging_dir(&root)?;
    let made = create(&staging, &name, plan, &passphrases).and_then(|keys| {
        fs::rename(&staging, &root)
            .map_err(|error| Failure::unable(format!("cannot put {} in place: {error}", root.display())))?;
        Ok(keys)
    });
    let log_keys = match made {
        Ok(keys) => keys,
        Err(failure) => {
            // Only what this command made itself a moment ago.
            let _ = fs::remove_dir_all(&staging);
            return Err(failure);
        }
    };
    let home = fs::canonicalize(&root).unwrap_or(root);
    let text = format!(
        "Created the workspace {name} in {}\n{}Next: amc wrap --agent ID -- COMMAND\n",
        home.display(),
        log_keys.iter().map(|key| format!("  pinned log key {key}\n")).collect::<String>()
    );
    Ok(Answer::new(&Created { home, workspace: name, agents: plan.agents.clone(), log_keys }, text))
}

struct Passphrases {
    monitor: Zeroizing<Vec<u8>>,
    auditor: Zeroizing<Vec<u8>>,
}

impl Passphrases {
    fn read(opening: &Opening, auditor_file: Option<&Path>, role: InitRole) -> Result<Self, Failure> {
        let source = |file: Option<&Path>| Source { file: file.map(Path::to_owned), is_new: true };
        let first = || passphrase::read(Role::Monitor, &source(opening.passphrase_file.as_deref()));
        let own = || passphrase::read(Role::Auditor, &source(auditor_file.or(opening.passphrase_file.as_deref())));
        match (role, auditor_file) {
            (InitRole::All, None) => {
                let one = first()?;
                Ok(Passphrases { monitor: one.clone(), auditor: one })
            }
            (InitRole::All, Some(_)) => Ok(Passphrases { monitor: first()?, auditor: own()? }),
            _ => Ok(Passphrases { monitor: Zeroizing::default(), auditor: own()? }),
        }
    }
}

fn create(
    staging: &Path,
    name: &WorkspaceName,
    plan: &Plan,
    passphrases: &Passphrases,
) -> Result<Vec<String>, Failure> {
    let home = Home::create(staging).map_err(Failure::unable)?;
    let monitor_keys = match plan.role {
        InitRole::All => Some(create_monitor(&home, name, &passphrases.monitor)?),
        InitRole::Monitor | InitRole::Auditor => None,
    };
    let keys = create_compartment(&home, name, &unlock::parsed(&passphrases.auditor)?)?;
    let own = create_log(&home, keys)?;
    write_policy(&home, monitor_keys.as_ref(), &own.0)?;
    let policy = home.trust_policy().map_err(Failure::unable)?;
    let unlocked = unlock::open(home.clone(), &policy, name.clone(), own.1, Beside::Running)?;
    write_configs(&unlocked, name, plan)?;
    if monitor_keys.is_some() {
        unlocked.cosign(&home.log(Role::Monitor))?;
    }
    unlocked.writer.close().map_err(Failure::unable)?;
    if monitor_keys.is_some() {
        monitor::cosign(&home, &Beside::Passphrase(passphrases.monitor.clone())).map_err(Failure::unable)?;
    }
    Ok(monitor_keys.iter().chain([&own.0]).map(|keys| keys.log.to_string()).collect())
}

fn create_monitor(home: &Home, name: &WorkspaceName, passphrase: &[u8]) -> Result<Keys, Failure> {
    let answer = monitor::call(home.root(), &["init", "--name", name.as_str()], passphrase).map_err(Failure::unable)?;
    let key = |field: &str| {
        let text = answer["data"][field].as_str().unwrap_or_default();
        text.parse::<VerifierKey>().map_err(|error| Failure::unable(format!("amc-monitor gave no {field}: {error}")))
    };
    Ok(Keys { log: key("log_key")?, witness: key("witness_key")? })
}

pub(crate) fn create_compartment(
    home: &Home,
    name: &WorkspaceName,
    passphrase: &Passphrase,
) -> Result<AuditorKeys, Failure> {
    let vault = Vault::at(home.vault(), name.clone());
    let params = ScryptParams::calibrated(hardening::memory_bytes());
    let made = if home.vault().exists() {
        vault.add_compartment(Role::Auditor, passphrase, params)
    } else {
        vault.create(Role::Auditor, passphrase, params)
    };
    match made.map_err(|error| vault_failure(&error))? {
        RoleKeys::Auditor(keys) => Ok(keys),
        RoleKeys::Monitor(_) => unreachable!("an auditor's compartment gives an auditor's keys"),
    }
}

pub(crate) fn create_log(home: &Home, keys: AuditorKeys) -> Result<(Keys, AuditorKeys), Failure> {
    let AuditorKeys { log, envelopes, witness, next } = keys;
    let public = Keys { log: log.verifier_key(), witness: witness.verifier_key() };
    let opened = LogOpened {
        origin: log.origin().to_owned(),
        role: Role::Auditor,
        log_public: log.public_key().to_digest(),
        witness_public: public.witness.public().to_digest(),
        software: SOFTWARE.to_owned(),
        predecessor: None,
    };
    let log = Arc::new(log);
    let signers = Signers { event: log.clone(), checkpoint: log.clone() };
    let clock = SystemClock::new().map_err(Failure::unable)?;
    amc_ledger::create(&home.log(Role::Auditor), opened, &signers, &clock).map_err(|error| log_failure(&error))?;
    drop(signers);
    let log = Arc::into_inner(log).expect("nobody else holds the key by now");
    Ok((public, AuditorKeys { log, envelopes, witness, next }))
}

fn write_policy(home: &Home, monitor: Option<&Keys>, auditor: &Keys) -> Result<(), Failure> {
    let logs: Vec<VerifierKey> = monitor.iter().map(|keys| keys.log.clone()).chain([auditor.log.clone()]).collect();
    let witnesses: Vec<(Role, VerifierKey)> = monitor
        .iter()
        .map(|keys| (Role::Monitor, keys.witness.clone()))
        .chain([(Role::Auditor, auditor.witness.clone())])
        .collect();
    let text = TrustPolicy::for_roles(&logs, &witnesses);
    home::write_atomic(&home.trust_policy_path(), text.as_bytes()).map_err(Failure::unable)
}

fn write_configs(unlocked: &Unlocked, name: &WorkspaceName, plan: &Plan) -> Result<(), Failure> {
    let isolated = plan.boundary == "isolated";
    let mode = if isolated { TrustBoundaryMode::Isolated } else { TrustBoundaryMode::Shared };
    let write = |path: &str, agent: Option<&AgentId>, bytes: &[u8]| {
        home::write_atomic(&unlocked.home.file(path), bytes).map_err(Failure::unable)?;
        unlocked.sign_config(path, agent, bytes)
    };
    write("amc.yaml", None, AmcConfig::initial(name, mode).as_bytes())?;
    write("gateway.yaml", None, GatewayConfig::initial().render().as_bytes())?;
    write("bank.toml", None, SHIPPED_BANK)?;
    for agent in &plan.agents {
        home::make_dir(&unlocked.home.agent(agent)).map_err(Failure::unable)?;
        let policy = serde_json::json!({ "agentId": agent, "denyIfLowTrust": true, "requireObservedForLevel5": true });
        let text = serde_json::to_string_pretty(&policy).expect("plain values serialise") + "\n";
        write(&format!("agents/{agent}/gatePolicy.json"), Some(agent), text.as_bytes())?;
    }
    Ok(())
}

fn default_name(root: &Path) -> Result<WorkspaceName, Failure> {
    let whole = std::path::absolute(root).map_err(Failure::wrong)?;
    let named = whole.file_name().filter(|name| *name != ".amc").or_else(|| whole.parent()?.file_name());
    let lower = named.unwrap_or_default().to_string_lossy().to_lowercase();
    let plain = |c: char| c.is_ascii_lowercase() || c.is_ascii_digit() || c == '-' || c == '.';
    let mut base: String = lower.chars().filter(|c| plain(*c)).take(40).collect();
    base = base.trim_start_matches(['-', '.']).to_owned();
    let mut random = [0; 4];
    getrandom::fill(&mut random).map_err(|error| Failure::unable(format!("no randomness: {error}")))?;
    let base = if base.is_empty() { "workspace" } else { &base };
    WorkspaceName::new(format!("{base}-{}", amc_core::digest::hex(&random))).map_err(Failure::wrong)
}

/// A directory beside the final one, so that putting it in place is one rename.
fn staging_dir(root: &Path) -> Result<PathBuf, Failure> {
    let whole = std::path::absolute(root).map_err(Failure::wrong)?;
    let parent = whole.parent().ok_or_else(|| Failure::wrong("the home cannot be the root directory"))?;
    fs::create_dir_all(parent)
        .map_err(|error| Failure::wrong(format!("cannot create {}: {error}", parent.display())))?;
    let name = whole.file_name().unwrap_or_default().to_string_lossy();
    Ok(parent.join(format!(".{name}.init-{}", std::process::id())))
}

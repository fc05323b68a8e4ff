//! `agents/<id>/agent.config.yaml`: what is registered for one agent. `docs/formats/config.md` is its
//! specification; unknown keys are errors.

use amc_core::kinds::{AgentRegistered, RegisteredSuite};
use amc_core::limits::{ARGV_ENTRIES_MAX, ARGV_ENTRY_BYTES_MAX};
use amc_core::{AgentId, Digest};
use serde::Deserialize;

use crate::config::{ConfigError, parse};

/// The name in errors.
const PATH: &str = "agent.config.yaml";
/// Prompts, and suites, of one agent.
const ENTRIES_MAX: usize = 64;

/// A checked `agent.config.yaml`.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields, rename_all = "camelCase")]
pub struct AgentConfig {
    /// The agent that it is for.
    pub agent: AgentId,
    /// SHA-256 of the texts of system prompts that the agent may run with.
    #[serde(default)]
    pub system_prompts: Vec<Digest>,
    /// Test suites that are run with `amc wrap --kind test`.
    #[serde(default)]
    pub test_suites: Vec<Suite>,
}

/// A test suite.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields, rename_all = "camelCase")]
pub struct Suite {
    /// Its command with every argument.
    pub command: Vec<String>,
    /// SHA-256 of its executable.
    pub executable: Digest,
}

impl AgentConfig {
    /// The path within a home.
    pub fn path(agent: &AgentId) -> String {
        format!("agents/{agent}/{PATH}")
    }

    /// Parses the file of `agent`.
    ///
    /// # Errors
    /// [`ConfigError`] with the place; also when it is for another agent.
    pub fn parse(agent: &AgentId, bytes: &[u8]) -> Result<Self, ConfigError> {
        let config: AgentConfig = parse(PATH, bytes)?;
        let refuse = |key: &str, message: String| Err(ConfigError::Value { path: PATH, key: key.to_owned(), message });
        if config.agent != *agent {
            return refuse("agent", format!("it is for {} and stands in the directory of {agent}", config.agent));
        }
        if config.system_prompts.len() > ENTRIES_MAX || config.test_suites.len() > ENTRIES_MAX {
            return refuse("systemPrompts, testSuites", format!("each has at most {ENTRIES_MAX} entries"));
        }
        for suite in &config.test_suites {
            let fits = suite.command.iter().all(|argument| argument.len() <= ARGV_ENTRY_BYTES_MAX);
            if suite.command.is_empty() || suite.command.len() > ARGV_ENTRIES_MAX || !fits {
                let bounds =
                    format!("a command has 1 to {ARGV_ENTRIES_MAX} parts of at most {ARGV_ENTRY_BYTES_MAX} bytes");
                return refuse("testSuites.command", bounds);
            }
        }
        Ok(config)
    }

    /// What a session's evidence says of it, under the version that its signature names.
    pub fn registered(self, config_version: u64) -> AgentRegistered {
        let suites = self.test_suites.into_iter();
        AgentRegistered {
            config_version,
            system_prompts: self.system_prompts,
            suites: suites.map(|suite| RegisteredSuite { argv: suite.command, artifact: suite.executable }).collect(),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn bot() -> AgentId {
        AgentId::new("bot").expect("an agent id")
    }

    fn of(text: &str) -> Result<AgentConfig, String> {
        AgentConfig::parse(&bot(), text.as_bytes()).map_err(|error| error.to_string())
    }

    #[test]
    fn prompts_and_suites_are_registered() {
        let digest = "ab".repeat(32);
        let text = format!(
            "agent: bot\nsystemPrompts:\n  - {digest}\ntestSuites:\n  - command: [pytest, -q]\n    executable: {digest}\n"
        );
        let registered = of(&text).expect("it parses").registered(3);
        assert_eq!(registered.config_version, 3);
        assert_eq!(registered.system_prompts, [Digest([0xab; 32])]);
        assert_eq!(registered.suites[0].argv, ["pytest", "-q"]);
        assert_eq!(of("agent: bot\n").expect("both lists may be left out").test_suites, []);
    }

    #[test]
    fn what_makes_no_sense_is_refused() {
        let digest = "ab".repeat(32);
        for (what, text) in [
            ("another agent", "agent: other\n".to_owned()),
            ("no agent", "systemPrompts: []\n".to_owned()),
            ("an unknown key", "agent: bot\nprompts: []\n".to_owned()),
            ("no digest", "agent: bot\nsystemPrompts: [abc]\n".to_owned()),
            ("an empty command", format!("agent: bot\ntestSuites:\n  - command: []\n    executable: {digest}\n")),
            ("no executable", "agent: bot\ntestSuites:\n  - command: [a]\n".to_owned()),
            (
                "a long argument",
                format!("agent: bot\ntestSuites:\n  - command: [{}]\n    executable: {digest}\n", "a".repeat(600)),
            ),
            ("many prompts", format!("agent: bot\nsystemPrompts: [{}]\n", vec![digest.clone(); 65].join(", "))),
        ] {
            assert!(of(&text).is_err(), "{what}");
        }
    }
}

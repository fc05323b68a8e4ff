//! The key holder's channel: what `amc` and `amc-auditor` ask of the process that holds the
//! auditor's keys between `vault unlock` and `vault lock`.
//!
//! A client names one of the auditor's verbs as on the command line; the holder parses it by the same
//! grammar, carries it out, and gives the answer that the client prints as its own. What is signed is
//! therefore what the verb makes of files and logs. No message carries bytes to be signed, and none
//! brings out a key.

use std::ffi::{OsStr, OsString};
use std::fs;
use std::io;
use std::os::unix::ffi::{OsStrExt as _, OsStringExt};
use std::os::unix::fs::MetadataExt as _;
use std::path::{Path, PathBuf};

use amc_core::Finding;
use serde::{Deserialize, Serialize};

use super::{Client, ClientError, PROTOCOL_VERSION, Refusal};
use crate::answer::{Answer, Exit, Failure};
use crate::home::Home;

/// What a client says.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub enum HolderRequest {
    /// First message of a connection.
    Hello {
        /// [`PROTOCOL_VERSION`].
        protocol: u16,
        /// The home that the client means.
        home: HomeId,
    },
    /// How it stands.
    Status,
    /// Carry out a verb.
    Carry(VerbCall),
    /// Forget the keys and end. The end of the connection is the answer.
    Lock,
}

/// A home's directory, whatever path leads to it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct HomeId {
    device: u64,
    inode: u64,
}

impl HomeId {
    /// The directory that stands at `root` now.
    ///
    /// # Errors
    /// When nothing stands there.
    pub fn of(root: &Path) -> io::Result<Self> {
        fs::metadata(root).map(|meta| HomeId { device: meta.dev(), inode: meta.ino() })
    }
}

/// One of the auditor's verbs, as it was called.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct VerbCall {
    arguments: Vec<Vec<u8>>,
    working_dir: Vec<u8>,
}

impl VerbCall {
    /// The verb that this process was called with, where it was called.
    ///
    /// # Errors
    /// When there is no working directory.
    pub fn of_this_process() -> io::Result<Self> {
        Ok(VerbCall::new(std::env::args_os().skip(1), std::env::current_dir()?))
    }

    /// A verb as its arguments say it, with relative paths beginning in `working_dir`.
    pub fn new(arguments: impl Iterator<Item = OsString>, working_dir: PathBuf) -> Self {
        let arguments = arguments.map(OsStringExt::into_vec).collect();
        VerbCall { arguments, working_dir: working_dir.into_os_string().into_vec() }
    }

    /// A verb with its arguments, to be carried out in a directory.
    pub fn of(arguments: &[&str], working_dir: &Path) -> Self {
        let arguments = arguments.iter().map(|argument| argument.as_bytes().to_vec()).collect();
        VerbCall { arguments, working_dir: working_dir.as_os_str().as_bytes().to_vec() }
    }

    /// The arguments behind the program's name.
    pub fn arguments(&self) -> impl Iterator<Item = &OsStr> {
        self.arguments.iter().map(|argument| OsStr::from_bytes(argument))
    }

    /// Where relative paths begin.
    pub fn working_dir(&self) -> PathBuf {
        OsString::from_vec(self.working_dir.clone()).into()
    }
}

/// What the holder answers.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub enum HolderReply {
    /// Both sides speak the same version about the same home.
    Welcome(HolderStatus),
    /// How it stands.
    Status(HolderStatus),
    /// The verb was carried out, well or badly.
    Carried(Box<Carried>),
    /// Understood and not carried out.
    Refused(Refusal),
}

/// A process that holds the auditor's keys.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct HolderStatus {
    /// Its process id.
    pub pid: u32,
    /// After how many seconds without a verb it forgets the keys.
    pub idle_s: u64,
    /// Seconds until then.
    pub left_s: u64,
}

/// The answer of a verb that the holder carried out.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Carried {
    /// The verb, as `answer::finish` names it.
    pub command: String,
    findings: Vec<Finding>,
    outcome: Outcome,
}

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
enum Outcome {
    Answered { data: String, text: String, bad: bool },
    Failed { code: u8, message: String },
}

impl Carried {
    /// What a verb ended with.
    pub fn new(command: impl Into<String>, result: Result<Answer, Failure>) -> Self {
        let (findings, outcome) = match result {
            Ok(Answer { findings, data, text, bad }) => {
                (findings, Outcome::Answered { data: data.to_string(), text, bad })
            }
            Err(Failure { exit, findings, message }) => (findings, Outcome::Failed { code: exit.code(), message }),
        };
        Carried { command: command.into(), findings, outcome }
    }

    /// The same, to be printed as this process's own.
    pub fn into_result(self) -> Result<Answer, Failure> {
        let findings = self.findings;
        match self.outcome {
            Outcome::Answered { data, text, bad } => {
                let data = serde_json::from_str(&data).map_err(Failure::unable)?;
                Ok(Answer { findings, data, text, bad })
            }
            Outcome::Failed { code, message } => {
                let known = [Exit::Good, Exit::Bad, Exit::Wrong].into_iter().find(|exit| exit.code() == code);
                Err(Failure { exit: known.unwrap_or(Exit::Unable), findings, message })
            }
        }
    }
}

/// A client of the process that holds the auditor's keys.
pub struct HolderClient {
    client: Client<HolderRequest, HolderReply>,
    /// How it stood when the connection was made.
    pub status: HolderStatus,
}

/// What stands at a home's holder socket.
pub enum Found {
    /// Nobody.
    Nobody,
    /// The holder of this home's keys.
    Holder(HolderClient),
    /// Somebody who does not serve this home, and why.
    Stranger(String),
}

impl HolderClient {
    /// Looks who holds the auditor's keys of `home`.
    pub fn find(home: &Home) -> Found {
        let mut client = match Client::connect(&home.auditor_socket()) {
            Ok(client) => client,
            Err(error) if matches!(error.kind(), io::ErrorKind::NotFound | io::ErrorKind::ConnectionRefused) => {
                return Found::Nobody;
            }
            Err(error) => return Found::Stranger(error.to_string()),
        };
        let id = match HomeId::of(home.root()) {
            Ok(id) => id,
            Err(error) => return Found::Stranger(error.to_string()),
        };
        match client.call(HolderRequest::Hello { protocol: PROTOCOL_VERSION, home: id }) {
            Ok(HolderReply::Welcome(status)) => Found::Holder(HolderClient { client, status }),
            Ok(HolderReply::Refused(refusal)) => Found::Stranger(refusal.to_string()),
            Ok(_) => Found::Stranger("it gave an unexpected answer".to_owned()),
            // It ended between the two steps.
            Err(ClientError::Io(_)) => Found::Nobody,
            Err(error) => Found::Stranger(error.to_string()),
        }
    }

    /// Has a verb carried out; the answer is this process's own.
    ///
    /// # Errors
    /// [`Failure`] (3) when the holder refuses or ends meanwhile.
    pub fn carry(mut self, call: VerbCall) -> Result<Carried, Failure> {
        match self.client.call(HolderRequest::Carry(call)) {
            Ok(HolderReply::Carried(carried)) => Ok(*carried),
            Ok(HolderReply::Refused(refusal)) => Err(Failure::unable(refusal)),
            Ok(_) => Err(Failure::unable("the process that holds the auditor's keys gave an unexpected answer")),
            Err(error) => Err(Failure::unable(format!(
                "the process that holds the auditor's keys ended meanwhile ({error}); \
                 look with `amc history` or `amc verify` whether the verb was done, then unlock and try again"
            ))),
        }
    }

    /// Has the keys forgotten.
    ///
    /// # Errors
    /// [`Failure`] (3) when the holder does not answer.
    pub fn lock(mut self) -> Result<(), Failure> {
        match self.client.call(HolderRequest::Lock) {
            // The process is gone, and the keys with it.
            Err(ClientError::Io(_)) => Ok(()),
            Ok(HolderReply::Refused(refusal)) => Err(Failure::unable(refusal)),
            Ok(_) => Err(Failure::unable("the process that holds the auditor's keys gave an unexpected answer")),
            Err(error) => Err(Failure::unable(error)),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use amc_core::FindingCode;

    #[test]
    fn an_answer_and_a_failure_come_through_unchanged() {
        let finding = Finding::warn(FindingCode::ConfigUnsigned, "gateway.yaml", "no signature");
        let data = serde_json::json!({ "path": "bank.toml", "version": 3 });
        let answer = Answer { findings: vec![finding.clone()], data, text: "Signed\n".into(), bad: true };
        let carried = Carried::new("config sign", Ok(answer.clone()));
        let bytes = amc_core::codec::encode(&carried);
        let back: Carried = amc_core::codec::decode_strict(&bytes).expect("decodes");
        let back = back.into_result().expect("an answer");
        assert_eq!((back.findings, back.data, back.text, back.bad), (answer.findings, answer.data, answer.text, true));
        for failure in [Failure::bad("b"), Failure::wrong("w"), Failure::unable("u").with(finding)] {
            let back = Carried::new("run", Err(failure.clone())).into_result().expect_err("a failure");
            assert_eq!((back.exit, back.findings, back.message), (failure.exit, failure.findings, failure.message));
        }
    }
}

//! The verbs and flags of `amc`, as the command line contract names them.

use std::ffi::OsString;
use std::net::SocketAddr;
use std::path::PathBuf;

use amc_core::{AgentId, Digest, RunId};
use amc_workspace::call::Common;
use clap::{Args, Parser, Subcommand, ValueEnum};

/// Proof of what AI agents really do: record, score, and hand out evidence that anyone can verify.
#[derive(Parser)]
#[command(name = "amc", version, propagate_version = true)]
pub(crate) struct Cli {
    #[command(flatten)]
    pub(crate) common: Common,
    /// Hand this file to the auditor, where its passphrase is another.
    #[arg(long, global = true, value_name = "FILE")]
    pub(crate) auditor_passphrase_file: Option<PathBuf>,
    #[command(subcommand)]
    pub(crate) verb: Verb,
}

#[derive(Subcommand)]
pub(crate) enum Verb {
    /// Create a workspace: keys, logs, trust policy, signed defaults.
    #[command(disable_help_flag = true)]
    Init {
        #[arg(trailing_var_arg = true, allow_hyphen_values = true, value_name = "OPTIONS")]
        rest: Vec<OsString>,
    },
    /// Start monitor and gateway in the background.
    Up,
    /// Stop what `up` started.
    Down,
    /// What runs, and where.
    Status,
    /// Probe the trust boundary from where an agent runs that AMC does not start.
    Probe(ProbePlan),
    /// What this machine can do for keeping an agent apart, and what would help.
    Doctor,
    /// Run an unmodified agent under the monitor.
    Wrap(WrapPlan),
    /// The LLM gateway and its configuration.
    Gateway {
        #[command(subcommand)]
        verb: GatewayVerb,
    },
    /// Leases for agents that AMC does not start.
    Lease {
        #[command(subcommand)]
        verb: crate::leases::LeaseVerb,
    },
    /// Verify everything in the workspace; never writes.
    Verify(VerifyPlan),
    /// Score an agent's evidence, seal the report, record it.
    #[command(disable_help_flag = true)]
    Run {
        #[arg(trailing_var_arg = true, allow_hyphen_values = true, value_name = "OPTIONS")]
        rest: Vec<OsString>,
    },
    /// Cosign the newest checkpoint of the evidence log as the auditor.
    #[command(disable_help_flag = true)]
    Cosign {
        #[arg(trailing_var_arg = true, allow_hyphen_values = true, value_name = "OPTIONS")]
        rest: Vec<OsString>,
    },
    /// Record a file about an agent: a document, or results of tests.
    Ingest(crate::ingest::IngestPlan),
    /// Say as the auditor that evidence that was handed in is what it says.
    #[command(disable_help_flag = true)]
    Attest {
        #[arg(trailing_var_arg = true, allow_hyphen_values = true, value_name = "OPTIONS")]
        rest: Vec<OsString>,
    },
    /// The question bank in force.
    Bank {
        #[command(subcommand)]
        verb: crate::bank::BankVerb,
    },
    /// Target profiles: which level each question is to reach.
    Target {
        #[command(subcommand)]
        verb: crate::targets::TargetVerb,
    },
    /// Record as the auditor that an agent's trust boundary is in order from now on.
    #[command(disable_help_flag = true)]
    Epoch {
        #[arg(trailing_var_arg = true, allow_hyphen_values = true, value_name = "OPTIONS")]
        rest: Vec<OsString>,
    },
    /// Show a run's report.
    Report(ReportPlan),
    /// What holds a level back, in numbers.
    Explain {
        /// The run.
        run: RunId,
        /// One question's id.
        question: Option<String>,
    },
    /// The runs of an agent, oldest first.
    History {
        /// The agent.
        #[arg(long, value_name = "ID")]
        agent: AgentId,
    },
    /// Portable evidence.
    Bundle {
        #[command(subcommand)]
        verb: BundleVerb,
    },
    /// Decide a release on a bundle under a signed policy.
    Gate(GatePlan),
    /// Issue a certificate for a run that passes a gate policy.
    #[command(disable_help_flag = true)]
    Certify {
        #[arg(trailing_var_arg = true, allow_hyphen_values = true, value_name = "OPTIONS")]
        rest: Vec<OsString>,
    },
    /// Certificates.
    Cert {
        #[command(subcommand)]
        verb: CertVerb,
    },
    /// The logs.
    Ledger {
        #[command(subcommand)]
        verb: LedgerVerb,
    },
    /// Receipts of model calls.
    Receipt {
        #[command(subcommand)]
        verb: ReceiptVerb,
    },
    /// Pinned keys.
    Trust {
        #[command(subcommand)]
        verb: TrustVerb,
    },
    /// Signed configuration.
    Config {
        #[command(subcommand)]
        verb: ConfigVerb,
    },
    /// Keys and secrets.
    Vault {
        #[command(subcommand)]
        verb: VaultVerb,
    },
    /// Cosignatures from and for others, over HTTP.
    Witness {
        #[command(subcommand)]
        verb: WitnessVerb,
    },
    /// The manual page of amc, or of one of its verbs.
    Man {
        /// A verb, such as `bundle verify`.
        verb: Vec<String>,
    },
    /// Completions for a shell.
    Completions {
        /// Which shell.
        shell: clap_complete::Shell,
    },
}

/// What `wrap` runs and how.
#[derive(Args)]
pub(crate) struct WrapPlan {
    /// The agent.
    #[arg(long, value_name = "ID")]
    pub(crate) agent: AgentId,
    /// Set variables for this provider's clients only; may be given more than once.
    #[arg(long = "adapter", value_name = "NAME")]
    pub(crate) adapters: Vec<String>,
    /// How the agent is kept from the keys.
    #[arg(long, default_value = "auto", value_name = "auto|none|user:NAME|namespaces")]
    pub(crate) isolation: amc_sandbox::Asked,
    /// What the session is for.
    #[arg(long, value_enum, default_value = "agent")]
    pub(crate) kind: SessionKind,
    /// Pass this variable of yours on to the agent; may be given more than once.
    #[arg(long = "pass-env", value_name = "NAME")]
    pub(crate) pass: Vec<OsString>,
    /// Write `{session, events, outcome, exit_status}` to this file.
    #[arg(long, value_name = "FILE")]
    pub(crate) summary: Option<PathBuf>,
    /// The command and its arguments.
    #[arg(last = true, required = true, value_name = "CMD")]
    pub(crate) command: Vec<OsString>,
}

/// What a wrapped session is for.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub(crate) enum SessionKind {
    /// The agent's work.
    Agent,
    /// A test suite.
    Test,
}

#[derive(Subcommand)]
pub(crate) enum GatewayVerb {
    /// Write and sign gateway.yaml.
    #[command(disable_help_flag = true)]
    Init {
        #[arg(trailing_var_arg = true, allow_hyphen_values = true, value_name = "OPTIONS")]
        rest: Vec<OsString>,
    },
    /// Run the gateway in the foreground, beside a running monitor.
    Start {
        /// Listen here instead of where gateway.yaml says.
        #[arg(long, value_name = "ADDR")]
        listen: Option<SocketAddr>,
    },
    /// Where the gateway listens.
    Status,
    /// Have the running gateway read gateway.yaml again; a file that does not hold leaves the old one in force.
    Reload,
    /// Check gateway.yaml and its signature.
    VerifyConfig,
}

/// What `verify` looks at.
#[derive(Args)]
pub(crate) struct VerifyPlan {
    /// Check tree and checkpoints without every signature.
    #[arg(long)]
    pub(crate) quick: bool,
    /// Which log.
    #[arg(long, value_enum, default_value = "all")]
    pub(crate) log: WhichLogs,
    /// A checkpoint from elsewhere that the logs must contain; may be given more than once.
    #[arg(long = "checkpoint", value_name = "FILE")]
    pub(crate) checkpoints: Vec<PathBuf>,
    /// The evidence log, where it is not in this home.
    #[arg(long, value_name = "DIR")]
    pub(crate) evidence: Option<PathBuf>,
}

/// Which logs.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub(crate) enum WhichLogs {
    /// The monitor's.
    Evidence,
    /// The auditor's.
    Audit,
    /// Both.
    All,
}

/// One log.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub(crate) enum WhichLog {
    /// The monitor's.
    Evidence,
    /// The auditor's.
    Audit,
}

/// What `report` shows.
#[derive(Args)]
pub(crate) struct ReportPlan {
    /// The run.
    pub(crate) run: RunId,
    /// As what.
    #[arg(long, value_enum, default_value = "md")]
    pub(crate) format: ReportFormat,
    /// Into this file instead of standard output.
    #[arg(long, value_name = "FILE")]
    pub(crate) out: Option<PathBuf>,
}

/// A report's formats.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub(crate) enum ReportFormat {
    /// Markdown.
    Md,
    /// One self-contained page.
    Html,
    /// The sealed bytes.
    Json,
}

#[derive(Subcommand)]
pub(crate) enum BundleVerb {
    /// Write a run with its evidence into one file.
    #[command(disable_help_flag = true)]
    Export {
        #[arg(trailing_var_arg = true, allow_hyphen_values = true, value_name = "OPTIONS")]
        rest: Vec<OsString>,
    },
    /// Verify a bundle offline with pinned keys and recompute its score.
    Verify {
        /// The bundle.
        file: PathBuf,
        /// The trust policy that pins the issuer.
        #[arg(long, value_name = "FILE")]
        trust: Option<PathBuf>,
        /// Each log's newest cosignature may be this old: a number and s, m, h, d or w.
        #[arg(long, value_name = "AGE", value_parser = amc_workspace::duration::seconds)]
        max_age: Option<u64>,
    },
    /// Show what a bundle says, without believing it.
    Inspect {
        /// The bundle.
        file: PathBuf,
    },
    /// What changed between two bundles that verify: levels, status, findings, window.
    Diff {
        /// The earlier one.
        from: PathBuf,
        /// The later one.
        to: PathBuf,
        /// The trust policy that pins their issuers.
        #[arg(long, value_name = "FILE")]
        trust: Option<PathBuf>,
    },
}

#[derive(Subcommand)]
pub(crate) enum CertVerb {
    /// Verify a certificate offline: the bundle in it, its policy, its time, revocations.
    Verify(CertVerifyPlan),
    /// Show what a certificate says, without believing it; or, once it verified, as a page or a badge.
    Inspect(CertInspectPlan),
    /// Record that a certificate counts no longer, and write the signed file that says so.
    #[command(disable_help_flag = true)]
    Revoke {
        #[arg(trailing_var_arg = true, allow_hyphen_values = true, value_name = "OPTIONS")]
        rest: Vec<OsString>,
    },
}

/// What `cert verify` looks at.
#[derive(Args)]
pub(crate) struct CertVerifyPlan {
    /// The certificate.
    pub(crate) file: PathBuf,
    /// The trust policy that pins the issuer.
    #[arg(long, value_name = "FILE")]
    pub(crate) trust: Option<PathBuf>,
    /// A revocation, or a directory of them.
    #[arg(long, value_name = "FILE|DIR")]
    pub(crate) revocations: Option<PathBuf>,
    /// Each log's newest cosignature may be this old: a number and s, m, h, d or w.
    #[arg(long, value_name = "AGE", value_parser = amc_workspace::duration::seconds)]
    pub(crate) max_age: Option<u64>,
}

/// What `cert inspect` shows.
#[derive(Args)]
pub(crate) struct CertInspectPlan {
    /// The certificate.
    pub(crate) file: PathBuf,
    /// As what; a page and a badge are made of a certificate that verifies, and of no other.
    #[arg(long, value_enum, default_value = "text")]
    pub(crate) format: CertFormat,
    /// A page or badge into this file instead of standard output.
    #[arg(long, value_name = "FILE")]
    pub(crate) out: Option<PathBuf>,
    /// The trust policy that pins the issuer.
    #[arg(long, value_name = "FILE")]
    pub(crate) trust: Option<PathBuf>,
    /// A revocation, or a directory of them.
    #[arg(long, value_name = "FILE|DIR")]
    pub(crate) revocations: Option<PathBuf>,
}

/// How a certificate is shown.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub(crate) enum CertFormat {
    /// What it says, unverified.
    Text,
    /// One page, ready for print.
    Html,
    /// A small SVG.
    Badge,
}

/// What `gate` decides on.
#[derive(Args)]
pub(crate) struct GatePlan {
    /// The bundle.
    #[arg(long, value_name = "FILE")]
    pub(crate) bundle: PathBuf,
    /// The policy, with its signature beside it in FILE.sig.
    #[arg(long, value_name = "FILE")]
    pub(crate) policy: PathBuf,
    /// A verifier key under which the policy may be signed, instead of the pinned auditor's.
    #[arg(long, value_name = "FILE")]
    pub(crate) policy_key: Option<PathBuf>,
    /// The policy's SHA-256, to refuse any other version.
    #[arg(long, value_name = "HEX")]
    pub(crate) policy_digest: Option<Digest>,
    /// The trust policy that pins the bundle's issuer.
    #[arg(long, value_name = "FILE")]
    pub(crate) trust: Option<PathBuf>,
    /// Also write the rules as JUnit XML.
    #[arg(long, value_name = "FILE")]
    pub(crate) junit: Option<PathBuf>,
    /// Also write the rules and findings as SARIF 2.1.0.
    #[arg(long, value_name = "FILE")]
    pub(crate) sarif: Option<PathBuf>,
    /// Also have this home's auditor sign the verdict, as a SLSA verification summary in a DSSE envelope.
    #[arg(long, value_name = "FILE")]
    pub(crate) attest: Option<PathBuf>,
}

#[derive(Subcommand)]
pub(crate) enum LedgerVerb {
    /// Size, root and signatures of a log.
    Head {
        /// Which log.
        #[arg(long, value_enum, default_value = "evidence")]
        log: WhichLog,
    },
    /// One event.
    Show {
        /// Its index.
        index: u64,
        /// Which log.
        #[arg(long, value_enum, default_value = "evidence")]
        log: WhichLog,
    },
    /// The newest events.
    Tail {
        /// How many.
        #[arg(short = 'n', long, default_value_t = 20)]
        count: u64,
        /// Which log.
        #[arg(long, value_enum, default_value = "evidence")]
        log: WhichLog,
    },
    /// Write a proof that an event stands in the log.
    Prove {
        /// Its event_hash.
        #[arg(long, value_name = "HASH")]
        event: Digest,
        /// The .tlog-proof to write.
        #[arg(long, value_name = "FILE")]
        out: PathBuf,
        /// Which log.
        #[arg(long, value_enum, default_value = "evidence")]
        log: WhichLog,
    },
    /// Write the tree as static files for clients of C2SP tlog-tiles.
    Export {
        /// Where to; an earlier export of this log there grows.
        #[arg(long, value_name = "DIR")]
        tiles: PathBuf,
        /// Which log.
        #[arg(long, value_enum, default_value = "evidence")]
        log: WhichLog,
    },
    /// Rebuild the index and missing tiles of a log that is not open.
    Reindex {
        /// Which log.
        #[arg(long, value_enum, default_value = "evidence")]
        log: WhichLog,
    },
    /// End a log that cannot go on, and begin the next one beside it.
    Succeed {
        /// Which log.
        #[arg(long, value_enum, default_value = "evidence")]
        log: WhichLog,
        /// The new evidence log, where it is not in this home.
        #[arg(long, value_name = "DIR")]
        evidence: Option<PathBuf>,
        /// The new log's key, compared with its owner; needed where the old one was revoked.
        #[arg(long, value_name = "VKEY")]
        key: Option<String>,
    },
}

#[derive(Subcommand)]
pub(crate) enum ReceiptVerb {
    /// Verify a receipt under the pinned monitor's key; with a proof, a bundle or the log, its position too.
    Verify(ReceiptVerifyPlan),
    /// Write a proof that a receipt's event stands in the log, for anybody to check.
    Prove {
        /// The receipt's id (rcpt-…), its event_hash, or the receipt itself.
        id: String,
        /// The .tlog-proof to write.
        #[arg(long, value_name = "FILE")]
        out: PathBuf,
    },
}

/// What `receipt verify` holds a receipt against.
#[derive(Args)]
pub(crate) struct ReceiptVerifyPlan {
    /// The receipt, or a file that holds it.
    pub(crate) receipt: String,
    /// The body that it should be for.
    #[arg(long, value_name = "FILE")]
    pub(crate) body: Option<PathBuf>,
    /// A .tlog-proof of its event.
    #[arg(long, value_name = "FILE", conflicts_with_all = ["bundle", "log"])]
    pub(crate) proof: Option<PathBuf>,
    /// A bundle that carries its event.
    #[arg(long, value_name = "FILE", conflicts_with = "log")]
    pub(crate) bundle: Option<PathBuf>,
    /// The evidence log, where it is not in this home.
    #[arg(long, value_name = "DIR")]
    pub(crate) log: Option<PathBuf>,
    /// The trust policy that pins the monitor.
    #[arg(long, value_name = "FILE")]
    pub(crate) trust: Option<PathBuf>,
}

/// How `probe` finds its gateway.
#[derive(Args)]
pub(crate) struct ProbePlan {
    /// The lease's token; better in AMC_LEASE, since other users can read command lines.
    #[arg(long, value_name = "TOKEN")]
    pub(crate) lease: Option<String>,
    /// The gateway, instead of AMC_GATEWAY, OPENAI_BASE_URL or ANTHROPIC_BASE_URL.
    #[arg(long, value_name = "URL")]
    pub(crate) gateway: Option<String>,
}

/// What `trust pin` takes.
#[derive(Args)]
pub(crate) struct PinPlan {
    /// A policy from `amc trust export`, or a verifier key.
    #[arg(value_name = "FILE|KEY")]
    pub(crate) from: String,
    /// Take the given key where another one is pinned under the same name.
    #[arg(long)]
    pub(crate) replace: bool,
}

#[derive(Subcommand)]
pub(crate) enum TrustVerb {
    /// The pinned keys.
    Show,
    /// Pin keys that somebody gave out, in this home's trust policy.
    Pin(PinPlan),
    /// The trust policy, for somebody who is to verify.
    Export {
        /// Into this file instead of standard output.
        #[arg(long, value_name = "FILE")]
        out: Option<PathBuf>,
    },
}

#[derive(Subcommand)]
pub(crate) enum WitnessVerb {
    /// Be a witness for other logs that the trust policy pins, beside a running monitor (C2SP tlog-witness).
    Serve {
        /// Where to listen; a loopback address.
        #[arg(long, default_value = "127.0.0.1:3214", value_name = "ADDR")]
        listen: SocketAddr,
    },
    /// Ask the witnesses that the trust policy names with a URL for cosignatures of the newest checkpoints.
    Push {
        /// Which log.
        #[arg(long, value_enum, default_value = "all")]
        log: WhichLogs,
    },
}

#[derive(Subcommand)]
pub(crate) enum ConfigVerb {
    /// Sign a file of the workspace as its next version.
    #[command(disable_help_flag = true)]
    Sign {
        #[arg(trailing_var_arg = true, allow_hyphen_values = true, value_name = "OPTIONS")]
        rest: Vec<OsString>,
    },
    /// Check a file's signature.
    Verify {
        /// Path, relative to the workspace's directory.
        path: String,
    },
}

#[derive(Subcommand)]
pub(crate) enum VaultVerb {
    /// Compartments, what a guess of a passphrase costs, and what is unlocked now, by which process.
    Status,
    /// Give a workspace a compartment that it lacks, with new keys.
    #[command(disable_help_flag = true)]
    Init {
        #[arg(trailing_var_arg = true, allow_hyphen_values = true, value_name = "OPTIONS")]
        rest: Vec<OsString>,
    },
    /// Put compartments under another passphrase.
    #[command(disable_help_flag = true)]
    ChangePassphrase {
        #[arg(trailing_var_arg = true, allow_hyphen_values = true, value_name = "OPTIONS")]
        rest: Vec<OsString>,
    },
    /// Keep keys in a running process: the auditor's for its verbs, the monitor's by `up`.
    Unlock {
        /// Whose.
        #[arg(long, value_enum, default_value = "auditor")]
        role: Roles,
        /// Forget the auditor's keys after this long without a verb: a number and s, m or h.
        #[arg(long, default_value = "15m", value_name = "TIME")]
        idle: String,
    },
    /// Have running processes forget keys, on every terminal; the monitor stops.
    Lock {
        /// Whose.
        #[arg(long, value_enum, default_value = "all")]
        role: Roles,
    },
    /// Change a role's keys; old signatures stay good, old private keys are erased.
    RotateKeys(RotatePlan),
    /// Provider keys: set, list, remove.
    #[command(disable_help_flag = true)]
    Secret {
        #[arg(trailing_var_arg = true, allow_hyphen_values = true, value_name = "OPTIONS")]
        rest: Vec<OsString>,
    },
}

/// Whose keys change, and why.
#[derive(Args)]
pub(crate) struct RotatePlan {
    /// Whose.
    #[arg(long, value_enum)]
    pub(crate) role: OneRole,
    /// Which key.
    #[arg(long, value_parser = ["log", "witness", "all"], default_value = "log")]
    pub(crate) key: String,
    /// The key was stolen: nothing that it signed from this index of its log on counts. The other role says so.
    #[arg(long, value_name = "INDEX", requires = "reason")]
    pub(crate) revoke_from: Option<u64>,
    /// What happened, for the log.
    #[arg(long, value_name = "TEXT", requires = "revoke_from")]
    pub(crate) reason: Option<String>,
}

/// One role.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub(crate) enum OneRole {
    /// The monitor.
    Monitor,
    /// The auditor.
    Auditor,
}

/// One role or both.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub(crate) enum Roles {
    /// Both.
    All,
    /// The monitor.
    Monitor,
    /// The auditor.
    Auditor,
}

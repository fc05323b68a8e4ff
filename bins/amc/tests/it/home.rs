//! Homes for tests: initialised once for all tests of a build, copied for each.
//!
//! Stretching a passphrase takes a third of a second on purpose, so the template is made once, under
//! the target directory, and shared by test processes too. It is keyed by the binaries that made it.

use std::fs::{self, File, Permissions};
use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::{Duration, Instant, UNIX_EPOCH};

use amc_testkit::{Program, binary};
use tempfile::TempDir;

use crate::answer::Answer;

/// The passphrase of every test home.
pub(crate) const PASSPHRASE: &str = "correct horse battery staple";
/// The provider's real key in the scored home's vault. The demo model takes no other.
pub(crate) const PROVIDER_KEY: &str = "sk-provider-0123456789abcdef0123456789abcdef";

/// A home of one test; gone with it.
pub(crate) struct TestHome {
    dir: TempDir,
}

impl TestHome {
    /// A workspace `acme-test` with the agents `support` and `helper`, whose gateway takes any free port.
    pub(crate) fn new() -> Self {
        TestHome { dir: copy_of("initialised", initialise) }
    }

    /// The same after a session of `support` with a plain and a streaming call, a run and a bundle; see [`Scored`].
    pub(crate) fn scored() -> Scored {
        let home = TestHome { dir: copy_of("scored", score) };
        let run_id = fs::read_to_string(home.beside("run-id")).expect("the template has it");
        Scored { bundle: home.beside("run.amcbundle"), home, run_id }
    }

    /// The home's directory.
    pub(crate) fn root(&self) -> PathBuf {
        self.dir.path().join("home")
    }

    /// A file of the home.
    pub(crate) fn file(&self, relative: &str) -> PathBuf {
        self.root().join(relative)
    }

    /// A file outside the home that goes with it.
    pub(crate) fn beside(&self, name: &str) -> PathBuf {
        self.dir.path().join(name)
    }

    /// `amc` with this home, unlocked by the variable, and nothing else of this test's environment.
    pub(crate) fn command(&self) -> Command {
        command_in(self.dir.path())
    }

    /// Runs `amc` with these arguments.
    pub(crate) fn amc(&self, arguments: &[&str]) -> Answer {
        Answer::of(self.command().args(arguments))
    }

    /// The same with `--json`.
    pub(crate) fn json(&self, arguments: &[&str]) -> Answer {
        Answer::of(self.command().arg("--json").args(arguments))
    }

    /// Wraps a shell command as the agent `support`.
    pub(crate) fn wrap_sh(&self, script: &str) -> Answer {
        self.amc(&["wrap", "--agent", "support", "--isolation", "none", "--", "sh", "-c", script])
    }

    /// The newest events of the evidence log.
    pub(crate) fn evidence(&self) -> Vec<serde_json::Value> {
        let answer = self.json(&["ledger", "tail", "-n", "10000"]).ends(0);
        answer.data()["events"].as_array().expect("a list").clone()
    }

    /// Events of one kind.
    pub(crate) fn evidence_of(&self, kind: &str) -> Vec<serde_json::Value> {
        self.evidence().into_iter().filter(|event| event["kind"] == kind).collect()
    }

    /// Signs a `gateway.yaml` whose provider `openai` is at `address`.
    pub(crate) fn route_to(&self, address: impl std::fmt::Display) {
        let provider = format!("openai=http://{address}/v1");
        self.amc(&["gateway", "init", "--listen", "127.0.0.1:0", "--provider", &provider]).ends(0);
    }

    /// No temporary file is left anywhere, and nothing that others could read.
    #[track_caller]
    pub(crate) fn assert_tidy(&self) {
        for path in files_under(self.dir.path()) {
            let name = path.file_name().expect("a name").to_string_lossy().into_owned();
            let leftover = [".tmp", ".spool", ".init-"].iter().any(|part| name.contains(part));
            assert!(!leftover, "{} was left behind", path.display());
        }
    }
}

/// A home with a recorded session, a run and its bundle.
pub(crate) struct Scored {
    pub(crate) home: TestHome,
    /// The exported bundle, beside the home.
    pub(crate) bundle: PathBuf,
    pub(crate) run_id: String,
}

impl Scored {
    /// A copy of one log as it was before the session.
    pub(crate) fn earlier_log(&self, name: &str) -> PathBuf {
        self.home.beside("earlier").join(name)
    }
}

/// `amc` in `dir` with the home `dir/home`.
pub(crate) fn command_in(dir: &Path) -> Command {
    let mut command = bare_command(dir);
    command.env("AMC_VAULT_PASSPHRASE", PASSPHRASE).env("AMC_HOME", dir.join("home"));
    command
}

/// `amc` in `dir` with nothing but a `PATH`.
pub(crate) fn bare_command(dir: &Path) -> Command {
    let mut command = Command::new(binary("amc"));
    let path = std::env::var_os("PATH").unwrap_or_else(|| "/usr/local/bin:/usr/bin:/bin".into());
    command.env_clear().env("PATH", path).env("HOME", dir).current_dir(dir).stdin(Stdio::null());
    command
}

/// Waits for something that other processes bring about.
#[track_caller]
pub(crate) fn until(mut condition: impl FnMut() -> bool) {
    let deadline = Instant::now() + Duration::from_secs(30);
    while !condition() {
        assert!(Instant::now() < deadline, "it did not come about within 30 seconds");
        std::thread::sleep(Duration::from_millis(5));
    }
}

/// A demo model in a process of its own.
pub(crate) fn model(arguments: &[&str]) -> Program {
    Program::start(Command::new(binary("amc-demo-model")).args(["--delay-ms", "0"]).args(arguments))
}

/// Every regular file under `dir`.
pub(crate) fn files_under(dir: &Path) -> Vec<PathBuf> {
    let mut files = Vec::new();
    for entry in fs::read_dir(dir).expect("a readable directory") {
        let entry = entry.expect("an entry");
        let kind = entry.file_type().expect("a file type");
        if kind.is_dir() {
            files.extend(files_under(&entry.path()));
        } else if kind.is_file() {
            files.push(entry.path());
        }
    }
    files
}

/// Copies a directory with the modes of what is in it; sockets stay behind.
pub(crate) fn copy_dir(from: &Path, to: &Path) {
    fs::create_dir_all(to).expect("a new directory");
    for entry in fs::read_dir(from).expect("a readable directory") {
        let entry = entry.expect("an entry");
        let (kind, target) = (entry.file_type().expect("a file type"), to.join(entry.file_name()));
        if kind.is_dir() {
            copy_dir(&entry.path(), &target);
        } else if kind.is_file() {
            fs::copy(entry.path(), &target).expect("a copy with its mode");
        }
    }
    let mode = fs::metadata(from).expect("it is there").permissions().mode();
    fs::set_permissions(to, Permissions::from_mode(mode)).expect("its mode");
}

/// A fresh copy of the template `name`, which `make` fills when no test of this build has done so yet.
fn copy_of(name: &str, make: fn(&Path)) -> TempDir {
    let template = template(name, make);
    let dir = tempfile::Builder::new().prefix("amc-").tempdir().expect("a temporary directory");
    copy_dir(&template, dir.path());
    dir
}

fn template(name: &str, make: fn(&Path)) -> PathBuf {
    let tmp = Path::new(env!("CARGO_TARGET_TMPDIR"));
    let lock = File::create(tmp.join(format!("{name}.lock"))).expect("a lock file");
    lock.lock().expect("the lock is given when its holder is done");
    let ready = tmp.join(format!("{name}-{}", build()));
    if ready.is_dir() {
        return ready;
    }
    for entry in fs::read_dir(tmp).expect("a readable directory") {
        let path = entry.expect("an entry").path();
        let is_ours = path.file_name().is_some_and(|file| file.to_string_lossy().starts_with(&format!("{name}-")));
        if is_ours && path.is_dir() {
            fs::remove_dir_all(&path).expect("an older build's template goes");
        }
    }
    let unfinished = tmp.join(format!("{name}-unfinished"));
    if unfinished.is_dir() {
        fs::remove_dir_all(&unfinished).expect("what a failed test left goes");
    }
    fs::create_dir(&unfinished).expect("a new directory");
    make(&unfinished);
    fs::rename(&unfinished, &ready).expect("the finished template gets its name");
    ready
}

/// What changes when one of the binaries that make a home does.
fn build() -> String {
    let stamp = |name: &str| {
        let built = binary(name).metadata().and_then(|meta| meta.modified()).expect("a binary with a date");
        built.duration_since(UNIX_EPOCH).expect("built after 1970").as_nanos()
    };
    format!("{:x}-{:x}-{:x}", stamp("amc-auditor"), stamp("amc-monitor"), stamp("amc-gateway"))
}

fn initialise(dir: &Path) {
    let amc = |arguments: &[&str]| Answer::of(command_in(dir).args(arguments)).ends(0);
    amc(&["init", "--name", "acme-test", "--agent", "support", "--agent", "helper"]);
    amc(&["gateway", "init", "--listen", "127.0.0.1:0"]);
}

fn score(dir: &Path) {
    copy_dir(&template("initialised", initialise), dir);
    let amc = |arguments: &[&str]| Answer::of(command_in(dir).args(arguments));
    let home = dir.join("home");
    for file in ["gateway.yaml", "gateway.yaml.sig"] {
        fs::copy(home.join(file), dir.join(format!("earlier-{file}"))).expect("a copy");
    }
    let model = model(&["--require-key", PROVIDER_KEY]);
    let provider = format!("openai=http://{}/v1", model.listening());
    amc(&["gateway", "init", "--provider", &provider]).ends(0);
    set_secret(dir, PROVIDER_KEY);
    copy_dir(&home.join("logs"), &dir.join("earlier"));
    let agent = binary("amc-demo-agent").display().to_string();
    let wrap = ["wrap", "--agent", "support", "--isolation", "none", "--"];
    amc(&[&wrap[..], &[&agent, "--plain", "2", "--stream", "1"]].concat()).ends(0);
    let run = amc(&["--json", "run", "--agent", "support"]);
    let data = run.data();
    let run_id = data["run_id"].as_str().expect("a run id");
    let bundle = dir.join("run.amcbundle").display().to_string();
    amc(&["bundle", "export", "--agent", "support", "--run", run_id, "--out", &bundle]).ends(0);
    fs::write(dir.join("run-id"), run_id).expect("a small file");
}

/// Puts a provider's key into the vault.
pub(crate) fn set_secret(dir: &Path, value: &str) {
    let input = dir.join("secret");
    fs::write(&input, value).expect("a small file");
    let stdin = File::open(&input).expect("it was just written");
    Answer::of(command_in(dir).args(["vault", "secret", "set", "provider/openai"]).stdin(stdin)).ends(0);
    fs::remove_file(&input).expect("it was just written");
}

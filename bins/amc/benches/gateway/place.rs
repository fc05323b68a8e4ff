//! Where calls go: to the upstream itself, through nginx, or through a gateway with its monitor.

use std::fs;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use amc_testkit::binary;
use tempfile::TempDir;

/// A place that answers calls.
pub(crate) struct Place {
    pub(crate) name: String,
    pub(crate) address: SocketAddr,
    prefix: &'static str,
    token: String,
    /// The processes between caller and upstream; the first is the proxy itself.
    pids: Vec<u32>,
    _running: Option<Box<dyn std::any::Any>>,
}

impl Place {
    pub(crate) fn direct(address: SocketAddr) -> Self {
        let (name, token) = ("direct".to_owned(), "none".to_owned());
        Place { name, address, prefix: "", token, pids: Vec::new(), _running: None }
    }

    /// nginx as a plain reverse proxy, where it is installed.
    pub(crate) fn nginx(upstream: SocketAddr) -> Option<Self> {
        let dir = tempfile::tempdir().expect("a temporary directory");
        let port = std::net::TcpListener::bind("127.0.0.1:0").and_then(|listener| listener.local_addr()).ok()?.port();
        let config = format!(
            "daemon off; pid {0}/pid; error_log {0}/error.log; worker_processes 2; events {{ worker_connections 1024; }}\n\
             http {{ access_log off; client_max_body_size 0; proxy_request_buffering off; proxy_buffering off;\n\
             client_body_temp_path {0}/a; proxy_temp_path {0}/b; fastcgi_temp_path {0}/c; uwsgi_temp_path {0}/d; scgi_temp_path {0}/e;\n\
             upstream up {{ server {upstream}; keepalive 256; keepalive_requests 100000000; }}\n\
             server {{ listen 127.0.0.1:{port}; keepalive_requests 100000000;\n\
             location / {{ proxy_pass http://up; proxy_http_version 1.1; proxy_set_header Connection \"\"; }} }} }}\n",
            dir.path().display()
        );
        fs::write(dir.path().join("nginx.conf"), config).expect("a small file");
        let mut command = Command::new("nginx");
        command.arg("-c").arg(dir.path().join("nginx.conf")).arg("-e").arg(dir.path().join("error.log"));
        let child = command.stdout(Stdio::null()).stderr(Stdio::null()).spawn().ok()?;
        let address = SocketAddr::from(([127, 0, 0, 1], port));
        await_listener("nginx", address, Duration::from_secs(10));
        let mut pids = vec![child.id()];
        pids.extend(children(child.id()));
        let running: Box<dyn std::any::Any> = Box::new(Ended(child, dir));
        let (name, token) = ("nginx".to_owned(), "none".to_owned());
        Some(Place { name, address, prefix: "", token, pids, _running: Some(running) })
    }

    /// LiteLLM's proxy with one worker, where `AMC_BENCH_LITELLM` names the directory with its program.
    pub(crate) fn litellm(upstream: SocketAddr) -> Option<Self> {
        let programs = PathBuf::from(std::env::var_os(LITELLM_VARIABLE)?);
        let dir = tempfile::tempdir().expect("a temporary directory");
        let port = std::net::TcpListener::bind("127.0.0.1:0").and_then(|listener| listener.local_addr()).ok()?.port();
        let config = format!(
            "model_list:\n  - model_name: m\n    litellm_params: {{model: openai/m, api_base: \"http://{upstream}/v1\", api_key: none}}\n\
             litellm_settings: {{telemetry: false}}\n"
        );
        fs::write(dir.path().join("config.yaml"), config).expect("a small file");
        let mut command = Command::new(programs.join("litellm"));
        command.arg("--config").arg(dir.path().join("config.yaml"));
        let token = format!("sk-{}", "0123456789abcdef".repeat(4));
        command.args(["--host", "127.0.0.1", "--port", &port.to_string()]);
        command.env("LITELLM_LOCAL_MODEL_COST_MAP", "True").env("LITELLM_MASTER_KEY", &token);
        let child = command.current_dir(dir.path()).stdout(Stdio::null()).stderr(Stdio::null()).spawn().ok()?;
        let address = SocketAddr::from(([127, 0, 0, 1], port));
        await_listener("litellm", address, Duration::from_secs(180));
        let pids = vec![child.id()];
        let running: Box<dyn std::any::Any> = Box::new(Ended(child, dir));
        let name = "LiteLLM's proxy".to_owned();
        Some(Place { name, address, prefix: "", token, pids, _running: Some(running) })
    }

    /// A gateway with its monitor.
    pub(crate) fn gateway(workspace: Workspace, receipts: &str) -> Self {
        let (address, token, pids) = (workspace.listen, workspace.token.clone(), workspace.pids.clone());
        let running: Box<dyn std::any::Any> = Box::new(workspace);
        Place { name: format!("gateway, {receipts}"), address, prefix: "/openai", token, pids, _running: Some(running) }
    }

    /// A whole request with this text as its body.
    pub(crate) fn request(&self, path: &str, text: &str) -> Vec<u8> {
        let body = format!("{{\"model\":\"m\",\"messages\":[{{\"role\":\"user\",\"content\":\"{text}\"}}]}}");
        let head = format!(
            "POST {}{path} HTTP/1.1\r\nhost: bench\r\nauthorization: Bearer {}\r\ncontent-type: application/json\r\n\
             content-length: {}\r\n\r\n",
            self.prefix,
            self.token,
            body.len()
        );
        [head.into_bytes(), body.into_bytes()].concat()
    }

    /// Processor time of everything between caller and upstream.
    pub(crate) fn cpu(&self) -> Duration {
        let ticks: u64 = self.pids.iter().map(|pid| cpu_ticks(*pid).unwrap_or(0)).sum();
        // USER_HZ is 100 on every Linux that there is.
        Duration::from_millis(ticks * 10)
    }

    /// The proxy's largest memory so far.
    pub(crate) fn memory_kib(&self) -> Option<u64> {
        // nginx's first process only looks after the others.
        let proxies = if self.name == "nginx" { &self.pids[..] } else { self.pids.get(..1)? };
        (!proxies.is_empty()).then(|| proxies.iter().filter_map(|pid| status_kib(*pid, "VmHWM:")).sum())
    }

    /// The memory of gateway and monitor now.
    pub(crate) fn resident_kib(&self) -> [u64; 2] {
        let of = |pid: &u32| status_kib(*pid, "VmRSS:").expect("it runs");
        let all: Vec<u64> = self.pids.iter().map(of).collect();
        all.try_into().expect("a gateway and its monitor")
    }
}

/// The directory with LiteLLM's program.
const LITELLM_VARIABLE: &str = "AMC_BENCH_LITELLM";

fn await_listener(name: &str, address: SocketAddr, most: Duration) {
    let deadline = Instant::now() + most;
    while std::net::TcpStream::connect(address).is_err() {
        assert!(Instant::now() < deadline, "{name} does not listen");
        std::thread::sleep(Duration::from_millis(10));
    }
}

struct Ended(Child, #[expect(dead_code, reason = "it is removed with this")] TempDir);

impl Drop for Ended {
    fn drop(&mut self) {
        // nginx ends its workers on TERM, and not when it is killed.
        let pid = rustix::process::Pid::from_child(&self.0);
        let _ = rustix::process::kill_process(pid, rustix::process::Signal::TERM);
        let _ = self.0.wait();
    }
}

/// A home with a running monitor and gateway, and a lease.
pub(crate) struct Workspace {
    dir: TempDir,
    listen: SocketAddr,
    token: String,
    pids: Vec<u32>,
}

impl Workspace {
    pub(crate) fn new(upstream: SocketAddr, receipts: &str) -> Self {
        Self::on_disk(upstream, receipts, None)
    }

    /// One whose disk gives 200 flushes a second.
    pub(crate) fn on_slow_disk(upstream: SocketAddr, receipts: &str) -> Self {
        let amc = binary("amc");
        let library = amc.with_file_name("examples").join("libslow_disk.so");
        assert!(library.is_file(), "`cargo xtask bench gateway` builds {}", library.display());
        Self::on_disk(upstream, receipts, Some(&library))
    }

    fn on_disk(upstream: SocketAddr, receipts: &str, preloaded: Option<&Path>) -> Self {
        let dir = tempfile::Builder::new().prefix("amc-").tempdir().expect("a temporary directory");
        let amc = |arguments: &[&str]| amc(dir.path(), arguments);
        amc(&["init", "--name", "bench", "--agent", "bench"]);
        let provider = format!("openai=http://{upstream}/v1");
        amc(&["gateway", "init", "--listen", "127.0.0.1:0", "--provider", &provider]);
        let file = dir.path().join("home/gateway.yaml");
        let text = fs::read_to_string(&file).expect("it was just written");
        fs::write(&file, format!("{text}receipts: {receipts}\nmetrics: null\n")).expect("it is written");
        amc(&["config", "sign", "gateway.yaml"]);
        let preload = preloaded.map(|library| ("LD_PRELOAD", library));
        let up = amc_with(dir.path(), &["up"], preload);
        let token = amc(&["lease", "issue", "--agent", "bench"])["token"].as_str().expect("a token").to_owned();
        let listen = up["gateway"]["listen"].as_str().and_then(|text| text.parse().ok()).expect("an address");
        let monitor = u32::try_from(up["monitor"]["pid"].as_u64().expect("a process")).expect("a process id");
        let gateway = gateway_of(&dir.path().join("home"));
        Workspace { dir, listen, token, pids: vec![gateway, monitor] }
    }
}

impl Drop for Workspace {
    fn drop(&mut self) {
        amc(self.dir.path(), &["down"]);
    }
}

fn amc(dir: &Path, arguments: &[&str]) -> serde_json::Value {
    amc_with(dir, arguments, None)
}

fn amc_with(dir: &Path, arguments: &[&str], variable: Option<(&str, &Path)>) -> serde_json::Value {
    let mut command = Command::new(binary("amc"));
    command
        .arg("--json")
        .args(arguments)
        .env("AMC_HOME", dir.join("home"))
        .env("AMC_VAULT_PASSPHRASE", "a bench's own")
        .envs(variable);
    let output = command.stdin(Stdio::null()).stderr(Stdio::inherit()).output().expect("amc starts");
    let answer: serde_json::Value = serde_json::from_slice(&output.stdout).expect("an answer in JSON");
    assert!(output.status.success(), "amc {arguments:?}: {answer}");
    answer["data"].clone()
}

/// The gateway process of a home, by its command line.
fn gateway_of(home: &Path) -> u32 {
    let processes = fs::read_dir("/proc").expect("Linux").flatten();
    let ids = processes.filter_map(|entry| entry.file_name().to_str()?.parse::<u32>().ok());
    let of_home = |pid: &u32| {
        let line = fs::read(PathBuf::from(format!("/proc/{pid}/cmdline"))).unwrap_or_default();
        let line = String::from_utf8_lossy(&line).into_owned();
        line.contains("amc-gateway") && line.contains(&home.display().to_string())
    };
    ids.into_iter().find(of_home).expect("the gateway runs")
}

fn children(parent: u32) -> Vec<u32> {
    let text = fs::read_to_string(format!("/proc/{parent}/task/{parent}/children")).unwrap_or_default();
    text.split_whitespace().filter_map(|pid| pid.parse().ok()).collect()
}

fn cpu_ticks(pid: u32) -> Option<u64> {
    let stat = fs::read_to_string(format!("/proc/{pid}/stat")).ok()?;
    let mut fields = stat.rsplit_once(')')?.1.split_whitespace().skip(11);
    let user: u64 = fields.next()?.parse().ok()?;
    let system: u64 = fields.next()?.parse().ok()?;
    Some(user + system)
}

fn status_kib(pid: u32, field: &str) -> Option<u64> {
    let status = fs::read_to_string(format!("/proc/{pid}/status")).ok()?;
    let line = status.lines().find(|line| line.starts_with(field))?;
    line.split_whitespace().nth(1)?.parse().ok()
}

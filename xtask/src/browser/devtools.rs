//! The DevTools protocol over a pipe: JSON messages that end in a zero byte, on descriptors 3 and 4 of the browser.
//!
//! A shell moves the browser's stdin and stdout there, so no port is opened and no unsafe code is needed. Only the
//! browser started here is ever ended.

use crate::Failure;
use serde_json::{Value, json};
use std::fs;
use std::io::{BufRead, BufReader, Write};
use std::path::{Path, PathBuf};
use std::process::{Child, ChildStdin, Command, Stdio};
use std::sync::mpsc::{Receiver, channel};
use std::thread;
use std::time::{Duration, Instant};

/// A headless browser with one page; ended and reaped when dropped.
pub(super) struct Browser {
    child: Child,
    requests: ChildStdin,
    answers: Receiver<Value>,
    log: PathBuf,
    session: Option<String>,
    last_id: u64,
    page: String,
    heard: Vec<String>,
    loaded: bool,
}

/// What a cold start on a busy machine may take.
const ANSWER: Duration = Duration::from_secs(60);

impl Browser {
    /// Starts it with a profile of its own below `dir`.
    pub(super) fn start(dir: &Path) -> Result<Self, Failure> {
        let log = dir.join("chromium.log");
        let profile = format!("--user-data-dir={}", dir.join("profile").display());
        let mut command = Command::new("sh");
        // $0 is the log; the browser is the rest.
        command.args(["-c", r#"exec "$@" 3<&0 4>&1 </dev/null >"$0" 2>&1"#]).arg(&log).arg("chromium");
        command.args(["--headless", "--no-sandbox", "--disable-gpu", "--disable-dev-shm-usage", "--no-first-run"]);
        command.args(["--disable-background-networking", "--disable-component-update", "--hide-scrollbars"]);
        command.arg(profile).args(["--remote-debugging-pipe", "about:blank"]);
        let mut child = command.stdin(Stdio::piped()).stdout(Stdio::piped()).spawn()?;
        let requests = child.stdin.take().expect("stdin was asked for as a pipe");
        let stdout = child.stdout.take().expect("stdout was asked for as a pipe");
        let (sender, answers) = channel();
        thread::spawn(move || {
            for message in BufReader::new(stdout).split(0).map_while(Result::ok) {
                let sent = serde_json::from_slice(&message).is_ok_and(|value: Value| sender.send(value).is_ok());
                if !sent {
                    break;
                }
            }
        });
        let mut browser = Browser {
            child,
            requests,
            answers,
            log,
            session: None,
            last_id: 0,
            page: String::new(),
            heard: Vec::new(),
            loaded: false,
        };
        browser.attach()?;
        Ok(browser)
    }

    fn attach(&mut self) -> Result<(), Failure> {
        let target = self.call("Target.createTarget", &json!({"url": "about:blank"}))?;
        let attached = self.call("Target.attachToTarget", &json!({"targetId": target["targetId"], "flatten": true}))?;
        self.session = attached["sessionId"].as_str().map(str::to_owned);
        for domain in ["Page", "Runtime", "Network", "Log"] {
            self.call(&format!("{domain}.enable"), &json!({}))?;
        }
        Ok(())
    }

    /// Calls a method and gives its result; events that come meanwhile are kept.
    pub(super) fn call(&mut self, method: &str, params: &Value) -> Result<Value, Failure> {
        self.last_id += 1;
        let id = self.last_id;
        let mut request = json!({"id": id, "method": method, "params": params});
        if let Some(session) = &self.session {
            request["sessionId"] = json!(session);
        }
        let mut bytes = serde_json::to_vec(&request).expect("plain values serialise");
        bytes.push(0);
        self.requests.write_all(&bytes).map_err(|error| self.failure(&format!("{method}: {error}")))?;
        let deadline = Instant::now() + ANSWER;
        loop {
            let mut message = self.next(deadline, method)?;
            if message["id"] != id {
                self.note(&message);
                continue;
            }
            if !message["error"].is_null() {
                return Err(self.failure(&format!("{method}: {}", message["error"])));
            }
            return Ok(message["result"].take());
        }
    }

    /// Opens a file and waits until it is loaded; gives the requests and console messages that came with it.
    pub(super) fn open(&mut self, path: &Path) -> Result<Vec<String>, Failure> {
        let path = fs::canonicalize(path)?;
        self.page = format!("file://{}", path.display());
        self.loaded = false;
        self.heard.clear();
        let page = self.page.clone();
        self.call("Page.navigate", &json!({"url": page}))?;
        let deadline = Instant::now() + ANSWER;
        while !self.loaded {
            let message = self.next(deadline, "loading the page")?;
            self.note(&message);
        }
        Ok(self.heard())
    }

    /// Runs an expression in the page and gives its value.
    pub(super) fn evaluate(&mut self, expression: &str) -> Result<Value, Failure> {
        let mut answer = self.call("Runtime.evaluate", &json!({"expression": expression, "returnByValue": true}))?;
        if !answer["exceptionDetails"].is_null() {
            return Err(self.failure(&format!("the page cannot be measured: {}", answer["exceptionDetails"])));
        }
        Ok(answer["result"]["value"].take())
    }

    /// Requests and console messages since the page was opened, each once.
    pub(super) fn heard(&mut self) -> Vec<String> {
        std::mem::take(&mut self.heard)
    }

    /// Ends it in the ordinary way.
    pub(super) fn close(mut self) -> Result<(), Failure> {
        self.session = None;
        self.call("Browser.close", &json!({})).map(drop)
    }

    fn next(&self, deadline: Instant, doing: &str) -> Result<Value, Failure> {
        let left = deadline.saturating_duration_since(Instant::now());
        self.answers.recv_timeout(left).map_err(|error| self.failure(&format!("{doing}: no answer ({error})")))
    }

    fn note(&mut self, message: &Value) {
        let params = &message["params"];
        match message["method"].as_str() {
            Some("Page.loadEventFired") => self.loaded = true,
            Some("Network.requestWillBeSent") if params["request"]["url"] != self.page.as_str() => {
                self.heard.push(format!("request: {}", params["request"]["url"]));
            }
            Some("Runtime.consoleAPICalled") => self.heard.push(format!("console: {}", params["args"])),
            Some("Runtime.exceptionThrown") => {
                self.heard.push(format!("console: {}", params["exceptionDetails"]["text"]))
            }
            Some("Log.entryAdded") => self.heard.push(format!("console: {}", params["entry"]["text"])),
            _ => {}
        }
    }

    fn failure(&self, what: &str) -> Failure {
        let log = fs::read_to_string(&self.log).unwrap_or_default();
        let tail: Vec<&str> = log.lines().rev().take(LOG_LINES).collect();
        let tail: Vec<&str> = tail.into_iter().rev().collect();
        Failure::new(format!("chromium: {what}\n{}", tail.join("\n")))
    }
}

impl Drop for Browser {
    fn drop(&mut self) {
        // One that has ended by itself is simply reaped.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// The last lines of the browser's own log that a failure shows.
const LOG_LINES: usize = 10;

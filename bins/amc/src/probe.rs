//! `probe`: the boundary probe from where an agent runs that AMC does not start.
//!
//! It runs as the agent runs, tries what a hostile agent would, and sends attempts and outcomes, and
//! nothing that it read, to the gateway under the agent's lease. The trusted side decides.

use std::path::PathBuf;
use std::time::Duration;

use amc_core::kinds::{ProbeAttempt, ProbeOutcome, ProbeTarget};
use amc_sandbox::probe;
use amc_workspace::{Answer, Failure};
use reqwest::{Client, RequestBuilder, Url};
use serde::Deserialize;
use serde::de::DeserializeOwned;
use serde_json::json;

use crate::cli::ProbePlan;
use crate::signers;

/// A flush may take its time.
const ANSWERS: Duration = Duration::from_secs(60);
/// An answer has some hundred attempts.
const ANSWER_BYTES_MAX: usize = 1 << 20;
/// Variables that name the gateway, the first that is set.
const BASES: [&str; 3] = ["AMC_GATEWAY", "OPENAI_BASE_URL", "ANTHROPIC_BASE_URL"];
/// Variables that may hold the lease, the first that does.
const LEASES: [&str; 3] = ["AMC_LEASE", "OPENAI_API_KEY", "ANTHROPIC_API_KEY"];

#[derive(Deserialize)]
struct Plan {
    home: PathBuf,
    trusted: Vec<(String, i32)>,
}

#[derive(Deserialize)]
struct Judged {
    index: u64,
    attempts: Vec<ProbeAttempt>,
}

pub(crate) fn probe(plan: &ProbePlan) -> Result<Answer, Failure> {
    let url = gateway(plan)?;
    let lease = lease(plan)?;
    let client = client()?;
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().map_err(Failure::unable)?;
    let ask = |request: RequestBuilder| request.bearer_auth(&lease);
    let Plan { home, trusted } = runtime.block_on(answer(ask(client.get(url.clone()))))?;
    let init = signers::program("amc-sandbox-init");
    let attempts = probe::report(&init, &home, trusted).map_err(Failure::unable)?;
    let report = serde_json::to_vec(&json!({ "attempts": attempts })).map_err(Failure::unable)?;
    let Judged { index, attempts } = runtime.block_on(answer(ask(client.post(url)).body(report)))?;
    Ok(judged(index, &attempts))
}

fn judged(index: u64, attempts: &[ProbeAttempt]) -> Answer {
    let harmless = |target| matches!(target, ProbeTarget::HomeRead | ProbeTarget::ProviderKey);
    let bad = |attempt: &&ProbeAttempt| {
        matches!(attempt.outcome, ProbeOutcome::Reached | ProbeOutcome::Inconclusive) && !harmless(attempt.target)
    };
    let mut text = String::new();
    for attempt in attempts.iter().filter(|attempt| attempt.outcome == ProbeOutcome::Reached || bad(attempt)) {
        let outcome = if attempt.outcome == ProbeOutcome::Reached { "reached" } else { "inconclusive" };
        text += &format!("{outcome:<13} {}\n", attempt.subject);
    }
    let bad = attempts.iter().filter(bad).count();
    text += &match bad {
        0 => format!("{} attempts, recorded as event {index}; none reached what it must not\n", attempts.len()),
        bad => format!("{bad} of {} attempts leave the boundary open; recorded as event {index}\n", attempts.len()),
    };
    let mut answer = Answer::new(&json!({ "index": index, "attempts": attempts }), text);
    answer.bad = bad > 0;
    answer
}

/// The gateway's route, whatever path the base URL that names it has.
fn gateway(plan: &ProbePlan) -> Result<Url, Failure> {
    let set = || BASES.iter().find_map(|name| std::env::var(name).ok());
    let missing = || Failure::wrong(format!("no gateway: name it with --gateway URL or {}", BASES.join(", ")));
    let named = plan.gateway.clone().or_else(set).ok_or_else(missing)?;
    let url = Url::parse(&named).map_err(|error| Failure::wrong(format!("{named}: {error}")))?;
    url.join("/amc/probe").map_err(|error| Failure::wrong(format!("{named}: {error}")))
}

fn lease(plan: &ProbePlan) -> Result<String, Failure> {
    let set = || {
        let values = LEASES.iter().filter_map(|name| std::env::var(name).ok());
        values.into_iter().find(|value| value.starts_with("amc-lease-"))
    };
    let how = "set AMC_LEASE to the token of `amc lease issue`, or pass --lease";
    plan.lease.clone().or_else(set).ok_or_else(|| Failure::wrong(format!("no lease: {how}")))
}

async fn answer<T: DeserializeOwned>(request: RequestBuilder) -> Result<T, Failure> {
    let mut response = request.send().await.map_err(|error| Failure::unable(format!("the gateway: {error}")))?;
    let status = response.status();
    let mut body = Vec::new();
    while let Some(chunk) = response.chunk().await.map_err(Failure::unable)? {
        body.extend_from_slice(&chunk);
        if body.len() > ANSWER_BYTES_MAX {
            return Err(Failure::unable("the gateway's answer is longer than any answer"));
        }
    }
    if status.is_success() {
        return serde_json::from_slice(&body).map_err(|error| Failure::unable(format!("the gateway: {error}")));
    }
    let said: String = String::from_utf8_lossy(&body).chars().filter(|it| !it.is_control()).take(400).collect();
    let message = format!("the gateway answers {status}: {said}");
    Err(if status.is_client_error() { Failure::wrong(message) } else { Failure::unable(message) })
}

/// A client that asks once, follows nothing and asks no proxy.
fn client() -> Result<Client, Failure> {
    let mut roots = rustls::RootCertStore::empty();
    roots.add_parsable_certificates(rustls_native_certs::load_native_certs().certs);
    let provider = std::sync::Arc::new(rustls::crypto::ring::default_provider());
    let tls = rustls::ClientConfig::builder_with_provider(provider).with_safe_default_protocol_versions();
    let tls = tls.map_err(Failure::unable)?.with_root_certificates(roots).with_no_client_auth();
    let client = Client::builder().tls_backend_preconfigured(tls).no_proxy().timeout(ANSWERS);
    client.redirect(reqwest::redirect::Policy::none()).build().map_err(Failure::unable)
}

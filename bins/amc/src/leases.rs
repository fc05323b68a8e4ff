//! Leases for agents that AMC does not start: issue, list, revoke. The monitor makes them; this asks.

use amc_core::kinds::LeaseScope;
use amc_core::{AgentId, LeaseId, timestamp};
use amc_workspace::config::{GatewayConfig, split_host_port};
use amc_workspace::home::{self, Home};
use amc_workspace::protocol::gateway::LeaseLimits;
use amc_workspace::protocol::operator::{IssuedLease, LeaseOrder, LeaseSummary, OperatorReply, OperatorRequest};
use amc_workspace::{Answer, Failure, Opening, duration};
use clap::{Args, Subcommand, ValueEnum};
use serde_json::{Value, json};

use crate::services;

#[derive(Subcommand)]
pub(crate) enum LeaseVerb {
    /// Issue a lease; its token is shown once.
    Issue(IssuePlan),
    /// The leases that were issued, oldest first.
    List,
    /// End a lease now.
    Revoke {
        /// Its id, `lease-…`.
        lease: LeaseId,
    },
}

/// What a lease is to be for.
#[derive(Args)]
pub(crate) struct IssuePlan {
    /// The agent.
    #[arg(long, value_name = "ID")]
    agent: AgentId,
    /// How long it holds: a number with s, m, h or d.
    #[arg(long, default_value = "24h", value_parser = parse_expiry, value_name = "TIME")]
    expires: u64,
    /// What for.
    #[arg(long, value_enum, value_delimiter = ',', default_values = ["llm", "egress"])]
    scope: Vec<Scope>,
    /// Only this provider of gateway.yaml; may be given more than once.
    #[arg(long = "provider", value_name = "NAME")]
    providers: Vec<String>,
    /// Only this model; may be given more than once.
    #[arg(long = "model", value_name = "NAME")]
    models: Vec<String>,
    /// Let the egress proxy go there beyond what gateway.yaml allows; may be given more than once.
    #[arg(long = "allow", value_name = "HOST:PORT")]
    allow: Vec<String>,
    /// Requests per minute, at most.
    #[arg(long, default_value_t = 0, hide_default_value = true, value_name = "N")]
    rpm: u32,
    /// Calls at the same time, at most.
    #[arg(long, default_value_t = 0, hide_default_value = true, value_name = "N")]
    concurrency: u32,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
enum Scope {
    /// Model calls.
    Llm,
    /// The egress proxy.
    Egress,
}

pub(crate) fn run(opening: &Opening, verb: &LeaseVerb) -> (&'static str, Result<Answer, Failure>) {
    match verb {
        LeaseVerb::Issue(plan) => ("lease issue", issue(opening, plan)),
        LeaseVerb::List => ("lease list", list(opening)),
        LeaseVerb::Revoke { lease } => ("lease revoke", revoke(opening, lease)),
    }
}

fn issue(opening: &Opening, plan: &IssuePlan) -> Result<Answer, Failure> {
    let home = opening.home()?;
    check(&home, plan)?;
    let scopes = plan.scope.iter().map(|scope| match scope {
        Scope::Llm => LeaseScope::Llm,
        Scope::Egress => LeaseScope::Egress,
    });
    let limits = LeaseLimits {
        scopes: scopes.collect(),
        providers: plan.providers.clone(),
        models: plan.models.clone(),
        allow: plan.allow.clone(),
        requests_per_minute: plan.rpm,
        concurrency: plan.concurrency,
    };
    let order = LeaseOrder { agent: plan.agent.clone(), expires_s: plan.expires, limits };
    let OperatorReply::LeaseIssued(issued) = ask(opening, &home, OperatorRequest::IssueLease(order))? else {
        return Err(unexpected());
    };
    let IssuedLease { lease, token, expires_ns } = issued;
    let expires = rfc3339(expires_ns);
    let data = json!({ "lease": lease, "agent": plan.agent, "token": token, "expires": expires });
    let text = format!(
        "Issued {lease} for {}, until {expires}. Its token is shown this once; it goes where the client puts its key:\n\
         {token}\n",
        plan.agent
    );
    Ok(Answer::new(&data, text))
}

/// What can be wrong with the order as it was typed.
fn check(home: &Home, plan: &IssuePlan) -> Result<(), Failure> {
    if let Some(entry) = plan.allow.iter().find(|entry| split_host_port(entry).is_none()) {
        return Err(Failure::wrong(format!(
            "--allow {entry}: it is host:port or *.domain:port, with the host in lowercase"
        )));
    }
    let bytes = home::read_bounded(&home.file("gateway.yaml"), amc_core::limits::CONFIG_BYTES_MAX);
    let config = GatewayConfig::parse(&bytes.map_err(Failure::wrong)?).map_err(Failure::wrong)?;
    match plan.providers.iter().find(|name| !config.providers.contains_key(*name)) {
        Some(name) => {
            let known: Vec<&str> = config.providers.keys().map(String::as_str).collect();
            Err(Failure::wrong(format!("gateway.yaml has no provider {name:?}; it has {}", known.join(", "))))
        }
        None => Ok(()),
    }
}

fn list(opening: &Opening) -> Result<Answer, Failure> {
    let home = opening.home()?;
    let OperatorReply::Leases(leases) = ask(opening, &home, OperatorRequest::Leases)? else {
        return Err(unexpected());
    };
    let mut text = String::new();
    for lease in &leases {
        let for_what: Vec<String> = lease.limits.scopes.iter().map(scope_name).collect();
        text += &format!(
            "{}  {}  {}  {}  until {}\n",
            lease.lease,
            lease.agent,
            state(lease),
            for_what.join(","),
            rfc3339(lease.expires_ns)
        );
    }
    if leases.is_empty() {
        text += "No lease was issued; `amc lease issue --agent ID` makes one\n";
    }
    let data: Vec<Value> = leases.iter().map(summary).collect();
    Ok(Answer::new(&json!({ "leases": data }), text))
}

fn summary(lease: &LeaseSummary) -> Value {
    let LeaseLimits { scopes, providers, models, allow, requests_per_minute, concurrency } = &lease.limits;
    json!({
        "lease": lease.lease, "agent": lease.agent, "state": state(lease), "expires": rfc3339(lease.expires_ns),
        "session": lease.session, "scopes": scopes, "providers": providers, "models": models, "allow": allow,
        "requests_per_minute": requests_per_minute, "concurrency": concurrency,
    })
}

fn revoke(opening: &Opening, lease: &LeaseId) -> Result<Answer, Failure> {
    let home = opening.home()?;
    ask(opening, &home, OperatorRequest::RevokeLease { lease: lease.clone() })?;
    Ok(Answer::new(&json!({ "lease": lease }), format!("Revoked {lease}: no further call passes with it\n")))
}

/// Asks the running monitor, or one that is started for this.
fn ask(opening: &Opening, home: &Home, request: OperatorRequest) -> Result<OperatorReply, Failure> {
    let starting = services::starting(home)?;
    let (mut client, started) = match services::connect(home)? {
        Some(client) => (client, None),
        None => {
            let child = services::start_monitor(opening, home, true)?;
            let gone = || Failure::unable("the monitor stopped again; see its message above");
            (services::connect(home)?.ok_or_else(gone)?, Some(child))
        }
    };
    drop(starting);
    let answered = services::call(&mut client, request);
    let left = services::call(&mut client, OperatorRequest::Leave);
    drop(client);
    if let (Some(mut child), Ok(OperatorReply::Left { stopping: true })) = (started, left) {
        // It ends with our connection, and the next command may want the log.
        child.wait().map_err(Failure::unable)?;
    }
    answered
}

fn unexpected() -> Failure {
    Failure::unable("the monitor gave an unexpected answer")
}

fn state(lease: &LeaseSummary) -> &'static str {
    match (lease.revoked, lease.expired) {
        (true, _) => "revoked",
        (false, true) => "expired",
        (false, false) => "valid",
    }
}

fn scope_name(scope: &LeaseScope) -> String {
    match scope {
        LeaseScope::Llm => "llm".to_owned(),
        LeaseScope::Egress => "egress".to_owned(),
    }
}

fn rfc3339(wall_ns: i64) -> String {
    timestamp::to_rfc3339(wall_ns - wall_ns.rem_euclid(timestamp::NS_PER_S))
}

fn parse_expiry(text: &str) -> Result<u64, String> {
    let seconds = duration::seconds(text)?;
    let too_long = || format!("{text:?} is too long; a lease holds for at most ten years");
    Some(seconds).filter(|seconds| *seconds <= EXPIRES_S_MAX).ok_or_else(too_long)
}

/// Ten years: whoever wants longer wants no expiry, which there is none of.
const EXPIRES_S_MAX: u64 = 10 * 366 * 86_400;

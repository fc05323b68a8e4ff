//! `/amc/probe`: the boundary probe of an agent that AMC did not start.
//!
//! `GET` says what is to be tried; `POST` hands on what it gave, `{"attempts": [{"target", "subject",
//! "got"}]}`, and answers with what the monitor decided. The gateway adds one thing that it sees
//! itself: the user of the process at the other end, where that is on this machine.

use std::net::{IpAddr, SocketAddr};

use amc_workspace::protocol::Refusal;
use amc_workspace::protocol::gateway::{LeaseGrant, PROBE_ATTEMPTS_MAX, ReportedAttempt, ReportedProbe};
use http::request::Parts;
use http::{Method, Response, StatusCode};
use http_body_util::{BodyExt as _, Limited};
use hyper::body::Incoming;
use serde::Deserialize;
use serde_json::json;

use crate::body::PassingBody;
use crate::call::authorize;
use crate::forward::refused;
use crate::monitor::ChannelError;
use crate::refusal::{Failure, json_response};
use crate::state::Gateway;

/// The two ends of a connection.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Ends {
    pub(crate) peer: SocketAddr,
    pub(crate) own: SocketAddr,
}

/// More than a full report has: each attempt is below 256 bytes.
const BODY_BYTES_MAX: usize = 256 * 1024;

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Report {
    attempts: Vec<ReportedAttempt>,
}

/// Answers both methods, for a lease.
pub(crate) async fn route(
    gateway: &Gateway,
    head: &Parts,
    body: Incoming,
    ends: Option<Ends>,
) -> Result<Response<PassingBody>, Failure> {
    let LeaseGrant { lease, session, .. } = authorize(gateway, &head.headers, None).await?.grant;
    if head.method == Method::GET {
        let (home, trusted) = gateway.monitor.probe_plan(lease).await.map_err(refused)?;
        return Ok(json_response(StatusCode::OK, &json!({ "home": home, "trusted": trusted })));
    }
    if head.method != Method::POST {
        return Err(Failure::bad_request("/amc/probe takes GET and POST"));
    }
    let bytes = Limited::new(body, BODY_BYTES_MAX).collect().await;
    let bytes = bytes.map_err(|error| Failure::bad_request(format!("the report: {error}")))?.to_bytes();
    let report: Report =
        serde_json::from_slice(&bytes).map_err(|error| Failure::bad_request(format!("the report: {error}")))?;
    if report.attempts.len() > PROBE_ATTEMPTS_MAX {
        return Err(Failure::bad_request(format!("a report has at most {PROBE_ATTEMPTS_MAX} attempts")));
    }
    let peer_uid = ends.and_then(|ends| {
        ["/proc/net/tcp", "/proc/net/tcp6"].iter().find_map(|table| uid_in(&std::fs::read_to_string(table).ok()?, ends))
    });
    let probe = ReportedProbe { lease, session, attempts: report.attempts, peer_uid };
    let (index, attempts) = gateway.monitor.probe(probe).await.map_err(|error| match error {
        ChannelError::Refused(Refusal::Invalid(why)) => Failure::bad_request(why),
        error => refused(error),
    })?;
    Ok(json_response(StatusCode::OK, &json!({ "index": index, "attempts": attempts })))
}

/// The user of the socket whose own end is our peer, in a table of `/proc/net`.
fn uid_in(table: &str, ends: Ends) -> Option<u32> {
    let (theirs, ours) = (in_table(ends.peer), in_table(ends.own));
    table.lines().skip(1).find_map(|line| {
        let fields: Vec<&str> = line.split_whitespace().collect();
        let is_it = theirs.iter().any(|it| fields.get(1) == Some(&it.as_str()))
            && ours.iter().any(|it| fields.get(2) == Some(&it.as_str()));
        if is_it { fields.get(7)?.parse().ok() } else { None }
    })
}

/// How the kernel writes an address: its words in the machine's order, and an IPv4 address also in the
/// place of an IPv6 one.
fn in_table(address: SocketAddr) -> Vec<String> {
    let port = address.port();
    let words = |octets: [u8; 16]| {
        let words = octets.as_chunks::<4>().0.iter().map(|word| format!("{:08X}", u32::from_ne_bytes(*word)));
        words.collect::<String>()
    };
    match address.ip() {
        IpAddr::V4(ip) => {
            let plain = format!("{:08X}:{port:04X}", u32::from_ne_bytes(ip.octets()));
            vec![plain, format!("{}:{port:04X}", words(ip.to_ipv6_mapped().octets()))]
        }
        IpAddr::V6(ip) => vec![format!("{}:{port:04X}", words(ip.octets()))],
    }
}

#[cfg(test)]
mod tests {
    use std::net::{TcpListener, TcpStream};

    use super::*;

    #[test]
    fn the_user_at_the_other_end_is_the_kernels_word() {
        let listener = TcpListener::bind("127.0.0.1:0").expect("a port");
        let client = TcpStream::connect(listener.local_addr().expect("an address")).expect("a connection");
        let (server, _) = listener.accept().expect("a connection");
        let ends =
            Ends { peer: server.peer_addr().expect("an address"), own: server.local_addr().expect("an address") };
        let table = std::fs::read_to_string("/proc/net/tcp").expect("Linux has it");
        assert_eq!(uid_in(&table, ends), Some(rustix::process::geteuid().as_raw()));
        // From the client's side it is another line, and of another connection there is none.
        let other = Ends { own: SocketAddr::from(([127, 0, 0, 1], 9)), ..ends };
        assert_eq!(uid_in(&table, other), None);
        drop(client);
    }

    #[test]
    fn addresses_are_written_as_the_kernel_does() {
        let line = "   0: 00000000000000000000000001000000:0C8A 0000000000000000FFFF00000100007F:1F90 01 \
                    00000000:00000000 00:00000000 00000000  1000        0 4242 1\n";
        let ends = Ends {
            peer: SocketAddr::from(([0, 0, 0, 0, 0, 0, 0, 1], 0x0C8A)),
            own: SocketAddr::from(([127, 0, 0, 1], 0x1F90)),
        };
        if cfg!(target_endian = "little") {
            assert_eq!(uid_in(&format!("header\n{line}"), ends), Some(1000));
        }
    }
}

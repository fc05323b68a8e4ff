//! A model call as an agent traces it: keep the answer's receipt, check it, write the trace line.
//!
//! An agent has the headers from its HTTP client and the key from its owner (`amc trust show`).

use std::time::{SystemTime, UNIX_EPOCH};

use amc_agent::{ReceiptBook, TraceEvent, TraceLine, verify};
use amc_core::AgentId;
use amc_crypto::VerifierKey;

fn main() -> Result<(), Box<dyn std::error::Error>> {
    let mut arguments = std::env::args().skip(1);
    let (Some(key), Some(id), Some(receipt)) = (arguments.next(), arguments.next(), arguments.next()) else {
        return Err("usage: traced_call MONITOR_KEY REQUEST_ID RECEIPT".into());
    };
    let mut book = ReceiptBook::new();
    let headers = [("x-amc-request-id", id.as_str()), ("x-amc-receipt", receipt.as_str())];
    let id = book.take(headers).ok_or("the call did not go through a gateway")?;
    let receipt = book.call(&id).and_then(|call| call.response.as_deref()).ok_or("no receipt came")?;
    let claims = verify(receipt, &[key.parse::<VerifierKey>()?])?;
    eprintln!("recorded as event {} of {}", claims.event_index, claims.log);

    let wall_ns = i64::try_from(SystemTime::now().duration_since(UNIX_EPOCH)?.as_nanos())?;
    let agent: AgentId = claims.agent_id.clone();
    let line = TraceLine::new(wall_ns, &agent, TraceEvent::LlmResult);
    TraceLine { request_id: Some(&id), receipt: Some(receipt), ..line }.write(&mut std::io::stdout())?;
    Ok(())
}

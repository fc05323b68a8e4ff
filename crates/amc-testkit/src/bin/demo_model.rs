//! `amc-demo-model`: a small server with the routes of OpenAI's and Anthropic's APIs, for trying AMC.
//!
//! It is no language model and says so in every answer. On stdout: one JSON line when it listens.

use std::io::Write as _;
use std::net::SocketAddr;
use std::process::ExitCode;
use std::time::Duration;

use amc_testkit::{DemoModel, ModelOptions};
use clap::Parser;

/// A demo model: answers by a fixed rule in the shapes of OpenAI's and Anthropic's APIs.
#[derive(Debug, Parser)]
#[command(name = "amc-demo-model", version)]
struct Arguments {
    /// Where to listen; port 0 takes a free one.
    #[arg(long, default_value = "127.0.0.1:0")]
    listen: SocketAddr,
    /// Take only this key.
    #[arg(long)]
    require_key: Option<String>,
    /// Break the connection after so many events of a stream.
    #[arg(long)]
    fail_after_chunks: Option<usize>,
    /// Wait before each event of a stream.
    #[arg(long, default_value_t = 3)]
    delay_ms: u64,
}

#[tokio::main]
async fn main() -> ExitCode {
    let Arguments { listen, require_key, fail_after_chunks, delay_ms } = Arguments::parse();
    let options = ModelOptions { listen, require_key, fail_after_chunks, delay: Duration::from_millis(delay_ms) };
    match DemoModel::start(options).await {
        Ok(model) => {
            let line = serde_json::json!({"listening": model.addr().to_string()});
            // Nobody need read the line.
            let _ = writeln!(std::io::stdout(), "{line}");
            model.wait().await;
            ExitCode::SUCCESS
        }
        Err(error) => {
            eprintln!("amc-demo-model: cannot listen on {listen}: {error}; choose another address with --listen");
            ExitCode::from(3)
        }
    }
}

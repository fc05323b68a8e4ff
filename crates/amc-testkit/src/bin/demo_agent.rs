//! `amc-demo-agent`: a small agent that calls a model like any other program and knows nothing of AMC.
//!
//! It reads `OPENAI_BASE_URL` and `OPENAI_API_KEY`, makes the calls it is told to with its own HTTP
//! client, and prints the answers. Exit status 1 when a call fails.

use std::process::ExitCode;

use clap::Parser;
use futures_util::StreamExt as _;
use serde_json::{Value, json};

/// A demo agent: makes chat calls to the model at OPENAI_BASE_URL and prints the answers.
#[derive(Debug, Parser)]
#[command(name = "amc-demo-agent", version)]
struct Arguments {
    /// How many plain calls to make.
    #[arg(long, default_value_t = 1)]
    plain: u32,
    /// How many streaming calls to make.
    #[arg(long, default_value_t = 0)]
    stream: u32,
    /// What to say to the model.
    #[arg(long, default_value = "How do I file an expense report?")]
    prompt: String,
    /// Print a trace line with the receipt of each plain call.
    #[arg(long)]
    trace: bool,
    /// The model to ask for.
    #[arg(long, default_value = "amc-demo-model")]
    model: String,
}

struct Agent {
    client: reqwest::Client,
    base_url: String,
    key: String,
    model: String,
}

type Failure = Box<dyn std::error::Error>;

#[tokio::main]
async fn main() -> ExitCode {
    match run(Arguments::parse()).await {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("amc-demo-agent: {error}");
            ExitCode::FAILURE
        }
    }
}

async fn run(arguments: Arguments) -> Result<(), Failure> {
    let base_url = std::env::var("OPENAI_BASE_URL").map_err(|_| "set OPENAI_BASE_URL to the model's base URL")?;
    let key = std::env::var("OPENAI_API_KEY").map_err(|_| "set OPENAI_API_KEY to the key for that model")?;
    let base_url = base_url.trim_end_matches('/').to_owned();
    let agent = Agent { client: amc_testkit::client::client()?, base_url, key, model: arguments.model };
    for number in 1..=arguments.plain {
        println!("plain {number}: {}", agent.plain(&arguments.prompt, number, arguments.trace).await?);
    }
    for number in 1..=arguments.stream {
        println!("stream {number}: {}", agent.stream(&arguments.prompt, number).await?);
    }
    Ok(())
}

impl Agent {
    async fn call(&self, prompt: &str, number: u32, stream: bool) -> Result<reqwest::Response, Failure> {
        let mut body = json!({"model": self.model, "messages": [
            {"role": "system", "content": "You are a helpful office assistant."},
            {"role": "user", "content": format!("{prompt} (call {number})")}]});
        if stream {
            body["stream"] = true.into();
            body["stream_options"] = json!({"include_usage": true});
        }
        let request = self.client.post(format!("{}/chat/completions", self.base_url)).bearer_auth(&self.key);
        let response = request.header("content-type", "application/json").body(body.to_string()).send().await?;
        let status = response.status();
        if status.is_success() {
            return Ok(response);
        }
        Err(format!("the model answered {status}: {}", response.text().await?).into())
    }

    async fn plain(&self, prompt: &str, number: u32, trace: bool) -> Result<String, Failure> {
        let response = self.call(prompt, number, false).await?;
        let header = |name: &str| response.headers().get(name).and_then(|value| value.to_str().ok()).map(str::to_owned);
        if trace {
            let line = json!({"amc_trace_v": 1, "ts": "1970-01-01T00:00:00Z", "agent_id": "support",
                "event": "llm_result", "request_id": header("x-amc-request-id"), "receipt": header("x-amc-receipt")});
            println!("{line}");
        }
        let body = response.bytes().await?;
        let answer: Value = serde_json::from_slice(&body)?;
        let text = answer["choices"][0]["message"]["content"].as_str();
        text.map(str::to_owned).ok_or_else(|| format!("no answer in {answer}").into())
    }

    async fn stream(&self, prompt: &str, number: u32) -> Result<String, Failure> {
        let mut pieces = self.call(prompt, number, true).await?.bytes_stream();
        let mut received = Vec::new();
        while let Some(piece) = pieces.next().await {
            received.extend_from_slice(&piece?);
        }
        let mut text = String::new();
        let mut done = false;
        for data in String::from_utf8(received)?.lines().filter_map(|line| line.strip_prefix("data: ")) {
            if data == "[DONE]" {
                done = true;
                break;
            }
            let chunk: Value = serde_json::from_str(data)?;
            text += chunk["choices"][0]["delta"]["content"].as_str().unwrap_or_default();
        }
        if done { Ok(text) } else { Err("the stream ended before [DONE]".into()) }
    }
}

//! Why a gateway does not start or does not go on, each said with what to do next.

use std::io;
use std::net::SocketAddr;
use std::path::PathBuf;

use amc_workspace::config::ConfigError;
use amc_workspace::protocol::Refusal;

use crate::monitor::ChannelError;

/// A gateway that cannot start or go on.
#[derive(Debug, thiserror::Error)]
pub enum GatewayError {
    /// Nobody listens on the monitor's socket.
    #[error("no monitor answers at {path}: {source}; start one with `amc up`")]
    NoMonitor {
        /// The socket.
        path: PathBuf,
        /// Why it cannot be reached.
        source: io::Error,
    },
    /// The monitor answered and refused.
    #[error("the monitor refuses this gateway: {0}")]
    Refused(#[source] Refusal),
    /// The monitor speaks another protocol, or nonsense.
    #[error("the monitor answered out of turn ({0}); are both of the same release?")]
    Protocol(String),
    /// The configuration does not say what it should.
    #[error("{0}; mend the file, then sign it with `amc config sign gateway.yaml`")]
    Config(#[from] ConfigError),
    /// A provider's base URL is no URL.
    #[error(
        "gateway.yaml: providers.{provider}.baseUrl: {message}; mend the file, then sign it with `amc config sign gateway.yaml`"
    )]
    BaseUrl {
        /// The provider's name.
        provider: String,
        /// What is wrong.
        message: String,
    },
    /// The address cannot be listened on.
    #[error(
        "cannot listen on {address}: {reason}; stop what listens there, or choose another address with --listen or `listen` in gateway.yaml"
    )]
    Listen {
        /// The address.
        address: SocketAddr,
        /// Why, in words.
        reason: String,
        /// Why.
        source: io::Error,
    },
    /// The client for providers cannot be built.
    #[error("the client for providers cannot be built: {0}")]
    Client(String),
    /// The runtime or the signal handlers cannot be set up.
    #[error("the gateway cannot be set up: {0}")]
    Setup(#[source] io::Error),
    /// The monitor closed its socket while the gateway ran.
    #[error(
        "the monitor closed its socket, so nothing can be recorded and nothing may pass; start it again with `amc up`"
    )]
    MonitorGone,
}

impl GatewayError {
    /// The exit code that the command line promises: 2 when the input is wrong, 3 when it is not
    /// possible now.
    pub fn exit_code(&self) -> u8 {
        match self {
            GatewayError::Config(_) | GatewayError::BaseUrl { .. } => 2,
            _ => 3,
        }
    }
}

impl From<ChannelError> for GatewayError {
    fn from(error: ChannelError) -> Self {
        match error {
            ChannelError::Refused(refusal) => GatewayError::Refused(refusal),
            ChannelError::Closed => GatewayError::MonitorGone,
            ChannelError::Late | ChannelError::Unexpected | ChannelError::TooLong => {
                GatewayError::Protocol(error.to_string())
            }
        }
    }
}

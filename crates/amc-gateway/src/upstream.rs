//! The client for providers: it relays and does nothing else. No retries, no redirects, no
//! decompression, no cookies, no proxies from the environment, no total timeout.

use std::error::Error as _;
use std::sync::Arc;
use std::time::Duration;

use reqwest::Client;

use crate::error::GatewayError;

/// The client, and whether this machine has CA certificates.
#[derive(Debug)]
pub(crate) struct Upstream {
    client: Client,
    /// For upgrades, which HTTP/2 does not have.
    http1: Client,
    has_roots: bool,
}

impl Upstream {
    /// Builds the client. A machine without CA certificates can still reach `http://` providers.
    pub(crate) fn new(connect_timeout: Duration) -> Result<Self, GatewayError> {
        let fail = |error: &dyn std::fmt::Display| GatewayError::Client(error.to_string());
        let mut roots = rustls::RootCertStore::empty();
        roots.add_parsable_certificates(rustls_native_certs::load_native_certs().certs);
        let has_roots = !roots.is_empty();
        let provider = Arc::new(rustls::crypto::ring::default_provider());
        let tls = rustls::ClientConfig::builder_with_provider(provider).with_safe_default_protocol_versions();
        let mut tls = tls.map_err(|error| fail(&error))?.with_root_certificates(roots).with_no_client_auth();
        tls.alpn_protocols = vec![b"h2".to_vec(), b"http/1.1".to_vec()];
        let builder = |tls: rustls::ClientConfig| {
            Client::builder()
                .tls_backend_preconfigured(tls)
                .no_proxy()
                .redirect(reqwest::redirect::Policy::none())
                .retry(reqwest::retry::never())
                .referer(false)
                .connect_timeout(connect_timeout)
        };
        let mut tls_http1 = tls.clone();
        tls_http1.alpn_protocols = vec![b"http/1.1".to_vec()];
        let client = builder(tls).build().map_err(|error| fail(&error))?;
        let http1 = builder(tls_http1).http1_only().build().map_err(|error| fail(&error))?;
        Ok(Upstream { client, http1, has_roots })
    }

    /// Sends a request that asks for an upgrade; the answer's head, and the connection where it was
    /// granted.
    pub(crate) async fn upgrade(&self, request: reqwest::Request) -> Result<reqwest::Response, String> {
        let origin = request.url().origin().ascii_serialization();
        let answered = self.http1.execute(request).await;
        answered.map_err(|error| format!("cannot connect to {origin}: {}", deepest(&error)))
    }

    /// Sends spans to their collector.
    pub(crate) async fn export(&self, request: reqwest::Request) -> reqwest::Result<reqwest::Response> {
        self.client.execute(request).await
    }

    /// Sends a request; returns with the answer's head.
    pub(crate) async fn send(&self, request: reqwest::Request) -> Result<http::Response<reqwest::Body>, String> {
        let origin = request.url().origin().ascii_serialization();
        let https = request.url().scheme() == "https";
        match self.client.execute(request).await {
            Ok(response) => Ok(response.into()),
            Err(error) if error.is_connect() && https && !self.has_roots => Err(format!(
                "cannot connect to {origin}: this machine has no CA certificates ({}); install the package ca-certificates",
                deepest(&error)
            )),
            Err(error) if error.is_connect() => Err(format!("cannot connect to {origin}: {}", deepest(&error))),
            Err(error) => Err(format!("{origin} broke off before its answer: {}", deepest(&error))),
        }
    }
}

/// The innermost cause, which names what happened; the outer ones repeat the URL.
fn deepest(error: &reqwest::Error) -> String {
    let mut text = if error.is_timeout() { "it takes too long".to_owned() } else { "no reason given".to_owned() };
    let mut cause = error.source();
    while let Some(inner) = cause {
        text = inner.to_string();
        cause = inner.source();
    }
    text
}

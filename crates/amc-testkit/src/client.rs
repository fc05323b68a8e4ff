//! An HTTP client like an agent's own: nothing about it is special to AMC.

use std::sync::Arc;

/// A client that can be built on machines without CA certificates too; there only https fails.
///
/// # Errors
/// When reqwest cannot build it.
pub fn client() -> Result<reqwest::Client, Box<dyn std::error::Error>> {
    Ok(builder()?.build()?)
}

/// The builder behind [`client`].
///
/// # Errors
/// When rustls has no protocol version to offer.
pub fn builder() -> Result<reqwest::ClientBuilder, Box<dyn std::error::Error>> {
    let mut roots = rustls::RootCertStore::empty();
    roots.add_parsable_certificates(rustls_native_certs::load_native_certs().certs);
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let tls = rustls::ClientConfig::builder_with_provider(provider).with_safe_default_protocol_versions()?;
    let tls = tls.with_root_certificates(roots).with_no_client_auth();
    Ok(reqwest::Client::builder().tls_backend_preconfigured(tls).no_proxy())
}

//! Origins (RFC 6454) of upstreams: scheme, host and port, spelled in one way.

use std::fmt;
use std::str::FromStr;

use serde::{Deserialize, Deserializer, Serialize, Serializer, de};

/// Longest accepted URL: nobody's base URL comes near.
const URL_BYTES_MAX: usize = 2_048;

/// `https://api.example.com` or `http://127.0.0.1:8000`: lowercase, the default port left out.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Origin(String);

/// A text that has no origin.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{0:?} is not http or https with a host, such as https://api.example.com")]
pub struct OriginError(pub String);

impl Origin {
    /// The origin of a URL with whatever path.
    ///
    /// # Errors
    /// [`OriginError`] when it has none, or names a user.
    pub fn of_url(url: &str) -> Result<Origin, OriginError> {
        let refused = || OriginError(url.chars().take(80).collect());
        if url.len() > URL_BYTES_MAX || !url.is_ascii() {
            return Err(refused());
        }
        let lower = url.to_ascii_lowercase();
        let (scheme, rest) = lower.split_once("://").ok_or_else(refused)?;
        let default_port = match scheme {
            "http" => "80",
            "https" => "443",
            _ => return Err(refused()),
        };
        let authority = rest.split(['/', '?', '#']).next().unwrap_or_default();
        let (host, port) = split_port(authority).ok_or_else(refused)?;
        let plain = |byte: u8| byte.is_ascii_alphanumeric() || b".-_".contains(&byte);
        let bracketed = host.strip_prefix('[').and_then(|rest| rest.strip_suffix(']'));
        let host_is_good = match bracketed {
            Some(address) => address.parse::<std::net::Ipv6Addr>().is_ok(),
            None => !host.is_empty() && host.bytes().all(plain),
        };
        if !host_is_good {
            return Err(refused());
        }
        match port {
            None => Ok(Origin(format!("{scheme}://{host}"))),
            Some(port) if port == default_port => Ok(Origin(format!("{scheme}://{host}"))),
            Some(port) => match port.parse::<u16>() {
                Ok(number) if number != 0 && number.to_string() == port => {
                    Ok(Origin(format!("{scheme}://{host}:{number}")))
                }
                _ => Err(refused()),
            },
        }
    }
}

fn split_port(authority: &str) -> Option<(&str, Option<&str>)> {
    match authority.rsplit_once(':') {
        Some((host, port)) if !port.contains(']') => (!host.is_empty()).then_some((host, Some(port))),
        _ => Some((authority, None)),
    }
}

impl fmt::Display for Origin {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

/// Only an origin's own spelling parses: no path, no default port, no capitals.
impl FromStr for Origin {
    type Err = OriginError;
    fn from_str(text: &str) -> Result<Self, OriginError> {
        match Origin::of_url(text) {
            Ok(origin) if origin.0 == text => Ok(origin),
            _ => Err(OriginError(text.chars().take(80).collect())),
        }
    }
}

impl Serialize for Origin {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_str(&self.0)
    }
}

impl<'de> Deserialize<'de> for Origin {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        String::deserialize(deserializer)?.parse().map_err(de::Error::custom)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn urls_with_one_origin_have_one_spelling() {
        for url in ["https://API.example.com", "https://api.example.com:443/v1", "https://api.example.com?x#y"] {
            assert_eq!(Origin::of_url(url).expect("good").to_string(), "https://api.example.com");
        }
        assert_eq!(Origin::of_url("http://[::1]:8000/v1").expect("good").to_string(), "http://[::1]:8000");
        assert_ne!(Origin::of_url("http://a.example"), Origin::of_url("https://a.example"));
    }

    #[test]
    fn a_host_in_disguise_has_no_origin() {
        for bad in [
            "",
            "api.example.com",
            "ftp://a",
            "https://",
            "https:///v1",
            "https://good.example@evil.example/",
            "https://a.example:0",
            "https://a.example:99999",
            "https://a.example:+80",
            "https://a b",
            "https://é.example",
            "https://[::1",
            "https://[evil]",
            "https://a:1:2",
        ] {
            assert!(Origin::of_url(bad).is_err(), "{bad}");
        }
        for other in ["https://a.example/", "https://a.example:443", "HTTPS://a.example"] {
            assert!(other.parse::<Origin>().is_err(), "{other} is not how a policy spells it");
        }
    }
}

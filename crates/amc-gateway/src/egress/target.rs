//! Where a request to the egress proxy wants to go, in the one spelling that no two programs read
//! differently. Nothing is mended: what is written otherwise is refused.

use std::net::IpAddr;

use amc_workspace::config::is_host_name;

/// A host and a port.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Target {
    /// The host in lowercase, an IPv6 address in brackets.
    pub host: String,
    /// Where the host is an address: it.
    pub address: Option<IpAddr>,
    /// The port.
    pub port: u16,
}

impl Target {
    /// Reads `host:port`, or `host` with a default port. Refused are user information, dots at an end,
    /// addresses in other than their usual spelling (`127.1`, `0x7f.0.0.1`, `2130706433`, zones), and
    /// characters beyond letters, digits, `-`, `_` and `.`: international names come as `xn--`.
    pub fn parse(authority: &str, default_port: Option<u16>) -> Option<Target> {
        let (host, port) = split(authority)?;
        let port = match port {
            Some(text) => port_number(text)?,
            None => default_port?,
        };
        if let Some(inner) = host.strip_prefix('[') {
            let address: std::net::Ipv6Addr = inner.strip_suffix(']')?.parse().ok()?;
            return Some(Target { host: format!("[{address}]"), address: Some(address.into()), port });
        }
        if let Ok(address) = host.parse::<std::net::Ipv4Addr>() {
            return Some(Target { host: host.to_owned(), address: Some(address.into()), port });
        }
        let host = host.to_ascii_lowercase();
        is_host_name(&host).then_some(Target { host, address: None, port })
    }
}

/// Host and port as they are written.
fn split(authority: &str) -> Option<(&str, Option<&str>)> {
    if authority.starts_with('[') {
        let end = authority.find(']')? + 1;
        return match authority[end..].strip_prefix(':') {
            Some(port) => Some((&authority[..end], Some(port))),
            None if end == authority.len() => Some((authority, None)),
            None => None,
        };
    }
    match authority.split_once(':') {
        Some((host, port)) => Some((host, Some(port))),
        None => Some((authority, None)),
    }
}

/// A port in its one spelling: no sign, no zero in front.
fn port_number(text: &str) -> Option<u16> {
    let plain = !text.starts_with('0') && text.bytes().all(|byte| byte.is_ascii_digit());
    text.parse().ok().filter(|_| plain)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_spelling_is_taken() {
        for (text, host, port) in [
            ("example.com:443", "example.com", 443),
            ("API.Example.COM:8443", "api.example.com", 8443),
            ("example.com", "example.com", 80),
            ("192.0.2.1:443", "192.0.2.1", 443),
            ("[2001:DB8::1]:443", "[2001:db8::1]", 443),
            ("[::1]", "[::1]", 80),
            ("xn--bcher-kva.example:443", "xn--bcher-kva.example", 443),
            ("a_b.example:1", "a_b.example", 1),
        ] {
            let target = Target::parse(text, Some(80)).unwrap_or_else(|| panic!("{text}"));
            assert_eq!((target.host.as_str(), target.port), (host, port), "{text}");
            let again = Target::parse(&format!("{}:{}", target.host, target.port), None);
            assert_eq!(again, Some(target), "{text}");
        }
        assert_eq!(Target::parse("example.com", None), None, "a tunnel says its port");
    }

    #[test]
    fn odd_spellings_are_refused() {
        for text in [
            "",
            ":443",
            "example.com:",
            "example.com:0",
            "example.com:65536",
            "example.com:+443",
            "example.com:0443",
            "example.com:44 3",
            "example.com.:443",
            ".example.com:443",
            "a..b:443",
            "user@example.com:443",
            "user:pw@example.com:443",
            "example.com\0.evil:443",
            "exa%6dple.com:443",
            "example.com/x:443",
            "example.com:443:443",
            "127.1:80",
            "0177.0.0.1:80",
            "0x7f.0.0.1:80",
            "2130706433:80",
            "0x7f000001:80",
            "127.0.0.01:80",
            "127.0.0.1.:80",
            "1.2.3:80",
            "1.2.3.4.5:80",
            "[::1%eth0]:80",
            "[::1:80",
            "::1:80",
            "[127.0.0.1]:80",
            "[::1]80",
            "bücher.example:443",
            "ex ample.com:443",
            "-x.example:443",
            "a\\b:443",
            "example.com#:443",
            "*.example.com:443",
            "１２７.0.0.1:80",
            "example。com:443",
        ] {
            assert_eq!(Target::parse(text, Some(80)), None, "{text:?}");
        }
        let long = format!("{}.example:443", "a".repeat(64));
        assert_eq!(Target::parse(&long, None), None);
    }
}

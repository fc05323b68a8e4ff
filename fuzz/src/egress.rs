//! What an agent says to the egress proxy first: where to, and the ClientHello in the tunnel. The two parsers are
//! compiled in as they stand, so that no network stack is built for them.

// Each file keeps its own tests; here they are only compiled.
#[path = "../../crates/amc-gateway/src/egress/hello.rs"]
mod hello;
#[path = "../../crates/amc-gateway/src/egress/target.rs"]
mod target;

use hello::Hello;
use target::Target;

/// A hello is decided once: more bytes change nothing, and fewer leave it open or say the same.
pub(crate) fn client_hello(data: &[u8]) {
    let whole = hello::client_hello(data);
    if let Hello::Client { server_name: Some(name) } = &whole {
        assert!(!name.is_empty() && name.bytes().all(|byte| byte.is_ascii_graphic() && !byte.is_ascii_uppercase()));
    }
    let half = hello::client_hello(&data[..data.len() / 2]);
    assert!(half == Hello::Incomplete || half == whole, "{half:?} became {whole:?}");
}

/// A target that is taken is written in one way, and reads back as itself.
pub(crate) fn connect(data: &[u8]) {
    let Ok(text) = std::str::from_utf8(data) else { return };
    let Some(taken) = Target::parse(text, Some(80)) else { return };
    assert!(taken.host.bytes().all(|byte| byte.is_ascii_graphic() && !byte.is_ascii_uppercase() && byte != b'@'));
    assert_eq!(Target::parse(&format!("{}:{}", taken.host, taken.port), None), Some(taken));
}

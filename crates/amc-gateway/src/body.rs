//! The one type of body that passes through the gateway.

use bytes::Bytes;
use futures_util::{StreamExt as _, stream};
use http_body_util::{BodyExt, Full, StreamBody, combinators::UnsyncBoxBody};
use hyper::body::Frame;

/// Why a body breaks off; hyper then breaks the connection, so that the client sees it too.
pub(crate) type BodyError = Box<dyn std::error::Error + Send + Sync>;

/// A body on its way, to an agent or to a provider.
pub(crate) type PassingBody = UnsyncBoxBody<Bytes, BodyError>;

/// A body that is there as a whole.
pub(crate) fn whole(bytes: impl Into<Bytes>) -> PassingBody {
    Full::new(bytes.into()).map_err(|never| match never {}).boxed_unsync()
}

/// The beginning of a body that broke off.
pub(crate) fn broken_off(bytes: Bytes) -> PassingBody {
    let pieces = stream::once(async move { Ok(Frame::data(bytes)) }).chain(stream::once(async {
        // hyper writes out what it has when a body has nothing new, and throws it away when one fails.
        tokio::task::yield_now().await;
        Err("the provider broke off its answer".into())
    }));
    BodyExt::boxed_unsync(StreamBody::new(pieces))
}

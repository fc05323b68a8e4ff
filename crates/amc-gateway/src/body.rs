//! The one type of body that the gateway answers with.

use bytes::Bytes;
use futures_util::stream;
use http_body_util::{BodyExt as _, Full, StreamBody, combinators::UnsyncBoxBody};
use hyper::body::Frame;

/// Why a body breaks off; hyper then breaks the connection, so that the client sees it too.
pub(crate) type BodyError = Box<dyn std::error::Error + Send + Sync>;

/// A body on its way to an agent.
pub(crate) type AnswerBody = UnsyncBoxBody<Bytes, BodyError>;

/// A body that is there as a whole.
pub(crate) fn whole(bytes: impl Into<Bytes>) -> AnswerBody {
    Full::new(bytes.into()).map_err(|never| match never {}).boxed_unsync()
}

/// The beginning of a body that broke off.
pub(crate) fn broken_off(bytes: Bytes) -> AnswerBody {
    let error: BodyError = "the provider broke off its answer".into();
    StreamBody::new(stream::iter([Ok(Frame::data(bytes)), Err(error)])).boxed_unsync()
}

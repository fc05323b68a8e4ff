//! Bodies that are hashed and copied (bounded) while they pass, and never changed or held back.
//!
//! The end of a body is taken from its byte count, its end of stream, or its drop, whichever comes
//! first: hyper stops asking for a body when its Content-Length is satisfied, and drops one whose
//! reader has left.

use std::borrow::Cow;
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::task::{Context, Poll, ready};
use std::time::Duration;

use amc_core::kinds::CallOutcome;
use amc_core::limits::PAYLOAD_STORED_BYTES_MAX;
use amc_crypto::hash::BodyHasher;
use amc_workspace::protocol::gateway::Recorded;
use bytes::{Bytes, BytesMut};
use http::{HeaderMap, HeaderName, HeaderValue};
use http_body_util::BodyExt as _;
use hyper::body::{Body, Frame, Incoming, SizeHint};
use tokio::sync::oneshot;
use tokio::time::{Instant, Sleep};

use crate::body::BodyError;
use crate::facts::{self, Decoder, Skeleton};
use crate::record::{AnswerRecorder, RequestRecorder};
use crate::redact::OVERLAP_BYTES;

/// A body's digest, its beginning, and of a JSON body beyond that what is left without long strings.
#[derive(Debug, Default)]
pub(crate) struct Copied {
    pub(crate) hasher: BodyHasher,
    pub(crate) bytes: Vec<u8>,
    encoding: Option<String>,
    beyond: Option<Box<Beyond>>,
}

/// A body that is longer than its copy.
#[derive(Debug)]
struct Beyond {
    decoder: Decoder,
    skeleton: Skeleton,
}

impl Copied {
    /// For a body in this encoding.
    pub(crate) fn new(encoding: Option<&str>) -> Self {
        Copied { encoding: encoding.map(str::to_owned), ..Copied::default() }
    }

    /// The next piece.
    pub(crate) fn push(&mut self, piece: &[u8]) {
        if self.beyond.is_none() && self.bytes.len() + piece.len() > COPY_BYTES_MAX {
            let decoder = Decoder::new(self.encoding.as_deref());
            let mut beyond = Beyond { decoder, skeleton: Skeleton::default() };
            beyond.push(&self.bytes);
            self.beyond = Some(Box::new(beyond));
        }
        if let Some(beyond) = &mut self.beyond {
            beyond.push(piece);
        }
        self.hasher.update(piece);
        let room = COPY_BYTES_MAX.saturating_sub(self.bytes.len());
        self.bytes.extend_from_slice(&piece[..piece.len().min(room)]);
    }

    /// The copy, where it is the whole body.
    pub(crate) fn whole(&self) -> Option<&[u8]> {
        (self.hasher.len() == self.bytes.len() as u64).then_some(self.bytes.as_slice())
    }

    /// The body decoded, as far as its facts need it: whole, or without its long strings.
    pub(crate) fn readable(&mut self) -> Option<Cow<'_, [u8]>> {
        if let Some(beyond) = &mut self.beyond {
            let Beyond { decoder, skeleton } = &mut **beyond;
            let whole = decoder.finish(|plain| skeleton.push(plain));
            return skeleton.bytes().filter(|_| whole).map(Cow::Borrowed);
        }
        facts::decoded(self.encoding.as_deref(), &self.bytes)
    }

    /// The beginning as it passed: what a form begins with.
    pub(crate) fn beginning(&self) -> &[u8] {
        &self.bytes
    }
}

impl Beyond {
    fn push(&mut self, piece: &[u8]) {
        let Beyond { decoder, skeleton } = self;
        decoder.push(piece, |plain| skeleton.push(plain));
    }
}

/// What is copied of a body: what is stored, and enough beyond it to see a secret across the cut.
const COPY_BYTES_MAX: usize = PAYLOAD_STORED_BYTES_MAX + OVERLAP_BYTES;

/// How a request's body ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum RequestEnd {
    /// All of it passed.
    Whole,
    /// The provider, or the way to it, stopped taking it.
    Cut,
    /// The agent broke off.
    ClientBroke,
}

/// What an agent sends, as it comes; an agent that sends nothing for too long has broken off.
#[derive(Debug)]
pub(crate) struct AgentBody {
    incoming: Incoming,
    idle_max: Duration,
    /// Runs from when the next piece was asked for and was not there.
    idle: Option<Pin<Box<Sleep>>>,
}

/// Why a body could not be read whole.
#[derive(Debug)]
pub(crate) enum Unread {
    /// The agent broke off, or sends nothing.
    Broke(BodyError),
    /// It is larger than what may be read whole.
    TooLarge,
    /// Others are held already, as many as this process takes.
    NoRoom,
}

impl AgentBody {
    pub(crate) const fn new(incoming: Incoming, idle_max: Duration) -> Self {
        AgentBody { incoming, idle_max, idle: None }
    }

    /// Reads a body of at most `max` bytes whole. It counts in `room` as long as what comes with it lives.
    pub(crate) async fn read_whole(mut self, max: usize, room: &Room) -> Result<(Bytes, Held), Unread> {
        let (mut bytes, mut held) = (BytesMut::new(), room.hold());
        while let Some(frame) = self.frame().await {
            let Ok(piece) = frame.map_err(Unread::Broke)?.into_data() else { continue };
            if bytes.len() + piece.len() > max {
                return Err(Unread::TooLarge);
            }
            if !held.grow(piece.len()) {
                return Err(Unread::NoRoom);
            }
            bytes.extend_from_slice(&piece);
        }
        Ok((bytes.freeze(), held))
    }
}

/// How many bytes of requests are held whole, all of them together.
#[derive(Debug, Clone, Default)]
pub(crate) struct Room(Arc<AtomicUsize>);

/// What one request takes of it.
#[derive(Debug)]
pub(crate) struct Held {
    room: Room,
    bytes: usize,
}

impl Room {
    fn hold(&self) -> Held {
        Held { room: self.clone(), bytes: 0 }
    }
}

impl Held {
    fn grow(&mut self, bytes: usize) -> bool {
        let before = self.room.0.fetch_add(bytes, Ordering::Relaxed);
        self.bytes += bytes;
        before + bytes <= ROOM_BYTES_MAX
    }
}

impl Drop for Held {
    fn drop(&mut self) {
        self.room.0.fetch_sub(self.bytes, Ordering::Relaxed);
    }
}

/// Requests that are held whole, all together; agents could otherwise fill this machine's memory.
const ROOM_BYTES_MAX: usize = 256 << 20;

impl Body for AgentBody {
    type Data = Bytes;
    type Error = BodyError;

    fn poll_frame(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, BodyError>>> {
        if let Poll::Ready(frame) = Pin::new(&mut self.incoming).poll_frame(cx) {
            self.idle = None;
            return Poll::Ready(frame.map(|frame| frame.map_err(BodyError::from)));
        }
        let idle_max = self.idle_max;
        let idle = self.idle.get_or_insert_with(|| Box::pin(tokio::time::sleep(idle_max)));
        ready!(idle.as_mut().poll(cx));
        Poll::Ready(Some(Err(format!("the agent sent nothing for {} ms", idle_max.as_millis()).into())))
    }

    fn is_end_stream(&self) -> bool {
        self.incoming.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.incoming.size_hint()
    }
}

/// A request's body on its way to the provider.
pub(crate) struct RequestBody {
    live: Option<(Source, Copied, RequestRecorder)>,
    asked: bool,
}

/// Where a request's body comes from.
#[derive(Debug)]
pub(crate) enum Source {
    /// From the agent, as it comes.
    Agent(AgentBody),
    /// It was read already.
    Held(Option<Bytes>),
}

impl Source {
    /// Of a body that was read.
    pub(crate) fn whole(bytes: Bytes) -> Self {
        Source::Held((!bytes.is_empty()).then_some(bytes))
    }

    fn is_end_stream(&self) -> bool {
        match self {
            Source::Agent(incoming) => incoming.is_end_stream(),
            Source::Held(bytes) => bytes.as_ref().is_none_or(Bytes::is_empty),
        }
    }

    fn size_hint(&self) -> SizeHint {
        match self {
            Source::Agent(incoming) => incoming.size_hint(),
            Source::Held(bytes) => SizeHint::with_exact(bytes.as_ref().map_or(0, |bytes| bytes.len() as u64)),
        }
    }

    fn poll_frame(&mut self, cx: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, BodyError>>> {
        match self {
            Source::Agent(incoming) => Pin::new(incoming).poll_frame(cx),
            Source::Held(bytes) => Poll::Ready(bytes.take().map(|bytes| Ok(Frame::data(bytes)))),
        }
    }
}

impl RequestBody {
    /// Wraps a body; the recorder gets what has passed when it has ended.
    pub(crate) fn new(source: Source, encoding: Option<&str>, recorder: RequestRecorder) -> Self {
        let mut body = RequestBody { live: Some((source, Copied::new(encoding), recorder)), asked: false };
        body.finish_at_end();
        body
    }

    fn finish_at_end(&mut self) {
        if self.live.as_ref().is_some_and(|(source, ..)| source.is_end_stream()) {
            self.finish(RequestEnd::Whole);
        }
    }

    fn finish(&mut self, end: RequestEnd) {
        let Some((source, copied, recorder)) = self.live.take() else { return };
        let unread = match source {
            Source::Agent(incoming) if end == RequestEnd::Cut && !self.asked => Some(incoming),
            _ => None,
        };
        recorder.finish(copied, end, unread);
    }
}

impl Body for RequestBody {
    type Data = Bytes;
    type Error = BodyError;

    fn poll_frame(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, BodyError>>> {
        self.asked = true;
        let Some((source, copied, _)) = &mut self.live else { return Poll::Ready(None) };
        let frame = ready!(source.poll_frame(cx));
        match &frame {
            Some(Ok(frame)) => {
                if let Some(piece) = frame.data_ref() {
                    copied.push(piece);
                }
                self.finish_at_end();
            }
            Some(Err(_)) => self.finish(RequestEnd::ClientBroke),
            None => self.finish(RequestEnd::Whole),
        }
        Poll::Ready(frame)
    }

    fn is_end_stream(&self) -> bool {
        self.live.is_none()
    }

    fn size_hint(&self) -> SizeHint {
        self.live.as_ref().map_or(SizeHint::with_exact(0), |(source, ..)| source.size_hint())
    }
}

impl Drop for RequestBody {
    fn drop(&mut self) {
        self.finish(RequestEnd::Cut);
    }
}

/// An answer's body on its way to the agent.
pub(crate) struct AnswerPassing {
    upstream: Incoming,
    answer: AnswerRecorder,
    remaining: Option<u64>,
    idle: Pin<Box<Sleep>>,
    idle_max: Duration,
    lease_ends: LeaseEnds,
    receipt_in_trailer: bool,
    state: Passing,
}

/// Is ready when the agent may have no more of an answer.
pub(crate) type LeaseEnds = Pin<Box<dyn Future<Output = ()> + Send>>;

enum Passing {
    Body,
    /// The body has passed; its event is becoming durable.
    Receipt(oneshot::Receiver<Recorded>, HeaderMap),
    /// The provider broke off; what came before is written out first.
    Broken(BodyError),
    Ended,
}

impl AnswerPassing {
    /// Wraps an answer's body. With `receipt_in_trailer` the end of the stream (never a byte of the
    /// body) waits for the answer's event and carries its receipt.
    pub(crate) fn new(
        upstream: Incoming,
        answer: AnswerRecorder,
        lease_ends: LeaseEnds,
        idle_max: Duration,
        receipt_in_trailer: bool,
    ) -> Self {
        let remaining = upstream.size_hint().exact();
        let idle = Box::pin(tokio::time::sleep(idle_max));
        let state = Passing::Body;
        let mut passing =
            AnswerPassing { upstream, answer, remaining, idle, idle_max, lease_ends, receipt_in_trailer, state };
        if passing.remaining == Some(0) && !receipt_in_trailer {
            passing.end(HeaderMap::new());
        }
        passing
    }

    /// Finishes the evidence of a whole answer; with a receipt to come the stream stays open for it.
    fn end(&mut self, trailers: HeaderMap) {
        let recorded = self.answer.finish(CallOutcome::Complete);
        self.state = if self.receipt_in_trailer { Passing::Receipt(recorded, trailers) } else { Passing::Ended };
    }

    fn pass(&mut self, piece: &Bytes) {
        self.answer.push(piece);
        self.idle.as_mut().reset(Instant::now() + self.idle_max);
        self.remaining = self.remaining.map(|left| left.saturating_sub(piece.len() as u64));
        let ended = self.remaining == Some(0) || self.upstream.is_end_stream();
        if ended && !self.receipt_in_trailer {
            self.end(HeaderMap::new());
        }
    }

    /// Finishes the evidence and breaks the body at the next poll: hyper writes out what it has when
    /// a body has nothing new, and throws it away when one fails.
    fn broken(
        &mut self,
        outcome: CallOutcome,
        error: BodyError,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, BodyError>>> {
        self.answer.finish(outcome);
        self.state = Passing::Broken(error);
        cx.waker().wake_by_ref();
        Poll::Pending
    }

    fn take_error(&mut self) -> Option<BodyError> {
        match std::mem::replace(&mut self.state, Passing::Ended) {
            Passing::Broken(error) => Some(error),
            _ => None,
        }
    }

    fn poll_receipt(&mut self, cx: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, BodyError>>> {
        let Passing::Receipt(recorded, trailers) = &mut self.state else { return Poll::Ready(None) };
        let receipt = ready!(Pin::new(recorded).poll(cx)).ok().and_then(|recorded| recorded.receipt);
        let mut trailers = std::mem::take(trailers);
        if let Some(value) = receipt.and_then(|receipt| HeaderValue::from_str(&receipt).ok()) {
            trailers.insert(RECEIPT_HEADER, value);
        }
        self.state = Passing::Ended;
        Poll::Ready((!trailers.is_empty()).then(|| Ok(Frame::trailers(trailers))))
    }
}

impl Body for AnswerPassing {
    type Data = Bytes;
    type Error = BodyError;

    fn poll_frame(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, BodyError>>> {
        match &self.state {
            Passing::Body => {}
            Passing::Broken(_) => return Poll::Ready(self.take_error().map(Err)),
            Passing::Receipt(..) | Passing::Ended => return self.poll_receipt(cx),
        }
        if self.lease_ends.as_mut().poll(cx).is_ready() {
            return self.broken(CallOutcome::ClientLeft, "the lease has ended".into(), cx);
        }
        match Pin::new(&mut self.upstream).poll_frame(cx) {
            Poll::Ready(Some(Ok(frame))) => match frame.into_data() {
                Ok(piece) => {
                    self.pass(&piece);
                    Poll::Ready(Some(Ok(Frame::data(piece))))
                }
                Err(frame) => {
                    let trailers = frame.into_trailers().unwrap_or_default();
                    self.end(trailers.clone());
                    if self.receipt_in_trailer {
                        return self.poll_receipt(cx);
                    }
                    Poll::Ready(Some(Ok(Frame::trailers(trailers))))
                }
            },
            Poll::Ready(Some(Err(error))) => self.broken(CallOutcome::UpstreamTruncated, error.into(), cx),
            Poll::Ready(None) => {
                self.end(HeaderMap::new());
                self.poll_receipt(cx)
            }
            Poll::Pending => {
                ready!(self.idle.as_mut().poll(cx));
                self.broken(CallOutcome::UpstreamTruncated, "the provider sent nothing for too long".into(), cx)
            }
        }
    }

    fn is_end_stream(&self) -> bool {
        matches!(self.state, Passing::Ended)
    }

    fn size_hint(&self) -> SizeHint {
        match self.state {
            Passing::Body | Passing::Broken(_) => self.upstream.size_hint(),
            Passing::Receipt(..) | Passing::Ended => SizeHint::with_exact(0),
        }
    }
}

/// The header, or trailer, that carries the receipt of an answer.
pub(crate) const RECEIPT_HEADER: HeaderName = HeaderName::from_static("x-amc-receipt");

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_held_whole_is_bounded_for_all_of_them_together() {
        let room = Room::default();
        let (mut one, mut other) = (room.hold(), room.hold());
        assert!(one.grow(ROOM_BYTES_MAX - 1) && other.grow(1), "as much as there is room");
        assert!(!other.grow(1), "and no more");
        drop(one);
        assert!(other.grow(1), "what ends makes room");
        drop(other);
        assert!(room.hold().grow(ROOM_BYTES_MAX), "nothing is left behind");
    }
}

//! Frames of the private sockets: bounds before memory, one spelling, answers in order.

use std::io::{self, Read as _, Write as _};
use std::os::unix::net::{UnixListener, UnixStream};

use amc_core::{Digest, codec, limits};
use amc_workspace::protocol::gateway::{Capture, CapturedPayload, GatewayRequest, Welcome};
use amc_workspace::protocol::operator::{OperatorReply, OperatorRequest, SessionOpened};
use amc_workspace::protocol::{
    Client, ClientError, Frame, FrameError, PROTOCOL_VERSION, decode_frame, encode_frame, frame_len, read_frame,
    write_frame,
};

type Asked = Frame<OperatorRequest>;

fn hello() -> Asked {
    Frame { id: 7, body: OperatorRequest::Hello { protocol: PROTOCOL_VERSION } }
}

#[test]
fn a_frame_is_its_length_and_its_content() {
    let bytes = encode_frame(&hello()).expect("short");
    // id 7, variant 0, protocol 4.
    assert_eq!(bytes, [3, 0, 0, 0, 7, 0, 4]);
    assert_eq!(decode_frame::<OperatorRequest>(&bytes[4..]).expect("it decodes"), hello());
    let mut stream = io::Cursor::new([bytes.clone(), bytes].concat());
    assert_eq!(read_frame(&mut stream).expect("the first"), Some(hello()));
    assert_eq!(read_frame(&mut stream).expect("the second"), Some(hello()));
    assert_eq!(read_frame::<OperatorRequest>(&mut stream).expect("the end"), None);
}

#[test]
fn a_length_above_the_bound_is_refused_before_anything_is_read() {
    let bound = u32::try_from(limits::FRAME_BYTES_MAX).expect("it fits");
    assert_eq!(frame_len(bound.to_le_bytes()).expect("as long as may be"), limits::FRAME_BYTES_MAX);
    for len in [bound + 1, u32::MAX] {
        assert!(matches!(frame_len(len.to_le_bytes()), Err(FrameError::TooLong(_))));
        let prefix = len.to_le_bytes();
        let mut stream = prefix.chain(io::repeat(0));
        let refused = read_frame::<OperatorRequest>(&mut stream);
        assert!(matches!(refused, Err(ClientError::Frame(FrameError::TooLong(_)))));
    }
}

#[test]
fn a_message_above_the_bound_is_not_sent() {
    let payload = CapturedPayload {
        wire_sha256: Digest([0; 32]),
        wire_len: 0,
        media_type: String::new(),
        capture: Capture::Omitted,
        bytes: vec![0; limits::FRAME_BYTES_MAX],
    };
    assert!(matches!(encode_frame(&Frame { id: 0, body: payload }), Err(FrameError::TooLong(_))));
}

#[test]
fn the_largest_stored_payload_fits() {
    let payload = CapturedPayload {
        wire_sha256: Digest([9; 32]),
        wire_len: u64::MAX,
        media_type: "x".repeat(limits::MEDIA_TYPE_BYTES_MAX),
        capture: Capture::Truncated("r".repeat(limits::RULES_BYTES_MAX)),
        bytes: vec![0xff; limits::PAYLOAD_STORED_BYTES_MAX],
    };
    let bytes = encode_frame(&Frame { id: u64::MAX, body: payload.clone() }).expect("it fits");
    assert_eq!(decode_frame::<CapturedPayload>(&bytes[4..]).expect("it decodes").body, payload);
}

#[test]
fn bytes_left_over() {
    assert!(matches!(
        decode_frame::<OperatorRequest>(&[7, 0, 1, 0]),
        Err(FrameError::Codec(codec::CodecError::TrailingBytes(1)))
    ));
}

#[test]
fn overlong_integer() {
    let refused = decode_frame::<OperatorRequest>(&[0x87, 0x00, 0, 1]);
    assert!(matches!(refused, Err(FrameError::Codec(codec::CodecError::NotCanonical))));
}

#[test]
fn unknown_request() {
    assert!(matches!(
        decode_frame::<OperatorRequest>(&[7, 99]),
        Err(FrameError::Codec(codec::CodecError::Malformed(_)))
    ));
    assert!(decode_frame::<GatewayRequest>(&[]).is_err());
}

#[test]
fn cut_off_in_the_middle() {
    let bytes = encode_frame(&hello()).expect("short");
    for cut in 1..bytes.len() {
        let refused = read_frame::<OperatorRequest>(&mut io::Cursor::new(&bytes[..cut]));
        assert!(
            matches!(refused, Err(ClientError::Io(error)) if error.kind() == io::ErrorKind::UnexpectedEof),
            "{cut}"
        );
    }
}

#[test]
fn a_length_without_content_costs_no_more_than_the_bound() {
    let mut bytes = u32::try_from(limits::FRAME_BYTES_MAX).expect("it fits").to_le_bytes().to_vec();
    bytes.push(0);
    assert!(matches!(read_frame::<OperatorRequest>(&mut io::Cursor::new(bytes)), Err(ClientError::Io(_))));
}

/// Listens, answers one request by `answer`, and gives what a client made of it.
fn asked(answer: impl FnOnce(Asked, &mut UnixStream) + Send + 'static) -> Result<OperatorReply, ClientError> {
    let dir = tempfile::tempdir().expect("a directory");
    let path = dir.path().join("socket");
    let listener = UnixListener::bind(&path).expect("a socket");
    let server = std::thread::spawn(move || {
        let (mut stream, _) = listener.accept().expect("a client");
        let request = read_frame(&mut stream).expect("a frame").expect("not the end");
        answer(request, &mut stream);
    });
    let mut client = Client::<OperatorRequest, OperatorReply>::connect(&path).expect("somebody listens");
    let reply = client.call(OperatorRequest::Status);
    server.join().expect("the server did not panic");
    reply
}

#[test]
fn an_answer_with_the_requests_id_is_taken() {
    let reply = asked(|request, stream| {
        write_frame(stream, &Frame { id: request.id, body: OperatorReply::Done }).expect("written");
    });
    assert!(matches!(reply, Ok(OperatorReply::Done)));
}

#[test]
fn an_answer_to_another_request_is_refused() {
    let reply = asked(|request, stream| {
        write_frame(stream, &Frame { id: request.id + 1, body: OperatorReply::Done }).expect("written");
    });
    assert!(matches!(reply, Err(ClientError::OutOfOrder)));
}

#[test]
fn a_server_that_leaves_is_an_error_and_not_a_reply() {
    assert!(matches!(asked(|_, _| {}), Err(ClientError::Io(_))));
    let reply = asked(|_, stream| stream.write_all(&[9, 0, 0, 0, 1]).expect("written"));
    assert!(matches!(reply, Err(ClientError::Io(error)) if error.kind() == io::ErrorKind::UnexpectedEof));
}

#[test]
fn nobody_listens() {
    let dir = tempfile::tempdir().expect("a directory");
    assert!(Client::<OperatorRequest, OperatorReply>::connect(&dir.path().join("none")).is_err());
}

#[test]
fn what_is_printed_has_no_secret() {
    let welcome = Welcome {
        config: String::new(),
        config_version: 1,
        config_state: amc_core::kinds::ConfigState::Signed,
        secrets: vec![("openai".into(), "sk-secret".into())],
        commitment_key: Digest([0x5a; 32]),
        monitor_key: String::new(),
    };
    let printed = format!("{welcome:?}");
    assert!(!printed.contains("sk-secret") && !printed.contains("5a5a") && printed.contains("redacted"), "{printed}");
    let session = amc_core::SessionId::from_parts(0, [0; 10]);
    let opened = SessionOpened { session, number: 1, lease_token: "amc-lease-secret".into() };
    assert!(!format!("{opened:?}").contains("amc-lease-secret"));
}

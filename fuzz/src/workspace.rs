//! Configuration files, and the messages of the private sockets.

use std::fmt::Debug;

use amc_workspace::protocol::gateway::{GatewayReply, GatewayRequest};
use amc_workspace::protocol::operator::{OperatorReply, OperatorRequest};
use amc_workspace::protocol::{encode_frame, read_frame};
use amc_workspace::{AmcConfig, GatewayConfig};
use serde::Serialize;
use serde::de::DeserializeOwned;

/// A gateway's configuration that parses means the same when it is written again.
pub(crate) fn config(data: &[u8]) {
    let _ = AmcConfig::parse(data);
    if let Ok(config) = GatewayConfig::parse(data) {
        let again = GatewayConfig::parse(config.render().as_bytes()).expect("what it writes it reads");
        assert_eq!(again, config);
    }
}

/// A frame has one encoding, for whichever of the four messages it is taken.
pub(crate) fn frames(data: &[u8]) {
    frame::<OperatorRequest>(data);
    frame::<OperatorReply>(data);
    frame::<GatewayRequest>(data);
    frame::<GatewayReply>(data);
}

fn frame<T: Serialize + DeserializeOwned + Debug>(data: &[u8]) {
    let mut rest = data;
    while let Ok(Some(frame)) = read_frame::<T>(&mut rest) {
        let encoded = encode_frame(&frame).expect("what was read is within the bound");
        assert!(data[..data.len() - rest.len()].ends_with(&encoded), "{frame:?} has another encoding");
    }
}

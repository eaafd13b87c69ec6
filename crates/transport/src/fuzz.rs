//! What the fuzz targets and a test run: bytes of peers, and a code of a person. Only they see this module.

pub use crate::tls::tls_record;
use crate::{
    code::{CodeId, SecretCode},
    control::{Control, EnrolAnswer, FromAgent, JoinAnswer, ToAgent},
    frame::{FrameKind, MAX_DATA, MAX_MESSAGE, OpenRequest, StreamRefusal},
};
use serde::{Serialize, de::DeserializeOwned};
use std::{
    fmt::Debug,
    io::Cursor,
    pin::pin,
    str::from_utf8,
    task::{Context, Poll, Waker},
};
use wicketgate_model::{EnrolRequest, EnrollmentId, JoinRequest, JoinTokenId};

/// An accepted frame is its type and the rest; an accepted message in it is the same after it was written.
pub fn frame(bytes: &[u8]) {
    let Ok((kind, payload)) = FrameKind::of(bytes) else { return };
    assert_eq!((kind as u8, payload), (bytes[0], &bytes[1..]));
    let most = match kind {
        FrameKind::Open | FrameKind::Refused => MAX_MESSAGE,
        FrameKind::Data => MAX_DATA,
        FrameKind::Opened | FrameKind::End | FrameKind::Reset => 0,
    };
    assert!(payload.len() <= most);
    if kind == FrameKind::Open {
        same(serde_json::from_slice::<OpenRequest>(payload).ok());
    } else if kind == FrameKind::Refused
        && let Ok(refusal) = serde_json::from_slice::<StreamRefusal>(payload)
    {
        assert!(refusal.text.chars().count() <= 500 && !refusal.text.contains(char::is_control));
        same(Some(refusal));
    }
}

/// The bytes as they are, and as the content of one message: each message that is received is the same after it was written.
pub fn control_message(bytes: &[u8]) {
    let length = u32::try_from(bytes.len()).unwrap_or(u32::MAX);
    for bytes in [bytes.to_vec(), [&length.to_be_bytes(), bytes].concat()] {
        let connection = || tokio::io::join(Cursor::new(bytes.clone()), tokio::io::sink());
        receive_all::<FromAgent>(Control::of_agent(connection()));
        receive_all::<EnrolRequest>(Control::of_agent(connection()));
        receive_all::<JoinRequest>(Control::of_agent(connection()));
        receive_all::<ToAgent>(Control::new(connection()));
        receive_all::<EnrolAnswer>(Control::new(connection()));
        receive_all::<JoinAnswer>(Control::new(connection()));
    }
}

fn receive_all<T: Serialize + DeserializeOwned + PartialEq + Debug>(mut control: Control) {
    let mut context = Context::from_waker(Waker::noop());
    loop {
        // All bytes are there, so nothing waits.
        let Poll::Ready(received) = pin!(control.receive::<T>()).poll(&mut context) else { break };
        let Ok(message) = received else { return };
        same(Some(message));
    }
    unreachable!("a connection whose bytes are all there waits");
}

fn same<T: Serialize + DeserializeOwned + PartialEq + Debug>(message: Option<T>) {
    let Some(message) = message else { return };
    let again = serde_json::to_vec(&message).and_then(|bytes| serde_json::from_slice(&bytes));
    assert_eq!(again.ok().as_ref(), Some(&message));
}

/// An accepted code is written as a text of fixed length that is the same code.
pub fn enrolment_code(text: &[u8]) {
    let Ok(text) = from_utf8(text) else { return };
    same_code::<EnrollmentId>(text);
    same_code::<JoinTokenId>(text);
}

fn same_code<I: CodeId + PartialEq + Debug>(text: &str) {
    let Ok(code) = text.parse::<SecretCode<I>>() else { return };
    let written = code.expose();
    assert_eq!((written.len(), written.parse()), (92, Ok(code)));
}

#[test]
fn mutations_of_the_seeds_keep_the_properties() {
    wicketgate_seeds::replay("frame", 3000, frame);
    wicketgate_seeds::replay("control_message", 3000, control_message);
    wicketgate_seeds::replay("enrolment_code", 3000, enrolment_code);
    wicketgate_seeds::replay("tls_record", 3000, tls_record);
}

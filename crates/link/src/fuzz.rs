//! What the fuzz targets and a test run. Only they see this module.

use crate::{
    FromGateway, ToGateway, codec,
    wire::{Frame, FrameReader, FrameWriter},
};
use serde::{Serialize, de::DeserializeOwned};
use std::{
    fmt::Debug,
    io::Cursor,
    pin::pin,
    task::{Context, Poll, Waker},
};

/// An accepted message is the same after it was encoded.
pub fn link_message(bytes: &[u8]) {
    same::<ToGateway>(bytes);
    same::<FromGateway>(bytes);
}

fn same<M: Serialize + DeserializeOwned + PartialEq + Debug>(bytes: &[u8]) {
    let Ok(message) = codec::decode::<M>(bytes) else { return };
    let again = codec::encode(&message).and_then(|bytes| codec::decode::<M>(&bytes));
    assert_eq!(again.ok().as_ref(), Some(&message));
}

/// The bytes as they are, and as the body of a message: the frames that are read are the same after they were written.
pub fn link_frame(bytes: &[u8]) {
    let length = u32::try_from(bytes.len()).unwrap_or(u32::MAX);
    for stream in [bytes.to_vec(), [&length.to_be_bytes(), &[1][..], bytes].concat()] {
        same_frames::<ToGateway>(stream.clone());
        same_frames::<FromGateway>(stream);
    }
}

fn same_frames<M: Serialize + DeserializeOwned + PartialEq + Debug>(stream: Vec<u8>) {
    let frames = frames::<M>(stream);
    let mut writer = FrameWriter::new(Cursor::new(Vec::new()));
    for frame in &frames {
        // What was read may be longer when it is written, as a text with escapes.
        if writer.queue(frame).is_err() {
            return;
        }
    }
    while !writer.is_empty() {
        assert!(now(writer.advance()).is_ok());
    }
    assert_eq!(self::frames::<M>(writer.into_inner().into_inner()), frames);
}

fn frames<M: DeserializeOwned>(stream: Vec<u8>) -> Vec<Frame<M>> {
    let (mut frames, mut reader) = (Vec::new(), FrameReader::new(Cursor::new(stream)));
    loop {
        match reader.take() {
            Ok(Some(frame)) => frames.push(frame),
            Ok(None) if now(reader.fill()).is_ok() => {}
            _ => return frames,
        }
    }
}

/// A stream in memory makes nobody wait.
fn now<T>(future: impl Future<Output = T>) -> T {
    match pin!(future).poll(&mut Context::from_waker(Waker::noop())) {
        Poll::Ready(done) => done,
        Poll::Pending => unreachable!("a stream in memory makes nobody wait"),
    }
}

#[test]
fn mutations_of_the_seeds_keep_the_properties() {
    wicketgate_seeds::replay("link_message", 3000, link_message);
    wicketgate_seeds::replay("link_frame", 3000, link_frame);
}

#[test]
fn a_seed_of_a_message_is_one() {
    wicketgate_seeds::replay("link_message", 0, |bytes| {
        let is_message =
            codec::decode::<ToGateway>(bytes).is_ok() || codec::decode::<FromGateway>(bytes).is_ok();
        assert!(is_message, "as a message that has changed its shape");
    });
}

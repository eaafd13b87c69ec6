//! The receiving half of a link.

use crate::codec;
use serde::{Serialize, de::DeserializeOwned};
use tokio::sync::mpsc;

/// What arrives at one end, in order.
#[derive(Debug)]
pub struct LinkReceiver<M> {
    pub(crate) messages: mpsc::Receiver<M>,
    /// Passes each message through the codec, as a network would.
    pub(crate) is_encoded: bool,
}

impl<M: Serialize + DeserializeOwned> LinkReceiver<M> {
    /// The next message; `None` when the other end is closed, or sends what cannot be decoded. Cancel-safe.
    pub async fn recv(&mut self) -> Option<M> {
        self.messages.recv().await.and_then(|message| self.arrive(message))
    }

    /// The next message, if it has arrived already.
    pub fn try_recv(&mut self) -> Option<M> {
        self.messages.try_recv().ok().and_then(|message| self.arrive(message))
    }

    fn arrive(&self, message: M) -> Option<M> {
        if !self.is_encoded {
            return Some(message);
        }
        codec::encode(&message).and_then(|bytes| codec::decode(&bytes)).ok()
    }
}

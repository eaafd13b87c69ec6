//! The receiving half of a link.

use crate::{Joiner, Parted, codec};
use serde::{Serialize, de::DeserializeOwned};
use tokio::sync::mpsc;
use tracing::error;

/// What arrives at one end, in order.
#[derive(Debug)]
pub struct LinkReceiver<M> {
    messages: mpsc::Receiver<M>,
    /// Passes each message through the codec, in parts of so many rows, as a network would.
    rows: Option<usize>,
    joiner: Joiner<M>,
}

impl<M> LinkReceiver<M> {
    pub(crate) fn new(messages: mpsc::Receiver<M>, rows: Option<usize>) -> Self {
        Self { messages, rows, joiner: Joiner::default() }
    }
}

impl<M: Parted + Serialize + DeserializeOwned> LinkReceiver<M> {
    /// The next message, whole; `None` when the other end is closed, or sends what is no message. Cancel-safe.
    pub async fn recv(&mut self) -> Option<M> {
        let message = self.messages.recv().await?;
        self.arrive(message)
    }

    /// The next message, if it has arrived already.
    pub fn try_recv(&mut self) -> Option<M> {
        let message = self.messages.try_recv().ok()?;
        self.arrive(message)
    }

    fn arrive(&mut self, message: M) -> Option<M> {
        let Some(rows) = self.rows else { return Some(message) };
        let mut whole = None;
        for part in message.cut(rows) {
            let decoded = codec::encode(&part).and_then(|bytes| codec::decode(&bytes));
            let part = decoded.inspect_err(|error| error!(%error, "the link ends")).ok()?;
            whole = self.joiner.take(part).inspect_err(|error| error!(%error, "the link ends")).ok()?;
        }
        whole
    }
}

//! The control connection of an agent: messages as JSON, each behind its length (u32, big endian).
//!
//! Reading is cancel-safe: what has arrived of a message stays in the buffer.

use crate::tls::{Diagnosis, diagnosis::describe};
use bytes::{Buf, BytesMut};
use serde::{Deserialize, Serialize, de::DeserializeOwned};
use std::{
    fmt,
    io::{self, ErrorKind},
    time::Duration,
};
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};
use wicketgate_model::{
    AgentId, EnrolRefusal, EnrollmentId, EnvironmentId, FrontdoorId, Generation, ShareId, SignedAssignment,
    ZId,
};

/// The longest message. Assignments are sent in batches well below it.
pub const MAX_MESSAGE: usize = 1024 * 1024;
/// The longest message of an agent's: a public key or a sentence. A gateway holds no more than this of whoever
/// has connected.
pub const MAX_FROM_AGENT: usize = 16 * 1024;
/// Assignments in one message: some 600 bytes each.
pub const ASSIGNMENTS_PER_MESSAGE: usize = 256;
/// How often a gateway asks whether the agent is still there.
pub const PING_EVERY: Duration = Duration::from_secs(5);
/// A control connection on which nothing came for so long is dead: three pings.
pub const SILENCE: Duration = Duration::from_secs(15);
/// A message that can't be written for so long means that the other end does not read.
const WRITE_TIMEOUT: Duration = Duration::from_secs(10);

/// From an agent to a gateway.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "type", rename_all = "camelCase")]
pub enum FromAgent {
    /// The first message.
    Hello {
        version: String,
        name: String,
    },
    /// The agent serves this generation of the share from now on.
    Ack {
        share: ShareId,
        generation: Generation,
    },
    /// The agent does not serve the share.
    Refused {
        share: ShareId,
        generation: Generation,
        reason: String,
    },
    /// What the agent knows of the share's target has changed.
    Health {
        share: ShareId,
        health: TargetHealth,
    },
    /// Asks for a fresh certificate for the identity of this connection.
    Renew {
        #[serde(with = "base64_text")]
        public_key: Vec<u8>,
    },
    /// The agent is about to end: it takes no new streams, and lets those that it has end.
    Draining,
    Pong,
}

/// What an agent knows of a target.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "state", content = "cause", rename_all = "camelCase")]
pub enum TargetHealth {
    Ok,
    Unreachable(String),
}

/// From a gateway to an agent.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "type", rename_all = "camelCase")]
pub enum ToAgent {
    /// The answer to `Hello`.
    Welcome,
    Assign {
        assignments: Vec<SignedAssignment>,
    },
    Withdraw {
        shares: Vec<ShareId>,
    },
    /// How many carriers should be parked.
    Carriers {
        want: u16,
    },
    /// DER.
    Renewed {
        #[serde(with = "base64_text")]
        certificate: Vec<u8>,
    },
    /// `None`: not now.
    RenewRefused {
        refusal: Option<EnrolRefusal>,
    },
    Ping,
    /// The gateway is about to end: the connection ends right after this, and running streams go on.
    Draining,
}

/// The one message of an agent that enrols.
#[derive(Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct EnrolAsk {
    pub enrollment: EnrollmentId,
    #[serde(with = "base64_text")]
    pub secret: Vec<u8>,
    #[serde(with = "base64_text")]
    pub public_key: Vec<u8>,
    pub name: String,
}

impl fmt::Debug for EnrolAsk {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "EnrolAsk({}, …)", self.enrollment)
    }
}

/// The one answer to it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "type", rename_all = "camelCase")]
pub enum EnrolAnswer {
    #[serde(rename_all = "camelCase")]
    Enrolled {
        agent: AgentId,
        environment: EnvironmentId,
        frontdoor: FrontdoorId,
        z_id: ZId,
        #[serde(with = "base64_text")]
        certificate: Vec<u8>,
        #[serde(with = "base64_text")]
        ca_certificate: Vec<u8>,
    },
    Refused {
        refusal: EnrolRefusal,
    },
    /// The gateway can't reach the server now.
    Unavailable,
}

#[derive(Debug, thiserror::Error)]
pub enum ControlError {
    #[error("the connection broke: {}", describe(.0))]
    Io(io::Error),
    #[error("the other end closed the connection")]
    Closed,
    #[error("the other end does not read, or does not say what it should")]
    Stuck,
    #[error("the other end has been silent for too long")]
    Silent,
    #[error("a message of {0} bytes is too long")]
    Length(usize),
    #[error("a message can't be read")]
    Message(#[source] serde_json::Error),
}

// Not `#[from]`: that would make it the source as well, which says the same again in the TLS library's words.
impl From<io::Error> for ControlError {
    fn from(error: io::Error) -> Self {
        Self::Io(error)
    }
}

impl ControlError {
    /// `None`: TLS has nothing to do with it.
    pub fn diagnosis(&self) -> Option<Diagnosis> {
        match self {
            Self::Io(error) => Diagnosis::of(error),
            _ => None,
        }
    }

    /// Whether the other end, or something on the way, put an end to the connection and gave no reason.
    pub fn is_hang_up(&self) -> bool {
        match self {
            Self::Closed => true,
            Self::Io(error) => matches!(
                error.kind(),
                ErrorKind::UnexpectedEof | ErrorKind::ConnectionReset | ErrorKind::BrokenPipe
            ),
            _ => false,
        }
    }
}

/// A connection that carries messages.
#[derive(Debug)]
pub struct Control<S> {
    stream: S,
    input: BytesMut,
    /// The longest message that is taken.
    most: usize,
}

impl<S: AsyncRead + AsyncWrite + Unpin> Control<S> {
    pub fn new(stream: S) -> Self {
        Self { stream, input: BytesMut::new(), most: MAX_MESSAGE }
    }

    /// The gateway's end, which takes messages up to [`MAX_FROM_AGENT`].
    pub fn of_agent(stream: S) -> Self {
        Self { most: MAX_FROM_AGENT, ..Self::new(stream) }
    }

    /// The next message. Cancel-safe. The caller bounds it.
    pub async fn receive<T: DeserializeOwned>(&mut self) -> Result<T, ControlError> {
        loop {
            if let Some((length, rest)) = self.input.split_first_chunk::<4>() {
                let length = u32::from_be_bytes(*length) as usize;
                if length > self.most {
                    return Err(ControlError::Length(length));
                }
                if rest.len() >= length {
                    let message = serde_json::from_slice(&rest[..length]).map_err(ControlError::Message);
                    self.input.advance(4 + length);
                    return message;
                }
                self.input.reserve(4 + length - self.input.len());
            }
            if self.stream.read_buf(&mut self.input).await? == 0 {
                return Err(ControlError::Closed);
            }
        }
    }

    /// Not cancel-safe: a connection on which it was cancelled is of no more use.
    pub async fn send<T: Serialize>(&mut self, message: &T) -> Result<(), ControlError> {
        let mut bytes = vec![0; 4];
        serde_json::to_writer(&mut bytes, message).map_err(ControlError::Message)?;
        let length = bytes.len() - 4;
        match u32::try_from(length) {
            Ok(n) if length <= MAX_MESSAGE => bytes[..4].copy_from_slice(&n.to_be_bytes()),
            _ => return Err(ControlError::Length(length)),
        }
        let write = async {
            self.stream.write_all(&bytes).await?;
            self.stream.flush().await
        };
        tokio::time::timeout(WRITE_TIMEOUT, write).await.map_err(|_| ControlError::Stuck)??;
        Ok(())
    }

    /// Says that nothing follows.
    pub async fn close(mut self) {
        let _ = tokio::time::timeout(WRITE_TIMEOUT, self.stream.shutdown()).await;
    }
}

/// Bytes in JSON, as base64.
pub mod base64_text {
    use base64::{Engine, engine::general_purpose::STANDARD};
    use serde::{Deserialize, Deserializer, Serializer, de::Error};

    pub fn serialize<S: Serializer>(bytes: &[u8], s: S) -> Result<S::Ok, S::Error> {
        s.serialize_str(&STANDARD.encode(bytes))
    }

    pub fn deserialize<'de, D: Deserializer<'de>>(d: D) -> Result<Vec<u8>, D::Error> {
        STANDARD.decode(String::deserialize(d)?).map_err(D::Error::custom)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn run<T>(test: impl Future<Output = T>) -> T {
        tokio::runtime::Builder::new_current_thread().enable_time().build().unwrap().block_on(test)
    }

    proptest! {
        #[test]
        fn messages_arrive_however_they_are_cut(texts in proptest::collection::vec(".{0,40}", 1..6), cut in 1usize..40) {
            run(async {
                let (a, b) = tokio::io::duplex(cut);
                let (mut a, mut b) = (Control::new(a), Control::new(b));
                let hello = |name: &String| FromAgent::Hello { version: "1".into(), name: name.clone() };
                let send = async {
                    for text in &texts { a.send(&hello(text)).await.unwrap(); }
                };
                let receive = async {
                    for text in &texts { assert_eq!(b.receive::<FromAgent>().await.unwrap(), hello(text)); }
                };
                tokio::join!(send, receive);
            });
        }

        #[test]
        fn no_bytes_panic(bytes: Vec<u8>) {
            run(async {
                let (mut a, b) = tokio::io::duplex(1 << 16);
                a.write_all(&bytes).await.unwrap();
                drop(a);
                assert!(Control::new(b).receive::<ToAgent>().await.is_err());
            });
        }
    }

    #[test]
    fn a_length_beyond_the_limit_is_refused_before_it_is_read() {
        run(async {
            let (mut a, b) = tokio::io::duplex(64);
            a.write_all(&(MAX_MESSAGE as u32 + 1).to_be_bytes()).await.unwrap();
            let got = Control::new(b).receive::<ToAgent>().await;
            assert!(matches!(got, Err(ControlError::Length(_))), "{got:?}");
            // Nobody can make a gateway hold much.
            let (mut a, b) = tokio::io::duplex(64);
            a.write_all(&(MAX_FROM_AGENT as u32 + 1).to_be_bytes()).await.unwrap();
            let got = Control::of_agent(b).receive::<FromAgent>().await;
            assert!(matches!(got, Err(ControlError::Length(_))), "{got:?}");
        });
    }
}

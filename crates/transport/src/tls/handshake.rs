//! The TLS handshake of a carrier, driven through the library's unbuffered API, which hands over the secrets afterwards.

use super::{
    error::broken,
    incoming::Incoming,
    record::{RecordKey, RecordOpener, RecordSealer, TrafficKeys},
    stream::RecordStream,
};
use rustls::{
    Error,
    client::{ClientConnectionData, UnbufferedClientConnection},
    kernel::KernelConnection,
    pki_types::CertificateDer,
    server::{ServerConnectionData, UnbufferedServerConnection},
    unbuffered::{ConnectionState, EncodeError, EncodeTlsData, InsufficientSizeError, UnbufferedStatus},
};
use std::{
    io::{self, ErrorKind},
    ops::Deref,
};
use tokio::{
    io::{AsyncReadExt as _, AsyncWriteExt as _},
    net::TcpStream,
};
use wicketgate_system::PatientThreads;

/// The usual input of a handshake, and its limit: a chain of a few certificates.
const FIRST: usize = 4 * 1024;
const MOST: usize = 64 * 1024;

/// The result of a handshake.
pub(super) struct Done {
    pub(super) stream: RecordStream,
    pub(super) alpn: Option<Vec<u8>>,
    /// The peer's leaf certificate, DER.
    pub(super) leaf: Option<CertificateDer<'static>>,
}

/// Either end.
pub(super) trait End: Deref<Target: Deref<Target = rustls::CommonState>> + Sized {
    type Data: Send + 'static;
    fn process<'c, 'i>(&'c mut self, input: &'i mut [u8]) -> UnbufferedStatus<'c, 'i, Self::Data>;
    fn secrets(self) -> Result<(rustls::ExtractedSecrets, KernelConnection<Self::Data>), Error>;
}

macro_rules! end {
    ($connection:ty, $data:ty) => {
        impl End for $connection {
            type Data = $data;

            fn process<'c, 'i>(&'c mut self, input: &'i mut [u8]) -> UnbufferedStatus<'c, 'i, $data> {
                self.process_tls_records(input)
            }

            fn secrets(self) -> Result<(rustls::ExtractedSecrets, KernelConnection<$data>), Error> {
                self.dangerous_into_kernel_connection()
            }
        }
    };
}

end!(UnbufferedClientConnection, ClientConnectionData);
end!(UnbufferedServerConnection, ServerConnectionData);

/// What a handshake needs next.
enum Need {
    Read,
    Write,
    /// Nothing: it is complete.
    Done,
    /// What there is to write is the alert.
    Fail(Error),
}

/// A handshake with the bytes that were received and are to be sent.
struct Handshaking<E> {
    end: E,
    input: Vec<u8>,
    filled: usize,
    output: Vec<u8>,
}

fn encode<Data>(data: &mut EncodeTlsData<'_, Data>, output: &mut Vec<u8>) -> io::Result<()> {
    let at = output.len();
    let short = data.encode(&mut []);
    if let Err(EncodeError::InsufficientSize(InsufficientSizeError { required_size })) = short {
        output.resize(at + required_size, 0);
        data.encode(&mut output[at..]).map_err(|_| broken(Error::EncryptError))?;
    }
    Ok(())
}

impl<E: End> Handshaking<E> {
    /// Computes until it needs something: for up to a millisecond.
    fn advance(&mut self) -> io::Result<Need> {
        loop {
            let UnbufferedStatus { discard, state } = self.end.process(&mut self.input[..self.filled]);
            let need = match state {
                Ok(ConnectionState::EncodeTlsData(mut data)) => {
                    encode(&mut data, &mut self.output)?;
                    None
                }
                Ok(ConnectionState::TransmitTlsData(data)) => {
                    data.done();
                    Some(Need::Write)
                }
                Ok(ConnectionState::BlockedHandshake) => Some(Need::Read),
                Ok(ConnectionState::WriteTraffic(_)) => Some(Need::Done),
                // Neither end of a carrier sends before the gateway's first frame.
                Ok(ConnectionState::ReadTraffic(_)) => {
                    return Err(broken(Error::General("data in the handshake".to_owned())));
                }
                Ok(_) => return Err(ErrorKind::UnexpectedEof.into()),
                Err(error) => Some(Need::Fail(error)),
            };
            self.input.copy_within(discard..self.filled, 0);
            self.filled -= discard;
            match need {
                None => {}
                Some(Need::Done) if self.end.is_handshaking() => return Ok(Need::Read),
                Some(Need::Fail(error)) => {
                    // Once more, for the alert.
                    if let Ok(ConnectionState::EncodeTlsData(mut data)) =
                        self.end.process(&mut self.input[..self.filled]).state
                    {
                        encode(&mut data, &mut self.output)?;
                    }
                    return Ok(Need::Fail(error));
                }
                Some(need) => return Ok(need),
            }
        }
    }

    async fn read(&mut self, tcp: &mut TcpStream) -> io::Result<()> {
        if self.filled == self.input.len() {
            if self.filled >= MOST {
                return Err(broken(rustls::InvalidMessage::MessageTooLarge));
            }
            self.input.resize((self.filled * 2).max(FIRST), 0);
        }
        match tcp.read(&mut self.input[self.filled..]).await? {
            0 => Err(ErrorKind::UnexpectedEof.into()),
            n => {
                self.filled += n;
                Ok(())
            }
        }
    }
}

/// Runs the handshake; `input` was received before. It computes on `threads`, or without any where it is polled. After a failure, the
/// peer gets an alert. The caller bounds the wait.
pub(super) async fn handshake<E: End + Send + 'static>(
    end: E,
    input: Vec<u8>,
    mut tcp: TcpStream,
    threads: Option<&PatientThreads>,
) -> io::Result<Done> {
    // Boxed: it is large, and moves to a thread and back.
    let mut handshaking = Box::new(Handshaking { end, filled: input.len(), input, output: Vec::new() });
    loop {
        let need = match threads {
            None => handshaking.advance(),
            Some(threads) => {
                let advance = move || {
                    let need = handshaking.advance();
                    (handshaking, need)
                };
                let need;
                (handshaking, need) =
                    threads.run(advance).await.ok_or_else(|| io::Error::other("the handshake panicked"))?;
                need
            }
        };
        match need? {
            Need::Done => break,
            Need::Read => handshaking.read(&mut tcp).await?,
            Need::Write => {
                tcp.write_all(&handshaking.output).await?;
                handshaking.output.clear();
            }
            Need::Fail(error) => {
                // Best effort.
                let _ = tcp.try_write(&handshaking.output);
                return Err(broken(error));
            }
        }
    }
    let Handshaking { end, input, filled, .. } = *handshaking;
    let alpn = end.alpn_protocol().map(<[u8]>::to_vec);
    let leaf = end.peer_certificates().and_then(<[_]>::first).cloned();
    let (secrets, mut kernel) = end.secrets().map_err(broken)?;
    let keys = TrafficKeys::new(Box::new(move |transmit| {
        if transmit { kernel.update_tx_secret() } else { kernel.update_rx_secret() }
    }));
    let seal = RecordSealer::new(RecordKey::new(secrets.tx).map_err(broken)?);
    let open = RecordOpener::new(RecordKey::new(secrets.rx).map_err(broken)?);
    let input = Incoming::new(open, &input[..filled])?;
    Ok(Done { stream: RecordStream { tcp, keys, seal, input }, alpn, leaf })
}

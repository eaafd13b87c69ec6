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

/// The next step.
enum Step {
    Again,
    Read,
    Write,
    Done,
    Fail(Error),
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

/// Runs the handshake; `input` was received before. After a failure, the peer gets an alert. The caller bounds the wait.
pub(super) async fn handshake<E: End>(
    mut end: E,
    mut input: Vec<u8>,
    mut tcp: TcpStream,
) -> io::Result<Done> {
    let (mut filled, mut output) = (input.len(), Vec::new());
    loop {
        let UnbufferedStatus { discard, state } = end.process(&mut input[..filled]);
        let step = match state {
            Ok(ConnectionState::EncodeTlsData(mut data)) => {
                encode(&mut data, &mut output)?;
                Step::Again
            }
            Ok(ConnectionState::TransmitTlsData(data)) => {
                data.done();
                Step::Write
            }
            Ok(ConnectionState::BlockedHandshake) => Step::Read,
            Ok(ConnectionState::WriteTraffic(_)) => Step::Done,
            // Neither end of a carrier sends before the gateway's first frame.
            Ok(ConnectionState::ReadTraffic(_)) => {
                return Err(broken(Error::General("data in the handshake".to_owned())));
            }
            Ok(_) => return Err(ErrorKind::UnexpectedEof.into()),
            Err(error) => Step::Fail(error),
        };
        input.copy_within(discard..filled, 0);
        filled -= discard;
        match step {
            Step::Again => {}
            Step::Fail(error) => {
                // Once more, for the alert. Sending it is best effort.
                if let Ok(ConnectionState::EncodeTlsData(mut data)) = end.process(&mut input[..filled]).state
                {
                    encode(&mut data, &mut output)?;
                }
                let _ = tcp.try_write(&output);
                return Err(broken(error));
            }
            Step::Write => {
                tcp.write_all(&output).await?;
                output.clear();
            }
            Step::Done if !end.is_handshaking() => break,
            Step::Read | Step::Done => {
                if filled == input.len() {
                    if filled >= MOST {
                        return Err(broken(rustls::InvalidMessage::MessageTooLarge));
                    }
                    input.resize((filled * 2).max(FIRST), 0);
                }
                match tcp.read(&mut input[filled..]).await? {
                    0 => return Err(ErrorKind::UnexpectedEof.into()),
                    n => filled += n,
                }
            }
        }
    }
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

//! A TLS handshake over TCP, driven through the library's unbuffered API, which hands over the secrets afterwards.

use super::{
    broken,
    record::{Kernel, RecordKey, RecordOpener, RecordSealer, TrafficKeys},
};
use rustls::{
    Error,
    client::{ClientConnectionData, UnbufferedClientConnection},
    pki_types::CertificateDer,
    server::{ServerConnectionData, UnbufferedServerConnection},
    unbuffered::{ConnectionState, EncodeError, EncodeTlsData, InsufficientSizeError, UnbufferedStatus},
};
use std::io::{self, ErrorKind};
use tokio::{
    io::{AsyncReadExt as _, AsyncWriteExt as _},
    net::TcpStream,
};

/// The usual input of a handshake, and its limit: a chain of a few certificates.
const FIRST: usize = 4 * 1024;
const MOST: usize = 64 * 1024;

/// The result of a handshake.
pub(super) struct Done {
    pub(super) seal: RecordSealer,
    pub(super) open: RecordOpener,
    pub(super) keys: TrafficKeys,
    /// Input that followed the handshake: plaintext, and encrypted records.
    pub(super) plain: Vec<u8>,
    pub(super) sealed: Vec<u8>,
    pub(super) alpn: Option<Vec<u8>>,
    /// The peer's leaf certificate, DER.
    pub(super) leaf: Option<CertificateDer<'static>>,
}

/// Either end.
pub(super) trait End: Sized {
    type Data;
    fn process<'c, 'i>(&'c mut self, input: &'i mut [u8]) -> UnbufferedStatus<'c, 'i, Self::Data>;
    fn common(&self) -> &rustls::CommonState;
    fn secrets(self) -> Result<(rustls::ExtractedSecrets, Kernel), Error>;
}

impl End for UnbufferedClientConnection {
    type Data = ClientConnectionData;

    fn process<'c, 'i>(&'c mut self, input: &'i mut [u8]) -> UnbufferedStatus<'c, 'i, Self::Data> {
        self.process_tls_records(input)
    }

    fn common(&self) -> &rustls::CommonState {
        self
    }

    fn secrets(self) -> Result<(rustls::ExtractedSecrets, Kernel), Error> {
        self.dangerous_into_kernel_connection().map(|(secrets, kernel)| (secrets, Kernel::Client(kernel)))
    }
}

impl End for UnbufferedServerConnection {
    type Data = ServerConnectionData;

    fn process<'c, 'i>(&'c mut self, input: &'i mut [u8]) -> UnbufferedStatus<'c, 'i, Self::Data> {
        self.process_tls_records(input)
    }

    fn common(&self) -> &rustls::CommonState {
        self
    }

    fn secrets(self) -> Result<(rustls::ExtractedSecrets, Kernel), Error> {
        self.dangerous_into_kernel_connection().map(|(secrets, kernel)| (secrets, Kernel::Server(kernel)))
    }
}

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

/// Runs the handshake. After a failure, the peer gets an alert. The caller bounds the wait.
pub(super) async fn handshake<E: End>(mut end: E, tcp: &mut TcpStream) -> io::Result<Done> {
    let (mut input, mut filled) = (vec![0; FIRST], 0);
    let (mut output, mut plain) = (Vec::new(), Vec::new());
    loop {
        let UnbufferedStatus { mut discard, state } = end.process(&mut input[..filled]);
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
            Ok(ConnectionState::ReadTraffic(mut data)) => {
                while let Some(record) = data.next_record() {
                    let record = record.map_err(broken)?;
                    discard += record.discard;
                    plain.extend_from_slice(record.payload);
                }
                Step::Again
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
            Step::Done if !end.common().is_handshaking() => break,
            Step::Read | Step::Done => {
                if filled == input.len() {
                    if filled >= MOST {
                        return Err(broken(rustls::InvalidMessage::MessageTooLarge.into()));
                    }
                    input.resize(filled * 2, 0);
                }
                match tcp.read(&mut input[filled..]).await? {
                    0 => return Err(ErrorKind::UnexpectedEof.into()),
                    n => filled += n,
                }
            }
        }
    }
    let alpn = end.common().alpn_protocol().map(<[u8]>::to_vec);
    let leaf = end.common().peer_certificates().and_then(<[_]>::first).cloned();
    let (secrets, kernel) = end.secrets().map_err(broken)?;
    input.truncate(filled);
    let key =
        |(sequence, secrets): (u64, rustls::ConnectionTrafficSecrets)| RecordKey::new(sequence, &secrets);
    Ok(Done {
        seal: RecordSealer::new(key(secrets.tx).map_err(broken)?),
        open: RecordOpener::new(key(secrets.rx).map_err(broken)?),
        keys: TrafficKeys::new(kernel),
        plain,
        sealed: input,
        alpn,
        leaf: leaf.map(CertificateDer::into_owned),
    })
}

//! Fixtures for the tests of this crate, and the record layer against the TLS library's own.

mod accept;
mod authority;
mod link;

use super::{
    handshake::handshake,
    provider::provider,
    record::{RecordKey, RecordOpener},
    *,
};
use crate::carrier::Carrier;
use rustls::{
    ClientConfig, ConnectionTrafficSecrets, Error, RootCertStore, ServerConfig,
    client::UnbufferedClientConnection,
    pki_types::{PrivateKeyDer, ServerName},
    server::UnbufferedServerConnection,
};
use std::{future::poll_fn, io, sync::Arc};
use tokio::{
    io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt},
    net::{TcpListener, TcpStream},
};

pub(crate) async fn connected() -> (TcpStream, TcpStream) {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    let (a, b) = tokio::join!(TcpStream::connect(address), listener.accept());
    (a.unwrap(), b.unwrap().0)
}

/// The two ends of a carrier, without a handshake.
pub(crate) async fn pair() -> (Carrier, Carrier) {
    pair_over(connected().await)
}

pub(crate) fn pair_over((a, b): (TcpStream, TcpStream)) -> (Carrier, Carrier) {
    let key = |n: u8| {
        let (key, iv) = ([n; 32].into(), [n; 12].into());
        RecordKey::new((0, ConnectionTrafficSecrets::Aes256Gcm { key, iv })).unwrap()
    };
    let end = |tcp, seal, open| {
        let keys = TrafficKeys::new(Box::new(|_| Err(Error::HandshakeNotComplete)));
        let input = Incoming::new(RecordOpener::new(key(open)), &[]).unwrap();
        Carrier::new(RecordStream { tcp, keys, seal: RecordSealer::new(key(seal)), input })
    };
    (end(a, 1, 2), end(b, 2, 1))
}

/// Configurations of both ends: a self-signed certificate, and a client that trusts it.
fn configs() -> (ServerConfig, ClientConfig) {
    let rcgen::CertifiedKey { cert, signing_key } =
        rcgen::generate_simple_self_signed(vec!["gateway.invalid".to_owned()]).unwrap();
    let key = PrivateKeyDer::try_from(signing_key.serialize_der()).unwrap();
    let mut roots = RootCertStore::empty();
    roots.add(cert.der().clone()).unwrap();
    let mut server = ServerConfig::builder_with_provider(provider())
        .with_protocol_versions(&[&rustls::version::TLS13])
        .unwrap()
        .with_no_client_auth()
        .with_single_cert(vec![cert.der().clone()], key)
        .unwrap();
    server.enable_secret_extraction = true;
    let mut client = ClientConfig::builder_with_provider(provider())
        .with_protocol_versions(&[&rustls::version::TLS13])
        .unwrap()
        .with_root_certificates(roots)
        .with_no_client_auth();
    client.enable_secret_extraction = true;
    (server, client)
}

fn name() -> ServerName<'static> {
    ServerName::try_from("gateway.invalid").unwrap()
}

/// A ClientHello with these protocol names.
fn hello(alpn: &[&[u8]]) -> Vec<u8> {
    let (_, mut client) = configs();
    client.alpn_protocols = alpn.iter().map(|name| name.to_vec()).collect();
    let mut hello = Vec::new();
    rustls::ClientConnection::new(Arc::new(client), name()).unwrap().write_tls(&mut hello).unwrap();
    hello
}

impl RecordStream {
    async fn send(&mut self, bytes: &[u8]) {
        for part in bytes.chunks(MAX_PLAIN) {
            if let Some(update) = self.seal.key_update(&self.keys).unwrap() {
                self.tcp.write_all(&update).await.unwrap();
            }
            let mut record = vec![0; part.len() + MARGIN];
            record[RECORD_HEADER..RECORD_HEADER + part.len()].copy_from_slice(part);
            self.seal.data(&mut record, part.len()).unwrap();
            self.tcp.write_all(&record).await.unwrap();
        }
    }

    /// The plaintext of a record, or `None` after the peer has ended the connection in order.
    async fn receive(&mut self) -> io::Result<Option<Vec<u8>>> {
        loop {
            match self.input.next(&self.keys)? {
                Next::Plain(plain) => return Ok(Some(self.input.bytes(plain).to_vec())),
                Next::Closed => return Ok(None),
                Next::Wanting => {
                    let Self { tcp, input, .. } = self;
                    if poll_fn(|cx| input.poll_fill(tcp, usize::MAX, cx)).await? == 0 {
                        return Err(io::ErrorKind::UnexpectedEof.into());
                    }
                }
            }
        }
    }
}

/// A megabyte, in pieces of all lengths.
fn pieces() -> Vec<Vec<u8>> {
    let mut bytes: Vec<u8> = (0..250_000u32).flat_map(u32::to_be_bytes).collect();
    let (mut pieces, mut length) = (Vec::new(), 1);
    while !bytes.is_empty() {
        let rest = bytes.split_off(length.min(bytes.len()));
        pieces.push(std::mem::replace(&mut bytes, rest));
        length = length * 3 / 2 + 1;
    }
    pieces
}

/// Sends pieces, and receives them back from the other end's echo.
async fn exchange<S: AsyncRead + AsyncWrite + Unpin>(stream: &mut S) {
    for piece in pieces() {
        stream.write_all(&piece).await.unwrap();
        stream.flush().await.unwrap();
        let mut back = vec![0; piece.len()];
        stream.read_exact(&mut back).await.unwrap();
        assert_eq!(back, piece);
    }
}

async fn echo<S: AsyncRead + AsyncWrite + Unpin>(stream: &mut S) -> io::Result<()> {
    let mut buffer = vec![0; 20_000];
    loop {
        match stream.read(&mut buffer).await? {
            0 => return Ok(()),
            n => {
                stream.write_all(&buffer[..n]).await?;
                stream.flush().await?;
            }
        }
    }
}

#[tokio::test]
async fn the_record_layer_interoperates_with_the_librarys_server_its_tickets_and_key_updates() {
    let (server, client) = configs();
    let (a, b) = connected().await;
    // The library's server sends tickets.
    assert!(server.send_tls13_tickets > 0);
    let acceptor = tokio_rustls::TlsAcceptor::from(Arc::new(server));
    let library = tokio::spawn(async move {
        let mut stream = acceptor.accept(b).await.unwrap();
        stream.get_mut().1.refresh_traffic_keys().unwrap();
        echo(&mut stream).await
    });
    let end = UnbufferedClientConnection::new(Arc::new(client), name()).unwrap();
    let mut ours = handshake(end, Vec::new(), a, None).await.unwrap().stream;
    for piece in pieces() {
        ours.send(&piece).await;
        let mut back = Vec::new();
        while back.len() < piece.len() {
            back.extend(ours.receive().await.unwrap().unwrap());
        }
        assert_eq!(back, piece);
    }
    ours.close();
    library.await.unwrap().unwrap();
}

#[tokio::test]
async fn the_record_layer_interoperates_with_the_librarys_client_and_its_end() {
    let (server, client) = configs();
    let (a, b) = connected().await;
    // As in a gateway.
    let threads = wicketgate_system::PatientThreads::start("handshakes").unwrap();
    let ours = tokio::spawn(async move {
        let end = UnbufferedServerConnection::new(Arc::new(server)).unwrap();
        let mut stream = handshake(end, Vec::new(), b, Some(&threads)).await.unwrap().stream;
        // As on a carrier, the gateway sends first.
        stream.send(b"open").await;
        while let Some(bytes) = stream.receive().await.unwrap() {
            stream.send(&bytes).await;
        }
        assert_eq!(stream.receive().await.unwrap(), None, "the end stays the end");
        stream.close();
    });
    let connector = tokio_rustls::TlsConnector::from(Arc::new(client));
    let mut library = connector.connect(name(), a).await.unwrap();
    library.read_exact(&mut [0; 4]).await.unwrap();
    exchange(&mut library).await;
    library.get_mut().1.refresh_traffic_keys().unwrap();
    exchange(&mut library).await;
    library.shutdown().await.unwrap();
    ours.await.unwrap();
    assert_eq!(library.read(&mut [0; 8]).await.unwrap(), 0);
}

#[tokio::test]
async fn a_changed_or_repeated_record_is_an_error() {
    for touch in [|record: &mut Vec<u8>| record[7] ^= 1, |record: &mut Vec<u8>| record.extend(record.clone())]
    {
        let (mut a, mut b) = pair().await;
        let mut record = vec![0; MARGIN + 3];
        record[RECORD_HEADER..RECORD_HEADER + 3].copy_from_slice(b"abc");
        a.stream.seal.data(&mut record, 3).unwrap();
        touch(&mut record);
        a.stream.tcp.write_all(&record).await.unwrap();
        let error = loop {
            match b.stream.receive().await {
                Ok(plain) => assert_eq!(plain.as_deref(), Some(&b"abc"[..])),
                Err(error) => break error,
            }
        };
        assert_eq!(error.kind(), io::ErrorKind::InvalidData);
    }
}

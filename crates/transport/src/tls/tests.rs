//! What the tests of this crate stand on, and our records held against the TLS library's own.

use super::*;
use crate::carrier::Carrier;
use handshake::Done;
use record::{Kernel, RecordKey, RecordOpener};
use rustls::ConnectionTrafficSecrets;
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::TcpListener,
};

pub(crate) async fn connected() -> (TcpStream, TcpStream) {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    let (a, b) = tokio::join!(TcpStream::connect(address), listener.accept());
    (a.unwrap(), b.unwrap().0)
}

/// The two ends of a carrier, without a handshake.
pub(crate) async fn pair() -> (Carrier, Carrier) {
    let (a, b) = connected().await;
    let key = |n: u8| {
        let (key, iv) = ([n; 32].into(), [n; 12].into());
        RecordKey::new(0, &ConnectionTrafficSecrets::Aes256Gcm { key, iv }).unwrap()
    };
    let end = |tcp, seal, open| {
        let (seal, open) = (RecordSealer::new(key(seal)), RecordOpener::new(key(open)));
        let keys = TrafficKeys::new(Kernel::None);
        let done = Done { seal, open, keys, plain: Vec::new(), sealed: Vec::new(), alpn: None, leaf: None };
        Carrier::new(Box::new(TlsStream::new(tcp, done).unwrap()))
    };
    (end(a, 1, 2), end(b, 2, 1))
}

/// Configurations of both ends: a certificate that signs itself, and a client that trusts it.
fn configs() -> (ServerConfig, ClientConfig) {
    let rcgen::CertifiedKey { cert, signing_key } =
        rcgen::generate_simple_self_signed(vec!["gateway.invalid".to_owned()]).unwrap();
    let key = rustls::pki_types::PrivateKeyDer::try_from(signing_key.serialize_der()).unwrap();
    let mut roots = RootCertStore::empty();
    roots.add(cert.der().clone()).unwrap();
    let server = ServerConfig::builder_with_provider(agent_provider())
        .with_protocol_versions(&[&rustls::version::TLS13])
        .unwrap()
        .with_no_client_auth()
        .with_single_cert(vec![cert.der().clone()], key)
        .unwrap();
    let mut client = client_builder().unwrap().with_root_certificates(roots).with_no_client_auth();
    prepare(&mut client);
    (server, client)
}

/// Sends and takes back a megabyte, in pieces of all lengths, with what the other end echoes.
async fn exchange<S: tokio::io::AsyncRead + tokio::io::AsyncWrite + Unpin>(stream: &mut S) {
    let bytes: Vec<u8> = (0..250_000u32).flat_map(u32::to_be_bytes).collect();
    let (mut at, mut length) = (0, 1);
    while at < bytes.len() {
        let piece = &bytes[at..(at + length).min(bytes.len())];
        stream.write_all(piece).await.unwrap();
        stream.flush().await.unwrap();
        let mut back = vec![0; piece.len()];
        stream.read_exact(&mut back).await.unwrap();
        assert_eq!(back, piece);
        (at, length) = (at + piece.len(), length * 3 / 2 + 1);
    }
}

async fn echo<S: tokio::io::AsyncRead + tokio::io::AsyncWrite + Unpin>(
    stream: &mut S,
) -> std::io::Result<()> {
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
async fn the_librarys_server_understands_us_and_we_its_tickets_and_key_updates() {
    let (server, client) = configs();
    let (a, b) = connected().await;
    // It sends tickets.
    assert!(server.send_tls13_tickets > 0);
    let acceptor = tokio_rustls::TlsAcceptor::from(Arc::new(server));
    let library = tokio::spawn(async move {
        let mut stream = acceptor.accept(b).await.unwrap();
        stream.get_mut().1.refresh_traffic_keys().unwrap();
        echo(&mut stream).await
    });
    let name = ServerName::try_from("gateway.invalid").unwrap();
    let mut a = a;
    let end = UnbufferedClientConnection::new(Arc::new(client), name).unwrap();
    let done = handshake(end, &mut a).await.unwrap();
    let mut ours = TlsStream::new(a, done).unwrap();
    exchange(&mut ours).await;
    ours.shutdown().await.unwrap();
    library.await.unwrap().unwrap();
    assert_eq!(ours.read(&mut [0; 8]).await.unwrap_or_default(), 0);
}

#[tokio::test]
async fn the_librarys_client_understands_us_and_we_its_end() {
    let (mut server, client) = configs();
    server.enable_secret_extraction = true;
    let (a, mut b) = connected().await;
    let ours = tokio::spawn(async move {
        let end = UnbufferedServerConnection::new(Arc::new(server)).unwrap();
        let done = handshake(end, &mut b).await.unwrap();
        let mut stream = TlsStream::new(b, done).unwrap();
        let end = echo(&mut stream).await;
        assert_eq!(stream.read(&mut [0; 8]).await.unwrap(), 0, "an end is an end, however often one asks");
        stream.shutdown().await.unwrap();
        end
    });
    let connector = tokio_rustls::TlsConnector::from(Arc::new(client));
    let name = ServerName::try_from("gateway.invalid").unwrap();
    let mut library = connector.connect(name, a).await.unwrap();
    exchange(&mut library).await;
    library.get_mut().1.refresh_traffic_keys().unwrap();
    exchange(&mut library).await;
    library.shutdown().await.unwrap();
    ours.await.unwrap().unwrap();
    assert_eq!(library.read(&mut [0; 8]).await.unwrap(), 0);
}

#[tokio::test]
async fn a_record_that_was_touched_or_comes_twice_is_an_error() {
    for touch in [|record: &mut Vec<u8>| record[7] ^= 1, |record: &mut Vec<u8>| record.extend(record.clone())]
    {
        let (mut a, mut b) = pair().await;
        let mut record = vec![0; MARGIN + 3];
        record[RECORD_HEADER..RECORD_HEADER + 3].copy_from_slice(b"abc");
        a.stream.seal.data(&mut record, 3).unwrap();
        touch(&mut record);
        a.stream.tcp.write_all(&record).await.unwrap();
        let mut got = Vec::new();
        let error = b.stream.read_to_end(&mut got).await.unwrap_err();
        assert_eq!(error.kind(), io::ErrorKind::InvalidData);
    }
}

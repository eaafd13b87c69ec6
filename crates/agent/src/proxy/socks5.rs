//! CONNECT of a SOCKS5 proxy (RFC 1928), with a user and a password (RFC 1929).

use super::{login::Credentials, refusal::Refusal};
use crate::endpoint::Endpoint;
use secrecy::{ExposeSecret as _, SecretSlice};
use std::{io, net::IpAddr, time::Duration};
use tokio::{
    io::{AsyncRead, AsyncReadExt as _, AsyncWrite, AsyncWriteExt as _},
    time::timeout,
};

/// For the answer to the greeting, which the proxy gives without asking another host.
const GREETED_WITHIN: Duration = Duration::from_secs(4);
const VERSION: u8 = 5;
/// Methods (§3).
const NO_LOGIN: u8 = 0;
const PASSWORD: u8 = 2;
const NONE_ACCEPTABLE: u8 = 0xff;
/// The version of the exchange of user and password (RFC 1929 §2).
const PASSWORD_VERSION: u8 = 1;
const CONNECT: u8 = 1;
/// Types of addresses (§5).
const IPV4: u8 = 1;
const NAME: u8 = 3;
const IPV6: u8 = 4;

pub(super) async fn ask(
    tcp: &mut (impl AsyncRead + AsyncWrite + Unpin),
    server: &Endpoint,
    login: Option<&Credentials<'_>>,
) -> Result<(), Refusal> {
    let methods: &[u8] =
        if login.is_some() { &[VERSION, 2, NO_LOGIN, PASSWORD] } else { &[VERSION, 1, NO_LOGIN] };
    tcp.write_all(methods).await.map_err(Refusal::of)?;
    // An HTTP proxy waits for more.
    let chosen = timeout(GREETED_WITHIN, read(tcp)).await;
    let [version, method] = chosen.unwrap_or(Err(Refusal::NotSpoken("SOCKS5")))?;
    match (version, method, login) {
        (VERSION, NO_LOGIN, _) => {}
        (VERSION, PASSWORD, Some(login)) => authenticate(tcp, login).await?,
        (VERSION, PASSWORD | NONE_ACCEPTABLE, None) => return Err(Refusal::LoginRequired),
        (VERSION, NONE_ACCEPTABLE, Some(_)) => {
            return Err(Refusal::LoginUnsupported("another method of SOCKS5".to_owned()));
        }
        _ => return Err(Refusal::NotSpoken("SOCKS5")),
    }
    tcp.write_all(&request(server)).await.map_err(Refusal::of)?;
    let [version, reply, _, kind] = read(tcp).await?;
    if version != VERSION {
        return Err(Refusal::NotSpoken("SOCKS5"));
    }
    accepted(reply)?;
    // The address from which the proxy connects, and its port.
    match kind {
        IPV4 => skip(tcp, 4 + 2).await,
        IPV6 => skip(tcp, 16 + 2).await,
        NAME => {
            let [length] = read(tcp).await?;
            skip(tcp, usize::from(length) + 2).await
        }
        _ => Err(Refusal::NotSpoken("SOCKS5")),
    }
}

async fn authenticate(
    tcp: &mut (impl AsyncRead + AsyncWrite + Unpin),
    login: &Credentials<'_>,
) -> Result<(), Refusal> {
    let mut message = vec![PASSWORD_VERSION];
    for text in [login.user, login.password.expose_secret()] {
        // A login is no longer than this.
        message.push(u8::try_from(text.len()).unwrap_or(u8::MAX));
        message.extend_from_slice(text.as_bytes());
    }
    let message = SecretSlice::from(message);
    tcp.write_all(message.expose_secret()).await.map_err(Refusal::of)?;
    // A proxy may close the connection in place of the answer.
    match read(tcp).await {
        Ok([_, 0]) => Ok(()),
        Ok(_) | Err(Refusal::Cut) => Err(Refusal::LoginRefused),
        Err(broken) => Err(broken),
    }
}

/// §4. The proxy resolves names.
fn request(server: &Endpoint) -> Vec<u8> {
    let mut request = vec![VERSION, CONNECT, 0];
    match server.ip() {
        Some(IpAddr::V4(ip)) => {
            request.push(IPV4);
            request.extend(ip.octets());
        }
        Some(IpAddr::V6(ip)) => {
            request.push(IPV6);
            request.extend(ip.octets());
        }
        None => {
            // No name is longer (RFC 1035 §2.3.4).
            let name = server.host().as_bytes();
            let length = u8::try_from(name.len()).unwrap_or(u8::MAX);
            request.extend([NAME, length]);
            request.extend(name.iter().take(length.into()));
        }
    }
    request.extend(server.port().to_be_bytes());
    request
}

/// §6.
fn accepted(reply: u8) -> Result<(), Refusal> {
    let unreached = |how: &str| Err(Refusal::Unreached(how.to_owned()));
    match reply {
        0 => Ok(()),
        1 => unreached("general failure"),
        2 => Err(Refusal::Forbidden(None)),
        3 => unreached("network unreachable"),
        4 => unreached("host unreachable"),
        5 => unreached("connection refused"),
        6 => unreached("TTL expired"),
        8 => unreached("it does not know this type of address"),
        other => Err(Refusal::Reply(other)),
    }
}

async fn skip(tcp: &mut (impl AsyncRead + Unpin), bytes: usize) -> Result<(), Refusal> {
    tcp.read_exact(&mut vec![0; bytes]).await.map(drop).map_err(Refusal::of)
}

async fn read<const N: usize>(tcp: &mut (impl AsyncRead + Unpin)) -> Result<[u8; N], Refusal> {
    let mut bytes = [0; N];
    let read: io::Result<_> = tcp.read_exact(&mut bytes).await;
    read.map(|_| bytes).map_err(Refusal::of)
}

#[cfg(any(test, fuzzing))]
pub(super) mod fuzz {
    use super::*;
    use std::{io::Cursor, sync::LazyLock};
    use tokio::runtime::{Builder, Runtime};

    static RUNTIME: LazyLock<io::Result<Runtime>> =
        LazyLock::new(|| Builder::new_current_thread().enable_time().build());

    /// Only a proxy that chose a method it was offered, and replied with success, connects; no byte behind its reply is read.
    pub fn socks5_answer(bytes: &[u8]) {
        let (Ok(runtime), Some(server)) = (&*RUNTIME, Endpoint::parse("gw.example:8443", None)) else {
            unreachable!("a runtime and an endpoint can be made");
        };
        let login = Credentials { user: "user", password: "password".into() };
        for login in [None, Some(&login)] {
            let mut proxy = tokio::io::join(Cursor::new(bytes), tokio::io::sink());
            if runtime.block_on(ask(&mut proxy, &server, login)).is_err() {
                continue;
            }
            let read = usize::try_from(proxy.reader().position()).unwrap_or_default();
            let logged_in = if bytes[1] == PASSWORD { &bytes[2..4] } else { &[1, 0] };
            assert!(bytes[0] == VERSION && (bytes[1] == NO_LOGIN || login.is_some()) && logged_in[1] == 0);
            let reply = &bytes[if bytes[1] == PASSWORD { 4 } else { 2 }..read];
            let address = match reply[3] {
                IPV4 => 4,
                IPV6 => 16,
                _ => 1 + usize::from(reply[4]),
            };
            assert_eq!((&reply[..2], reply.len()), (&[VERSION, 0][..], 4 + address + 2));
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use tokio::io::duplex;

    /// Asks a proxy that expects and answers these messages, a few bytes at a time.
    async fn asked(
        server: &str,
        login: Option<&Credentials<'_>>,
        talk: &[(&[u8], &[u8])],
    ) -> Result<(), Refusal> {
        let (mut near, mut far) = duplex(3);
        let server = Endpoint::parse(server, None).unwrap();
        let proxy = async {
            for (expected, answer) in talk {
                let mut heard = vec![0; expected.len()];
                far.read_exact(&mut heard).await.unwrap();
                assert_eq!(heard, *expected);
                far.write_all(answer).await.unwrap();
            }
            drop(far);
        };
        tokio::join!(ask(&mut near, &server, login), proxy).0
    }

    #[tokio::test]
    async fn names_and_addresses_are_sent_to_the_proxy_as_they_are() {
        let hello: (&[u8], &[u8]) = (&[5, 1, 0], &[5, 0]);
        let name = [&[5, 1, 0, 3, 2][..], b"gw", &[0x20, 0xfb]].concat();
        let v4 = [5, 1, 0, 1, 10, 0, 0, 1, 0, 1];
        let v6 = [&[5, 1, 0, 4, 0xfd][..], &[0; 14], &[1, 0, 1]].concat();
        let bound_v4 = [5, 0, 0, 1, 0, 0, 0, 0, 0, 0];
        let bound_v6 = [&[5, 0, 0, 4][..], &[0; 18]].concat();
        let bound_name = [5, 0, 0, 3, 1, b'a', 0, 0];
        for (server, request, reply) in [
            ("gw:8443", &name[..], &bound_v4[..]),
            ("10.0.0.1:1", &v4, &bound_v6),
            ("[fd00::1]:1", &v6, &bound_name),
        ] {
            asked(server, None, &[hello, (request, reply)]).await.unwrap();
        }
    }

    #[tokio::test]
    async fn each_refusal_is_told_from_the_others() {
        let login = Credentials { user: "me", password: "hush".into() };
        let both: &[u8] = &[5, 2, 0, 2];
        let auth = [&[1, 2][..], b"me", &[4], b"hush"].concat();
        let request = [5, 1, 0, 1, 10, 0, 0, 1, 0, 1];
        let server = "10.0.0.1:1";
        let refusal = |talk| async move { asked(server, None, talk).await.unwrap_err() };
        assert!(matches!(refusal(&[(&[5, 1, 0], &[5, 0xff])]).await, Refusal::LoginRequired));
        assert!(matches!(refusal(&[(&[5, 1, 0], b"HT")]).await, Refusal::NotSpoken("SOCKS5")));
        assert!(matches!(refusal(&[(&[5, 1, 0], &[])]).await, Refusal::Cut));
        for answer in [&[1, 1][..], &[]] {
            let refused = asked(server, Some(&login), &[(both, &[5, 2]), (&auth, answer)]).await;
            assert!(matches!(refused, Err(Refusal::LoginRefused)), "{refused:?}");
        }
        let gssapi = asked(server, Some(&login), &[(both, &[5, 0xff])]).await;
        assert!(matches!(gssapi, Err(Refusal::LoginUnsupported(_))));
        let in_order = [(both, &[5, 2][..]), (&auth, &[1, 0]), (&request, &[5, 0, 0, 1, 0, 0, 0, 0, 0, 0])];
        asked(server, Some(&login), &in_order).await.unwrap();
        for reply in 1..=9 {
            let answer = [5, reply, 0, 1];
            let refusal = asked(server, None, &[(&[5, 1, 0], &[5, 0]), (&request, &answer)]).await;
            let is_told = match refusal {
                Err(Refusal::Forbidden(None)) => reply == 2,
                Err(Refusal::Reply(told)) => told == reply && matches!(reply, 7 | 9),
                Err(Refusal::Unreached(_)) => !matches!(reply, 2 | 7 | 9),
                _ => false,
            };
            assert!(is_told, "{reply}: {refusal:?}");
        }
    }
}

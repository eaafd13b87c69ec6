//! CONNECT of an HTTP proxy (RFC 9110 §9.3.6), with Basic authentication (RFC 7617).

use super::{login::Credentials, refusal::Refusal};
use crate::endpoint::Endpoint;
use base64::{Engine as _, prelude::BASE64_STANDARD};
use httparse::{EMPTY_HEADER, Response, Status};
use secrecy::{ExposeSecret as _, SecretString};
use tokio::io::{AsyncRead, AsyncReadExt as _, AsyncWrite, AsyncWriteExt as _};

/// The longest head of an answer. Proxies add some lines about themselves.
const LONGEST: usize = 16 * 1024;
const MOST_HEADERS: usize = 100;
/// Of the methods that a message names.
const MOST_METHODS: usize = 60;

pub(super) async fn ask(
    tcp: &mut (impl AsyncRead + AsyncWrite + Unpin),
    server: &Endpoint,
    login: Option<&Credentials<'_>>,
) -> Result<(), Refusal> {
    let request = request(server, login);
    tcp.write_all(request.expose_secret().as_bytes()).await.map_err(Refusal::of)?;
    let mut head = Vec::new();
    loop {
        if tcp.read_buf(&mut head).await.map_err(Refusal::of)? == 0 {
            return Err(Refusal::Cut);
        }
        if let Some(answer) = answer(&head, login.is_some()) {
            return answer;
        }
        if head.len() > LONGEST {
            return Err(Refusal::NotSpoken("HTTP"));
        }
    }
}

fn request(server: &Endpoint, login: Option<&Credentials<'_>>) -> SecretString {
    let version = env!("CARGO_PKG_VERSION");
    let mut request =
        format!("CONNECT {server} HTTP/1.1\r\nHost: {server}\r\nUser-Agent: wicketgate-agent/{version}\r\n");
    if let Some(Credentials { user, password }) = login {
        let pair = SecretString::from(format!("{user}:{}", password.expose_secret()));
        request += "Proxy-Authorization: Basic ";
        BASE64_STANDARD.encode_string(pair.expose_secret(), &mut request);
        request += "\r\n";
    }
    request += "\r\n";
    request.into()
}

/// `None`: the head is incomplete.
fn answer(head: &[u8], has_login: bool) -> Option<Result<(), Refusal>> {
    let mut headers = [EMPTY_HEADER; MOST_HEADERS];
    let mut response = Response::new(&mut headers);
    let length = match response.parse(head) {
        Ok(Status::Complete(length)) => length,
        Ok(Status::Partial) => return None,
        Err(_) => return Some(Err(Refusal::NotSpoken("HTTP"))),
    };
    Some(match response.code.unwrap_or_default() {
        // The server never speaks first: what follows is not from it.
        200..=299 if length < head.len() => Err(Refusal::NotSpoken("HTTP")),
        200..=299 => Ok(()),
        // tinyproxy refuses a wrong login with 401.
        401 | 407 => Err(match methods(&response) {
            Some(methods) => Refusal::LoginUnsupported(methods),
            None if has_login => Refusal::LoginRefused,
            None => Refusal::LoginRequired,
        }),
        403 => Err(Refusal::Forbidden(Some(403))),
        status @ 500..=599 => Err(Refusal::Unreached(format!("HTTP status {status}"))),
        status => Err(Refusal::Status(status)),
    })
}

/// The authentication methods that the proxy requires, if none of them is Basic.
fn methods(response: &Response<'_, '_>) -> Option<String> {
    let offered = response.headers.iter().filter(|h| h.name.eq_ignore_ascii_case("Proxy-Authenticate"));
    let texts: Vec<_> = offered.map(|header| String::from_utf8_lossy(header.value)).collect();
    // A header may have several, each with parameters: only the first word of each is of interest.
    let words = texts.iter().flat_map(|text| text.split(',')).filter_map(|one| one.split_whitespace().next());
    let named: Vec<_> =
        words.filter(|word| word.chars().all(|c| c.is_ascii_alphanumeric() || c == '-')).collect();
    let has_basic = named.iter().any(|word| word.eq_ignore_ascii_case("Basic"));
    (!named.is_empty() && !has_basic).then(|| named.join(", ").chars().take(MOST_METHODS).collect())
}

#[cfg(any(test, fuzzing))]
pub(super) mod fuzz {
    use super::*;

    /// Only a whole head with status 2xx and nothing behind it connects; what is quoted of another has no control character.
    pub fn http_proxy_answer(bytes: &[u8]) {
        for has_login in [false, true] {
            match answer(bytes, has_login) {
                Some(Ok(())) => {
                    assert!(bytes.ends_with(b"\n\r\n") || bytes.ends_with(b"\n\n"));
                    let status = bytes.trim_ascii_start().split(|b| *b == b' ').nth(1);
                    assert!(status.is_some_and(|status| status.starts_with(b"2")));
                }
                Some(Err(Refusal::LoginUnsupported(methods))) => {
                    assert!(methods.len() <= MOST_METHODS && !methods.contains(char::is_control));
                }
                Some(Err(_)) | None => {}
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use tokio::io::{DuplexStream, duplex};

    fn server() -> Endpoint {
        Endpoint::parse("gw.example:8443", None).unwrap()
    }

    /// The result of asking a proxy that gives this answer, and what it was asked.
    async fn asked(answer: &str, login: Option<&Credentials<'_>>) -> (Result<(), Refusal>, String) {
        let (mut near, mut far): (DuplexStream, DuplexStream) = duplex(7);
        let proxy = async {
            let mut heard = Vec::new();
            while !heard.ends_with(b"\r\n\r\n") {
                far.read_buf(&mut heard).await.unwrap();
            }
            far.write_all(answer.as_bytes()).await.unwrap();
            // The agent may have stopped reading.
            drop(far);
            String::from_utf8(heard).unwrap()
        };
        let server = server();
        let ask = async {
            let result = ask(&mut near, &server, login).await;
            // What is left does not block the proxy.
            let _ = near.read_to_end(&mut Vec::new()).await;
            result
        };
        tokio::join!(ask, proxy)
    }

    #[tokio::test]
    async fn the_proxy_is_asked_with_the_login_and_its_answer_is_read_in_pieces() {
        let login = Credentials { user: "Aladdin", password: "open sesame".into() };
        let (result, heard) = asked("HTTP/1.0 200 Connected\r\nVia: x\r\n\r\n", Some(&login)).await;
        assert!(result.is_ok(), "{result:?}");
        assert!(
            heard.starts_with("CONNECT gw.example:8443 HTTP/1.1\r\nHost: gw.example:8443\r\n"),
            "{heard}"
        );
        // The example of RFC 7617 §2.
        assert!(heard.contains("\r\nProxy-Authorization: Basic QWxhZGRpbjpvcGVuIHNlc2FtZQ==\r\n"), "{heard}");
        let (_, heard) = asked("HTTP/1.1 200 \r\n\r\n", None).await;
        assert!(!heard.contains("Authorization"), "{heard}");
    }

    #[tokio::test]
    async fn each_refusal_has_a_text_of_its_own() {
        let login = Credentials { user: "me", password: "hush".into() };
        let ntlm = "HTTP/1.1 407 x\r\nProxy-Authenticate: Negotiate\r\nProxy-Authenticate: NTLM\r\n\r\n";
        let basic = "HTTP/1.1 407 x\r\nproxy-authenticate: basic realm=\"x\"\r\n\r\n";
        let mut texts = std::collections::BTreeSet::new();
        for (answer, login, word) in [
            (ntlm, Some(&login), "by Negotiate, NTLM only"),
            (basic, None, "requires a user"),
            (basic, Some(&login), "refuses the user or the password"),
            ("HTTP/1.0 401 Unauthorized\r\n\r\n", Some(&login), "refuses the user or the password"),
            ("HTTP/1.1 403 Filtered\r\n\r\n", None, "does not permit connections to gw.example:8443"),
            ("HTTP/1.1 503 Unavailable\r\n\r\n", None, "does not reach gw.example:8443 (HTTP status 503)"),
            ("HTTP/1.1 404 Not Found\r\n\r\nhello", None, "HTTP status 404"),
            ("SSH-2.0-x\r\n", None, "does not speak HTTP"),
            ("HTTP/1.1 200 OK\r\n\r\nhello", None, "does not speak HTTP"),
            ("", None, "closed the connection without an answer"),
        ] {
            let refusal = asked(answer, login).await.0.unwrap_err();
            let text = super::super::ProxyRefusal {
                proxy: "http://p:1".to_owned(),
                server: server().to_string(),
                refusal,
            };
            let text = text.to_string();
            assert!(text.contains(word) && text.contains("http://p:1") && !text.contains("hush"), "{text}");
            texts.insert(text);
        }
        assert_eq!(texts.len(), 8, "{texts:#?}");
    }

    proptest! {
        #[test]
        fn no_answer_panics(bytes: Vec<u8>, code in 0u16..1000, tail in ".{0,40}") {
            answer(&bytes, true);
            answer(format!("HTTP/1.1 {code} {tail}\r\nProxy-Authenticate: {tail}\r\n\r\n").as_bytes(), false);
        }
    }
}

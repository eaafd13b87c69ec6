//! Connects to a target: resolves it, checks each address against the allow list, and connects to the first that
//! answers.

use crate::allow::AllowList;
use std::{
    io::{self, ErrorKind},
    net::SocketAddr,
    time::Duration,
};
use tokio::{
    net::{TcpStream, lookup_host},
    time::{Instant, timeout_at},
};
use wicketgate_model::Target;
use wicketgate_transport::frame::{RefusalReason, StreamRefusal};

/// For the name and all of its addresses. The gateway waits 10 s for the answer.
const DIAL_WITHIN: Duration = Duration::from_secs(5);

/// Connects. The text of a refusal names the target.
pub(crate) async fn dial(target: &Target, allow: &AllowList) -> Result<TcpStream, StreamRefusal> {
    let deadline = Instant::now() + DIAL_WITHIN;
    let refusal = |reason, text: &str| StreamRefusal { reason, text: format!("{target}: {text}") };
    // An address needs no lookup.
    let addresses: Vec<SocketAddr> = match timeout_at(deadline, lookup_host(target.to_string())).await {
        Ok(Ok(found)) => found.collect(),
        Ok(Err(_)) => Vec::new(),
        Err(_) => return Err(refusal(RefusalReason::TimedOut, "looking up the name timed out")),
    };
    if addresses.is_empty() {
        return Err(refusal(RefusalReason::NameNotFound, "name not found"));
    }
    let mut last = refusal(RefusalReason::NotAllowed, "outside of the agent's allow list");
    for address in addresses.into_iter().filter(|a| allow.permits(*a)) {
        match timeout_at(deadline, connect(address)).await {
            Err(_) => return Err(refusal(RefusalReason::TimedOut, "timed out")),
            Ok(Ok(tcp)) => return Ok(tcp),
            Ok(Err(e)) => {
                let (reason, text) = match e.kind() {
                    ErrorKind::ConnectionRefused => (RefusalReason::ConnectionRefused, "connection refused"),
                    ErrorKind::TimedOut => (RefusalReason::TimedOut, "timed out"),
                    ErrorKind::HostUnreachable => (RefusalReason::Unreachable, "host unreachable"),
                    ErrorKind::NetworkUnreachable => (RefusalReason::Unreachable, "network unreachable"),
                    _ => (RefusalReason::Unreachable, &*e.to_string()),
                };
                last = refusal(reason, text);
            }
        }
    }
    Err(last)
}

async fn connect(address: SocketAddr) -> io::Result<TcpStream> {
    let tcp = TcpStream::connect(address).await?;
    tcp.set_nodelay(true)?;
    Ok(tcp)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn a_refused_dial_is_reported_and_a_forbidden_one_is_not_attempted() {
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
        let target: Target = listener.local_addr().unwrap().to_string().parse().unwrap();
        assert!(dial(&target, &AllowList::default()).await.is_ok());
        let named: Target = format!("localhost:{}", target.port).parse().unwrap();
        let elsewhere = AllowList::new(vec!["10.0.0.0/8:*".parse().unwrap()]);
        for target in [&target, &named] {
            let refusal = dial(target, &elsewhere).await.unwrap_err();
            assert_eq!(refusal.reason, RefusalReason::NotAllowed, "{refusal}");
        }
        drop(listener);
        let refusal = dial(&target, &AllowList::default()).await.unwrap_err();
        assert_eq!(refusal.reason, RefusalReason::ConnectionRefused);
        assert_eq!(refusal.text, format!("{target}: connection refused"));
    }
}

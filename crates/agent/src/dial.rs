//! Connects to a target, within the agent's allow list.

use crate::{
    allow::AllowList,
    connect::{Handshake, NoConnection, Place, connect},
    names::{Names, NoAddress},
};
use std::{io::ErrorKind, sync::Arc, time::Duration};
use tokio::net::TcpStream;
use wicketgate_model::{Host, Target};
use wicketgate_transport::frame::{RefusalReason, StreamRefusal};

/// For a target and the lookup of its name: a client that gets no answer is told why within 5 s. A lost SYN is sent again after
/// 1 and 3 s. The gateway waits for the answer for somewhat longer.
const DIAL_WITHIN: Duration = Duration::from_secs(4);
/// For a target that does not acknowledge a stream's bytes: their time is over already. A SYN is sent twice.
const DOUBTED_WITHIN: Duration = Duration::from_secs(2);

/// Connects. The text of a refusal names the target.
pub(crate) async fn dial(
    target: &Target,
    allow: &AllowList,
    names: &Arc<Names>,
) -> Result<TcpStream, StreamRefusal> {
    open(target, allow, names, (Handshake::Whole, DIAL_WITHIN)).await
}

/// Whether the target's host accepts connections to it. The target itself does not notice.
pub(crate) async fn probe(
    target: &Target,
    allow: &AllowList,
    names: &Arc<Names>,
    is_doubted: bool,
) -> Result<(), StreamRefusal> {
    let within = if is_doubted { DOUBTED_WITHIN } else { DIAL_WITHIN };
    open(target, allow, names, (Handshake::HalfOpen, within)).await.map(drop)
}

async fn open(
    target: &Target,
    allow: &AllowList,
    names: &Arc<Names>,
    how: (Handshake, Duration),
) -> Result<TcpStream, StreamRefusal> {
    let place = match &target.host {
        Host::V4(ip) => Place::Ip((*ip).into()),
        Host::V6(ip) => Place::Ip((*ip).into()),
        Host::Name(name) => Place::Name(name),
    };
    let connected = connect(names, (place, target.port), allow, how).await;
    connected.map_err(|error| match error.shortage() {
        Some(shortage) => StreamRefusal { reason: RefusalReason::AgentExhausted, text: shortage.to_string() },
        None => StreamRefusal { reason: reason(&error), text: format!("{target}: {error}") },
    })
}

fn reason(error: &NoConnection) -> RefusalReason {
    match error {
        NoConnection::NoAddress(NoAddress::NotFound) => RefusalReason::NameNotFound,
        NoConnection::NoAddress(NoAddress::NoAnswer) => RefusalReason::NoNameServer,
        NoConnection::NoAddress(NoAddress::Shortage(_)) => RefusalReason::AgentExhausted,
        NoConnection::NotAllowed => RefusalReason::NotAllowed,
        NoConnection::Failed(failures) => match failures.kind() {
            ErrorKind::ConnectionRefused => RefusalReason::ConnectionRefused,
            ErrorKind::TimedOut => RefusalReason::TimedOut,
            ErrorKind::NetworkUnreachable => RefusalReason::NoRoute,
            ErrorKind::PermissionDenied => RefusalReason::NotPermitted,
            _ => RefusalReason::Unreachable,
        },
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn a_refused_dial_is_reported_and_a_forbidden_one_is_not_attempted() {
        let names = Arc::new(Names::default());
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
        let target: Target = listener.local_addr().unwrap().to_string().parse().unwrap();
        assert!(dial(&target, &AllowList::everything(), &names).await.is_ok());
        let named: Target = format!("localhost:{}", target.port).parse().unwrap();
        assert!(dial(&named, &AllowList::everything(), &names).await.is_ok());
        let elsewhere = AllowList::new(vec!["10.0.0.0/8:*".parse().unwrap()]);
        for target in [&target, &named] {
            let refusal = dial(target, &elsewhere, &names).await.unwrap_err();
            assert_eq!(refusal.reason, RefusalReason::NotAllowed, "{refusal}");
        }
        drop(listener);
        let refusal = dial(&target, &AllowList::everything(), &names).await.unwrap_err();
        assert_eq!(refusal.reason, RefusalReason::ConnectionRefused);
        assert_eq!(refusal.text, format!("{target}: connection refused"));
    }
}

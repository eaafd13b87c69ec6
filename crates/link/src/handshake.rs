//! The beginning of a link: both ends send a hello first, and agree on a version.

use crate::{
    FromGateway, GatewayHello, LinkReceiver, LinkRefusal, ServerHello, ToGateway, VERSIONS, VersionMismatch,
};

/// A link whose other end has not sent its hello yet.
#[derive(Debug)]
pub struct Handshake<M>(pub(crate) LinkReceiver<M>);

/// Why a link does not begin.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum HandshakeError {
    #[error("the other end closed the link before its hello")]
    Closed,
    #[error("the first message of the link is not a hello: the other end does not follow the protocol")]
    NoHello,
    #[error(transparent)]
    Version(#[from] VersionMismatch),
    #[error(transparent)]
    Refused(#[from] LinkRefusal),
}

impl Handshake<FromGateway> {
    /// Waits for the gateway's hello.
    ///
    /// # Errors
    ///
    /// The gateway closed the link, sent something else, or speaks none of this build's versions.
    pub async fn finish(mut self) -> Result<(GatewayHello, LinkReceiver<FromGateway>), HandshakeError> {
        let FromGateway::Hello(hello) = self.0.recv().await.ok_or(HandshakeError::Closed)? else {
            return Err(HandshakeError::NoHello);
        };
        VERSIONS.common(hello.versions)?;
        Ok((hello, self.0))
    }
}

impl Handshake<ToGateway> {
    /// Waits for the server's hello.
    ///
    /// # Errors
    ///
    /// The server refused or closed the link, sent something else, or speaks none of this build's versions.
    pub async fn finish(mut self) -> Result<(ServerHello, LinkReceiver<ToGateway>), HandshakeError> {
        let hello = match self.0.recv().await.ok_or(HandshakeError::Closed)? {
            ToGateway::Hello(hello) => hello,
            ToGateway::Refused(refusal) => return Err(refusal.into()),
            _ => return Err(HandshakeError::NoHello),
        };
        VERSIONS.common(hello.versions)?;
        Ok((hello, self.0))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{GatewayEnd, ServerEnd, Versions, in_process_encoded, in_process_over_wire};
    use uuid::Uuid;
    use wicketgate_model::{Era, EspMode, GatewayId};

    fn of_server(versions: Versions) -> ServerHello {
        ServerHello {
            versions,
            epoch: 3,
            era: Era::FIRST,
            servers: vec!["https://192.0.2.1:8444".to_owned()],
        }
    }

    fn hello(versions: Versions) -> GatewayHello {
        GatewayHello {
            versions,
            version: "0.1.0".to_owned(),
            boot: Uuid::nil(),
            held: None,
            agent_url: None,
            esp: EspMode::Off,
            public_address: None,
            max_tunnels: Some(7),
            namespaces: None,
        }
    }

    /// Both ends of a link in one process, and of one over frames.
    fn links() -> impl Iterator<Item = (ServerEnd, GatewayEnd)> {
        [in_process_encoded, in_process_over_wire]
            .into_iter()
            .map(|join| join(GatewayId::new(Uuid::nil()), "local".parse().unwrap()))
    }

    #[tokio::test]
    async fn both_ends_send_their_hello_before_anything_else() {
        for (server, gateway) in links() {
            let (to_gateway, at_server) = server.open(of_server(VERSIONS));
            let (to_server, at_gateway) = gateway.open(hello(VERSIONS));
            to_server.send(FromGateway::Draining).await.unwrap();
            drop(to_gateway);
            let (taken, mut reports) = at_server.finish().await.unwrap();
            assert_eq!(taken, hello(VERSIONS));
            assert_eq!(reports.recv().await, Some(FromGateway::Draining));
            let (taken, mut messages) = at_gateway.finish().await.unwrap();
            assert_eq!((taken, messages.recv().await), (of_server(VERSIONS), None));
        }
    }

    #[tokio::test]
    async fn another_version_and_a_closed_link_are_refused() {
        let newer = Versions { oldest: VERSIONS.newest + 1, newest: VERSIONS.newest + 1 };
        for (server, gateway) in links() {
            let (_to_gateway, at_server) = server.open(of_server(newer));
            let (_to_server, at_gateway) = gateway.open(hello(newer));
            assert!(matches!(at_server.finish().await, Err(HandshakeError::Version(_))));
            assert!(matches!(at_gateway.finish().await, Err(HandshakeError::Version(_))));
        }
        for (server, gateway) in links() {
            drop(gateway);
            assert!(matches!(server.open(of_server(VERSIONS)).1.finish().await, Err(HandshakeError::Closed)));
        }
    }

    #[tokio::test]
    async fn a_message_before_the_hello_is_refused() {
        for (server, gateway) in links() {
            let at_server = server.open(of_server(VERSIONS)).1;
            gateway.send.try_send(FromGateway::Draining).unwrap();
            assert!(matches!(at_server.finish().await, Err(HandshakeError::NoHello)));
        }
    }
}

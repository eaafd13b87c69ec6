//! The purpose of a connection: its protocol name (ALPN, RFC 7301).

/// The purpose of a connection.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Purpose {
    Enrol,
    Control,
    Carrier,
    Join,
    Link,
    /// Of a server to another one.
    Peer,
}

impl Purpose {
    /// Those of a gateway's agent port, in the order of its preference.
    pub(super) const OF_AGENTS: [Self; 3] = [Self::Enrol, Self::Control, Self::Carrier];
    /// Those of a server's link port, in the order of its preference.
    pub(super) const OF_LINKS: [Self; 3] = [Self::Join, Self::Link, Self::Peer];

    pub(super) fn alpn(self) -> &'static [u8] {
        match self {
            Self::Enrol => b"wicketgate-enrol/1",
            Self::Control => b"wicketgate-control/1",
            Self::Carrier => b"wicketgate-carrier/1",
            Self::Join => b"wicketgate-join/1",
            Self::Link => b"wicketgate-link/1",
            Self::Peer => b"wicketgate-peer/1",
        }
    }

    /// The protocol names that a port accepts.
    pub(super) fn names(accepted: &[Self]) -> Vec<Vec<u8>> {
        accepted.iter().map(|purpose| purpose.alpn().to_vec()).collect()
    }
}

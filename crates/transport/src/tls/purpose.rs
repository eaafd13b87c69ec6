//! The purpose of a connection to the agent port: its protocol name (ALPN, RFC 7301).

/// The purpose of a connection.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Purpose {
    Enrol,
    Control,
    Carrier,
}

impl Purpose {
    /// In the order of the gateway's preference.
    pub(super) const ALL: [Self; 3] = [Self::Enrol, Self::Control, Self::Carrier];

    pub(super) fn alpn(self) -> &'static [u8] {
        match self {
            Self::Enrol => b"wicketgate-enrol/1",
            Self::Control => b"wicketgate-control/1",
            Self::Carrier => b"wicketgate-carrier/1",
        }
    }
}

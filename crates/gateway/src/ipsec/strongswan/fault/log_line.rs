//! A line of charon's log.

use wicketgate_vici::Message;

/// A line, and the IKE SA that it is about.
#[derive(Debug, Clone, Copy)]
pub(in crate::ipsec::strongswan) struct LogLine<'a> {
    /// The unique id. Each attempt of a peer has its own.
    pub(in crate::ipsec::strongswan) ike_sa: Option<u64>,
    pub(in crate::ipsec::strongswan) text: &'a str,
}

impl<'a> LogLine<'a> {
    /// Reads an event `log`.
    pub(in crate::ipsec::strongswan) fn read(event: &'a Message) -> Self {
        Self { ike_sa: event.number("ikesa-uniqueid"), text: event.text("msg").unwrap_or_default() }
    }
}

//! Log events about a peer: it connected, it disconnected, and once why it cannot connect. A repeated failure is not logged
//! again.

use tracing::{debug, info, warn};
use wicketgate_model::{Connection, ConnectionError, ConnectionState, ResourceName, TunnelId};

/// See the module.
#[derive(Debug, Default)]
pub(super) struct PeerLog {
    /// Its connect event was logged, and no disconnect event since.
    is_connected: bool,
}

#[derive(Debug, PartialEq, Eq)]
enum PeerEvent<'a> {
    Connected,
    Disconnected,
    CouldNotConnect(&'a ConnectionError),
}

impl PeerLog {
    pub(super) fn write(&mut self, id: TunnelId, name: &ResourceName, before: &Connection, now: &Connection) {
        match self.event(before, now) {
            Some(PeerEvent::Connected) => info!(tunnel.id = %id, tunnel.name = %name, "site connected"),
            Some(PeerEvent::Disconnected) => {
                let error = now.last_error.as_ref().map(|e| e.reason.as_str());
                warn!(tunnel.id = %id, tunnel.name = %name, error, "site disconnected");
            }
            Some(PeerEvent::CouldNotConnect(error)) => {
                // The text may contain the customer's addresses.
                warn!(tunnel.id = %id, tunnel.name = %name, error = error.reason.as_str(), "site could not connect");
                debug!(tunnel.id = %id, %error, "site could not connect");
            }
            None => {}
        }
    }

    fn event<'a>(&mut self, before: &Connection, now: &'a Connection) -> Option<PeerEvent<'a>> {
        match now.state {
            ConnectionState::Up if before.state != ConnectionState::Up => {
                self.is_connected = true;
                return Some(PeerEvent::Connected);
            }
            ConnectionState::Down if self.is_connected => {
                self.is_connected = false;
                return Some(PeerEvent::Disconnected);
            }
            _ => {}
        }
        let error = now.last_error.as_ref().filter(|error| before.last_error.as_ref() != Some(error));
        error.map(PeerEvent::CouldNotConnect)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use jiff::Timestamp;
    use wicketgate_model::ConnectionFault;

    #[test]
    fn a_repeated_failure_is_logged_once() {
        let failed = |second| ConnectionError {
            reason: ConnectionFault::PeerDoesNotAnswer,
            cause: String::new(),
            cure: String::new(),
            since: Timestamp::from_second(second).unwrap(),
        };
        let is =
            |state, last_error| Connection { state, last_error, ..Connection::down(Timestamp::UNIX_EPOCH) };
        let (up, calls, down) = (ConnectionState::Up, ConnectionState::Connecting, ConnectionState::Down);
        let mut log = PeerLog::default();
        let mut before = is(down, None);
        let (first, second) = (failed(1), failed(2));
        for (state, error, news) in [
            (calls, None, None),
            (down, Some(&first), Some(PeerEvent::CouldNotConnect(&first))),
            (calls, Some(&first), None),
            (down, Some(&first), None),
            (up, None, Some(PeerEvent::Connected)),
            // Through an IKE SA without a CHILD SA.
            (calls, None, None),
            (down, Some(&second), Some(PeerEvent::Disconnected)),
            (calls, Some(&second), None),
            (down, Some(&second), None),
        ] {
            let now = is(state, error.cloned());
            assert_eq!(log.event(&before, &now), news, "{state:?}");
            before = now;
        }
    }
}

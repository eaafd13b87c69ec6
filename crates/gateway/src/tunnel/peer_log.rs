//! What whoever runs the gateway wants to find in its log about a peer: that it came, that it went, and once why it can't
//! come. That a call has failed again is no news.

use tracing::{debug, info, warn};
use wicketgate_model::{Connection, ConnectionError, ConnectionState, ResourceName, TunnelId};

/// See the module.
#[derive(Debug, Default)]
pub(super) struct PeerLog {
    /// It came, and nobody was told that it went.
    is_connected: bool,
}

#[derive(Debug, PartialEq, Eq)]
enum News<'a> {
    Connected,
    Disconnected,
    CouldNotConnect(&'a ConnectionError),
}

impl PeerLog {
    pub(super) fn tell(&mut self, id: TunnelId, name: &ResourceName, before: &Connection, now: &Connection) {
        match self.hear(before, now) {
            Some(News::Connected) => info!(tunnel.id = %id, tunnel.name = %name, "site connected"),
            Some(News::Disconnected) => {
                let error = now.last_error.as_ref().map(|e| e.reason.as_str());
                warn!(tunnel.id = %id, tunnel.name = %name, error, "site disconnected");
            }
            Some(News::CouldNotConnect(error)) => {
                // The sentence may have the customer's addresses in it.
                warn!(tunnel.id = %id, tunnel.name = %name, error = error.reason.as_str(), "site could not connect");
                debug!(tunnel.id = %id, %error, "site could not connect");
            }
            None => {}
        }
    }

    fn hear<'a>(&mut self, before: &Connection, now: &'a Connection) -> Option<News<'a>> {
        match now.state {
            ConnectionState::Up if before.state != ConnectionState::Up => {
                self.is_connected = true;
                return Some(News::Connected);
            }
            ConnectionState::Down if self.is_connected => {
                self.is_connected = false;
                return Some(News::Disconnected);
            }
            _ => {}
        }
        let error = now.last_error.as_ref().filter(|error| before.last_error.as_ref() != Some(error));
        error.map(News::CouldNotConnect)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use jiff::Timestamp;
    use wicketgate_model::ConnectionFault;

    #[test]
    fn a_call_that_fails_again_is_no_news() {
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
            (down, Some(&first), Some(News::CouldNotConnect(&first))),
            (calls, Some(&first), None),
            (down, Some(&first), None),
            (up, None, Some(News::Connected)),
            // By way of an IKE SA without a CHILD SA.
            (calls, None, None),
            (down, Some(&second), Some(News::Disconnected)),
            (calls, Some(&second), None),
            (down, Some(&second), None),
        ] {
            let now = is(state, error.cloned());
            assert_eq!(log.hear(&before, &now), news, "{state:?}");
            before = now;
        }
    }
}

//! Whether a tunnel's peer is connected, as far as the tunnel's shares depend on it.

use wicketgate_model::{ConnectionFault, ConnectionState, EspMode, Problem, Reason, ResourceName, TunnelId};

use super::GatewayView;

/// All shares of the tunnel are looked at after each change, so it has no counters and no times.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct PeerState {
    is_up: bool,
    /// It is up, and answers.
    pub(super) passes: bool,
    fault: Option<ConnectionFault>,
}

impl PeerState {
    /// `None`: nothing is known of it yet, or there is no IPsec.
    pub(crate) fn of(seen: &GatewayView, tunnel: TunnelId) -> Option<Self> {
        if seen.esp().is_none_or(|esp| esp == EspMode::Off) {
            return None;
        }
        let tunnel = seen.observed.tunnels.get(&tunnel)?;
        if tunnel.problem.as_ref().is_some_and(Problem::is_pending) {
            return None;
        }
        let connection = &tunnel.connection;
        let is_up = connection.state == ConnectionState::Up;
        // Of an established connection it is a rekey's.
        let fault = connection.last_error.as_ref().map(|e| e.reason).filter(|_| !is_up);
        Some(Self { is_up, passes: connection.passes(), fault })
    }

    /// The problem that a share of the tunnel has because of it.
    pub(crate) fn problem(self, tunnel: &ResourceName) -> Option<Problem> {
        if self.passes {
            return None;
        }
        if self.is_up {
            let message = format!(
                "the site's device is connected and does not answer: connection.warnings of tunnel \"{tunnel}\" says since when"
            );
            return Some(Problem::new(Reason::PeerDown, message));
        }
        let message = match self.fault {
            Some(fault) => format!(
                "the site's device is not connected ({fault}): connection.lastError of tunnel \"{tunnel}\" has the cause \
                 and the cure"
            ),
            None => format!(
                "the site's device is not connected, and connection of tunnel \"{tunnel}\" has no error: start the \
                 connection at the device"
            ),
        };
        Some(Problem::new(Reason::PeerDown, message))
    }
}

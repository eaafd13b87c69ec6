//! Where an agent stands: whether it serves, and if not, why.

use serde::Serialize;

#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
pub(crate) enum Phase {
    Enrolling,
    Connecting,
    Connected,
    /// It is stopping.
    Draining,
}

#[derive(Debug, Clone, Serialize)]
pub(super) struct Standing {
    pub(super) status: Phase,
    /// The last failure, as in the log.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) error: Option<String>,
}

impl Standing {
    /// For `systemctl status`. `shares`: how many are served, and of how many the target is not reached.
    pub(super) fn line(&self, server: &str, (shares, unreachable): (i64, i64)) -> String {
        match (self.status, &self.error) {
            (Phase::Enrolling, None) => format!("enrolling with {server}"),
            (Phase::Enrolling, Some(error)) => format!("cannot enrol with {server} yet, retrying: {error}"),
            (Phase::Connecting, None) => format!("connecting to {server}"),
            (Phase::Connecting, Some(error)) => format!("not connected to {server}, retrying: {error}"),
            (Phase::Connected, _) => {
                let served = match shares {
                    1 => "1 share".to_owned(),
                    _ => format!("{shares} shares"),
                };
                let lacking = match unreachable {
                    0 => String::new(),
                    _ => format!(", {unreachable} of them without reaching the target"),
                };
                format!("connected to {server}, serving {served}{lacking}")
            }
            (Phase::Draining, _) => "stopping: running connections may end, new ones are refused".to_owned(),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn it_says_that_the_agent_serves_only_while_it_is_connected() {
        let line = |status, error: Option<&str>| {
            Standing { status, error: error.map(str::to_owned) }.line("https://gw:8443", (2, 1))
        };
        let connected = line(Phase::Connected, None);
        assert_eq!(
            connected,
            "connected to https://gw:8443, serving 2 shares, 1 of them without reaching the target"
        );
        for phase in [Phase::Enrolling, Phase::Connecting] {
            let line = line(phase, Some("rejected"));
            assert!(
                line.ends_with("https://gw:8443, retrying: rejected")
                    || line.ends_with("yet, retrying: rejected")
            );
            assert!(!line.contains("serving"), "{line}");
        }
    }
}

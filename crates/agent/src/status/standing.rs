//! Where an agent stands: whether it serves, and if not, why; and the same of each gateway that it dials.

use serde::Serialize;
use std::collections::BTreeMap;
use wicketgate_model::GatewayId;

#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
pub(crate) enum Phase {
    Enrolling,
    Connecting,
    Connected,
    /// It is stopping.
    Draining,
}

/// Of the agent.
#[derive(Debug, Clone, Serialize)]
pub(super) struct Standing {
    pub(super) status: Phase,
    /// The last failure, as in the log.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) error: Option<String>,
    /// Each of them, if there are several.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    gateways: Vec<GatewayStanding>,
}

/// Of one gateway.
#[derive(Debug, Clone, Serialize)]
struct GatewayStanding {
    url: String,
    status: Phase,
    #[serde(skip_serializing_if = "Option::is_none")]
    error: Option<String>,
    /// That it has last been connected to.
    #[serde(skip)]
    met: Option<GatewayId>,
    /// Another connection has the gateway.
    #[serde(skip)]
    is_hidden: bool,
}

impl GatewayStanding {
    fn new(url: String, status: Phase) -> Self {
        Self { url, status, error: None, met: None, is_hidden: false }
    }
}

/// Of all gateways, by the places of their connections.
#[derive(Debug)]
pub(super) struct Standings(BTreeMap<usize, GatewayStanding>);

impl Standings {
    /// Of an agent that enrols.
    pub(super) fn new(place: usize, url: String) -> Self {
        Self([(place, GatewayStanding::new(url, Phase::Enrolling))].into())
    }

    pub(super) fn dial(&mut self, place: usize, url: String) {
        self.0.insert(place, GatewayStanding::new(url, Phase::Connecting));
    }

    pub(super) fn enter(&mut self, place: usize, phase: Phase) {
        if let Some(one) = self.0.get_mut(&place) {
            (one.status, one.is_hidden) = (phase, false);
        }
    }

    pub(super) fn connected(&mut self, place: usize, gateway: GatewayId) {
        self.enter(place, Phase::Connected);
        if let Some(one) = self.0.get_mut(&place) {
            (one.error, one.met) = (None, Some(gateway));
        }
    }

    pub(super) fn failed(&mut self, place: usize, error: &str) {
        if let Some(one) = self.0.get_mut(&place) {
            one.error = Some(error.to_owned());
            if one.status == Phase::Connected {
                one.status = Phase::Connecting;
            }
        }
    }

    pub(super) fn hide(&mut self, place: usize) {
        if let Some(one) = self.0.get_mut(&place) {
            *one = GatewayStanding {
                is_hidden: true,
                ..GatewayStanding::new(one.url.clone(), Phase::Connecting)
            };
        }
    }

    pub(super) fn gone(&mut self, place: usize) {
        self.0.remove(&place);
    }

    /// Those that the agent has been connected to, and whether it is.
    pub(super) fn known(&self) -> impl Iterator<Item = (GatewayId, bool)> {
        self.shown().filter_map(|one| Some((one.met?, one.status == Phase::Connected)))
    }

    fn shown(&self) -> impl Iterator<Item = &GatewayStanding> {
        self.0.values().filter(|one| !one.is_hidden)
    }

    /// The agent serves while one gateway is connected.
    pub(super) fn standing(&self) -> Standing {
        let is_any = |phase| self.shown().any(|one| one.status == phase);
        let phases = [Phase::Connected, Phase::Draining, Phase::Enrolling];
        let status = phases.into_iter().find(|phase| is_any(*phase)).unwrap_or(Phase::Connecting);
        let error = self.shown().find_map(|one| one.error.clone()).filter(|_| status != Phase::Connected);
        let gateways: Vec<_> = self.shown().cloned().collect();
        Standing { status, error, gateways: if gateways.len() > 1 { gateways } else { Vec::new() } }
    }

    /// For `systemctl status`. `shares`: how many are served, and of how many the target is not reached.
    pub(super) fn line(&self, (shares, unreachable): (i64, i64)) -> String {
        let Standing { status, error, gateways } = self.standing();
        let server = match self.shown().next() {
            Some(one) if gateways.is_empty() => one.url.clone(),
            _ => format!("any of {} gateways", gateways.len()),
        };
        match (status, error) {
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
                let (server, away) = with_several(&gateways).unwrap_or((server, String::new()));
                format!("connected to {server}, serving {served}{lacking}{away}")
            }
            (Phase::Draining, _) => "stopping: running connections may end, new ones are refused".to_owned(),
        }
    }
}

/// How many are connected, and why one is not. `None`: there are not several.
fn with_several(gateways: &[GatewayStanding]) -> Option<(String, String)> {
    let connected = gateways.iter().filter(|one| one.status == Phase::Connected).count();
    let away = gateways.iter().find_map(|one| {
        let error = one.error.as_ref().filter(|_| one.status != Phase::Connected)?;
        Some(format!("; not connected to {}, retrying: {error}", one.url))
    });
    let all = gateways.len();
    (all > 1).then(|| (format!("{connected} of {all} gateways"), away.unwrap_or_default()))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn gateway() -> GatewayId {
        format!("gwy-{:032x}", 1).parse().unwrap()
    }

    #[test]
    fn it_says_that_the_agent_serves_only_while_it_is_connected() {
        let mut standings = Standings::new(0, "https://gw:8443".to_owned());
        standings.failed(0, "rejected");
        let enrolling = standings.line((2, 1));
        standings.enter(0, Phase::Connecting);
        for line in [enrolling, standings.line((2, 1))] {
            assert!(
                line.ends_with("https://gw:8443, retrying: rejected")
                    || line.ends_with("yet, retrying: rejected")
            );
            assert!(!line.contains("serving"), "{line}");
        }
        standings.connected(0, gateway());
        assert_eq!(
            standings.line((2, 1)),
            "connected to https://gw:8443, serving 2 shares, 1 of them without reaching the target"
        );
    }

    #[test]
    fn with_several_gateways_it_says_which_one_is_missing() {
        let mut standings = Standings::new(0, "https://gw:8443".to_owned());
        standings.dial(7, "https://gw-7:8443".to_owned());
        standings.failed(7, "silent");
        standings.connected(0, gateway());
        let line = standings.line((1, 0));
        assert_eq!(
            line,
            "connected to 1 of 2 gateways, serving 1 share; not connected to https://gw-7:8443, retrying: silent"
        );
        standings.failed(0, "away");
        standings.enter(0, Phase::Connecting);
        assert_eq!(standings.line((1, 0)), "not connected to any of 2 gateways, retrying: away");
        standings.hide(0);
        assert_eq!(standings.line((1, 0)), "not connected to https://gw-7:8443, retrying: silent");
    }
}

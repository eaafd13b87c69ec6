//! The hops of a walk, and what a walk found.

use crate::reason_link::ReasonLinks;
use jiff::Timestamp;
use serde::Serialize;
use std::time::Duration;
use wicketgate_link::ShareCheck;
use wicketgate_model::{AgentId, Connection, Problem, Reason};
use wicketgate_store::{NamedRow, ShareRow, TunnelRow};

/// The results of a walk.
pub(in crate::api) struct Walked<'a> {
    pub(in crate::api) share: &'a ShareRow,
    pub(in crate::api) tunnel: &'a TunnelRow,
    /// `None`: it was just deleted.
    pub(in crate::api) environment: Option<NamedRow>,
    /// False with `--ipsec off`.
    pub(in crate::api) has_ipsec: bool,
    /// The peer was connected at some time.
    pub(in crate::api) was_up: bool,
    /// The time to read the gateway's last report on the tunnel's connection.
    pub(in crate::api) read_took: Duration,
    /// `None`: the gateway did not answer.
    pub(in crate::api) seen: Option<ShareCheck>,
    /// The time until it did.
    pub(in crate::api) took: Duration,
    /// The target does not answer clients, on how many of the last connections.
    pub(in crate::api) unanswered: Option<(Problem, u64)>,
    pub(in crate::api) at: Timestamp,
}

impl Walked<'_> {
    /// The tunnel's connection: as the gateway has just asked for it, or else as it last reported it.
    pub(super) fn connection(&self) -> Option<&Connection> {
        let asked = self.seen.as_ref().and_then(|seen| seen.tunnel.connection.as_ref());
        asked.or(self.tunnel.connection.as_ref())
    }

    /// Another tunnel has taken the address of its peer. Both the share and the tunnel are enabled.
    pub(super) fn has_lost_address(&self) -> bool {
        let is_enabled = self.share.spec.enabled && self.tunnel.spec.enabled;
        is_enabled && self.tunnel.peer_address_taken_at.is_some()
    }
}

#[serde_with::skip_serializing_none]
#[derive(Debug, Serialize)]
#[serde(rename_all = "camelCase")]
pub(super) struct Hop {
    pub(super) hop: HopName,
    pub(super) state: State,
    pub(super) message: String,
    pub(super) reason: Option<Reason>,
    /// Milliseconds: to the gateway and back, to read the connection's state, to look at the listener, to the agent and
    /// back, to open a connection to the target.
    pub(super) latency_ms: Option<f64>,
    pub(super) agent_id: Option<AgentId>,
    /// For a hop that failed, or whose connections are in doubt.
    pub(super) advice: Option<String>,
    #[serde(rename = "_links")]
    pub(super) links: Option<ReasonLinks>,
}

/// The hops, in the order of the path.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
pub(super) enum HopName {
    Tunnel,
    IkeSa,
    Listener,
    Agent,
    Target,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "UPPERCASE")]
pub(super) enum State {
    Ok,
    Failed,
    /// An earlier hop hides its state.
    Unknown,
    /// The hop does not exist.
    Skipped,
}

impl Hop {
    pub(super) fn new(hop: HopName, state: State, message: impl Into<String>) -> Self {
        Self {
            hop,
            state,
            message: message.into(),
            reason: None,
            latency_ms: None,
            agent_id: None,
            advice: None,
            links: None,
        }
    }

    pub(super) fn failed(hop: HopName, reason: Reason, message: impl Into<String>) -> Self {
        Self { reason: Some(reason), ..Self::new(hop, State::Failed, message) }
    }

    pub(super) fn took(self, duration: Duration) -> Self {
        Self { latency_ms: Some((duration.as_secs_f64() * 1e6).round() / 1e3), ..self }
    }
}

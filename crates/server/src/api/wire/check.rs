//! A walk along a share's path in JSON. Each hop that fails says what to do about it.

pub(in crate::api) mod for_site;

use super::{answer::Links, fields::Fields, share::Share, tunnel::Tunnel};
use crate::{
    error::{ApiError, capitalized, in_seconds},
    reason_link::ReasonLinks,
};
use jiff::Timestamp;
use serde::Serialize;
use serde_json::{Map, Value};
use std::{iter, time::Duration};
use wicketgate_link::ShareCheck;
use wicketgate_model::{
    AgentId, Connection, ConnectionState, FailureReason, Problem, Reason, ShareId, Status,
};
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
    fn connection(&self) -> Option<&Connection> {
        let asked = self.seen.as_ref().and_then(|seen| seen.tunnel.connection.as_ref());
        asked.or(self.tunnel.connection.as_ref())
    }
}

#[derive(Debug, Serialize)]
#[serde(rename_all = "camelCase")]
pub(in crate::api) struct Check {
    share_id: ShareId,
    checked_at: Timestamp,
    /// No hop has failed, and none is unknown.
    ok: bool,
    hops: Vec<Hop>,
}

#[serde_with::skip_serializing_none]
#[derive(Debug, Serialize)]
#[serde(rename_all = "camelCase")]
struct Hop {
    hop: HopName,
    state: State,
    message: String,
    reason: Option<Reason>,
    /// Milliseconds: to the gateway and back, to read the connection's state, to look at the listener, to the agent and
    /// back, to open a connection to the target.
    latency_ms: Option<f64>,
    agent_id: Option<AgentId>,
    /// For a hop that failed, or whose connections are in doubt.
    advice: Option<String>,
    #[serde(rename = "_links")]
    links: Option<ReasonLinks>,
}

/// The hops, in the order of the path.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
enum HopName {
    Tunnel,
    IkeSa,
    Listener,
    Agent,
    Target,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "UPPERCASE")]
enum State {
    Ok,
    Failed,
    /// An earlier hop hides its state.
    Unknown,
    /// The hop does not exist.
    Skipped,
}

impl Hop {
    fn new(hop: HopName, state: State, message: impl Into<String>) -> Self {
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

    fn failed(hop: HopName, reason: Reason, message: impl Into<String>) -> Self {
        Self { reason: Some(reason), ..Self::new(hop, State::Failed, message) }
    }

    fn took(self, duration: Duration) -> Self {
        Self { latency_ms: Some((duration.as_secs_f64() * 1e6).round() / 1e3), ..self }
    }
}

impl Check {
    pub(in crate::api) fn of(walked: &Walked<'_>) -> Self {
        let mut hops = match &walked.seen {
            Some(seen) => vec![
                tunnel(walked, seen),
                ike_sa(walked, seen),
                listener(walked, seen),
                agent(walked, seen),
                target(walked, seen),
            ],
            None => {
                let silent = "the gateway does not answer";
                let hidden = [HopName::IkeSa, HopName::Listener, HopName::Agent, HopName::Target];
                let hidden = hidden.map(|hop| Hop::new(hop, State::Unknown, silent));
                let tunnel = Hop::failed(HopName::Tunnel, Reason::GatewayOffline, silent);
                iter::once(tunnel).chain(hidden).collect()
            }
        };
        for failed in hops.iter_mut().filter(|hop| hop.state == State::Failed) {
            failed.advice = Some(advice(failed, walked));
        }
        for hop in hops.iter_mut().filter(|hop| hop.reason.is_some()) {
            hop.links = explained(hop, walked).map(ReasonLinks::of);
        }
        Self {
            share_id: walked.share.id,
            checked_at: walked.at,
            ok: hops.iter().all(|hop| matches!(hop.state, State::Ok | State::Skipped)),
            hops,
        }
    }
}

fn tunnel(walked: &Walked<'_>, seen: &ShareCheck) -> Hop {
    const HOP: HopName = HopName::Tunnel;
    let standing = &walked.tunnel.standing;
    let there_and_back = walked.took.saturating_sub(seen.took.max(seen.dial_took));
    let hop = match (standing.status, &seen.tunnel.problem, &standing.detail) {
        (Status::Deployed, Some(problem), _) => Hop::failed(HOP, problem.reason, problem.message.clone()),
        (Status::Deployed, None, _) => Hop::new(HOP, State::Ok, "the gateway is ready to answer the peer"),
        (_, _, Some(detail)) => Hop::failed(HOP, detail.problem.reason, detail.problem.message.clone()),
        (status, _, None) => Hop::failed(HOP, Reason::TunnelNotReady, format!("its status is {status}")),
    };
    hop.took(there_and_back)
}

fn ike_sa(walked: &Walked<'_>, seen: &ShareCheck) -> Hop {
    const HOP: HopName = HopName::IkeSa;
    let never = || Connection::down(walked.tunnel.created_at);
    let connection = walked.connection().cloned().unwrap_or_else(never);
    if !walked.has_ipsec {
        return Hop::new(
            HOP,
            State::Skipped,
            "not tried, because the gateway runs without IPsec (--ipsec off)",
        );
    }
    if !walked.tunnel.spec.enabled {
        return Hop::new(HOP, State::Unknown, "not tried, because the tunnel is disabled");
    }
    if seen.tunnel.problem.is_some() && seen.tunnel.connection.is_none() {
        return Hop::new(HOP, State::Unknown, "not known while the gateway's own side fails");
    }
    let is_ready = walked.tunnel.standing.status == Status::Deployed;
    let cause = connection.last_error.as_ref().map(|error| &error.cause);
    let but = |what: &str| cause.map_or_else(|| what.to_owned(), |cause| format!("{what}: {cause}"));
    let silent = || connection.silence().map_or_else(String::new, |warning| warning.message.clone());
    let hop = match connection.state {
        ConnectionState::Up if !connection.passes() => Hop::failed(HOP, Reason::PeerDown, silent()),
        ConnectionState::Up if cause.is_some() => {
            Hop::new(HOP, State::Ok, but(&format!("{}, but an attempt failed", up(walked, &connection))))
        }
        ConnectionState::Up => Hop::new(HOP, State::Ok, up(walked, &connection)),
        _ if cause.is_none() && !is_ready => Hop::new(HOP, State::Unknown, "the tunnel is not ready"),
        ConnectionState::Idle => Hop::failed(
            HOP,
            Reason::PeerDown,
            but("both ends are authenticated, but there is no CHILD SA: nothing passes"),
        ),
        ConnectionState::Connecting => {
            Hop::failed(HOP, Reason::PeerDown, but("the IKE SA is being negotiated"))
        }
        ConnectionState::Down if walked.was_up => {
            let lost = format!("the peer was connected, and is down since {}", in_seconds(connection.since));
            Hop::failed(HOP, Reason::PeerDown, but(&lost))
        }
        ConnectionState::Down => Hop::failed(HOP, Reason::PeerDown, but("the peer has not connected")),
    };
    hop.took(walked.read_took)
}

/// Since when the connection is up, and for what part of the site's network if the peer agreed to less.
fn up(walked: &Walked<'_>, connection: &Connection) -> String {
    let peer_cidr = walked.tunnel.spec.peer_cidr;
    let since = format!("up since {}", in_seconds(connection.since));
    let children = &connection.child_sas;
    if children.is_empty() || children.iter().any(|child| !child.selectors.is_narrower(peer_cidr)) {
        return since;
    }
    let agreed: Vec<_> = children.iter().flat_map(|child| child.selectors.peer.iter().cloned()).collect();
    format!("{since}, only for {} of peerCidr, {peer_cidr}", agreed.join(", "))
}

fn listener(walked: &Walked<'_>, seen: &ShareCheck) -> Hop {
    const HOP: HopName = HopName::Listener;
    let hop = match (&seen.listener_problem, seen.bound) {
        (Some(problem), _) if matches!(problem.reason, Reason::Disabled | Reason::Expired) => {
            Hop::failed(HOP, problem.reason, problem.message.clone())
        }
        (_, Some(_)) if let Some(problem) = &seen.refused => {
            Hop::failed(HOP, problem.reason, problem.message.clone())
        }
        (_, Some(bound)) if bound == walked.share.generation => {
            let (address, port) = (walked.tunnel.load_balancer_ip, walked.share.spec.ingress_port);
            let admits = walked.share.spec.options.allowed_sources.as_ref();
            let admits = admits.map(|sources| sources.networks().iter().map(ToString::to_string));
            let admits = admits.map(|networks| networks.collect::<Vec<_>>().join(", "));
            let admits = admits.map(|networks| format!(", and admits only {networks}")).unwrap_or_default();
            let closed = if seen.closed { ", and closed until an agent can serve the share" } else { "" };
            Hop::new(HOP, State::Ok, format!("bound at {address}:{port}{admits}{closed}"))
        }
        (Some(problem), _) => Hop::failed(HOP, problem.reason, problem.message.clone()),
        (None, _) => Hop::failed(HOP, Reason::Pending, "the gateway does not serve the newest change yet"),
    };
    hop.took(seen.listener_took)
}

fn agent(walked: &Walked<'_>, seen: &ShareCheck) -> Hop {
    const HOP: HopName = HopName::Agent;
    let hop = if seen.acknowledged == Some(walked.share.generation) {
        match &seen.dialled {
            Err(problem) if seen.refused.is_none() && !is_the_targets(problem) => {
                Hop::failed(HOP, problem.reason, problem.message.clone())
            }
            Ok(agent) => {
                Hop { agent_id: Some(*agent), ..Hop::new(HOP, State::Ok, "has acknowledged the share") }
            }
            Err(_) => Hop::new(HOP, State::Ok, "has acknowledged the share"),
        }
    } else {
        match &seen.agent_problem {
            Some(problem) => Hop::failed(HOP, problem.reason, problem.message.clone()),
            None => Hop::failed(HOP, Reason::AgentPending, "no agent has acknowledged the newest change yet"),
        }
    };
    match seen.agent_took {
        Some(took) => hop.took(took),
        None => hop,
    }
}

fn target(walked: &Walked<'_>, seen: &ShareCheck) -> Hop {
    const HOP: HopName = HopName::Target;
    match &seen.dialled {
        Ok(_) => took_connection(walked).took(seen.dial_took),
        Err(problem) if is_the_targets(problem) => {
            Hop::failed(HOP, problem.reason, problem.message.clone()).took(seen.dial_took)
        }
        Err(_) if seen.refused.is_some() => {
            Hop::new(HOP, State::Unknown, "not dialled, because the listener refuses the next client")
        }
        Err(_) => Hop::new(HOP, State::Unknown, "no agent dialled it"),
    }
}

/// A service that hangs takes connections, too: what clients met with is said beside it.
fn took_connection(walked: &Walked<'_>) -> Hop {
    let took = format!("{} took a connection", walked.share.spec.target);
    let Some((problem, count)) = &walked.unanswered else {
        return Hop::new(HopName::Target, State::Ok, took);
    };
    let message = format!("{took}; on the last {count} connections of clients that sent bytes, it sent none");
    Hop {
        reason: Some(problem.reason),
        advice: Some(capitalized(&problem.message)),
        ..Hop::new(HopName::Target, State::Ok, message)
    }
}

/// Whether a dial failed at the target, not at an agent.
fn is_the_targets(problem: &Problem) -> bool {
    matches!(problem.reason, Reason::TargetUnreachable | Reason::TargetClosed)
}

/// Why no connection was opened, where the cause says more than the hop's reason.
fn told_apart(hop: &Hop, walked: &Walked<'_>) -> Option<FailureReason> {
    use FailureReason::{AgentTimeout, NoCarrier};
    let failure = walked.seen.as_ref()?.failure?;
    let says_more = match (hop.hop, hop.reason) {
        (HopName::Target, Some(Reason::TargetUnreachable)) => true,
        (HopName::Agent, Some(Reason::AgentOffline)) => matches!(failure, NoCarrier | AgentTimeout),
        _ => false,
    };
    says_more.then_some(failure)
}

/// The name that says most about a hop with a reason.
fn explained(hop: &Hop, walked: &Walked<'_>) -> Option<&'static str> {
    let error = walked.connection().and_then(|connection| connection.last_error.as_ref());
    match (hop.hop, told_apart(hop, walked), error) {
        (_, Some(failure), _) => Some(failure.as_str()),
        (HopName::IkeSa, None, Some(error)) => Some(error.reason.as_str()),
        (_, None, _) => hop.reason.map(Reason::as_str),
    }
}

/// What to do about a failed hop.
fn advice(hop: &Hop, walked: &Walked<'_>) -> String {
    let share = walked.share;
    if let Some(failure) = told_apart(hop, walked) {
        return capitalized(failure.advice());
    }
    match (hop.hop, hop.reason) {
        (HopName::IkeSa, _) => peer_advice(walked),
        (HopName::Tunnel, Some(Reason::TunnelFailed)) => {
            "The fault is at the gateway, not at the site. Do what the message says; where it says nothing to do, check again in \
             10 s, and if it recurs, see the log of the gateway"
                .to_owned()
        }
        (_, Some(Reason::GatewayOffline)) => {
            "Start the gateway of the tunnel's location, or see its log".to_owned()
        }
        (_, Some(Reason::GatewayFull)) => {
            "Delete a tunnel, or give the gateway more memory, open files, or --max-tunnels".to_owned()
        }
        (_, Some(Reason::PeerAddressTaken)) => {
            "Set peerPublicIp of the tunnel to the address of the site's device, or ask the operator".to_owned()
        }
        (_, Some(Reason::Disabled)) => enable(walked),
        (_, Some(Reason::Expired)) => format!("Set expiresAt of share {} to a later time, or to null", share.named()),
        (_, Some(Reason::PortInUse)) => format!(
            "Choose another ingressPort than {}, or end the program that holds it at the gateway",
            share.spec.ingress_port
        ),
        (_, Some(Reason::AgentOffline)) => start_agent(walked),
        (_, Some(Reason::AgentSilent)) => {
            "Check that the agent's host runs and is not overloaded, and the line between it and the gateway".to_owned()
        }
        (_, Some(Reason::AgentRefused)) => {
            format!("Add {} to the agent's allow list, or choose another target", share.spec.target)
        }
        (_, Some(Reason::AgentExhausted)) => {
            "Raise the limit that the message names, or start another agent of the environment on another host"
                .to_owned()
        }
        (_, Some(Reason::TargetUnreachable)) => format!(
            "See to it that {} listens, and that the agent's machine reaches it: its name, its route, its firewall",
            share.spec.target
        ),
        (_, Some(Reason::ConnectionLimit)) => {
            "End some connections, or raise maxConnections of the share; the limits of a tunnel and of the gateway follow from \
             the gateway's limit of open files"
                .to_owned()
        }
        (_, Some(Reason::TargetClosed)) if share.spec.options.proxy_protocol.is_some() => format!(
            "Set {} to expect the PROXY protocol, version 2, or the share's proxyProtocol to null",
            share.spec.target
        ),
        (_, Some(Reason::TargetClosed)) => format!(
            "See the log of the service at {}: it is starting or overloaded, refuses the agent's address, or expects the PROXY \
             protocol (the share's proxyProtocol)",
            share.spec.target
        ),
        (_, Some(Reason::Pending | Reason::AgentPending | Reason::TunnelNotReady)) => {
            "Check again in a moment; if it stays so, see the log of the gateway".to_owned()
        }
        _ => "See the log of the gateway".to_owned(),
    }
}

fn start_agent(walked: &Walked<'_>) -> String {
    let z_id = &walked.share.z_id;
    format!(
        "Start a hosting agent of the environment {}, and see to it that it reaches the gateway. A new or removed agent, \
         and one that was offline for a month, needs a code of `wicketgate agent enroll --env {z_id}`",
        walked.environment.as_ref().map_or_else(|| z_id.to_string(), ToString::to_string)
    )
}

fn enable(walked: &Walked<'_>) -> String {
    if walked.tunnel.spec.enabled {
        format!("Set enabled of share {} to true", walked.share.named())
    } else {
        format!("Set enabled of tunnel {} to true", walked.tunnel.named())
    }
}

/// What to do about a peer that is silent or not connected: the cure of the last error, where it is known.
fn peer_advice(walked: &Walked<'_>) -> String {
    let connection = walked.connection();
    if connection.is_some_and(|c| c.state == ConnectionState::Up && !c.passes()) {
        return format!(
            "See that the remote device, {}, and its line are up. If they are back within 20 s, traffic goes on; otherwise \
             the gateway ends the connection and calls the device back",
            walked.tunnel.spec.peer_address
        );
    }
    let error = connection.and_then(|c| c.last_error.as_ref());
    if let Some(error) = error.filter(|error| !error.cure.is_empty()) {
        return capitalized(&error.cure);
    }
    if connection.is_some_and(|c| c.state == ConnectionState::Idle) {
        return "Have the site's device bring up the CHILD SA (phase 2) with the networks of the tunnel's vpn-config"
            .to_owned();
    }
    format!(
        "Bring the tunnel up at the remote device, {}. If it tries and nothing comes of it, see to it that this is the address \
         that it sends from, and that UDP 500 and 4500 get through both ways",
        walked.tunnel.spec.peer_address
    )
}

pub(in crate::api) fn links(share: &ShareRow) -> Links {
    vec![
        ("ipsecShare", Share::path(share.frontdoor, share.id)),
        ("ipsecTunnel", Tunnel::path(share.frontdoor, share.spec.tunnel)),
    ]
}

/// Refuses a body that has properties.
pub(in crate::api) fn nothing(body: Map<String, Value>) -> Result<(), ApiError> {
    Fields::new(body, &[]).finish(|| Some(()))
}

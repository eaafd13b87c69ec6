//! A walk along a share's path in JSON. Each hop that fails says what to do about it.

mod advice;
pub(in crate::api) mod for_site;
mod hop;

use super::{answer::Links, fields::Fields, share::Share, tunnel::Tunnel};
use crate::{
    error::{ApiError, capitalized, in_seconds},
    reason_link::ReasonLinks,
};
use advice::{advice, explained};
use hop::{Hop, HopName, State};
use jiff::Timestamp;
use serde::Serialize;
use serde_json::{Map, Value};
use std::iter;
use wicketgate_link::ShareCheck;
use wicketgate_model::{Connection, ConnectionState, Problem, Reason, ShareId, Status};
use wicketgate_store::ShareRow;

pub(in crate::api) use hop::Walked;

/// Of hops behind a tunnel that is not served for it.
const ADDRESS_IS_LOST: &str = "not tried, because the tunnel has lost the address of its peer";

#[derive(Debug, Serialize)]
#[serde(rename_all = "camelCase")]
pub(in crate::api) struct Check {
    share_id: ShareId,
    checked_at: Timestamp,
    /// No hop has failed, and none is unknown.
    ok: bool,
    hops: Vec<Hop>,
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
    // Of such a tunnel, the gateway says that it is disabled.
    if walked.has_lost_address() {
        let address = walked.tunnel.spec.peer_address;
        let message = format!(
            "another customer's tunnel has {address}, this tunnel's peerPublicIp: nothing of this one is served"
        );
        return Hop::failed(HOP, Reason::PeerAddressTaken, message).took(there_and_back);
    }
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
    if walked.has_lost_address() {
        return Hop::new(HOP, State::Unknown, ADDRESS_IS_LOST);
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
        // The gateway knows only that it serves nothing of such a tunnel.
        (Some(problem), _) if problem.reason == Reason::Disabled && walked.has_lost_address() => {
            Hop::new(HOP, State::Unknown, ADDRESS_IS_LOST)
        }
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

//! What to do about a hop that failed.

use super::hop::{Hop, HopName, Walked};
use crate::error::capitalized;
use wicketgate_model::{ConnectionState, EXPIRED_ASSIGNMENT, FailureReason, OLDER_ASSIGNMENT, Reason};

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
pub(super) fn explained(hop: &Hop, walked: &Walked<'_>) -> Option<&'static str> {
    let error = walked.connection().and_then(|connection| connection.last_error.as_ref());
    match (hop.hop, told_apart(hop, walked), error) {
        (_, Some(failure), _) => Some(failure.as_str()),
        (HopName::IkeSa, None, Some(error)) => Some(error.reason.as_str()),
        (_, None, _) => hop.reason.map(Reason::as_str),
    }
}

const UNREACHABLE: &str =
    "Check that the gateway's host runs and reaches the servers: its log says which it dials";

/// What to do about a failed hop.
pub(super) fn advice(hop: &Hop, walked: &Walked<'_>) -> String {
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
        (_, Some(Reason::GatewayUnreachable)) => UNREACHABLE.to_owned(),
        (_, Some(Reason::GatewayFull)) => {
            "Delete a tunnel, or give the gateway more memory, open files, or --max-tunnels".to_owned()
        }
        (_, Some(Reason::PeerAddressTaken)) => other_address(walked),
        // The gateway has heard of it, and the status does not say so yet.
        (_, Some(Reason::Disabled)) if walked.has_lost_address() => other_address(walked),
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
        (_, Some(Reason::AgentRefused)) => refused(hop, walked),
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

/// By the agent's words: the reason is one, and its causes are several.
fn refused(hop: &Hop, walked: &Walked<'_>) -> String {
    if hop.message.contains(OLDER_ASSIGNMENT) {
        "The agent has seen newer assignments than the server's, as after a restore: stop the server and run \
         `wicketgate restore --in-place` on its host, if it is the one that goes on"
            .to_owned()
    } else if hop.message.contains(EXPIRED_ASSIGNMENT) {
        "Correct the clock of the agent's host if it is wrong (`timedatectl set-ntp true`); otherwise restart the gateway, which \
         keeps newer assignments to itself"
            .to_owned()
    } else {
        format!("Add {} to the agent's allow list, or choose another target", walked.share.spec.target)
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

/// To enable it would not help: another address does, or the operator.
fn other_address(walked: &Walked<'_>) -> String {
    let spec = &walked.tunnel.spec;
    let (name, address) = (&spec.name, spec.peer_address);
    format!(
        "If {address} is not the address of the site's device, run `wicketgate tunnel update {name} --peer-public-ip ADDRESS` \
         with that. If it is, ask the operator, who gives it back with `wicketgate tunnel update {name} --take-peer-address`"
    )
}

fn enable(walked: &Walked<'_>) -> String {
    if walked.tunnel.spec.enabled {
        format!("Run `wicketgate share enable {}`, or set its enabled to true", walked.share.spec.name)
    } else {
        format!("Run `wicketgate tunnel enable {}`, or set its enabled to true", walked.tunnel.spec.name)
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

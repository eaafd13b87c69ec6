//! A check of a share: what a client's connection passes, from the tunnel to the target, without a client.

use std::{
    sync::Arc,
    time::{Duration, Instant},
};

use wicketgate_link::{ShareCheck, TunnelCheck};
use wicketgate_model::{FailureReason, Problem, ProxyProtocol, Reason, ShareId, TunnelDesired};

use crate::{
    agents::AgentStanding, listener::ShareState, parts::GatewayParts, proxy_protocol,
    traffic_room::TunnelPlaces,
};

/// What is checked.
pub(crate) struct CheckedShare {
    pub(crate) share: ShareId,
    /// `None`: the gateway does not have the share.
    pub(crate) place: Option<(Arc<ShareState>, Arc<TunnelDesired>, Arc<TunnelPlaces>)>,
}

impl CheckedShare {
    /// Within the time limit for opening a client's connection.
    pub(crate) async fn check(self, parts: &GatewayParts) -> ShareCheck {
        let begin = Instant::now();
        let (bound, listener_problem) = parts.observations.listener(self.share);
        let refused = self.refused(parts);
        let closed = !*parts.agents.is_open(self.share).borrow();
        let listener_took = begin.elapsed();
        let AgentStanding { ready: acknowledged, problem: agent_problem, .. } =
            parts.agents.standing(self.share);
        let agent_took = parts.agents.nearest(self.share);
        let options = self.place.as_ref().map(|(state, ..)| state.options.get());
        let preface = match options.and_then(|options| options.proxy_protocol) {
            Some(ProxyProtocol::V2) => proxy_protocol::header_of_check(),
            None => Vec::new(),
        };
        let dial = async {
            match &refused {
                // The target has as many connections as it may get.
                Some(problem) => (Err(problem.clone()), None, Duration::ZERO),
                None => parts.agents.dial(self.share, preface).await,
            }
        };
        let (tunnel, (dialled, failure, dial_took)) = tokio::join!(self.inspect(parts), dial);
        ShareCheck {
            tunnel,
            bound,
            listener_problem,
            refused,
            closed,
            acknowledged,
            agent_problem,
            listener_took,
            agent_took,
            dialled,
            failure,
            dial_took,
            took: begin.elapsed(),
        }
    }

    /// Why the listener would refuse another client now. Takes no client's place.
    fn refused(&self, parts: &GatewayParts) -> Option<Problem> {
        let (state, _, tunnel) = self.place.as_ref()?;
        let reason = state.admit(None, tunnel, parts).map(drop).err()?;
        let limits = parts.room.limits();
        let (whose, most) = match reason {
            FailureReason::ShareFull => {
                let own = state.options.get().max_connections;
                ("the share", own.map_or(limits.share as u64, |most| most.get().into()))
            }
            FailureReason::TunnelFull => ("the share's tunnel", limits.tunnel as u64),
            FailureReason::FrontdoorFull => {
                ("the share's Frontdoor", limits.frontdoor.unwrap_or(limits.gateway) as u64)
            }
            _ => ("the gateway", limits.gateway as u64),
        };
        let message = format!("{whose} has its maximum of {most} connections: the next client is reset");
        Some(Problem::new(Reason::ConnectionLimit, message))
    }

    /// A problem that is known already needs no look: it may be what the look would wait for.
    async fn inspect(&self, parts: &GatewayParts) -> TunnelCheck {
        let Some((_, tunnel, _)) = &self.place else { return TunnelCheck::default() };
        match parts.observations.tunnel_problem(tunnel.id) {
            Some(problem) => TunnelCheck { problem: Some(problem), connection: None },
            None => parts.backend.inspect(tunnel.id).await,
        }
    }
}

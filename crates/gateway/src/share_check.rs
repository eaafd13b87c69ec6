//! A check of a share: what a client's connection passes, from the tunnel to the target, without a client.

use std::{sync::Arc, time::Instant};

use wicketgate_link::{ShareCheck, TunnelCheck};
use wicketgate_model::{FailureReason, Problem, ProxyProtocol, Reason, ShareId, TunnelDesired};

use crate::{
    agents::AgentStanding, listener::ShareState, parts::GatewayParts, proxy_protocol, quota::ConnectionQuota,
};

/// What is checked.
pub(crate) struct CheckedShare {
    pub(crate) share: ShareId,
    /// `None`: the gateway does not have the share.
    pub(crate) place: Option<(Arc<ShareState>, Arc<TunnelDesired>, Arc<ConnectionQuota>)>,
}

impl CheckedShare {
    /// Within the time limit for opening a client's connection.
    pub(crate) async fn check(self, parts: &GatewayParts) -> ShareCheck {
        let begin = Instant::now();
        let (bound, listener_problem) = parts.observations.listener(self.share);
        let (refused, admitted) = match self.admit(parts) {
            Ok(admitted) => (None, admitted),
            Err(problem) => (Some(problem), None),
        };
        let listener_took = begin.elapsed();
        let AgentStanding { ready: acknowledged, problem: agent_problem } = parts.agents.standing(self.share);
        let agent_took = parts.agents.nearest(self.share);
        let options = self.place.as_ref().map(|(state, ..)| state.options.get());
        let preface = match options.and_then(|options| options.proxy_protocol) {
            Some(ProxyProtocol::V2) => proxy_protocol::header_of_check(),
            None => Vec::new(),
        };
        let (tunnel, (dialled, dial_took)) =
            tokio::join!(self.inspect(parts), parts.agents.dial(self.share, preface));
        drop(admitted);
        ShareCheck {
            tunnel,
            bound,
            listener_problem,
            refused,
            acknowledged,
            agent_problem,
            listener_took,
            agent_took,
            dialled,
            dial_took,
        }
    }

    /// Takes a place as a client's connection would.
    fn admit(&self, parts: &GatewayParts) -> Result<Option<impl Sized + use<>>, Problem> {
        let Some((state, _, tunnel)) = &self.place else { return Ok(None) };
        state.admit(None, tunnel, parts).map(Some).map_err(|reason| {
            let whose = match reason {
                FailureReason::ShareFull => "the share",
                FailureReason::TunnelFull => "the share's tunnel",
                _ => "the gateway",
            };
            let limits = &parts.limits;
            let most = match reason {
                FailureReason::ShareFull => {
                    state.options.get().max_connections.map_or(limits.share as u64, |most| most.get().into())
                }
                FailureReason::TunnelFull => limits.tunnel as u64,
                _ => limits.gateway as u64,
            };
            let message = format!("{whose} has its maximum of {most} connections: the next client is reset");
            Problem::new(Reason::ConnectionLimit, message)
        })
    }

    /// A problem that is known already needs no look: it may be what the look would wait for.
    async fn inspect(&self, parts: &GatewayParts) -> TunnelCheck {
        let Some((_, tunnel, _)) = &self.place else { return TunnelCheck::default() };
        match parts.observations.tunnel_problem(tunnel.id) {
            Some(problem) => TunnelCheck { problem: Some(problem), connection: None },
            None => parts.backend.inspect(tunnel).await,
        }
    }
}

//! What gateways are asked: those that are linked here, and others through their servers.

use std::net::Ipv4Addr;

use futures_util::future;
use wicketgate_link::{AgentShares, IkeLogLine, ShareCheck};
use wicketgate_model::{AgentId, GatewayId, ResetMode, ResetScope, ShareId, TunnelId};

use super::{
    Gateways, LinkedGateway, TooManyChecks,
    peers::{GatewayAsk, PeerAnswer, PeerQuestion, Strangers},
};

impl Gateways {
    /// Inspects a share's path at its gateway. `None`: no gateway answers, or too many checks run.
    pub(crate) async fn check(
        &self,
        gateway: Option<GatewayId>,
        share: ShareId,
        organization: &str,
    ) -> Result<Option<ShareCheck>, TooManyChecks> {
        let organization = organization.to_owned();
        match self.ask(gateway, GatewayAsk::Check { share, organization }).await {
            Some(PeerAnswer::Checked(check)) => Ok(Some(*check)),
            Some(PeerAnswer::TooManyChecks(many)) => Err(many),
            _ => Ok(None),
        }
    }

    /// Resets the share's open connections, all or those of one client, and returns how many; `None`: no gateway answers.
    pub(crate) async fn close_connections(
        &self,
        gateway: Option<GatewayId>,
        share: ShareId,
        source: Option<Ipv4Addr>,
    ) -> Option<u64> {
        match self.ask(gateway, GatewayAsk::Close { share, source }).await? {
            PeerAnswer::Closed(closed) => Some(closed),
            _ => None,
        }
    }

    /// Resets the tunnel's SAs, and returns what was seen, or why it failed; `None`: no gateway answers.
    pub(crate) async fn reset(
        &self,
        gateway: Option<GatewayId>,
        tunnel: TunnelId,
        scope: ResetScope,
        mode: ResetMode,
    ) -> Option<Result<String, String>> {
        match self.ask(gateway, GatewayAsk::Reset { tunnel, scope, mode }).await? {
            PeerAnswer::Reset(outcome) => Some(outcome),
            _ => None,
        }
    }

    /// The first lines of the tunnel's IKE log with a number above `after`; `None`: no gateway answers.
    pub(crate) async fn ike_log(
        &self,
        gateway: Option<GatewayId>,
        tunnel: TunnelId,
        after: u64,
    ) -> Option<Vec<IkeLogLine>> {
        match self.ask(gateway, GatewayAsk::IkeLog { tunnel, after }).await? {
            PeerAnswer::IkeLog(lines) => Some(lines),
            _ => None,
        }
    }

    /// The shares of these agents as their gateways report them; agents without a connection are left out.
    pub(crate) async fn agent_shares(&self, agents: &[AgentId]) -> Vec<AgentShares> {
        if agents.is_empty() {
            return Vec::new();
        }
        let (here, elsewhere) = tokio::join!(
            self.agent_shares_here(agents),
            self.ask_others(PeerQuestion::Agents(agents.to_vec()))
        );
        let elsewhere = elsewhere.into_iter().flat_map(|answer| match answer {
            PeerAnswer::Agents(shares) => shares,
            _ => Vec::new(),
        });
        here.into_iter().chain(elsewhere).collect()
    }

    /// Whom the gateways do not know.
    pub(crate) async fn strangers(&self) -> Vec<Strangers> {
        let elsewhere = self.ask_others(PeerQuestion::Strangers).await.into_iter();
        let elsewhere = elsewhere.flat_map(|answer| match answer {
            PeerAnswer::Strangers(strangers) => strangers,
            _ => Vec::new(),
        });
        self.strangers_here().into_iter().chain(elsewhere).collect()
    }

    /// Answers another server, for gateways that are linked to this one.
    pub(crate) async fn answer(&self, question: PeerQuestion) -> PeerAnswer {
        match question {
            PeerQuestion::Of { gateway, ask } => self.answer_of(gateway, ask).await,
            PeerQuestion::Agents(agents) => PeerAnswer::Agents(self.agent_shares_here(&agents).await),
            PeerQuestion::Strangers => PeerAnswer::Strangers(self.strangers_here()),
        }
    }

    async fn ask(&self, gateway: Option<GatewayId>, ask: GatewayAsk) -> Option<PeerAnswer> {
        let id = gateway?;
        match self.peers.get() {
            Some(peers) if self.linked(gateway).is_none() => peers.ask(id, ask).await,
            _ => Some(self.answer_of(id, ask).await),
        }
    }

    async fn ask_others(&self, question: PeerQuestion) -> Vec<PeerAnswer> {
        match self.peers.get() {
            Some(peers) => peers.ask_all(question).await,
            None => Vec::new(),
        }
    }

    async fn answer_of(&self, gateway: GatewayId, ask: GatewayAsk) -> PeerAnswer {
        let Some(LinkedGateway { view, rpc, .. }) = self.answering(Some(gateway)) else {
            return PeerAnswer::NotHere;
        };
        let answer = match ask {
            GatewayAsk::Check { share, organization } => match rpc.check(share, &organization).await {
                Ok(seen) => {
                    if seen.as_ref().is_some_and(|seen| seen.dialled.is_ok()) {
                        view.reached(share);
                    }
                    seen.map(|seen| PeerAnswer::Checked(Box::new(seen)))
                }
                Err(many) => Some(PeerAnswer::TooManyChecks(many)),
            },
            GatewayAsk::Close { share, source } => {
                rpc.close_connections(share, source).await.map(PeerAnswer::Closed)
            }
            GatewayAsk::Reset { tunnel, scope, mode } => {
                rpc.reset(tunnel, scope, mode).await.map(PeerAnswer::Reset)
            }
            GatewayAsk::IkeLog { tunnel, after } => rpc.ike_log(tunnel, after).await.map(PeerAnswer::IkeLog),
        };
        answer.unwrap_or(PeerAnswer::Silent)
    }

    async fn agent_shares_here(&self, agents: &[AgentId]) -> Vec<AgentShares> {
        let linked = self.linked_now();
        let answering = linked.values().filter(|gateway| gateway.answers());
        let answers = answering.map(|gateway| gateway.rpc.agent_shares(agents.to_vec()));
        future::join_all(answers).await.concat()
    }

    fn strangers_here(&self) -> Vec<Strangers> {
        let linked = self.linked_now();
        let of = |gateway: &LinkedGateway| {
            let view = gateway.view.lock();
            let (peers, agents) = (view.unknown_peers.clone(), view.unknown_agents.clone());
            Strangers { location: gateway.location.clone(), peers, agents }
        };
        linked.values().map(of).collect()
    }
}

//! Requests to a gateway, and how long the server waits for the answers.

use std::{net::Ipv4Addr, sync::Arc, time::Duration};

use serde::{Deserialize, Serialize};
use tokio::{
    sync::{Semaphore, mpsc},
    time::timeout,
};
use wicketgate_link::{AgentShares, IkeLogLine, Pending, RequestId, ShareCheck, ToGateway};
use wicketgate_model::{AgentId, ResetMode, ResetScope, ShareId, TunnelId};

use crate::turns::Turns;

/// A gateway answers after a dial, which takes 15 s at most.
pub(super) const CHECK_WITHIN: Duration = Duration::from_secs(20);
/// A gateway answers at once, from memory.
const SHARES_WITHIN: Duration = Duration::from_secs(2);
/// A gateway answers at once, behind the reports that wait in its link.
pub(super) const CLOSED_WITHIN: Duration = Duration::from_secs(10);
/// A gateway answers when it has seen the outcome, within 50 s.
pub(super) const RESET_WITHIN: Duration = Duration::from_secs(60);
/// A gateway answers at once, from memory.
pub(super) const LOG_WITHIN: Duration = Duration::from_secs(5);
/// Checks at one time: their dials must not crowd out the connections of sites.
const CHECKS: usize = 32;
/// Of one organization: an eighth, since a check whose target does not answer takes as long as it may.
const CHECKS_OF_ORGANIZATION: usize = 4;
/// For a place among the checks.
pub(super) const PLACE_WITHIN: Duration = Duration::from_secs(5);
/// Requests that wait for an answer at one time: as many as the API has connections.
const WAITING: usize = 512;

/// Why a check was not begun.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) enum TooManyChecks {
    OfOrganization,
    OfGateway,
}

/// Cheap to clone.
#[derive(Debug, Clone)]
pub struct GatewayRpc {
    send: mpsc::Sender<ToGateway>,
    checking: Arc<Semaphore>,
    organizations: Arc<Turns>,
    checks: Pending<ShareCheck>,
    shares: Pending<Vec<AgentShares>>,
    closed: Pending<u64>,
    resets: Pending<Result<String, String>>,
    logs: Pending<Vec<IkeLogLine>>,
}

impl GatewayRpc {
    pub fn new(send: mpsc::Sender<ToGateway>) -> Self {
        let checking = Arc::new(Semaphore::new(CHECKS));
        Self {
            send,
            checking,
            organizations: Arc::new(Turns::new(CHECKS_OF_ORGANIZATION)),
            checks: Pending::new(WAITING),
            shares: Pending::new(WAITING),
            closed: Pending::new(WAITING),
            resets: Pending::new(WAITING),
            logs: Pending::new(WAITING),
        }
    }

    /// For an organization, whose checks wait for each other. `None`: the gateway does not answer.
    pub(crate) async fn check(
        &self,
        share: ShareId,
        organization: &str,
    ) -> Result<Option<ShareCheck>, TooManyChecks> {
        let turn = self.organizations.take(organization, PLACE_WITHIN).await;
        let turn = turn.ok_or(TooManyChecks::OfOrganization)?;
        let place = timeout(PLACE_WITHIN, Arc::clone(&self.checking).acquire_owned()).await;
        let place = place.map_err(|_| TooManyChecks::OfGateway)?;
        let own = self.clone();
        // The gateway goes on with a check whose client has gone: it keeps its places until then.
        let checked = tokio::spawn(async move {
            let ask = own.ask(&own.checks, CHECK_WITHIN, |request| ToGateway::Check { request, share });
            let answer = timeout(CHECK_WITHIN, ask).await.ok().flatten();
            drop((turn, place));
            answer
        });
        Ok(checked.await.ok().flatten())
    }

    /// Empty if the gateway does not answer.
    pub(crate) async fn agent_shares(&self, agents: Vec<AgentId>) -> Vec<AgentShares> {
        let ask = self.ask(&self.shares, SHARES_WITHIN, |request| ToGateway::Agents { request, agents });
        timeout(SHARES_WITHIN, ask).await.ok().flatten().unwrap_or_default()
    }

    /// `None`: the gateway does not answer.
    pub(crate) async fn close_connections(&self, share: ShareId, source: Option<Ipv4Addr>) -> Option<u64> {
        let ask = self.ask(&self.closed, CLOSED_WITHIN, |request| ToGateway::CloseConnections {
            request,
            share,
            source,
        });
        timeout(CLOSED_WITHIN, ask).await.ok().flatten()
    }

    /// What was seen of the reset, or why it failed; `None`: the gateway does not answer.
    pub(crate) async fn reset(
        &self,
        tunnel: TunnelId,
        scope: ResetScope,
        mode: ResetMode,
    ) -> Option<Result<String, String>> {
        let ask =
            self.ask(&self.resets, RESET_WITHIN, |request| ToGateway::Reset { request, tunnel, scope, mode });
        timeout(RESET_WITHIN, ask).await.ok().flatten()
    }

    /// `None`: the gateway does not answer.
    pub(crate) async fn ike_log(&self, tunnel: TunnelId, after: u64) -> Option<Vec<IkeLogLine>> {
        let ask = self.ask(&self.logs, LOG_WITHIN, |request| ToGateway::IkeLog { request, tunnel, after });
        timeout(LOG_WITHIN, ask).await.ok().flatten()
    }

    async fn ask<A>(
        &self,
        pending: &Pending<A>,
        within: Duration,
        question: impl FnOnce(RequestId) -> ToGateway,
    ) -> Option<A> {
        let call = pending.call()?;
        self.send.send(question(call.id())).await.ok()?;
        call.answer(within).await
    }

    /// The gateway's answer to a check.
    pub fn checked(&self, request: RequestId, check: ShareCheck) {
        self.checks.answer(request, check);
    }

    /// The gateway's answer about its agents.
    pub fn agents_answered(&self, request: RequestId, agents: Vec<AgentShares>) {
        self.shares.answer(request, agents);
    }

    /// How many connections the gateway has reset.
    pub fn connections_closed(&self, request: RequestId, closed: u64) {
        self.closed.answer(request, closed);
    }

    /// The outcome of a reset.
    pub fn reset_done(&self, request: RequestId, outcome: Result<String, String>) {
        self.resets.answer(request, outcome);
    }

    /// Lines of an IKE log.
    pub fn ike_log_answered(&self, request: RequestId, lines: Vec<IkeLogLine>) {
        self.logs.answer(request, lines);
    }

    /// The link is gone: whatever waits gets no answer.
    pub fn abandon(&self) {
        self.checks.abandon();
        self.shares.abandon();
        self.closed.abandon();
        self.resets.abandon();
        self.logs.abandon();
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use uuid::Uuid;

    fn share(n: usize) -> ShareId {
        ShareId::new(Uuid::from_u128(n as u128))
    }

    async fn asked(received: &mut mpsc::Receiver<ToGateway>) -> ShareId {
        match timeout(PLACE_WITHIN / 5, received.recv()).await {
            Ok(Some(ToGateway::Check { share, .. })) => share,
            other => panic!("{other:?}"),
        }
    }

    #[tokio::test(start_paused = true)]
    async fn checks_that_hang_keep_those_of_their_own_organization_waiting_only() {
        let (send, mut received) = mpsc::channel(64);
        let rpc = GatewayRpc::new(send);
        let check = |n: usize, organization: &'static str| {
            let rpc = rpc.clone();
            tokio::spawn(async move { rpc.check(share(n), organization).await })
        };
        let hanging: Vec<_> = (0..48).map(|n| check(n, "a")).collect();
        for n in 0..CHECKS_OF_ORGANIZATION {
            assert_eq!(asked(&mut received).await, share(n));
        }
        let _other = check(100, "b");
        assert_eq!(asked(&mut received).await, share(100), "another organization does not wait");
        let mut answers = Vec::new();
        for check in hanging {
            answers.push(check.await.unwrap().err());
        }
        let refused =
            answers.iter().filter(|refused| **refused == Some(TooManyChecks::OfOrganization)).count();
        assert_eq!(refused, 48 - CHECKS_OF_ORGANIZATION, "{answers:?}");
        // Their places are free again.
        let _next = check(101, "a");
        assert_eq!(asked(&mut received).await, share(101));
    }

    #[tokio::test(start_paused = true)]
    async fn beyond_all_checks_one_is_refused() {
        let (send, _received) = mpsc::channel(64);
        let rpc = GatewayRpc::new(send);
        let checks = (0..CHECKS + 1).map(|n| {
            let rpc = rpc.clone();
            async move { rpc.check(share(n), &n.to_string()).await }
        });
        let answers = futures_util::future::join_all(checks).await;
        let refused: Vec<_> = answers.iter().filter_map(|answer| answer.as_ref().err()).collect();
        assert_eq!(refused, [&TooManyChecks::OfGateway]);
    }
}

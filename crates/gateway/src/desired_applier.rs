//! Applies the desired state that arrives over the link: to the agents, the tunnels' tasks and the observations.

use std::{collections::BTreeMap, net::IpAddr, sync::Arc};

use jiff::Timestamp;
use tokio::sync::mpsc;
use tracing::{error, info, warn};
use wicketgate_link::{FromGateway, Handshake, LinkReceiver, RequestId, ToGateway};
use wicketgate_model::{
    Desired, DesiredDelta, ResetMode, ResetScope, ShareDesired, ShareId, Touched, TunnelDesired, TunnelId,
};

use crate::{
    listener::ShareState,
    parts::GatewayParts,
    share_check::CheckedShare,
    tunnel::{TunnelInbox, TunnelTask},
};

/// See the module.
pub(crate) struct DesiredApplier {
    parts: GatewayParts,
    /// For answers.
    link: mpsc::Sender<FromGateway>,
    desired: Desired,
    tunnels: BTreeMap<TunnelId, Arc<TunnelInbox>>,
    share_states: BTreeMap<ShareId, Arc<ShareState>>,
}

impl DesiredApplier {
    pub(crate) fn new(parts: GatewayParts, link: mpsc::Sender<FromGateway>) -> Self {
        let desired = Desired::default();
        Self { parts, link, desired, tunnels: BTreeMap::new(), share_states: BTreeMap::new() }
    }

    /// Serves until the gateway stops, and then hears which traffic is recorded, until its connections have ended. `left_over` are the
    /// tunnels of an earlier run.
    pub(crate) async fn run(mut self, handshake: Handshake<ToGateway>, left_over: Vec<TunnelId>) {
        let (stop, end) = (self.parts.stop.clone(), self.parts.abort.token().clone());
        let (spool, mut link) = (Arc::clone(&self.parts.spool), None);
        let serve = async {
            match handshake.finish().await {
                Ok((_, messages)) => self.receive(link.insert(messages), left_over).await,
                Err(error) => error!(%error, "the link to the server cannot be opened"),
            }
            // The data plane does not need the control plane: it keeps serving.
            warn!("the link to the server ended; the gateway keeps serving its last desired state");
            std::future::pending::<()>().await;
        };
        stop.run_until_cancelled(serve).await;
        drop(self);
        if let Some(messages) = &mut link {
            end.run_until_cancelled(spool.hear(messages)).await;
        }
    }

    async fn receive(&mut self, messages: &mut LinkReceiver<ToGateway>, left_over: Vec<TunnelId>) {
        let mut left_over = Some(left_over);
        while let Some(message) = messages.recv().await {
            match message {
                ToGateway::Hello(_) => {}
                ToGateway::Desired { sequence, delta } => {
                    let reset = delta.reset;
                    let steps = if reset { self.steps_to(&delta) } else { delta };
                    self.apply(&steps);
                    if let Some(found) = reset.then(|| left_over.take()).flatten() {
                        self.remove_left_over(found);
                    }
                    self.parts.observations.heard(sequence, reset);
                }
                ToGateway::Check { request, share } => self.check(request, share),
                ToGateway::CloseConnections { request, share, source } => {
                    let open = self.share_states.get(&share).map(|state| &state.open);
                    let closed = open.map_or(0, |open| open.close(source.map(IpAddr::V4)));
                    info!(share.id = %share, closed, "connections of the share were reset on request");
                    self.answer(FromGateway::ConnectionsClosed { request, closed });
                }
                ToGateway::Reset { request, tunnel, scope, mode } => self.reset(request, tunnel, scope, mode),
                ToGateway::IkeLog { request, tunnel, after } => self.ike_log(request, tunnel, after),
                ToGateway::Agents { request, agents } => {
                    let agents = self.parts.agents.shares(&agents);
                    // Where the link is full, the server's request ends by its own time limit.
                    let _ = self.link.try_send(FromGateway::Agents { request, agents });
                }
                ToGateway::Enrolled { request, answer } => self.parts.agents.enrolled(request, answer),
                ToGateway::Renewed { request, answer } => self.parts.agents.renewed(request, answer),
                ToGateway::TrafficRecorded { spool, number } => self.parts.spool.recorded(spool, number),
            }
        }
    }

    /// Answers when the link has room. The server's request ends by its own time limit.
    fn answer(&self, answer: FromGateway) {
        let (link, stop) = (self.link.clone(), self.parts.stop.clone());
        self.parts.tasks.spawn(stop.run_until_cancelled_owned(async move {
            let _ = link.send(answer).await;
        }));
    }

    /// Resets a tunnel's SAs in a task of its own.
    fn reset(&self, request: RequestId, tunnel: TunnelId, scope: ResetScope, mode: ResetMode) {
        info!(tunnel.id = %tunnel, %scope, %mode, "reset of the tunnel's SAs on request");
        let (backend, link) = (Arc::clone(&self.parts.backend), self.link.clone());
        let stop = self.parts.stop.clone();
        self.parts.tasks.spawn(stop.run_until_cancelled_owned(async move {
            let outcome = backend.reset(tunnel, scope, mode).await;
            let _ = link.send(FromGateway::Reset { request, outcome }).await;
        }));
    }

    fn ike_log(&self, request: RequestId, tunnel: TunnelId, after: u64) {
        let (backend, link) = (Arc::clone(&self.parts.backend), self.link.clone());
        let stop = self.parts.stop.clone();
        self.parts.tasks.spawn(stop.run_until_cancelled_owned(async move {
            let lines = backend.ike_log(tunnel, after).await;
            let _ = link.send(FromGateway::IkeLog { request, lines }).await;
        }));
    }

    /// Checks a share's path in a task of its own.
    fn check(&self, request: RequestId, share: ShareId) {
        let place = || {
            let desired = self.desired.shares.get(&share)?;
            let tunnel = Arc::clone(self.desired.tunnels.get(&desired.tunnel)?);
            let connections = Arc::clone(&self.tunnels.get(&desired.tunnel)?.places);
            Some((Arc::clone(self.share_states.get(&share)?), tunnel, connections))
        };
        let checked = CheckedShare { share, place: place() };
        let (parts, link) = (self.parts.clone(), self.link.clone());
        let stop = parts.stop.clone();
        self.parts.tasks.spawn(stop.run_until_cancelled_owned(async move {
            let check = checked.check(&parts).await;
            let _ = link.send(FromGateway::Checked { request, check: Box::new(check) }).await;
        }));
    }

    /// Turns a complete desired state into the difference to the current one.
    fn steps_to(&self, reset: &DesiredDelta) -> DesiredDelta {
        let mut after = Desired::default();
        after.apply(reset);
        after.since(&self.desired, &Touched::all([&self.desired, &after]))
    }

    fn apply(&mut self, steps: &DesiredDelta) {
        self.parts.agents.name(&steps.agents, &steps.forgotten_agents);
        let new: Vec<_> =
            steps.tunnels.iter().filter_map(|t| self.set_tunnel(t.id, Some(Arc::clone(t)))).collect();
        for share in &steps.shares {
            self.set_share(share);
        }
        // Spawned after their shares are known: a tunnel of an earlier run listens before its daemon has answered.
        for task in new {
            self.parts.tasks.spawn(task.run());
        }
        for id in &steps.removed_shares {
            self.parts.agents.withdraw(*id);
            if let Some(state) = self.share_states.remove(id) {
                state.abort.trigger();
            }
            match self.desired.shares.get(id).map(|old| (old.tunnel, self.tunnels.get(&old.tunnel))) {
                Some((_, Some(inbox))) => inbox.set_share(*id, None),
                Some((tunnel, None)) => self.parts.observations.remove_share(*id, tunnel),
                None => {}
            }
        }
        for id in &steps.removed_tunnels {
            if let Some(inbox) = self.tunnels.remove(id) {
                inbox.set_tunnel(None);
            }
        }
        self.desired.apply(steps);
    }

    /// Returns the task of a new tunnel, to be spawned.
    fn set_tunnel(&mut self, id: TunnelId, tunnel: Option<Arc<TunnelDesired>>) -> Option<TunnelTask> {
        self.parts.observations.expect_tunnel(id, Timestamp::now());
        if let Some(inbox) = self.tunnels.get(&id) {
            inbox.set_tunnel(tunnel);
            return None;
        }
        // Permits are taken in the order in which tunnels arrive: after a restart, the oldest first. A tunnel that is
        // only removed needs none.
        let place =
            tunnel.as_ref().and_then(|_| Arc::clone(&self.parts.tunnel_permits).try_acquire_owned().ok());
        // The inbox is filled before the task starts: an empty one means that the tunnel is being removed.
        let frontdoor = tunnel.as_ref().and_then(|tunnel| tunnel.frontdoor);
        let inbox = Arc::new(TunnelInbox::new(self.parts.room.tunnel(frontdoor)));
        inbox.set_tunnel(tunnel);
        let task = TunnelTask::new(id, Arc::clone(&inbox), self.parts.clone(), place);
        self.tunnels.insert(id, inbox);
        // Shares that arrived before their tunnel.
        for share in self.desired.shares.values().filter(|share| share.tunnel == id) {
            self.serve(share);
        }
        Some(task)
    }

    fn set_share(&mut self, share: &Arc<ShareDesired>) {
        self.parts.observations.expect_share(share.id, share.tunnel);
        self.parts.agents.assign(share);
        let abort = &self.parts.abort;
        let state = self.share_states.entry(share.id).or_insert_with(|| ShareState::new(share.id, abort));
        // Before the observations can report this generation as served.
        state.options.set(share.options.clone());
        if let Some(old) = self.desired.shares.get(&share.id).filter(|old| old.tunnel != share.tunnel)
            && let Some(inbox) = self.tunnels.get(&old.tunnel)
        {
            // Its connections continue: they end with the share, or by themselves.
            inbox.set_share(share.id, None);
        }
        self.serve(share);
    }

    /// Hands a share to its tunnel's task. A share that arrives before its tunnel waits for it.
    fn serve(&self, share: &Arc<ShareDesired>) {
        if let (Some(inbox), Some(state)) =
            (self.tunnels.get(&share.tunnel), self.share_states.get(&share.id))
        {
            inbox.set_share(share.id, Some((Arc::clone(share), Arc::clone(state))));
        }
    }

    /// Removes tunnels of an earlier run that are no longer desired.
    fn remove_left_over(&mut self, found: Vec<TunnelId>) {
        for id in found {
            if !self.tunnels.contains_key(&id) {
                info!(tunnel.id = %id, "removing a tunnel of an earlier run");
                if let Some(task) = self.set_tunnel(id, None) {
                    self.parts.tasks.spawn(task.run());
                }
                self.tunnels.remove(&id);
            }
        }
    }
}

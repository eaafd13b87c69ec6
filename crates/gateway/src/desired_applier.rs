//! Applies the desired state that arrives over the link: to the agents, the tunnels' tasks and the observations.

use std::{
    collections::{BTreeMap, BTreeSet},
    mem,
    net::IpAddr,
    sync::Arc,
};

use jiff::Timestamp;
use tokio::sync::mpsc;
use tracing::{error, info, warn};
use wicketgate_link::{DigestedState, FromGateway, HeldState, LinkReceiver, Part, RequestId, ToGateway};
use wicketgate_model::{
    Desired, DesiredDelta, Era, ResetMode, ResetScope, ShareDesired, ShareId, Touched, TunnelDesired,
    TunnelId,
};
use wicketgate_system::essential;

use crate::{
    desired_journal::{DesiredJournal, JournalQueue, KeptDesired},
    listener::ShareState,
    observations::{Answer, DesiredGenerations},
    parts::GatewayParts,
    removal_guard::HeldRemovals,
    share_check::CheckedShare,
    tunnel::{TunnelInbox, TunnelTask},
    uplink::{FromApplier, NewLink},
};

/// See the module.
pub(crate) struct DesiredApplier {
    parts: GatewayParts,
    /// For answers.
    link: mpsc::Sender<FromGateway>,
    received: DigestedState,
    /// Whether digests tell something on this link: not between versions that have other fields of rows.
    is_comparable: bool,
    /// Of the server of the last delta.
    era: Option<Era>,
    back: mpsc::Sender<FromApplier>,
    /// `None`: nothing is kept, since the server is in this process.
    journal: Option<Arc<JournalQueue>>,
    /// Of this link.
    held_back: HeldRemovals,
    /// Tunnels whose removal was held back on an earlier link, or by an earlier run, and is not decided.
    doubted: BTreeSet<TunnelId>,
    tunnels: BTreeMap<TunnelId, Arc<TunnelInbox>>,
    share_states: BTreeMap<ShareId, Arc<ShareState>>,
}

/// Ids in a line of the log.
const NAMED: usize = 20;

fn first(ids: &BTreeSet<TunnelId>) -> String {
    let named: Vec<_> = ids.iter().take(NAMED).map(ToString::to_string).collect();
    named.join(" ") + if ids.len() > NAMED { " …" } else { "" }
}

impl DesiredApplier {
    /// `back`: to who brings links.
    pub(crate) fn new(
        parts: GatewayParts,
        link: mpsc::Sender<FromGateway>,
        back: mpsc::Sender<FromApplier>,
    ) -> Self {
        let (received, tunnels, share_states, held_back, doubted) = Default::default();
        let (is_comparable, era, journal) = (true, None, None);
        Self {
            parts,
            link,
            received,
            is_comparable,
            era,
            back,
            journal,
            held_back,
            doubted,
            tunnels,
            share_states,
        }
    }

    /// Keeps what it applies in this journal, and begins with what that has: until a server answers, it is served as it is.
    pub(crate) fn with_journal(mut self, journal: DesiredJournal) -> Self {
        let GatewayParts { observations, stop, tasks, .. } = &self.parts;
        let (queue, kept, write) = journal.start(Arc::clone(observations), stop.clone());
        tasks.spawn(essential("keeps the desired state", write));
        self.journal = Some(queue);
        if let Some(KeptDesired { era, state, revision, read_at, doubted, .. }) = kept {
            let (tunnels, shares) = (state.tunnels.len(), state.shares.len());
            info!(
                tunnels,
                shares, revision, "serving the desired state of the last run until a server answers"
            );
            self.apply(&DesiredDelta { revision, read_at, reset: false, ..state.snapshot() });
            (self.era, self.doubted) = (Some(era), doubted);
        }
        self
    }

    /// Serves one link after another until the gateway stops, and then hears which traffic is recorded, until its connections have
    /// ended. `left_over` are the tunnels of an earlier run.
    pub(crate) async fn run(mut self, mut links: mpsc::Receiver<NewLink>, left_over: Vec<TunnelId>) {
        let (stop, end) = (self.parts.stop.clone(), self.parts.abort.token().clone());
        let (spool, mut link) = (Arc::clone(&self.parts.spool), None);
        let serve = async {
            let mut left_over = Some(left_over);
            loop {
                let held = self.held();
                let is_told = self.back.send(FromApplier::Ready(held)).await.is_ok();
                let Some(NewLink { era, messages }) = links.recv().await.filter(|_| is_told) else { break };
                self.is_comparable = true;
                self.doubted.extend(mem::take(&mut self.held_back).tunnels());
                self.receive(link.insert(messages), era, &mut left_over).await;
            }
            // The data plane does not need the control plane: it keeps serving.
            std::future::pending::<()>().await;
        };
        stop.run_until_cancelled(serve).await;
        drop(self);
        if let Some(messages) = &mut link {
            end.run_until_cancelled(spool.hear(messages)).await;
        }
    }

    /// What this gateway has of a server's desired state. Keys that have ended meanwhile are no part of it: the server's rows do not have
    /// them any more.
    fn held(&mut self) -> Option<HeldState> {
        let (era, now) = (self.era?, Timestamp::now());
        let all = self.received.state().tunnels.values();
        let ended = all.filter(|tunnel| tunnel.next_key_end().is_some_and(|end| end <= now));
        let tunnels: Vec<_> = ended.map(|tunnel| tunnel.with_valid_keys(now)).collect();
        let held = self.received.held(era);
        if tunnels.is_empty() {
            return Some(held);
        }
        let HeldState { revision, read_at, .. } = held;
        self.received.apply(&DesiredDelta { revision, read_at, tunnels, ..DesiredDelta::default() });
        Some(self.received.held(era))
    }

    async fn receive(
        &mut self,
        messages: &mut LinkReceiver<ToGateway>,
        era: Era,
        left_over: &mut Option<Vec<TunnelId>>,
    ) {
        while let Some(message) = messages.recv().await {
            match message {
                ToGateway::Hello(_) | ToGateway::Refused(_) => {}
                ToGateway::Desired { sequence, delta, .. } => {
                    self.era = Some(era);
                    self.desired((era, sequence), delta, left_over);
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
                    let _ = self.link.try_send(FromGateway::Agents { request, agents, part: Part::WHOLE });
                }
                ToGateway::Enrolled { request, answer } => self.parts.agents.enrolled(request, answer),
                ToGateway::Renewed { request, answer } => self.parts.agents.renewed(request, answer),
                ToGateway::RenewedOwn { certificate, .. } => {
                    let _ = self.back.send(FromApplier::Certificate(certificate)).await;
                }
                ToGateway::Servers(servers) => {
                    let _ = self.back.send(FromApplier::Servers(servers)).await;
                }
                ToGateway::RemovalConfirmed { tunnels } => self.remove_confirmed(era, &tunnels),
                ToGateway::TrafficRecorded { spool, number } => self.parts.spool.recorded(spool, number),
            }
        }
    }

    fn desired(
        &mut self,
        (era, sequence): (Era, u64),
        delta: DesiredDelta,
        left_over: &mut Option<Vec<TunnelId>>,
    ) {
        let (reset, is_whole) = (delta.reset, delta.reset && !delta.is_partial);
        let is_same = self.take(era, delta);
        // Not before a server has said what is to be there.
        if let Some(found) = (is_whole || is_same).then(|| left_over.take()).flatten() {
            self.remove_left_over(found);
        }
        // The first one of a link, too, is answered with everything.
        let answer = match reset || sequence == 1 {
            true if is_same => Answer::Exceptions(self.generations()),
            true => Answer::Everything,
            false => Answer::Changes,
        };
        self.parts.observations.heard(sequence, answer);
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
            let desired = self.received.state().shares.get(&share)?;
            let tunnel = Arc::clone(self.received.state().tunnels.get(&desired.tunnel)?);
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

    /// Applies a delta, and asks for everything if the result is not what the server has. Returns whether it is, by its digest.
    fn take(&mut self, era: Era, delta: DesiredDelta) -> bool {
        let DesiredDelta { reset, is_partial, .. } = delta;
        let mut steps = if reset { self.steps_to(&delta) } else { delta };
        // What is kept without being named is in no digest.
        self.is_comparable &= !is_partial;
        // In `up`, the database is on the same host, and nothing is served without it.
        if self.journal.is_some() {
            self.hold_back(&mut steps, reset && !is_partial);
        }
        self.carry_out(era, &steps);
        if !self.held_back.is_empty() {
            return false;
        }
        if !self.is_comparable || self.received.agrees_with(&steps) {
            return self.is_comparable && steps.digest.is_some();
        }
        warn!(reset, "the desired state is another than the server has sent");
        self.is_comparable = !reset;
        if !reset {
            self.answer(FromGateway::Resync);
        }
        false
    }

    /// Applies steps, and keeps them.
    fn carry_out(&mut self, era: Era, steps: &DesiredDelta) {
        if let Some(journal) = &self.journal {
            let number = journal.add(era, steps, self.held_back.tunnels() | &self.doubted);
            let DesiredDelta { removed_tunnels, removed_shares, .. } = steps;
            self.parts.observations.keep_until_synced(number, removed_tunnels, removed_shares);
        }
        self.apply(steps);
    }

    /// Takes removals out of the steps that may be a mistake, and asks the server whether they are meant.
    /// `are_all`: they lead to the whole state of the server, so that what they do not remove is wanted.
    fn hold_back(&mut self, steps: &mut DesiredDelta, are_all: bool) {
        if are_all {
            self.doubted.extend(mem::take(&mut self.held_back).tunnels());
        }
        let doubtful = HeldRemovals::taken_from(steps, self.received.state(), &self.doubted);
        let is_wanted = |id: &TunnelId| are_all || steps.tunnels.iter().any(|tunnel| tunnel.id == *id);
        self.doubted.retain(|id| !doubtful.tunnels().contains(id) && !is_wanted(id));
        self.held_back.decided_by(steps);
        if doubtful.is_empty() {
            // Nothing waits for these any more if the last of the tunnels is decided.
            let rest = self.held_back.confirmed(&[]);
            steps.removed_shares.extend(rest.removed_shares);
            steps.forgotten_agents.extend(rest.forgotten_agents);
            return;
        }
        error!(
            tunnels = doubtful.tunnels().len(),
            of = self.received.state().tunnels.len(),
            ids = first(doubtful.tunnels()),
            "the server would have this gateway remove very many tunnels at once, which are served as before until it says that they were \
             deleted. If they are to go although its database does not know them, run `wicketgate gateway confirm-removal`"
        );
        self.held_back.extend(doubtful);
        self.answer(FromGateway::Doubtful { tunnels: self.held_back.tunnels().iter().copied().collect() });
    }

    /// The server says that these were deleted.
    fn remove_confirmed(&mut self, era: Era, tunnels: &[TunnelId]) {
        let removal = self.held_back.confirmed(tunnels);
        info!(tunnels = removal.removed_tunnels.len(), "the server says that these tunnels were deleted");
        let HeldState { revision, read_at, .. } = self.received.held(era);
        self.carry_out(era, &DesiredDelta { revision, read_at, ..removal });
    }

    fn generations(&self) -> DesiredGenerations {
        let Desired { tunnels, shares, .. } = self.received.state();
        DesiredGenerations {
            tunnels: tunnels.values().map(|tunnel| (tunnel.id, tunnel.generation)).collect(),
            shares: shares.values().map(|share| (share.id, share.generation)).collect(),
        }
    }

    /// Turns a complete desired state into the difference to the current one.
    fn steps_to(&self, reset: &DesiredDelta) -> DesiredDelta {
        let (mut after, now) = (Desired::default(), self.received.state());
        after.apply(reset);
        let touched = if reset.is_partial { Touched::all([&after]) } else { Touched::all([now, &after]) };
        let steps = after.since(now, &touched);
        let DesiredDelta { revision, read_at, digest, .. } = *reset;
        DesiredDelta { revision, read_at, digest, ..steps }
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
            match self.received.state().shares.get(id).map(|old| (old.tunnel, self.tunnels.get(&old.tunnel)))
            {
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
        self.received.apply(steps);
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
        for share in self.received.state().shares.values().filter(|share| share.tunnel == id) {
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
        if let Some(old) =
            self.received.state().shares.get(&share.id).filter(|old| old.tunnel != share.tunnel)
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

//! The server's end of a link to a gateway: records the gateway's reports, and answers its requests.
//!
//! Invariant: nothing that arrives waits for the database: what has to be written waits in the view's [`Backlog`].
//!
//! [`Backlog`]: super::backlog::Backlog

use std::{collections::BTreeSet, pin::pin, sync::Arc, time::Duration};

use jiff::Timestamp;
use sha2::{Digest as _, Sha256};
use tokio::{select, sync::mpsc, time::timeout};
use tracing::{error, info, warn};
use wicketgate_authority::Ca;
use wicketgate_link::{
    ConnectedAgent, FromGateway, GatewayHello, Handshake, LinkReceiver, RequestId, ToGateway,
};
use wicketgate_model::AgentId;
use wicketgate_store::{AgentLink, GatewayEpoch, Store, StoreError};
use wicketgate_transport::identity::Identity;

use super::{
    LinkedGateway,
    backlog::{LinkChange, LinkRecord, ReportKind},
    certificate_desk::CertificateDesk,
    retry_until_written,
};
use crate::{authentication_failures::AuthenticationFailures, telemetry::ServerMetrics};

/// For what a link over a network has left to write when it has ended.
const LEFT_WITHIN: Duration = Duration::from_secs(20);

/// Serves the link until the gateway closes its end.
#[derive(Debug)]
pub(crate) struct GatewayLink {
    pub(crate) store: Store,
    pub(crate) ca: Arc<Ca>,
    pub(crate) failures: Arc<AuthenticationFailures>,
    /// Taken when the link began.
    pub(crate) epoch: GatewayEpoch,
    pub(crate) gateway: LinkedGateway,
    pub(crate) metrics: Arc<ServerMetrics>,
    pub(crate) send: mpsc::Sender<ToGateway>,
    /// Of the key that the gateway has proved; `None` in one process.
    pub(crate) key_sha256: Option<[u8; 32]>,
}

impl GatewayLink {
    pub(crate) async fn run(self, handshake: Handshake<FromGateway>) {
        match handshake.finish().await {
            Ok((hello, reports)) => self.serve(hello, reports).await,
            Err(error) => {
                error!(%error, gateway.id = %self.epoch.gateway(), "the link to the gateway cannot be opened")
            }
        }
        self.end().await;
    }

    /// As [`Self::run`], over a network: what could not be written [`LEFT_WITHIN`] after the end is given up. The gateway sends
    /// traffic again, and reports the rest anew.
    pub(crate) async fn run_linked(self, hello: GatewayHello, messages: LinkReceiver<FromGateway>) {
        self.serve(hello, messages).await;
        self.give_up().await;
    }

    /// As [`Self::end`], within [`LEFT_WITHIN`].
    pub(crate) async fn give_up(&self) {
        if timeout(LEFT_WITHIN, self.end()).await.is_err() {
            warn!(gateway.id = %self.epoch.gateway(), "the end of the gateway's link could not be recorded");
        }
    }

    async fn end(&self) {
        info!(gateway.id = %self.epoch.gateway(), "the gateway's link ended");
        let seen = Timestamp::now();
        self.gateway.view.lost(seen);
        self.gateway.rpc.abandon();
        retry_until_written("record that the gateway's link ended", || {
            self.store.unlink_gateway(&self.epoch, seen)
        })
        .await;
    }

    async fn serve(&self, hello: GatewayHello, mut messages: LinkReceiver<FromGateway>) {
        info!(gateway.id = %self.epoch.gateway(), esp = hello.esp.as_str(), version = hello.version, boot = %hello.boot, "gateway linked");
        self.gateway.view.linked(hello);
        let introduce = self.introduce();
        let mut desk = CertificateDesk::new(
            self.store.clone(),
            (Arc::clone(&self.ca), Arc::clone(&self.failures)),
            Arc::clone(&self.gateway.view),
            self.send.clone(),
        );
        let backlog = &self.gateway.view.backlog;
        let receive = async {
            while let Some(message) = messages.recv().await {
                match message {
                    FromGateway::Enrol { request, ask, source } => desk.enrol(request, ask, source),
                    FromGateway::Renew { request, ask } => desk.renew(request, ask),
                    FromGateway::RenewOwn { request, public_key } => {
                        self.renew_own(request, &public_key).await;
                    }
                    report => self.take(report, Timestamp::now()),
                }
            }
            backlog.close();
        };
        let write = async |kind| {
            while let Some(record) = backlog.next(kind).await {
                self.write(&record).await;
            }
        };
        let written = async {
            tokio::join!(
                introduce,
                write(ReportKind::Links),
                write(ReportKind::Agents),
                write(ReportKind::Traffic)
            )
        };
        let mut written = pin!(written);
        select! {
            () = receive => {}
            _ = &mut written => return,
        }
        match self.key_sha256 {
            None => drop(written.await),
            // While the database does not answer, the next link must not wait for this one.
            Some(_) => drop(timeout(LEFT_WITHIN, written).await),
        }
    }

    /// A new certificate for the key that the gateway has joined with.
    async fn renew_own(&self, request: RequestId, public_key: &[u8]) {
        let gateway = self.epoch.gateway();
        let is_own = self.key_sha256.is_some_and(|own| own[..] == Sha256::digest(public_key)[..]);
        let issued =
            is_own.then(|| self.ca.issue(&Identity::Gateway { gateway }, public_key, Timestamp::now()));
        let certificate = match issued {
            Some(Ok(certificate)) => Some(certificate),
            Some(Err(error)) => {
                warn!(gateway.id = %gateway, %error, "could not renew the gateway's certificate");
                None
            }
            None => {
                warn!(gateway.id = %gateway, "the gateway asks for a certificate of another key than its own");
                None
            }
        };
        let _ = self.send.send(ToGateway::RenewedOwn { request, certificate }).await;
    }

    /// Records what the gateway has told of itself.
    async fn introduce(&self) {
        let Some(facts) = self.gateway.view.lock().facts() else { return };
        let write = || self.store.gateway_introduced(&self.epoch, &facts);
        retry_until_written("record what the gateway tells of itself", write).await;
    }

    /// Shows a report to the view, or hands an answer to its caller.
    pub(crate) fn take(&self, message: FromGateway, now: Timestamp) {
        let backlog = &self.gateway.view.backlog;
        match message {
            FromGateway::Observed { heard, delta, .. } => self.gateway.view.observe(heard, delta, now),
            FromGateway::Doubtful { tunnels } => self.gateway.view.doubts(tunnels),
            FromGateway::Resync => self.gateway.view.resync(),
            FromGateway::Carriers { parked } => self.gateway.view.lock().parked = parked,
            FromGateway::UnknownPeers(peers) => self.gateway.view.lock().unknown_peers = peers,
            FromGateway::UnknownAgents(agents) => self.gateway.view.lock().unknown_agents = agents,
            FromGateway::Draining => {
                info!(gateway.id = %self.epoch.gateway(), "the gateway is stopping");
                self.gateway.view.draining(now);
                self.gateway.rpc.abandon();
            }
            FromGateway::Checked { request, check } => self.gateway.rpc.checked(request, *check),
            FromGateway::ConnectionsClosed { request, closed } => {
                self.gateway.rpc.connections_closed(request, closed);
            }
            FromGateway::Reset { request, outcome } => self.gateway.rpc.reset_done(request, outcome),
            FromGateway::IkeLog { request, lines } => self.gateway.rpc.ike_log_answered(request, lines),
            FromGateway::Agents { request, agents, .. } => self.gateway.rpc.agents_answered(request, agents),
            FromGateway::ConnectedAgents { agents, is_all, .. } => self.agents_connected(agents, is_all, now),
            FromGateway::AgentDisconnected(agent) => self.agent_disconnected(agent, now),
            FromGateway::AgentReported { agent, report } => {
                backlog.push(LinkRecord::Agent(agent, report, now), now);
            }
            FromGateway::Traffic { report, .. } => {
                if self.gateway.view.carried(&report, now) {
                    self.metrics.carried(&report.deltas);
                }
            }
            FromGateway::Hello(_)
            | FromGateway::Enrol { .. }
            | FromGateway::Renew { .. }
            | FromGateway::RenewOwn { .. } => {}
        }
    }

    fn agents_connected(&self, agents: Vec<ConnectedAgent>, is_all: bool, now: Timestamp) {
        if is_all {
            let named: BTreeSet<_> = agents.iter().map(|agent| agent.agent).collect();
            let gone: Vec<_> = self.gateway.view.lock().connected.difference(&named).copied().collect();
            gone.into_iter().for_each(|agent| self.agent_disconnected(agent, now));
        }
        for ConnectedAgent { agent, environment, version, name, address } in agents {
            info!(agent.id = %agent, environment.id = %environment, agent.name = name, version, "agent connected");
            {
                let mut view = self.gateway.view.lock();
                view.connected.insert(agent);
                view.lists.entry(environment).or_default();
            }
            let link = AgentLink { agent, name, version, address };
            self.gateway.view.backlog.push(LinkRecord::connected(link, now), now);
        }
    }

    fn agent_disconnected(&self, agent: AgentId, now: Timestamp) {
        info!(agent.id = %agent, "agent disconnected");
        self.gateway.view.lock().connected.remove(&agent);
        self.gateway.view.backlog.push(LinkRecord::disconnected(agent, now), now);
    }

    /// Writes until it succeeds. A failover may have lost the record of the link itself, which is then written again.
    async fn until_written<T, F>(&self, what: &str, write: impl Fn() -> F) -> bool
    where
        F: Future<Output = wicketgate_store::Result<T>>,
    {
        let write = &write;
        let held = || async move {
            match write().await {
                Err(StoreError::Superseded)
                    if self.key_sha256.is_none() && self.store.hold_gateway_again(&self.epoch).await? =>
                {
                    write().await
                }
                written => written,
            }
        };
        retry_until_written(what, held).await
    }

    pub(crate) async fn write(&self, record: &LinkRecord) {
        let (store, epoch) = (&self.store, &self.epoch);
        match record {
            LinkRecord::Link(LinkChange { agent, connected, disconnected }) => {
                if let Some((link, at)) = connected {
                    let write = || store.agent_connected(epoch, link, *at);
                    self.until_written("record that an agent connected", write).await;
                }
                if let Some(at) = disconnected {
                    let write = || store.agent_disconnected(epoch, *agent, *at);
                    self.until_written("record that an agent disconnected", write).await;
                }
            }
            LinkRecord::Agent(agent, report, at) => {
                let write = || store.agent_reported(epoch, *agent, report, *at);
                self.until_written("record what an agent has reported", write).await;
            }
            LinkRecord::Traffic(report) => {
                let write = || store.record_traffic(epoch, report);
                if self.until_written("record the traffic of shares", write).await {
                    let (spool, number) = (report.spool(), report.number());
                    // A report that the gateway sends again is not added again.
                    let _ = self.send.send(ToGateway::TrafficRecorded { spool, number }).await;
                }
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::gateways::{GatewayRpc, SharedView};
    use prometheus_client::registry::Registry;
    use std::{process::Command, time::Duration};
    use tokio::{
        task::{JoinHandle, spawn_blocking},
        time::timeout,
    };
    use uuid::Uuid;
    use wicketgate_link::{Part, ServerHello, VERSIONS, in_process};
    use wicketgate_model::{
        Era, EspMode, FailureReason, GatewayId, LocationId, ObservedDelta, Reason, ShareId, SpooledTraffic,
        TrafficDelta, TunnelId,
    };
    use wicketgate_store::{MetricsWindow, NewGateway, SecretKeyFile, TrafficScope};

    const PATIENCE: Duration = Duration::from_secs(20);

    /// A link that is served, with the ends of its gateway.
    struct Served {
        _dir: tempfile::TempDir,
        /// Of the database.
        place: String,
        store: Store,
        view: Arc<SharedView>,
        reports: mpsc::Sender<FromGateway>,
        answers: LinkReceiver<ToGateway>,
        serving: JoinHandle<()>,
    }

    impl Served {
        async fn new() -> Self {
            let dir = tempfile::tempdir().unwrap();
            let keys = SecretKeyFile::created_at(dir.path().join("secret-key"));
            let place = dir.path().join("wicketgate.db").display().to_string();
            let store = Store::open(&place, &keys).await.unwrap();
            let (id, now) = (GatewayId::new(Uuid::now_v7()), Timestamp::now());
            let location: LocationId = "local".parse().unwrap();
            let (server_end, gateway_end) = in_process(id, location.clone());
            let server = ServerHello { versions: VERSIONS, epoch: 1, era: Era::FIRST, servers: Vec::new() };
            let (send, at_server) = server_end.open(server);
            let hello = GatewayHello {
                versions: VERSIONS,
                version: "0.1.0".to_owned(),
                boot: Uuid::nil(),
                held: None,
                agent_url: None,
                esp: EspMode::Userland,
                public_address: None,
                max_tunnels: None,
                namespaces: None,
            };
            let (reports, at_gateway) = gateway_end.open(hello);
            let view = SharedView::new(now);
            let rpc = GatewayRpc::new(send.clone());
            let gateway = LinkedGateway { location: location.clone(), view: Arc::clone(&view), rpc };
            let metrics = ServerMetrics::new(&mut Registry::default());
            let ca = Arc::new(Ca::generate(now).unwrap());
            store.register_gateway(&NewGateway { id, location, in_process: true }, now).await.unwrap();
            let epoch = store.link_gateway(id, now).await.unwrap();
            let failures = Arc::default();
            let link = GatewayLink {
                store: store.clone(),
                ca,
                failures,
                epoch,
                gateway,
                metrics,
                send,
                key_sha256: None,
            };
            let (hello, messages) = at_server.finish().await.unwrap();
            let (_, answers) = at_gateway.finish().await.unwrap();
            let serving = tokio::spawn(async move { link.serve(hello, messages).await });
            Self { _dir: dir, place, store, view, reports, answers, serving }
        }

        /// As in a database shell, on a thread of its own: the server's transaction that it waits for goes on.
        async fn sql(&self, statement: &'static str) {
            let script = "import sqlite3, sys; c = sqlite3.connect(sys.argv[1], timeout=10, isolation_level=None); c.execute(sys.argv[2])";
            let place = self.place.clone();
            let run = move || Command::new("python3").args(["-c", script, &place, statement]).status();
            assert!(spawn_blocking(run).await.unwrap().unwrap().success());
        }

        async fn report(&self, report: &Arc<SpooledTraffic>) {
            let (report, part) = (Arc::clone(report), Part::WHOLE);
            self.reports.send(FromGateway::Traffic { report, part }).await.unwrap();
        }

        /// The number of the next report that is recorded.
        async fn recorded(&mut self) -> (Uuid, u64) {
            match timeout(PATIENCE, self.answers.recv()).await.unwrap() {
                Some(ToGateway::TrafficRecorded { spool, number }) => (spool, number),
                other => panic!("{other:?}"),
            }
        }

        async fn observe(&self, heard: u64) {
            let delta = ObservedDelta::default();
            self.reports.send(FromGateway::Observed { heard, part: Part::WHOLE, delta }).await.unwrap();
        }
    }

    fn traffic(spool: Uuid, number: u64, share: ShareId) -> Arc<SpooledTraffic> {
        let failures = [(FailureReason::NoAgent, 1)].into();
        let delta =
            TrafficDelta { rx: 5, failures, ..TrafficDelta::new(share, TunnelId::new(Uuid::now_v7())) };
        Arc::new(SpooledTraffic { spool, number, at: Timestamp::now(), deltas: vec![delta] })
    }

    #[tokio::test]
    async fn an_observation_does_not_wait_for_traffic_that_cannot_be_recorded() {
        let mut served = Served::new().await;
        served.sql("ALTER TABLE traffic RENAME TO lost").await;
        let (spool, share) = (Uuid::now_v7(), ShareId::new(Uuid::now_v7()));
        // More than a gateway may send.
        let observed = async {
            for heard in 1..=300 {
                served.report(&traffic(spool, heard, share)).await;
                served.observe(heard).await;
            }
            while served.view.lock().heard < 300 {
                served.view.woken().await;
            }
        };
        timeout(PATIENCE, observed).await.unwrap();
        assert!(served.view.backlog.oldest(ReportKind::Traffic).is_some());
        assert_eq!(served.view.backlog.oldest(ReportKind::Links), None);
        assert_eq!(served.answers.try_recv(), None, "no report is recorded");
        served.sql("ALTER TABLE lost RENAME TO traffic").await;
        assert_eq!(served.recorded().await, (spool, 1));
        served.serving.abort();
    }

    #[tokio::test]
    async fn a_report_is_answered_when_it_is_recorded_and_counts_once_if_it_is_sent_again() {
        let mut served = Served::new().await;
        let (first, share) = (Uuid::now_v7(), ShareId::new(Uuid::now_v7()));
        let of_next_start = Uuid::now_v7();
        let sent = [(first, 1), (first, 1), (first, 2), (first, 1), (of_next_start, 1), (of_next_start, 1)];
        for (spool, number) in sent {
            served.report(&traffic(spool, number, share)).await;
            assert_eq!(served.recorded().await, (spool, number));
        }
        let window = MetricsWindow::new(900, None, Timestamp::now()).unwrap();
        let samples = served.store.traffic(TrafficScope::Share(share), &window).await.unwrap();
        assert_eq!(samples.iter().map(|sample| sample.rx).sum::<u64>(), 3 * 5);
        let told = served.view.lock().recent.not_served(share, Reason::ConnectionsFail).unwrap();
        assert_eq!(told.of, Some(3));
        served.serving.abort();
    }

    #[tokio::test]
    async fn traffic_is_recorded_although_a_failover_has_lost_the_record_of_the_link() {
        let mut served = Served::new().await;
        served.sql("UPDATE gateway_link SET epoch = epoch - 1").await;
        let (spool, share) = (Uuid::now_v7(), ShareId::new(Uuid::now_v7()));
        served.report(&traffic(spool, 1, share)).await;
        assert_eq!(served.recorded().await, (spool, 1));
        served.serving.abort();
    }
}

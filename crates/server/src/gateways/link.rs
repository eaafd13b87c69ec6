//! The server's end of a link to a gateway: records the gateway's reports, and answers its requests.
//!
//! Invariant: nothing that arrives waits for the database: what has to be written waits in the view's [`Backlog`].
//!
//! [`Backlog`]: super::backlog::Backlog

use std::sync::Arc;

use jiff::Timestamp;
use tracing::{error, info};
use wicketgate_authority::Ca;
use wicketgate_link::{ConnectedAgent, FromGateway, GatewayHello, Handshake, LinkReceiver, ToGateway};
use wicketgate_store::{AgentLink, GatewayEpoch, Store};

use super::{
    LinkedGateway,
    backlog::{LinkChange, LinkRecord, ReportKind},
    certificate_desk::CertificateDesk,
    retry_until_written,
};
use crate::telemetry::ServerMetrics;
use tokio::sync::mpsc;

/// Serves the link until the gateway closes its end.
#[derive(Debug)]
pub(crate) struct GatewayLink {
    pub(crate) store: Store,
    pub(crate) ca: Arc<Ca>,
    /// Taken when the link began.
    pub(crate) epoch: GatewayEpoch,
    pub(crate) gateway: LinkedGateway,
    pub(crate) metrics: Arc<ServerMetrics>,
    pub(crate) send: mpsc::Sender<ToGateway>,
}

impl GatewayLink {
    pub(crate) async fn run(self, handshake: Handshake<FromGateway>) {
        match handshake.finish().await {
            Ok((hello, reports)) => self.serve(hello, reports).await,
            Err(error) => {
                error!(%error, gateway.id = %self.epoch.gateway(), "the link to the gateway cannot be opened")
            }
        }
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
        info!(gateway.id = %self.epoch.gateway(), esp = hello.esp.as_str(), "gateway linked");
        self.gateway.view.linked(hello);
        let introduce = self.introduce();
        let mut desk = CertificateDesk::new(
            self.store.clone(),
            Arc::clone(&self.ca),
            Arc::clone(&self.gateway.view),
            self.send.clone(),
        );
        let backlog = &self.gateway.view.backlog;
        let receive = async {
            while let Some(message) = messages.recv().await {
                match message {
                    FromGateway::Enrol { request, ask, source } => desk.enrol(request, ask, source),
                    FromGateway::Renew { request, ask } => desk.renew(request, ask),
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
        tokio::join!(
            receive,
            introduce,
            write(ReportKind::Links),
            write(ReportKind::Agents),
            write(ReportKind::Traffic)
        );
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
            FromGateway::Observed { heard, delta } => self.gateway.view.observe(heard, delta, now),
            FromGateway::Carriers { parked } => self.gateway.view.lock().parked = parked,
            FromGateway::UnknownPeers(peers) => self.gateway.view.lock().unknown_peers = peers,
            FromGateway::UnknownAgents(agents) => self.gateway.view.lock().unknown_agents = agents,
            FromGateway::Draining => {
                info!(gateway.id = %self.epoch.gateway(), "the gateway is stopping");
                self.gateway.view.draining(now);
            }
            FromGateway::Checked { request, check } => self.gateway.rpc.checked(request, *check),
            FromGateway::ConnectionsClosed { request, closed } => {
                self.gateway.rpc.connections_closed(request, closed);
            }
            FromGateway::Reset { request, outcome } => self.gateway.rpc.reset_done(request, outcome),
            FromGateway::IkeLog { request, lines } => self.gateway.rpc.ike_log_answered(request, lines),
            FromGateway::Agents { request, agents } => self.gateway.rpc.agents_answered(request, agents),
            FromGateway::AgentConnected(agent) => {
                info!(agent.id = %agent.agent, environment.id = %agent.environment, agent.name = agent.name, version = agent.version, "agent connected");
                let ConnectedAgent { agent, name, version, address, .. } = agent;
                let link = AgentLink { agent, name, version, address };
                backlog.push(LinkRecord::connected(link, now), now);
            }
            FromGateway::AgentDisconnected(agent) => {
                info!(agent.id = %agent, "agent disconnected");
                backlog.push(LinkRecord::disconnected(agent, now), now);
            }
            FromGateway::AgentReported { agent, report } => {
                backlog.push(LinkRecord::Agent(agent, report, now), now);
            }
            FromGateway::Traffic(carried) => {
                self.metrics.carried(&carried);
                self.gateway.view.carried(&carried, now);
            }
            FromGateway::Hello(_) | FromGateway::Enrol { .. } | FromGateway::Renew { .. } => {}
        }
    }

    pub(crate) async fn write(&self, record: &LinkRecord) {
        let (store, epoch) = (&self.store, &self.epoch);
        match record {
            LinkRecord::Link(LinkChange { agent, connected, disconnected }) => {
                if let Some((link, at)) = connected {
                    let write = || store.agent_connected(epoch, link, *at);
                    retry_until_written("record that an agent connected", write).await;
                }
                if let Some(at) = disconnected {
                    let write = || store.agent_disconnected(epoch, *agent, *at);
                    retry_until_written("record that an agent disconnected", write).await;
                }
            }
            LinkRecord::Agent(agent, report, at) => {
                let write = || store.agent_reported(epoch, *agent, report, *at);
                retry_until_written("record what an agent has reported", write).await;
            }
            LinkRecord::Traffic(report) => {
                let write = || store.record_traffic(epoch, report);
                retry_until_written("record the traffic of shares", write).await;
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
    use tokio::time::timeout;
    use uuid::Uuid;
    use wicketgate_link::{VERSIONS, in_process};
    use wicketgate_model::{EspMode, GatewayId, ObservedDelta, ShareId, TrafficDelta, TunnelId};
    use wicketgate_store::{NewGateway, SecretKeyFile};

    const PATIENCE: Duration = Duration::from_secs(20);

    #[tokio::test]
    async fn an_observation_does_not_wait_for_traffic_that_cannot_be_recorded() {
        let dir = tempfile::tempdir().unwrap();
        let keys = SecretKeyFile::created_at(dir.path().join("secret-key"));
        let place = dir.path().join("wicketgate.db").display().to_string();
        let store = Store::open(&place, &keys).await.unwrap();
        let (id, location) = (GatewayId::new(Uuid::now_v7()), "local".parse().unwrap());
        let (server_end, gateway_end) = in_process(id, location);
        let location = server_end.location.clone();
        let (send, at_server) = server_end.open();
        let hello = GatewayHello {
            versions: VERSIONS,
            esp: EspMode::Userland,
            public_address: None,
            max_tunnels: None,
            namespaces: None,
        };
        let (reports, _at_gateway) = gateway_end.open(hello);
        let view = SharedView::new(Timestamp::now());
        let gateway = LinkedGateway { location, view: Arc::clone(&view), rpc: GatewayRpc::new(send.clone()) };
        let metrics = ServerMetrics::new(&mut Registry::default());
        let ca = Arc::new(Ca::generate(Timestamp::now()).unwrap());
        let (own, now) =
            (NewGateway { id, location: "local".parse().unwrap(), in_process: true }, Timestamp::now());
        store.register_gateway(&own, now).await.unwrap();
        let epoch = store.link_gateway(id, now).await.unwrap();
        let link = GatewayLink { store, ca, epoch, gateway, metrics, send };
        let (hello, messages) = at_server.finish().await.unwrap();
        // As in a database shell: no traffic can be recorded.
        let script =
            "import sqlite3, sys; sqlite3.connect(sys.argv[1], timeout=10).execute('DROP TABLE traffic')";
        assert!(Command::new("python3").args(["-c", script, &place]).status().unwrap().success());
        let serving = tokio::spawn(async move { link.serve(hello, messages).await });

        let share = ShareId::new(Uuid::now_v7());
        let delta = TrafficDelta { rx: 1, ..TrafficDelta::new(share, TunnelId::new(Uuid::now_v7())) };
        let reported = async {
            for heard in 1..=300 {
                reports.send(FromGateway::Traffic(vec![delta.clone()])).await.unwrap();
                let delta = ObservedDelta::default();
                reports.send(FromGateway::Observed { heard, delta }).await.unwrap();
            }
            while view.lock().heard < 300 {
                view.woken().await;
            }
        };
        timeout(PATIENCE, reported).await.unwrap();
        assert!(view.backlog.oldest(ReportKind::Traffic).is_some());
        assert_eq!(view.backlog.oldest(ReportKind::Links), None);
        serving.abort();
    }
}

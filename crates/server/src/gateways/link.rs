//! The server's end of a link to a gateway: records the gateway's reports, and answers its requests.
//!
//! Invariant: reports are recorded in order, so that an agent that connected and disconnected is never left as
//! connected. Observations, answers and requests for certificates do not wait for the database to record reports.

use std::sync::Arc;

use jiff::Timestamp;
use tracing::{error, info};
use wicketgate_authority::Ca;
use wicketgate_link::{ConnectedAgent, FromGateway, GatewayHello, Handshake, LinkReceiver, ToGateway};
use wicketgate_model::{AgentId, AgentReport, GatewayId, TrafficDelta};
use wicketgate_store::{AgentLink, Store};

use super::{LinkedGateway, certificate_desk::CertificateDesk, retry_until_written};
use crate::telemetry::ServerMetrics;
use tokio::sync::mpsc;

/// Reports that wait to be recorded: those of a minute, since traffic is reported every second.
const RECORDS: usize = 64;

/// A report to be written to the database, and when it arrived.
#[derive(Debug)]
pub(crate) enum LinkRecord {
    Connected(AgentLink, Timestamp),
    Disconnected(AgentId, Timestamp),
    Reported(AgentId, Box<AgentReport>, Timestamp),
    Traffic(Vec<TrafficDelta>, Timestamp),
}

/// Serves the link until the gateway closes its end.
#[derive(Debug)]
pub(crate) struct GatewayLink {
    pub(crate) store: Store,
    pub(crate) ca: Arc<Ca>,
    pub(crate) id: GatewayId,
    pub(crate) gateway: LinkedGateway,
    pub(crate) metrics: Arc<ServerMetrics>,
    pub(crate) send: mpsc::Sender<ToGateway>,
}

impl GatewayLink {
    pub(crate) async fn run(self, handshake: Handshake<FromGateway>) {
        retry_until_written("record that the gateway's link begins", || {
            self.store.gateway_linked(self.id, Timestamp::now())
        })
        .await;
        match handshake.finish().await {
            Ok((hello, reports)) => self.serve(hello, reports).await,
            Err(error) => error!(%error, gateway.id = %self.id, "the link to the gateway cannot be opened"),
        }
        info!(gateway.id = %self.id, "the gateway's link ended");
        let seen = Timestamp::now();
        self.gateway.view.lost(seen);
        self.gateway.rpc.abandon();
        retry_until_written("record that the gateway's link ended", || {
            self.store.gateway_lost(self.id, seen)
        })
        .await;
    }

    async fn serve(&self, hello: GatewayHello, mut messages: LinkReceiver<FromGateway>) {
        info!(gateway.id = %self.id, esp = hello.esp.as_str(), "gateway linked");
        self.gateway.view.linked(hello);
        let mut desk = CertificateDesk::new(
            self.store.clone(),
            Arc::clone(&self.ca),
            Arc::clone(&self.gateway.view),
            self.send.clone(),
        );
        let (queue, mut records) = mpsc::channel(RECORDS);
        let receive = async move {
            while let Some(message) = messages.recv().await {
                let record = match message {
                    FromGateway::Enrol { request, ask } => {
                        desk.enrol(request, ask);
                        None
                    }
                    FromGateway::Renew { request, ask } => {
                        desk.renew(request, ask);
                        None
                    }
                    report => self.take(report, Timestamp::now()),
                };
                if let Some(record) = record
                    && queue.send(record).await.is_err()
                {
                    return;
                }
            }
        };
        let write = async {
            while let Some(record) = records.recv().await {
                self.write(&record).await;
            }
        };
        tokio::join!(receive, write);
    }

    /// Shows a report to the view, or hands an answer to its caller. Returns what has to be written to the database.
    pub(crate) fn take(&self, message: FromGateway, now: Timestamp) -> Option<LinkRecord> {
        match message {
            FromGateway::Observed { heard, delta } => self.gateway.view.observe(heard, delta, now),
            FromGateway::Carriers { parked } => self.metrics.parked(parked),
            FromGateway::UnknownPeers(peers) => self.gateway.view.lock().unknown_peers = peers,
            FromGateway::UnknownAgents(agents) => self.gateway.view.lock().unknown_agents = agents,
            FromGateway::Draining => {
                info!(gateway.id = %self.id, "the gateway is stopping");
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
                let link = AgentLink { gateway: self.id, agent, name, version, address };
                return Some(LinkRecord::Connected(link, now));
            }
            FromGateway::AgentDisconnected(agent) => {
                info!(agent.id = %agent, "agent disconnected");
                return Some(LinkRecord::Disconnected(agent, now));
            }
            FromGateway::AgentReported { agent, report } => {
                return Some(LinkRecord::Reported(agent, report, now));
            }
            FromGateway::Traffic(carried) => {
                self.metrics.carried(&carried);
                self.gateway.view.carried(&carried, now);
                return Some(LinkRecord::Traffic(carried, now));
            }
            FromGateway::Hello(_) | FromGateway::Enrol { .. } | FromGateway::Renew { .. } => {}
        }
        None
    }

    pub(crate) async fn write(&self, record: &LinkRecord) {
        let store = &self.store;
        match record {
            LinkRecord::Connected(link, at) => {
                retry_until_written("record that an agent connected", || store.agent_connected(link, *at))
                    .await;
            }
            LinkRecord::Disconnected(agent, at) => {
                let write = || store.agent_disconnected(self.id, *agent, *at);
                retry_until_written("record that an agent disconnected", write).await;
            }
            LinkRecord::Reported(agent, report, at) => {
                let write = || store.agent_reported(*agent, report, *at);
                retry_until_written("record what an agent has reported", write).await;
            }
            LinkRecord::Traffic(carried, at) => {
                retry_until_written("record the traffic of shares", || store.record_traffic(*at, carried))
                    .await;
            }
        }
    }
}

//! The server's end of a link to a gateway: records the gateway's reports, and answers its requests.
//!
//! Invariant: reports are recorded in order, so that an agent that connected and disconnected is never left as
//! connected. Requests for certificates are answered concurrently.

use std::sync::Arc;

use jiff::Timestamp;
use tracing::{error, info};
use wicketgate_authority::Ca;
use wicketgate_link::{ConnectedAgent, FromGateway, GatewayHello, Handshake, LinkReceiver, ToGateway};
use wicketgate_model::GatewayId;
use wicketgate_store::{AgentLink, Store};

use super::{LinkedGateway, certificate_desk::CertificateDesk, retry_until_written};
use crate::telemetry::ServerMetrics;
use tokio::sync::mpsc;

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

    async fn serve(&self, hello: GatewayHello, mut reports: LinkReceiver<FromGateway>) {
        info!(gateway.id = %self.id, esp = hello.esp.as_str(), "gateway linked");
        self.gateway.view.linked(hello);
        let mut desk = CertificateDesk::new(self.store.clone(), Arc::clone(&self.ca), self.send.clone());
        while let Some(message) = reports.recv().await {
            match message {
                FromGateway::Enrol { request, ask } => desk.enrol(request, ask),
                FromGateway::Renew { request, ask } => desk.renew(request, ask),
                report => self.take(report).await,
            }
        }
    }

    /// Records a report, or hands an answer to its caller.
    pub(crate) async fn take(&self, message: FromGateway) {
        let now = Timestamp::now();
        match message {
            FromGateway::Observed { heard, delta } => self.gateway.view.observe(heard, delta, now),
            FromGateway::AgentConnected(agent) => {
                info!(agent.id = %agent.agent, environment.id = %agent.environment, version = agent.version, "agent connected");
                let ConnectedAgent { agent, name, version, address, .. } = agent;
                let link = AgentLink { gateway: self.id, agent, name, version, address };
                retry_until_written("record that an agent connected", || {
                    self.store.agent_connected(&link, now)
                })
                .await;
            }
            FromGateway::AgentDisconnected(agent) => {
                info!(agent.id = %agent, "agent disconnected");
                retry_until_written("record that an agent disconnected", || {
                    self.store.agent_disconnected(self.id, agent, now)
                })
                .await;
            }
            FromGateway::Traffic(carried) => {
                self.metrics.carried(&carried);
                retry_until_written("record the traffic of shares", || {
                    self.store.record_traffic(now, &carried)
                })
                .await;
            }
            FromGateway::Carriers { parked } => self.metrics.parked(parked),
            FromGateway::Draining => {
                info!(gateway.id = %self.id, "the gateway is stopping");
                self.gateway.view.draining(now);
            }
            FromGateway::Checked { request, check } => self.gateway.rpc.checked(request, check),
            FromGateway::Agents { request, agents } => self.gateway.rpc.agents_answered(request, agents),
            FromGateway::Hello(_) | FromGateway::Enrol { .. } | FromGateway::Renew { .. } => {}
        }
    }
}

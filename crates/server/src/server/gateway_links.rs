//! Begins to serve gateways: the one in this process, or those that dial.

use std::{collections::BTreeMap, sync::Arc, time::Instant};

use anyhow::Context as _;
use jiff::Timestamp;
use wicketgate_link::ServerEnd;
use wicketgate_model::{GatewayId, LocationId};
use wicketgate_store::{GatewayEpoch, NewGateway, ServerFacts, Store};
use wicketgate_system::essential;
use wicketgate_transport::tls::PeerTls;

use super::{LinkListener, Server};
use crate::{
    gateways::{
        Peers,
        environment_lists::{EnvironmentListMaker, ListTeller},
        link_table::{LinkTable, PassedLinks},
    },
    heartbeat::{Heartbeat, SilentGateways},
    link_port::{LinkDesk, LinkPort},
    server_certificate::ServerCertificate,
};

/// Records the gateway in this process, and that its link begins.
async fn own_gateway(
    store: &Store,
    id: GatewayId,
    location: &LocationId,
) -> wicketgate_store::Result<GatewayEpoch> {
    let (own, now) = (NewGateway { id, location: location.clone(), in_process: true }, Timestamp::now());
    store.register_gateway(&own, now).await?;
    store.link_gateway(id, now).await
}

impl Server {
    /// Serves the gateway in this process.
    pub(super) async fn serve_own(&self, end: ServerEnd, links: &LinkTable) -> anyhow::Result<()> {
        let (id, location) = (end.gateway, end.location.clone());
        let epoch = own_gateway(&self.store, id, &location).await.context("cannot record the gateway")?;
        let open = links.open(end, epoch, None);
        links.gateways.link(id, open.gateway.clone());
        self.run_in_background(open.reconciler(None));
        // Not cut by a stop: it ends with the gateway's end of the link, and what came before is taken in.
        self.tasks.spawn(essential("serves the gateway's link", open.link.run(open.handshake)));
        Ok(())
    }

    /// Has gateways join and link. From now on the other servers know this one, and it knows them.
    pub(super) async fn serve_gateways(&self, port: LinkListener, links: LinkTable) -> anyhow::Result<()> {
        let LinkListener { listener, address } = port;
        let version = env!("CARGO_PKG_VERSION").to_owned();
        let facts = ServerFacts { link_address: Some(address), version, started_at: Timestamp::now() };
        let mut heartbeat = Heartbeat {
            store: self.store.clone(),
            facts,
            addresses: Arc::clone(&links.addresses),
            links: links.clone(),
            written: Instant::now(),
        };
        heartbeat.beat(Timestamp::now()).await.context("cannot tell the other servers of this one")?;
        self.run_in_background(heartbeat);
        self.run_in_background(PassedLinks { links: links.clone(), strays: BTreeMap::new() });
        self.run_for_all(EnvironmentListMaker::new(self.store.clone()));
        self.run_in_background(ListTeller::new(links.clone()));
        let (store, begun) = (self.store.clone(), Timestamp::now());
        self.run_for_all(SilentGateways { store, deadlines: links.deadlines, begun });
        let (store, gateways, stop) = (self.store.clone(), links.gateways.clone(), self.stop.clone());
        self.tasks.spawn(stop.run_until_cancelled_owned(async move {
            loop {
                store.changed_elsewhere().await;
                gateways.wake();
            }
        }));
        let certificate = ServerCertificate::new(Arc::clone(&links.ca), self.store.server_id())?;
        let identity = certificate.identity.clone();
        let tls = PeerTls::new(links.ca.certificate(), &identity)?;
        links.gateways.with_others(Peers { store: self.store.clone(), tls });
        self.run_in_background(certificate);
        let desk = Arc::new(LinkDesk { ca: Arc::clone(&links.ca), links });
        let (activator, tasks) = (self.activator.clone(), self.tasks.clone());
        let port = LinkPort { listener, identity, desk, activator, tasks };
        self.tasks.spawn(essential("accepts gateways", port.run()));
        Ok(())
    }
}

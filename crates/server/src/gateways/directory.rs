//! What the database knows of all gateways, kept in memory.
//!
//! It is read at the start and every second: another server may have registered a gateway, or one may have told other facts.
//! The gateway of a tunnel is not kept here: rows of tunnels and shares have it.

use std::{collections::BTreeMap, sync::Arc, time::Duration};

use jiff::Timestamp;
use wicketgate_model::GatewayId;
use wicketgate_store::{GatewayRow, Store};
use wicketgate_system::Latest;

use crate::background::{BackgroundTask, Outcome};

/// See the module. Cheap to clone.
#[derive(Debug, Clone, Default)]
pub struct GatewayDirectory(Arc<Latest<BTreeMap<GatewayId, GatewayRow>>>);

impl GatewayDirectory {
    /// Reads all gateways.
    ///
    /// # Errors
    ///
    /// The database.
    pub async fn read(store: &Store) -> wicketgate_store::Result<Self> {
        let directory = Self::default();
        directory.refresh(store).await?;
        Ok(directory)
    }

    pub(super) fn get(&self) -> Arc<BTreeMap<GatewayId, GatewayRow>> {
        self.0.get()
    }

    pub(crate) async fn refresh(&self, store: &Store) -> wicketgate_store::Result<()> {
        let rows = store.gateways().await?;
        self.0.set(rows.into_iter().map(|row| (row.id, row)).collect());
        Ok(())
    }
}

/// Keeps a directory as it is in the database.
#[derive(Debug)]
pub(crate) struct DirectoryReader {
    pub(crate) directory: GatewayDirectory,
    pub(crate) store: Store,
}

impl BackgroundTask for DirectoryReader {
    const NAME: &'static str = "gateway-directory";
    /// Requests about a gateway that was registered at another server are answered so much later.
    const PERIOD: Duration = Duration::from_secs(1);
    /// One statement.
    const WITHIN: Duration = Duration::from_secs(10);

    async fn activate(&mut self, _: Timestamp) -> anyhow::Result<Outcome> {
        self.directory.refresh(&self.store).await?;
        Ok(Outcome::Done)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::gateways::{GatewayRpc, Gateways, LinkedGateway, SharedView};
    use tokio::sync::mpsc;
    use uuid::Uuid;
    use wicketgate_link::{GatewayHello, VERSIONS};
    use wicketgate_model::EspMode;
    use wicketgate_store::{GatewayFacts, NewGateway, SecretKeyFile};

    fn facts(last: u8, max_tunnels: Option<u32>) -> GatewayFacts {
        GatewayFacts {
            public_address: Some([192, 0, 2, last].into()),
            esp: Some(EspMode::Kernel),
            namespaces: Some(format!("wg-{last}")),
            max_tunnels,
            agent_url: None,
            version: None,
        }
    }

    #[tokio::test]
    async fn a_gateway_that_is_not_linked_is_known_as_it_was_last() {
        let dir = tempfile::tempdir().unwrap();
        let keys = SecretKeyFile::created_at(dir.path().join("secret-key"));
        let store = Store::open(&dir.path().join("db").display().to_string(), &keys).await.unwrap();
        let now = Timestamp::now();
        let (own, local): (_, wicketgate_model::LocationId) =
            (GatewayId::new(Uuid::nil()), "local".parse().unwrap());
        let away = NewGateway {
            id: GatewayId::new(Uuid::from_u128(7)),
            location: "away".parse().unwrap(),
            in_process: false,
        };
        let (send, _asked) = mpsc::channel(1);
        let view = SharedView::new(now);
        let linked =
            LinkedGateway { location: local.clone(), view: Arc::clone(&view), rpc: GatewayRpc::new(send) };
        let directory = GatewayDirectory::default();
        let gateways = Gateways::from_iter([(own, linked)]).in_directory(directory.clone());
        assert_eq!(gateways.locations(), std::slice::from_ref(&local));
        assert_eq!((gateways.esp_of(Some(own)), gateways.esp_of(None)), (None, None));

        store
            .register_gateway(&NewGateway { id: own, location: local.clone(), in_process: true }, now)
            .await
            .unwrap();
        store.register_gateway(&away, now).await.unwrap();
        for (id, told) in [(own, facts(1, Some(200))), (away.id, facts(2, Some(50)))] {
            let epoch = store.link_gateway(id, now).await.unwrap();
            store.gateway_introduced(&epoch, &told).await.unwrap();
        }
        let mut reader = DirectoryReader { directory, store };
        reader.activate(now).await.unwrap();
        assert_eq!(gateways.locations(), [away.location.clone(), local.clone()]);
        assert_eq!(gateways.esp_of(Some(own)), Some(EspMode::Kernel));
        assert_eq!(gateways.namespace_of(Some(away.id), 4).as_deref(), Some("wg-2-4"));
        assert_eq!(gateways.public_addresses_at(&away.location), [std::net::Ipv4Addr::from([192, 0, 2, 2])]);
        assert_eq!(gateways.max_tunnels_at(&local), Some(200));
        assert_eq!(gateways.with_address(|address| address.octets()[3] == 2), [away.id]);
        assert!(gateways.linked(Some(away.id)).is_none());

        // What it tells on its link is newer.
        let hello = GatewayHello {
            versions: VERSIONS,
            version: "0.1.0".to_owned(),
            boot: Uuid::nil(),
            held: None,
            agent_url: None,
            esp: EspMode::Userland,
            public_address: Some([192, 0, 2, 9].into()),
            max_tunnels: None,
            namespaces: None,
        };
        view.linked(hello);
        assert_eq!(gateways.public_address_of(Some(own)), Some([192, 0, 2, 9].into()));
        assert_eq!(
            (gateways.esp_of(Some(own)), gateways.max_tunnels_at(&local)),
            (Some(EspMode::Userland), None)
        );
        assert_eq!(gateways.namespace_of(Some(own), 4), None);
        view.lost(now);
        assert_eq!(gateways.esp_of(Some(own)), Some(EspMode::Userland));
    }
}

//! Gateways as the operator sees them, empties them and removes them.
//!
//! Invariant: a gateway that has tunnels is not removed: its sites would dial an address that nobody answers.

use crate::{
    Action, GatewayFacts, ListRequest, Page, ResourceType, Result, Store, StoreError, WriteContext,
    execution::Execution, list::Listing, row::rows, write::Write,
};
use futures_util::FutureExt as _;
use jiff::Timestamp;
use wicketgate_model::{GatewayId, LocationId, text_enum};

rows! {
    /// A gateway of the installation.
    #[derive(Debug, Clone, PartialEq, Eq)]
    pub struct ListedGateway {
        pub id: GatewayId,
        /// `None`: it has not started since the database was of a version without it.
        pub location: Option<LocationId>,
        pub in_process: bool,
        /// As it told them last.
        pub facts: GatewayFacts,
        pub draining: bool,
        pub linked_at: Option<Timestamp>,
        /// When its last link ended, if it has none.
        pub lost_at: Option<Timestamp>,
        /// Those that are placed at it.
        pub tunnels: u64,
        /// Those whose removal it holds back until it is confirmed.
        pub held_removals: Option<u64>,
        pub created_at: Timestamp,
    }
}

text_enum!(
    /// Whether a gateway is linked to a server.
    GatewayStatus { Online = "ONLINE", Offline = "OFFLINE" }
);

impl ListedGateway {
    pub fn status(&self) -> GatewayStatus {
        match (self.linked_at, self.lost_at) {
            (Some(_), None) => GatewayStatus::Online,
            _ => GatewayStatus::Offline,
        }
    }
}

/// Why a gateway is not removed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum GatewayInUse {
    #[error("it is a part of the server's process")]
    InProcess,
    #[error("it has {0} tunnels")]
    HasTunnels(u64),
}

impl Store {
    /// Those that were not removed.
    pub async fn listed_gateways(&self, request: &ListRequest) -> Result<Page<ListedGateway>> {
        self.list(&LISTING, None, request).await
    }

    /// `None` once it is removed.
    pub async fn listed_gateway(&self, id: GatewayId) -> Result<Option<ListedGateway>> {
        self.find(LISTING.find("g.id = $1"), &[&id]).await
    }

    /// Has a gateway get no more tunnels, or get them again.
    ///
    /// # Errors
    /// [`StoreError::Missing`]: there is none.
    pub async fn set_draining(&self, id: GatewayId, draining: bool, context: &WriteContext) -> Result<()> {
        self.write(context, move |write| {
            async move {
                let update = "UPDATE gateway SET draining = $1 WHERE id = $2 AND deleted_at IS NULL";
                if write.tx.execute(update, &[&draining, &id]).await? == 0 {
                    return Err(StoreError::Missing);
                }
                write.record_of_installation(Action::Update, Execution::of(ResourceType::Gateway, &id)).await
            }
            .boxed()
        })
        .await
    }

    /// Removes a gateway: its link and its join tokens end, and its key opens no further link. The inner result says why it
    /// stays.
    ///
    /// # Errors
    /// [`StoreError::Missing`]: there is none.
    pub async fn delete_gateway(
        &self,
        id: GatewayId,
        context: &WriteContext,
    ) -> Result<std::result::Result<(), GatewayInUse>> {
        self.write(context, move |write| write.delete_gateway(id).boxed()).await
    }
}

impl Store {
    /// As [`Store::delete_gateway`]. One that has tunnels loses its key: it stays, without a machine.
    pub(crate) async fn bar_gateway(&self, id: GatewayId, context: &WriteContext) -> Result<()> {
        self.write(context, move |write| {
            async move {
                if matches!(write.delete_gateway(id).await?, Err(GatewayInUse::HasTunnels(_))) {
                    let bar = "UPDATE gateway SET public_key_sha256 = NULL WHERE id = $1 AND in_process = 0";
                    write.tx.execute(bar, &[&id]).await?;
                    write.end_link(id).await?;
                    write.end_join_tokens(id).await?;
                    let gateway = Execution::of(ResourceType::Gateway, &id);
                    write.record_of_installation(Action::Update, gateway).await?;
                }
                Ok(())
            }
            .boxed()
        })
        .await
    }
}

impl Write {
    async fn delete_gateway(&mut self, id: GatewayId) -> Result<std::result::Result<(), GatewayInUse>> {
        let select = "SELECT in_process FROM gateway WHERE id = $1 AND deleted_at IS NULL";
        let (in_process,): (bool,) = self.tx.find(select, &[&id]).await?.ok_or(StoreError::Missing)?;
        if in_process {
            return Ok(Err(GatewayInUse::InProcess));
        }
        match self.tunnels_at(id).await? {
            0 => {}
            tunnels => return Ok(Err(GatewayInUse::HasTunnels(tunnels))),
        }
        let delete = "UPDATE gateway SET deleted_at = $1 WHERE id = $2";
        self.tx.execute(delete, &[&self.context.at, &id]).await?;
        self.end_link(id).await?;
        self.end_join_tokens(id).await?;
        self.record_of_installation(Action::Delete, Execution::of(ResourceType::Gateway, &id)).await.map(Ok)
    }
}

pub(crate) static LISTING: Listing = Listing::new(
    "g.*, k.linked_at, k.lost_at, NULLIF(k.held_removals, 0) AS held_removals, (SELECT COUNT(*) FROM endpoint_place p JOIN ipsec_tunnel t ON t.id = p.tunnel \
     WHERE p.gateway = g.id AND p.withdrawn_at IS NULL AND t.status <> 'DELETED') AS tunnels",
    "gateway g LEFT JOIN gateway_link k ON k.gateway = g.id",
    "g.id",
)
.only("g.deleted_at IS NULL");

pub mod columns {
    crate::list_column::columns! {
        ID = Text("g.id");
        LOCATION = Text("g.location").optional();
        PUBLIC_ADDRESS = Text("g.public_address").optional();
        STATUS = Text("CASE WHEN k.linked_at IS NOT NULL AND k.lost_at IS NULL THEN 'ONLINE' ELSE 'OFFLINE' END");
        CREATED_AT = Time("g.created_at");
    }
}

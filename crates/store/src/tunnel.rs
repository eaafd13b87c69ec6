//! IPsec tunnels.

use crate::{
    Action, Column, ColumnType, ListRequest, Page, PreviousKeys, ResourceType, Result, Store, StoreError,
    Tags, WriteContext,
    columns::{
        Query, deleting, generation, json_option, json_text, number, parsed, parsed_option, standing, tags,
        tags_text, text, time, time_option,
    },
    execution::Execution,
    list::{Hidden, Listing, of},
    tunnel_endpoint::endpoint,
    write::Write,
};
use futures_util::FutureExt as _;
use jiff::Timestamp;
use sqlx::{Row, any::AnyRow};
use std::net::Ipv4Addr;
use wicketgate_model::{
    Connection, Description, EspProposals, FrontdoorId, Generation, IkeProposals, LoadBalancerPools,
    LocationId, PeerAddress, PeerCidr, PeerId, PreSharedKey, ResourceName, Standing, Status, TunnelId,
};

#[derive(Debug, Clone)]
pub struct TunnelRow {
    pub id: TunnelId,
    pub frontdoor: FrontdoorId,
    pub name: ResourceName,
    pub description: Option<Description>,
    pub location: LocationId,
    pub peer_address: PeerAddress,
    pub peer_cidr: PeerCidr,
    pub peer_id: PeerId,
    pub load_balancer_ip: Ipv4Addr,
    /// Unique among the live tunnels of the location.
    pub slot: u16,
    pub key: PreSharedKey,
    /// Previous keys that the peer may still use.
    pub previous_keys: PreviousKeys,
    /// `None`: the gateway's default.
    pub ike_proposals: Option<IkeProposals>,
    pub esp_proposals: Option<EspProposals>,
    /// The gateway starts the connection.
    pub initiate: bool,
    pub generation: Generation,
    pub standing: Standing,
    /// `None` until a gateway has reported it.
    pub connection: Option<Connection>,
    pub tags: Tags,
    pub created_at: Timestamp,
    pub updated_at: Timestamp,
    pub deleted_at: Option<Timestamp>,
    pub created_by: String,
}

/// Tunnels with the connections of their endpoints; the rest of the statement follows.
macro_rules! select {
    ($rest:literal) => {
        concat!(
            "SELECT t.*, ",
            $crate::tunnel_endpoint::endpoint!("connection"),
            " AS connection FROM ipsec_tunnel t ",
            $rest
        )
    };
}
pub(crate) use select;

/// The end of an UPDATE of tunnels that returns them as `select!` does.
macro_rules! returning {
    () => {
        concat!("RETURNING *, ", endpoint!("connection"), " AS connection")
    };
}

/// The properties of a tunnel that a caller decides.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TunnelSpec {
    pub name: ResourceName,
    pub description: Option<Description>,
    /// Fixed once the tunnel is created.
    pub location: LocationId,
    pub peer_address: PeerAddress,
    pub peer_cidr: PeerCidr,
    pub peer_id: PeerId,
    pub key: PreSharedKey,
    /// `None`: the gateway's default.
    pub ike_proposals: Option<IkeProposals>,
    pub esp_proposals: Option<EspProposals>,
    /// The gateway starts the connection; otherwise it only answers.
    pub initiate: bool,
    pub tags: Tags,
}

/// A change of a tunnel.
#[derive(Debug, Clone)]
pub struct TunnelChange {
    /// The generation of the row that the change was made from: a later one makes it [`StoreError::Stale`].
    pub expected: Generation,
    pub spec: TunnelSpec,
    /// A key that `spec` replaces stays valid until then.
    pub previous_until: Timestamp,
    /// As it is recorded.
    pub action: Action,
}

impl TunnelRow {
    pub fn spec(&self) -> TunnelSpec {
        TunnelSpec {
            name: self.name.clone(),
            description: self.description.clone(),
            location: self.location.clone(),
            peer_address: self.peer_address,
            peer_cidr: self.peer_cidr,
            peer_id: self.peer_id.clone(),
            key: self.key.clone(),
            ike_proposals: self.ike_proposals.clone(),
            esp_proposals: self.esp_proposals.clone(),
            initiate: self.initiate,
            tags: self.tags.clone(),
        }
    }

    pub(crate) fn read(row: &AnyRow) -> Result<Self> {
        Ok(Self {
            id: parsed(row, "id")?,
            frontdoor: parsed(row, "frontdoor")?,
            name: parsed(row, "name")?,
            description: parsed_option(row, "description")?,
            location: parsed(row, "location")?,
            peer_address: parsed(row, "peer_address")?,
            peer_cidr: parsed(row, "peer_cidr")?,
            peer_id: parsed(row, "peer_id")?,
            load_balancer_ip: parsed(row, "load_balancer_ip")?,
            slot: number(row, "slot")?,
            key: parsed(row, "pre_shared_key")?,
            previous_keys: PreviousKeys::read(&text(row, "previous_keys")?)?,
            ike_proposals: json_option(row, "ike_proposals")?,
            esp_proposals: json_option(row, "esp_proposals")?,
            initiate: number::<i64>(row, "initiate")? != 0,
            generation: generation(row)?,
            standing: standing(row)?,
            connection: json_option(row, "connection")?,
            tags: tags(row)?,
            created_at: time(row, "created_at")?,
            updated_at: time(row, "updated_at")?,
            deleted_at: time_option(row, "deleted_at")?,
            created_by: text(row, "created_by")?,
        })
    }
}

impl Store {
    /// Without those that are `DELETED`, unless a filter asks for them.
    pub async fn tunnels(&self, frontdoor: FrontdoorId, request: &ListRequest) -> Result<Page<TunnelRow>> {
        self.list(&LISTING, of(&columns::FRONTDOOR, frontdoor), request, TunnelRow::read).await
    }

    /// Creates a tunnel in the lowest free slot of its location.
    pub async fn create_tunnel(
        &self,
        frontdoor: FrontdoorId,
        spec: &TunnelSpec,
        pools: &LoadBalancerPools,
        context: &WriteContext,
    ) -> Result<TunnelRow> {
        let (new, pools) = (spec.clone(), pools.clone());
        let made = self.write(context, move |write| write.create_tunnel(frontdoor, new, pools).boxed()).await;
        self.name_conflicting_tunnel(made, frontdoor, spec).await
    }

    /// The load balancer keeps its address, unless the remote site's network now covers it.
    pub async fn replace_tunnel(
        &self,
        frontdoor: FrontdoorId,
        id: TunnelId,
        change: &TunnelChange,
        pools: &LoadBalancerPools,
        context: &WriteContext,
    ) -> Result<TunnelRow> {
        let (new, pools) = (change.clone(), pools.clone());
        let made =
            self.write(context, move |write| write.replace_tunnel(frontdoor, id, new, pools).boxed()).await;
        self.name_conflicting_tunnel(made, frontdoor, &change.spec).await
    }

    /// Fails with [`StoreError::HasShares`] while a live share uses the tunnel.
    pub async fn delete_tunnel(
        &self,
        frontdoor: FrontdoorId,
        id: TunnelId,
        context: &WriteContext,
    ) -> Result<TunnelRow> {
        self.write(context, move |write| write.delete_tunnel(frontdoor, id).boxed()).await
    }

    pub async fn tunnel(&self, frontdoor: FrontdoorId, id: TunnelId) -> Result<Option<TunnelRow>> {
        self.find(select!("WHERE t.id = $1 AND t.frontdoor = $2"), &[&id, &frontdoor], TunnelRow::read).await
    }

    /// Records that the tunnel's key is handed out. Without this record it must not be.
    pub async fn record_key_read(
        &self,
        frontdoor: FrontdoorId,
        id: TunnelId,
        context: &WriteContext,
    ) -> Result<()> {
        self.write(context, move |write| {
            async move {
                let on = Execution { resource_type: ResourceType::Tunnel, resource: &id, generation: None };
                write.record(frontdoor, Action::ReadKey, on).await
            }
            .boxed()
        })
        .await
    }

    /// Adds to a conflict the id of the tunnel that has the name or the address, if it is in the same Frontdoor.
    async fn name_conflicting_tunnel<T>(
        &self,
        made: Result<T>,
        frontdoor: FrontdoorId,
        spec: &TunnelSpec,
    ) -> Result<T> {
        let Err(StoreError::Conflict { column, .. }) = made else { return made };
        let row = sqlx::query(
            "SELECT id FROM ipsec_tunnel WHERE frontdoor = $1 AND status <> 'DELETED' \
             AND (($2 = 't.name' AND name = $3) OR ($2 = 't.peer_address' AND location = $4 AND peer_address = $5))",
        )
        .bind(frontdoor.to_string())
        .bind(column.sql)
        .bind(spec.name.as_str())
        .bind(spec.location.as_str())
        .bind(spec.peer_address.to_string())
        .fetch_optional(&self.database.readers)
        .await?;
        Err(StoreError::Conflict { column, with: row.map(|r| r.try_get(0)).transpose()? })
    }
}

impl Write {
    async fn create_tunnel(
        &mut self,
        frontdoor: FrontdoorId,
        spec: TunnelSpec,
        pools: LoadBalancerPools,
    ) -> Result<TunnelRow> {
        let slot = self.free_slot(&spec.location).await?;
        let address = pools.address(slot, spec.peer_cidr).ok_or(StoreError::NoSlot)?;
        let id = TunnelId::new((self.context.fresh)());
        let insert = sqlx::query(
            "INSERT INTO ipsec_tunnel (name, peer_address, peer_cidr, peer_id, pre_shared_key, ike_proposals, \
             esp_proposals, initiate, tags, description, load_balancer_ip, id, frontdoor, location, slot, generation, status, \
             status_since, created_at, updated_at, created_by, revision) \
             VALUES ($1, $2, $3, $4, $5, $6, $7, $8, $9, $10, $11, $12, $13, $14, $15, 1, 'NEW', $16, $16, $16, $17, $18) \
             RETURNING *, NULL AS connection",
        );
        let row = bind(insert, &spec)?
            .bind(address.to_string())
            .bind(id.to_string())
            .bind(frontdoor.to_string())
            .bind(spec.location.to_string())
            .bind(i64::from(slot))
            .bind(self.at())
            .bind(self.context.actor.clone())
            .bind(self.revision)
            .fetch_one(self.db())
            .await?;
        self.finish_tunnel(&row, Action::Create).await
    }

    async fn replace_tunnel(
        &mut self,
        frontdoor: FrontdoorId,
        id: TunnelId,
        change: TunnelChange,
        pools: LoadBalancerPools,
    ) -> Result<TunnelRow> {
        let old = self.live_tunnel(frontdoor, id).await?;
        let TunnelChange { expected, spec, previous_until, action } = change;
        if old.generation != expected {
            return Err(StoreError::Stale);
        }
        if old.peer_cidr != spec.peer_cidr {
            self.check_sources(id, spec.peer_cidr).await?;
        }
        let address = if spec.peer_cidr.contains(old.load_balancer_ip) {
            pools.address(old.slot, spec.peer_cidr).ok_or(StoreError::NoSlot)?
        } else {
            old.load_balancer_ip
        };
        let previous = if old.key == spec.key {
            old.previous_keys
        } else {
            old.previous_keys.rotated(&old.key, &spec.key, previous_until, self.context.at)
        };
        let update = sqlx::query(concat!(
            "UPDATE ipsec_tunnel SET name = $1, peer_address = $2, peer_cidr = $3, peer_id = $4, \
             pre_shared_key = $5, ike_proposals = $6, esp_proposals = $7, initiate = $8, tags = $9, description = $10, \
             load_balancer_ip = $11, previous_keys = $12, generation = generation + 1, status = 'NEW', \
             status_since = $13, updated_at = $13, reason = NULL, message = NULL, detail_since = NULL, \
             revision = $14 WHERE id = $15 ",
            returning!()
        ));
        let row = bind(update, &spec)?
            .bind(address.to_string())
            .bind(previous.text())
            .bind(self.at())
            .bind(self.revision)
            .bind(id.to_string())
            .fetch_one(self.db())
            .await?;
        self.finish_tunnel(&row, action).await
    }

    async fn delete_tunnel(&mut self, frontdoor: FrontdoorId, id: TunnelId) -> Result<TunnelRow> {
        let old = self.live_tunnel(frontdoor, id).await?;
        self.context.check(old.updated_at)?;
        let users = sqlx::query(
            "SELECT COUNT(*) AS users, MIN(id) AS first_user FROM ipsec_share \
             WHERE tunnel = $1 AND status NOT IN ('DELETING', 'DELETED')",
        )
        .bind(id.to_string())
        .fetch_one(self.db())
        .await?;
        if let Some(first) = users.try_get("first_user")? {
            return Err(StoreError::HasShares { count: number(&users, "users")?, first });
        }
        let delete = concat!("UPDATE ipsec_tunnel SET ", deleting!(), " WHERE id = $3 ", returning!());
        let row = sqlx::query(delete)
            .bind(self.at())
            .bind(self.revision)
            .bind(id.to_string())
            .fetch_one(self.db())
            .await?;
        self.finish_tunnel(&row, Action::Delete).await
    }

    /// Records the write that made this row.
    async fn finish_tunnel(&mut self, row: &AnyRow, action: Action) -> Result<TunnelRow> {
        let tunnel = TunnelRow::read(row)?;
        let on = Execution {
            resource_type: ResourceType::Tunnel,
            resource: &tunnel.id,
            generation: Some(tunnel.generation),
        };
        self.record(tunnel.frontdoor, action, on).await?;
        Ok(tunnel)
    }

    /// The lowest slot that no tunnel of the location has. It stays free, since writes follow one another.
    async fn free_slot(&mut self, location: &LocationId) -> Result<u16> {
        let row = sqlx::query(
            "SELECT CASE \
             WHEN NOT EXISTS (SELECT 1 FROM ipsec_tunnel WHERE location = $1 AND slot = 0 AND status <> 'DELETED') \
             THEN 0 \
             ELSE (SELECT t.slot + 1 FROM ipsec_tunnel t WHERE t.location = $1 AND t.status <> 'DELETED' \
                   AND NOT EXISTS (SELECT 1 FROM ipsec_tunnel n WHERE n.location = $1 AND n.slot = t.slot + 1 \
                                   AND n.status <> 'DELETED') ORDER BY t.slot LIMIT 1) \
             END AS slot",
        )
        .bind(location.as_str())
        .fetch_one(self.db())
        .await?;
        number(&row, "slot").map_err(|_| StoreError::NoSlot)
    }

    async fn live_tunnel(&mut self, frontdoor: FrontdoorId, id: TunnelId) -> Result<TunnelRow> {
        let row = sqlx::query(select!("WHERE t.id = $1 AND t.frontdoor = $2"))
            .bind(id.to_string())
            .bind(frontdoor.to_string())
            .fetch_optional(self.db())
            .await?;
        let tunnel = TunnelRow::read(&row.ok_or(StoreError::Missing)?)?;
        match tunnel.standing.status {
            status @ (Status::Deleting | Status::Deleted) => Err(StoreError::NotLive(status)),
            _ => Ok(tunnel),
        }
    }
}

/// Binds what a caller decides about a tunnel, but for its location, as `$1` to `$10`.
fn bind(query: Query, spec: &TunnelSpec) -> Result<Query> {
    Ok(query
        .bind(spec.name.to_string())
        .bind(spec.peer_address.to_string())
        .bind(spec.peer_cidr.to_string())
        .bind(spec.peer_id.to_string())
        .bind(spec.key.expose().to_owned())
        .bind(json_text("ike_proposals", spec.ike_proposals.as_ref())?)
        .bind(json_text("esp_proposals", spec.esp_proposals.as_ref())?)
        .bind(i64::from(spec.initiate))
        .bind(tags_text(&spec.tags)?)
        .bind(spec.description.as_ref().map(ToString::to_string)))
}

pub(crate) static LISTING: Listing = Listing {
    hidden: Some(Hidden {
        live: "t.status <> 'DELETED'",
        status: &columns::STATUS,
        deleted_at: &columns::DELETED_AT,
    }),
    ..Listing::new(concat!("t.*, ", endpoint!("connection"), " AS connection"), "ipsec_tunnel t", "t.id")
};

pub(crate) static SLOT: Column = Column::new(ColumnType::Integer, "t.slot");

pub mod columns {
    use crate::list_column::detail;

    crate::list_column::columns! {
        ID = Text("t.id");
        NAME = Text("t.name");
        DESCRIPTION = Text("t.description").optional();
        FRONTDOOR = Text("t.frontdoor");
        LOCATION = Text("t.location");
        STATUS = Text("t.status");
        DETAIL_REASON = Text(detail!("t", reason)).optional();
        DETAIL_MESSAGE = Text(detail!("t", message)).optional();
        DETAIL_SINCE = Time(detail!("t", since)).optional();
        PEER_ADDRESS = Text("t.peer_address");
        PEER_CIDR = Text("t.peer_cidr");
        PEER_ID = Text("t.peer_id");
        LOAD_BALANCER_IP = Text("t.load_balancer_ip");
        // A gateway's address follows from the location. The caller replaces filters by it with filters by LOCATION.
        GATEWAY_ADDRESS = Text("t.location").optional();
        IKE_PROPOSALS = List("t.ike_proposals").optional();
        ESP_PROPOSALS = List("t.esp_proposals").optional();
        INITIATE = Boolean("t.initiate");
        TAGS = Tags("t.tags");
        CREATED_AT = Time("t.created_at");
        UPDATED_AT = Time("t.updated_at");
        DELETED_AT = Time("t.deleted_at").optional();
        CREATED_BY = Text("t.created_by");
    }
}

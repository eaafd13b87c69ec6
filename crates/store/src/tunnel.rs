//! IPsec tunnels.

use crate::{
    Action, PreviousKeys, ResourceType, Result, Store, StoreError, Tags, WriteContext,
    columns::{
        generation, json_option, json_text, number, parsed, standing, tags, tags_text, text, time,
        time_option,
    },
    execution::Execution,
    write::Write,
};
use jiff::Timestamp;
use sqlx::{Row, any::AnyRow};
use std::net::Ipv4Addr;
use wicketgate_model::{
    Connection, EspProposals, FrontdoorId, Generation, IkeProposals, LoadBalancerPools, LocationId,
    PeerAddress, PeerCidr, PeerId, PreSharedKey, ResourceName, Standing, Status, TunnelId,
};

#[derive(Debug, Clone)]
pub struct TunnelRow {
    pub id: TunnelId,
    pub frontdoor: FrontdoorId,
    pub name: ResourceName,
    pub location: LocationId,
    pub peer_address: PeerAddress,
    pub peer_cidr: PeerCidr,
    pub peer_id: PeerId,
    pub load_balancer_ip: Ipv4Addr,
    /// Unique among the live tunnels of the location.
    pub slot: u16,
    pub key: PreSharedKey,
    /// The keys before this one that the peer may still use.
    pub previous_keys: PreviousKeys,
    /// `None`: what the gateway offers by itself.
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

/// What a caller decides about a tunnel.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TunnelSpec {
    pub name: ResourceName,
    /// Fixed once the tunnel is created.
    pub location: LocationId,
    pub peer_address: PeerAddress,
    pub peer_cidr: PeerCidr,
    pub peer_id: PeerId,
    pub key: PreSharedKey,
    /// `None`: what the gateway offers by itself.
    pub ike_proposals: Option<IkeProposals>,
    pub esp_proposals: Option<EspProposals>,
    /// The gateway starts the connection; else it only answers.
    pub initiate: bool,
    pub tags: Tags,
}

impl TunnelRow {
    pub fn spec(&self) -> TunnelSpec {
        TunnelSpec {
            name: self.name.clone(),
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
    /// Creates a tunnel in the lowest free slot of its location.
    pub async fn create_tunnel(
        &self,
        frontdoor: FrontdoorId,
        spec: &TunnelSpec,
        pools: &LoadBalancerPools,
        context: &WriteContext,
    ) -> Result<TunnelRow> {
        let made = self.try_create_tunnel(frontdoor, spec, pools, context).await;
        self.name_tunnel_in_the_way(made, frontdoor, spec).await
    }

    async fn try_create_tunnel(
        &self,
        frontdoor: FrontdoorId,
        spec: &TunnelSpec,
        pools: &LoadBalancerPools,
        context: &WriteContext,
    ) -> Result<TunnelRow> {
        let mut write = self.write().await?;
        let slot = write.free_slot(&spec.location).await?;
        let address = pools.address(slot, spec.peer_cidr).ok_or(StoreError::NoSlot)?;
        let id = TunnelId::new((context.fresh)());
        let now = context.at.as_microsecond();
        let row = sqlx::query(
            "INSERT INTO ipsec_tunnel (id, frontdoor, name, location, peer_address, peer_cidr, peer_id, \
             load_balancer_ip, slot, pre_shared_key, tags, generation, status, status_since, created_at, updated_at, \
             created_by, revision, ike_proposals, esp_proposals, initiate) \
             VALUES ($1, $2, $3, $4, $5, $6, $7, $8, $9, $10, $11, 1, 'NEW', $12, $12, $12, $13, $14, $15, $16, $17) \
             RETURNING *",
        )
        .bind(id.to_string())
        .bind(frontdoor.to_string())
        .bind(spec.name.as_str())
        .bind(spec.location.as_str())
        .bind(spec.peer_address.to_string())
        .bind(spec.peer_cidr.to_string())
        .bind(spec.peer_id.as_str())
        .bind(address.to_string())
        .bind(i64::from(slot))
        .bind(spec.key.expose())
        .bind(tags_text(&spec.tags)?)
        .bind(now)
        .bind(context.actor.clone())
        .bind(write.revision)
        .bind(json_text("ike_proposals", spec.ike_proposals.as_ref())?)
        .bind(json_text("esp_proposals", spec.esp_proposals.as_ref())?)
        .bind(i64::from(spec.initiate))
        .fetch_one(write.db())
        .await?;
        let tunnel = TunnelRow::read(&row)?;
        write.record(context, frontdoor, Action::Create, execution(&tunnel)).await?;
        write.commit().await?;
        Ok(tunnel)
    }

    /// Changes the tunnel that was read at generation `expected`. A new key leaves the old one valid until
    /// `previous_until`. The load balancer keeps its address, unless the remote site's network now covers it.
    #[expect(
        clippy::too_many_arguments,
        reason = "each says one thing, and a struct of them would be used once"
    )]
    pub async fn replace_tunnel(
        &self,
        frontdoor: FrontdoorId,
        id: TunnelId,
        expected: Generation,
        spec: &TunnelSpec,
        pools: &LoadBalancerPools,
        previous_until: Timestamp,
        action: Action,
        context: &WriteContext,
    ) -> Result<TunnelRow> {
        let made = self
            .try_replace_tunnel(frontdoor, id, expected, spec, pools, previous_until, action, context)
            .await;
        self.name_tunnel_in_the_way(made, frontdoor, spec).await
    }

    #[expect(clippy::too_many_arguments, reason = "as its caller")]
    async fn try_replace_tunnel(
        &self,
        frontdoor: FrontdoorId,
        id: TunnelId,
        expected: Generation,
        spec: &TunnelSpec,
        pools: &LoadBalancerPools,
        previous_until: Timestamp,
        action: Action,
        context: &WriteContext,
    ) -> Result<TunnelRow> {
        let mut write = self.write().await?;
        let old = write.live_tunnel(frontdoor, id).await?;
        if old.generation != expected {
            return Err(StoreError::Stale);
        }
        if old.peer_cidr != spec.peer_cidr {
            write.check_sources(id, spec.peer_cidr).await?;
        }
        let address = if spec.peer_cidr.contains(old.load_balancer_ip) {
            pools.address(old.slot, spec.peer_cidr).ok_or(StoreError::NoSlot)?
        } else {
            old.load_balancer_ip
        };
        let previous = if old.key == spec.key {
            old.previous_keys
        } else {
            old.previous_keys.rotated(&old.key, &spec.key, previous_until, context.at)
        };
        let row = sqlx::query(
            "UPDATE ipsec_tunnel SET name = $1, peer_address = $2, peer_cidr = $3, peer_id = $4, \
             load_balancer_ip = $5, pre_shared_key = $6, previous_keys = $7, ike_proposals = $8, \
             esp_proposals = $13, initiate = $14, tags = $9, \
             generation = generation + 1, status = 'NEW', status_since = $10, updated_at = $10, reason = NULL, \
             message = NULL, detail_since = NULL, revision = $11 WHERE id = $12 RETURNING *",
        )
        .bind(spec.name.as_str())
        .bind(spec.peer_address.to_string())
        .bind(spec.peer_cidr.to_string())
        .bind(spec.peer_id.as_str())
        .bind(address.to_string())
        .bind(spec.key.expose())
        .bind(previous.text())
        .bind(json_text("ike_proposals", spec.ike_proposals.as_ref())?)
        .bind(tags_text(&spec.tags)?)
        .bind(context.at.as_microsecond())
        .bind(write.revision)
        .bind(id.to_string())
        .bind(json_text("esp_proposals", spec.esp_proposals.as_ref())?)
        .bind(i64::from(spec.initiate))
        .fetch_one(write.db())
        .await?;
        let tunnel = TunnelRow::read(&row)?;
        write.record(context, frontdoor, action, execution(&tunnel)).await?;
        write.commit().await?;
        Ok(tunnel)
    }

    /// Refused with [`StoreError::HasShares`] while a live share uses the tunnel.
    pub async fn delete_tunnel(
        &self,
        frontdoor: FrontdoorId,
        id: TunnelId,
        context: &WriteContext,
    ) -> Result<TunnelRow> {
        let mut write = self.write().await?;
        context.check(write.live_tunnel(frontdoor, id).await?.updated_at)?;
        let users = sqlx::query(
            "SELECT COUNT(*) AS users, MIN(id) AS first_user FROM ipsec_share \
             WHERE tunnel = $1 AND status NOT IN ('DELETING', 'DELETED')",
        )
        .bind(id.to_string())
        .fetch_one(write.db())
        .await?;
        if let Some(first) = users.try_get("first_user")? {
            return Err(StoreError::HasShares { count: number(&users, "users")?, first });
        }
        let row = sqlx::query(
            "UPDATE ipsec_tunnel SET generation = generation + 1, status = 'DELETING', status_since = $1, \
             updated_at = $1, reason = NULL, message = NULL, detail_since = NULL, revision = $2 \
             WHERE id = $3 RETURNING *",
        )
        .bind(context.at.as_microsecond())
        .bind(write.revision)
        .bind(id.to_string())
        .fetch_one(write.db())
        .await?;
        let tunnel = TunnelRow::read(&row)?;
        write.record(context, frontdoor, Action::Delete, execution(&tunnel)).await?;
        write.commit().await?;
        Ok(tunnel)
    }

    pub async fn tunnel(&self, frontdoor: FrontdoorId, id: TunnelId) -> Result<Option<TunnelRow>> {
        let row = sqlx::query("SELECT * FROM ipsec_tunnel WHERE id = $1 AND frontdoor = $2")
            .bind(id.to_string())
            .bind(frontdoor.to_string())
            .fetch_optional(&self.readers)
            .await?;
        row.as_ref().map(TunnelRow::read).transpose()
    }

    /// Writes down that somebody is given the tunnel's key. Whoever can't be written down is not to be given it.
    pub async fn record_key_read(
        &self,
        frontdoor: FrontdoorId,
        id: TunnelId,
        context: &WriteContext,
    ) -> Result<()> {
        let mut write = self.write().await?;
        let on = Execution { resource_type: ResourceType::Tunnel, resource: &id, generation: None };
        write.record(context, frontdoor, Action::ReadKey, on).await?;
        write.commit().await
    }

    /// Adds to a conflict which tunnel is in the way: one of the same Frontdoor only, others are not told of.
    async fn name_tunnel_in_the_way<T>(
        &self,
        made: Result<T>,
        frontdoor: FrontdoorId,
        spec: &TunnelSpec,
    ) -> Result<T> {
        let Err(StoreError::Conflict { property, .. }) = made else { return made };
        // What is in the way may have been written a moment ago.
        self.flush().await;
        let row = sqlx::query(
            "SELECT id FROM ipsec_tunnel WHERE frontdoor = $1 AND status <> 'DELETED' \
             AND (($2 = 'name' AND name = $3) OR ($2 = 'peerPublicIp' AND location = $4 AND peer_address = $5))",
        )
        .bind(frontdoor.to_string())
        .bind(property)
        .bind(spec.name.as_str())
        .bind(spec.location.as_str())
        .bind(spec.peer_address.to_string())
        .fetch_optional(&self.readers)
        .await?;
        Err(StoreError::Conflict { property, with: row.map(|r| r.try_get(0)).transpose()? })
    }
}

impl Write {
    /// The lowest slot that no tunnel of the location has. Writers follow one another, so it stays free.
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
        let row = sqlx::query("SELECT * FROM ipsec_tunnel WHERE id = $1 AND frontdoor = $2")
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

fn execution(tunnel: &TunnelRow) -> Execution<'_> {
    Execution {
        resource_type: ResourceType::Tunnel,
        resource: &tunnel.id,
        generation: Some(tunnel.generation),
    }
}

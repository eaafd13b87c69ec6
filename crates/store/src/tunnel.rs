//! IPsec tunnels.

use crate::{
    Action, Column, ColumnType, ListRequest, NamedRow, Page, PreviousKeys, ResourceType, Result, Store,
    StoreError, Tags, WriteContext,
    endpoint_place::{first_place, redundancy},
    list::{Listing, of},
    provisioned::{HIDDEN, Head, LIVE, Provisioned, Unique},
    row::{rows, specs},
    statement::Assignments,
    tunnel_endpoint::endpoint,
    tunnel_keys::{self, SealedKeys},
    write::Write,
};
use futures_util::FutureExt as _;
use jiff::Timestamp;
use std::{collections::HashMap, net::Ipv4Addr};
use wicketgate_model::{
    Connection, Description, EspProposals, FrontdoorId, GatewayId, Generation, IkeProposals,
    LoadBalancerPools, LocationId, PeerAddress, PeerCidr, PeerId, PreSharedKey, QuotaKind, Redundancy,
    ResourceName, Standing, TunnelId,
};

rows! {
    #[derive(Debug, Clone)]
    pub struct TunnelRow {
        pub id: TunnelId,
        pub frontdoor: FrontdoorId,
        pub spec: TunnelSpec,
        /// Where it is to be served; `None`: its location has no gateway.
        pub gateway: Option<GatewayId>,
        pub redundancy: Redundancy,
        pub load_balancer_ip: Ipv4Addr,
        /// Unique among the live tunnels of the location.
        pub slot: u16,
        /// Previous keys that the peer may still use.
        pub previous_keys: PreviousKeys,
        pub generation: Generation,
        /// SAs of before this generation are ended.
        pub cut_generation: Option<Generation>,
        /// When another Frontdoor's tunnel got `peer_address`: this one is not served.
        pub peer_address_taken_at: Option<Timestamp>,
        pub standing: Standing,
        /// `None` until a gateway has reported it.
        pub connection: Option<Connection>,
        pub created_at: Timestamp,
        pub updated_at: Timestamp,
        pub deleted_at: Option<Timestamp>,
        pub created_by: String,
        /// From the deletion on.
        pub deleted_by: Option<String>,
    }
}

specs! {
    /// What a caller decides about a tunnel.
    #[derive(Debug, Clone, PartialEq, Eq)]
    pub struct TunnelSpec {
        pub name: ResourceName,
        pub description: Option<Description>,
        /// Fixed once the tunnel is created.
        pub location: LocationId,
        pub peer_address: PeerAddress,
        pub peer_cidr: PeerCidr,
        pub peer_id: PeerId,
        /// `None`: it was erased when the tunnel was deleted.
        pub pre_shared_key: Option<PreSharedKey>,
        /// `None`: the gateway's default.
        pub ike_proposals: Option<IkeProposals>,
        pub esp_proposals: Option<EspProposals>,
        /// The gateway starts the connection; otherwise it only answers.
        pub initiate: bool,
        /// Two gateways of its location are to serve it; otherwise one.
        pub redundant: bool,
        /// If not, a gateway keeps and accepts no SA.
        pub enabled: bool,
        pub tags: Tags,
    }
}

impl TunnelSpec {
    /// Without what may be left out.
    pub fn new(
        name: ResourceName,
        location: LocationId,
        peer_address: PeerAddress,
        peer_cidr: PeerCidr,
        pre_shared_key: PreSharedKey,
    ) -> Self {
        Self {
            name,
            description: None,
            location,
            peer_address,
            peer_cidr,
            peer_id: peer_address.into(),
            pre_shared_key: Some(pre_shared_key),
            ike_proposals: None,
            esp_proposals: None,
            initiate: false,
            redundant: false,
            enabled: true,
            tags: Tags::new(),
        }
    }
}

impl TunnelSpec {
    /// How many gateways are to serve it.
    pub(crate) fn endpoints(&self) -> usize {
        1 + usize::from(self.redundant)
    }
}

/// Tunnels with their places, and the connections of their endpoints.
macro_rules! selected {
    () => {
        concat!(
            "*, ",
            $crate::endpoint_place::first_place!("id"),
            " AS gateway, ",
            $crate::endpoint_place::redundancy!("id", "redundant", "generation"),
            " AS redundancy, ",
            $crate::tunnel_endpoint::endpoint!("connection"),
            " AS connection"
        )
    };
}
pub(crate) use selected;

/// A change of a tunnel.
#[derive(Debug, Clone)]
pub struct TunnelChange {
    /// The generation of the row that the change was made from: a later one makes it [`StoreError::Stale`].
    pub expected: Generation,
    pub spec: TunnelSpec,
    /// A key that `spec` replaces stays valid until then.
    pub previous_until: Timestamp,
    /// Ends the SAs of before.
    pub cuts: bool,
    /// As it is recorded.
    pub action: Action,
}

/// Where a tunnel gets an address.
struct Place<'a> {
    frontdoor: FrontdoorId,
    location: &'a LocationId,
    slot: u16,
    /// The tunnel that has an address already.
    tunnel: Option<TunnelId>,
}

impl TunnelRow {
    pub fn named(&self) -> NamedRow {
        NamedRow::new(&self.id, &self.spec.name)
    }
}

impl Provisioned for TunnelRow {
    const TABLE: &'static str = tunnel_keys::TABLE;
    const TAGS: &'static str = "ipsec_tunnel_tag";
    const TYPE: ResourceType = ResourceType::Tunnel;
    const COLUMNS: &'static str = selected!();
    const UNIQUE: &'static [Unique] = &[
        Unique {
            index: "ipsec_tunnel_name",
            columns: ["frontdoor", "name"],
            column: &columns::NAME,
            holds: LIVE,
        },
        Unique {
            index: "ipsec_tunnel_peer_address",
            columns: ["location", "peer_address"],
            column: &columns::PEER_ADDRESS,
            holds: "status <> 'DELETED' AND peer_address_taken_at IS NULL",
        },
        Unique { index: "ipsec_tunnel_slot", columns: ["location", "slot"], column: &SLOT, holds: LIVE },
        Unique {
            index: "ipsec_tunnel_load_balancer",
            columns: ["location", "load_balancer_ip"],
            column: &columns::LOAD_BALANCER_IP,
            holds: LIVE,
        },
    ];

    fn head(&self) -> Head {
        Head {
            id: self.id.to_string(),
            frontdoor: self.frontdoor,
            generation: self.generation,
            status: self.standing.status,
        }
    }

    fn tags(&self) -> &Tags {
        &self.spec.tags
    }
}

impl Store {
    /// The locations of the tunnels that are placed at the gateway in the server's process.
    pub async fn own_tunnel_locations(&self) -> Result<Vec<LocationId>> {
        let select = "SELECT DISTINCT t.location FROM ipsec_tunnel t JOIN endpoint_place p ON p.tunnel = t.id \
                      JOIN gateway g ON g.id = p.gateway WHERE g.in_process = 1 AND p.withdrawn_at IS NULL \
                      AND t.status <> 'DELETED' ORDER BY t.location";
        let rows: Vec<(LocationId,)> = self.all(select, &[]).await?;
        Ok(rows.into_iter().map(|(location,)| location).collect())
    }

    /// Of the tunnels of all Frontdoors.
    pub async fn peer_addresses(&self) -> Result<Vec<(LocationId, PeerAddress)>> {
        self.all("SELECT location, peer_address FROM ipsec_tunnel WHERE status <> 'DELETED'", &[]).await
    }

    /// Without those that are `DELETED`, unless a filter asks for them.
    pub async fn tunnels(&self, frontdoor: FrontdoorId, request: &ListRequest) -> Result<Page<TunnelRow>> {
        self.list(&LISTING, of(&columns::FRONTDOOR, frontdoor), request).await
    }

    /// Creates a tunnel in the lowest free slot of its location, at a gateway of it. Its load balancer has the address that `pools` has
    /// chosen, or else one that no other tunnel has.
    pub async fn create_tunnel(
        &self,
        frontdoor: FrontdoorId,
        spec: &TunnelSpec,
        pools: &LoadBalancerPools,
        context: &WriteContext,
    ) -> Result<TunnelRow> {
        let (new, pools) = (spec.clone(), pools.clone());
        let made = self.write(context, move |write| {
            async move {
                write.need_room(&[frontdoor], QuotaKind::Tunnels).await?;
                write.need_room_beside_others(frontdoor, &new.location).await?;
                let slot = write.free_slot(&new.location).await?;
                let place = Place { frontdoor, location: &new.location, slot, tunnel: None };
                let address = write.load_balancer(&place, new.peer_cidr, &pools).await?;
                write.claim_peer_address(frontdoor, &new.location, new.peer_address).await?;
                let id = TunnelId::new((write.context.fresh)());
                let sealed = write.sealed(&id, &new, &PreviousKeys::default())?;
                let set = Assignments::of(&new).with(&sealed).and(&[
                    ("id", &id),
                    ("frontdoor", &frontdoor),
                    ("slot", &slot),
                    ("load_balancer_ip", &address),
                ]);
                let made: TunnelRow = write.create(set, "").await?.ok_or(StoreError::Stale)?;
                let gateway = write.place_tunnel(id, &new.location, new.endpoints()).await?;
                Ok(TunnelRow { gateway, ..made })
            }
            .boxed()
        });
        self.name_conflict(made.await, frontdoor, spec).await
    }

    /// The load balancer keeps its address, unless `pools` has chosen another, or the remote site's network now covers it.
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
        self.name_conflict(made, frontdoor, &change.spec).await
    }

    /// Erases the tunnel's keys. Fails with [`StoreError::HasShares`] while a live share uses the tunnel.
    pub async fn delete_tunnel(
        &self,
        frontdoor: FrontdoorId,
        id: TunnelId,
        context: &WriteContext,
    ) -> Result<TunnelRow> {
        self.write(context, move |write| {
            async move {
                let before: TunnelRow = write.live(frontdoor, &id).await?;
                write.context.check(before.updated_at)?;
                let users = "SELECT COUNT(*) OVER (), id, name FROM ipsec_share \
                             WHERE tunnel = $1 AND status NOT IN ('DELETING', 'DELETED') ORDER BY id LIMIT 1";
                if let Some((count, id, name)) = write.tx.find(users, &[&id]).await? {
                    return Err(StoreError::HasShares { count, first: NamedRow { id, name } });
                }
                write.revoke_links_of(id).await?;
                write.release_peer_address(&before).await?;
                let (actor, erased) = (write.context.actor.clone(), SealedKeys::default());
                write.deferred.erases = true;
                let set = Assignments::of(&erased).and(&[("deleted_by", &actor)]);
                write.change(&before, set, Action::Delete).await
            }
            .boxed()
        })
        .await
    }

    pub async fn tunnel(&self, frontdoor: FrontdoorId, id: TunnelId) -> Result<Option<TunnelRow>> {
        self.provisioned(frontdoor, &id).await
    }
}

impl Write {
    async fn replace_tunnel(
        &mut self,
        frontdoor: FrontdoorId,
        id: TunnelId,
        change: TunnelChange,
        pools: LoadBalancerPools,
    ) -> Result<TunnelRow> {
        self.lock_for_address(id, change.spec.peer_address).await?;
        let before: TunnelRow = self.live(frontdoor, &id).await?;
        let TunnelChange { expected, spec, previous_until, cuts, action } = change;
        if before.generation != expected {
            return Err(StoreError::Stale);
        }
        if before.spec.peer_cidr != spec.peer_cidr {
            self.check_sources(id, spec.peer_cidr).await?;
        }
        let is_chosen = pools.chosen().is_some_and(|chosen| chosen != before.load_balancer_ip);
        let address = if is_chosen || spec.peer_cidr.contains(before.load_balancer_ip) {
            let (location, slot) = (&before.spec.location, before.slot);
            let place = Place { frontdoor, location, slot, tunnel: Some(id) };
            self.load_balancer(&place, spec.peer_cidr, &pools).await?
        } else {
            before.load_balancer_ip
        };
        let (old_key, key) = (&before.spec.pre_shared_key, &spec.pre_shared_key);
        // Whatever replaced a key: a restored database has the old one again, and is told so by the record of revocations.
        let action = if old_key == key { action } else { Action::RotateKey };
        let previous = if cuts {
            // A cut leaves no older key valid, also if the current one stays.
            PreviousKeys::default()
        } else if old_key == key {
            before.previous_keys.clone()
        } else if let (Some(old), Some(new)) = (old_key, key) {
            before.previous_keys.rotated(old, new, previous_until, self.context.at)
        } else {
            return Err(StoreError::Stale);
        };
        if cuts || old_key != key {
            // The holder of a link would read the new key with it.
            self.revoke_links_of(id).await?;
            self.deferred.erases = true;
        }
        let taken_at = self.move_peer_address(&before, spec.peer_address).await?;
        // The location is fixed.
        let spec = TunnelSpec { location: before.spec.location.clone(), ..spec };
        let cut = if cuts { Some(before.generation.next()) } else { before.cut_generation };
        let sealed = self.sealed(&id, &spec, &previous)?;
        let set = Assignments::of(&spec).with(&sealed).and(&[
            ("load_balancer_ip", &address),
            ("cut_generation", &cut),
            ("peer_address_taken_at", &taken_at),
        ]);
        self.change(&before, set, action).await
    }

    fn sealed(&self, id: &TunnelId, spec: &TunnelSpec, previous: &PreviousKeys) -> Result<SealedKeys> {
        SealedKeys::of(id, spec.pre_shared_key.as_ref(), previous, self.tx.keys())
    }

    /// The address for the load balancer of a tunnel. It stays free, since writes follow one another.
    async fn load_balancer(
        &mut self,
        place: &Place<'_>,
        peer: PeerCidr,
        pools: &LoadBalancerPools,
    ) -> Result<Ipv4Addr> {
        let Place { frontdoor, location, slot, tunnel } = place;
        let select = "SELECT load_balancer_ip, id, name, frontdoor FROM ipsec_tunnel \
                      WHERE location = $1 AND status <> 'DELETED'";
        let taken: Vec<(Ipv4Addr, TunnelId, String, FrontdoorId)> = self.tx.all(select, &[*location]).await?;
        let mut taken: HashMap<_, _> =
            taken.into_iter().map(|(ip, id, name, of)| (ip, (id, name, of))).collect();
        taken.retain(|_, (id, ..)| Some(*id) != *tunnel);
        if let Some(chosen) = pools.chosen().filter(|chosen| !peer.contains(*chosen)) {
            let Some((id, name, of)) = taken.get(&chosen) else { return Ok(chosen) };
            let with = (of == frontdoor).then(|| NamedRow::new(id, name));
            return Err(StoreError::Conflict { column: &columns::LOAD_BALANCER_IP, with });
        }
        pools.addresses(*slot, peer).find(|ip| !taken.contains_key(ip)).ok_or(StoreError::NoAddress)
    }

    /// The lowest slot that no tunnel of the location has. It stays free, since writes follow one another.
    async fn free_slot(&mut self, location: &LocationId) -> Result<u16> {
        let (slot,): (i64,) = self
            .tx
            .one(
                "SELECT CASE \
                 WHEN NOT EXISTS (SELECT 1 FROM ipsec_tunnel WHERE location = $1 AND slot = 0 AND status <> 'DELETED') \
                 THEN 0 \
                 ELSE (SELECT t.slot + 1 FROM ipsec_tunnel t WHERE t.location = $1 AND t.status <> 'DELETED' \
                       AND NOT EXISTS (SELECT 1 FROM ipsec_tunnel n WHERE n.location = $1 AND n.slot = t.slot + 1 \
                                       AND n.status <> 'DELETED') ORDER BY t.slot LIMIT 1) \
                 END",
                &[location],
            )
            .await?;
        slot.try_into().map_err(|_| StoreError::NoSlot)
    }
}

pub(crate) static LISTING: Listing = Listing {
    hidden: Some(HIDDEN),
    tags: Some("ipsec_tunnel_tag g"),
    ..Listing::new(
        concat!(
            "r.*, ",
            first_place!("r.id"),
            " AS gateway, ",
            redundancy!("r.id", "r.redundant", "r.generation"),
            " AS redundancy, ",
            endpoint!("connection"),
            " AS connection"
        ),
        "ipsec_tunnel r",
        "r.id",
    )
};

pub(crate) static SLOT: Column = Column::new(ColumnType::Integer, "r.slot");

pub mod columns {
    crate::provisioned::columns! {
        LOCATION = Text("r.location");
        PEER_ADDRESS = Text("r.peer_address");
        PEER_CIDR = Text("r.peer_cidr");
        PEER_ID = Text("r.peer_id");
        LOAD_BALANCER_IP = Text("r.load_balancer_ip");
        // The gateway. The caller replaces filters by its address with filters by its id.
        GATEWAY_ADDRESS = Text(crate::endpoint_place::first_place!("r.id")).optional();
        IKE_PROPOSALS = List("r.ike_proposals").optional();
        ESP_PROPOSALS = List("r.esp_proposals").optional();
        INITIATE = Boolean("r.initiate");
        REDUNDANT = Boolean("r.redundant");
        REDUNDANCY = Text(crate::endpoint_place::redundancy!("r.id", "r.redundant", "r.generation"));
    }
}

//! IPsec shares.

use crate::{
    Action, ListRequest, NamedRow, Page, ResourceType, Result, Store, StoreError, Tags, WriteContext,
    endpoint_place::first_place,
    list::{CountTable, Listing, of},
    provisioned::{HIDDEN, Head, LIVE, LIVE_YET, Provisioned, Unique},
    row::{rows, specs},
    share_count::Counted,
    statement::Assignments,
    write::Write,
};
use futures_util::FutureExt as _;
use jiff::Timestamp;
use sqlx::AssertSqlSafe;
use wicketgate_model::{
    AllowedSources, Description, EnvironmentId, FrontdoorId, GatewayId, Generation, IngressPort, LocationId,
    PeerCidr, QuotaKind, ResourceName, ShareId, ShareOptions, SourceCidr, Standing, Status, Target, TunnelId,
    ZId,
};

rows! {
    #[derive(Debug, Clone)]
    pub struct ShareRow {
        pub id: ShareId,
        pub frontdoor: FrontdoorId,
        pub spec: ShareSpec,
        /// The environment's.
        pub z_id: ZId,
        /// The tunnel's: where it is to be served; `None`: the location has no gateway.
        pub gateway: Option<GatewayId>,
        pub location: LocationId,
        pub tunnel_name: ResourceName,
        pub generation: Generation,
        pub standing: Standing,
        pub created_at: Timestamp,
        pub updated_at: Timestamp,
        pub deleted_at: Option<Timestamp>,
        pub created_by: String,
        /// From the deletion on.
        pub deleted_by: Option<String>,
    }
}

specs! {
    /// What a caller decides about a share.
    #[derive(Debug, Clone, PartialEq, Eq)]
    pub struct ShareSpec {
        pub tunnel: TunnelId,
        pub environment: EnvironmentId,
        pub name: ResourceName,
        pub description: Option<Description>,
        pub target: Target,
        pub ingress_port: IngressPort,
        /// If not, a gateway keeps its port closed.
        pub enabled: bool,
        /// From then on, its port is closed, too.
        pub expires_at: Option<Timestamp>,
        pub options: ShareOptions,
        pub tags: Tags,
    }
}

impl ShareSpec {
    /// Without what may be left out.
    pub fn new(
        tunnel: TunnelId,
        environment: EnvironmentId,
        name: ResourceName,
        target: Target,
        ingress_port: IngressPort,
    ) -> Self {
        Self {
            tunnel,
            environment,
            name,
            description: None,
            target,
            ingress_port,
            enabled: true,
            expires_at: None,
            options: ShareOptions::default(),
            tags: Tags::new(),
        }
    }
}

/// Shares with columns of their tunnel and environment. Subqueries instead of joins: RETURNING can use them too.
macro_rules! selected {
    () => {
        concat!(
            "*, ",
            $crate::endpoint_place::first_place!("ipsec_share.tunnel"),
            " AS gateway, (SELECT l.location FROM ipsec_tunnel l WHERE l.id = tunnel) AS location, \
             (SELECT n.name FROM ipsec_tunnel n WHERE n.id = tunnel) AS tunnel_name, \
             (SELECT z.z_id FROM environment z WHERE z.id = environment) AS z_id"
        )
    };
}
pub(crate) use selected;

impl ShareRow {
    pub fn named(&self) -> NamedRow {
        NamedRow::new(&self.id, &self.spec.name)
    }
}

impl Provisioned for ShareRow {
    const TABLE: &'static str = "ipsec_share";
    const TAGS: &'static str = "ipsec_share_tag";
    const TYPE: ResourceType = ResourceType::Share;
    const COLUMNS: &'static str = selected!();
    const UNIQUE: &'static [Unique] = &[
        Unique {
            index: "ipsec_share_name",
            columns: ["frontdoor", "name"],
            column: &columns::NAME,
            holds: LIVE,
        },
        Unique {
            index: "ipsec_share_ingress_port",
            columns: ["tunnel", "ingress_port"],
            column: &columns::INGRESS_PORT,
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

    fn counted(&self) -> Option<Counted> {
        let (frontdoor, environment) = (self.frontdoor, self.spec.environment);
        Some(Counted { frontdoor, environment, status: self.standing.status })
    }
}

impl Store {
    /// Without those that are `DELETED`, unless a filter asks for them.
    pub async fn shares(&self, frontdoor: FrontdoorId, request: &ListRequest) -> Result<Page<ShareRow>> {
        self.list(&LISTING, of(&columns::FRONTDOOR, frontdoor), request).await
    }

    pub async fn create_share(
        &self,
        frontdoor: FrontdoorId,
        spec: &ShareSpec,
        context: &WriteContext,
    ) -> Result<ShareRow> {
        let new = spec.clone();
        let made = self.write(context, move |write| write.create_share(frontdoor, new).boxed()).await;
        self.name_conflict(made, frontdoor, spec).await
    }

    /// Changes the share that was read at generation `expected`.
    pub async fn replace_share(
        &self,
        frontdoor: FrontdoorId,
        id: ShareId,
        expected: Generation,
        spec: &ShareSpec,
        context: &WriteContext,
    ) -> Result<ShareRow> {
        let new = spec.clone();
        let made = self.write(context, move |write| {
            async move {
                let before: ShareRow = write.live(frontdoor, &id).await?;
                if before.generation != expected {
                    return Err(StoreError::Stale);
                }
                write.check_references(frontdoor, &new).await?;
                if before.spec.tunnel != new.tunnel {
                    // They are of other gateways.
                    write.forget_states(&id.to_string()).await?;
                }
                write.change(&before, Assignments::of(&new), Action::Update).await
            }
            .boxed()
        });
        self.name_conflict(made.await, frontdoor, spec).await
    }

    pub async fn delete_share(
        &self,
        frontdoor: FrontdoorId,
        id: ShareId,
        context: &WriteContext,
    ) -> Result<ShareRow> {
        self.write(context, move |write| {
            async move {
                let before: ShareRow = write.live(frontdoor, &id).await?;
                write.context.check(before.updated_at)?;
                write.delete(&before).await
            }
            .boxed()
        })
        .await
    }

    pub async fn share(&self, frontdoor: FrontdoorId, id: ShareId) -> Result<Option<ShareRow>> {
        self.provisioned(frontdoor, &id).await
    }
}

impl Write {
    async fn create_share(&mut self, frontdoor: FrontdoorId, spec: ShareSpec) -> Result<ShareRow> {
        self.need_room(&[frontdoor], QuotaKind::Shares).await?;
        if spec.options.allowed_sources.is_some() {
            self.check_references(frontdoor, &spec).await?;
        }
        let id = ShareId::new((self.context.fresh)());
        let set = Assignments::of(&spec).and(&[("id", &id), ("frontdoor", &frontdoor)]);
        // The insert looks up what the share refers to, and makes no row where something is missing.
        let from = format!(
            "FROM ipsec_tunnel t JOIN environment e ON e.id = ${environment} \
             WHERE t.id = ${tunnel} AND t.frontdoor = ${frontdoor} AND t.status NOT IN ('DELETING', 'DELETED') \
             AND e.frontdoor = ${frontdoor} AND e.deleted_at IS NULL",
            environment = set.number("environment"),
            tunnel = set.number("tunnel"),
            frontdoor = set.number("frontdoor"),
        );
        match self.create(set, &from).await? {
            Some(share) => Ok(share),
            None => self.check_references(frontdoor, &spec).await.and(Err(StoreError::Stale)),
        }
    }

    /// Deletes the shares of an environment, in a number of statements that grows with parts of them, not with each.
    pub(crate) async fn delete_shares_of(
        &mut self,
        frontdoor: FrontdoorId,
        environment: EnvironmentId,
    ) -> Result<()> {
        // It holds until they are updated, since writes follow one another.
        let live = format!(
            "SELECT status, COUNT(*) FROM ipsec_share WHERE environment = $1 {LIVE_YET} GROUP BY status"
        );
        let live: Vec<(Status, i64)> = self.tx.all(AssertSqlSafe(live), &[&environment]).await?;
        for (status, shares) in live {
            let from = Counted { frontdoor, environment, status };
            self.deferred.counts.all_moved(from, Counted { status: Status::Deleting, ..from }, shares);
        }
        self.delete_all::<ShareRow>(frontdoor, "environment", &environment).await
    }

    /// Checks that the share's tunnel is live and its environment exists, both in the same Frontdoor. This holds until the
    /// transaction ends, since writes follow one another.
    async fn check_references(&mut self, frontdoor: FrontdoorId, spec: &ShareSpec) -> Result<()> {
        let tunnel = "SELECT peer_cidr FROM ipsec_tunnel \
                      WHERE id = $1 AND frontdoor = $2 AND status NOT IN ('DELETING', 'DELETED')";
        let tunnel: Option<(PeerCidr,)> = self.tx.find(tunnel, &[&spec.tunnel, &frontdoor]).await?;
        let (peer_cidr,) = tunnel.ok_or(StoreError::Reference { column: &columns::TUNNEL })?;
        let environment = self.environment_updated(frontdoor, spec.environment).await?;
        environment.ok_or(StoreError::Reference { column: &columns::Z_ID })?;
        match outside(spec.options.allowed_sources.as_ref(), peer_cidr) {
            // The network has changed since the caller checked the sources against it.
            Some(_) => Err(StoreError::Stale),
            None => Ok(()),
        }
    }

    /// Checks that no live share of the tunnel allows sources outside of this network.
    pub(crate) async fn check_sources(&mut self, tunnel: TunnelId, peer_cidr: PeerCidr) -> Result<()> {
        let select = "SELECT id, name, allowed_sources FROM ipsec_share WHERE tunnel = $1 AND allowed_sources IS NOT NULL \
                      AND status NOT IN ('DELETING', 'DELETED') ORDER BY id";
        let shares: Vec<(String, String, AllowedSources)> = self.tx.all(select, &[&tunnel]).await?;
        for (id, name, sources) in shares {
            if let Some(source_cidr) = outside(Some(&sources), peer_cidr) {
                let with = NamedRow { id, name };
                return Err(StoreError::SourceOutside { with, source_cidr, peer_cidr });
            }
        }
        Ok(())
    }
}

/// The first of the allowed sources outside of the tunnel's network.
fn outside(sources: Option<&AllowedSources>, peer_cidr: PeerCidr) -> Option<SourceCidr> {
    sources?.networks().iter().find(|net| !net.is_within(peer_cidr)).copied()
}

pub(crate) static LISTING: Listing = Listing {
    table: Some("ipsec_share r"),
    counts: Some(CountTable {
        table: "ipsec_share_count r",
        count: "r.shares",
        columns: &[&columns::FRONTDOOR, &columns::Z_ID, &columns::STATUS],
    }),
    hidden: Some(HIDDEN),
    tags: Some("ipsec_share_tag g"),
    ..Listing::new(
        concat!(
            "r.*, ",
            first_place!("r.tunnel"),
            " AS gateway, t.location AS location, t.name AS tunnel_name, e.z_id AS z_id"
        ),
        "ipsec_share r JOIN ipsec_tunnel t ON t.id = r.tunnel JOIN environment e ON e.id = r.environment",
        "r.id",
    )
};

pub mod columns {
    use crate::list_column::Lookup;

    const ENVIRONMENT: Lookup = Lookup {
        column: "r.environment",
        find: "SELECT e.id FROM environment e WHERE e.z_id",
        is_unique: true,
    };
    const TUNNEL_OF_LOCATION: Lookup = Lookup {
        column: "r.tunnel",
        find: "SELECT t.id FROM ipsec_tunnel t WHERE t.location",
        is_unique: false,
    };

    crate::provisioned::columns! {
        // As `Standing::serves` decides.
        READY = Boolean(
            "CASE WHEN r.status = 'DEPLOYED' \
             AND COALESCE(r.reason, 'ConnectionsRefused') IN \
             ('ConnectionsRefused', 'ConnectionsUnanswered', 'AgentDuplicated', 'RedundancyLost') \
             THEN 1 ELSE 0 END"
        );
        TUNNEL = Text("r.tunnel");
        Z_ID = Text("e.z_id").found_by(ENVIRONMENT);
        TARGET = Text("r.target");
        INGRESS_PORT = Integer("r.ingress_port");
        LOCATION = Text("t.location").found_by(TUNNEL_OF_LOCATION);
        PROXY_PROTOCOL = Text("r.proxy_protocol").optional();
        ALLOWED_SOURCES = List("r.allowed_sources").optional();
        MAX_CONNECTIONS = Integer("r.max_connections").optional();
        IDLE_TIMEOUT_SECONDS = Integer("r.idle_timeout_seconds").optional();
        HEALTH_CHECK = Text("r.health_check").optional();
        PROBE_INTERVAL = Integer("r.probe_interval").optional();
        EXPIRES_AT = Time("r.expires_at").optional();
        CLOSE_WHEN_UNSERVED = Boolean("r.close_when_unserved");
    }
}

//! IPsec shares.

use crate::{
    Action, ListRequest, Page, ResourceType, Result, Store, StoreError, Tags, WriteContext,
    columns::{
        Query, deleting, generation, json_option, json_text, number, number_option, parsed, parsed_option,
        standing, tags, tags_text, text, time, time_option,
    },
    execution::Execution,
    list::{CountTable, Hidden, Listing, of},
    share_count::Counted,
    write::Write,
};
use futures_util::FutureExt as _;
use jiff::Timestamp;
use sqlx::{Row, any::AnyRow};
use wicketgate_model::{
    Description, EnvironmentId, FrontdoorId, Generation, IngressPort, LocationId, PeerCidr, ProxyProtocol,
    ResourceName, ShareId, ShareOptions, SourceCidr, Standing, Status, Target, TunnelId, ZId,
};

#[derive(Debug, Clone)]
pub struct ShareRow {
    pub id: ShareId,
    pub frontdoor: FrontdoorId,
    pub tunnel: TunnelId,
    pub environment: EnvironmentId,
    /// The environment's.
    pub z_id: ZId,
    pub name: ResourceName,
    pub description: Option<Description>,
    pub target: Target,
    pub ingress_port: IngressPort,
    /// The tunnel's.
    pub location: LocationId,
    pub options: ShareOptions,
    pub tags: Tags,
    pub generation: Generation,
    pub standing: Standing,
    pub created_at: Timestamp,
    pub updated_at: Timestamp,
    pub deleted_at: Option<Timestamp>,
    pub created_by: String,
}

/// What a caller decides about a share.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ShareSpec {
    pub tunnel: TunnelId,
    pub environment: EnvironmentId,
    pub name: ResourceName,
    pub description: Option<Description>,
    pub target: Target,
    pub ingress_port: IngressPort,
    pub options: ShareOptions,
    pub tags: Tags,
}

/// Shares with columns of their tunnel and environment; the rest of the statement follows.
macro_rules! select {
    ($rest:literal) => {
        concat!(
            "SELECT s.*, t.location AS location, e.z_id AS z_id FROM ipsec_share s \
             JOIN ipsec_tunnel t ON t.id = s.tunnel JOIN environment e ON e.id = s.environment ",
            $rest
        )
    };
}
pub(crate) use select;

impl ShareRow {
    pub fn spec(&self) -> ShareSpec {
        ShareSpec {
            tunnel: self.tunnel,
            environment: self.environment,
            name: self.name.clone(),
            description: self.description.clone(),
            target: self.target.clone(),
            ingress_port: self.ingress_port,
            options: self.options.clone(),
            tags: self.tags.clone(),
        }
    }

    fn counted(&self) -> Counted {
        Counted { frontdoor: self.frontdoor, environment: self.environment, status: self.standing.status }
    }

    pub(crate) fn read(row: &AnyRow) -> Result<Self> {
        Ok(Self {
            id: parsed(row, "id")?,
            frontdoor: parsed(row, "frontdoor")?,
            tunnel: parsed(row, "tunnel")?,
            environment: parsed(row, "environment")?,
            z_id: parsed(row, "z_id")?,
            name: parsed(row, "name")?,
            description: parsed_option(row, "description")?,
            target: parsed(row, "target")?,
            ingress_port: number(row, "ingress_port")?,
            location: parsed(row, "location")?,
            options: options(row)?,
            tags: tags(row)?,
            generation: generation(row)?,
            standing: standing(row)?,
            created_at: time(row, "created_at")?,
            updated_at: time(row, "updated_at")?,
            deleted_at: time_option(row, "deleted_at")?,
            created_by: text(row, "created_by")?,
        })
    }
}

impl Store {
    /// Without those that are `DELETED`, unless a filter asks for them.
    pub async fn shares(&self, frontdoor: FrontdoorId, request: &ListRequest) -> Result<Page<ShareRow>> {
        self.list(&LISTING, of(&columns::FRONTDOOR, frontdoor), request, ShareRow::read).await
    }

    pub async fn create_share(
        &self,
        frontdoor: FrontdoorId,
        spec: &ShareSpec,
        context: &WriteContext,
    ) -> Result<ShareRow> {
        let new = spec.clone();
        let made = self.write(context, move |write| write.create_share(frontdoor, new).boxed()).await;
        self.name_conflicting_share(made, frontdoor, spec).await
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
        let made =
            self.write(context, move |write| write.replace_share(frontdoor, id, expected, new).boxed()).await;
        self.name_conflicting_share(made, frontdoor, spec).await
    }

    pub async fn delete_share(
        &self,
        frontdoor: FrontdoorId,
        id: ShareId,
        context: &WriteContext,
    ) -> Result<ShareRow> {
        self.write(context, move |write| {
            async move {
                let before = write.live_share(frontdoor, id).await?;
                write.context.check(before.updated_at)?;
                write.mark_share_deleting(id).await?;
                write.finish_share_change(&before, Action::Delete).await
            }
            .boxed()
        })
        .await
    }

    pub async fn share(&self, frontdoor: FrontdoorId, id: ShareId) -> Result<Option<ShareRow>> {
        self.find(select!("WHERE s.id = $1 AND s.frontdoor = $2"), &[&id, &frontdoor], ShareRow::read).await
    }

    /// Adds to a conflict the id of the share that has the name or the port.
    async fn name_conflicting_share<T>(
        &self,
        made: Result<T>,
        frontdoor: FrontdoorId,
        spec: &ShareSpec,
    ) -> Result<T> {
        let Err(StoreError::Conflict { column, .. }) = made else { return made };
        let row = sqlx::query(
            "SELECT id FROM ipsec_share WHERE status <> 'DELETED' \
             AND (($1 = 's.name' AND frontdoor = $2 AND name = $3) \
               OR ($1 = 's.ingress_port' AND tunnel = $4 AND ingress_port = $5))",
        )
        .bind(column.sql)
        .bind(frontdoor.to_string())
        .bind(spec.name.as_str())
        .bind(spec.tunnel.to_string())
        .bind(i64::from(spec.ingress_port.get()))
        .fetch_optional(&self.database.readers)
        .await?;
        Err(StoreError::Conflict { column, with: row.map(|r| r.try_get(0)).transpose()? })
    }
}

impl Write {
    async fn create_share(&mut self, frontdoor: FrontdoorId, spec: ShareSpec) -> Result<ShareRow> {
        if spec.options.allowed_sources.is_some() {
            self.check_references(frontdoor, &spec).await?;
        }
        let id = ShareId::new((self.context.fresh)());
        // The insert looks up what the share refers to, and makes no row where something is missing.
        let row = sqlx::query(
            "INSERT INTO ipsec_share (tunnel, environment, name, target, ingress_port, tags, allowed_sources, \
             max_connections, idle_timeout_seconds, proxy_protocol, description, id, frontdoor, generation, status, status_since, \
             created_at, updated_at, created_by, revision) \
             SELECT t.id, e.id, $3, $4, $5, $6, $7, $8, $9, $10, $11, $12, t.frontdoor, 1, 'NEW', $14, $14, $14, $15, $16 \
             FROM ipsec_tunnel t JOIN environment e ON e.id = $2 \
             WHERE t.id = $1 AND t.frontdoor = $13 AND t.status NOT IN ('DELETING', 'DELETED') \
             AND e.frontdoor = $13 AND e.deleted_at IS NULL \
             RETURNING *, (SELECT l.location FROM ipsec_tunnel l WHERE l.id = tunnel) AS location, \
             (SELECT z.z_id FROM environment z WHERE z.id = environment) AS z_id",
        );
        let row = bind(row, &spec)?
            .bind(id.to_string())
            .bind(frontdoor.to_string())
            .bind(self.at())
            .bind(self.context.actor.clone())
            .bind(self.revision)
            .fetch_optional(self.db())
            .await?;
        let Some(row) = row else {
            self.check_references(frontdoor, &spec).await?;
            return Err(StoreError::Stale);
        };
        let share = ShareRow::read(&row)?;
        self.deferred.counts.add(share.counted());
        self.record_share(frontdoor, share.id, share.generation, Action::Create).await?;
        Ok(share)
    }

    async fn replace_share(
        &mut self,
        frontdoor: FrontdoorId,
        id: ShareId,
        expected: Generation,
        spec: ShareSpec,
    ) -> Result<ShareRow> {
        let before = self.live_share(frontdoor, id).await?;
        if before.generation != expected {
            return Err(StoreError::Stale);
        }
        self.check_references(frontdoor, &spec).await?;
        let update = sqlx::query(
            "UPDATE ipsec_share SET tunnel = $1, environment = $2, name = $3, target = $4, ingress_port = $5, \
             tags = $6, allowed_sources = $7, max_connections = $8, idle_timeout_seconds = $9, proxy_protocol = $10, description = $11, \
             generation = generation + 1, status = 'NEW', status_since = $13, updated_at = $13, reason = NULL, \
             message = NULL, detail_since = NULL, revision = $14 WHERE id = $12",
        );
        bind(update, &spec)?
            .bind(id.to_string())
            .bind(self.at())
            .bind(self.revision)
            .execute(self.db())
            .await?;
        self.finish_share_change(&before, Action::Update).await
    }

    /// Checks that the share's tunnel is live and its environment exists, both in the same Frontdoor. This holds until the
    /// transaction ends, since writes follow one another.
    async fn check_references(&mut self, frontdoor: FrontdoorId, spec: &ShareSpec) -> Result<()> {
        let tunnel = sqlx::query(
            "SELECT peer_cidr FROM ipsec_tunnel \
             WHERE id = $1 AND frontdoor = $2 AND status NOT IN ('DELETING', 'DELETED')",
        )
        .bind(spec.tunnel.to_string())
        .bind(frontdoor.to_string())
        .fetch_optional(self.db())
        .await?;
        let environment =
            sqlx::query("SELECT 1 FROM environment WHERE id = $1 AND frontdoor = $2 AND deleted_at IS NULL")
                .bind(spec.environment.to_string())
                .bind(frontdoor.to_string())
                .fetch_optional(self.db())
                .await?;
        match (tunnel, environment) {
            (None, _) => Err(StoreError::Reference { column: &columns::TUNNEL }),
            (_, None) => Err(StoreError::Reference { column: &columns::Z_ID }),
            // The network has changed since the caller checked the sources against it.
            (Some(tunnel), _) if outside(&spec.options, parsed(&tunnel, "peer_cidr")?).is_some() => {
                Err(StoreError::Stale)
            }
            _ => Ok(()),
        }
    }

    /// Checks that no live share of the tunnel allows sources outside of this network.
    pub(crate) async fn check_sources(&mut self, tunnel: TunnelId, peer_cidr: PeerCidr) -> Result<()> {
        let rows = sqlx::query(
            "SELECT id, allowed_sources, max_connections, idle_timeout_seconds, proxy_protocol FROM ipsec_share \
             WHERE tunnel = $1 AND allowed_sources IS NOT NULL AND status NOT IN ('DELETING', 'DELETED') \
             ORDER BY id",
        )
        .bind(tunnel.to_string())
        .fetch_all(self.db())
        .await?;
        for row in &rows {
            if let Some(source_cidr) = outside(&options(row)?, peer_cidr) {
                return Err(StoreError::SourceOutside { with: parsed(row, "id")?, source_cidr, peer_cidr });
            }
        }
        Ok(())
    }

    async fn live_share(&mut self, frontdoor: FrontdoorId, id: ShareId) -> Result<ShareRow> {
        // Locked against status updates: the counts depend on its status before the change.
        let row = sqlx::query(self.locking(select!("WHERE s.id = $1 AND s.frontdoor = $2"), "s"))
            .bind(id.to_string())
            .bind(frontdoor.to_string())
            .fetch_optional(self.db())
            .await?;
        let share = ShareRow::read(&row.ok_or(StoreError::Missing)?)?;
        match share.standing.status {
            status @ (Status::Deleting | Status::Deleted) => Err(StoreError::NotLive(status)),
            _ => Ok(share),
        }
    }

    /// Gives it a new generation, so that a status update of the previous one can't bring it back.
    pub(crate) async fn mark_share_deleting(&mut self, id: ShareId) -> Result<()> {
        sqlx::query(concat!("UPDATE ipsec_share SET ", deleting!(), " WHERE id = $3"))
            .bind(self.at())
            .bind(self.revision)
            .bind(id.to_string())
            .execute(self.db())
            .await?;
        Ok(())
    }

    /// Counts and records the change of a share that was `before`.
    async fn finish_share_change(&mut self, before: &ShareRow, action: Action) -> Result<ShareRow> {
        let id = before.id.to_string();
        let row = sqlx::query(select!("WHERE s.id = $1")).bind(id).fetch_one(self.db()).await?;
        let share = ShareRow::read(&row)?;
        self.deferred.counts.remove(before.counted());
        self.deferred.counts.add(share.counted());
        self.record_share(share.frontdoor, share.id, share.generation, action).await?;
        Ok(share)
    }

    pub(crate) async fn record_share(
        &mut self,
        frontdoor: FrontdoorId,
        id: ShareId,
        generation: Generation,
        action: Action,
    ) -> Result<()> {
        let on =
            Execution { resource_type: ResourceType::Share, resource: &id, generation: Some(generation) };
        self.record(frontdoor, action, on).await
    }
}

/// Binds what a caller decides about a share, as `$1` to `$11`.
fn bind(query: Query, spec: &ShareSpec) -> Result<Query> {
    let ShareSpec { tunnel, environment, name, description, target, ingress_port, options, tags } = spec;
    let ShareOptions { allowed_sources, max_connections, idle_timeout_seconds, proxy_protocol } = options;
    Ok(query
        .bind(tunnel.to_string())
        .bind(environment.to_string())
        .bind(name.to_string())
        .bind(target.to_string())
        .bind(i64::from(ingress_port.get()))
        .bind(tags_text(tags)?)
        .bind(json_text("allowed_sources", allowed_sources.as_ref())?)
        .bind(max_connections.map(|n| i64::from(n.get())))
        .bind(idle_timeout_seconds.map(|n| i64::from(n.get())))
        .bind(proxy_protocol.map(ProxyProtocol::as_str))
        .bind(description.as_ref().map(ToString::to_string)))
}

/// The first of the allowed sources outside of the tunnel's network.
fn outside(options: &ShareOptions, peer_cidr: PeerCidr) -> Option<SourceCidr> {
    let sources = options.allowed_sources.as_ref()?;
    sources.networks().iter().find(|net| !net.is_within(peer_cidr)).copied()
}

fn options(row: &AnyRow) -> Result<ShareOptions> {
    Ok(ShareOptions {
        allowed_sources: json_option(row, "allowed_sources")?,
        max_connections: number_option(row, "max_connections")?,
        idle_timeout_seconds: number_option(row, "idle_timeout_seconds")?,
        proxy_protocol: parsed_option(row, "proxy_protocol")?,
    })
}

pub(crate) static LISTING: Listing = Listing {
    table: Some("ipsec_share s"),
    counts: Some(CountTable {
        table: "ipsec_share_count s",
        count: "s.shares",
        columns: &[&columns::FRONTDOOR, &columns::Z_ID, &columns::STATUS],
    }),
    hidden: Some(Hidden {
        live: "s.status <> 'DELETED'",
        status: &columns::STATUS,
        deleted_at: &columns::DELETED_AT,
    }),
    ..Listing::new(
        "s.*, t.location AS location, e.z_id AS z_id",
        "ipsec_share s JOIN ipsec_tunnel t ON t.id = s.tunnel JOIN environment e ON e.id = s.environment",
        "s.id",
    )
};

pub mod columns {
    use crate::list_column::{Lookup, detail};

    const ENVIRONMENT: Lookup = Lookup {
        column: "s.environment",
        find: "SELECT e.id FROM environment e WHERE e.z_id",
        is_unique: true,
    };
    const TUNNEL_OF_LOCATION: Lookup = Lookup {
        column: "s.tunnel",
        find: "SELECT t.id FROM ipsec_tunnel t WHERE t.location",
        is_unique: false,
    };

    crate::list_column::columns! {
        ID = Text("s.id");
        NAME = Text("s.name");
        DESCRIPTION = Text("s.description").optional();
        FRONTDOOR = Text("s.frontdoor");
        TUNNEL = Text("s.tunnel");
        Z_ID = Text("e.z_id").found_by(ENVIRONMENT);
        TARGET = Text("s.target");
        INGRESS_PORT = Integer("s.ingress_port");
        STATUS = Text("s.status");
        DETAIL_REASON = Text(detail!("s", reason)).optional();
        DETAIL_MESSAGE = Text(detail!("s", message)).optional();
        DETAIL_SINCE = Time(detail!("s", since)).optional();
        LOCATION = Text("t.location").found_by(TUNNEL_OF_LOCATION);
        PROXY_PROTOCOL = Text("s.proxy_protocol").optional();
        ALLOWED_SOURCES = List("s.allowed_sources").optional();
        MAX_CONNECTIONS = Integer("s.max_connections").optional();
        IDLE_TIMEOUT_SECONDS = Integer("s.idle_timeout_seconds").optional();
        TAGS = Tags("s.tags");
        CREATED_AT = Time("s.created_at");
        UPDATED_AT = Time("s.updated_at");
        DELETED_AT = Time("s.deleted_at").optional();
        CREATED_BY = Text("s.created_by");
    }
}

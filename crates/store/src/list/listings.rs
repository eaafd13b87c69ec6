//! What each resource's list knows: data only.

use super::{
    By, Filter, ListRequest, Listing, Property,
    PropertyType::{Boolean, Enum, Id, Integer, List, Tags, Text, Timestamp},
    Scope, Wanted,
};
use crate::{
    Action, AgentRow, ApiAccountRow, ConnectionChange, EnvironmentRow, ExecutionRow, ExecutionStatus,
    FrontdoorRow, Page, PageRequest, Reach, ResourceType, Result, ShareRow, Store, TunnelRow,
};
use wicketgate_model::{
    ConnectionFault, ConnectionState, EnvironmentId, FrontdoorId, Reason, Status, TunnelId,
};

/// The closed list of a status, a reason, …
macro_rules! names {
    ($all:expr) => {{
        let mut names = [""; $all.len()];
        let mut i = 0;
        while i < names.len() {
            names[i] = $all[i].as_str();
            i += 1;
        }
        names
    }};
}

static STATUSES: [&str; Status::ALL.len()] = names!(Status::ALL);
static REASONS: [&str; Reason::ALL.len()] = names!(Reason::ALL);
static CONNECTIONS: [&str; ConnectionState::ALL.len()] = names!(ConnectionState::ALL);
static FAULTS: [&str; ConnectionFault::ALL.len()] = names!(ConnectionFault::ALL);

/// What `statusDetail` says, as [`Detail::waiting`] has it where a row has no reason of its own: `$waiting` while the
/// gateway has not reported, `$deleted` once it is gone.
macro_rules! detail {
    ($table:literal, $column:literal, $new:literal, $deleting:literal, $deleted:literal) => {
        concat!(
            "COALESCE(",
            $table,
            ".",
            $column,
            ", CASE WHEN ",
            $table,
            ".reason IS NULL THEN CASE ",
            $table,
            ".status WHEN 'NEW' THEN ",
            $new,
            " WHEN 'DELETING' THEN ",
            $deleting,
            " WHEN 'DELETED' THEN ",
            $deleted,
            " END END)"
        )
    };
}

/// The three of them, of a table.
macro_rules! reason {
    ($table:literal) => {
        detail!($table, "reason", "'Pending'", "'Pending'", "'Deleted'")
    };
}
macro_rules! message {
    ($table:literal) => {
        detail!(
            $table,
            "message",
            "'the gateway has not reported this change yet'",
            "'the gateway has not reported the removal yet'",
            "'it was deleted, and nothing of it is left at the gateway'"
        )
    };
}
macro_rules! since {
    ($table:literal) => {
        concat!(
            "COALESCE(",
            $table,
            ".detail_since, CASE WHEN ",
            $table,
            ".status <> 'DEPLOYED' THEN ",
            $table,
            ".status_since END)"
        )
    };
}

/// How many agents of an environment are connected.
macro_rules! connected {
    () => {
        "(SELECT COUNT(*) FROM agent a WHERE a.environment = e.id AND a.barred_at IS NULL \
         AND a.connected_since IS NOT NULL)"
    };
}

/// Words that are kept with spaces in between, as the texts of a list are looked for.
macro_rules! words {
    ($column:literal) => {
        concat!("('\"' || REPLACE(", $column, ", ' ', '\",\"') || '\"')")
    };
}

pub static FRONTDOORS: Listing = Listing::new(
    &[
        Property::new("id", Id(""), "f.id"),
        Property::new("organizationId", Text, "f.organization"),
        Property::new("defaultNamespaceName", Text, "f.default_namespace"),
        Property::new("ipsecSharesEnabled", Boolean, "f.ipsec_shares_enabled"),
        Property::new("createdAt", Timestamp, "f.created_at"),
        Property::new("updatedAt", Timestamp, "f.updated_at"),
        Property::new("createdBy", Text, "f.created_by"),
    ],
    "f.*",
    "frontdoor f",
    "f.id",
)
.only("f.deleted_at IS NULL");

pub static API_ACCOUNTS: Listing = Listing::new(
    &[
        Property::new("clientId", Id("acc-"), "c.id"),
        Property::new("name", Text, "c.name"),
        Property::new("organizationId", Text, "c.organization"),
        Property::new("scopes", List, words!("c.scopes")),
        Property::new("frontdoorIds", List, words!("c.frontdoors")).optional(),
        Property::new("expiresAt", Timestamp, "c.expires_at").optional(),
        Property::new("createdAt", Timestamp, "c.created_at"),
        Property::new("createdBy", Text, "c.created_by"),
    ],
    "c.*",
    "api_account c",
    "c.id",
)
.only("c.revoked_at IS NULL");

pub static ENVIRONMENTS: Listing = Listing::new(
    &[
        Property::new("id", Id("env-"), "e.id"),
        Property::new("zId", Text, "e.z_id"),
        Property::new("frontdoorId", Id(""), "e.frontdoor"),
        Property::new("name", Text, "e.name"),
        Property::new(
            "status",
            Enum(&["ACTIVE", "OFFLINE"]),
            concat!("CASE WHEN ", connected!(), " > 0 THEN 'ACTIVE' ELSE 'OFFLINE' END"),
        ),
        Property::new("createdAt", Timestamp, "e.created_at"),
        Property::new("updatedAt", Timestamp, "e.updated_at"),
    ],
    concat!("e.*, ", connected!(), " AS connected"),
    "environment e",
    "e.id",
)
.only("e.deleted_at IS NULL");

pub static AGENTS: Listing = Listing::new(
    &[
        Property::new("id", Id("agt-"), "a.id"),
        Property::new("frontdoorId", Id(""), "a.frontdoor"),
        Property::new("environmentId", Id("env-"), "a.environment"),
        Property::new("envZId", Text, "e.z_id"),
        Property::new("name", Text, "a.name"),
        Property::new(
            "status",
            Enum(&["CONNECTED", "OFFLINE"]),
            "CASE WHEN a.connected_since IS NULL THEN 'OFFLINE' ELSE 'CONNECTED' END",
        ),
        Property::new("version", Text, "a.version").optional(),
        Property::new("address", Text, "a.address").optional(),
        Property::new("connectedSince", Timestamp, "a.connected_since").optional(),
        Property::new("lastSeen", Timestamp, "a.last_seen").optional(),
        Property::new("createdAt", Timestamp, "a.created_at"),
    ],
    "a.*, e.z_id AS z_id",
    "agent a JOIN environment e ON e.id = a.environment",
    "a.id",
)
.only("a.barred_at IS NULL");

pub static TUNNELS: Listing = Listing::new(
    &[
        Property::new("id", Id("tnl-"), "t.id"),
        Property::new("name", Text, "t.name"),
        Property::new("frontdoorId", Id(""), "t.frontdoor"),
        Property::new("locationId", Text, "t.location"),
        Property::new("status", Enum(&STATUSES), "t.status"),
        Property::new("statusDetail.reason", Enum(&REASONS), reason!("t")).optional(),
        Property::new("statusDetail.message", Text, message!("t")).optional(),
        Property::new("statusDetail.since", Timestamp, since!("t")).optional(),
        Property::new("peerPublicIp", Text, "t.peer_address"),
        Property::new("peerCidr", Text, "t.peer_cidr"),
        Property::new("peerId", Text, "t.peer_id"),
        Property::new("loadBalancerIp", Text, "t.load_balancer_ip"),
        // The database does not know it: it goes with the location, as the API resolves it.
        Property::new("gatewayPublicIp", Text, "t.location").optional(),
        Property::new("ikeProposals", List, "t.ike_proposals").optional(),
        Property::new("espProposals", List, "t.esp_proposals").optional(),
        Property::new("initiate", Boolean, "t.initiate"),
        Property::new("connection.state", Enum(&CONNECTIONS), "COALESCE(t.connection_state, 'DOWN')"),
        Property::new("connection.since", Timestamp, "COALESCE(t.connection_since, t.created_at)"),
        Property::new("connection.algorithms.ike", Text, "t.connection_ike").optional(),
        Property::new("connection.algorithms.esp", Text, "t.connection_esp").optional(),
        Property::new("connection.peer.address", Text, "t.connection_peer_address").optional(),
        Property::new("connection.peer.port", Integer, "t.connection_peer_port").optional(),
        Property::new("connection.peer.id", Text, "t.connection_peer_id").optional(),
        Property::new("connection.nat.gateway", Boolean, "t.connection_nat_gateway").optional(),
        Property::new("connection.nat.peer", Boolean, "t.connection_nat_peer").optional(),
        Property::new("connection.ikeSa.establishedAt", Timestamp, "t.connection_ike_established").optional(),
        Property::new("connection.ikeSa.rekeyAt", Timestamp, "t.connection_ike_rekey").optional(),
        Property::new("connection.childSa.establishedAt", Timestamp, "t.connection_child_established")
            .optional(),
        Property::new("connection.childSa.rekeyAt", Timestamp, "t.connection_child_rekey").optional(),
        Property::new("connection.bytesIn", Integer, "COALESCE(t.connection_bytes_in, 0)"),
        Property::new("connection.bytesOut", Integer, "COALESCE(t.connection_bytes_out, 0)"),
        Property::new("connection.lastError.reason", Enum(&FAULTS), "t.connection_error").optional(),
        Property::new("connection.lastError.message", Text, "t.connection_error_message").optional(),
        Property::new("connection.lastError.since", Timestamp, "t.connection_error_since").optional(),
        Property::new("tags", Tags, "t.tags"),
        Property::new("createdAt", Timestamp, "t.created_at"),
        Property::new("updatedAt", Timestamp, "t.updated_at"),
        Property::new("deletedAt", Timestamp, "t.deleted_at").optional(),
        Property::new("createdBy", Text, "t.created_by"),
    ],
    "t.*",
    "ipsec_tunnel t",
    "t.id",
)
.hiding_deleted("t.status <> 'DELETED'", "t.deleted_at");

pub static SHARES: Listing = Listing::new(
    &[
        Property::new("id", Id("shr-"), "s.id"),
        Property::new("name", Text, "s.name"),
        Property::new("frontdoorId", Id(""), "s.frontdoor"),
        Property::new("ipsecTunnelId", Id("tnl-"), "s.tunnel"),
        Property::new("envZId", Text, "e.z_id").found_by(By {
            column: "s.environment",
            find: "SELECT e.id FROM environment e WHERE e.z_id",
            is_unique: true,
        }),
        Property::new("target", Text, "s.target"),
        Property::new("ingressPort", Integer, "s.ingress_port"),
        Property::new("status", Enum(&STATUSES), "s.status"),
        Property::new("statusDetail.reason", Enum(&REASONS), reason!("s")).optional(),
        Property::new("statusDetail.message", Text, message!("s")).optional(),
        Property::new("statusDetail.since", Timestamp, since!("s")).optional(),
        Property::new("locationId", Text, "t.location").found_by(By {
            column: "s.tunnel",
            find: "SELECT t.id FROM ipsec_tunnel t WHERE t.location",
            is_unique: false,
        }),
        Property::new("proxyProtocol", Enum(&["v2"]), "s.proxy_protocol").optional(),
        Property::new("allowedSources", List, "s.allowed_sources").optional(),
        Property::new("maxConnections", Integer, "s.max_connections").optional(),
        Property::new("idleTimeoutSeconds", Integer, "s.idle_timeout_seconds").optional(),
        Property::new("tags", Tags, "s.tags"),
        Property::new("createdAt", Timestamp, "s.created_at"),
        Property::new("updatedAt", Timestamp, "s.updated_at"),
        Property::new("deletedAt", Timestamp, "s.deleted_at").optional(),
        Property::new("createdBy", Text, "s.created_by"),
    ],
    "s.*, t.location AS location, e.z_id AS z_id",
    "ipsec_share s JOIN ipsec_tunnel t ON t.id = s.tunnel JOIN environment e ON e.id = s.environment",
    "s.id",
)
.of_table("ipsec_share s")
.numbered("ipsec_share_count s", "s.shares", &["frontdoorId", "envZId", "status"])
.hiding_deleted("s.status <> 'DELETED'", "s.deleted_at");

/// The history of a tunnel's connection.
pub static CONNECTION_CHANGES: Listing = Listing::new(
    &[
        Property::new("number", Integer, "h.number"),
        Property::new("at", Timestamp, "h.at"),
        Property::new("state", Enum(&CONNECTIONS), "h.state"),
        Property::new("peer.address", Text, "h.peer_address").optional(),
        Property::new("peer.port", Integer, "h.peer_port").optional(),
        Property::new("peer.id", Text, "h.peer_id").optional(),
        Property::new("algorithms.ike", Text, "h.ike").optional(),
        Property::new("algorithms.esp", Text, "h.esp").optional(),
        Property::new("lastError.reason", Enum(&FAULTS), "h.error").optional(),
        Property::new("lastError.message", Text, "h.error_message").optional(),
    ],
    "h.*",
    "connection_change h",
    "h.number",
);

static RECORD: [Property; 12] = [
    Property::new("id", Id("exe-"), "x.id"),
    Property::new("processId", Id("exe-"), "x.process"),
    Property::new("frontdoorId", Id(""), "x.frontdoor"),
    Property::new("organizationId", Text, "x.organization").optional(),
    Property::new("actor", Text, "x.actor"),
    Property::new("action", Enum(Action::NAMES), "x.action"),
    Property::new("resourceType", Enum(ResourceType::NAMES), "x.resource_type"),
    Property::new("resourceId", Text, "x.resource"),
    Property::new("status", Enum(ExecutionStatus::NAMES), "x.status"),
    Property::new("message", Text, "x.message").optional(),
    Property::new("createdAt", Timestamp, "x.created_at"),
    Property::new("finishedAt", Timestamp, "x.finished_at").optional(),
];

pub static EXECUTIONS: Listing = Listing::new(&RECORD, "x.*", "execution x", "x.id");

/// The record of what is an organization's.
pub static ORGANIZATION_EXECUTIONS: Listing =
    Listing::new(&RECORD, "x.*", "execution x", "x.id").only("x.organization IS NOT NULL");

/// Rows of one Frontdoor.
fn of(column: &'static str, frontdoor: FrontdoorId) -> Scope {
    Some((column, vec![frontdoor.to_string()]))
}

impl Store {
    /// Those within reach.
    pub async fn frontdoors(&self, reach: &Reach, request: &ListRequest) -> Result<Page<FrontdoorRow>> {
        let scope = match reach {
            Reach::All => None,
            Reach::Organization(own) => Some(("f.organization", vec![own.clone()])),
            Reach::Named(ids) => Some(("f.id", ids.iter().map(ToString::to_string).collect())),
        };
        self.list(&FRONTDOORS, scope, request, FrontdoorRow::read).await
    }

    /// Of one organization, or all; without the revoked ones.
    pub async fn api_accounts(
        &self,
        organization: Option<&str>,
        request: &ListRequest,
    ) -> Result<Page<ApiAccountRow>> {
        let scope = organization.map(|o| ("c.organization", vec![o.to_owned()]));
        self.list(&API_ACCOUNTS, scope, request, ApiAccountRow::read).await
    }

    pub async fn environments(
        &self,
        frontdoor: FrontdoorId,
        request: &ListRequest,
    ) -> Result<Page<EnvironmentRow>> {
        self.list(&ENVIRONMENTS, of("e.frontdoor", frontdoor), request, EnvironmentRow::read).await
    }

    pub async fn agents(&self, frontdoor: FrontdoorId, request: &ListRequest) -> Result<Page<AgentRow>> {
        self.list(&AGENTS, of("a.frontdoor", frontdoor), request, AgentRow::read).await
    }

    /// All agents of these environments.
    pub async fn agents_of(
        &self,
        frontdoor: FrontdoorId,
        environments: &[EnvironmentId],
    ) -> Result<Vec<AgentRow>> {
        let values: Vec<_> = environments.iter().map(|e| Wanted::Text(e.to_string())).collect();
        let Some(property) = AGENTS.property("environmentId").filter(|_| !values.is_empty()) else {
            return Ok(Vec::new());
        };
        let request = ListRequest {
            page: PageRequest { number: 0, size: u32::MAX },
            filters: vec![Filter { property, values }],
            ..ListRequest::default()
        };
        Ok(self.agents(frontdoor, &request).await?.rows)
    }

    /// Without those that are `DELETED`, unless they are asked for.
    pub async fn tunnels(&self, frontdoor: FrontdoorId, request: &ListRequest) -> Result<Page<TunnelRow>> {
        self.list(&TUNNELS, of("t.frontdoor", frontdoor), request, TunnelRow::read).await
    }

    /// Without those that are `DELETED`, unless they are asked for.
    pub async fn shares(&self, frontdoor: FrontdoorId, request: &ListRequest) -> Result<Page<ShareRow>> {
        self.list(&SHARES, of("s.frontdoor", frontdoor), request, ShareRow::read).await
    }

    /// The last changes of a tunnel's connection.
    pub async fn connection_changes(
        &self,
        tunnel: TunnelId,
        request: &ListRequest,
    ) -> Result<Page<ConnectionChange>> {
        let scope = Some(("h.tunnel", vec![tunnel.to_string()]));
        self.list(&CONNECTION_CHANGES, scope, request, ConnectionChange::read).await
    }

    pub async fn executions(
        &self,
        frontdoor: FrontdoorId,
        request: &ListRequest,
    ) -> Result<Page<ExecutionRow>> {
        self.list(&EXECUTIONS, of("x.frontdoor", frontdoor), request, ExecutionRow::read).await
    }

    /// Of one organization, or all.
    pub async fn organization_executions(
        &self,
        organization: Option<&str>,
        request: &ListRequest,
    ) -> Result<Page<ExecutionRow>> {
        let scope = organization.map(|o| ("x.organization", vec![o.to_owned()]));
        self.list(&ORGANIZATION_EXECUTIONS, scope, request, ExecutionRow::read).await
    }
}

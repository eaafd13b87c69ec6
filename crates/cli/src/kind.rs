//! The kinds of resources: where each is in the API, and what a table shows of it.

use serde_json::Value;

/// A kind of resource.
#[derive(Debug)]
pub(crate) struct Kind {
    /// As in a command: `wicketgate share list`.
    pub(crate) name: &'static str,
    pub(crate) plural: &'static str,
    /// Below the Frontdoor, or below `frontdoor/v2`.
    pub(crate) path: &'static str,
    pub(crate) is_below_frontdoor: bool,
    /// The property that identifies it in a path.
    pub(crate) id: &'static str,
    /// The property that a person calls it by, and that the list can be filtered by.
    pub(crate) label: &'static str,
    /// The schema of a POST, and of a PATCH.
    pub(crate) create: Option<&'static str>,
    pub(crate) update: Option<&'static str>,
    pub(crate) deletes: bool,
    /// It has a `status` that settles some time after a write.
    pub(crate) settles: bool,
    pub(crate) columns: &'static [Column],
    /// The command to go on with after a success.
    pub(crate) next: &'static str,
}

/// A column of a table.
#[derive(Debug)]
pub(crate) struct Column {
    pub(crate) title: &'static str,
    /// A JSON pointer (RFC 6901).
    pub(crate) pointer: &'static str,
    /// What is shown if the first has nothing.
    pub(crate) or: fn(&Value) -> String,
    /// Only with `-o wide`.
    pub(crate) is_wide: bool,
    /// The widest that it is on a terminal, in characters, unless it is the last one.
    pub(crate) widest: usize,
}

/// So that one long message does not push all others apart.
const WIDEST: usize = 60;

fn said<'a>(resource: &'a Value, property: &str) -> &'a str {
    resource[property].as_str().unwrap_or_default()
}

fn nothing(_: &Value) -> String {
    String::new()
}

pub(crate) const fn column(title: &'static str, pointer: &'static str) -> Column {
    Column { title, pointer, or: nothing, is_wide: false, widest: WIDEST }
}

const fn wide(title: &'static str, pointer: &'static str) -> Column {
    Column { title, pointer, or: nothing, is_wide: true, widest: WIDEST }
}

/// What most kinds have in common.
const PLAIN: Kind = Kind {
    name: "",
    plural: "",
    path: "",
    is_below_frontdoor: true,
    id: "id",
    label: "name",
    create: None,
    update: None,
    deletes: false,
    settles: false,
    columns: &[],
    next: "",
};

pub(crate) const FRONTDOOR: Kind = Kind {
    name: "frontdoor",
    plural: "Frontdoors",
    is_below_frontdoor: false,
    label: "defaultNamespaceName",
    create: Some("FrontdoorRequest"),
    update: Some("FrontdoorPatch"),
    deletes: true,
    columns: &[
        column("NAME", "/defaultNamespaceName"),
        column("ORGANIZATION", "/organizationId"),
        column("ID", "/id"),
        column("CREATED", "/createdAt"),
        wide("TUNNELS", "/quotas/tunnels/used"),
        wide("MOST", "/quotas/tunnels/limit"),
        wide("SHARES", "/quotas/shares/used"),
        wide("MOST", "/quotas/shares/limit"),
        wide("AGENTS", "/quotas/agents/used"),
        wide("MOST", "/quotas/agents/limit"),
    ],
    next: "wicketgate tunnel create --help",
    ..PLAIN
};

pub(crate) const TUNNEL: Kind = Kind {
    name: "tunnel",
    plural: "tunnels",
    path: "ipsec-tunnels",
    create: Some("IpsecTunnelRequest"),
    update: Some("IpsecTunnelPatch"),
    deletes: true,
    settles: true,
    columns: &[
        column("NAME", "/name"),
        column("STATUS", "/status"),
        column("CONNECTION", "/connection/state"),
        column("PEER", "/peerPublicIp"),
        column("NETWORK", "/peerCidr"),
        column("LOAD BALANCER", "/loadBalancerIp"),
        Column { or: why_not_connected, ..column("WHY", "/statusDetail/message") },
        wide("LOCATION", "/locationId"),
        wide("GATEWAY", "/gatewayPublicIp"),
        wide("NAMESPACE", "/namespace"),
        wide("ID", "/id"),
        wide("CREATED", "/createdAt"),
    ],
    next: "(umask 077; wicketgate tunnel config {name} --format strongswan >{name}.conf)",
    ..PLAIN
};

/// Why a tunnel's connection does not carry traffic, as far as the connection tells. A device that has ended it, or that was
/// never heard, leaves no error.
pub(crate) fn why_not_connected(tunnel: &Value) -> String {
    let connection = &tunnel["connection"];
    let error = said(&connection["lastError"], "message");
    // A tunnel that the gateway does not serve has another reason, which its status tells.
    let is_served = said(&tunnel["statusDetail"], "message").is_empty();
    match connection["state"] == "DOWN" && tunnel["ready"] == false && is_served {
        true if error.is_empty() => {
            format!(
                "nothing arrives from {}: the device has not connected yet, has ended its connection, or has another address",
                said(tunnel, "peerPublicIp")
            )
        }
        _ => error.to_owned(),
    }
}

/// Of a tunnel, which has the commands.
pub(crate) const HANDOVER_LINK: Kind = Kind {
    name: "handover link",
    plural: "handover links",
    label: "id",
    columns: &[
        column("ID", "/id"),
        column("STATE", "/state"),
        column("USES", "/uses"),
        column("OF", "/maxUses"),
        column("LAST USED", "/lastUsedAt"),
        column("EXPIRES", "/expiresAt"),
        column("NOTE", "/description"),
    ],
    ..PLAIN
};
pub(crate) const HANDOVER_LINK_REQUEST: &str = "HandoverLinkRequest";

pub(crate) const SHARE: Kind = Kind {
    name: "share",
    plural: "shares",
    path: "ipsec-shares",
    create: Some("IpsecShareRequest"),
    update: Some("IpsecSharePatch"),
    deletes: true,
    settles: true,
    columns: &[
        column("NAME", "/name"),
        column("STATUS", "/status"),
        column("READY", "/ready"),
        column("PORT", "/ingressPort"),
        column("TARGET", "/target"),
        column("WHY", "/statusDetail/message"),
        Column { or: |share| said(share, "ipsecTunnelId").to_owned(), ..wide("TUNNEL", "/tunnel") },
        Column { or: |share| said(share, "envZId").to_owned(), ..wide("ENVIRONMENT", "/environment") },
        wide("ID", "/id"),
        wide("CREATED", "/createdAt"),
    ],
    next: "wicketgate share check {name}",
    ..PLAIN
};

pub(crate) const ENVIRONMENT: Kind = Kind {
    name: "env",
    plural: "environments",
    path: "environments",
    update: Some("EnvironmentPatch"),
    deletes: true,
    columns: &[
        column("NAME", "/name"),
        column("STATUS", "/status"),
        column("ZID", "/zId"),
        wide("ID", "/id"),
        wide("CREATED", "/createdAt"),
    ],
    next: "wicketgate share create --help",
    ..PLAIN
};

pub(crate) const AGENT: Kind = Kind {
    name: "agent",
    plural: "agents",
    path: "agents",
    deletes: true,
    columns: &[
        column("NAME", "/name"),
        column("STATUS", "/status"),
        Column { or: |agent| said(agent, "envZId").to_owned(), ..column("ENVIRONMENT", "/environment") },
        column("ADDRESS", "/address"),
        column("VERSION", "/version"),
        column("SINCE", "/connectedSince"),
        wide("LAST SEEN", "/lastSeen"),
        wide("ID", "/id"),
    ],
    next: "wicketgate share create --help",
    ..PLAIN
};

pub(crate) const ACCOUNT: Kind = Kind {
    name: "account",
    plural: "API accounts",
    path: "api-accounts",
    is_below_frontdoor: false,
    id: "clientId",
    create: Some("ApiAccountRequest"),
    deletes: true,
    columns: &[
        column("NAME", "/name"),
        column("SCOPES", "/scopes"),
        column("CLIENT ID", "/clientId"),
        column("EXPIRES", "/expiresAt"),
        wide("ORGANIZATION", "/organizationId"),
        wide("CREATED", "/createdAt"),
    ],
    next: "wicketgate login --account {clientId} --secret-file FILE",
    ..PLAIN
};

pub(crate) const LOCATION: Kind = Kind {
    name: "location",
    plural: "locations",
    path: "locations",
    label: "id",
    columns: &[column("ID", "/id"), column("MAX TUNNELS", "/maxTunnels")],
    ..PLAIN
};

pub(crate) const GATEWAY: Kind = Kind {
    name: "gateway",
    plural: "gateways",
    path: "gateways",
    is_below_frontdoor: false,
    label: "id",
    deletes: true,
    columns: &[
        column("ID", "/id"),
        column("LOCATION", "/locationId"),
        column("STATUS", "/status"),
        column("DRAINING", "/draining"),
        column("TUNNELS", "/tunnels"),
        column("HELD BACK", "/heldRemovals"),
        column("ADDRESS", "/publicIp"),
        column("LAST SEEN", "/lastSeenAt"),
        wide("MOST", "/maxTunnels"),
        wide("ESP", "/esp"),
        wide("LINKED", "/linkedAt"),
        wide("CREATED", "/createdAt"),
    ],
    next: "wicketgate gateway get {id}",
    ..PLAIN
};

pub(crate) const EXECUTION: Kind = Kind {
    name: "execution",
    plural: "executions",
    path: "executions",
    label: "id",
    columns: &[
        column("TIME", "/createdAt"),
        column("ACTION", "/action"),
        Column {
            or: |execution| said(execution, "resourceId").to_owned(),
            // An id of the API.
            widest: 36,
            ..column("RESOURCE", "/resource")
        },
        Column {
            or: |execution| said(execution, "actor").to_owned(),
            widest: 20,
            ..column("BY", "/actorName")
        },
        column("STATUS", "/status"),
        column("WHY", "/message"),
        wide("FROM", "/sourceAddress"),
        wide("RESOURCE ID", "/resourceId"),
        wide("ACTOR", "/actor"),
        wide("ID", "/id"),
        wide("PROCESS", "/processId"),
        wide("REQUEST", "/requestId"),
    ],
    ..PLAIN
};

/// In the order of `--help`.
pub(crate) const KINDS: &[&Kind] =
    &[&FRONTDOOR, &TUNNEL, &SHARE, &ENVIRONMENT, &AGENT, &ACCOUNT, &LOCATION, &GATEWAY, &EXECUTION];

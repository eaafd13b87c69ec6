//! What can be done, one entry each.

use crate::api::{
    locations,
    wire::{
        agent, api_account, connection_change, environment, execution, frontdoor, property::Property, share,
        tunnel, vpn_config::FORMATS,
    },
};

pub(super) struct Operation {
    pub(super) method: &'static str,
    pub(super) path: &'static str,
    pub(super) id: &'static str,
    pub(super) tag: &'static str,
    pub(super) summary: &'static str,
    pub(super) who: Who,
    pub(super) parameters: Parameters,
    /// Its schema, and whether it has to be there.
    pub(super) body: Option<(&'static str, bool)>,
    /// Of what succeeds: the schema, or `text`, `html`, `any`, or nothing.
    pub(super) answers: &'static [(u16, &'static str)],
    /// Beside those that come by themselves.
    pub(super) errors: &'static [u16],
    pub(super) has_location: bool,
}

pub(super) enum Who {
    Anybody,
    Scope(&'static str),
}

pub(super) enum Parameters {
    None,
    /// Of the document's components.
    Named(&'static [&'static str]),
    /// One of these values.
    One(&'static str, &'static [&'static str]),
    List(&'static [Property]),
}

use Parameters::{List, Named, One};

const READ: Who = Who::Scope("frontdoor.read");
const WRITE: Who = Who::Scope("frontdoor.write");
const ADMIN: Who = Who::Scope("frontdoor.admin");
const METRICS: Parameters = Named(&["duration", "step"]);
const IF_MATCH: Parameters = Named(&["ifMatch"]);

const fn op(method: &'static str, path: &'static str, id: &'static str, who: Who) -> Operation {
    Operation {
        method,
        path,
        id,
        who,
        tag: "",
        summary: "",
        parameters: Parameters::None,
        body: None,
        answers: &[],
        errors: &[],
        has_location: false,
    }
}

impl Operation {
    const fn about(self, tag: &'static str, summary: &'static str) -> Self {
        Self { tag, summary, ..self }
    }

    const fn with(self, parameters: Parameters) -> Self {
        Self { parameters, ..self }
    }

    const fn body(self, schema: &'static str) -> Self {
        Self { body: Some((schema, true)), ..self }
    }

    const fn maybe_body(self, schema: &'static str) -> Self {
        Self { body: Some((schema, false)), ..self }
    }

    const fn answers(self, answers: &'static [(u16, &'static str)]) -> Self {
        Self { answers, ..self }
    }

    const fn fails(self, errors: &'static [u16]) -> Self {
        Self { errors, ..self }
    }

    const fn located(self) -> Self {
        Self { has_location: true, ..self }
    }
}

/// Below a Frontdoor.
macro_rules! below {
    ($rest:literal) => {
        concat!("/frontdoor/v2/{frontdoorId}", $rest)
    };
}

#[rustfmt::skip]
pub(super) static OPERATIONS: &[Operation] = &[
    op("get", below!("/ipsec-shares"), "listIpsecShares", READ).about("IPsec shares", "List the shares of a Frontdoor").with(List(share::PROPERTIES)).answers(&[(200, "IpsecSharePage")]),
    op("post", below!("/ipsec-shares"), "createIpsecShare", WRITE).about("IPsec shares", "Create a share").body("IpsecShareRequest").answers(&[(202, "IpsecShare")]).located(),
    op("get", below!("/ipsec-shares/{id}"), "getIpsecShare", READ).about("IPsec shares", "Read a share").answers(&[(200, "IpsecShare")]),
    op("put", below!("/ipsec-shares/{id}"), "replaceIpsecShare", WRITE).about("IPsec shares", "Replace a share").with(IF_MATCH).body("IpsecShareRequest").answers(&[(202, "IpsecShare")]),
    op("patch", below!("/ipsec-shares/{id}"), "changeIpsecShare", WRITE).about("IPsec shares", "Change some properties of a share").with(IF_MATCH).body("IpsecSharePatch").answers(&[(202, "IpsecShare")]),
    op("delete", below!("/ipsec-shares/{id}"), "deleteIpsecShare", WRITE).about("IPsec shares", "Delete a share").with(IF_MATCH).answers(&[(202, "IpsecShare")]),
    op("get", below!("/ipsec-shares/{id}/metrics"), "getIpsecShareMetrics", READ).about("IPsec shares", "Traffic of a share").with(METRICS).answers(&[(200, "Metrics")]),
    op("get", below!("/ipsec-tunnels"), "listIpsecTunnels", READ).about("IPsec tunnels", "List the tunnels of a Frontdoor").with(List(tunnel::PROPERTIES)).answers(&[(200, "IpsecTunnelPage")]),
    op("post", below!("/ipsec-tunnels"), "createIpsecTunnel", WRITE).about("IPsec tunnels", "Create a tunnel").body("IpsecTunnelRequest").answers(&[(202, "IpsecTunnel")]).located(),
    op("get", below!("/ipsec-tunnels/{id}"), "getIpsecTunnel", READ).about("IPsec tunnels", "Read a tunnel").answers(&[(200, "IpsecTunnel")]),
    op("put", below!("/ipsec-tunnels/{id}"), "replaceIpsecTunnel", WRITE).about("IPsec tunnels", "Replace a tunnel").with(IF_MATCH).body("IpsecTunnelRequest").answers(&[(202, "IpsecTunnel")]),
    op("patch", below!("/ipsec-tunnels/{id}"), "changeIpsecTunnel", WRITE).about("IPsec tunnels", "Change some properties of a tunnel").with(IF_MATCH).body("IpsecTunnelPatch").answers(&[(202, "IpsecTunnel")]),
    op("delete", below!("/ipsec-tunnels/{id}"), "deleteIpsecTunnel", WRITE).about("IPsec tunnels", "Delete a tunnel without live shares").with(IF_MATCH).answers(&[(202, "IpsecTunnel")]),
    op("get", below!("/ipsec-tunnels/{id}/metrics"), "getIpsecTunnelMetrics", READ).about("IPsec tunnels", "Traffic of a tunnel's shares").with(METRICS).answers(&[(200, "Metrics")]),
    op("get", below!("/ipsec-tunnels/{id}/vpn-config"), "getVpnConfig", WRITE).about("IPsec tunnels", "The configuration of the remote site's device. It contains the pre-shared key; each read is recorded").with(One("format", &FORMATS)).answers(&[(200, "VpnConfig")]).fails(&[409]),
    op("post", below!("/ipsec-tunnels/{id}/psk"), "rotatePreSharedKey", WRITE).about("IPsec tunnels", "Rotate the pre-shared key; the old one keeps working for a day, or for graceSeconds").maybe_body("PreSharedKeyRequest").answers(&[(202, "IpsecTunnel")]),
    op("get", below!("/ipsec-tunnels/{id}/connection-history"), "listConnectionChanges", READ).about("IPsec tunnels", "List the last 100 changes of a tunnel's connection: each time it came up or went down, failed in another way, or had another peer or algorithms").with(List(connection_change::PROPERTIES)).answers(&[(200, "ConnectionChangePage")]),
    op("get", below!("/environments"), "listEnvironments", READ).about("Environments", "List the environments of a Frontdoor").with(List(environment::PROPERTIES)).answers(&[(200, "EnvironmentPage")]),
    op("get", below!("/environments/{id}"), "getEnvironment", READ).about("Environments", "Read an environment").answers(&[(200, "Environment")]),
    op("patch", below!("/environments/{id}"), "renameEnvironment", WRITE).about("Environments", "Name an environment").with(IF_MATCH).body("EnvironmentPatch").answers(&[(200, "Environment")]),
    op("delete", below!("/environments/{id}"), "deleteEnvironment", WRITE).about("Environments", "Delete an environment with its shares, and bar its agents").with(IF_MATCH).answers(&[(202, "Environment")]),
    op("get", below!("/agents"), "listAgents", READ).about("Hosting agents", "List the hosting agents of a Frontdoor").with(List(agent::PROPERTIES)).answers(&[(200, "AgentPage")]),
    op("post", below!("/agents/enrollments"), "createEnrollment", WRITE).about("Hosting agents", "Create an enrolment code, which is returned only once").maybe_body("EnrollmentRequest").answers(&[(201, "Enrollment")]),
    op("get", below!("/agents/{id}"), "getAgent", READ).about("Hosting agents", "Read a hosting agent").answers(&[(200, "Agent")]),
    op("delete", below!("/agents/{id}"), "barAgent", WRITE).about("Hosting agents", "Bar a hosting agent at once").with(IF_MATCH).answers(&[(204, "")]),
    op("get", below!("/locations"), "listLocations", READ).about("Locations", "List the sites that have gateways").with(List(locations::PROPERTIES)).answers(&[(200, "LocationPage")]),
    op("get", below!("/executions"), "listExecutions", READ).about("Executions", "List all writes and reads of keys, with their actors and results").with(List(execution::PROPERTIES)).answers(&[(200, "ExecutionPage")]),
    op("get", below!("/executions/{id}"), "getExecution", READ).about("Executions", "Read the record of a write").answers(&[(200, "Execution")]),
    op("get", "/frontdoor/v2/executions", "listOrganizationExecutions", ADMIN).about("Executions", "List all writes to API accounts and Frontdoors, with their actors and results").with(List(execution::PROPERTIES)).answers(&[(200, "ExecutionPage")]),
    op("get", "/frontdoor/v2/executions/{id}", "getOrganizationExecution", ADMIN).about("Executions", "Read the record of a write to an API account or a Frontdoor").answers(&[(200, "Execution")]),
    op("get", "/frontdoor/v2", "listFrontdoors", READ).about("Frontdoors", "List the Frontdoors that the token sees").with(List(frontdoor::PROPERTIES)).answers(&[(200, "FrontdoorPage")]),
    op("post", "/frontdoor/v2", "createFrontdoor", WRITE).about("Frontdoors", "Create a Frontdoor").body("FrontdoorRequest").answers(&[(201, "Frontdoor")]).located(),
    op("get", below!(""), "getFrontdoor", READ).about("Frontdoors", "Read a Frontdoor").answers(&[(200, "Frontdoor")]),
    op("patch", below!(""), "changeFrontdoor", WRITE).about("Frontdoors", "Change a Frontdoor").with(IF_MATCH).body("FrontdoorPatch").answers(&[(200, "Frontdoor")]),
    op("delete", below!(""), "deleteFrontdoor", WRITE).about("Frontdoors", "Delete an empty Frontdoor").with(IF_MATCH).answers(&[(204, "")]),
    op("get", "/frontdoor/v2/api-accounts", "listApiAccounts", ADMIN).about("API accounts and tokens", "List API accounts").with(List(api_account::PROPERTIES)).answers(&[(200, "ApiAccountPage")]),
    op("post", "/frontdoor/v2/api-accounts", "createApiAccount", ADMIN).about("API accounts and tokens", "Create an API account; its secret is returned only once").body("ApiAccountRequest").answers(&[(201, "NewApiAccount")]).located(),
    op("get", "/frontdoor/v2/api-accounts/{id}", "getApiAccount", ADMIN).about("API accounts and tokens", "Read an API account").answers(&[(200, "ApiAccount")]),
    op("delete", "/frontdoor/v2/api-accounts/{id}", "revokeApiAccount", ADMIN).about("API accounts and tokens", "Revoke an API account at once").with(IF_MATCH).answers(&[(204, "")]),
    op("post", "/oauth/token", "createToken", Who::Anybody).about("API accounts and tokens", "A JWT of one hour for the secret of an API account (RFC 6749 §4.4)").body("TokenRequest").answers(&[(200, "Token")]),
    op("get", "/.well-known/jwks.json", "getKeys", Who::Anybody).about("API accounts and tokens", "The keys that JWTs can be checked with (RFC 7517)").answers(&[(200, "any")]),
    op("get", "/livez", "isLive", Who::Anybody).about("Operations", "The process is up").answers(&[(200, "text")]),
    op("get", "/readyz", "isReady", Who::Anybody).about("Operations", "The server is ready: writes take effect soon").with(Named(&["verbose"])).answers(&[(200, "Readiness"), (503, "Readiness")]),
    op("get", "/openapi.json", "getDocument", Who::Anybody).about("Operations", "This document").answers(&[(200, "any")]),
    op("get", "/docs", "getDocumentPage", Who::Anybody).about("Operations", "This document as a page").answers(&[(200, "html")]),
    op("get", below!("/events"), "followEvents", READ).about("Executions", "Every change of status as it happens, as server-sent events").with(Named(&["lastEventId"])).answers(&[(200, "events")]),
    op("post", below!("/ipsec-shares/{id}/check"), "checkIpsecShare", READ).about("IPsec shares", "Walk the path of a share hop by hop, up to a dial of its target").maybe_body("Nothing").answers(&[(200, "Check")]),
];

//! All operations of the API, one entry each: the router and the OpenAPI document are both made of this list.

use super::operation::{
    Access, Operation,
    Parameters::{self, List, Named, One},
};
use crate::api::{
    agents, api_accounts, checks, connection_history, connections, console, enrollments, environments,
    events, executions, frontdoors, gateways, handover_links, health, ike_log, installation, join_tokens,
    links::Absolute,
    locations, metrics, oauth, openapi, reasons, resets, sessions, shares, sign_in, site, tunnels,
    unknown_agents, unknown_peers, vpn_config,
    wire::{
        agent, api_account, connection_change, enrollment_code, environment, execution, frontdoor, gateway,
        handover_link, join_token, share, tunnel, vpn_config::FORMATS,
    },
};
use crate::external::LinkBase;
use axum::{
    Extension,
    http::header::{CACHE_CONTROL, CONTENT_TYPE},
    response::IntoResponse,
    routing,
};
use serde_json::Value;
use std::{borrow::Cow, sync::LazyLock};

/// Where the document names the endpoint that clients get tokens from.
const TOKEN_URL: &str = "/components/securitySchemes/oauth/flows/clientCredentials/tokenUrl";

/// Stands before the URLs of the document that begin with the address of the API. No text has this noncharacter.
const BASE: &str = "\u{fdd0}";

/// The document's text, cut before each of these URLs: putting them together is cheap, making the document is not.
static PARTS: LazyLock<Vec<String>> = LazyLock::new(|| {
    let mut document = document();
    for path in ["/servers/0/url", TOKEN_URL] {
        if let Some(Value::String(url)) = document.pointer_mut(path) {
            url.insert_str(0, BASE);
        }
    }
    format!("{document:#}\n").split(BASE).map(str::to_owned).collect()
});

static DOCUMENT: LazyLock<String> = LazyLock::new(|| PARTS.concat());

/// The OpenAPI document of all operations.
pub fn document() -> Value {
    openapi::document(OPERATIONS)
}

async fn serve_document(base: Option<Extension<LinkBase>>) -> impl IntoResponse {
    let headers = [(CONTENT_TYPE, "application/json"), (CACHE_CONTROL, "public, max-age=300")];
    let text = match base {
        None => Cow::Borrowed(DOCUMENT.as_str()),
        // A base is a plain URL or path, which JSON does not escape.
        Some(Extension(LinkBase(base))) => Cow::Owned(PARTS.join(&base)),
    };
    (headers, Extension(Absolute), text)
}

const READ: Access = Access::Scope("frontdoor.read");
const WRITE: Access = Access::Scope("frontdoor.write");
const ADMIN: Access = Access::Scope("frontdoor.admin");
const METRICS: Parameters = Named(&["duration", "step"]);
const CHANGED_TUNNEL: Parameters = Named(&["ifMatch", "takePeerAddress"]);
const IF_MATCH: Parameters = Named(&["ifMatch"]);

/// Errors of calls with the token of a handover link or of a session.
const STRANGER: &[u16] = &[400, 403, 503];

/// Declares an operation. `$id` names it in generated clients.
macro_rules! op {
    ($method:ident $path:expr => $handler:path, $id:literal, $access:expr) => {
        Operation {
            method: stringify!($method),
            path: $path,
            route: || routing::$method($handler),
            id: $id,
            access: $access,
            tag: "",
            summary: "",
            parameters: Parameters::None,
            body: None,
            answers: &[],
            errors: &[],
            has_location: false,
        }
    };
}

/// Below a Frontdoor.
macro_rules! below {
    ($rest:literal) => {
        concat!("/frontdoor/v2/{frontdoorId}", $rest)
    };
}

#[rustfmt::skip]
pub(super) static OPERATIONS: &[Operation] = &[
    op!(get below!("/ipsec-shares") => shares::list, "listIpsecShares", READ).about("IPsec shares", "List the shares of a Frontdoor").with(List(share::PROPERTIES)).answers(&[(200, "IpsecSharePage")]),
    op!(post below!("/ipsec-shares") => shares::create, "createIpsecShare", WRITE).about("IPsec shares", "Create a share").body("IpsecShareRequest").answers(&[(202, "IpsecShare")]).located(),
    op!(get below!("/ipsec-shares/{id}") => shares::get, "getIpsecShare", READ).about("IPsec shares", "Read a share").answers(&[(200, "IpsecShare")]),
    op!(put below!("/ipsec-shares/{id}") => shares::put, "replaceIpsecShare", WRITE).about("IPsec shares", "Replace a share").with(IF_MATCH).body("IpsecShareRequest").answers(&[(202, "IpsecShare")]),
    op!(patch below!("/ipsec-shares/{id}") => shares::patch, "changeIpsecShare", WRITE).about("IPsec shares", "Change some properties of a share").with(IF_MATCH).body("IpsecSharePatch").answers(&[(202, "IpsecShare")]),
    op!(delete below!("/ipsec-shares/{id}") => shares::delete, "deleteIpsecShare", WRITE).about("IPsec shares", "Delete a share").with(IF_MATCH).answers(&[(202, "IpsecShare")]),
    op!(get below!("/ipsec-shares/{id}/metrics") => metrics::of_share, "getIpsecShareMetrics", READ).about("IPsec shares", "Traffic of a share").with(METRICS).answers(&[(200, "Metrics")]),
    op!(get below!("/ipsec-tunnels") => tunnels::list, "listIpsecTunnels", READ).about("IPsec tunnels", "List the tunnels of a Frontdoor").with(List(tunnel::PROPERTIES)).answers(&[(200, "IpsecTunnelPage")]),
    op!(post below!("/ipsec-tunnels") => tunnels::create, "createIpsecTunnel", WRITE).about("IPsec tunnels", "Create a tunnel").with(Named(&["takePeerAddress"])).body("IpsecTunnelRequest").answers(&[(202, "IpsecTunnel")]).located(),
    op!(get below!("/ipsec-tunnels/{id}") => tunnels::get, "getIpsecTunnel", READ).about("IPsec tunnels", "Read a tunnel").answers(&[(200, "IpsecTunnel")]),
    op!(put below!("/ipsec-tunnels/{id}") => tunnels::put, "replaceIpsecTunnel", WRITE).about("IPsec tunnels", "Replace a tunnel").with(CHANGED_TUNNEL).body("IpsecTunnelRequest").answers(&[(202, "IpsecTunnel")]),
    op!(patch below!("/ipsec-tunnels/{id}") => tunnels::patch, "changeIpsecTunnel", WRITE).about("IPsec tunnels", "Change some properties of a tunnel").with(CHANGED_TUNNEL).body("IpsecTunnelPatch").answers(&[(202, "IpsecTunnel")]),
    op!(delete below!("/ipsec-tunnels/{id}") => tunnels::delete, "deleteIpsecTunnel", WRITE).about("IPsec tunnels", "Delete a tunnel without live shares").with(IF_MATCH).answers(&[(202, "IpsecTunnel")]),
    op!(get below!("/ipsec-tunnels/{id}/metrics") => metrics::of_tunnel, "getIpsecTunnelMetrics", READ).about("IPsec tunnels", "Traffic of a tunnel's shares").with(METRICS).answers(&[(200, "Metrics")]),
    op!(get below!("/ipsec-tunnels/{id}/vpn-config") => vpn_config::get, "getVpnConfig", WRITE).about("IPsec tunnels", "The configuration of the remote site's device. It contains the pre-shared key; each read is recorded").with(One("format", FORMATS)).answers(&[(200, "VpnConfig")]).fails(&[409]),
    op!(post below!("/ipsec-tunnels/{id}/psk") => tunnels::rotate_key, "rotatePreSharedKey", WRITE).about("IPsec tunnels", "Rotate the pre-shared key; the old one keeps working for a day, or for graceSeconds. With `cut`, SAs of the old key are ended").maybe_body("PreSharedKeyRequest").answers(&[(202, "IpsecTunnel")]),
    op!(post below!("/ipsec-tunnels/{id}/reset") => resets::reset, "resetIpsecTunnel", WRITE).about("IPsec tunnels", "Rekey the SAs of a tunnel, or end them and start them again. The execution has the outcome as soon as it is seen").with(IF_MATCH).body("ResetRequest").answers(&[(202, "Execution")]).located().fails(&[412]),
    op!(get below!("/ipsec-tunnels/{id}/ike-log") => ike_log::read, "getIkeLog", READ).about("IPsec tunnels", "The last 2,000 lines of a tunnel's IKE log, as JSON lines or server-sent events, without keys and signs of life").with(Named(&["ikeLogSince", "follow", "ikeLogGateway", "lastEventId"])).answers(&[(200, "lines")]).fails(&[409]),
    op!(get below!("/ipsec-tunnels/{id}/connection-history") => connection_history::list, "listConnectionChanges", READ).about("IPsec tunnels", "List the last 100 changes of a tunnel's connection: each time it came up or went down, failed in another way, or had another peer or algorithms").with(List(connection_change::PROPERTIES)).answers(&[(200, "ConnectionChangePage")]),
    op!(get below!("/environments") => environments::list, "listEnvironments", READ).about("Environments", "List the environments of a Frontdoor").with(List(environment::PROPERTIES)).answers(&[(200, "EnvironmentPage")]),
    op!(get below!("/environments/{id}") => environments::get, "getEnvironment", READ).about("Environments", "Read an environment").answers(&[(200, "Environment")]),
    op!(patch below!("/environments/{id}") => environments::patch, "renameEnvironment", WRITE).about("Environments", "Name an environment").with(IF_MATCH).body("EnvironmentPatch").answers(&[(200, "Environment")]),
    op!(delete below!("/environments/{id}") => environments::delete, "deleteEnvironment", WRITE).about("Environments", "Delete an environment with its shares, and bar its agents").with(IF_MATCH).answers(&[(202, "Environment")]),
    op!(get below!("/agents") => agents::list, "listAgents", READ).about("Hosting agents", "List the hosting agents of a Frontdoor").with(List(agent::PROPERTIES)).answers(&[(200, "AgentPage")]),
    op!(post below!("/agents/enrollments") => enrollments::create, "createEnrollment", WRITE).about("Hosting agents", "Create an enrolment code, which is returned only once").maybe_body("EnrollmentRequest").answers(&[(201, "Enrollment")]),
    op!(get below!("/agents/enrollments") => enrollments::list, "listEnrollments", READ).about("Hosting agents", "List the enrolment codes that no agent has used, without their secrets").with(List(enrollment_code::PROPERTIES)).answers(&[(200, "EnrollmentCodePage")]),
    op!(get below!("/agents/enrollments/{id}") => enrollments::get, "getEnrollment", READ).about("Hosting agents", "Read an enrolment code that no agent has used, without its secret").answers(&[(200, "EnrollmentCode")]),
    op!(delete below!("/agents/enrollments/{id}") => enrollments::revoke, "revokeEnrollment", WRITE).about("Hosting agents", "Revoke an enrolment code that no agent has used").with(IF_MATCH).answers(&[(204, "")]).fails(&[409]),
    op!(get below!("/agents/{id}") => agents::get, "getAgent", READ).about("Hosting agents", "Read a hosting agent").answers(&[(200, "Agent")]),
    op!(patch below!("/agents/{id}") => agents::patch, "renameAgent", WRITE).about("Hosting agents", "Name a hosting agent").with(IF_MATCH).body("AgentPatch").answers(&[(200, "Agent")]),
    op!(delete below!("/agents/{id}") => agents::delete, "barAgent", WRITE).about("Hosting agents", "Bar a hosting agent at once").with(IF_MATCH).answers(&[(204, "")]),
    op!(get below!("/locations") => locations::list, "listLocations", READ).about("Locations", "List the sites that have gateways").with(List(locations::PROPERTIES)).answers(&[(200, "LocationPage")]),
    op!(get below!("/executions") => executions::list, "listExecutions", READ).about("Executions", "List all writes and reads of keys, with their actors and results").with(List(execution::PROPERTIES)).answers(&[(200, "ExecutionPage")]),
    op!(get below!("/executions/{id}") => executions::get, "getExecution", READ).about("Executions", "Read the record of a write").answers(&[(200, "Execution")]),
    op!(get "/frontdoor/v2/executions" => executions::list_of_organization, "listOrganizationExecutions", ADMIN).about("Executions", "List all writes to API accounts and Frontdoors, with their actors and results").with(List(execution::PROPERTIES)).answers(&[(200, "ExecutionPage")]),
    op!(get "/frontdoor/v2/executions/{id}" => executions::get_of_organization, "getOrganizationExecution", ADMIN).about("Executions", "Read the record of a write to an API account or a Frontdoor").answers(&[(200, "Execution")]),
    op!(get "/frontdoor/v2" => frontdoors::list, "listFrontdoors", READ).about("Frontdoors", "List the Frontdoors that the token sees").with(List(frontdoor::PROPERTIES)).answers(&[(200, "FrontdoorPage")]),
    op!(post "/frontdoor/v2" => frontdoors::create, "createFrontdoor", WRITE).about("Frontdoors", "Create a Frontdoor").body("FrontdoorRequest").answers(&[(201, "Frontdoor")]).located(),
    op!(get below!("") => frontdoors::get, "getFrontdoor", READ).about("Frontdoors", "Read a Frontdoor").answers(&[(200, "Frontdoor")]),
    op!(patch below!("") => frontdoors::patch, "changeFrontdoor", WRITE).about("Frontdoors", "Change a Frontdoor").with(IF_MATCH).body("FrontdoorPatch").answers(&[(200, "Frontdoor")]),
    op!(delete below!("") => frontdoors::delete, "deleteFrontdoor", WRITE).about("Frontdoors", "Delete an empty Frontdoor").with(IF_MATCH).answers(&[(204, "")]),
    op!(get "/frontdoor/v2/installation" => installation::show, "getInstallation", ADMIN).about("Operations", "Facts of the whole installation, such as its last backup; for the operator").answers(&[(200, "Installation")]),
    op!(get "/frontdoor/v2/gateways" => gateways::list, "listGateways", ADMIN).about("Gateways", "List the gateways of the installation; for the operator").with(List(gateway::PROPERTIES)).answers(&[(200, "GatewayPage")]),
    op!(post "/frontdoor/v2/gateways/join-tokens" => join_tokens::create, "createJoinToken", ADMIN).about("Gateways", "Create a join token, by which one gateway joins within an hour: a new one at a location, or another machine of a gateway. It is returned only once").body("JoinTokenRequest").answers(&[(201, "JoinTokenCode")]).fails(&[409]),
    op!(get "/frontdoor/v2/gateways/join-tokens" => join_tokens::list, "listJoinTokens", ADMIN).about("Gateways", "List the join tokens that no gateway has used, without their secrets").with(List(join_token::PROPERTIES)).answers(&[(200, "JoinTokenPage")]),
    op!(get "/frontdoor/v2/gateways/join-tokens/{id}" => join_tokens::get, "getJoinToken", ADMIN).about("Gateways", "Read a join token that no gateway has used, without its secret").answers(&[(200, "JoinToken")]),
    op!(delete "/frontdoor/v2/gateways/join-tokens/{id}" => join_tokens::revoke, "revokeJoinToken", ADMIN).about("Gateways", "Revoke a join token that no gateway has used").with(IF_MATCH).answers(&[(204, "")]).fails(&[409]),
    op!(get "/frontdoor/v2/gateways/{id}" => gateways::get, "getGateway", ADMIN).about("Gateways", "Read a gateway").answers(&[(200, "Gateway")]),
    op!(patch "/frontdoor/v2/gateways/{id}" => gateways::patch, "changeGateway", ADMIN).about("Gateways", "Have a gateway drain, so that it gets no more tunnels while its location has another one, or end that").with(IF_MATCH).body("GatewayPatch").answers(&[(200, "Gateway")]),
    op!(post "/frontdoor/v2/gateways/{id}/confirm-removal" => gateways::confirm_removal, "confirmRemoval", ADMIN).about("Gateways", "Have a gateway remove the tunnels whose removal it holds back, since it was sent a state without very many of its tunnels").with(IF_MATCH).body("ConfirmRemovalRequest").answers(&[(200, "Gateway")]).fails(&[409]),
    op!(delete "/frontdoor/v2/gateways/{id}" => gateways::delete, "deleteGateway", ADMIN).about("Gateways", "Remove a gateway without tunnels, and end its link").with(IF_MATCH).answers(&[(204, "")]).fails(&[409]),
    op!(get "/frontdoor/v2/unknown-peers" => unknown_peers::list, "listUnknownPeers", ADMIN).about("Operations", "List the addresses that send IKE to a gateway and are no tunnel's peerPublicIp, the latest first").with(List(unknown_peers::PROPERTIES)).answers(&[(200, "UnknownPeerPage")]),
    op!(get "/frontdoor/v2/unknown-agents" => unknown_agents::list, "listUnknownAgents", ADMIN).about("Operations", "List the agents that have a certificate of this installation and are not known to it, as after a restore, the latest first").with(List(unknown_agents::PROPERTIES)).answers(&[(200, "UnknownAgentPage")]),
    op!(post "/frontdoor/v2/unknown-agents/{id}/adopt" => unknown_agents::adopt, "adoptAgent", ADMIN).about("Operations", "Make an unknown agent one of the environment that it has enrolled for").maybe_body("Nothing").answers(&[(200, "Agent")]).fails(&[409]),
    op!(get "/frontdoor/v2/api-accounts" => api_accounts::list, "listApiAccounts", ADMIN).about("API accounts and tokens", "List API accounts").with(List(api_account::PROPERTIES)).answers(&[(200, "ApiAccountPage")]),
    op!(post "/frontdoor/v2/api-accounts" => api_accounts::create, "createApiAccount", ADMIN).about("API accounts and tokens", "Create an API account; its secret is returned only once").body("ApiAccountRequest").answers(&[(201, "NewApiAccount")]).located(),
    op!(get "/frontdoor/v2/api-accounts/{id}" => api_accounts::get, "getApiAccount", ADMIN).about("API accounts and tokens", "Read an API account").answers(&[(200, "ApiAccount")]),
    op!(delete "/frontdoor/v2/api-accounts/{id}" => api_accounts::delete, "revokeApiAccount", ADMIN).about("API accounts and tokens", "Revoke an API account at once").with(IF_MATCH).answers(&[(204, "")]),
    op!(post "/oauth/token" => oauth::token, "createToken", Access::Public).about("API accounts and tokens", "A JWT of one hour for the secret of an API account (RFC 6749 §4.4)").body("TokenRequest").answers(&[(200, "Token")]),
    op!(get "/.well-known/jwks.json" => oauth::keys, "getKeys", Access::Public).about("API accounts and tokens", "The keys that JWTs can be checked with (RFC 7517)").answers(&[(200, "any")]),
    op!(get "/" => console::root, "getIndex", Access::Public).about("Operations", "Where to go from here: links to the API, its document and the probes. A browser gets the web console").answers(&[(200, "index")]),
    op!(get "/livez" => health::livez, "isLive", Access::Public).about("Operations", "The process is up").answers(&[(200, "text")]),
    op!(get "/readyz" => health::readyz, "isReady", Access::Public).about("Operations", "The server is ready: writes take effect soon").with(Named(&["verbose"])).answers(&[(200, "Readiness"), (503, "Readiness")]),
    op!(get "/openapi.json" => serve_document, "getDocument", Access::Public).about("Operations", "This document").answers(&[(200, "any")]),
    op!(get "/docs" => openapi::page, "getDocumentPage", Access::Public).about("Operations", "This document as a page").answers(&[(200, "html")]),
    op!(get "/docs/reasons" => reasons::list, "listReasons", Access::Public).about("Operations", "All reasons and errors of the API, as a page or as text").answers(&[(200, "page")]),
    op!(get "/docs/reasons/{reason}" => reasons::show, "getReason", Access::Public).about("Operations", "What a reason or an error means, its cause and its cure, as a page or as text").answers(&[(200, "page")]),
    op!(get below!("/events") => events::follow, "followEvents", READ).about("Executions", "Every change of status as it happens, as server-sent events").with(Named(&["lastEventId"])).answers(&[(200, "events")]),
    op!(post below!("/ipsec-shares/{id}/check") => checks::walk, "checkIpsecShare", READ).about("IPsec shares", "Walk the path of a share hop by hop, up to a dial of its target").maybe_body("Nothing").answers(&[(200, "Check")]),
    op!(post below!("/ipsec-shares/{id}/connections/close") => connections::close, "closeConnections", WRITE).about("IPsec shares", "Reset the open connections of a share: all, or those of one client").with(IF_MATCH).maybe_body("CloseConnectionsRequest").answers(&[(200, "ClosedConnections")]).fails(&[412]),
    op!(get "/console/options" => sessions::options, "getConsoleOptions", Access::Public).about("Web console", "How people can sign in").answers(&[(200, "ConsoleOptions")]),
    op!(post "/console/session" => sessions::begin, "beginSession", Access::Public).about("Web console", "Sign in with a token. The cookie of the answer authenticates further requests of this browser").body("SessionRequest").answers(&[(201, "ConsoleSession")]).fails(&[400, 401, 403, 503]),
    op!(get "/console/session" => sessions::show, "getSession", Access::Session).about("Web console", "Read the session of the cookie").answers(&[(200, "ConsoleSession")]),
    op!(delete "/console/session" => sessions::end, "endSession", Access::Session).about("Web console", "Sign out. With `all`, everywhere").with(Named(&["allSessions"])).answers(&[(204, "")]).fails(&[400]),
    op!(get "/console/sign-in" => sign_in::begin, "beginSignIn", Access::Public).about("Web console", "A browser is sent to the identity provider, to sign in").with(Named(&["return"])).answers(&[(303, "")]).fails(&[400, 409]),
    op!(get "/console/callback" => sign_in::finish, "finishSignIn", Access::Public).about("Web console", "The identity provider sends a browser back to here").answers(&[(303, "")]).fails(&[400, 409, 503]),
    op!(get below!("/ipsec-tunnels/{id}/handover-links") => handover_links::list, "listHandoverLinks", READ).about("IPsec tunnels", "List the handover links of a tunnel").with(List(handover_link::PROPERTIES)).answers(&[(200, "HandoverLinkPage")]),
    op!(post below!("/ipsec-tunnels/{id}/handover-links") => handover_links::create, "createHandoverLink", WRITE).about("IPsec tunnels", "Create a link by which the engineer of the remote site gets the configuration and sees the state of the tunnel; its token is returned only once. A tunnel has at most 20 links that have neither expired nor been revoked: 409 for more").maybe_body("HandoverLinkRequest").answers(&[(201, "NewHandoverLink")]).located(),
    op!(get below!("/ipsec-tunnels/{id}/handover-links/{linkId}") => handover_links::get, "getHandoverLink", READ).about("IPsec tunnels", "Read a handover link").answers(&[(200, "HandoverLink")]),
    op!(delete below!("/ipsec-tunnels/{id}/handover-links/{linkId}") => handover_links::revoke, "revokeHandoverLink", WRITE).about("IPsec tunnels", "Revoke a handover link, and end the pages that it has opened").with(IF_MATCH).answers(&[(204, "")]),
    op!(post "/site/open" => site::open, "openHandoverLink", Access::Public).about("Site page", "Open a session with the token of a handover link, which counts as a use").body("SiteOpenRequest").answers(&[(200, "SiteSession")]).fails(STRANGER),
    op!(post "/site/tunnel" => site::tunnel, "getSiteTunnel", Access::Public).about("Site page", "The tunnel of a session as the remote site sees it: its addresses, how far the device has come, and its shares").body("SiteSessionRequest").answers(&[(200, "SiteTunnel")]).fails(STRANGER),
    op!(post "/site/configuration" => site::configuration, "getSiteConfiguration", Access::Public).about("Site page", "The configuration of the remote site's device. It contains the pre-shared key; each read is recorded").body("SiteConfigurationRequest").answers(&[(200, "VpnConfig")]).fails(&[400, 403, 409, 503]),
    op!(post "/site/check" => site::check, "checkSiteShare", Access::Public).about("Site page", "Walk the path of a share hop by hop, without what is behind the gateway").body("SiteCheckRequest").answers(&[(200, "SiteCheck")]).fails(&[400, 403, 404, 503]),
];

//! What a fuzz target runs: the bodies of requests.
//!
//! No body ends the program. What an accepted one describes is accepted again as the API shows it, and describes the same: in a
//! body of PUT, in a patch of nothing, and in a patch that repeats the body.

use super::{
    agent,
    api_account::{self, AccountRequest, ApiAccount},
    body::Body,
    check, closing,
    environment::{self, Environment},
    frontdoor::{self, Frontdoor},
    gateway,
    handover_link::{self, HandoverLink, LinkRequest},
    reset, session,
    share::{self, Share, ShareRequest},
    site,
    token_request::TokenRequest,
    tunnel::{self, Tunnel, TunnelPlace},
};
use axum::http::{HeaderMap, HeaderValue, header::CONTENT_TYPE};
use jiff::Timestamp;
use serde::Serialize;
use serde_json::{Map, Value};
use uuid::Uuid;
use wicketgate_model::{
    AgentId, ApiAccountId, EnvironmentId, FrontdoorId, Generation, HandoverLinkId, LoadBalancerPools, Quotas,
    ShareId, Standing, Status, TunnelId,
};
use wicketgate_store::{
    AgentRow, ApiAccountRow, ApiAccountSpec, EnvironmentRow, FrontdoorRow, HandoverLinkRow, HandoverLinkSpec,
    QuotaUse, ShareRow, TunnelRow, TunnelSpec,
};

/// The time of requests, but that of shares, who look at the clock.
const NOW: Timestamp = Timestamp::constant(1_800_000_000, 0);

/// The body of any request.
pub fn request_body(bytes: &[u8]) {
    let mut form = HeaderMap::new();
    form.insert(CONTENT_TYPE, HeaderValue::from_static("application/x-www-form-urlencoded"));
    for headers in [form, HeaderMap::new()] {
        drop(TokenRequest::read(&headers, Body::json(bytes)));
    }
    let Ok(body) = Body::json(bytes).object() else { return };
    // Each is `None` for a body that is not of its kind.
    let _ = tunnel_of(&body).map(|tunnel| share_of(&body, &tunnel));
    let _ = a_tunnel().map(|tunnel| share_of(&body, &tunnel));
    let _ = frontdoor_of(&body);
    let _ = account_of(&body);
    let _ = link_of(&body);
    let _ = names_of(&body);
    requests_without_a_resource(&body);
}

/// As the API shows it.
fn shown(resource: &impl Serialize) -> Option<Map<String, Value>> {
    match serde_json::to_value(resource) {
        Ok(Value::Object(object)) => Some(object),
        _ => None,
    }
}

fn standing() -> Standing {
    Standing {
        status: Status::Deployed,
        since: NOW,
        observed_generation: Some(Generation::FIRST),
        detail: None,
    }
}

/// A tunnel that a body of another kind can name.
fn a_tunnel() -> Option<TunnelRow> {
    let text =
        r#"{"name": "a", "locationId": "local", "peerPublicIp": "203.0.113.1", "peerCidr": "10.0.0.0/8"}"#;
    tunnel_of(&Body::json(text.as_bytes()).object().ok()?)
}

fn tunnel_of(body: &Map<String, Value>) -> Option<TunnelRow> {
    let (locations, pools) = (["local".parse().ok()?], LoadBalancerPools::ipsec());
    let read = |body: Map<String, Value>, old: Option<&TunnelRow>| {
        let key = old.and_then(|old| old.spec.pre_shared_key.clone());
        tunnel::spec(body, &locations, &pools, key, old)
    };
    let (spec, chosen): (TunnelSpec, _) = read(body.clone(), None).ok()?;
    let row = TunnelRow {
        id: TunnelId::new(Uuid::nil()),
        frontdoor: FrontdoorId::new(Uuid::nil()),
        gateway: None,
        redundancy: wicketgate_model::Redundancy::None,
        load_balancer_ip: chosen.map_or([100, 64, 0, 1].into(), |chosen| chosen.get()),
        slot: 0,
        previous_keys: Default::default(),
        generation: Generation::FIRST,
        cut_generation: None,
        peer_address_taken_at: None,
        standing: standing(),
        connection: None,
        created_at: NOW,
        updated_at: NOW,
        deleted_at: None,
        created_by: "admin".to_owned(),
        deleted_by: None,
        spec,
    };
    let again = [
        shown(&Tunnel::of(row.clone(), TunnelPlace::default()))?,
        tunnel::merged(&row, Map::new()),
        tunnel::merged(&row, body.clone()),
    ];
    for body in again {
        assert_eq!(read(body.clone(), Some(&row)), Ok((row.spec.clone(), None)), "{body:?}");
    }
    Some(row)
}

fn share_of(body: &Map<String, Value>, tunnel: &TunnelRow) -> Option<()> {
    let environment = EnvironmentId::new(Uuid::nil());
    let read = |body: Map<String, Value>, old: Option<&ShareRow>| {
        ShareRequest::parse(body, old).resolve(Some(tunnel), Some(environment))
    };
    let spec = read(body.clone(), None).ok()?;
    let row = ShareRow {
        id: ShareId::new(Uuid::nil()),
        frontdoor: tunnel.frontdoor,
        z_id: "env0000001".parse().ok()?,
        gateway: None,
        location: tunnel.spec.location.clone(),
        tunnel_name: tunnel.spec.name.clone(),
        generation: Generation::FIRST,
        standing: standing(),
        created_at: NOW,
        updated_at: NOW,
        deleted_at: None,
        created_by: "admin".to_owned(),
        deleted_by: None,
        spec,
    };
    let again =
        [shown(&Share::of(row.clone()))?, share::merged(&row, Map::new()), share::merged(&row, body.clone())];
    for body in again {
        assert_eq!(read(body.clone(), Some(&row)), Ok(row.spec.clone()), "{body:?}");
    }
    Some(())
}

fn frontdoor_of(body: &Map<String, Value>) -> Option<()> {
    let installation = Quotas::default();
    let spec = frontdoor::spec(body.clone(), None, &installation).ok()?;
    let row = FrontdoorRow {
        id: FrontdoorId::new(Uuid::nil()),
        created_at: NOW,
        updated_at: NOW,
        created_by: "admin".to_owned(),
        spec,
    };
    let again = [
        shown(&Frontdoor::with_quotas(row.clone(), &installation, &QuotaUse::default()))?,
        frontdoor::merged(&row, Map::new()),
        frontdoor::merged(&row, body.clone()),
    ];
    for body in again {
        let read = frontdoor::spec(body.clone(), Some(&row), &installation);
        assert_eq!(read, Ok(row.spec.clone()), "{body:?}");
    }
    Some(())
}

fn account_of(body: &Map<String, Value>) -> Option<()> {
    let row = |requested: AccountRequest| ApiAccountRow {
        id: ApiAccountId::new(Uuid::nil()),
        spec: ApiAccountSpec {
            organization: requested.organization.unwrap_or_else(|| "default".to_owned()),
            name: requested.name,
            scopes: requested.scopes.iter().map(|scope| scope.as_str().to_owned()).collect(),
            frontdoors: requested.frontdoors,
            secret_sha256: [0; 32],
            expires_at: requested.expires_at,
        },
        created_at: NOW,
        created_by: "admin".to_owned(),
    };
    let made = row(api_account::account_request(body.clone(), NOW).ok()?);
    let body = shown(&ApiAccount::of(made.clone()))?;
    let again = api_account::account_request(body.clone(), NOW).map(row);
    assert_eq!(again, Ok(made), "{body:?}");
    Some(())
}

fn link_of(body: &Map<String, Value>) -> Option<()> {
    let row = |requested: LinkRequest| HandoverLinkRow {
        id: HandoverLinkId::new(Uuid::nil()),
        frontdoor: FrontdoorId::new(Uuid::nil()),
        tunnel: TunnelId::new(Uuid::nil()),
        spec: HandoverLinkSpec {
            description: requested.description,
            expires_at: requested.expires_at,
            max_uses: requested.max_uses,
            // It is not shown.
            passphrase: None,
            token_sha256: [0; 32],
        },
        uses: 0,
        last_used_at: None,
        created_at: NOW,
        created_by: "admin".to_owned(),
        revoked_at: None,
    };
    let made = row(handover_link::link_request(body.clone(), NOW).ok()?);
    let body = shown(&HandoverLink::of(made.clone(), NOW))?;
    assert_eq!(handover_link::link_request(body.clone(), NOW).map(row), Ok(made), "{body:?}");
    Some(())
}

/// Of patches of an environment and of an agent.
fn names_of(body: &Map<String, Value>) -> Option<()> {
    let (frontdoor, environment, z_id) =
        (FrontdoorId::new(Uuid::nil()), EnvironmentId::new(Uuid::nil()), "env0000001".parse().ok()?);
    let agent = AgentRow {
        id: AgentId::new(Uuid::nil()),
        frontdoor,
        environment,
        z_id,
        name: "dc-1".to_owned(),
        given_name: None,
        version: None,
        address: None,
        connected_since: None,
        last_seen: None,
        created_at: NOW,
        barred_at: None,
    };
    if let Ok(given_name) = agent::name(&agent, body.clone()) {
        let named = AgentRow { given_name: given_name.clone(), ..agent.clone() };
        assert_eq!(agent::name(&named, Map::new()), Ok(given_name));
    }
    let row = EnvironmentRow {
        id: environment,
        frontdoor,
        z_id: agent.z_id,
        name: "a".parse().ok()?,
        active: false,
        created_at: NOW,
        updated_at: NOW,
    };
    let name = environment::name(&row, body.clone()).ok()?;
    let named = EnvironmentRow { name: name.clone(), ..row };
    let body = shown(&Environment::of(named.clone(), &[]))?;
    assert_eq!(environment::name(&named, body), Ok(name));
    Some(())
}

/// What they describe is not shown.
fn requests_without_a_resource(body: &Map<String, Value>) {
    drop(tunnel::new_key(body.clone()));
    drop(reset::request(body.clone()));
    drop(closing::source(body.clone()));
    drop(gateway::confirmed_removals(body.clone()));
    drop(gateway::draining(body.clone()));
    drop(check::nothing(body.clone()));
    drop(agent::enrollment(body.clone()));
    drop(session::token(body.clone()));
    drop(site::opening(body.clone()));
    drop(site::session(body.clone()));
    drop(site::configuration(body.clone()));
    drop(site::check(body.clone()));
}

/// Otherwise nothing is compared.
#[cfg(test)]
#[test]
fn the_seeds_have_bodies_that_are_accepted() {
    let read = |seed: &str| {
        let file = format!("{}/../../fuzz/seeds/request_body/{seed}", env!("CARGO_MANIFEST_DIR"));
        Body::json(&std::fs::read(file).unwrap()).object().unwrap()
    };
    for seed in ["tunnel", "tunnel_full", "tunnel_identity"] {
        assert!(tunnel_of(&read(seed)).is_some(), "{seed}");
    }
    let tunnel = a_tunnel().unwrap();
    for seed in ["share", "share_full", "share_none"] {
        assert!(share_of(&read(seed), &tunnel).is_some(), "{seed}");
    }
    assert!(frontdoor_of(&read("frontdoor")).is_some());
    assert!(account_of(&read("account")).is_some());
    assert!(link_of(&read("link")).is_some());
    assert!(names_of(&read("name")).is_some());
    assert!(tunnel::new_key(read("psk")).is_ok() && reset::request(read("reset")).is_ok());
    assert!(closing::source(read("close")).is_ok());
}

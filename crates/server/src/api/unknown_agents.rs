//! `/frontdoor/v2/unknown-agents`: agents whose certificate is of this installation's authority, and that its database does not
//! know. After a restore, who restored it can adopt those that enrolled after the backup.

use super::{
    access::{Answer, Caller, Id, Operates},
    wire::{
        agent::Agent,
        answer::{Format, Links, Representation},
        property::{LINKS, Property, PropertyType},
        query::Query,
    },
};
use crate::{
    error::{ApiError, ResourceKind},
    gateways::Strangers,
    revocation_journal::has_removed,
};
use axum::http::StatusCode;
use jiff::Timestamp;
use serde::Serialize;
use std::{cmp::Reverse, collections::BTreeSet, net::IpAddr};
use wicketgate_model::{AgentId, EnvironmentId, FrontdoorId, LocationId, UnknownAgent, ZId};
use wicketgate_store::{AdoptedAgent, Page, StoreError};

pub(super) static PROPERTIES: &[Property] = &[
    Property::new("id", PropertyType::Text),
    Property::new("name", PropertyType::Text).described_as("agentName"),
    Property::new("frontdoorId", PropertyType::Text),
    Property::new("environmentId", PropertyType::Text),
    Property::new("address", PropertyType::Text),
    Property::new("keySha256", PropertyType::Text),
    Property::new("locationId", PropertyType::Text),
    Property::new("removed", PropertyType::Boolean).described_as("strangerRemoved"),
    Property::new("firstSeenAt", PropertyType::Time),
    Property::new("lastSeenAt", PropertyType::Time),
    LINKS,
];

#[derive(Debug, Serialize)]
#[serde(rename_all = "camelCase")]
pub(super) struct Stranger {
    id: AgentId,
    name: String,
    frontdoor_id: FrontdoorId,
    environment_id: EnvironmentId,
    address: IpAddr,
    key_sha256: String,
    location_id: LocationId,
    /// After the backup that the database was restored from.
    removed: bool,
    first_seen_at: Timestamp,
    last_seen_at: Timestamp,
}

impl Representation for Stranger {
    const LIST: &'static str = "unknownAgentList";

    fn links(&self) -> Links {
        Vec::new()
    }
}

/// The latest first.
pub(super) async fn list(Operates(caller): Operates, format: Format, query: Query) -> Answer {
    let query = query.list(PROPERTIES)?;
    let found = found(&caller).await?;
    let Page { rows, total } = query.request.page.of(found);
    let removed = removed(&caller, rows.iter().map(|(_, one)| one)).await?;
    let rows = rows.into_iter().map(|(location_id, one)| Stranger {
        removed: removed.contains(&one.agent),
        id: one.agent,
        name: one.name,
        frontdoor_id: one.frontdoor,
        environment_id: one.environment,
        address: one.address,
        key_sha256: hex::encode(one.key_sha256),
        location_id,
        first_seen_at: one.first_seen_at,
        last_seen_at: one.last_seen_at,
    });
    Ok(format.page("/frontdoor/v2/unknown-agents", &query, total, rows))
}

/// Makes it an agent of the environment in its certificate, which is made again if the database does not have it.
pub(super) async fn adopt(Operates(caller): Operates, Id(id): Id<AgentId>, format: Format) -> Answer {
    let found = found(&caller).await?.into_iter().find(|(_, one)| one.agent == id);
    let (_, found) = found.ok_or_else(|| ApiError::not_found(ResourceKind::Agent, id))?;
    if !removed(&caller, [&found].into_iter()).await?.is_empty() {
        return Err(ApiError::conflict(
            "It was removed, or its environment was deleted, after the backup that the database was restored from: enrol it \
             again with a new code",
        ));
    }
    let mut random = [0; 10];
    getrandom::fill(&mut random)?;
    let agent = AdoptedAgent {
        agent: found.agent,
        environment: found.environment,
        frontdoor: found.frontdoor,
        public_key_sha256: found.key_sha256,
        name: found.name,
        z_id: ZId::from_random(random),
    };
    let state = &caller.state;
    let context = caller.write_context();
    let adopted = state.store.adopt_agent(&agent, &context).await;
    let row = adopted.map_err(|error| match error {
        StoreError::NoFrontdoor(_) | StoreError::Missing => ApiError::conflict(
            "Its Frontdoor or its environment was deleted, or it was removed itself: enrol it again with a new code",
        ),
        error => error.into(),
    })?;
    state.gateways.wake();
    Ok(format.resource(StatusCode::OK, &Agent::of(row)))
}

/// Those of them that were removed after the backup, themselves or with what they belong to.
async fn removed<'a>(
    caller: &Caller,
    all: impl Iterator<Item = &'a UnknownAgent>,
) -> Result<BTreeSet<AgentId>, ApiError> {
    let resources =
        |one: &UnknownAgent| [one.agent.to_string(), one.environment.to_string(), one.frontdoor.to_string()];
    let of: Vec<_> = all.map(|one| (one.agent, resources(one))).collect();
    let were = async |resources: &[String]| {
        let removed = has_removed(&caller.state.revocations, resources).await;
        removed.map_err(|error| {
            ApiError::unavailable(format!("The record of revocations cannot be read: {error}"))
        })
    };
    let mut found = BTreeSet::new();
    // As a rule, none was.
    let every: Vec<_> = of.iter().flat_map(|(_, resources)| resources.clone()).collect();
    if were(&every).await? {
        for (agent, resources) in &of {
            if were(resources).await? {
                found.insert(*agent);
            }
        }
    }
    Ok(found)
}

/// Those that the gateways have refused, but for agents that were adopted since.
async fn found(caller: &Caller) -> Result<Vec<(LocationId, UnknownAgent)>, ApiError> {
    let state = &caller.state;
    let mut found = Vec::new();
    for Strangers { location, agents, .. } in state.gateways.strangers().await {
        found.extend(agents.into_iter().map(|agent| (location.clone(), agent)));
    }
    let ids: Vec<_> = found.iter().map(|(_, one)| one.agent).collect();
    let known: BTreeSet<_> = state.store.known_agents(&ids).await?.into_iter().collect();
    found.retain(|(_, one)| !known.contains(&one.agent));
    found.sort_unstable_by_key(|(_, one)| Reverse(one.last_seen_at));
    Ok(found)
}

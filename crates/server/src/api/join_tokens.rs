//! `/frontdoor/v2/gateways/join-tokens`: what lets a gateway join the installation.

use super::{
    access::{Answer, Id, Operates},
    conditional::Preconditions,
    wire::{
        answer::Format,
        body::Body,
        join_token::{self, JoinTokenCode, ListedJoinToken, NewGatewayPlace},
        query::Query,
    },
};
use crate::{
    error::{ApiError, ResourceKind},
    state::now,
};
use axum::{
    http::{StatusCode, header::CACHE_CONTROL},
    response::IntoResponse,
};
use wicketgate_model::{GatewayId, JoinTokenId};
use wicketgate_store::{NewJoinToken, StoreError};
use wicketgate_transport::code::{JoinToken, secret_hash};

/// Those that no gateway has used.
pub(super) async fn list(Operates(caller): Operates, format: Format, query: Query) -> Answer {
    let query = query.list(join_token::PROPERTIES)?;
    let page = caller.state.store.join_tokens(&query.request).await?;
    let now = now();
    let rows = page.rows.into_iter().map(|row| ListedJoinToken::of(row, now));
    Ok(format.page(ListedJoinToken::PATH, &query, page.total, rows))
}

pub(super) async fn get(at: Operates, Id(id): Id<JoinTokenId>, format: Format) -> Answer {
    Ok(format.resource(StatusCode::OK, &find(&at, id).await?))
}

/// The token is only in this answer: the server stores the hash of its secret.
pub(super) async fn create(Operates(caller): Operates, format: Format, body: Body) -> Answer {
    let place = join_token::place(body.object()?)?;
    let state = &caller.state;
    let servers = state.link_addresses.get();
    if servers.is_empty() {
        return Err(ApiError::conflict(
            "No gateway can join this server, which has its own in its process (`wicketgate up`)",
        ));
    }
    let (location, gateway) = match place {
        NewGatewayPlace::At(location) => (location, None),
        NewGatewayPlace::Of(gateway) => {
            let row = state.store.listed_gateway(gateway).await?.filter(|row| !row.in_process);
            (row.and_then(|row| row.location).ok_or_else(|| not_replaceable(gateway))?, Some(gateway))
        }
    };
    let context = caller.write_context();
    let token = JoinToken::generate(JoinTokenId::new((context.fresh)()), state.ca)
        .map_err(|_| ApiError::unavailable("The server could not generate random bytes; try again"))?;
    let secret_sha256 = secret_hash(token.secret());
    let new = NewJoinToken { id: token.id(), secret_sha256, location, gateway };
    let created = state.store.create_join_token(&new, &context).await;
    let expires_at = created.map_err(|error| match (error, gateway) {
        (StoreError::Missing, Some(gateway)) => not_replaceable(gateway),
        (error, _) => error.into(),
    })?;
    let answer = JoinTokenCode {
        id: new.id,
        location_id: new.location,
        gateway_id: gateway,
        join_token: &token.expose(),
        servers: &servers,
        expires_at,
    };
    let answer = format.one(StatusCode::CREATED, &answer, Vec::new());
    Ok(([(CACHE_CONTROL, "no-store")], answer).into_response())
}

fn not_replaceable(gateway: GatewayId) -> ApiError {
    ApiError::conflict(format!(
        "The machine of gateway {gateway} can't be replaced: it is not known, or a part of a server's process; \
         `wicketgate gateway list` has all"
    ))
}

/// Ends the token. One that has expired stays as it is.
pub(super) async fn revoke(
    at: Operates,
    Id(id): Id<JoinTokenId>,
    wanted: Preconditions,
) -> Result<StatusCode, ApiError> {
    wanted.hold_for(&find(&at, id).await?)?;
    let Operates(caller) = at;
    // In the meantime, a gateway may have used it.
    match caller.state.store.revoke_join_token(id, &caller.write_context()).await? {
        None => Ok(StatusCode::NO_CONTENT),
        Some(gateway) => Err(ApiError::conflict(format!(
            "The gateway {gateway} has joined with the token: delete it (`wicketgate gateway delete`) if it should not have"
        ))),
    }
}

async fn find(Operates(caller): &Operates, id: JoinTokenId) -> Result<ListedJoinToken, ApiError> {
    let row = caller.state.store.join_token(id).await?;
    let row = row.ok_or_else(|| ApiError::not_found(ResourceKind::JoinToken, id))?;
    Ok(ListedJoinToken::of(row, now()))
}

//! `/{frontdoorId}/ipsec-shares/{id}/connections/close`: resets open connections of a share.

use super::{
    access::Answer,
    act,
    edit::Edit,
    endpoints::gateways_of_share,
    refusal::{must_be_live, refused},
    shares,
    wire::{
        answer::Links,
        body::Body,
        closing::{self, Closed},
        share::Share,
    },
};
use crate::error::{ApiError, ResourceKind};
use axum::http::StatusCode;
use futures_util::future::join_all;
use wicketgate_model::ShareId;
use wicketgate_store::{Action, Resource};

/// Answers when the connections were reset.
pub(super) async fn close(Edit { at, id, format, wanted }: Edit<ShareId>, body: Body) -> Answer {
    let share = shares::find(&at, id).await?;
    let source = closing::source(body.object_or_nothing()?)?;
    let named = share.named();
    must_be_live(ResourceKind::Share, named.clone(), share.standing.status)?;
    let of = gateways_of_share(&at.state, share.spec.tunnel, share.gateway).await?;
    let location = share.location.clone();
    wanted.hold_for(&shares::shown(&at.state, share))?;
    let (on, context) = (Resource::Share(id), at.write_context());
    let gateways = at.state.gateways.clone();
    let begun = act::begin(&at.state, (at.id(), Action::CloseConnections, on), context, async move {
        let all: Vec<_> = of.iter().map(|of| gateways.close_connections(Some(*of), id, source)).collect();
        let closed = join_all(all).await;
        // `None` if one does not answer, and none if there is none.
        let closed = closed.into_iter().sum::<Option<u64>>().filter(|_| !of.is_empty());
        let outcome = match closed {
            Some(1) => Ok("1 connection was reset".to_owned()),
            Some(closed) => Ok(format!("{closed} connections were reset")),
            None => Err(format!("no gateway of location {location} answers, and connections may be open")),
        };
        (outcome, closed)
    });
    let (execution_id, closed) = begun.await.map_err(refused(ResourceKind::Share, named))?;
    let closed = closed.await.map_err(ApiError::internal)?.ok_or_else(|| {
        ApiError::unavailable(
            "The gateway does not answer, and connections may be open: try again later, with another Idempotency-Key",
        )
    })?;
    let links: Links = vec![
        ("share", Share::path(at.id(), id)),
        ("execution", format!("{}/{execution_id}", at.path("executions"))),
    ];
    Ok(format.one(StatusCode::OK, &Closed { closed, execution_id }, links))
}

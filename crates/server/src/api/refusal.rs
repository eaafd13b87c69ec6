//! The store's refusals as errors of the API: the resource, the property, and the resource that conflicts.

use super::wire::{agent, property::Property, share, tunnel};
use crate::error::{ApiError, PropertyFault, ResourceKind};
use wicketgate_model::Status;
use wicketgate_store::{Column, NamedRow, StoreError, column};

/// For a write to this resource.
pub(super) fn refused(kind: ResourceKind, of: NamedRow) -> impl FnOnce(StoreError) -> ApiError {
    move |e| match e {
        StoreError::Missing => ApiError::not_found(kind, of),
        StoreError::NotLive(status) => {
            ApiError::conflict(format!("{kind} {of} can't be changed: its status is {status}"))
        }
        StoreError::HasShares { count: 1, first } => {
            ApiError::conflict(format!("{kind} {of} can't be deleted before its share: delete {first} first"))
        }
        StoreError::HasShares { count, .. } => ApiError::conflict(format!(
            "{kind} {of} can't be deleted before its {count} shares: delete them first; \
             ipsec-shares?ipsecTunnelId={} lists them",
            of.id
        )),
        StoreError::TooManyLinks(count) => ApiError::conflict(format!(
            "{kind} {of} has {count} handover links that have neither expired nor been revoked, as many as it may: \
             revoke one that is not needed; ipsec-tunnels/{}/handover-links lists them",
            of.id
        )),
        StoreError::Stale => ApiError::conflict(format!(
            "{kind} {of} was changed by another request at the same time; try again"
        )),
        other => not_created(kind)(other),
    }
}

/// Checks that a share or a tunnel is neither deleted nor being deleted.
pub(super) fn must_be_live(kind: ResourceKind, of: NamedRow, status: Status) -> Result<(), ApiError> {
    if status.is_live() { Ok(()) } else { Err(refused(kind, of)(StoreError::NotLive(status))) }
}

/// For a new resource.
pub(super) fn not_created(kind: ResourceKind) -> impl FnOnce(StoreError) -> ApiError {
    move |e| match e {
        StoreError::Conflict { column, with } => match (name(column), with) {
            (Some(property), Some(with)) => {
                ApiError::conflict(format!("{property} is taken by {kind} {with}"))
            }
            // Of another Frontdoor, about which its caller is told nothing.
            (Some(property), None) => {
                ApiError::conflict(format!("{property} is not available; choose another value"))
            }
            (None, with) => StoreError::Conflict { column, with }.into(),
        },
        StoreError::Reference { column: missing } => {
            let property = name(missing).unwrap_or("The body");
            let what = if *missing == column::share::TUNNEL { "tunnel" } else { "environment" };
            ApiError::faults(vec![PropertyFault {
                property: property.to_owned(),
                message: format!("{property} must be that of an existing {what} of this Frontdoor"),
            }])
        }
        other => ApiError::from(other),
    }
}

/// The property of a column that is unique or refers to another resource.
fn name(column: &Column) -> Option<&'static str> {
    let tables: [&'static [Property]; 3] = [share::PROPERTIES, tunnel::PROPERTIES, agent::PROPERTIES];
    tables.into_iter().flatten().find(|p| p.column == Some(column)).map(|p| p.name)
}

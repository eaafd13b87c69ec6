//! `/{frontdoorId}/agents/enrollments`: enrolment codes.

use super::{
    access::{Answer, At, Id, Reads, Writes},
    conditional::Preconditions,
    refusal::not_created,
    wire::{
        agent::{Enrollment, enrollment},
        answer::Format,
        body::Body,
        enrollment_code::{self, EnrollmentCode},
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
use jiff::SignedDuration;
use wicketgate_model::EnrollmentId;
use wicketgate_store::NewEnrollment;
use wicketgate_transport::code::{EnrolmentCode, secret_hash};

/// The lifetime of a code.
const LIFETIME: SignedDuration = SignedDuration::from_hours(1);

const NO_ENVIRONMENT: &str =
    "environmentId must be the id or zId of an existing environment of this Frontdoor";

/// Those that no agent has used.
pub(super) async fn list(Reads(at): Reads, format: Format, query: Query) -> Answer {
    let query = query.list(enrollment_code::PROPERTIES)?;
    let page = at.state.store.enrollment_codes(at.id(), &query.request).await?;
    let now = now();
    let rows = page.rows.into_iter().map(|row| EnrollmentCode::of(row, now));
    Ok(format.page(&at.path("agents/enrollments"), &query, page.total, rows))
}

pub(super) async fn get(Reads(at): Reads, Id(id): Id<EnrollmentId>, format: Format) -> Answer {
    Ok(format.resource(StatusCode::OK, &find(&at, id).await?))
}

/// Ends the code. One that has expired stays as it is.
pub(super) async fn revoke(
    Writes(at): Writes,
    Id(id): Id<EnrollmentId>,
    wanted: Preconditions,
) -> Result<StatusCode, ApiError> {
    wanted.hold_for(&find(&at, id).await?)?;
    // In the meantime, an agent may have used it.
    match at.state.store.revoke_enrollment(at.id(), id, &at.write_context()).await? {
        None => Ok(StatusCode::NO_CONTENT),
        Some(agent) => Err(ApiError::conflict(format!(
            "The agent {agent} has enrolled with the code: bar it (`wicketgate agent delete`) if it should not have"
        ))),
    }
}

async fn find(at: &At, id: EnrollmentId) -> Result<EnrollmentCode, ApiError> {
    let row = at.state.store.enrollment_code(at.id(), id).await?;
    let row = row.ok_or_else(|| ApiError::not_found(ResourceKind::Enrollment, id))?;
    Ok(EnrollmentCode::of(row, now()))
}

/// The code is only in this answer: the server stores the hash of its secret.
pub(super) async fn create(Writes(at): Writes, format: Format, body: Body) -> Answer {
    let environment = match enrollment(body.object_or_nothing()?)? {
        Some(key) => {
            let row = at.state.store.environment_of(at.id(), &key).await?;
            Some(row.ok_or_else(|| ApiError::bad_request(NO_ENVIRONMENT))?.id)
        }
        None => None,
    };
    let context = at.write_context();
    let code = EnrolmentCode::generate(EnrollmentId::new((context.fresh)()), at.state.ca)
        .map_err(|_| ApiError::unavailable("The server could not generate random bytes; try again"))?;
    let new = NewEnrollment {
        id: code.id(),
        environment,
        secret_sha256: secret_hash(code.secret()),
        expires_at: context.at + LIFETIME,
    };
    at.state
        .store
        .create_enrollment(at.id(), &new, &context)
        .await
        .map_err(not_created(ResourceKind::Environment))?;
    let answer = Enrollment {
        id: new.id,
        frontdoor_id: at.id(),
        enrollment_code: &code.expose(),
        expires_at: new.expires_at,
        environment_id: environment,
        agent_server: at.state.agent_server(),
    };
    let answer = format.one(StatusCode::CREATED, &answer, Vec::new());
    Ok(([(CACHE_CONTROL, "no-store")], answer).into_response())
}

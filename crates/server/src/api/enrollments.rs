//! `/{frontdoorId}/agents/enrollments`

use super::{
    access::{Answer, Writes},
    refusal::not_created,
    wire::{
        agent::{Enrollment, enrollment},
        answer::Format,
        body::Body,
    },
};
use crate::error::{ApiError, ResourceKind};
use axum::{
    http::{StatusCode, header::CACHE_CONTROL},
    response::IntoResponse,
};
use jiff::SignedDuration;
use wicketgate_model::EnrollmentId;
use wicketgate_store::NewEnrollment;
use wicketgate_transport::enrolment_code::{EnrolmentCode, secret_hash};

/// The lifetime of a code.
const LIFETIME: SignedDuration = SignedDuration::from_hours(1);

const NO_ENVIRONMENT: &str =
    "environmentId must be the id or zId of an existing environment of this Frontdoor";

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
        id: code.enrollment(),
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
        frontdoor_id: at.id(),
        enrollment_code: &code.expose(),
        expires_at: new.expires_at,
        environment_id: environment,
        agent_server: at.state.agent_server.clone(),
    };
    let answer = format.one(StatusCode::CREATED, &answer, Vec::new());
    Ok(([(CACHE_CONTROL, "no-store")], answer).into_response())
}

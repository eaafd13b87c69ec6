//! The one error of the API, and its body: `{"error", "message"}`, with `details` where there are several faults, and a link to
//! what the error means.
//!
//! Which to use: [`ApiError::bad_request`] for one fault of a request, [`ApiError::faults`] for those of a body, all
//! at once; [`ApiError::not_found`] for a resource in a path that is not there, but [`ApiError::frontdoor_not_found`]
//! for a Frontdoor, which answers alike whether it is unknown or of another organization; a body that names a
//! missing resource is a bad request. [`ApiError::conflict`] is for a request that is valid in another state. A refusal of
//! the store goes through `api::refusal`, which knows the resource. A message never holds a secret, nor the inside of
//! the server.

mod oauth_error_code;
mod of_store;

use crate::{
    auth::{
        failure::{AuthenticationFailure, FailureCause},
        scope::Scope,
    },
    reason_link::ReasonLinks,
};
use axum::{
    Json,
    http::{
        HeaderName, HeaderValue, StatusCode,
        header::{RETRY_AFTER, WWW_AUTHENTICATE},
    },
    response::{IntoResponse, Response},
};
use jiff::Timestamp;
use serde::Serialize;
use std::{fmt::Display, time::Duration};
use wicketgate_model::{ApiAccountId, FrontdoorId, LocationId, QuotaKind};
use wicketgate_store::AuthenticationSubject;

pub(crate) use oauth_error_code::OAuthErrorCode;

/// For clients that can ask for a password or a token (RFC 7235 §4.1).
const CHALLENGE: &str = "Bearer realm=\"wicketgate\"";
const CHALLENGE_INVALID: &str = "Bearer realm=\"wicketgate\", error=\"invalid_token\"";
const CHALLENGE_EXPIRED: &str =
    "Bearer realm=\"wicketgate\", error=\"invalid_token\", error_description=\"The token has expired\"";
/// Seconds: most overloads and restarts are over by then.
pub(crate) const SOON: HeaderValue = HeaderValue::from_static("5");
/// Characters of a path that an error repeats: more than any path of the API has.
const SHOWN_PATH: usize = 200;

#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct ApiError {
    status: StatusCode,
    error: ErrorCode,
    message: String,
    details: Vec<PropertyFault>,
    /// A header that the status needs besides the body. Boxed, since few errors have one.
    header: Option<Box<(HeaderName, HeaderValue)>>,
    /// The failed authentication that it answers: an extension of the response, which `observe` records.
    failure: Option<AuthenticationFailure>,
}

/// One fault of a request. The message names the property too, so that it stands for itself.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub(crate) struct PropertyFault {
    pub(crate) property: String,
    pub(crate) message: String,
}

wicketgate_model::text_enum!(
    /// `error` of an error's body. A closed list: programs act on it.
    ErrorCode {
        /// The request breaks a rule of the API, which the message names with the property.
        InvalidRequest = "invalid_request",
        /// The request has no valid token.
        Unauthorized = "unauthorized",
        /// The session of the web console has ended: it was revoked, is too old, or was not used for an hour.
        SessionExpired = "session_expired",
        /// The token is valid, and does not allow the request.
        NotAuthorized = "not_authorized",
        /// A request with the cookie of the web console does not come from a page of it.
        CsrfTokenMissing = "csrf_token_missing",
        /// There is nothing at this path that the token may see.
        NotFound = "not_found",
        /// The path does not have this method.
        MethodNotAllowed = "method_not_allowed",
        /// The answer has no format that the client accepts.
        NotAcceptable = "not_acceptable",
        /// The body did not arrive in time.
        Timeout = "timeout",
        /// The request does not fit the present state of the resource, or of another one.
        Conflict = "conflict",
        /// The Frontdoor has as many resources of a kind as it may have, or its organization as many Frontdoors.
        QuotaExceeded = "quota_exceeded",
        /// The resource has changed: its ETag no longer matches If-Match.
        PreconditionFailed = "precondition_failed",
        /// The body has more bytes than the API reads.
        TooLarge = "too_large",
        /// The body is not declared as JSON.
        UnsupportedMediaType = "unsupported_media_type",
        /// More requests of this kind run, or were sent, than the server allows at a time.
        TooManyRequests = "too_many_requests",
        /// There is no such handover link or session of one, or it has ended.
        LinkInvalid = "link_invalid",
        /// The handover link has a passphrase, and the request does not.
        PassphraseRequired = "passphrase_required",
        /// The passphrase is not that of the handover link.
        PassphraseWrong = "passphrase_wrong",
        /// The gateway has not connected since the server started: what it alone knows is missing.
        GatewayNotConnected = "gateway_not_connected",
        /// A defect of the server, or of what it stores.
        Internal = "internal",
        /// The server cannot serve the request now: most often, its database does not answer.
        Unavailable = "unavailable",
    }
);

wicketgate_model::text_enum!(
    /// The resources that a path can name.
    ResourceKind {
        Agent = "Agent", ApiAccount = "API account", Enrollment = "Enrolment code", Environment = "Environment",
        Execution = "Execution", Gateway = "Gateway", HandoverLink = "Handover link", JoinToken = "Join token", Share = "IPsec share", Tunnel = "IPsec tunnel",
    }
);

impl ApiError {
    fn new(status: StatusCode, error: ErrorCode, message: impl Into<String>) -> Self {
        Self { status, error, message: message.into(), details: Vec::new(), header: None, failure: None }
    }

    pub(crate) fn bad_request(message: impl Into<String>) -> Self {
        Self::new(StatusCode::BAD_REQUEST, ErrorCode::InvalidRequest, message)
    }

    /// All that is wrong with a body.
    pub(crate) fn faults(faults: Vec<PropertyFault>) -> Self {
        let message = faults.iter().map(|f| f.message.as_str()).collect::<Vec<_>>().join("; ");
        let details = if faults.len() > 1 { faults } else { Vec::new() };
        Self { details, ..Self::bad_request(message) }
    }

    fn unauthorized(challenge: &'static str) -> Self {
        let error = Self::new(
            StatusCode::UNAUTHORIZED,
            ErrorCode::Unauthorized,
            "Bearer token is missing or invalid",
        );
        Self { header: Some(Box::new((WWW_AUTHENTICATE, HeaderValue::from_static(challenge)))), ..error }
    }

    pub(crate) fn token_missing() -> Self {
        Self::unauthorized(CHALLENGE)
    }

    pub(crate) fn token_invalid() -> Self {
        Self::unauthorized(CHALLENGE_INVALID).failing(FailureCause::TokenInvalid.into())
    }

    pub(crate) fn token_expired() -> Self {
        Self::unauthorized(CHALLENGE_EXPIRED).failing(FailureCause::TokenExpired.into())
    }

    /// The secret is right, so that its caller may know this. The message is that of every 401, by contract.
    pub(crate) fn account_expired(account: ApiAccountId, end: Timestamp) -> Self {
        let challenge = format!("{CHALLENGE_INVALID}, error_description=\"{}\"", account_expired(end));
        let challenge = HeaderValue::try_from(challenge).ok();
        let header = challenge.map(|challenge| Box::new((WWW_AUTHENTICATE, challenge)));
        let subject = Some(AuthenticationSubject::Account(account));
        let failure = AuthenticationFailure { cause: FailureCause::AccountExpired, subject };
        Self { header, ..Self::token_expired() }.failing(failure)
    }

    pub(crate) fn session_expired() -> Self {
        let message = "The session has ended: sign in again";
        Self {
            error: ErrorCode::SessionExpired,
            message: message.to_owned(),
            ..Self::unauthorized(CHALLENGE)
        }
        .failing(FailureCause::SessionEnded.into())
    }

    pub(crate) fn csrf(message: impl Into<String>) -> Self {
        let error = Self::new(StatusCode::FORBIDDEN, ErrorCode::CsrfTokenMissing, message);
        error.failing(FailureCause::CsrfTokenMissing.into())
    }

    pub(crate) fn frontdoor_not_found(id: impl Display) -> Self {
        Self::new(StatusCode::FORBIDDEN, ErrorCode::NotFound, format!("Frontdoor {id} not found"))
    }

    pub(crate) fn shares_not_enabled(id: FrontdoorId) -> Self {
        Self::not_authorized(format!(
            "IPsec shares are not enabled for the Frontdoor {id}. An administrator can enable them; its tunnels and shares can be deleted"
        ))
    }

    /// A genuine token of the identity provider.
    pub(crate) fn no_organization() -> Self {
        Self::not_authorized("The token names no organization").failing(FailureCause::NoOrganization.into())
    }

    pub(crate) fn not_authorized(message: impl Into<String>) -> Self {
        Self::new(StatusCode::FORBIDDEN, ErrorCode::NotAuthorized, message)
    }

    /// The token is valid and lacks a scope. The challenge names it (RFC 6750 §3.1).
    pub(crate) fn lacks_scope(scope: Scope) -> Self {
        let error = Self::not_authorized(format!("The token lacks the scope {scope}"));
        let challenge = format!("{CHALLENGE}, error=\"insufficient_scope\", scope=\"{scope}\"");
        let challenge = HeaderValue::try_from(challenge).ok();
        Self { header: challenge.map(|challenge| Box::new((WWW_AUTHENTICATE, challenge))), ..error }
    }

    pub(crate) fn not_found(kind: ResourceKind, id: impl Display) -> Self {
        Self::new(StatusCode::NOT_FOUND, ErrorCode::NotFound, format!("{kind} {id} not found"))
    }

    pub(crate) fn no_such_path(path: &str) -> Self {
        let message = format!("There is nothing at {}", shown(path));
        Self::new(StatusCode::NOT_FOUND, ErrorCode::NotFound, message)
    }

    pub(crate) fn no_such_reason(name: &str) -> Self {
        let message = format!("There is no reason {}; see {}", shown(name), crate::reason_link::PATH);
        Self::new(StatusCode::NOT_FOUND, ErrorCode::NotFound, message)
    }

    pub(crate) fn no_such_method(path: &str) -> Self {
        Self::new(
            StatusCode::METHOD_NOT_ALLOWED,
            ErrorCode::MethodNotAllowed,
            format!("{} does not know this method; see the Allow header", shown(path)),
        )
    }

    pub(crate) fn not_acceptable() -> Self {
        Self::new(
            StatusCode::NOT_ACCEPTABLE,
            ErrorCode::NotAcceptable,
            "Accept must admit application/json or application/hal+json",
        )
    }

    pub(crate) fn conflict(message: impl Into<String>) -> Self {
        Self::new(StatusCode::CONFLICT, ErrorCode::Conflict, message)
    }

    /// There is no room for another one.
    fn quota_exceeded(frontdoor: Option<FrontdoorId>, kind: QuotaKind, limit: u32, used: u64) -> Self {
        let whose = frontdoor.map_or("the organization".to_owned(), |id| format!("the Frontdoor {id}"));
        let relief = match kind {
            QuotaKind::EnrollmentCodes => {
                "Use one, revoke one, wait until one expires, an hour after it was made,"
            }
            QuotaKind::Agents | QuotaKind::Environments => {
                "Delete some that are not needed, wait until unused enrolment codes expire, an hour after they were made,"
            }
            _ => "Delete some that are not needed,",
        };
        let message = format!(
            "The quota {kind} of {whose} is used up: limit {limit}, in use {used}. {relief} or ask the operator to raise the \
             quota"
        );
        Self::new(StatusCode::CONFLICT, ErrorCode::QuotaExceeded, message)
    }

    /// An organization has its part of the tunnels that a location's gateways hold.
    fn location_share(location: &LocationId, limit: u64, used: u64) -> Self {
        let message = format!(
            "The organization's part of the tunnels at location {location} is used up: limit {limit}, in use {used}. It is half of what \
             the gateways there hold, since others use them, too. Delete some that are not needed, or ask the operator for another \
             gateway"
        );
        Self::new(StatusCode::CONFLICT, ErrorCode::QuotaExceeded, message)
    }

    pub(crate) fn precondition_failed(message: impl Into<String>) -> Self {
        Self::new(StatusCode::PRECONDITION_FAILED, ErrorCode::PreconditionFailed, message)
    }

    pub(crate) fn too_large(limit: usize) -> Self {
        Self::new(
            StatusCode::PAYLOAD_TOO_LARGE,
            ErrorCode::TooLarge,
            format!("The body must not have more than {limit} bytes"),
        )
    }

    pub(crate) fn too_slow() -> Self {
        Self::new(StatusCode::REQUEST_TIMEOUT, ErrorCode::Timeout, "The body did not arrive in time")
    }

    pub(crate) fn not_json() -> Self {
        Self::new(
            StatusCode::UNSUPPORTED_MEDIA_TYPE,
            ErrorCode::UnsupportedMediaType,
            "Content-Type must be application/json",
        )
    }

    /// A request that panicked; its id is in the log too.
    pub(crate) fn internal(subject: impl Display) -> Self {
        let message = format!("Internal error; see the server log for {subject}");
        Self::new(StatusCode::INTERNAL_SERVER_ERROR, ErrorCode::Internal, message)
    }

    /// It answers this failed authentication.
    pub(crate) fn failing(self, failure: AuthenticationFailure) -> Self {
        Self { failure: Some(failure), ..self }
    }

    /// If it answers a failed authentication, then the one that is known to the caller.
    pub(crate) fn failing_as(self, known: Option<AuthenticationFailure>) -> Self {
        Self { failure: self.failure.map(|failure| known.unwrap_or(failure)), ..self }
    }

    /// Whether the caller can be at fault, and not the server alone.
    pub(crate) fn is_of_caller(&self) -> bool {
        !self.status.is_server_error()
    }

    /// Too many requests at one time: the caller may retry later.
    pub(crate) fn too_many_requests(message: impl Into<String>) -> Self {
        let error = Self::new(StatusCode::TOO_MANY_REQUESTS, ErrorCode::TooManyRequests, message);
        Self { header: Some(Box::new((RETRY_AFTER, SOON))), ..error }
    }

    /// As [`Self::too_many_requests`], for a caller that has to wait for some time.
    pub(crate) fn wait(message: impl Into<String>, time: Duration) -> Self {
        let seconds = HeaderValue::from(time.as_secs() + 1);
        Self { header: Some(Box::new((RETRY_AFTER, seconds))), ..Self::too_many_requests(message) }
    }

    /// The same for a link that is unknown, and for one that has ended in whatever way: a stranger learns nothing.
    pub(crate) fn link_invalid() -> Self {
        let message = "The link is not valid, or has expired, was used up or revoked: ask your provider for another one";
        let error = Self::new(StatusCode::FORBIDDEN, ErrorCode::LinkInvalid, message);
        error.failing(FailureCause::LinkInvalid.into())
    }

    pub(crate) fn passphrase_required() -> Self {
        Self::new(
            StatusCode::FORBIDDEN,
            ErrorCode::PassphraseRequired,
            "The link needs a passphrase, which your provider has",
        )
    }

    pub(crate) fn passphrase_wrong() -> Self {
        let error = Self::new(StatusCode::FORBIDDEN, ErrorCode::PassphraseWrong, "The passphrase is wrong");
        error.failing(FailureCause::PassphraseWrong.into())
    }

    pub(crate) fn gateway_not_connected() -> Self {
        let error = ErrorCode::GatewayNotConnected;
        let message =
            "The gateway has not connected yet, so that its address is not known: try again in some seconds";
        Self { error, ..Self::unavailable(message) }
    }

    /// `Retry-After` is added to it as to every 503.
    pub(crate) fn unavailable(message: impl Into<String>) -> Self {
        Self::new(StatusCode::SERVICE_UNAVAILABLE, ErrorCode::Unavailable, message)
    }
}

/// What the owner of an expired API account reads. It has no quotation mark, which would end it in a header.
pub(crate) fn account_expired(end: Timestamp) -> String {
    format!(
        "The API account expired at {}: ask an admin for another one (wicketgate account create)",
        in_seconds(end)
    )
}

/// A time as in a sentence.
pub(crate) fn in_seconds(time: Timestamp) -> impl Display {
    time.strftime("%Y-%m-%dT%H:%M:%SZ")
}

/// A sentence of the model, as an error message starts.
pub(crate) fn capitalized(sentence: &str) -> String {
    let mut letters = sentence.chars();
    letters.next().into_iter().flat_map(char::to_uppercase).chain(letters).collect()
}

fn shown(path: &str) -> String {
    path.chars().take(SHOWN_PATH).collect()
}

impl From<getrandom::Error> for ApiError {
    fn from(_: getrandom::Error) -> Self {
        Self::unavailable("The server could not generate random bytes; try again")
    }
}

#[derive(Serialize)]
struct Body<'a> {
    error: &'static str,
    message: &'a str,
    #[serde(skip_serializing_if = "<[_]>::is_empty")]
    details: &'a [PropertyFault],
    #[serde(rename = "_links")]
    links: ReasonLinks,
}

impl IntoResponse for ApiError {
    fn into_response(self) -> Response {
        let error = self.error.as_str();
        let body =
            Body { error, message: &self.message, details: &self.details, links: ReasonLinks::of(error) };
        let mut response = (self.status, Json(body)).into_response();
        response.headers_mut().extend(self.header.map(|header| *header));
        if let Some(failure) = self.failure {
            response.extensions_mut().insert(failure);
        }
        response
    }
}

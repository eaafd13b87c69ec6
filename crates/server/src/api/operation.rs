//! What the router and the OpenAPI document know of an operation.

use super::wire::property::Property;
use crate::state::AppState;
use axum::routing::MethodRouter;

pub(super) struct Operation {
    pub(super) method: &'static str,
    pub(super) path: &'static str,
    pub(super) route: fn() -> MethodRouter<AppState>,
    pub(super) id: &'static str,
    pub(super) tag: &'static str,
    pub(super) summary: &'static str,
    pub(super) access: Access,
    pub(super) parameters: Parameters,
    /// The schema of the body, and whether the body is required.
    pub(super) body: Option<(&'static str, bool)>,
    /// Answers of success: the status, and a schema, `text`, `html`, `page`, `index`, `any`, `events` or nothing.
    pub(super) answers: &'static [(u16, &'static str)],
    /// Errors beside those that follow from the path, method, access and body.
    pub(super) errors: &'static [u16],
    pub(super) has_location: bool,
}

pub(super) enum Access {
    Public,
    /// The session of the web console.
    Session,
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

impl Operation {
    pub(super) const fn about(self, tag: &'static str, summary: &'static str) -> Self {
        Self { tag, summary, ..self }
    }

    pub(super) const fn with(self, parameters: Parameters) -> Self {
        Self { parameters, ..self }
    }

    pub(super) const fn body(self, schema: &'static str) -> Self {
        Self { body: Some((schema, true)), ..self }
    }

    pub(super) const fn maybe_body(self, schema: &'static str) -> Self {
        Self { body: Some((schema, false)), ..self }
    }

    pub(super) const fn answers(self, answers: &'static [(u16, &'static str)]) -> Self {
        Self { answers, ..self }
    }

    pub(super) const fn fails(self, errors: &'static [u16]) -> Self {
        Self { errors, ..self }
    }

    pub(super) const fn located(self) -> Self {
        Self { has_location: true, ..self }
    }
}

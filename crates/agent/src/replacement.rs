//! A new enrolment code replaces an identity that is of no use any more.
//!
//! A code that the agent's identity was not made with is a request to enrol again. An identity that works is
//! kept all the same: a code may have been left in a setting. Nothing that a device on the path can do takes an identity away:
//! it is given up only after the word of a peer that has proved to be the identity's own gateway, or a gateway of the server
//! that the code names.

use crate::{
    route::Route,
    state::{State, StateDir},
};
use jiff::Timestamp;
use std::time::Duration;
use tokio::time::timeout;
use tracing::{info, warn};
use wicketgate_transport::{
    control::{FromAgent, ToAgent},
    enrolment_code::EnrolmentCode,
    tls::{Diagnosis, connect_enrol},
};

/// For two connections. A gateway that does not answer in time refuses nothing: the identity is kept.
const ASKED_WITHIN: Duration = Duration::from_secs(30);

/// The state, or its directory without an identity if the gateway refuses that for good.
pub(crate) async fn unless_refused(
    state: State,
    code: &EnrolmentCode,
    route: &Route,
) -> anyhow::Result<Result<State, StateDir>> {
    let asked = async { if state.is_of(code) { None } else { refusal(&state, code, route).await } };
    match timeout(ASKED_WITHIN, asked).await.ok().flatten() {
        Some(why) => {
            warn!(server = %route.server, agent.id = %state.agent(), why, "the identity is refused: the new enrolment code replaces it");
            state.forget().map(Err)
        }
        None => {
            info!(agent.id = %state.agent(), "the identity in the state directory is used, and the enrolment code is not");
            Ok(Ok(state))
        }
    }
}

/// Why the identity is refused for good; `None`: it is not, or this is not known.
async fn refusal(state: &State, code: &EnrolmentCode, route: &Route) -> Option<&'static str> {
    let tls = state.tls().ok()?;
    let mut control = match route.handshake(tls.connect_control(route.connect().await.ok()?)).await {
        Ok(control) => control,
        // Of another authority than the identity's, which anyone may be: the code's authority decides.
        Err(failed) if matches!(failed.diagnosis, Some(Diagnosis::Stranger)) => {
            let tcp = route.connect().await.ok()?;
            let proved = route.handshake(connect_enrol(code.ca(), tcp)).await.is_ok();
            return proved.then_some("it is of another server than the code");
        }
        Err(_) => return None,
    };
    control.send(&FromAgent::Check).await.ok()?;
    match control.receive().await {
        Ok(ToAgent::Removed) => Some("the agent was removed"),
        Ok(ToAgent::Unknown) => Some("the server does not know the agent"),
        Ok(_) => None,
        // With TLS 1.3, a certificate is rejected behind the handshake.
        Err(error) => match error.diagnosis() {
            Some(Diagnosis::Refused) => Some("the gateway rejects its certificate"),
            Some(Diagnosis::Expired) if Timestamp::now() >= state.expires_at() => {
                Some("its certificate has expired")
            }
            _ => None,
        },
    }
}

//! A new enrolment code replaces an identity that is of no use any more.
//!
//! A code that the agent's identity was not made with is a request to enrol again. An identity that works is
//! kept all the same: a code may have been left in a setting. Nothing that a device on the path can do takes an identity away:
//! it is given up only after the word of a peer that has proved to be the identity's own gateway, or a gateway of the server
//! that the code names.

use crate::{
    package::is_of_service,
    route::Route,
    state::{State, StateDir},
};
use jiff::Timestamp;
use std::time::Duration;
use tokio::time::timeout;
use tracing::{info, warn};
use wicketgate_transport::{
    code::EnrolmentCode,
    control::{FromAgent, ToAgent},
    tls::{Diagnosis, connect_enrol},
};

/// For two connections. A gateway that does not answer in time refuses nothing: the identity is kept.
const ASKED_WITHIN: Duration = Duration::from_secs(30);

/// What the gateway says of an identity.
enum Verdict {
    Works,
    /// For good.
    Refused(&'static str),
    /// It does not say, or was not reached.
    Unknown,
}

/// The state, or its directory without an identity if the gateway refuses that for good.
pub(crate) async fn unless_refused(
    state: State,
    code: &EnrolmentCode,
    route: &Route,
) -> anyhow::Result<Result<State, StateDir>> {
    let agent = state.agent();
    if state.is_of(code) {
        info!(agent.id = %agent, "the identity in the state directory was made with the enrolment code, which is used up");
        return Ok(Ok(state.with_used_code()));
    }
    match timeout(ASKED_WITHIN, verdict(&state, code, route)).await.unwrap_or(Verdict::Unknown) {
        Verdict::Refused(why) => {
            warn!(server = %route.server, agent.id = %agent, why, "the identity is refused: the new enrolment code replaces it, and its files are kept beside the new ones, as *.replaced");
            return state.forget().map(Err);
        }
        Verdict::Works => {
            // The identity serves all the same.
            if let Err(error) = state.supersede_code() {
                warn!(%error, dir = %state.path().display(), "cannot write to the state directory, so that the code's file stays: free space there, or make it writable");
            }
            let then = match is_of_service(state.path()) {
                true => "the service removes its file",
                false => "remove it from the settings",
            };
            info!(agent.id = %agent, then, "the identity in the state directory works, so that the new enrolment code is not used");
        }
        Verdict::Unknown => {
            info!(agent.id = %agent, "the identity in the state directory is used, and the enrolment code is not, unless the gateway refuses the identity at a later start");
        }
    }
    Ok(Ok(state))
}

async fn verdict(state: &State, code: &EnrolmentCode, route: &Route) -> Verdict {
    asked(state, code, route).await.unwrap_or(Verdict::Unknown)
}

async fn asked(state: &State, code: &EnrolmentCode, route: &Route) -> Option<Verdict> {
    let tls = state.tls().ok()?;
    let mut control = match route.handshake(tls.connect_control(route.connect().await.ok()?)).await {
        Ok(control) => control,
        // Of another authority than the identity's, which anyone may be: the code's authority decides.
        Err(failed) if matches!(failed.diagnosis, Some(Diagnosis::Stranger)) => {
            let tcp = route.connect().await.ok()?;
            let proved = route.handshake(connect_enrol(code.ca(), tcp)).await.is_ok();
            return proved.then_some(Verdict::Refused("it is of another server than the code"));
        }
        Err(_) => return None,
    };
    control.send(&FromAgent::Check).await.ok()?;
    match control.receive().await {
        Ok(ToAgent::Removed) => Some(Verdict::Refused("the agent was removed")),
        Ok(ToAgent::Unknown) => Some(Verdict::Refused("the server does not know the agent")),
        Ok(ToAgent::Welcome { .. }) => Some(Verdict::Works),
        Ok(_) => None,
        // With TLS 1.3, a certificate is rejected behind the handshake.
        Err(error) => match error.diagnosis() {
            Some(Diagnosis::Refused) => Some(Verdict::Refused("the gateway rejects its certificate")),
            Some(Diagnosis::Expired) if Timestamp::now() >= state.expires_at() => {
                Some(Verdict::Refused("its certificate has expired"))
            }
            _ => None,
        },
    }
}

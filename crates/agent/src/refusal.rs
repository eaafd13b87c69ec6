//! Why a gateway does not serve the agent, and what its operator does about it.

use crate::{clock::CURE, package::enrol_again, server_address::ServerAddress, state::State};
use anyhow::anyhow;
use jiff::Timestamp;
use std::net::IpAddr;
use wicketgate_system::program::LastingRefusal;
use wicketgate_transport::{control::ControlError, tls::Diagnosis};

/// The gateway serves another agent with this agent's identity.
#[derive(Debug, thiserror::Error)]
#[error(
    "another agent with this identity is connected, from {address} ({name}): the state directory was copied. Stop this agent, \
     empty {state_dir} and enrol it with a new code; or start it with --take-over, which ends the other one"
)]
pub(crate) struct Duplicate {
    pub(crate) address: IpAddr,
    pub(crate) name: String,
    pub(crate) state_dir: String,
}

/// The gateway does not serve this agent any more: no retry succeeds.
pub(crate) fn removed(server: &ServerAddress, state: &State) -> LastingRefusal {
    let environment = state.environment();
    let again = enrol_again(state.path(), environment);
    let code = if state.has_used_code() { ", and its enrolment code is used up" } else { "" };
    LastingRefusal(format!(
        "refused by {server}: this agent was removed from environment {environment}{code}. {again}"
    ))
}

/// The server does not know this agent. It may know it later: a database can be restored.
pub(crate) fn unknown(server: &ServerAddress, state: &State) -> anyhow::Error {
    let environment = state.environment();
    let again = enrol_again(state.path(), environment);
    anyhow!(
        "refused by {server}: the server does not know this agent of environment {environment}, so its database was \
         restored from a backup of before the enrolment: its operator can take it in with `wicketgate agent adopt {}`. {again}",
        state.agent()
    )
}

/// Explains why the gateway closed the connection right after the handshake. With TLS 1.3, a rejected client
/// certificate shows here, too.
pub(crate) fn rejected(error: ControlError, state: &State, now: Timestamp) -> anyhow::Error {
    let (expires_at, again) = (state.expires_at(), enrol_again(state.path(), state.environment()));
    match error.diagnosis() {
        Some(Diagnosis::Expired) if now < expires_at => anyhow!(
            "the gateway says that this agent's certificate is not valid at its time, and by the clock of this host it is valid \
             until {expires_at}: one of the two clocks is wrong. If it is this one, {CURE}"
        ),
        Some(Diagnosis::Expired) => {
            anyhow!("this agent's certificate has expired while it was offline. {again}")
        }
        Some(Diagnosis::Refused) => anyhow!("the gateway rejects this agent's certificate. {again}"),
        _ if error.is_hang_up() => anyhow!(
            "the gateway closed the connection: it is stopping, or this agent was removed. If this lasts, look for this agent in \
             `wicketgate agent list` on the server"
        ),
        _ => error.into(),
    }
}

//! TLS, identity and clock of an enrolled agent, and what the gateway has assigned to its environment.

use super::{
    handshake::{clock_by_certificate, tls},
    report::{CheckStep, NOT_REACHED, Report, fail, pass, skip},
};
use crate::{
    clock::{CURE, rounded, seconds_ahead},
    refusal::{rejected, removed, unknown},
    route::{NoHandshake, Route},
    state::State,
};
use anyhow::{Context, bail};
use jiff::Timestamp;
use std::time::Duration;
use tokio::{net::TcpStream, time::timeout};
use wicketgate_model::{GatewayId, SignedAssignment};
use wicketgate_transport::control::{Control, ControlError, FromAgent, SILENCE, ToAgent};

/// For all assignments of an environment with very many shares, over a slow line.
const ANSWER_WITHIN: Duration = Duration::from_secs(60);

pub(super) struct Answer {
    pub(super) gateway: GatewayId,
    pub(super) assignments: Vec<SignedAssignment>,
}

/// `None`: the gateway has not said what it has assigned.
pub(super) async fn ask(
    route: &Route,
    state: &State,
    tcp: Option<TcpStream>,
    report: &mut Report,
) -> Option<Answer> {
    let shaken = match (state.tls(), tcp) {
        (Ok(agent), Some(tcp)) => Some(route.handshake(agent.connect_named(tcp)).await),
        (Err(error), _) => Some(Err(NoHandshake { diagnosis: None, error })),
        (Ok(_), None) => None,
    };
    tls(route, shaken.as_ref(), report);
    let Some(Ok((gateway, control))) = shaken else {
        report.add(CheckStep::Identity, &state.agent(), skip(NOT_REACHED));
        clock_by_certificate(route, shaken.as_ref(), report);
        return None;
    };
    let asked = timeout(ANSWER_WITHIN, assigned(control, (route, state))).await;
    match asked.context("the gateway does not answer").flatten() {
        Ok((time, assignments)) => {
            let (environment, until) = (state.environment(), state.expires_at());
            let accepted =
                format!("accepted for environment {environment}; the certificate is renewed before {until}");
            report.add(CheckStep::Identity, &state.agent(), pass(accepted));
            let clock = match time.map(|server| seconds_ahead(Timestamp::now(), server)) {
                None => skip("the gateway does not tell its time"),
                Some(None) => pass("agrees with the server's"),
                Some(Some(ahead)) => {
                    let side = if ahead < 0 { "behind" } else { "ahead of" };
                    fail(format!("is {} {side} the server's: {CURE}", rounded(ahead.unsigned_abs())))
                }
            };
            report.add(CheckStep::Clock, "the clock of this host", clock);
            Some(Answer { gateway, assignments })
        }
        Err(error) => {
            report.add(CheckStep::Identity, &state.agent(), fail(format!("{error:#}")));
            report.add(CheckStep::Clock, "the clock of this host", skip(NOT_REACHED));
            None
        }
    }
}

/// The gateway's time and the assignments of the environment. The gateway closes the connection behind them.
async fn assigned(
    mut control: Control,
    (route, state): (&Route, &State),
) -> anyhow::Result<(Option<i64>, Vec<SignedAssignment>)> {
    let explain = |error| rejected(error, state, Timestamp::now());
    control.send(&FromAgent::Check).await.map_err(explain)?;
    let mut answer = None;
    loop {
        match timeout(SILENCE, control.receive()).await.context("the gateway does not answer")? {
            Ok(ToAgent::Welcome { time, .. }) => answer = Some((time, Vec::new())),
            Ok(ToAgent::Assign { assignments }) => {
                answer.get_or_insert_default().1.extend(assignments);
            }
            Ok(ToAgent::Removed) => bail!(removed(&route.server, state)),
            Ok(ToAgent::Unknown) => return Err(unknown(&route.server, state)),
            Ok(_) => {}
            Err(error) => match (error, answer) {
                (ControlError::Closed, Some(answer)) => return Ok(answer),
                (error, _) => return Err(explain(error).context("the gateway has not answered the check")),
            },
        }
    }
}

//! Enrolment: exchanges an enrolment code and a public key for a certificate.

use crate::{
    names::Names,
    server_address::{CONNECT_WITHIN, ServerAddress},
    state::{Enrolled, State, StateDir},
};
use anyhow::{Context, anyhow};
use jiff::Timestamp;
use std::{sync::Arc, time::Duration};
use tokio::time::{Instant, sleep, timeout};
use tracing::{info, warn};
use wicketgate_model::{EnrolGrant, EnrolRequest};
use wicketgate_system::backoff::Backoff;
use wicketgate_transport::{
    control::EnrolAnswer,
    enrolment_code::EnrolmentCode,
    tls::{Diagnosis, connect_enrol},
    trust::Fingerprint,
};

/// How long enrolment is retried: long enough for a server that starts at the same time, short enough to report a
/// wrong address to the operator.
const TRY_FOR: Duration = Duration::from_secs(120);
/// How often a failed attempt is logged.
const LOG_EVERY: Duration = Duration::from_secs(10);
const BACKOFF: (Duration, Duration) = (Duration::from_millis(50), Duration::from_secs(5));
/// For the server's answer: the gateway waits 10 s for it.
const ANSWER_WITHIN: Duration = Duration::from_secs(15);

enum Failure {
    /// A retry with the same code cannot succeed.
    Final(anyhow::Error),
    NotNow(anyhow::Error),
}

pub(crate) async fn enrol(
    (server, names): (&ServerAddress, &Arc<Names>),
    code: &EnrolmentCode,
    name: &str,
    dir: StateDir,
) -> anyhow::Result<State> {
    // Saved before it is used: if the answer is lost, a retry with the same key gets the same identity.
    let key = dir.key()?;
    let ask = EnrolRequest {
        enrollment: code.enrollment(),
        secret: code.secret().to_vec(),
        public_key: key.public_point(),
        name: name.to_owned(),
    };
    // Before the first attempt: resolving an unknown name takes a while.
    info!(%server, "enrolling");
    let mut backoff = Backoff::new(BACKOFF.0, BACKOFF.1);
    let started = Instant::now();
    let mut logged: Option<Instant> = None;
    loop {
        let error = match enrol_once((server, names), code, &ask).await {
            Ok(enrolled) => {
                let EnrolGrant { agent, environment, z_id, .. } = &enrolled.grant;
                info!(agent.id = %agent, environment.id = %environment, environment.z_id = %z_id, "agent enrolled");
                return dir.enrolled(enrolled);
            }
            Err(Failure::Final(error)) => return Err(error),
            Err(Failure::NotNow(error)) => error,
        };
        if started.elapsed() > TRY_FOR {
            return Err(error)
                .with_context(|| format!("could not enrol at {server} in {}s", TRY_FOR.as_secs()));
        }
        if logged.is_none_or(|at| at.elapsed() >= LOG_EVERY) {
            warn!(%server, error = format!("{error:#}"), "cannot enrol yet; retrying");
            logged = Some(Instant::now());
        }
        sleep(backoff.randomized()).await;
    }
}

async fn enrol_once(
    (server, names): (&ServerAddress, &Arc<Names>),
    code: &EnrolmentCode,
    ask: &EnrolRequest,
) -> Result<Enrolled, Failure> {
    let tcp = server.connect(names).await.context("cannot connect").map_err(Failure::NotNow)?;
    let address = tcp.peer_addr().ok();
    let mut control = timeout(CONNECT_WITHIN, connect_enrol(code.ca(), tcp))
        .await
        .map_err(|_| {
            server.avoid(names, address);
            Failure::NotNow(anyhow!("the TLS handshake timed out"))
        })?
        .map_err(|error| match error.diagnosis() {
            Some(Diagnosis::Stranger) => Failure::Final(anyhow!(
                "{server} is not the server that the enrolment code is from: check the address and the code"
            )),
            Some(Diagnosis::Clock { .. }) => Failure::Final(server.explain(error)),
            _ => Failure::NotNow(server.explain(error)),
        })?;
    let answer = async {
        control.send(ask).await?;
        control.receive().await
    };
    let answer = timeout(ANSWER_WITHIN, answer)
        .await
        .map_err(|_| Failure::NotNow(anyhow!("the server did not answer")))?
        .map_err(|e| Failure::NotNow(e.into()))?;
    match answer {
        // The code's id is in the server's log, and no secret.
        EnrolAnswer::Refused { refusal } => Err(Failure::Final(anyhow!("{refusal} ({})", ask.enrollment))),
        EnrolAnswer::Unavailable => Err(Failure::NotNow(anyhow!("the server cannot answer at the moment"))),
        EnrolAnswer::Enrolled(grant) => {
            // Assignments must be signed by the CA in the code, not by one that a gateway names.
            if Fingerprint::of(&grant.ca_certificate) != code.ca() {
                return Err(Failure::Final(anyhow!(
                    "the server has another CA than the one in the enrolment code"
                )));
            }
            Ok(Enrolled { grant, issued_at: Timestamp::now() })
        }
    }
}

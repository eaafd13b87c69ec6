//! Enrolment: exchanges an enrolment code and a public key for a certificate.

use crate::{
    retry_log::RetryLog,
    route::Route,
    state::{Enrolled, State, StateDir},
    status::{BOOTSTRAP, Status},
};
use anyhow::anyhow;
use jiff::Timestamp;
use std::time::Duration;
use tokio::time::{Instant, sleep, timeout};
use tracing::{info, warn};
use wicketgate_model::{EnrolGrant, EnrolRequest};
use wicketgate_system::{backoff::Backoff, program::LastingRefusal};
use wicketgate_transport::{
    code::EnrolmentCode,
    control::EnrolAnswer,
    tls::{Diagnosis, connect_enrol},
    trust::Fingerprint,
};

const BACKOFF: (Duration, Duration) = (Duration::from_millis(50), Duration::from_secs(5));
/// For the server's answer: the gateway waits 10 s for it.
const ANSWER_WITHIN: Duration = Duration::from_secs(15);

enum Failure {
    /// A retry with the same code cannot succeed.
    Final(anyhow::Error),
    NotNow(anyhow::Error),
}

/// Retries until it is dropped while the server cannot be reached: a service waits for its network, and does not give up on
/// it. The server's refusal is final.
pub(crate) async fn enrol(
    route: &Route,
    code: &EnrolmentCode,
    name: &str,
    dir: StateDir,
    status: &Status,
) -> anyhow::Result<State> {
    // Saved before it is used: if the answer is lost, a retry with the same key gets the same identity.
    let key = dir.key()?;
    let ask = EnrolRequest {
        enrollment: code.id(),
        secret: code.secret().to_vec(),
        public_key: key.public_point(),
        name: name.to_owned(),
    };
    // Before the first attempt: resolving an unknown name takes a while.
    let server = &route.server;
    info!(%server, proxy = route.proxy.as_ref().ok().map(tracing::field::display), "enrolling");
    let mut backoff = Backoff::new(BACKOFF.0, BACKOFF.1);
    let mut log = RetryLog::default();
    loop {
        let error = match enrol_once(route, code, &ask).await {
            Ok(enrolled) => {
                let EnrolGrant { agent, environment, z_id, .. } = &enrolled.grant;
                info!(agent.id = %agent, environment.id = %environment, environment.z_id = %z_id, "agent enrolled");
                return dir.enrolled(enrolled);
            }
            Err(Failure::Final(error)) => return Err(error),
            Err(Failure::NotNow(error)) => error,
        };
        let error = format!("{error:#}");
        status.failed(BOOTSTRAP, &error);
        if log.is_news(&error, Instant::now()) {
            warn!(%server, error, "cannot enrol yet; retrying until the agent stops");
        }
        sleep(backoff.randomized()).await;
    }
}

async fn enrol_once(route: &Route, code: &EnrolmentCode, ask: &EnrolRequest) -> Result<Enrolled, Failure> {
    let tcp = route.connect().await.map_err(|e| Failure::NotNow(e.into()))?;
    let address = tcp.peer_addr().ok();
    let mut control = route.handshake(connect_enrol(code.ca(), tcp)).await.map_err(|failed| {
        route.avoid(address);
        match failed.diagnosis {
            Some(Diagnosis::Stranger | Diagnosis::Clock { .. }) => Failure::Final(failed.error),
            _ => Failure::NotNow(failed.error),
        }
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
        EnrolAnswer::Refused { refusal } => {
            let refused = format!("refused by {}: {refusal} ({})", route.server, ask.enrollment);
            Err(Failure::Final(LastingRefusal(refused).into()))
        }
        EnrolAnswer::Unavailable => Err(Failure::NotNow(anyhow!("the server cannot answer at the moment"))),
        EnrolAnswer::Enrolled(grant) => {
            // Assignments must be signed by the CA in the code, not by one that a gateway names.
            if Fingerprint::of(&grant.ca_certificate) != code.ca() {
                return Err(Failure::Final(anyhow!(
                    "the server has another CA than the one in the enrolment code"
                )));
            }
            Ok(Enrolled { grant, issued_at: Timestamp::now(), enrollment: Some(ask.enrollment) })
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{names::Names, proxy::Straight};
    use std::sync::Arc;
    use uuid::Uuid;
    use wicketgate_model::EnrollmentId;

    /// Longer than a gateway's restart or a line's outage.
    const LONG: Duration = Duration::from_secs(3600);

    #[tokio::test(start_paused = true)]
    async fn an_agent_that_does_not_reach_its_server_goes_on_trying() {
        let closed = std::net::TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap();
        let route = Route {
            server: format!("https://{closed}").parse().unwrap(),
            proxy: Err(Straight::NotSet),
            names: Arc::new(Names::default()),
        };
        let code = EnrolmentCode::generate(EnrollmentId::new(Uuid::nil()), Fingerprint::of(b"ca")).unwrap();
        let dir = tempfile::tempdir().unwrap();
        let dir = StateDir::lock(&dir.path().join("state")).unwrap();
        let ended = timeout(LONG, enrol(&route, &code, "agent", dir, &Status::new("gw".into()))).await;
        assert!(ended.is_err(), "{:#}", ended.unwrap().err().unwrap());
    }
}

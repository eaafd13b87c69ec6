//! Issues certificates to agents, over the link of their gateway.
//!
//! Invariants: a certificate's identity is read from the database, and its key is the one that the agent enrolled
//! with, so that a compromised gateway can't obtain a certificate for another key; a bounded number of requests is
//! answered at a time, and nothing else waits for them.

use std::{
    net::IpAddr,
    sync::Arc,
    time::{Duration, Instant},
};

use jiff::Timestamp;
use sha2::{Digest, Sha256};
use tokio::{sync::mpsc, task::JoinSet};
use tracing::{debug, info, warn};
use uuid::Uuid;
use wicketgate_authority::Ca;
use wicketgate_link::{CertificateAnswer, RenewRequest, RequestId, ToGateway};
use wicketgate_model::{EnrolGrant, EnrolRefusal, EnrolRequest, EnrollmentId, ZId};
use wicketgate_store::{
    AuthenticationSubject, EnrolAttempt, EnrolledAgent, RequestOrigin, Store, WriteContext,
};
use wicketgate_system::Mutex;
use wicketgate_transport::identity::{AgentIdentity, Identity};

use super::SharedView;
use crate::{
    auth::failure::{AuthenticationFailure, FailureCause},
    authentication_failures::AuthenticationFailures,
};

/// Requests of each kind that are answered at the same time: more than the database can write at once.
const AT_ONCE: usize = 16;

/// Anyone can invent codes: of refused ones that may be invented, the log has one in this time.
const INVENTED_LOGGED_EVERY: Duration = Duration::from_secs(1);

/// Answers requests for certificates in tasks of its own, which end when it is dropped.
#[derive(Debug)]
pub(super) struct CertificateDesk {
    issuer: Issuer,
    send: mpsc::Sender<ToGateway>,
    view: Arc<SharedView>,
    /// Separate from renewals: anyone can request an enrolment, which must not delay them.
    enrolments: JoinSet<()>,
    renewals: JoinSet<()>,
}

#[derive(Debug, Clone)]
struct Issuer {
    store: Store,
    ca: Arc<Ca>,
    failures: Arc<AuthenticationFailures>,
    /// When a code that may be invented was last logged.
    invented_logged: Arc<Mutex<Option<Instant>>>,
}

impl CertificateDesk {
    /// `view`: of the gateway, whose reconciler tells it of agents that have enrolled.
    pub(super) fn new(
        store: Store,
        (ca, failures): (Arc<Ca>, Arc<AuthenticationFailures>),
        view: Arc<SharedView>,
        send: mpsc::Sender<ToGateway>,
    ) -> Self {
        let issuer = Issuer { store, ca, failures, invented_logged: Arc::default() };
        Self { issuer, send, view, enrolments: JoinSet::new(), renewals: JoinSet::new() }
    }

    pub(super) fn enrol(&mut self, request: RequestId, ask: EnrolRequest, source: Option<IpAddr>) {
        let (issuer, view) = (self.issuer.clone(), Arc::clone(&self.view));
        let work = async move {
            let answer = answer("could not enrol an agent", issuer.enrol(ask, source).await);
            // The agent connects at once, and the gateway serves none that it was not told of. An invented code does not wake
            // the reconciler.
            if matches!(answer, CertificateAnswer::Granted(_)) {
                view.wake();
            }
            answer
        };
        let message = move |answer| ToGateway::Enrolled { request, answer };
        begin(&mut self.enrolments, &self.send, work, message);
    }

    pub(super) fn renew(&mut self, request: RequestId, ask: RenewRequest) {
        let issuer = self.issuer.clone();
        let work = async move { answer("could not renew an agent's certificate", issuer.renew(&ask).await) };
        let message = move |answer| ToGateway::Renewed { request, answer };
        begin(&mut self.renewals, &self.send, work, message);
    }
}

/// Sends the result of `work` as a `message`; that it is unavailable, if too many requests are being answered.
fn begin<T: Send>(
    tasks: &mut JoinSet<()>,
    send: &mpsc::Sender<ToGateway>,
    work: impl Future<Output = CertificateAnswer<T>> + Send + 'static,
    message: impl FnOnce(CertificateAnswer<T>) -> ToGateway + Send + 'static,
) {
    while tasks.try_join_next().is_some() {}
    if tasks.len() >= AT_ONCE {
        debug!("too many requests for certificates: one has to be repeated");
        // If the link is full, the gateway's own bound ends the wait.
        let _ = send.try_send(message(CertificateAnswer::Unavailable));
        return;
    }
    let send = send.clone();
    tasks.spawn(async move {
        let _ = send.send(message(work.await)).await;
    });
}

/// The server's log has the cause of a failure; the agent repeats its request.
fn answer<T>(failure: &'static str, result: anyhow::Result<Result<T, EnrolRefusal>>) -> CertificateAnswer<T> {
    match result {
        Ok(Ok(granted)) => CertificateAnswer::Granted(granted),
        Ok(Err(refusal)) => CertificateAnswer::Refused(refusal),
        Err(error) => {
            warn!(error = format!("{error:#}"), "{failure}");
            CertificateAnswer::Unavailable
        }
    }
}

impl Issuer {
    async fn enrol(
        &self,
        request: EnrolRequest,
        source: Option<IpAddr>,
    ) -> anyhow::Result<Result<EnrolGrant, EnrolRefusal>> {
        let now = Timestamp::now();
        let mut random = [0; 10];
        getrandom::fill(&mut random)?;
        let attempt = EnrolAttempt {
            enrollment: request.enrollment,
            secret_sha256: Sha256::digest(&request.secret).into(),
            public_key_sha256: Sha256::digest(&request.public_key).into(),
            name: request.name,
            z_id: ZId::from_random(random),
        };
        let origin = RequestOrigin { address: source, request_id: None };
        let context = WriteContext::new(format!("enrollment {}", request.enrollment), now, Uuid::now_v7)
            .of_request(origin.clone());
        let answer = match self.store.enrol(&attempt, &context).await {
            Err(wicketgate_store::StoreError::NoFrontdoor(_)) => Err(EnrolRefusal::WrongCode),
            answer => answer?,
        };
        let EnrolledAgent { agent, environment, frontdoor, z_id } = match answer {
            Ok(enrolled) => enrolled,
            Err(refusal) => {
                if refusal != EnrolRefusal::WrongCode || self.is_logged() {
                    let source = source.map(tracing::field::display);
                    warn!(enrollment.id = %request.enrollment, source, cause = %refusal, "an agent's enrolment is refused");
                }
                self.count(request.enrollment, refusal, &origin).await?;
                return Ok(Err(refusal));
            }
        };
        info!(agent.id = %agent, environment.id = %environment, "agent enrolled");
        let identity = Identity::Agent(AgentIdentity { frontdoor, environment, agent });
        Ok(Ok(EnrolGrant {
            agent,
            environment,
            frontdoor,
            z_id,
            certificate: self.ca.issue(&identity, &request.public_key, now)?,
            ca_certificate: self.ca.certificate().der().to_vec(),
        }))
    }

    /// For the record, if there is such a code.
    async fn count(
        &self,
        code: EnrollmentId,
        refusal: EnrolRefusal,
        origin: &RequestOrigin,
    ) -> anyhow::Result<()> {
        let cause = match refusal {
            EnrolRefusal::WrongCode => FailureCause::CodeWrong,
            EnrolRefusal::Used => FailureCause::CodeUsed,
            EnrolRefusal::Expired => FailureCause::CodeExpired,
            EnrolRefusal::TooManyTries => FailureCause::CodeTried,
            // By the agent that has used it.
            EnrolRefusal::Barred => return Ok(()),
        };
        if let Some(frontdoor) = self.store.enrollment_frontdoor(code).await? {
            let subject = Some(AuthenticationSubject::Code(frontdoor, code));
            self.failures.add(AuthenticationFailure { cause, subject }, origin);
        }
        Ok(())
    }

    /// Whether this refusal of a code that may be invented is logged.
    fn is_logged(&self) -> bool {
        let (mut last, now) = (self.invented_logged.lock(), Instant::now());
        let is_due = last.is_none_or(|last| now.duration_since(last) >= INVENTED_LOGGED_EVERY);
        if is_due {
            *last = Some(now);
        }
        is_due
    }

    async fn renew(&self, request: &RenewRequest) -> anyhow::Result<Result<Vec<u8>, EnrolRefusal>> {
        let RenewRequest { agent, ref public_key } = *request;
        let key = Sha256::digest(public_key).into();
        let Some((frontdoor, environment)) = self.store.agent_with_key(agent, &key).await? else {
            return Ok(Err(EnrolRefusal::Barred));
        };
        let identity = Identity::Agent(AgentIdentity { frontdoor, environment, agent });
        info!(agent.id = %agent, "agent's certificate renewed");
        Ok(Ok(self.ca.issue(&identity, public_key, Timestamp::now())?))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use jiff::ToSpan as _;
    use tokio::time::timeout;
    use wicketgate_link::Pending;
    use wicketgate_model::{AgentId, FrontdoorId};
    use wicketgate_store::{Action, FrontdoorSpec, ListRequest, NewEnrollment, SecretKeyFile};
    use wicketgate_transport::key::PrivateKey;

    /// The longest wait for an answer.
    const SOON: Duration = Duration::from_secs(20);

    struct Bench {
        _dir: tempfile::TempDir,
        desk: CertificateDesk,
        answers: mpsc::Receiver<ToGateway>,
        enrollment: EnrollmentId,
        frontdoor: FrontdoorId,
        store: Store,
        failures: Arc<AuthenticationFailures>,
    }

    impl Bench {
        async fn new() -> Self {
            let dir = tempfile::tempdir().unwrap();
            let store = Store::open(
                &dir.path().join("db").display().to_string(),
                &SecretKeyFile::created_at(dir.path().join("secret-key")),
            )
            .await
            .unwrap();
            let now = Timestamp::now();
            let ca = Arc::new(Ca::generate(now).unwrap());
            let act = WriteContext::new("test", now, Uuid::now_v7);
            let spec = FrontdoorSpec {
                organization: "default".into(),
                default_namespace: "default".parse().unwrap(),
                ipsec_shares_enabled: true,
                quotas: Default::default(),
            };
            let frontdoor = store.create_frontdoor(&spec, &act).await.unwrap().id;
            let enrollment = EnrollmentId::new(Uuid::now_v7());
            let secret_sha256 = Sha256::digest(b"secret").into();
            let new = NewEnrollment {
                id: enrollment,
                environment: None,
                secret_sha256,
                expires_at: now + 1.hour(),
            };
            store.create_enrollment(frontdoor, &new, &act).await.unwrap();
            let (send, answers) = mpsc::channel(4);
            let failures = Arc::new(AuthenticationFailures::default());
            Self {
                _dir: dir,
                desk: CertificateDesk::new(
                    store.clone(),
                    (ca, Arc::clone(&failures)),
                    SharedView::new(Timestamp::now()),
                    send,
                ),
                answers,
                enrollment,
                frontdoor,
                store,
                failures,
            }
        }

        async fn enrol(&mut self, key: &PrivateKey) -> CertificateAnswer<EnrolGrant> {
            let ask = EnrolRequest {
                enrollment: self.enrollment,
                secret: b"secret".to_vec(),
                public_key: key.public_point(),
                name: "dc-1".into(),
            };
            let asked = request();
            self.desk.enrol(asked, ask, Some([192, 0, 2, 9].into()));
            match timeout(SOON, self.answers.recv()).await.unwrap().unwrap() {
                ToGateway::Enrolled { request, answer } if request == asked => answer,
                other => panic!("{other:?}"),
            }
        }

        async fn renew(&mut self, agent: AgentId, key: &PrivateKey) -> CertificateAnswer<Vec<u8>> {
            let asked = request();
            self.desk.renew(asked, RenewRequest { agent, public_key: key.public_point() });
            match timeout(SOON, self.answers.recv()).await.unwrap().unwrap() {
                ToGateway::Renewed { request, answer } if request == asked => answer,
                other => panic!("{other:?}"),
            }
        }
    }

    fn request() -> RequestId {
        Pending::<()>::new(1).call().unwrap().id()
    }

    const BARRED: CertificateAnswer<Vec<u8>> = CertificateAnswer::Refused(EnrolRefusal::Barred);

    #[tokio::test]
    async fn a_certificate_is_renewed_for_the_enrolled_key_only() {
        let mut bench = Bench::new().await;
        let (key, another) = (PrivateKey::generate().unwrap(), PrivateKey::generate().unwrap());
        let CertificateAnswer::Granted(grant) = bench.enrol(&key).await else {
            panic!("expected a certificate")
        };
        assert!(matches!(bench.renew(grant.agent, &key).await, CertificateAnswer::Granted(_)));
        // A compromised gateway requests a certificate in the agent's name, for another key.
        assert_eq!(bench.renew(grant.agent, &another).await, BARRED);
        assert_eq!(bench.renew(AgentId::new(Uuid::now_v7()), &key).await, BARRED);
    }

    #[tokio::test]
    async fn refused_enrolments_of_a_known_code_are_recorded() {
        let mut bench = Bench::new().await;
        let (key, another) = (PrivateKey::generate().unwrap(), PrivateKey::generate().unwrap());
        assert!(matches!(bench.enrol(&key).await, CertificateAnswer::Granted(_)));
        assert_eq!(bench.enrol(&another).await, CertificateAnswer::Refused(EnrolRefusal::Used));
        let known = bench.enrollment;
        bench.enrollment = EnrollmentId::new(Uuid::now_v7());
        assert_eq!(bench.enrol(&another).await, CertificateAnswer::Refused(EnrolRefusal::WrongCode));
        bench.failures.record_now(None, &bench.store).await;
        let rows = bench.store.executions(bench.frontdoor, &ListRequest::default()).await.unwrap().rows;
        let failed: Vec<_> = rows.iter().filter(|row| row.action == Action::Authenticate).collect();
        let [failed] = failed[..] else { panic!("{failed:?}") };
        assert_eq!(failed.resource, known.to_string());
        assert_eq!(failed.message.as_deref(), Some("an agent's enrolment code was used already"));
        assert_eq!(failed.source_address, Some([192, 0, 2, 9].into()));
    }

    #[tokio::test]
    async fn a_request_above_the_limit_gets_unavailable() {
        let mut bench = Bench::new().await;
        for _ in 0..AT_ONCE {
            bench.desk.enrolments.spawn(std::future::pending());
        }
        let key = PrivateKey::generate().unwrap();
        assert_eq!(bench.enrol(&key).await, CertificateAnswer::Unavailable);
        // Renewals are still answered.
        assert_eq!(bench.renew(AgentId::new(Uuid::now_v7()), &key).await, BARRED);
    }
}

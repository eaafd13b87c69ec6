//! Certificates for agents: who asks for one, and whether they get it.
//!
//! Invariants: a certificate's identity is read from the database, and its key is the one that the agent enrolled
//! with, so that a gateway that was broken into gets a certificate for nobody else; however many ask, only so many
//! are being answered, and nothing else waits for them.

use std::sync::Arc;

use jiff::Timestamp;
use sha2::{Digest, Sha256};
use tokio::task::JoinSet;
use tracing::{debug, info, warn};
use uuid::Uuid;
use wicketgate_authority::Ca;
use wicketgate_link::{EnrolGrant, EnrolRequest, FromGateway, RenewRequest};
use wicketgate_model::{EnrolRefusal, ZId};
use wicketgate_store::{EnrolAttempt, EnrolledAgent, Store, WriteContext};
use wicketgate_transport::identity::{AgentIdentity, Identity};

/// Of either kind, being answered at once: more than the database can write at a time.
const AT_ONCE: usize = 16;

/// Answers requests for certificates beside the link. Dropped, it answers no more.
#[derive(Debug)]
pub(super) struct Desk {
    issuer: Issuer,
    /// Apart, since anybody can ask to enrol: renewals are not kept waiting by that.
    enrolments: JoinSet<()>,
    renewals: JoinSet<()>,
}

#[derive(Debug, Clone)]
struct Issuer {
    store: Store,
    ca: Arc<Ca>,
}

impl Desk {
    pub(super) fn new(store: Store, ca: Arc<Ca>) -> Self {
        let issuer = Issuer { store, ca };
        Self { issuer, enrolments: JoinSet::new(), renewals: JoinSet::new() }
    }

    /// Takes a request for a certificate; any other message comes back. A reply that is dropped tells the agent to
    /// try again: the reason is in this side's log.
    pub(super) fn take(&mut self, message: FromGateway) -> Option<FromGateway> {
        let issuer = self.issuer.clone();
        match message {
            FromGateway::Enrol(request, reply) => begin(&mut self.enrolments, async move {
                match issuer.enrol(request).await {
                    Ok(answer) => drop(reply.send(answer)),
                    Err(error) => warn!(error = format!("{error:#}"), "could not enrol an agent"),
                }
            }),
            FromGateway::Renew(request, reply) => begin(&mut self.renewals, async move {
                match issuer.renew(&request).await {
                    Ok(answer) => drop(reply.send(answer)),
                    Err(error) => {
                        warn!(error = format!("{error:#}"), "could not renew an agent's certificate");
                    }
                }
            }),
            other => return Some(other),
        }
        None
    }
}

fn begin(tasks: &mut JoinSet<()>, answer: impl Future<Output = ()> + Send + 'static) {
    while tasks.try_join_next().is_some() {}
    if tasks.len() < AT_ONCE {
        tasks.spawn(answer);
    } else {
        debug!("too many ask for certificates: one has to ask again");
    }
}

impl Issuer {
    async fn enrol(&self, request: EnrolRequest) -> anyhow::Result<Result<EnrolGrant, EnrolRefusal>> {
        let now = Timestamp::now();
        let mut random = [0; 10];
        getrandom::fill(&mut random)?;
        let asked = EnrolAttempt {
            enrollment: request.enrollment,
            secret_sha256: Sha256::digest(&request.secret).into(),
            public_key_sha256: Sha256::digest(&request.public_key).into(),
            name: request.name,
            z_id: ZId::from_random(random),
        };
        let act = WriteContext::new(format!("enrollment {}", request.enrollment), now, Uuid::now_v7);
        let answer = match self.store.enrol(&asked, &act).await {
            Err(wicketgate_store::StoreError::NoFrontdoor(_)) => Err(EnrolRefusal::WrongCode),
            answer => answer?,
        };
        let EnrolledAgent { agent, environment, frontdoor, z_id } = match answer {
            Ok(enrolled) => enrolled,
            Err(refusal) => {
                // Anybody can make one up.
                if refusal == EnrolRefusal::WrongCode {
                    debug!(enrollment.id = %request.enrollment, ?refusal, "enrolment refused");
                } else {
                    info!(enrollment.id = %request.enrollment, ?refusal, "enrolment refused");
                }
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
    use std::time::Duration;
    use tokio::{sync::oneshot, time::timeout};
    use wicketgate_model::{AgentId, EnrollmentId};
    use wicketgate_store::{FrontdoorSpec, NewEnrollment};
    use wicketgate_transport::key::PrivateKey;

    const SOON: Duration = Duration::from_secs(20);

    struct Bench {
        _dir: tempfile::TempDir,
        desk: Desk,
        enrollment: EnrollmentId,
    }

    impl Bench {
        async fn new() -> Self {
            let dir = tempfile::tempdir().unwrap();
            let store = Store::open(&dir.path().join("db").display().to_string()).await.unwrap();
            let now = Timestamp::now();
            let ca = Arc::new(Ca::load_or_create(&dir.path().join("ca"), now).unwrap());
            let act = WriteContext::new("test", now, Uuid::now_v7);
            let spec = FrontdoorSpec {
                organization: "default".into(),
                default_namespace: "default".parse().unwrap(),
                ipsec_shares_enabled: true,
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
            Self { _dir: dir, desk: Desk::new(store, ca), enrollment }
        }

        async fn enrol(&mut self, key: &PrivateKey) -> EnrolGrant {
            let request = EnrolRequest {
                enrollment: self.enrollment,
                secret: b"secret".to_vec(),
                public_key: key.public_point(),
                name: "dc-1".into(),
            };
            let (reply, answer) = oneshot::channel();
            assert!(self.desk.take(FromGateway::Enrol(request, reply)).is_none());
            timeout(SOON, answer).await.unwrap().unwrap().unwrap()
        }

        async fn renew(&mut self, agent: AgentId, key: &PrivateKey) -> Result<Vec<u8>, EnrolRefusal> {
            let (reply, answer) = oneshot::channel();
            let request = RenewRequest { agent, public_key: key.public_point() };
            assert!(self.desk.take(FromGateway::Renew(request, reply)).is_none());
            timeout(SOON, answer).await.unwrap().unwrap()
        }
    }

    #[tokio::test]
    async fn a_certificate_is_renewed_for_the_enrolled_key_only() {
        let mut bench = Bench::new().await;
        let (key, another) = (PrivateKey::generate().unwrap(), PrivateKey::generate().unwrap());
        let agent = bench.enrol(&key).await.agent;
        assert!(bench.renew(agent, &key).await.is_ok());
        // A gateway that was broken into asks in the agent's name, for a key of its own.
        assert_eq!(bench.renew(agent, &another).await, Err(EnrolRefusal::Barred));
        assert!(bench.renew(AgentId::new(Uuid::now_v7()), &key).await.is_err());
    }

    #[tokio::test]
    async fn no_more_are_answered_than_there_is_room_for() {
        let mut bench = Bench::new().await;
        for _ in 0..AT_ONCE {
            bench.desk.enrolments.spawn(std::future::pending());
        }
        let key = PrivateKey::generate().unwrap();
        let request = EnrolRequest {
            enrollment: bench.enrollment,
            secret: b"secret".to_vec(),
            public_key: key.public_point(),
            name: "dc-1".into(),
        };
        let (reply, answer) = oneshot::channel();
        assert!(bench.desk.take(FromGateway::Enrol(request, reply)).is_none());
        assert!(timeout(SOON, answer).await.unwrap().is_err(), "told to ask again");
        // Renewals are answered all the same.
        let unknown = AgentId::new(Uuid::now_v7());
        assert_eq!(bench.renew(unknown, &key).await, Err(EnrolRefusal::Barred));
    }
}

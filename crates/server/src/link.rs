//! The server's end of a link to a gateway: takes in what the gateway reports, and answers its requests.
//!
//! Invariant: messages are taken in order, so that an agent that came and went is never left as connected.

use std::{
    collections::BTreeSet,
    mem,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
};

use jiff::Timestamp;
use sha2::{Digest, Sha256};
use tokio::sync::{Notify, mpsc, watch};
use tracing::{info, warn};
use uuid::Uuid;
use wicketgate_model::{Observed, ShareId, TunnelId, ZId};
use wicketgate_session::{
    ca::Ca,
    identity::{AgentIdentity, Identity},
    link::{ConnectedAgent, EnrolGrant, EnrolRefusal, EnrolRequest, FromGateway, GatewayHello, RenewRequest},
};
use wicketgate_store::{Act, Enrol, Enrolled, Refusal, Store};

use crate::{state::GatewayStatus, telemetry::Metrics};

/// What is known of one gateway: written by its link, read by the reconciler.
#[derive(Debug)]
pub(crate) struct Sight {
    inner: Mutex<Seen>,
    /// Wakes the reconciler, which is woken by accepted writes as well.
    wake: Arc<Notify>,
}

#[derive(Debug)]
pub(crate) struct Seen {
    pub(crate) observed: Observed,
    /// The newest delta that the gateway has answered; 0 before its first report on this link.
    pub(crate) heard: u64,
    /// Since when the gateway has said nothing; `None` once it has reported.
    pub(crate) silent_since: Option<Timestamp>,
    touched_tunnels: BTreeSet<TunnelId>,
    touched_shares: BTreeSet<ShareId>,
    /// A reset or the end of the link touched everything.
    touched_all: bool,
}

/// What changed in a [`Sight`] since it was last asked.
#[derive(Debug, Default)]
pub(crate) struct Touched {
    pub(crate) all: bool,
    pub(crate) tunnels: BTreeSet<TunnelId>,
    pub(crate) shares: BTreeSet<ShareId>,
}

impl Sight {
    pub(crate) fn new(wake: Arc<Notify>, now: Timestamp) -> Arc<Self> {
        let seen = Seen {
            observed: Observed::default(),
            heard: 0,
            silent_since: Some(now),
            touched_tunnels: BTreeSet::new(),
            touched_shares: BTreeSet::new(),
            touched_all: true,
        };
        Arc::new(Self { inner: Mutex::new(seen), wake })
    }

    pub(crate) fn lock(&self) -> MutexGuard<'_, Seen> {
        self.inner.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn write(&self, change: impl FnOnce(&mut Seen)) {
        change(&mut self.lock());
        self.wake.notify_one();
    }
}

impl Seen {
    pub(crate) fn take_touched(&mut self) -> Touched {
        Touched {
            all: mem::take(&mut self.touched_all),
            tunnels: mem::take(&mut self.touched_tunnels),
            shares: mem::take(&mut self.touched_shares),
        }
    }
}

/// Serves the link until the gateway closes its end.
#[derive(Debug)]
pub(crate) struct Link {
    pub(crate) store: Store,
    pub(crate) ca: Arc<Ca>,
    pub(crate) sight: Arc<Sight>,
    pub(crate) status: watch::Sender<GatewayStatus>,
    pub(crate) metrics: Arc<Metrics>,
}

impl Link {
    pub(crate) async fn run(self, mut receive: mpsc::Receiver<FromGateway>) {
        if let Err(error) = self.store.all_agents_disconnected(Timestamp::now()).await {
            warn!(%error, "could not clear the list of connected agents");
        }
        while let Some(message) = receive.recv().await {
            self.take(message).await;
        }
        warn!("the gateway's link ended");
        self.status.send_modify(|s| s.connected = false);
        self.sight.write(|seen| {
            seen.silent_since = Some(Timestamp::now());
            seen.heard = 0;
            seen.observed = Observed::default();
            seen.touched_all = true;
        });
    }

    pub(crate) async fn take(&self, message: FromGateway) {
        match message {
            FromGateway::Hello(hello) => {
                info!(esp = hello.esp, "gateway linked");
                let GatewayHello { esp, public_address } = hello;
                self.status.send_replace(GatewayStatus { connected: true, esp, public_address });
            }
            FromGateway::Observed { heard, delta } => self.sight.write(|seen| {
                seen.heard = heard;
                seen.silent_since = None;
                seen.touched_all |= delta.reset;
                seen.touched_tunnels.extend(delta.tunnels.iter().map(|(id, _)| id));
                seen.touched_tunnels.extend(&delta.gone_tunnels);
                seen.touched_shares.extend(delta.shares.iter().map(|(id, _)| id));
                seen.touched_shares.extend(&delta.gone_shares);
                seen.observed.apply(delta);
            }),
            FromGateway::AgentConnected(agent) => {
                info!(agent.id = %agent.agent, environment.id = %agent.environment, version = agent.version, "agent connected");
                let ConnectedAgent { agent, name, version, address, .. } = agent;
                let recorded =
                    self.store.agent_connected(agent, &name, &version, address, Timestamp::now()).await;
                if let Err(error) = recorded {
                    warn!(%error, "could not record that an agent connected");
                }
            }
            FromGateway::AgentDisconnected(agent) => {
                info!(agent.id = %agent, "agent disconnected");
                if let Err(error) = self.store.agent_disconnected(agent, Timestamp::now()).await {
                    warn!(%error, "could not record that an agent disconnected");
                }
            }
            FromGateway::Traffic(carried) => {
                self.metrics.carried(&carried);
                if let Err(error) = self.store.record_traffic(Timestamp::now(), &carried).await {
                    warn!(%error, shares = carried.len(), "could not record what shares carried");
                }
            }
            // A reply that is dropped tells the agent to try again: the reason is in this side's log.
            FromGateway::Enrol(request, reply) => match self.enrol(request).await {
                Ok(answer) => drop(reply.send(answer)),
                Err(error) => warn!(error = format!("{error:#}"), "could not enrol an agent"),
            },
            FromGateway::Renew(request, reply) => match self.renew(&request).await {
                Ok(answer) => drop(reply.send(answer)),
                Err(error) => warn!(error = format!("{error:#}"), "could not renew an agent's certificate"),
            },
        }
    }

    async fn enrol(&self, request: EnrolRequest) -> anyhow::Result<Result<EnrolGrant, EnrolRefusal>> {
        let now = Timestamp::now();
        let mut random = [0; 10];
        getrandom::fill(&mut random)?;
        let asked = Enrol {
            enrollment: request.enrollment,
            secret_sha256: Sha256::digest(&request.secret).into(),
            public_key_sha256: Sha256::digest(&request.public_key).into(),
            name: request.name,
            z_id: ZId::from_random(random),
        };
        let act = Act::new(format!("enrollment {}", request.enrollment), now, Uuid::now_v7);
        let Enrolled { agent, environment, frontdoor, z_id } = match self.store.enrol(&asked, &act).await? {
            Ok(enrolled) => enrolled,
            Err(refusal) => {
                info!(enrollment.id = %request.enrollment, ?refusal, "enrolment refused");
                return Ok(Err(refused(refusal)));
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
        let RenewRequest { agent, environment, frontdoor, ref public_key } = *request;
        if !self.store.agent_is_welcome(agent, environment).await? {
            return Ok(Err(EnrolRefusal::Barred));
        }
        let identity = Identity::Agent(AgentIdentity { frontdoor, environment, agent });
        info!(agent.id = %agent, "agent's certificate renewed");
        Ok(Ok(self.ca.issue(&identity, public_key, Timestamp::now())?))
    }
}

fn refused(refusal: Refusal) -> EnrolRefusal {
    match refusal {
        Refusal::WrongCode => EnrolRefusal::WrongCode,
        Refusal::Expired => EnrolRefusal::Expired,
        Refusal::Used => EnrolRefusal::Used,
        Refusal::TooManyTries => EnrolRefusal::TooManyTries,
        Refusal::Barred => EnrolRefusal::Barred,
    }
}

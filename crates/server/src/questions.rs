//! What the server asks its gateway, and how long it waits for the answer.

use std::{sync::Arc, time::Duration};

use tokio::{
    sync::{Semaphore, mpsc, oneshot},
    time::timeout,
};
use wicketgate_link::{AgentSight, ShareCheck, ToGateway};
use wicketgate_model::{AgentId, ShareId};

/// A gateway answers after a dial, which has 15 s.
const CHECK_WITHIN: Duration = Duration::from_secs(20);
/// A gateway answers at once what it knows already.
const SIGHT_WITHIN: Duration = Duration::from_secs(2);
/// Dials on request at one time: they are not to crowd out what sites send.
const CHECKS: usize = 8;

/// Cheap to clone.
#[derive(Debug, Clone)]
pub struct Questions {
    send: mpsc::Sender<ToGateway>,
    checks: Arc<Semaphore>,
}

impl Questions {
    pub fn new(send: mpsc::Sender<ToGateway>) -> Self {
        Self { send, checks: Arc::new(Semaphore::new(CHECKS)) }
    }

    /// `None`: the gateway does not answer, or too many ask.
    pub(crate) async fn check(&self, share: ShareId) -> Option<ShareCheck> {
        let ask = async {
            let _place = self.checks.acquire().await.ok()?;
            let (reply, answer) = oneshot::channel();
            self.send.send(ToGateway::Check(share, reply)).await.ok()?;
            answer.await.ok()
        };
        timeout(CHECK_WITHIN, ask).await.ok().flatten()
    }

    /// What these agents have said to their gateway; of those of which it knows nothing, nothing.
    pub(crate) async fn agents(&self, agents: Vec<AgentId>) -> Vec<AgentSight> {
        if agents.is_empty() {
            return Vec::new();
        }
        let ask = async {
            let (reply, answer) = oneshot::channel();
            self.send.send(ToGateway::Agents(agents, reply)).await.ok()?;
            answer.await.ok()
        };
        timeout(SIGHT_WITHIN, ask).await.ok().flatten().unwrap_or_default()
    }
}

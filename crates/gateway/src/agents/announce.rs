//! Reports connected agents to the server, and what they say of themselves.
//!
//! One task compares the roster with what it has sent, so that the end of an old connection never overtakes the start
//! of its successor, and a slow server delays no agent.

use super::Agents;
use std::{collections::HashMap, mem, time::Instant};
use wicketgate_link::FromGateway;
use wicketgate_model::AgentId;

impl Agents {
    /// The agent's report, if it has made another one.
    fn reported(&self, agent: AgentId) -> Option<FromGateway> {
        let report = self.with(|roster| roster.take_report(agent, Instant::now()))?;
        Some(FromGateway::AgentReported { agent, report })
    }

    /// Reports changes until it is dropped, or the link is closed.
    pub(super) async fn announce(self) {
        let mut announced: HashMap<AgentId, u64> = HashMap::new();
        loop {
            self.0.moved.notified().await;
            for agent in self.with(|roster| mem::take(&mut roster.moved)) {
                let moved = match self.with(|roster| roster.about(agent)) {
                    Some((session, about)) if announced.insert(agent, session) != Some(session) => {
                        Some(FromGateway::AgentConnected(about))
                    }
                    None if announced.remove(&agent).is_some() => Some(FromGateway::AgentDisconnected(agent)),
                    _ => None,
                };
                for message in moved.into_iter().chain(self.reported(agent)) {
                    if self.0.link.send(message).await.is_err() {
                        return;
                    }
                }
            }
        }
    }
}

//! Reports connected agents to the server.
//!
//! One task compares the roster with what it has sent, so that the end of an old connection never overtakes the start
//! of its successor, and a slow server delays no agent.

use super::Agents;
use std::{collections::HashMap, mem};
use wicketgate_link::FromGateway;
use wicketgate_model::AgentId;

impl Agents {
    pub(super) async fn announce(self) {
        let mut announced: HashMap<AgentId, u64> = HashMap::new();
        loop {
            tokio::select! {
                () = self.0.drain.cancelled() => return,
                () = self.0.moved.notified() => {}
            }
            for agent in self.with(|roster| mem::take(&mut roster.moved)) {
                let message = match self.with(|roster| roster.about(agent)) {
                    Some((session, about)) if announced.insert(agent, session) != Some(session) => {
                        FromGateway::AgentConnected(about)
                    }
                    None if announced.remove(&agent).is_some() => FromGateway::AgentDisconnected(agent),
                    _ => continue,
                };
                tokio::select! {
                    () = self.0.drain.cancelled() => return,
                    sent = self.0.link.send(message) => if sent.is_err() { return },
                }
            }
        }
    }
}

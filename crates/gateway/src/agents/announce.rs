//! Tells the server who is connected.
//!
//! One task sends what is, compared with what it has sent, so that the end of an agent's old connection never
//! overtakes the beginning of its new one, and a server that is slow to listen holds up no agent.

use super::{Agents, Roster};
use std::collections::HashMap;
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
            for agent in self.with(Roster::take_moved) {
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

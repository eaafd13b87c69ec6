//! Reports connected agents to the server, and what they say of themselves.
//!
//! One task compares the roster with what it has sent, so that the end of an old connection never overtakes the start
//! of its successor, and a slow server delays no agent.

use super::Agents;
use std::{collections::HashMap, mem, time::Instant};
use tokio::{select, sync::watch};
use wicketgate_link::{FromGateway, Part};
use wicketgate_model::AgentId;

impl Agents {
    /// The agent's report, if it has made another one.
    fn reported(&self, agent: AgentId) -> Option<FromGateway> {
        let report = self.with(|roster| roster.take_report(agent, Instant::now()))?;
        Some(FromGateway::AgentReported { agent, report })
    }

    /// Reports changes until it is dropped, or the link is closed; everything on each new link.
    pub(super) async fn announce(self, mut links: watch::Receiver<u64>) {
        let mut announced: HashMap<AgentId, u64> = HashMap::new();
        // What the server knows of an earlier run, or another server of an earlier link, is over.
        let mut is_all = true;
        loop {
            let moved = self.with(|roster| match is_all {
                true => {
                    mem::take(&mut roster.moved);
                    roster.all_connected()
                }
                false => mem::take(&mut roster.moved),
            });
            let (mut connected, mut others) = (Vec::new(), Vec::new());
            for agent in moved {
                match self.with(|roster| roster.about(agent)) {
                    Some((session, about)) if announced.insert(agent, session) != Some(session) => {
                        connected.push(about);
                    }
                    None if announced.remove(&agent).is_some() => {
                        others.push(FromGateway::AgentDisconnected(agent));
                    }
                    _ => {}
                }
                others.extend(self.reported(agent));
            }
            let connected = (is_all || !connected.is_empty()).then_some(FromGateway::ConnectedAgents {
                agents: connected,
                is_all: mem::take(&mut is_all),
                part: Part::WHOLE,
            });
            for message in connected.into_iter().chain(others) {
                if self.0.link.send(message).await.is_err() {
                    return;
                }
            }
            select! {
                () = self.0.moved.notified() => {}
                Ok(()) = links.changed() => {
                    announced.clear();
                    is_all = true;
                }
            }
        }
    }
}

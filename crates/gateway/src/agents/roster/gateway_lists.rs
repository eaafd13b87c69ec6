//! The signed lists of each environment's gateways, which are passed on as they are: to agents that learn them.

use super::{Roster, Session, newest};
use wicketgate_model::{EnvironmentId, SignedGatewayList};
use wicketgate_transport::control::ToAgent;

/// What an agent understands beside the messages that every agent does.
#[derive(Debug, Clone, Copy, Default)]
pub(in crate::agents) struct Understood {
    /// [`ToAgent::ProbeDuty`] and [`ToAgent::Duplicate`].
    pub(in crate::agents) duties: bool,
    /// [`ToAgent::Gateways`].
    pub(in crate::agents) gateways: bool,
}

impl Roster {
    /// The newest list of the environment. It is sent to the agents that are connected, and to each that connects.
    pub(in crate::agents) fn set_gateways(&mut self, environment: EnvironmentId, list: SignedGatewayList) {
        if self.gateway_lists.get(&environment) == Some(&list) {
            return;
        }
        self.gateway_lists.insert(environment, list);
        for agent in self.environments.get(&environment).into_iter().flat_map(|e| &e.agents) {
            if let Some(connected) = self.connected.get_mut(agent) {
                connected.is_list_due = connected.learns_gateways;
                connected.session.outbox_filled.notify_one();
            }
        }
    }

    /// The list, if the agent was not sent it.
    pub(super) fn take_gateways(&mut self, session: &Session) -> Option<ToAgent> {
        let connected = newest(&mut self.connected, session)?;
        if !std::mem::take(&mut connected.is_list_due) {
            return None;
        }
        let list = self.gateway_lists.get(&connected.about.environment)?;
        Some(ToAgent::Gateways { list: list.clone() })
    }
}

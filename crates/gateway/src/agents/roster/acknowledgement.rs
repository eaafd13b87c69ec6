//! The reports of one agent about one share.

use crate::agents::balancer::{Fitness, Record};
use std::time::Instant;
use wicketgate_link::AgentShareState;
use wicketgate_model::{Generation, Problem};

/// The reports of an agent about a share since it connected.
#[derive(Default)]
pub(super) struct Acknowledgement {
    pub(super) acknowledged: Option<Generation>,
    pub(super) refused: Option<(Generation, String)>,
    /// Why, while the agent does not reach the target.
    pub(super) unreachable: Option<Problem>,
    /// The newest generation that the agent has refused.
    pub(super) newest_refused: Option<Generation>,
    /// Results of dials to this generation's target, since the first failure.
    pub(super) record: Option<Record>,
}

impl Acknowledgement {
    /// The fitness of the target. An agent that reports it unreachable keeps probing it and reports its return, if the
    /// target may be probed; otherwise a stream tries it from time to time.
    pub(super) fn fitness(&self, is_probed: bool, now: Instant) -> Fitness {
        match &self.record {
            _ if is_probed && self.unreachable.is_some() => Fitness::Ejected,
            Some(record) => record.fitness(now),
            None => Fitness::Well,
        }
    }

    /// The state of the newest generation at the agent.
    pub(super) fn state(&self, newest: Generation) -> AgentShareState {
        match self {
            Self { refused: Some((generation, why)), .. } if *generation == newest => {
                AgentShareState::Refused(why.clone())
            }
            Self { acknowledged, unreachable, .. } if *acknowledged == Some(newest) => {
                let why = unreachable.as_ref().map(|problem| problem.message.clone());
                why.map_or(AgentShareState::Serving, AgentShareState::Unreachable)
            }
            _ => AgentShareState::Pending,
        }
    }
}

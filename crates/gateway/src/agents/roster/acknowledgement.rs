//! The reports of one agent about one share.

use crate::agents::balancer::{Fitness, Record};
use std::{sync::Arc, time::Instant};
use wicketgate_link::AgentShareState;
use wicketgate_model::{Generation, Problem};

/// The reports of an agent about a share since it connected.
#[derive(Default)]
pub(super) struct Acknowledgement {
    pub(super) acknowledged: Option<Generation>,
    pub(super) refused: Option<(Generation, Arc<Problem>)>,
    /// Why, while the agent does not reach the target.
    pub(super) unreachable: Option<Arc<Problem>>,
    /// The newest generation that the agent has refused.
    pub(super) newest_refused: Option<Generation>,
    /// Results of dials to this generation's target, since the first failure.
    pub(super) record: Option<Record>,
}

impl Acknowledgement {
    /// Takes in what the agent says now. Returns whether that is anything else: the results of dials are kept if it is not.
    pub(super) fn replace(&mut self, said: Self) -> bool {
        let of =
            |one: &Self| (one.acknowledged, one.refused.clone(), one.unreachable.clone(), one.newest_refused);
        let is_other = of(self) != of(&said);
        if is_other {
            *self = said;
        }
        is_other
    }

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
                AgentShareState::Refused(why.message.clone())
            }
            Self { acknowledged, unreachable, .. } if *acknowledged == Some(newest) => {
                let why = unreachable.as_ref().map(|problem| problem.message.clone());
                why.map_or(AgentShareState::Serving, AgentShareState::Unreachable)
            }
            _ => AgentShareState::Pending,
        }
    }
}

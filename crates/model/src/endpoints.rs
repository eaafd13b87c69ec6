//! What several gateways report of one row, as one observation, from which [`next`](crate::next) decides its status.
//!
//! Invariant: a row serves if one of its endpoints does, is gone only if it is gone at all of them, and is disabled only if all of them
//! have said so.

use crate::{GatewayId, Generation, Observation, Problem, Reason, declare::serde_as_text};

/// What a gateway reports of a row that it serves beside others.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct EndpointView {
    pub gateway: GatewayId,
    pub seen: Observation,
}

crate::text_enum!(
    /// Whether a row is served by as many gateways as it should.
    Redundancy {
        /// At each of its gateways, nothing impairs it.
        Met = "MET",
        NotMet = "NOT_MET",
        /// It is to be served by one gateway.
        None = "NONE",
    }
);
serde_as_text!(Redundancy);

impl EndpointView {
    /// The problem of an endpoint that has this generation ready, if it has one. The outer `None`: it is not ready.
    fn ready(&self, generation: Generation) -> Option<Option<&Problem>> {
        match &self.seen {
            Observation::Seen { ready, problem } if *ready == Some(generation) => Some(problem.as_ref()),
            _ => None,
        }
    }

    fn is_disabled(&self, generation: Generation) -> bool {
        self.ready(generation).flatten().is_some_and(|problem| problem.reason == Reason::Disabled)
    }

    /// Whether nothing impairs the row here.
    fn serves(&self, generation: Generation) -> bool {
        self.ready(generation).is_some_and(|problem| problem.is_none_or(|p| p.reason.is_warning()))
    }

    /// Why it does not serve, if that is known and does not pass by itself within moments.
    fn loss(&self) -> Option<String> {
        match &self.seen {
            Observation::Seen { problem: Some(problem), .. } if !problem.is_pending() => {
                Some(format!("{}: {}", problem.reason, problem.message))
            }
            Observation::Unreachable { since, is_linked: false } => {
                Some(format!("no server has a link to it since {since:.0}"))
            }
            Observation::Silent { since, .. } => Some(format!("it reports nothing since {since:.0}")),
            Observation::Seen { .. }
            | Observation::Unreachable { is_linked: true, .. }
            | Observation::Looking { .. }
            | Observation::Gone => None,
        }
    }

    /// Of rows that no endpoint serves: the observation with the least number says most.
    fn rank(&self, generation: Generation) -> u8 {
        match &self.seen {
            Observation::Seen { .. } if self.is_disabled(generation) => 7,
            // Ready, and impaired.
            Observation::Seen { ready, .. } if *ready == Some(generation) => 0,
            // Of the row, and so of all gateways.
            Observation::Seen { problem: Some(problem), .. }
                if matches!(problem.reason, Reason::Expired | Reason::PeerAddressTaken) =>
            {
                1
            }
            // It may serve: nothing worse is claimed.
            Observation::Unreachable { .. } => 2,
            Observation::Seen { problem: Some(problem), .. } if !problem.is_pending() => 3,
            Observation::Looking { .. } => 4,
            Observation::Silent { .. } => 5,
            Observation::Seen { .. } => 6,
            Observation::Gone => 8,
        }
    }
}

/// One observation for a row of `generation` from those of its endpoints, which are in the order of their places, and whether they
/// are redundant. Without endpoints, nothing is known.
pub fn combined(generation: Generation, endpoints: &[EndpointView]) -> (Observation, Redundancy) {
    let unknown = Observation::Seen { ready: None, problem: None };
    let [first, others @ ..] = endpoints else { return (unknown, Redundancy::NotMet) };
    if others.is_empty() {
        return (first.seen.clone(), Redundancy::None);
    }
    if endpoints.iter().all(|endpoint| endpoint.is_disabled(generation)) {
        return (first.seen.clone(), Redundancy::NotMet);
    }
    let serving = endpoints.iter().find(|endpoint| endpoint.serves(generation));
    if let Some(serving) = serving {
        let lost = endpoints.iter().filter(|endpoint| !endpoint.serves(generation));
        let are_all = lost.clone().next().is_none();
        let why = lost.filter_map(|endpoint| Some((endpoint.gateway, endpoint.loss()?))).next();
        let own = || serving.ready(generation).flatten().cloned();
        let problem = why.map(|(gateway, why)| redundancy_lost(gateway, &why)).or_else(own);
        let redundancy = if are_all { Redundancy::Met } else { Redundancy::NotMet };
        return (Observation::Seen { ready: Some(generation), problem }, redundancy);
    }
    let best = endpoints.iter().min_by_key(|endpoint| endpoint.rank(generation)).unwrap_or(first);
    // That one gateway serves nothing of it any more says nothing of the others.
    let seen = if best.is_disabled(generation) { unknown } else { best.seen.clone() };
    (seen, Redundancy::NotMet)
}

fn redundancy_lost(gateway: GatewayId, why: &str) -> Problem {
    let message = format!("it is served by one gateway only; gateway {gateway} does not serve it: {why}");
    Problem::new(Reason::RedundancyLost, message)
}

#[cfg(test)]
mod tests;

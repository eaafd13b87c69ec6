//! A look along one share's path, and a dial of its target: what the server asks when somebody wants to know why.

use std::time::Instant;

use wicketgate_link::ShareCheck;
use wicketgate_model::ShareId;

use crate::{agents::Agents, observations::Observations};

/// Answers within the time that a client's connection may take to be opened.
pub(crate) async fn check(observations: &Observations, agents: &Agents, share: ShareId) -> ShareCheck {
    let begin = Instant::now();
    let (bound, listener_problem) = observations.listener(share);
    let listener_took = begin.elapsed();
    let standing = agents.standing(share);
    let agent_took = agents.nearest(share);
    let begin = Instant::now();
    let dialled = agents.dial(share).await;
    ShareCheck {
        bound,
        listener_problem,
        acknowledged: standing.ready,
        agent_problem: standing.problem,
        listener_took,
        agent_took,
        dialled,
        dial_took: begin.elapsed(),
    }
}

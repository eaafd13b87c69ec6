//! A check of one share's path, with a connection to its target: the gateway's part of `/check`.

use std::time::Instant;

use wicketgate_link::ShareCheck;
use wicketgate_model::ShareId;

use crate::{agents::Agents, observations::Observations};

/// Returns within the time limit for opening a client's connection.
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

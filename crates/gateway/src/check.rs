//! A look along one share's path, and a dial of its target: what the server asks when somebody wants to know why.

use std::time::Instant;

use wicketgate_model::ShareId;
use wicketgate_session::link::ShareCheck;

use crate::{agents::Agents, board::Board};

/// Answers within the time that a client's connection may take to be opened.
pub(crate) async fn check(board: &Board, agents: &Agents, share: ShareId) -> ShareCheck {
    let (bound, listener_problem) = board.listener(share);
    let standing = agents.standing(share);
    let begin = Instant::now();
    let dialled = agents.dial(share).await;
    ShareCheck {
        bound,
        listener_problem,
        acknowledged: standing.ready,
        agent_problem: standing.problem,
        dialled,
        dial_took: begin.elapsed(),
    }
}

//! What the agent's log says when a target's health changes.

use crate::cure::cure;
use tracing::{debug, info, warn};
use wicketgate_model::{ShareId, Target};
use wicketgate_transport::frame::{RefusalReason, StreamRefusal};

/// Logs about a share, its name and its target. Fields of events: a span would be off at a level at which its events are not.
pub(super) fn log(
    (share, name, target): (ShareId, &str, &Target),
    before: Option<&StreamRefusal>,
    failure: Option<&StreamRefusal>,
) {
    match failure {
        None => {
            info!(share.id = %share, share.name = name, %target, "target is reachable again");
        }
        Some(StreamRefusal { reason: RefusalReason::AgentExhausted, text }) => {
            warn!(share.id = %share, share.name = name, %target, error = text, "cannot dial a target");
        }
        Some(StreamRefusal { reason, text }) if before.is_none() => {
            let error = format_args!("{text}; {}", cure(*reason));
            warn!(share.id = %share, share.name = name, %target, ?reason, error, "target became unreachable");
        }
        Some(_) => {}
    }
    debug!(share.id = %share, ?failure, "a target's health changed");
}

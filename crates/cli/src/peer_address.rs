//! `--take-peer-address`: the operator gives a tunnel its peerPublicIp, whichever other customer's tunnel has it.

use clap::{Arg, ArgAction, ArgMatches, Command};
use serde_json::Value;
use wicketgate_client::{Failure, Method};

use crate::{
    context::Session,
    failed::Failed,
    kind::{Kind, TUNNEL},
};

const FLAG: &str = "take-peer-address";

/// What the API says of an address of another Frontdoor's tunnel, about which it tells nothing else.
const HIDDEN: &str = "peerPublicIp is not available";

/// Adds the flag to a command that writes a tunnel.
pub(crate) fn flagged(kind: &Kind, command: Command) -> Command {
    if kind.name != TUNNEL.name {
        return command;
    }
    command.arg(Arg::new(FLAG).long(FLAG).action(ArgAction::SetTrue).help(
        "Give the tunnel its peerPublicIp even if another customer's tunnel has it, which is then not served any more; for the operator",
    ))
}

/// Whether the flag was given; a command without it has none.
pub(crate) fn is_taken(matches: &ArgMatches) -> bool {
    matches.try_get_one::<bool>(FLAG).ok().flatten().copied().unwrap_or_default()
}

/// Writes a resource as the flags of the command say.
pub(crate) async fn write(
    session: &Session,
    (method, path): (Method, &str),
    body: &Value,
    matches: &ArgMatches,
) -> Result<Value, Failed> {
    let takes = is_taken(matches);
    let query: &[_] = if takes { &[("takePeerAddress", "true")] } else { &[] };
    let written = session.client.write_with(method, path, query, Some(body)).await;
    written.map_err(|failure| if takes { failure.into() } else { explained(failure) })
}

/// A refused write, with the way that the operator has.
pub(crate) fn explained(failure: Failure) -> Failed {
    let is_hidden = is_hidden(&failure);
    let failed = Failed::from(failure);
    if !is_hidden {
        return failed;
    }
    failed.with(
        "If it is the address of this site, the operator can take it from the tunnel of another customer: `wicketgate tunnel \
         create` and `tunnel update` have --take-peer-address.",
    )
}

fn is_hidden(failure: &Failure) -> bool {
    matches!(failure, Failure::Refused { status: 409, problem, .. } if problem.message.starts_with(HIDDEN))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{arguments::commands, kind::SHARE};
    use wicketgate_client::ApiProblem;

    #[test]
    fn only_commands_that_write_a_tunnel_have_the_flag() {
        let takers: Vec<_> = commands()
            .iter()
            .flat_map(|kind| {
                kind.get_subcommands()
                    .filter(|verb| verb.get_arguments().any(|arg| arg.get_id() == FLAG))
                    .map(|verb| format!("{} {}", kind.get_name(), verb.get_name()))
                    .collect::<Vec<_>>()
            })
            .collect();
        assert_eq!(takers, ["tunnel create", "tunnel update"]);
        let without = flagged(&SHARE, Command::new("x")).get_matches_from(["x"]);
        assert!(!is_taken(&without));
        assert!(is_taken(
            &flagged(&TUNNEL, Command::new("x")).get_matches_from(["x", "--take-peer-address"])
        ));
    }

    #[test]
    fn only_an_address_of_another_customer_can_be_taken() {
        let refused = |status, message: &str| Failure::Refused {
            status,
            problem: ApiProblem {
                error: "conflict".to_owned(),
                message: message.to_owned(),
                details: Vec::new(),
            },
            retry_after: None,
        };
        assert!(is_hidden(&refused(409, "peerPublicIp is not available; choose another value")));
        assert!(!is_hidden(&refused(409, "peerPublicIp is taken by tunnel site-a (tnl-1)")));
        assert!(!is_hidden(&refused(400, "peerPublicIp is not available")));
    }
}

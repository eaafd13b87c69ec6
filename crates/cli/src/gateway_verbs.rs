//! The command line of the verbs that only gateways have.

use clap::{Arg, Command};

/// Each verb, with whether it prints resources.
pub(crate) fn commands() -> [(Command, bool); 4] {
    let location =
        Arg::new("location").long("location").value_name("NAME").required(true).help("Where the gateway is");
    let join = "Print the command by which a new gateway joins, within an hour; for the operator";
    let replace = "Print the command by which another machine takes the place of a gateway, with its id and its tunnels; for \
                   the operator";
    let tokens = "List the join tokens that no gateway has used; for the operator";
    let revoke = "Revoke a join token that no gateway has used; for the operator";
    [
        (Command::new("join").about(join).arg(location), true),
        (Command::new("replace").about(replace).arg(id("The gateway's id")), true),
        (Command::new("join-tokens").about(tokens), true),
        (
            Command::new("revoke-join-token")
                .about(revoke)
                .arg(id("Its id, as `wicketgate gateway join-tokens` has it")),
            false,
        ),
    ]
}

fn id(help: &'static str) -> Arg {
    Arg::new("which").value_name("ID").required(true).help(help)
}

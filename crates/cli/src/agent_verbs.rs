//! The command line of the verbs that only agents have.

use clap::{Arg, Command};

/// Each verb, with whether it prints resources.
pub(crate) fn commands() -> [(Command, bool); 5] {
    let env = Arg::new("env")
        .long("env")
        .value_name("NAME|ID")
        .help("Add the agent to this environment; a new one if left out");
    let server = Arg::new("agent-server")
        .long("agent-server")
        .value_name("URL")
        .help("The address of the gateway that the agent dials");
    let unknown = "List agents that the server refuses because it does not know them, as after a restore; for the operator";
    let adopt = Command::new("adopt").about("Make an unknown agent one of its environment; for the operator");
    let codes = "List the enrolment codes that no agent has used";
    let revoke = Command::new("revoke-code").about("Revoke an enrolment code that no agent has used");
    let enroll = Command::new("enroll")
        .visible_alias("enrol")
        .about("Print the command that starts an agent in the private network");
    [
        (Command::new("unknown").about(unknown), true),
        (adopt.arg(id("Its id, as `wicketgate agent unknown` has it")), true),
        (Command::new("codes").about(codes), true),
        (revoke.arg(id("Its id, as `wicketgate agent codes` has it")), false),
        (enroll.args([env, server]), true),
    ]
}

fn id(help: &'static str) -> Arg {
    Arg::new("which").value_name("ID").required(true).help(help)
}

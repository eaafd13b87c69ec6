//! The commands and their flags. Completions and man pages are made from them.

use std::{path::PathBuf, time::Duration};

use clap::{Arg, ArgAction, ArgMatches, Command, builder::PossibleValuesParser, value_parser};
use url::Url;

use crate::{
    acts::{ACTS, Act, Answer},
    agent_verbs,
    context::Choice,
    failed::{EXIT_STATUS, Failed},
    gateway_verbs,
    kind::{ACCOUNT, ENVIRONMENT, EXECUTION, HANDOVER_LINK_REQUEST, KINDS, Kind},
    output::{Form, Output},
    peer_address, schema,
    wait::Patience,
};

/// The devices of `tunnel config`; the server refuses others by name.
const JSON_OR: &str =
    "A device, such as strongswan, fortinet or cisco-ios; the server's answer to a wrong one lists all";

/// The verbs of the command line, in the order of `--help`.
pub fn commands() -> Vec<Command> {
    let mut all = vec![login(), logout(), context(), status(), apply()];
    all.extend(KINDS.iter().map(|kind| of_kind(kind)));
    all.push(events());
    all.into_iter().map(|command| command.after_help(EXIT_STATUS)).collect()
}

/// What every command that asks a server takes.
fn asking(command: Command) -> Command {
    let heading = "Server";
    command.args(
        [
            Arg::new("context")
                .long("context")
                .env("WICKETGATE_CONTEXT")
                .help("Use this context of `wicketgate context list`"),
            Arg::new("server")
                .long("server")
                .env("WICKETGATE_API")
                .value_parser(value_parser!(Url))
                .value_name("URL")
                .help("Ask this server, such as https://gw.example:8480"),
            insecure_http(),
            Arg::new("token-file")
                .long("token-file")
                .env("WICKETGATE_TOKEN_FILE")
                .value_name("FILE")
                .help("A file with the token; - is standard input"),
            Arg::new("ca")
                .long("ca")
                .env("WICKETGATE_CA")
                .value_name("FILE")
                .value_parser(value_parser!(PathBuf))
                .help("Certificates (PEM) that are trusted besides those of the system"),
            Arg::new("frontdoor-choice")
                .long("frontdoor")
                .env("WICKETGATE_FRONTDOOR")
                .value_name("NAME|ID")
                .help("The Frontdoor that the command is about, if there are several"),
        ]
        .map(|arg| arg.help_heading(heading)),
    )
}

fn insecure_http() -> Arg {
    Arg::new("insecure-http")
        .long("insecure-http")
        .action(ArgAction::SetTrue)
        .help("Send the token without TLS to another host, where the network can read it")
}

fn printing(command: Command) -> Command {
    let heading = "Output";
    command.args(
        [
            Arg::new("output")
                .short('o')
                .long("output")
                .value_parser(PossibleValuesParser::new(["table", "wide", "json", "yaml", "name"]))
                .default_value("table")
                .help("The form; a table has tabs and no headings in a pipe"),
            Arg::new("json")
                .long("json")
                .value_name("FIELDS")
                .value_delimiter(',')
                .conflicts_with("output")
                .help("Only these properties, as JSON; name.inner for one of an object"),
            Arg::new("jq").long("jq").value_name("PROGRAM").help("What this program of jq makes of the JSON"),
        ]
        .map(|arg| arg.help_heading(heading)),
    )
}

fn waiting(command: Command) -> Command {
    let heading = "Waiting";
    command.args(
        [
            Arg::new("wait")
                .long("wait")
                .action(ArgAction::SetTrue)
                .help("Wait until the change has taken effect; on by default on a terminal"),
            Arg::new("no-wait")
                .long("no-wait")
                .action(ArgAction::SetTrue)
                .conflicts_with("wait")
                .help("Do not wait"),
            Arg::new("timeout")
                .long("timeout")
                .value_name("SECONDS")
                .value_parser(value_parser!(u64))
                .default_value("60")
                .help("Wait no longer; then the exit status is 8"),
        ]
        .map(|arg| arg.help_heading(heading)),
    )
}

fn which(kind: &Kind) -> Arg {
    let name = if kind.label == kind.id { "ID" } else { "NAME|ID" };
    Arg::new("which").value_name(name).required(true)
}

fn login() -> Command {
    Command::new("login").about("Sign in to a server, and remember it as a context").args([
        Arg::new("server")
            .long("server")
            .env("WICKETGATE_API")
            .required(true)
            .value_name("URL")
            .value_parser(value_parser!(Url))
            .help("The server's address, such as https://gw.example:8480"),
        insecure_http(),
        Arg::new("token-file")
            .long("token-file")
            .value_name("FILE")
            .default_value("-")
            .help("A file with the token; - is standard input"),
        Arg::new("account")
            .long("account")
            .value_name("CLIENT ID")
            .help("The API account that the secret belongs to"),
        Arg::new("secret-file")
            .long("secret-file")
            .value_name("FILE")
            .requires("account")
            .conflicts_with("token-file")
            .help("A file with the account's secret; - is standard input"),
        Arg::new("ca")
            .long("ca")
            .value_name("FILE")
            .value_parser(value_parser!(PathBuf))
            .help("Certificates (PEM) that are trusted besides those of the system"),
        Arg::new("frontdoor-choice")
            .long("frontdoor")
            .value_name("NAME|ID")
            .help("The Frontdoor that commands are about; needed if there are several"),
        Arg::new("name").long("name").default_value("default").help("The name of the context"),
    ])
}

fn logout() -> Command {
    Command::new("logout")
        .about("Forget a context and its secret")
        .arg(Arg::new("name").help("The context; the current one if left out"))
}

fn context() -> Command {
    Command::new("context")
        .about("Choose among the servers that you are signed in to")
        .subcommand_required(true)
        .subcommands([
            Command::new("list").about("List the contexts; a star marks the current one"),
            Command::new("use").about("Make a context the current one").arg(Arg::new("name").required(true)),
            asking(
                Command::new("set").about("Choose the Frontdoor of the current context: --frontdoor NAME"),
            ),
        ])
}

fn status() -> Command {
    asking(printing(
        Command::new("status").about("Show the whole picture on one screen: what is wrong first"),
    ))
    .arg(
        Arg::new("all")
            .long("all")
            .action(ArgAction::SetTrue)
            .help("Look at all Frontdoors that the token reaches, and not only at the one that is chosen"),
    )
}

fn apply() -> Command {
    let about = "Make tunnels, shares and other resources what a file says; show a plan, and ask before it is carried out";
    waiting(asking(printing(Command::new("apply").about(about)))).args([
        Arg::new("file")
            .short('f')
            .long("file")
            .value_name("FILE")
            .required(true)
            .action(ArgAction::Append)
            .help("YAML documents, each of one resource: `kind`, and its properties; - is standard input"),
        Arg::new("plan")
            .long("plan")
            .visible_alias("dry-run")
            .action(ArgAction::SetTrue)
            .help("Show the plan only; the exit status is 3 if something differs"),
        Arg::new("yes").short('y').long("yes").action(ArgAction::SetTrue).help("Do not ask"),
        Arg::new("prune")
            .long("prune")
            .value_name("KEY=VALUE")
            .help("Delete the tunnels and shares that have this tag and are not in the file"),
    ])
}

fn events() -> Command {
    asking(printing(
        Command::new("events").about("Follow changes of status and of connections as they happen"),
    ))
    .args([
        Arg::new("follow")
            .short('F')
            .long("follow")
            .action(ArgAction::SetTrue)
            .help("Go on until interrupted; as without it"),
        Arg::new("since").long("since").value_name("EVENT ID").help("Begin after this event"),
    ])
}

fn of_kind(kind: &'static Kind) -> Command {
    let mut all = Vec::new();
    let plural = kind.plural;
    let list = Command::new("list").about(format!("List {plural}")).args([
        Arg::new("filter")
            .value_name("PROPERTY=VALUE")
            .action(ArgAction::Append)
            .num_args(0..)
            .help("Only those: status=ERROR, ready=false, tag.team=payments"),
        Arg::new("sort")
            .long("sort")
            .value_name("PROPERTY[,desc]")
            .action(ArgAction::Append)
            .help("The order; that of creation if left out"),
        Arg::new("limit")
            .long("limit")
            .value_name("NUMBER")
            .value_parser(value_parser!(usize))
            .help("No more than these"),
    ]);
    let get = Command::new("get").about(format!("Show one of the {plural}")).arg(which(kind));
    let (list, get) = match kind.name == EXECUTION.name {
        true => (list.arg(organization()), get.arg(organization())),
        false => (list, get),
    };
    all.extend([list, get].map(|command| asking(printing(command))));
    if let Some(schema) = kind.create {
        let create = Command::new("create").about(format!("Create one of the {plural}"));
        let has_name = schema::properties(schema).iter().any(|property| property.path == [kind.label]);
        let create =
            if has_name { create.arg(Arg::new("name").value_name("NAME").help("Its name")) } else { create };
        let create = if kind.name == ACCOUNT.name { create.arg(client_secret_file()) } else { create };
        all.push(writing(kind, peer_address::flagged(kind, schema::with_flags(create, schema, false))));
    }
    if let Some(schema) = kind.update {
        let update = Command::new("update").about(format!("Change one of the {plural}")).arg(which(kind));
        all.push(writing(kind, peer_address::flagged(kind, schema::with_flags(update, schema, true))));
    }
    if kind.deletes {
        let delete = Command::new("delete").about(format!("Delete one of the {plural}")).arg(which(kind));
        let delete = if kind.name == ENVIRONMENT.name { delete.arg(with_shares()) } else { delete };
        all.push(writing(kind, delete));
    }
    all.extend(own(kind));
    all.extend(ACTS.iter().filter(|act| act.kind == kind.name).map(|act| of_act(kind, act)));
    Command::new(kind.name)
        .about(format!("Work with {plural}"))
        .subcommand_required(true)
        .arg_required_else_help(true)
        .subcommands(all)
}

fn client_secret_file() -> Arg {
    Arg::new("client-secret-file")
        .long("client-secret-file")
        .value_name("FILE")
        .help("Write the secret to this file, with mode 0600; it is printed if left out")
}

fn organization() -> Arg {
    Arg::new("organization")
        .long("organization")
        .action(ArgAction::SetTrue)
        .help("The record of the organization instead of the Frontdoor's: its API accounts, with failed sign-ins, and its Frontdoors")
}

fn with_shares() -> Arg {
    Arg::new("with-shares")
        .long("with-shares")
        .action(ArgAction::SetTrue)
        .help("Delete its shares, too; it is refused while there are some if left out")
}

fn writing(kind: &Kind, command: Command) -> Command {
    let command = asking(printing(command));
    if kind.settles { waiting(command) } else { command }
}

fn of_act(kind: &Kind, act: &Act) -> Command {
    let command = asking(printing(Command::new(act.verb).about(act.about).arg(which(kind))));
    let command = match act.schema {
        Some(schema) => schema::with_flags(command, schema, false),
        None => command,
    };
    if act.answer == Answer::Outcome { command } else { waiting(command) }
}

/// The verbs that only one kind has.
fn own(kind: &Kind) -> Vec<Command> {
    let duration =
        || Arg::new("duration").long("duration").default_value("1h").help("How far back: 15m, 24h, 7d");
    match kind.name {
        "tunnel" => tunnel(kind, duration()),
        "share" => vec![
            asking(printing(
                Command::new("check").about("Test the path of a share now, hop by hop").arg(which(kind)),
            )),
            asking(printing(
                Command::new("metrics").about("Draw the traffic of a share").args([which(kind), duration()]),
            )),
        ],
        "agent" => {
            let all = agent_verbs::commands().into_iter();
            all.map(|(verb, prints)| asking(if prints { printing(verb) } else { verb })).collect()
        }
        "gateway" => {
            let all = gateway_verbs::commands().into_iter();
            all.map(|(verb, prints)| asking(if prints { printing(verb) } else { verb })).collect()
        }
        _ => Vec::new(),
    }
}

fn tunnel(kind: &Kind, duration: Arg) -> Vec<Command> {
    vec![
        asking(
            Command::new("config")
                .about("Print the configuration of the site's device. It contains the pre-shared key")
                .args([which(kind), Arg::new("format").long("format").default_value("json").help(JSON_OR)]),
        ),
        asking(printing(schema::with_flags(
            Command::new("handover")
                .about("Make a link by which the site's engineer gets the device's configuration and sees whether it connects")
                .arg(which(kind)),
            HANDOVER_LINK_REQUEST,
            false,
        ))),
        asking(printing(
            Command::new("handover-links").about("List the handover links of a tunnel").arg(which(kind)),
        )),
        asking(
            Command::new("revoke-handover")
                .about("Revoke a handover link, and end the pages that it has opened")
                .args([which(kind), Arg::new("link").value_name("LINK").required(true).help("Its id, like lnk-…")]),
        ),
        asking(printing(
            Command::new("metrics").about("Draw the traffic of a tunnel").args([which(kind), duration]),
        )),
        asking(printing(
            Command::new("history").about("List the last changes of a tunnel's connection").arg(which(kind)),
        )),
        asking(printing(Command::new("unknown-peers").about(
            "List addresses that send IKE and are no tunnel's peerPublicIp; for the operator of the gateway",
        ))),
        asking(
            Command::new("watch").about("Follow a tunnel's connection until interrupted").arg(which(kind)),
        ),
        asking(printing(
            Command::new("ike-log").about("Print the last lines of a tunnel's IKE log").args([
                which(kind),
                Arg::new("follow")
                    .short('F')
                    .long("follow")
                    .action(ArgAction::SetTrue)
                    .help("Go on with further lines as they are written, until interrupted"),
                Arg::new("since").long("since").value_name("TIME|NUMBER").help("Only lines after it"),
            ]),
        )),
    ]
}

/// What the flags of a command say about the server. An absent flag of another command is none.
pub(crate) fn choice(matches: &ArgMatches) -> Choice {
    let text = |name: &str| matches.try_get_one::<String>(name).ok().flatten().cloned();
    Choice {
        context: text("context"),
        server: matches.try_get_one::<Url>("server").ok().flatten().cloned(),
        token_file: text("token-file"),
        frontdoor: text("frontdoor-choice"),
        ca: matches.try_get_one::<PathBuf>("ca").ok().flatten().cloned(),
        insecure_http: matches.try_get_one("insecure-http").ok().flatten().copied().unwrap_or_default(),
    }
}

pub(crate) fn output(matches: &ArgMatches) -> Output {
    let fields = matches.get_many::<String>("json").map(|all| all.cloned().collect());
    let form = match (fields, matches.get_one::<String>("output").map(String::as_str)) {
        (Some(fields), _) => Form::Fields(fields),
        (None, Some("json")) => Form::Json,
        (None, Some("yaml")) => Form::Yaml,
        (None, Some("name")) => Form::Name,
        (None, form) => Form::Table { is_wide: form == Some("wide") },
    };
    Output::new(form, matches.get_one::<String>("jq").cloned())
}

pub(crate) fn patience(matches: &ArgMatches) -> Patience {
    let is = |name: &str| matches.try_get_one::<bool>(name).ok().flatten().copied().unwrap_or_default();
    let timeout = matches.try_get_one::<u64>("timeout").ok().flatten().copied().unwrap_or_default();
    let waits = is("wait") || (!is("no-wait") && std::io::IsTerminal::is_terminal(&std::io::stdout()));
    Patience { waits, timeout: Duration::from_secs(timeout) }
}

/// `PROPERTY=VALUE` as a parameter of a list.
pub(crate) fn filters(matches: &ArgMatches) -> Result<Vec<(String, String)>, Failed> {
    let mut query = Vec::new();
    for filter in matches.get_many::<String>("filter").into_iter().flatten() {
        let (property, value) = filter
            .split_once('=')
            .ok_or_else(|| Failed::usage(format!("{filter}: write PROPERTY=VALUE, such as status=ERROR")))?;
        query.push((property.to_owned(), value.to_owned()));
    }
    query.extend(
        matches
            .get_many::<String>("sort")
            .into_iter()
            .flatten()
            .map(|sort| ("sort".to_owned(), sort.clone())),
    );
    Ok(query)
}

/// The resource that a command is about.
pub(crate) fn which_one(matches: &ArgMatches) -> &str {
    matches.get_one::<String>("which").map(String::as_str).unwrap_or_default()
}

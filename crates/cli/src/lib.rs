//! The command line's verbs over the public API. Standard output is data, standard error is words.

mod act;
mod acts;
mod agent_verbs;
mod apply;
mod arguments;
mod chart;
mod context;
mod environment;
mod failed;
mod follow;
mod gateway;
mod gateway_verbs;
mod handover;
mod kind;
mod next;
mod output;
mod own;
mod path_view;
mod peer_address;
mod query;
mod reference_names;
mod say;
mod schema;
mod screen;
mod secret_out;
mod session;
mod sign_in;
mod summary;
mod table;
mod valid;
mod verbs;
mod wait;

use std::process::ExitCode;

pub use arguments::commands;
use clap::ArgMatches;

use crate::{
    arguments::choice,
    failed::Failed,
    kind::{ENVIRONMENT, KINDS},
    say::say,
};

/// Runs one of [`commands`], and says why it failed.
pub async fn run(name: &str, matches: &ArgMatches) -> ExitCode {
    match dispatch(name, matches).await {
        Ok(()) => {
            let (verb, matches) = matches.subcommand().unwrap_or(("", matches));
            let which = matches.try_get_one::<String>("which").ok().flatten();
            let command = format!("{name} {verb}");
            // A list of resources has suggested it, by what it found.
            if verb != "list" || name == "context" {
                next::after(matches, command.trim_end(), which.map(String::as_str).unwrap_or_default());
            }
            ExitCode::SUCCESS
        }
        Err(failed) => {
            let words = failed.to_string();
            if !words.is_empty() {
                say(&format!("wicketgate: {words}"));
            }
            failed.status()
        }
    }
}

async fn dispatch(name: &str, matches: &ArgMatches) -> Result<(), Failed> {
    let folder = context::folder()?;
    match name {
        "login" => return sign_in::login(&folder, matches).await,
        "logout" => return sign_in::logout(&folder, matches),
        "context" => return sign_in::context(&folder, matches).await,
        "apply" => return apply::apply(&choice(matches).session(&folder)?, matches).await,
        "status" => return summary::status(&choice(matches).session(&folder)?, matches).await,
        "events" => return follow::events(&choice(matches).session(&folder)?, matches).await,
        _ => {}
    }
    let (Some(kind), Some((verb, matches))) =
        (KINDS.iter().find(|kind| kind.name == name), matches.subcommand())
    else {
        return Err(Failed::usage(format!("there is no command {name}")));
    };
    let session = choice(matches).session(&folder)?;
    match verb {
        "list" => verbs::list(&session, kind, matches).await,
        "get" => verbs::get(&session, kind, matches).await,
        "create" => verbs::create(&session, kind, matches).await,
        "update" => verbs::update(&session, kind, matches).await,
        "delete" if kind.name == ENVIRONMENT.name => environment::delete(&session, matches).await,
        "delete" => verbs::delete(&session, kind, matches).await,
        "check" => own::check(&session, matches).await,
        "metrics" => own::metrics(&session, kind, matches).await,
        "config" => own::config(&session, matches).await,
        "unknown" => own::unknown_agents(&session, matches).await,
        "adopt" => own::adopt(&session, matches).await,
        "unknown-peers" => own::unknown_peers(&session, matches).await,
        "history" => own::history(&session, matches).await,
        "handover" => handover::create(&session, matches).await,
        "handover-links" => handover::list(&session, matches).await,
        "revoke-handover" => handover::revoke(&session, matches).await,
        "watch" => follow::watch(&session, matches).await,
        "ike-log" => follow::ike_log(&session, matches).await,
        "codes" => own::codes(&session, matches).await,
        "revoke-code" => own::revoke_code(&session, matches).await,
        "enroll" => own::enrol(&session, matches).await,
        "join" => gateway::join(&session, matches).await,
        "replace" => gateway::replace(&session, matches).await,
        "join-tokens" => gateway::tokens(&session, matches).await,
        "revoke-join-token" => gateway::revoke(&session, matches).await,
        other => match acts::act(kind, other) {
            Some(act) => act::run(&session, kind, act, matches).await,
            None => Err(Failed::usage(format!("there is no command {name} {other}"))),
        },
    }
}

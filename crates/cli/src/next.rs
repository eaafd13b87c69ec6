//! The command to go on with after a success, for a person on a terminal.

use std::io::{self, IsTerminal as _};

use clap::ArgMatches;
use serde_json::Value;

use crate::say::{filled, say};

/// By command; `{which}` is the resource that it was about. After a write, it is `next` of the kind.
const NEXT: &[(&str, &str)] = &[
    ("status", "wicketgate events"),
    ("apply", "wicketgate status"),
    ("login", "wicketgate status"),
    ("logout", "wicketgate login --server URL --token-file FILE"),
    ("context list", "wicketgate context use NAME"),
    ("context use", "wicketgate status"),
    ("context set", "wicketgate status"),
    ("frontdoor list", "wicketgate context set --frontdoor NAME"),
    ("frontdoor get", "wicketgate status --frontdoor {which}"),
    ("frontdoor delete", "wicketgate frontdoor list"),
    ("tunnel list", "wicketgate tunnel get NAME"),
    ("tunnel get", "wicketgate tunnel history {which}"),
    ("tunnel delete", "wicketgate tunnel list"),
    ("tunnel config", "wicketgate tunnel watch {which}"),
    ("tunnel handover", "wicketgate tunnel watch {which}"),
    ("tunnel handover-links", "wicketgate tunnel handover {which}"),
    ("tunnel revoke-handover", "wicketgate tunnel handover-links {which}"),
    ("tunnel metrics", "wicketgate tunnel history {which}"),
    ("tunnel history", "wicketgate tunnel ike-log {which}"),
    ("tunnel unknown-peers", "wicketgate tunnel update --help"),
    ("tunnel ike-log", "wicketgate tunnel history {which}"),
    ("tunnel reset", "wicketgate tunnel get {which}"),
    ("share list", "wicketgate share check NAME"),
    ("share get", "wicketgate share check {which}"),
    ("share delete", "wicketgate share list"),
    ("share check", "wicketgate share metrics {which}"),
    ("share metrics", "wicketgate share check {which}"),
    ("share close-connections", "wicketgate share metrics {which}"),
    ("env list", "wicketgate env get NAME"),
    ("env get", "wicketgate agent list"),
    ("env delete", "wicketgate env list"),
    ("agent list", "wicketgate agent get NAME"),
    ("agent get", "wicketgate share list"),
    ("agent delete", "wicketgate agent list"),
    ("agent codes", "wicketgate agent revoke-code ID"),
    ("agent revoke-code", "wicketgate agent codes"),
    ("agent unknown", "wicketgate agent adopt ID"),
    ("agent adopt", "wicketgate agent get {which}"),
    ("agent enroll", "wicketgate agent list"),
    ("account list", "wicketgate account get NAME"),
    ("account get", "wicketgate account list"),
    ("account delete", "wicketgate account list"),
    ("location list", "wicketgate tunnel create --help"),
    ("location get", "wicketgate tunnel create --help"),
    ("gateway list", "wicketgate gateway join --location NAME"),
    ("gateway get", "wicketgate gateway list"),
    ("gateway delete", "wicketgate gateway list"),
    ("gateway join", "wicketgate gateway list"),
    ("gateway replace", "wicketgate gateway get {which}"),
    ("gateway join-tokens", "wicketgate gateway revoke-join-token ID"),
    ("gateway revoke-join-token", "wicketgate gateway join-tokens"),
    ("execution list", "wicketgate execution get ID"),
    ("execution get", "wicketgate execution list"),
];

/// What makes the first resource of a kind, after an empty list.
const FIRST: &[(&str, &str)] = &[
    ("tunnel", "wicketgate tunnel create --help"),
    ("share", "wicketgate share create --help"),
    ("env", "wicketgate agent enroll"),
    ("agent", "wicketgate agent enroll"),
    ("account", "wicketgate account create --help"),
];

/// Suggests a command whose properties, such as `{name}`, are those of the resource.
pub(crate) fn suggest(matches: &ArgMatches, command: &str, resource: &Value) {
    let is_seen = io::stderr().is_terminal() && io::stdout().is_terminal();
    if is_seen && is_for_people(matches) && !command.is_empty() {
        say(&format!("Next: {}", filled(command, resource)));
    }
}

/// Suggests what follows this command.
pub(crate) fn after(matches: &ArgMatches, command: &str, which: &str) {
    let next = NEXT.iter().find(|(done, _)| *done == command).map(|(_, next)| *next);
    suggest(matches, next.unwrap_or_default(), &serde_json::json!({ "which": which }));
}

/// Suggests what follows a list of resources.
pub(crate) fn after_list(matches: &ArgMatches, kind: &str, is_empty: bool) {
    match FIRST.iter().find(|(of, _)| is_empty && *of == kind) {
        Some((_, first)) => suggest(matches, first, &Value::Null),
        None => after(matches, &format!("{kind} list"), ""),
    }
}

/// Whether the output is the form for people. A command without a choice of the form has only that.
fn is_for_people(matches: &ArgMatches) -> bool {
    let chosen = |name: &str| matches.try_get_one::<String>(name).ok().flatten();
    let is_table = chosen("output").is_none_or(|form| form == "table" || form == "wide");
    is_table && chosen("json").is_none() && chosen("jq").is_none()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{
        acts::{Answer, act},
        arguments::commands,
        kind::KINDS,
    };

    /// What is followed ends by an interruption.
    const ENDLESS: &[&str] = &["events", "tunnel watch"];

    #[test]
    fn a_machine_gets_no_suggestion() {
        let is = |words: &str| {
            let command = commands().into_iter().find(|command| command.get_name() == "share").unwrap();
            let matches = command.try_get_matches_from(words.split(' ')).unwrap();
            is_for_people(matches.subcommand().unwrap().1)
        };
        assert!(is("share list") && is("share list -o wide"));
        for machine in ["--json name", "--jq .", "-o json", "-o yaml", "-o name"] {
            assert!(!is(&format!("share list {machine}")), "{machine}");
        }
        let logout = commands().into_iter().find(|command| command.get_name() == "logout").unwrap();
        assert!(is_for_people(&logout.try_get_matches_from(["logout"]).unwrap()));
    }

    #[test]
    fn each_command_has_a_next_one_that_exists() {
        let all = commands();
        let mut names = Vec::new();
        for command in &all {
            match command.get_subcommands().next() {
                None => names.push(command.get_name().to_owned()),
                Some(_) => names.extend(
                    command.get_subcommands().map(|c| format!("{} {}", command.get_name(), c.get_name())),
                ),
            }
        }
        let of_kind = |name: &str| KINDS.iter().find(|kind| name.split(' ').next() == Some(kind.name));
        for name in &names {
            let verb = name.split(' ').nth(1).unwrap_or_default();
            let is_write = ["create", "update"].contains(&verb)
                || of_kind(name)
                    .and_then(|kind| act(kind, verb))
                    .is_some_and(|a| a.answer == Answer::Resource);
            let has_next = match is_write {
                true => of_kind(name).is_some_and(|kind| !kind.next.is_empty()),
                false => NEXT.iter().any(|(done, _)| done == name),
            };
            assert!(has_next || ENDLESS.contains(&name.as_str()), "{name}");
        }
        for next in NEXT.iter().chain(FIRST).map(|(_, next)| *next).chain(KINDS.iter().map(|kind| kind.next))
        {
            let command = next.trim_start_matches("(umask 077; ").trim_start_matches("wicketgate ");
            let is_known =
                names.iter().any(|name| command == name || command.starts_with(&format!("{name} ")));
            assert!(is_known || next.is_empty(), "{next}");
        }
    }
}

//! Options of verbs that stand before the verb, where the parser knows none.

use clap::{ArgAction, Command};

/// The same words with the option behind the verb; `None` if no option of a verb stands before it.
pub(crate) fn option_behind(all: &Command, words: &[String]) -> Option<String> {
    let (first, rest) = words.split_first()?;
    let name = first.strip_prefix("--")?;
    let (name, has_value) = name.split_once('=').map_or((name, false), |(name, _)| (name, true));
    let takes_value = takes_value(all, name)? && !has_value;
    let (value, verb) = rest.split_at_checked(usize::from(takes_value))?;
    // A verb has to follow.
    all.find_subcommand(verb.first()?)?;
    Some([verb, std::slice::from_ref(first), value].concat().join(" "))
}

/// Whether the option of some verb with this name has a value. `None`: no verb has it.
fn takes_value(command: &Command, name: &str) -> Option<bool> {
    let own = command.get_arguments().find(|arg| arg.get_long() == Some(name));
    let own = own.map(|arg| matches!(arg.get_action(), ArgAction::Set | ArgAction::Append));
    own.or_else(|| command.get_subcommands().find_map(|verb| takes_value(verb, name)))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_option_before_the_verb_is_shown_where_it_belongs() {
        let all = crate::commands();
        let meant = |line: &str| option_behind(&all, &line.split(' ').map(str::to_owned).collect::<Vec<_>>());
        for (line, expected) in [
            ("--frontdoor acme agent enroll", Some("agent enroll --frontdoor acme")),
            ("--frontdoor=acme agent enroll", Some("agent enroll --frontdoor=acme")),
            ("--json name share list", Some("share list --json name")),
            ("--wait share list", Some("share list --wait")),
            ("--nonsense share list", None),
            ("--help", None),
            ("share list --frontdoor acme", None),
        ] {
            assert_eq!(meant(line).as_deref(), expected, "{line}");
        }
    }
}

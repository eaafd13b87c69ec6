//! A program's definitions as a page of the book.

use clap::{Arg, Command};

/// All verbs that are shown, with their arguments, in Markdown. Options under a heading are those that many verbs have: they are
/// described once, at the end. `title` is the page's, and `about` its first paragraph.
pub fn commands(mut program: Command, title: &str, about: &str) -> String {
    program.build();
    let mut all = Vec::new();
    collect(&program, &mut all);
    let mut page = format!("# {title}\n\n{about}\n");
    let mut common: Vec<String> = Vec::new();
    for command in all {
        let usage = command.clone().render_usage().to_string();
        let usage = usage.trim_start_matches("Usage:").split_whitespace().collect::<Vec<_>>().join(" ");
        let name = command.get_bin_name().unwrap_or(command.get_name());
        page += &format!("\n## {name}\n\n{}\n\n`{usage}`\n", told(command));
        let (shared, own): (Vec<_>, Vec<_>) =
            arguments(command).partition(|arg| arg.get_help_heading().is_some());
        page += &table(&own.into_iter().map(row).collect::<Vec<_>>());
        for row in shared.into_iter().map(row) {
            if !common.contains(&row) {
                common.push(row);
            }
        }
    }
    if !common.is_empty() {
        page += "\n## Options of several commands\n\nA command takes those of these that make sense for it; its `--help` lists them.\n";
        page += &table(&common);
    }
    page
}

/// The commands that do something, in the order of `--help`.
fn collect<'a>(command: &'a Command, all: &mut Vec<&'a Command>) {
    let verbs = || command.get_subcommands().filter(|verb| !verb.is_hide_set() && verb.get_name() != "help");
    if verbs().next().is_none() {
        all.push(command);
    }
    verbs().for_each(|verb| collect(verb, all));
}

fn arguments(command: &Command) -> impl Iterator<Item = &Arg> {
    let is_general = |arg: &&Arg| ["help", "version"].contains(&arg.get_id().as_str());
    command.get_arguments().filter(move |arg| !arg.is_hide_set() && !is_general(arg))
}

fn told(command: &Command) -> String {
    let about = command.get_long_about().or_else(|| command.get_about());
    flat(&about.map(ToString::to_string).unwrap_or_default())
}

fn table(rows: &[String]) -> String {
    if rows.is_empty() {
        String::new()
    } else {
        format!("\n| argument | meaning |\n|---|---|\n{}", rows.concat())
    }
}

/// A line of a table.
fn row(arg: &Arg) -> String {
    let help = arg.get_long_help().or_else(|| arg.get_help()).map(ToString::to_string).unwrap_or_default();
    let mut meaning = flat(&help).replace('|', "\\|");
    let code = |text: &str| format!("`{}`", text.replace('|', "\\|"));
    let values: Vec<_> = arg.get_possible_values().iter().map(|value| code(value.get_name())).collect();
    if arg.get_action().takes_values() && !values.is_empty() && !arg.is_hide_possible_values_set() {
        meaning += &format!(". One of {}", values.join(", "));
    }
    let defaults: Vec<_> =
        arg.get_default_values().iter().map(|value| code(&value.to_string_lossy())).collect();
    if arg.get_action().takes_values() && !defaults.is_empty() && !arg.is_hide_default_value_set() {
        meaning += &format!(". Default: {}", defaults.join(", "));
    }
    if let Some(variable) = arg.get_env() {
        meaning += &format!(". Or {}", code(&variable.to_string_lossy()));
    }
    format!("| {} | {meaning} |\n", code(&arg.to_string()))
}

/// In one line.
fn flat(text: &str) -> String {
    text.split_whitespace().collect::<Vec<_>>().join(" ")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_verb_has_its_arguments_and_shared_ones_are_told_once() {
        let verb = |name: &'static str| {
            let server = Arg::new("server").long("server").help("Where").help_heading("Server");
            Command::new(name).about("Does it").arg(server)
        };
        let own = Arg::new("limit").long("limit").default_value("7").env("LIMIT").help("a|b");
        let share = Command::new("share").subcommands([verb("list").arg(own), verb("get"), verb("delete")]);
        let program = Command::new("gate").subcommands([share, verb("status"), verb("man").hide(true)]);
        let page = commands(program, "Gate", "All.");
        assert!(
            page.starts_with("# Gate\n\nAll.\n\n## gate share list\n\nDoes it\n\n`gate share list"),
            "{page}"
        );
        assert!(page.contains("| `--limit <limit>` | a\\|b. Default: `7`. Or `LIMIT` |\n"), "{page}");
        assert_eq!(page.matches("--server <server>` |").count(), 1, "{page}");
        assert!(!page.contains("gate man") && !page.contains("--help` |"), "{page}");
    }
}

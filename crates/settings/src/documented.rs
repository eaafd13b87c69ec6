//! A settings file with every setting of a subcommand, what it means, and its default.

use crate::settings_file::flags;
use clap::{Arg, ArgAction, Command};

/// Characters of a line.
const WIDTH: usize = 100;

/// The file's text. Every setting is commented out, so that the file as it is changes nothing.
pub(crate) fn documented(command: &Command, start: &str) -> String {
    let mut text = comment(start);
    text += &comment(
        "Keys are the names of the command's flags. A flag on the command line wins over an environment variable, and that \
         over this file.",
    );
    for (name, arg) in flags(command) {
        text.push('\n');
        let help = arg.get_long_help().or(arg.get_help()).map(ToString::to_string).unwrap_or_default();
        text += &comment(&format!("{}.", help.trim_end_matches('.')));
        if let Some(variable) = arg.get_env() {
            text += &comment(&format!("Environment: {}", variable.display()));
        }
        text += &format!("#{name} = {}\n", example(arg));
    }
    text
}

/// The default, or what stands for a value.
fn example(arg: &Arg) -> String {
    if matches!(arg.get_action(), ArgAction::SetTrue) {
        return "false".to_owned();
    }
    let default = arg.get_default_values().first().map(|value| value.to_string_lossy().into_owned());
    let names = arg.get_value_names().unwrap_or_default();
    let value = default.unwrap_or_else(|| names.first().map(ToString::to_string).unwrap_or_default());
    let is_number = value.parse::<u64>().is_ok() || value == "NUMBER" || value == "SECONDS";
    let quoted = if is_number { value } else { format!("{value:?}") };
    if matches!(arg.get_action(), ArgAction::Append) { format!("[{quoted}]") } else { quoted }
}

fn comment(text: &str) -> String {
    let mut lines = vec![String::from("#")];
    for word in text.split_whitespace() {
        if lines.last().is_some_and(|line| line.len() + 1 + word.len() > WIDTH) {
            lines.push(String::from("#"));
        }
        if let Some(line) = lines.last_mut() {
            *line += " ";
            *line += word;
        }
    }
    lines.join("\n") + "\n"
}

//! Words for people, on standard error: standard output is data.

use std::io::{self, Write as _};

use serde_json::Value;
use wicketgate_system::terminal::printable_lines;

use crate::table::cell;

/// Says a sentence. A server's words control no terminal.
pub(crate) fn say(words: &str) {
    // Words that cannot be printed are no failure.
    let _ = writeln!(io::stderr(), "{}", printable_lines(words));
}

/// Says a sentence about a resource, if it has all properties that the sentence names: `{name}`.
pub(crate) fn say_of(sentence: &str, resource: &Value) {
    let words = filled(sentence, resource);
    if !words.is_empty() && !words.contains('{') {
        say(&words);
    }
}

/// A sentence with the resource's properties in place of their names.
pub(crate) fn filled(command: &str, resource: &Value) -> String {
    let properties = resource.as_object().into_iter().flatten();
    properties
        .fold(command.to_owned(), |text, (name, value)| text.replace(&format!("{{{name}}}"), &cell(value)))
}

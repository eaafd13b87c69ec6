//! A settings file, checked against the flags that it sets.

use crate::error::{FileFault, SettingsError};
use clap::{Arg, ArgAction, Command};
use std::{
    collections::{BTreeMap, BTreeSet},
    fs,
    path::{Path, PathBuf},
};
use toml::de::{DeTable, DeValue};

/// The flag that names the file. A subcommand that has it can be configured.
pub const FILE_FLAG: &str = "config";

/// See the module.
#[derive(Debug, Clone)]
pub(crate) struct SettingsFile {
    path: PathBuf,
    settings: BTreeMap<String, Setting>,
}

#[derive(Debug, Clone)]
struct Setting {
    line: usize,
    value: Value,
}

#[derive(Debug, Clone, PartialEq, Eq)]
enum Value {
    Switch(bool),
    /// One, or those of a repeatable flag.
    Texts(Vec<String>),
}

impl SettingsFile {
    /// Reads the settings of a subcommand: those that are right, and what is wrong with the others.
    ///
    /// # Errors
    /// It cannot be read.
    pub(crate) fn read(path: &Path, command: &Command) -> Result<(Self, Vec<FileFault>), SettingsError> {
        let text = fs::read_to_string(path).map_err(|e| {
            let (at, what) = (path.display().to_string(), format!("cannot be read: {e}"));
            SettingsError::File(vec![FileFault { at, line: 0, what, setting: None }])
        })?;
        let line_of = |offset: usize| text[..offset].lines().count().max(1);
        let (table, errors) = DeTable::parse_recoverable(&text);
        let mut faults = malformed(path, &text, &errors);
        let mut settings = BTreeMap::new();
        for (key, value) in table.get_ref().iter() {
            let (line, name) = (line_of(key.span().end), key.get_ref().to_string());
            // What the parser makes of the rest of such a line means nothing.
            if let Some(fault) = faults.iter_mut().find(|fault| fault.line == line) {
                fault.setting = Some(name);
                continue;
            }
            let read = match flag(command, &name) {
                None => Err(unknown(command, &name)),
                Some(flag) => value_of(flag, value.get_ref())
                    .map_err(|what| (format!("`{name}` {what}"), Some(name.clone()))),
            };
            match read {
                Ok(value) => drop(settings.insert(name, Setting { line, value })),
                Err((what, setting)) => {
                    faults.push(FileFault { at: place(path, line), line, what, setting });
                }
            }
        }
        Ok((Self { path: path.to_owned(), settings }, faults))
    }

    /// The settings as flags, but for those that are given in another way.
    pub(crate) fn flags(&self, given: &BTreeSet<String>) -> Vec<String> {
        let settings = self.settings.iter().filter(|(name, _)| !given.contains(*name));
        let flags = settings.flat_map(|(name, setting)| match &setting.value {
            Value::Switch(true) => vec![format!("--{name}")],
            Value::Switch(false) => Vec::new(),
            Value::Texts(texts) => texts.iter().map(|text| format!("--{name}={text}")).collect(),
        });
        flags.collect()
    }

    pub(crate) fn path(&self) -> &Path {
        &self.path
    }

    /// File and line of a setting.
    pub(crate) fn place(&self, name: &str) -> Option<String> {
        self.settings.get(name).map(|setting| place(&self.path, setting.line))
    }

    /// A fault of a setting that is there, or of one value of its list. It is as if that was not there from now on.
    pub(crate) fn leave_out(&mut self, name: &str, value: Option<&str>, what: &str) -> Option<FileFault> {
        let Setting { line, value: all } = self.settings.get_mut(name)?;
        let line = *line;
        let rest = match (all, value) {
            (Value::Texts(texts), Some(value))
                if texts.len() > 1 && texts.iter().any(|text| text == value) =>
            {
                texts.retain(|text| text != value);
                texts.len()
            }
            _ => 0,
        };
        if rest == 0 {
            self.settings.remove(name);
        }
        let (at, setting) = (place(&self.path, line), Some(name.to_owned()));
        Some(FileFault { at, line, what: what.to_owned(), setting })
    }

    /// The names of the settings.
    pub(crate) fn names(&self) -> impl Iterator<Item = &str> {
        self.settings.keys().map(String::as_str)
    }

    /// The same file without a setting.
    pub(crate) fn without(&self, name: &str) -> Self {
        let mut file = self.clone();
        file.settings.remove(name);
        file
    }

    /// The names of the settings that differ.
    pub(crate) fn changed(&self, other: &Self) -> BTreeSet<String> {
        let value = |file: &Self, name: &str| file.settings.get(name).map(|s| s.value.clone());
        let names = self.settings.keys().chain(other.settings.keys());
        names.filter(|name| value(self, name) != value(other, name)).cloned().collect()
    }
}

fn place(path: &Path, line: usize) -> String {
    format!("{}:{line}", path.display())
}

/// What is no TOML. Of each line, the first fault: others follow from it.
fn malformed(path: &Path, text: &str, errors: &[toml::de::Error]) -> Vec<FileFault> {
    let mut faults: Vec<FileFault> = Vec::new();
    for error in errors {
        let line = error.span().map_or(0, |span| text[..span.start].matches('\n').count() + 1);
        if faults.iter().any(|fault| fault.line == line) {
            continue;
        }
        let what = error.message().lines().collect::<Vec<_>>().join(", ");
        // The parser does not say which.
        let key = error.span().and_then(|span| text.get(span)).filter(|_| what == "duplicate key");
        let key = key.map(|key| format!(" `{}`: it may be set once", key.trim())).unwrap_or_default();
        let at = if line == 0 { path.display().to_string() } else { place(path, line) };
        faults.push(FileFault { at, line, what: what + &key, setting: None });
    }
    faults
}

/// The flags that a file can set: all that have a value or are switches, but for the one that names the file.
pub(crate) fn flags(command: &Command) -> impl Iterator<Item = (&str, &Arg)> {
    command.get_arguments().filter_map(|arg| {
        let name = arg.get_long().filter(|name| *name != FILE_FLAG)?;
        let is_setting = matches!(arg.get_action(), ArgAction::Set | ArgAction::Append | ArgAction::SetTrue);
        // A secret has a file of its own.
        let is_secret = arg.is_hide_env_values_set();
        (is_setting && !is_secret && !arg.is_hide_set()).then_some((name, arg))
    })
}

fn flag<'a>(command: &'a Command, name: &str) -> Option<&'a Arg> {
    flags(command).find(|(flag, _)| *flag == name).map(|(_, arg)| arg)
}

/// The words, and the setting that is probably meant.
fn unknown(command: &Command, name: &str) -> (String, Option<String>) {
    let alike = flags(command).map(|(flag, _)| (strsim::jaro(flag, name), flag));
    // As the command line's parser has it.
    let like = alike.filter(|(likeness, _)| *likeness > 0.7).max_by(|a, b| a.0.total_cmp(&b.0));
    let like = like.map(|(_, flag)| flag.to_owned());
    let hint = like.as_ref().map(|flag| format!("; is `{flag}` meant?")).unwrap_or_default();
    (format!("there is no setting `{name}`{hint}"), like)
}

fn value_of(flag: &Arg, value: &DeValue<'_>) -> Result<Value, &'static str> {
    let texts = match (flag.get_action(), value) {
        (_, DeValue::Table(_)) => return Err("is not a section: settings are outside of sections"),
        (ArgAction::SetTrue, DeValue::Boolean(on)) => return Ok(Value::Switch(*on)),
        (ArgAction::SetTrue, _) => return Err("is true or false"),
        // An empty allow list would be read as one that allows nothing, and be one that allows everything.
        (ArgAction::Append, DeValue::Array(values)) if values.is_empty() => {
            return Err("is an empty list, which is the same as none: leave it out, or give it a value");
        }
        (ArgAction::Append, DeValue::Array(values)) => {
            values.iter().map(|value| text(value.get_ref())).collect::<Result<_, _>>()?
        }
        (_, DeValue::Array(_)) => return Err("has one value, not a list"),
        (_, value) => vec![text(value)?],
    };
    Ok(Value::Texts(texts))
}

fn text(value: &DeValue<'_>) -> Result<String, &'static str> {
    match value {
        DeValue::String(text) => Ok(text.to_string()),
        DeValue::Integer(number) => Ok(number.to_string()),
        DeValue::Float(number) => Ok(number.as_str().to_owned()),
        DeValue::Boolean(_) => Err("is not true or false: it has a value"),
        _ => Err("must be a text or a number"),
    }
}

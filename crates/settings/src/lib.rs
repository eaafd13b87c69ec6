//! A program's settings: from its command line, its environment and a TOML file, in this order of precedence.
//!
//! The file has the long flags' names as keys. Its settings are appended to the command line as flags, so that a flag and a
//! setting have one definition, one parser and one set of checks.

pub mod config_command;
pub mod definitions;
mod documented;
mod error;
mod needs;
mod plain_words;
pub mod reference;
mod settings_faults;
mod settings_file;

use clap::{
    Arg, ArgMatches, Command, Parser,
    error::{ContextKind, ContextValue, ErrorKind},
    parser::ValueSource,
};
use needs::{in_need, missing, name_of};
use plain_words::in_plain_words;
use settings_file::SettingsFile;
use std::{collections::BTreeSet, ffi::OsString, path::PathBuf};
use tracing::{error, info, warn};
use wicketgate_system::log;

pub use error::{FileFault, SettingsError};
pub use settings_faults::SettingsFaults;
pub use settings_file::FILE_FLAG;

/// What a program was started with, to read its file again.
#[derive(Debug)]
pub struct Settings {
    arguments: Vec<OsString>,
    file: Option<File>,
}

#[derive(Debug)]
struct File {
    started_with: SettingsFile,
    last_read: SettingsFile,
    /// Flags that the command line or the environment has: the file does not change them.
    given: BTreeSet<String>,
}

/// The names of settings that a reload has changed, in alphabetical order.
#[derive(Debug, Default, PartialEq, Eq)]
pub struct Changes {
    /// Since the file was last read, and now applied.
    pub applied: Vec<String>,
    /// Since the start, and not applied before a restart.
    pub waiting: Vec<String>,
}

/// Parses this process's command line with its settings file. Exits with 0 after `--help` and with 2 after an error, as the
/// command line's parser does.
pub fn parse<P: Parser>() -> (P, Settings) {
    parse_from(std::env::args_os().collect())
}

/// As [`parse`], of this command line.
pub fn parse_from<P: Parser>(arguments: Vec<OsString>) -> (P, Settings) {
    let error = match Settings::read(arguments) {
        Ok(read) => return read,
        Err(SettingsError::CommandLine(error)) => *error,
        Err(error @ SettingsError::File(_)) => P::command().error(ErrorKind::InvalidValue, error.to_string()),
    };
    let text = error.to_string();
    let plain = in_plain_words(&text);
    if error.use_stderr() && (log::is_journal() || plain != text) {
        log::last_words(without_usage(&plain));
        std::process::exit(error.exit_code());
    }
    error.exit()
}

impl Settings {
    /// Parses a command line, its first argument being the program's name, with the file that it names.
    ///
    /// # Errors
    /// The command line or the file is wrong.
    pub fn read<P: Parser>(arguments: Vec<OsString>) -> Result<(P, Self), SettingsError> {
        let (parsed, file) = parsed::<P>(&arguments)?;
        let file = file.map(|(file, given)| File { started_with: file.clone(), last_read: file, given });
        Ok((parsed, Self { arguments, file }))
    }

    /// Whether there is something to reload.
    pub fn has_file(&self) -> bool {
        self.file.is_some()
    }

    /// Reads the file again. `applied` are the settings that the caller applies while it runs. `None`: the command line names no file.
    ///
    /// # Errors
    /// The file is wrong now. The settings stay as they were.
    pub fn reload<P: Parser>(&mut self, applied: &[&str]) -> Result<Option<(P, Changes)>, SettingsError> {
        let Some(file) = &mut self.file else { return Ok(None) };
        let (parsed, Some((now, _))) = parsed::<P>(&self.arguments)? else { return Ok(None) };
        let is_applied = |name: &String| applied.contains(&name.as_str());
        let is_from_file = |name: &String| !file.given.contains(name);
        let since = |before: &SettingsFile| before.changed(&now).into_iter().filter(is_from_file);
        let changes = Changes {
            applied: since(&file.last_read).filter(is_applied).collect(),
            waiting: since(&file.started_with).filter(|name| !is_applied(name)).collect(),
        };
        file.last_read = now;
        Ok(Some((parsed, changes)))
    }

    /// As [`Settings::reload`]; logs the result. `None`: nothing was read.
    pub fn reload_logged<P: Parser>(&mut self, applied: &[&str]) -> Option<P> {
        match self.reload(applied) {
            Ok(read) => {
                let (parsed, Changes { applied, waiting }) = read?;
                if !waiting.is_empty() {
                    warn!(settings = waiting.join(", "), "changed settings take effect after a restart only");
                }
                info!(changed = applied.join(", "), "the configuration file was read again");
                Some(parsed)
            }
            Err(error) => {
                // A line of the log for each fault.
                for error in error.to_string().lines() {
                    error!(
                        error,
                        "the configuration file is wrong and was not reloaded: correct it and reload again"
                    );
                }
                None
            }
        }
    }
}

/// A file, and the flags that win over it.
type FileAndFlags = (SettingsFile, BTreeSet<String>);
/// The same, with what is wrong in the file.
type Read = (SettingsFile, BTreeSet<String>, Vec<FileFault>);

/// What is right of a command line with its file, and what is wrong in the file.
pub(crate) struct Lenient<P> {
    /// `None`: without what is wrong, something is missing.
    pub(crate) parsed: Option<P>,
    file: Option<FileAndFlags>,
    /// In the order of the file's lines.
    pub(crate) faults: Vec<FileFault>,
}

impl<P> Lenient<P> {
    pub(crate) fn file(&self) -> Option<&SettingsFile> {
        self.file.as_ref().map(|(file, _)| file)
    }
}

/// Parses a command line with its file.
fn parsed<P: Parser>(arguments: &[OsString]) -> Result<(P, Option<FileAndFlags>), SettingsError> {
    match lenient(arguments)? {
        Lenient { parsed: Some(parsed), file, faults } if faults.is_empty() => Ok((parsed, file)),
        Lenient { faults, .. } => Err(SettingsError::File(faults)),
    }
}

/// Parses a command line with its file, and goes on behind each fault of the file.
///
/// # Errors
/// The command line is wrong, or the file cannot be read.
pub(crate) fn lenient<P: Parser>(arguments: &[OsString]) -> Result<Lenient<P>, SettingsError> {
    let Some((mut file, given, mut faults)) = configured(&P::command(), arguments)? else {
        let parsed = Some(P::try_parse_from(arguments).map_err(Box::new)?);
        return Ok(Lenient { parsed, file: None, faults: Vec::new() });
    };
    // Each round has one setting less.
    let parsed = loop {
        let error = match P::try_parse_from(command_line(arguments, &file, &given)) {
            Ok(parsed) => break Some(parsed),
            Err(error) => error,
        };
        match blamed(&error, &mut file, &given) {
            Some(fault) => faults.push(fault),
            None => match in_need::<P>(&error, &mut file, |file| command_line(arguments, file, &given)) {
                Some(fault) => faults.push(fault),
                None if faults.is_empty() && missing(&error, &file, &faults).is_none() => {
                    return Err(Box::new(error).into());
                }
                None => {
                    faults.extend(missing(&error, &file, &faults));
                    break None;
                }
            },
        }
    };
    faults.sort_by_key(|fault| fault.line);
    Ok(Lenient { parsed, file: Some((file, given)), faults })
}

/// The command line with the settings of its file.
fn command_line(arguments: &[OsString], file: &SettingsFile, given: &BTreeSet<String>) -> Vec<OsString> {
    let flags = file.flags(given).into_iter().map(OsString::from);
    arguments.iter().cloned().chain(flags).collect()
}

/// The file that the command line names, and the flags that the command line or the environment has.
fn configured(command: &Command, arguments: &[OsString]) -> Result<Option<Read>, SettingsError> {
    // A required flag may be in the file. What is wrong on the command line itself is reported by the second parse.
    let matches = command.clone().ignore_errors(true).try_get_matches_from(arguments);
    let Ok(matches) = matches else { return Ok(None) };
    let (command, matches) = innermost(command, &matches);
    let Some(path) = matches.try_get_one::<PathBuf>(FILE_FLAG).ok().flatten() else { return Ok(None) };
    let (file, faults) = SettingsFile::read(path, command)?;
    let is_given = |arg: &&Arg| {
        let source = matches.value_source(arg.get_id().as_str());
        matches!(source, Some(ValueSource::CommandLine | ValueSource::EnvVariable))
    };
    let given = command.get_arguments().filter(is_given).filter_map(|arg| arg.get_long().map(str::to_owned));
    Ok(Some((file, given.collect(), faults)))
}

/// The subcommand that a command line names, and its arguments.
fn innermost<'a>(mut command: &'a Command, mut matches: &'a ArgMatches) -> (&'a Command, &'a ArgMatches) {
    while let Some((name, inner)) = matches.subcommand() {
        let Some(subcommand) = command.find_subcommand(name) else { break };
        (command, matches) = (subcommand, inner);
    }
    (command, matches)
}

/// The parser's error without the usage that follows it: a journal has no reader who types a command.
fn without_usage(text: &str) -> &str {
    let end = ["\n\nUsage:", "\n\nFor more information"].iter().filter_map(|rest| text.find(rest)).min();
    end.map_or(text, |end| &text[..end])
}

/// The parser's error in terms of the file, if it concerns one of its settings, which is left out from now on.
fn blamed(error: &clap::Error, file: &mut SettingsFile, given: &BTreeSet<String>) -> Option<FileFault> {
    let flag = error.get(ContextKind::InvalidArg)?.to_string();
    let name = name_of(&flag)?;
    // The command line's own is at fault.
    if given.contains(name) {
        return None;
    }
    let value = match error.get(ContextKind::InvalidValue) {
        Some(ContextValue::String(value)) => Some(value.as_str()),
        _ => None,
    };
    let text = in_plain_words(&error.to_string());
    file.leave_out(name, value, text.lines().next().unwrap_or_default().trim_start_matches("error: "))
}

#[cfg(test)]
mod tests {
    use super::*;
    use clap::Args;
    use std::{fs, path::Path};

    #[derive(Debug, Parser)]
    enum Program {
        Serve(Serve),
        Stop,
    }

    #[derive(Debug, Args)]
    struct Serve {
        #[arg(long, value_name = "FILE")]
        config: Option<PathBuf>,
        /// Where.
        #[arg(long, value_name = "URL")]
        server: String,
        #[arg(long, default_value_t = 30, value_parser = clap::value_parser!(u32).range(..=60))]
        drain: u32,
        #[arg(long)]
        allow: Vec<String>,
        #[arg(long, value_parser = clap::value_parser!(u16).range(1..=9000))]
        ports: Vec<u16>,
        #[arg(long, requires = "cert_key")]
        cert: Option<String>,
        #[arg(long)]
        cert_key: Option<String>,
        #[arg(long)]
        insecure: bool,
        #[arg(long, env = "WICKETGATE_SETTINGS_TEST_NAME")]
        name: Option<String>,
    }

    fn read(file: &Path, more: &[&str]) -> Result<(Serve, Settings), String> {
        let arguments = ["program", "serve", "--config"].map(OsString::from).into_iter();
        let arguments = arguments.chain([file.into()]).chain(more.iter().map(OsString::from));
        match Settings::read(arguments.collect()) {
            Ok((Program::Serve(serve), settings)) => Ok((serve, settings)),
            Ok((Program::Stop, _)) => unreachable!(),
            Err(error) => Err(error.to_string().replace(&file.display().to_string(), "FILE")),
        }
    }

    fn with(text: &str, more: &[&str]) -> Result<Serve, String> {
        let dir = tempfile::tempdir().unwrap();
        let file = dir.path().join("serve.toml");
        fs::write(&file, text).unwrap();
        read(&file, more).map(|(serve, _)| serve)
    }

    #[test]
    fn the_command_line_wins_over_the_file_and_the_file_over_defaults() {
        let text = "server = 'a'\ndrain = 5\nallow = ['x', '-y']\ninsecure = true\n";
        let serve = with(text, &[]).unwrap();
        assert_eq!((serve.server.as_str(), serve.drain, serve.insecure), ("a", 5, true));
        assert_eq!(serve.allow, ["x", "-y"]);
        assert_eq!(serve.name, None);
        let serve = with(text, &["--server", "b", "--allow=z"]).unwrap();
        assert_eq!((serve.server.as_str(), serve.drain), ("b", 5));
        assert_eq!(serve.allow, ["z"], "a list is replaced as a whole");
        let serve = with("server = 'a'\nallow = 'one'\ninsecure = false", &[]).unwrap();
        assert_eq!((serve.allow, serve.insecure, serve.drain), (vec!["one".to_owned()], false, 30));
    }

    #[test]
    fn a_wrong_file_is_refused_by_name_and_line() {
        for (text, error) in [
            ("server = 'a'\nservr = 1", "FILE:2: there is no setting `servr`; is `server` meant?"),
            ("server = 'a'\nconfig = 'x'", "FILE:2: there is no setting `config`"),
            (
                "server = 'a'\ndrain = 61",
                "FILE:2: invalid value '61' for '--drain <DRAIN>': 61 is not from 0 to 60",
            ),
            ("server = ['a', 'b']", "FILE:1: `server` has one value, not a list"),
            ("server = 'a'\ninsecure = 'yes'", "FILE:2: `insecure` is true or false"),
            (
                "server = 'a'\nallow = []",
                "FILE:2: `allow` is an empty list, which is the same as none: leave it out, or give it a value",
            ),
            ("server = true", "FILE:1: `server` is not true or false: it has a value"),
            ("[server]\nurl = 1", "FILE:1: `server` is not a section: settings are outside of sections"),
            ("server = 'a'\nserver = 'b'", "FILE:2: duplicate key `server`: it may be set once"),
            ("server = ", "FILE:1: string values must be quoted, expected literal string"),
        ] {
            assert_eq!(with(text, &[]).unwrap_err(), error, "{text}");
        }
        for (text, errors) in [
            (
                "servr = 'a'\ndrain = 61\ninsecure = 'yes'\nallow = []\nnmae = 1",
                "FILE:1: there is no setting `servr`; is `server` meant?\n\
                 FILE:2: invalid value '61' for '--drain <DRAIN>': 61 is not from 0 to 60\n\
                 FILE:3: `insecure` is true or false\n\
                 FILE:4: `allow` is an empty list, which is the same as none: leave it out, or give it a value\n\
                 FILE:5: there is no setting `nmae`; is `name` meant?",
            ),
            (
                "drain = 61\nallow = []",
                "FILE: no line sets `server`, which is needed\nFILE:1: invalid\nFILE:2: `allow`",
            ),
            // Each value of a list.
            (
                "server = 'a'\nports = [1, 'x', 70000, 2, '']",
                "FILE:2: invalid value 'x' for '--ports <PORTS>': it must be a whole number\n\
                 FILE:2: invalid value '70000' for '--ports <PORTS>': 70000 is not from 1 to 9000\n\
                 FILE:2: invalid value '' for '--ports <PORTS>': it must be a whole number",
            ),
            // What needs another one is said where it is.
            (
                "server = 'a'\ndrain = 61\ncert = 'x'",
                "FILE:2: invalid\nFILE:3: `cert` needs `cert-key`, which is not set",
            ),
            ("server = 'a'\ncert = 'x'", "FILE:2: `cert` needs `cert-key`, which is not set"),
            (
                "server = 'a'\ndrain = \nallow = x\nservr = 1",
                "FILE:2: string values\nFILE:3: string values\nFILE:4: there is",
            ),
        ] {
            let told = with(text, &[]).unwrap_err();
            let is_told = told.lines().zip(errors.lines()).all(|(line, start)| line.starts_with(start));
            assert!(is_told && told.lines().count() == errors.lines().count(), "{text}: {told}");
        }
        let missing = read(Path::new("/nonexistent/serve.toml"), &[]).unwrap_err();
        assert_eq!(missing, "FILE: cannot be read: No such file or directory (os error 2)");
        assert_eq!(with("drain = 1", &[]).unwrap_err(), "FILE: no line sets `server`, which is needed");
        let usage = with("server = 'a'", &["--drain", "61"]).unwrap_err();
        assert!(usage.starts_with("error: invalid value '61'"), "{usage}");
        assert_eq!(
            without_usage(&usage),
            "error: invalid value '61' for '--drain <DRAIN>': 61 is not in 0..=60"
        );
        let usage = with("server = 'a'", &["--drian", "5"]).unwrap_err();
        let line = without_usage(&usage);
        assert!(line.ends_with("exists: '--drain'") && usage.contains("Usage:"), "{usage}");
    }

    #[test]
    fn a_reload_names_what_has_changed_and_keeps_the_settings_when_the_file_is_wrong() {
        let dir = tempfile::tempdir().unwrap();
        let file = dir.path().join("serve.toml");
        fs::write(&file, "server = 'a'\ndrain = 5\nallow = ['x']").unwrap();
        let (_, mut settings) = read(&file, &["--drain", "6"]).unwrap();
        let names = |names: &[&str]| names.iter().map(|name| (*name).to_owned()).collect::<Vec<_>>();
        let changes =
            |applied: &[&str], waiting: &[&str]| Changes { applied: names(applied), waiting: names(waiting) };
        fs::write(&file, "server = 'a'\nallow = ['x', 'y']\ndrain = 7\ninsecure = true").unwrap();
        let (parsed, changed) = settings.reload::<Program>(&["allow"]).unwrap().unwrap();
        // The command line has a drain.
        assert_eq!(changed, changes(&["allow"], &["insecure"]));
        let Program::Serve(serve) = parsed else { unreachable!() };
        assert_eq!((serve.allow.len(), serve.drain), (2, 6));
        fs::write(&file, "drain = 'x'").unwrap();
        settings.reload::<Program>(&["allow"]).unwrap_err();
        fs::write(&file, "server = 'b'\nallow = ['x', 'y']\ninsecure = true").unwrap();
        // What waits for a restart still does.
        let changed = settings.reload::<Program>(&["allow"]).unwrap().unwrap().1;
        assert_eq!(changed, changes(&[], &["insecure", "server"]));
        fs::write(&file, "server = 'a'").unwrap();
        assert_eq!(settings.reload::<Program>(&["allow"]).unwrap().unwrap().1, changes(&["allow"], &[]));
        let (_, mut none) = Settings::read::<Program>(vec!["program".into(), "stop".into()]).unwrap();
        assert!(none.reload::<Program>(&[]).unwrap().is_none());
    }
}

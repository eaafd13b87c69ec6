//! Settings that are not there, and that the parser needs: all together, or beside another one.

use crate::{error::FileFault, settings_file::SettingsFile};
use clap::{
    Parser,
    error::{ContextKind, ContextValue, ErrorKind},
};
use std::ffi::OsString;

/// A setting that needs another one, which is not there: without it, nothing is missing. It is left out from now on.
pub(crate) fn in_need<P: Parser>(
    error: &clap::Error,
    file: &mut SettingsFile,
    command_line: impl Fn(&SettingsFile) -> Vec<OsString>,
) -> Option<FileFault> {
    let needed = missing_settings(error)?;
    let is_satisfied = |name: &&str| {
        let without = P::try_parse_from(command_line(&file.without(name)));
        without.err().and_then(|error| missing_settings(&error)).is_none()
    };
    let name = file.names().find(is_satisfied)?.to_owned();
    file.leave_out(&name, None, &format!("`{name}` needs `{}`, which is not set", needed.join("`, `")))
}

/// The settings that a command line has to have besides, if that is what the parser says.
fn missing_settings(error: &clap::Error) -> Option<Vec<String>> {
    let Some(ContextValue::Strings(flags)) = error.get(ContextKind::InvalidArg) else { return None };
    let names: Vec<_> = flags.iter().filter_map(|flag| name_of(flag)).map(str::to_owned).collect();
    (error.kind() == ErrorKind::MissingRequiredArgument && !names.is_empty()).then_some(names)
}

/// The setting that `--name <VALUE>` stands for.
pub(crate) fn name_of(flag: &str) -> Option<&str> {
    flag.strip_prefix("--")?.split([' ', '=', '[']).next()
}

/// The settings that the file needs besides, but for those that may be there and are wrong. No line has them.
pub(crate) fn missing(error: &clap::Error, file: &SettingsFile, faults: &[FileFault]) -> Option<FileFault> {
    let is_known = |name: &String| faults.iter().any(|fault| fault.setting.as_ref() == Some(name));
    let names: Vec<_> = missing_settings(error)?.into_iter().filter(|name| !is_known(name)).collect();
    (!names.is_empty()).then(|| FileFault {
        at: file.path().display().to_string(),
        line: 0,
        what: format!("no line sets `{}`, which is needed", names.join("`, `")),
        setting: None,
    })
}

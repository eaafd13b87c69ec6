//! The verb `config` of a program: checks a settings file, or prints one with every setting.

use crate::{SettingsFaults, documented::documented, lenient, settings_file::FILE_FLAG};
use anyhow::Context as _;
use clap::{Parser, Subcommand};
use std::{
    ffi::OsString,
    path::{Path, PathBuf},
};
use wicketgate_system::program::WrongUsage;

/// A subcommand that can be configured.
#[derive(Debug, Clone, Copy)]
pub struct Role {
    /// The subcommand's name.
    pub subcommand: &'static str,
    /// Where its package installs its file. The file's name tells which subcommand a file is for.
    pub file: &'static str,
    /// The flags that the package's unit gives beside the file.
    pub unit: &'static [&'static str],
}

#[derive(Debug, Subcommand)]
pub enum ConfigCommand {
    /// Check a configuration file: its keys, its values, and the files that it names. All faults are told, and the exit status
    /// is 2 if there is one. Nothing is started or changed.
    Check {
        /// The file [default: the one that the package installs]
        file: Option<PathBuf>,
    },
    /// Print a configuration file with every setting, what it means, and its default.
    Default {
        /// Whose file [default: the program's main one]
        role: Option<String>,
    },
}

impl ConfigCommand {
    /// `check` makes the checks that the subcommand itself makes before it starts anything, and returns what may be a mistake.
    ///
    /// # Errors
    /// The file is wrong, or names no role.
    pub fn run<P: Parser>(
        self,
        roles: &[Role],
        check: impl FnOnce(P) -> Result<Vec<String>, SettingsFaults>,
    ) -> anyhow::Result<()> {
        let main = roles.first().context("the program has no configuration")?;
        let role = |name: &str| {
            let of_name = |role: &&Role| stem(role.file) == Some(name);
            roles.iter().find(of_name).copied().ok_or_else(|| {
                let names: Vec<_> = roles.iter().filter_map(|role| stem(role.file)).collect();
                WrongUsage(format!("no configuration is called {name:?}: the names are {}", names.join(", ")))
            })
        };
        match self {
            Self::Check { file } => {
                let file = file.unwrap_or_else(|| main.file.into());
                let name = file.file_stem().map(|name| name.to_string_lossy().into_owned());
                let role = role(&name.unwrap_or_default())?;
                let found = checked(&file, role, check)?;
                found.iter().for_each(|line| print(&format!("{}: {line}\n", file.display())));
            }
            Self::Default { role: name } => {
                let role = name.map_or(Ok(*main), |name| role(&name))?;
                let command = P::command();
                let found = command.find_subcommand(role.subcommand).context("no such subcommand")?;
                let start = format!("Settings of `{} {}`.", command.get_name(), role.subcommand);
                print(&documented(found, &start));
            }
        }
        Ok(())
    }
}

/// What may be a mistake in a file, or that nothing is.
///
/// # Errors
/// The last of its faults, after the others were printed; or, of several, how many there are.
fn checked<P: Parser>(
    file: &Path,
    role: Role,
    check: impl FnOnce(P) -> Result<Vec<String>, SettingsFaults>,
) -> anyhow::Result<Vec<String>> {
    let program = P::command().get_name().to_owned();
    let words = [program, role.subcommand.to_owned(), format!("--{FILE_FLAG}")].map(OsString::from);
    let unit = role.unit.iter().map(OsString::from);
    let arguments: Vec<_> = words.into_iter().chain([file.as_os_str().to_owned()]).chain(unit).collect();
    let mut read = lenient::<P>(&arguments).map_err(WrongUsage::from)?;
    let checks = read.parsed.take().map_or_else(|| Ok(Vec::new()), check);
    let mut told: Vec<_> = read.faults.iter().map(ToString::to_string).collect();
    let doubts = checks.unwrap_or_else(|faults| {
        for fault in faults.into_all() {
            // It may be wrong only because another one was left out, which is told already.
            let is_left_out =
                |name: &&str| read.faults.iter().any(|fault| fault.setting.as_deref() == Some(*name));
            if fault.settings.iter().any(is_left_out) {
                continue;
            }
            let place = |name: &str| read.file()?.place(name);
            let at = fault.setting(|name| place(name).is_some()).and_then(|name| Some((place(name)?, name)));
            let at =
                at.map_or_else(|| file.display().to_string(), |(place, name)| format!("{place}: `{name}`"));
            told.push(format!("{at}: {:#}", fault.error));
        }
        Vec::new()
    });
    let words = match &told[..] {
        [] if doubts.is_empty() => return Ok(vec!["no fault was found".to_owned()]),
        [] => return Ok(doubts),
        [one] => one.clone(),
        several => {
            several.iter().for_each(|line| complain(line));
            format!("{} has {} faults", file.display(), several.len())
        }
    };
    // Also if it is a file that it names: a script learns from one exit status that this file cannot be used.
    Err(WrongUsage(words).into())
}

fn stem(file: &str) -> Option<&str> {
    file.rsplit('/').next()?.strip_suffix(".toml")
}

#[expect(clippy::print_stdout, reason = "what was asked for on the command line")]
fn print(text: &str) {
    print!("{text}");
}

#[expect(clippy::print_stderr, reason = "what is wrong, before the last words of the program")]
fn complain(line: &str) {
    eprintln!("{line}");
}

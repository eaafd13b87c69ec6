//! The verb `config` of a program: checks a settings file, or prints one with every setting.

use crate::{Settings, documented::documented, settings_file::FILE_FLAG};
use anyhow::Context as _;
use clap::{Parser, Subcommand};
use std::{ffi::OsString, path::PathBuf};
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
    /// Check a configuration file: its keys, its values, and the files that it names. Nothing is started or changed.
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
        check: impl FnOnce(P) -> anyhow::Result<Vec<String>>,
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
                let program = P::command().get_name().to_owned();
                let flag = format!("--{FILE_FLAG}");
                let words = [program.as_str(), role.subcommand, &flag].map(OsString::from);
                let unit = role.unit.iter().map(OsString::from);
                let arguments =
                    words.into_iter().chain([file.clone().into_os_string()]).chain(unit).collect();
                let (parsed, _) = Settings::read::<P>(arguments).map_err(WrongUsage::from)?;
                let shown = file.display();
                let doubts = check(parsed).with_context(|| shown.to_string())?;
                let found = if doubts.is_empty() { vec!["no fault was found".to_owned()] } else { doubts };
                found.iter().for_each(|line| print(&format!("{shown}: {line}\n")));
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

fn stem(file: &str) -> Option<&str> {
    file.rsplit('/').next()?.strip_suffix(".toml")
}

#[expect(clippy::print_stdout, reason = "what was asked for on the command line")]
fn print(text: &str) {
    print!("{text}");
}

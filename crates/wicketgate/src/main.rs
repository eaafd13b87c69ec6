//! `wicketgate`: publishes private TCP services to sites that can only speak IPsec.

mod backup;
mod database;
mod db;
mod demo;
mod doctor;
mod down;
mod explain;
mod restore;
mod up;
mod version;

use std::{env, ffi::OsString, path::Path, process::ExitCode};

use clap::{CommandFactory as _, Parser, Subcommand};
use wicketgate_settings::{
    Settings,
    config_command::{ConfigCommand, Role},
    definitions::{CompletionCommand, ManCommand},
};
use wicketgate_system::{
    program::{self, WrongUsage},
    service_manager::ReloadSignals,
};

/// The first is the default of `config`.
const ROLES: &[Role] = &[Role { subcommand: "up", file: "/etc/wicketgate/up.toml", unit: &[] }];

/// Publishes private TCP services to sites that can only speak IPsec.
#[derive(Debug, Parser)]
#[command(
    version = version::VERSION,
    about,
    after_help = "Exit status: 0 success, 1 failure, 2 wrong usage. RUST_LOG=debug logs more."
)]
struct Cli {
    #[command(subcommand)]
    verb: Verb,
}

#[derive(Debug, Subcommand)]
enum Verb {
    /// Run the server and a gateway in one process, with an embedded database. To run it inside a network namespace,
    /// use `nsenter --net=/run/netns/NAME`: `ip netns exec` would hide the tunnels' namespaces from other processes.
    Up(Box<up::Up>),
    /// Remove what `up` leaves running: IKE daemons, namespaces and firewall rules. Data is kept. Run it in the network
    /// namespace that `up` ran in.
    Down(down::Down),
    /// Check a configuration file, or print one with every setting.
    #[command(subcommand)]
    Config(ConfigCommand),
    /// Demonstrate the product on this machine: two sites, real IPsec, real traffic.
    Demo(demo::Demo),
    /// Check whether this host can run a gateway. Changes nothing, and may run beside `up`.
    Doctor(Box<doctor::Doctor>),
    /// Write the database and the keys that belong to it to one file, sealed under the secret key. `up` may run meanwhile.
    Backup(Box<backup::Backup>),
    /// Make a new data directory and database from a backup, for an `up` that takes over from the one that was lost.
    Restore(Box<restore::Restore>),
    /// Move the database of an installation between SQLite and PostgreSQL, while `up` is stopped.
    #[command(subcommand)]
    Db(db::Db),
    /// Say what a reason of a status or an error means, what causes it, and what to do. Asks no server.
    Explain(explain::Explain),
    /// Print completions for a shell: `source <(wicketgate completion bash)`.
    Completion(CompletionCommand),
    /// Write man pages and completions to a directory.
    #[command(hide = true)]
    Man(ManCommand),
}

fn main() -> ExitCode {
    let all = Cli::command().subcommands(wicketgate_cli::commands());
    // Errors later: what a verb of this crate requires may be in its configuration file.
    let verb = all.clone().ignore_errors(true).get_matches().subcommand_name().map(str::to_owned);
    if verb.is_none_or(|verb| Cli::command().find_subcommand(verb).is_none()) {
        return ask(&all.get_matches());
    }
    let (cli, mut settings) = wicketgate_settings::parse::<Cli>();
    program::run("wicketgate", async {
        match cli.with_packaged_settings(&settings)?.verb {
            Verb::Up(up) => {
                let reloads = ReloadSignals::new(settings.has_file())?;
                up.run(reloads, || Cli::reloaded(&mut settings)).await
            }
            Verb::Down(down) => down.run().await,
            Verb::Config(config) => config.run(ROLES, Cli::check),
            Verb::Demo(demo) => demo.run().await,
            Verb::Doctor(doctor) => doctor.run().await,
            Verb::Backup(backup) => backup.run().await,
            Verb::Restore(restore) => restore.run().await,
            Verb::Db(db) => db.run().await,
            Verb::Explain(explain) => explain.run(),
            Verb::Completion(completion) => completion.run(all),
            Verb::Man(man) => man.run(&all),
        }
    })
}

impl Cli {
    fn reloaded(settings: &mut Settings) -> Option<Box<up::Up>> {
        match settings.reload_logged(up::RELOADED) {
            Some(Self { verb: Verb::Up(up) }) => Some(up),
            _ => None,
        }
    }

    /// The checks of a configured subcommand that change nothing.
    fn check(self) -> anyhow::Result<Vec<String>> {
        match self.verb {
            Verb::Up(up) => up.check().map(|_| up.doubts()),
            _ => Ok(Vec::new()),
        }
    }

    /// Verbs about an installation read the package's settings, if there are some and the command line names no others.
    fn with_packaged_settings(self, settings: &Settings) -> anyhow::Result<Self> {
        let is_about_one =
            matches!(self.verb, Verb::Doctor(_) | Verb::Backup(_) | Verb::Restore(_) | Verb::Db(_));
        let file = ROLES.iter().map(|role| role.file).find(|file| Path::new(file).exists());
        let Some(file) = file.filter(|_| is_about_one && !settings.has_file()) else { return Ok(self) };
        let named = ["--config", file].map(OsString::from);
        let (cli, _) = Settings::read(env::args_os().chain(named).collect()).map_err(WrongUsage::from)?;
        Ok(cli)
    }
}

/// Runs a verb that asks a server over its API.
fn ask(matches: &clap::ArgMatches) -> ExitCode {
    let Some((name, matches)) = matches.subcommand() else { return ExitCode::from(2) };
    program::ask(wicketgate_cli::run(name, matches))
}

#[cfg(test)]
mod tests {
    use super::*;
    use wicketgate_lab::reference::hold;
    use wicketgate_settings::reference::commands;

    #[test]
    fn the_reference_of_commands_is_what_they_define() {
        let about = "Every command of `wicketgate` with its arguments. [The command line](../COMMAND_LINE.md) says how they are used, and \
                     `wicketgate COMMAND --help`\nprints the same. `make reference` makes this page from the definitions.";
        let all = Cli::command().subcommands(wicketgate_cli::commands());
        hold("COMMANDS.md", &commands(all, "Commands", about)).unwrap();
    }
}

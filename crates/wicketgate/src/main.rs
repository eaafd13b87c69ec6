//! `wicketgate`: publishes private TCP services to sites that can only speak IPsec.

mod backup;
mod database;
mod db;
mod demo;
mod doctor;
mod down;
mod explain;
mod flags;
mod gateway;
mod gateway_identity;
mod misplaced;
mod remaining_tunnels;
mod restore;
mod secrets;
mod server;
mod up;
mod version;

use std::{env, ffi::OsString, path::Path, process::ExitCode};

use clap::{ArgMatches, Command, CommandFactory as _, Parser, Subcommand};
use wicketgate_settings::{
    Settings, SettingsFaults,
    config_command::{ConfigCommand, Role},
    definitions::{CompletionCommand, ManCommand},
};
use wicketgate_system::{
    log,
    program::{self, WrongUsage},
    service_manager::ReloadSignals,
};

use crate::database::Database;

/// The role whose name is also that of what it asks about.
const GATEWAY: &str = "gateway";

/// The first is the default of `config`.
const ROLES: &[Role] = &[
    Role { subcommand: "up", file: "/etc/wicketgate/up.toml", unit: &[] },
    Role { subcommand: "server", file: "/etc/wicketgate/server.toml", unit: &[] },
    Role { subcommand: GATEWAY, file: "/etc/wicketgate/gateway.toml", unit: &[] },
];

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
    /// Run a server alone, whose gateways run elsewhere, on a PostgreSQL database.
    Server(Box<server::ServerRole>),
    /// Run a gateway alone, which joins a server and links to it. Its subcommands ask a server about gateways.
    Gateway(Box<gateway::GatewayRole>),
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
    /// Replace the admin token while servers run.
    #[command(subcommand)]
    Secrets(secrets::Secrets),
    /// Say what a reason of a status or an error means, what causes it, and what to do. Asks no server.
    Explain(explain::Explain),
    /// Print completions for a shell: `source <(wicketgate completion bash)`.
    Completion(CompletionCommand),
    /// Write man pages and completions to a directory.
    #[command(hide = true)]
    Man(ManCommand),
}

fn main() -> ExitCode {
    let all = commands();
    // Errors later: what a verb of this crate requires may be in its configuration file.
    let read = all.clone().ignore_errors(true).get_matches();
    let is_own = |(verb, matches): (&str, &ArgMatches)| {
        Cli::command().find_subcommand(verb).is_some()
            && (verb != GATEWAY || matches.subcommand_name().is_none())
    };
    if !read.subcommand().is_some_and(is_own) {
        if let Some(meant) = misplaced::option_behind(&all, &env::args().skip(1).collect::<Vec<_>>()) {
            log::last_words(&format!("wicketgate: options stand behind the verb: `wicketgate {meant}`"));
            return ExitCode::from(2);
        }
        return ask(&all.get_matches());
    }
    let (cli, mut settings) = wicketgate_settings::parse::<Cli>();
    program::run("wicketgate", async {
        match cli.with_packaged_settings(&settings)?.verb {
            Verb::Up(up) => {
                let reloads = ReloadSignals::new(settings.has_file())?;
                let reload = || match Cli::reloaded(&mut settings) {
                    Some(Verb::Up(up)) => Some(up),
                    _ => None,
                };
                up.run(reloads, reload).await
            }
            Verb::Server(role) => {
                let reloads = ReloadSignals::new(settings.has_file())?;
                let reload = || match Cli::reloaded(&mut settings) {
                    Some(Verb::Server(role)) => Some(role),
                    _ => None,
                };
                role.run(reloads, reload).await
            }
            Verb::Gateway(role) => {
                let reloads = ReloadSignals::new(settings.has_file())?;
                let reload = || match Cli::reloaded(&mut settings) {
                    Some(Verb::Gateway(role)) => Some(role),
                    _ => None,
                };
                role.run(reloads, reload).await
            }
            Verb::Down(down) => down.run().await,
            Verb::Config(config) => config.run(ROLES, Cli::check),
            Verb::Demo(demo) => demo.run().await,
            Verb::Doctor(doctor) => doctor.run().await,
            Verb::Backup(backup) => backup.run().await,
            Verb::Restore(restore) => restore.run().await,
            Verb::Db(db) => db.run().await,
            Verb::Secrets(secrets) => secrets.run().await,
            Verb::Explain(explain) => explain.run(),
            Verb::Completion(completion) => completion.run(all),
            Verb::Man(man) => man.run(&all),
        }
    })
}

/// All verbs: those of this crate, and those that ask a server. A role has the verbs about its kind.
fn commands() -> Command {
    wicketgate_cli::commands().into_iter().fold(Cli::command(), |program, asking| {
        let name = asking.get_name().to_owned();
        match program.find_subcommand(&name) {
            None => program.subcommand(asking),
            Some(_) => program.mut_subcommand(name, |role| {
                role.args_conflicts_with_subcommands(true).subcommands(asking.get_subcommands().cloned())
            }),
        }
    })
}

impl Cli {
    fn reloaded(settings: &mut Settings) -> Option<Verb> {
        settings.reload_logged(up::RELOADED).map(|cli: Self| cli.verb)
    }

    /// The checks of a configured subcommand that change nothing.
    fn check(self) -> Result<Vec<String>, SettingsFaults> {
        match self.verb {
            Verb::Up(up) => with_named_keys(up.check(), &up.database).map(|_| up.doubts()),
            Verb::Server(role) => with_named_keys(role.check(), &role.database).map(|_| role.server.doubts()),
            Verb::Gateway(role) => role.check().map(|()| role.doubts()),
            _ => Ok(Vec::new()),
        }
    }

    /// Verbs about an installation read the package's settings, if there are some and the command line names no others.
    fn with_packaged_settings(self, settings: &Settings) -> anyhow::Result<Self> {
        let is_about_one =
            matches!(self.verb, Verb::Doctor(_) | Verb::Backup(_) | Verb::Restore(_) | Verb::Db(_));
        // Their flags are those of `up`.
        let file = ROLES.first().map(|role| role.file).filter(|file| Path::new(file).exists());
        let Some(file) = file.filter(|_| is_about_one && !settings.has_file()) else { return Ok(self) };
        let named = ["--config", file].map(OsString::from);
        let (cli, _) = Settings::read(env::args_os().chain(named).collect()).map_err(WrongUsage::from)?;
        Ok(cli)
    }
}

/// What was found, and whether the file of secret keys exists that is named.
fn with_named_keys<T>(found: Result<T, SettingsFaults>, database: &Database) -> Result<T, SettingsFaults> {
    let Err(missing) = database.has_named_keys() else { return found };
    let mut faults = found.err().unwrap_or_default();
    faults.keep::<()>(database::KEY_SETTINGS, Err(missing));
    Err(faults)
}

/// Runs a verb that asks a server over its API.
fn ask(matches: &ArgMatches) -> ExitCode {
    let Some((name, matches)) = matches.subcommand() else { return ExitCode::from(2) };
    program::ask(wicketgate_cli::run(name, matches))
}

#[cfg(test)]
mod tests {
    use wicketgate_lab::reference::hold;
    use wicketgate_settings::reference::commands as of_all;

    #[test]
    fn the_reference_of_commands_is_what_they_define() {
        let about = "Every command of `wicketgate` with its arguments. [The command line](../COMMAND_LINE.md) says how they are used, and \
                     `wicketgate COMMAND --help`\nprints the same. `make reference` makes this page from the definitions.";
        hold("COMMANDS.md", &of_all(super::commands(), "Commands", about)).unwrap();
    }
}

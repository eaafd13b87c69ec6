//! `wicketgate`: publishes private TCP services to sites that can only speak IPsec.

mod database;
mod demo;
mod doctor;
mod down;
mod explain;
mod up;

use std::{env, ffi::OsString, path::Path, process::ExitCode};

use anyhow::bail;
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

/// Of a package, `make packages` adds the commit and its date.
const VERSION: &str = match option_env!("WICKETGATE_VERSION") {
    Some(version) => version,
    None => env!("CARGO_PKG_VERSION"),
};

/// The first is the default of `config`.
const ROLES: &[Role] = &[Role { subcommand: "up", file: "/etc/wicketgate/up.toml", unit: &[] }];

/// Publishes private TCP services to sites that can only speak IPsec.
#[derive(Debug, Parser)]
#[command(
    version = VERSION,
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
        match cli.verb {
            Verb::Up(up) => {
                let reloads = ReloadSignals::new(settings.has_file())?;
                up.run(reloads, || Cli::reloaded(&mut settings)).await
            }
            Verb::Down(down) => down.run().await,
            Verb::Config(config) => config.run(ROLES, Cli::check),
            Verb::Demo(demo) => demo.run().await,
            Verb::Doctor(doctor) if settings.has_file() => doctor.run().await,
            Verb::Doctor(_) => Cli::packaged_doctor()?.run().await,
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

    /// The doctor of this command line, which names no file: with the package's, if there is one.
    fn packaged_doctor() -> anyhow::Result<Box<doctor::Doctor>> {
        let file = ROLES.iter().map(|role| role.file).find(|file| Path::new(file).exists());
        let named = file.iter().flat_map(|file| ["--config", file]).map(OsString::from);
        match Settings::read(env::args_os().chain(named).collect()).map_err(WrongUsage::from)? {
            (Self { verb: Verb::Doctor(doctor) }, _) => Ok(doctor),
            _ => bail!("the command line is no longer that of `doctor`"),
        }
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

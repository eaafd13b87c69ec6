//! `wicketgate`: publishes private TCP services to sites that can only speak IPsec.

mod data_dir;
mod database;
mod demo;
mod down;
mod up;

use std::{io::IsTerminal, process::ExitCode};

use clap::{Parser, Subcommand};
use tracing_subscriber::EnvFilter;

/// Publishes private TCP services to sites that can only speak IPsec.
#[derive(Debug, Parser)]
#[command(
    version,
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
    /// Demonstrate the product on this machine: two sites, real IPsec, real traffic.
    Demo(demo::Demo),
}

fn main() -> ExitCode {
    let cli = Cli::parse();
    let filter = EnvFilter::try_from_default_env().unwrap_or_else(|_| EnvFilter::new("info"));
    let colours = std::io::stderr().is_terminal();
    tracing_subscriber::fmt().with_env_filter(filter).with_ansi(colours).with_writer(std::io::stderr).init();
    let runtime = match tokio::runtime::Runtime::new() {
        Ok(runtime) => runtime,
        Err(error) => return failed(&anyhow::Error::new(error).context("could not start the runtime")),
    };
    let result = match cli.verb {
        Verb::Up(up) => runtime.block_on(up.run()),
        Verb::Down(down) => runtime.block_on(down.run()),
        Verb::Demo(demo) => runtime.block_on(demo.run()),
    };
    match result {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => failed(&error),
    }
}

/// One line, with its causes: what happened and what to do.
fn failed(error: &anyhow::Error) -> ExitCode {
    #[expect(clippy::print_stderr, reason = "the final message of the program")]
    {
        eprintln!("wicketgate: {error:#}");
    }
    ExitCode::FAILURE
}

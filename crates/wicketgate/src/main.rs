//! `wicketgate`: publishes private TCP services to sites that can only speak IPsec.

mod database;
mod demo;
mod down;
mod up;

use std::process::ExitCode;

use clap::{Parser, Subcommand};
use wicketgate_system::program;

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
    program::run("wicketgate", async {
        match cli.verb {
            Verb::Up(up) => up.run().await,
            Verb::Down(down) => down.run().await,
            Verb::Demo(demo) => demo.run().await,
        }
    })
}

//! `wicketgate-agent`.

use clap::Parser;
use std::process::ExitCode;
use tokio_util::sync::CancellationToken;
use wicketgate_agent::options::{Command, Options};
use wicketgate_system::program::{self, StopSignals};
use wicketgate_transport::abort::Abort;

fn main() -> ExitCode {
    let Options { command: Command::Start(start) } = Options::parse();
    program::run("wicketgate-agent", async {
        let (stop, abort) = stop_on_signal()?;
        wicketgate_agent::run(start.into_config()?, stop, abort).await
    })
}

/// The first signal stops the agent in order, the second one at once.
fn stop_on_signal() -> anyhow::Result<(CancellationToken, Abort)> {
    let (stop, abort) = (CancellationToken::new(), Abort::default());
    let mut signals = StopSignals::new()?;
    let (first, second) = (stop.clone(), abort.clone());
    tokio::spawn(async move {
        signals.next().await;
        first.cancel();
        signals.next().await;
        second.trigger();
    });
    Ok((stop, abort))
}

//! `wicketgate-agent`.

use clap::Parser;
use std::{
    io::{self, IsTerminal},
    process::ExitCode,
};
use tokio::signal::unix::{SignalKind, signal};
use tokio_util::sync::CancellationToken;
use tracing_subscriber::EnvFilter;
use wicketgate_agent::options::{Command, Options};
use wicketgate_transport::abort::Abort;

fn main() -> ExitCode {
    let Options { command: Command::Start(start) } = Options::parse();
    let filter = EnvFilter::try_from_default_env().unwrap_or_else(|_| EnvFilter::new("info"));
    let ansi = io::stderr().is_terminal();
    tracing_subscriber::fmt().with_env_filter(filter).with_writer(io::stderr).with_ansi(ansi).init();
    let outcome = start.into_config().and_then(|config| {
        let runtime = tokio::runtime::Runtime::new()?;
        let ended = runtime.block_on(async {
            let (stop, abort) = stop_on_signal()?;
            wicketgate_agent::run(config, stop, abort).await
        });
        runtime.shutdown_background();
        ended
    });
    match outcome {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            #[expect(clippy::print_stderr, reason = "the error message of the program")]
            {
                eprintln!("wicketgate-agent: {error:#}");
            }
            ExitCode::FAILURE
        }
    }
}

/// The first SIGTERM or SIGINT stops the agent in order, the second one at once.
fn stop_on_signal() -> io::Result<(CancellationToken, Abort)> {
    let (stop, abort) = (CancellationToken::new(), Abort::default());
    let (mut term, mut int) = (signal(SignalKind::terminate())?, signal(SignalKind::interrupt())?);
    let mut signalled = async move || {
        tokio::select! {
            _ = term.recv() => {}
            _ = int.recv() => {}
        }
    };
    let (first, second) = (stop.clone(), abort.clone());
    tokio::spawn(async move {
        signalled().await;
        first.cancel();
        signalled().await;
        second.trigger();
    });
    Ok((stop, abort))
}

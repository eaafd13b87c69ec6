//! What the programs have in common: their log, their exit code, and the signals that stop them.

use std::{fmt, fs, process::ExitCode};

use anyhow::Context;
use rustix::process::{DumpableBehavior, Resource, Rlimit, set_dumpable_behavior, setrlimit};
use tokio::signal::unix::{Signal, SignalKind, signal};

use crate::{log, service_manager};

/// A fault of the command line that its parser cannot find or would repeat. The exit status is 2, as for its own.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct WrongUsage(pub String);

impl fmt::Display for WrongUsage {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl std::error::Error for WrongUsage {}

/// Another service has refused this program, and would refuse another start of it. The exit status is 4 (to systemd
/// `NOPERMISSION`), after which a service manager does not start it again.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct LastingRefusal(pub String);

impl fmt::Display for LastingRefusal {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl std::error::Error for LastingRefusal {}

/// Keys in memory get into no core dump. A kernel that refuses this is no reason not to run.
fn dump_no_core() {
    let _ = setrlimit(Resource::Core, Rlimit { current: Some(0), maximum: Some(0) });
}

/// Runs a program to its end. The log goes to stderr, at the level in `RUST_LOG` or `info`. So does an error, in one line
/// with its causes: what happened and what to do. The service manager shows it until the next start.
pub fn run(name: &str, program: impl Future<Output = anyhow::Result<()>>) -> ExitCode {
    dump_no_core();
    // Nor does another process of the user read them.
    let _ = set_dumpable_behavior(DumpableBehavior::NotDumpable);
    log::start();
    let outcome = tokio::runtime::Runtime::new().context("could not start the runtime").and_then(|runtime| {
        runtime.spawn(service_manager::satisfy_watchdog());
        let outcome = runtime.block_on(program);
        // Without waiting for blocking calls, such as the lookup of a name.
        runtime.shutdown_background();
        outcome
    });
    match outcome {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            service_manager::status(&format!("{error:#}"));
            log::last_words(&format!("{name}: {error:#}"));
            exit_code(&error)
        }
    }
}

fn exit_code(error: &anyhow::Error) -> ExitCode {
    if error.is::<WrongUsage>() {
        ExitCode::from(2)
    } else if error.is::<LastingRefusal>() {
        ExitCode::from(4)
    } else {
        ExitCode::FAILURE
    }
}

/// Runs a short command without a log: what it prints is its result.
pub fn ask(command: impl Future<Output = ExitCode>) -> ExitCode {
    dump_no_core();
    match tokio::runtime::Builder::new_current_thread().enable_all().build() {
        Ok(runtime) => runtime.block_on(command),
        Err(error) => {
            #[expect(clippy::print_stderr, reason = "the error message of the program")]
            {
                eprintln!("could not start the runtime: {error}");
            }
            ExitCode::FAILURE
        }
    }
}

/// The signals that stop a program.
#[derive(Debug)]
pub struct StopSignals {
    term: Signal,
    int: Signal,
    hup: Option<Signal>,
}

impl StopSignals {
    /// SIGHUP, as when its terminal is closed, stops a program that it does not make reload, unless nohup(1) or the like has
    /// started it. From now on, a signal that nobody waits for is kept until somebody does.
    pub fn new(reloads: bool) -> anyhow::Result<Self> {
        let receive = |kind| signal(kind).context("cannot receive signals");
        let stops = !reloads && !is_ignored(SignalKind::hangup());
        let hup = stops.then(|| receive(SignalKind::hangup())).transpose()?;
        Ok(Self { term: receive(SignalKind::terminate())?, int: receive(SignalKind::interrupt())?, hup })
    }

    /// Waits for a signal and returns its name. Cancel-safe.
    pub async fn next(&mut self) -> &'static str {
        let hup = async {
            match &mut self.hup {
                Some(hup) => drop(hup.recv().await),
                None => std::future::pending().await,
            }
        };
        tokio::select! {
            _ = self.term.recv() => "SIGTERM",
            _ = self.int.recv() => "SIGINT",
            () = hup => "SIGHUP",
        }
    }
}

/// Whether this process ignores the signal (proc(5), `SigIgn`). Without /proc it is taken for one that it does not.
fn is_ignored(signal: SignalKind) -> bool {
    let status = fs::read_to_string("/proc/self/status").unwrap_or_default();
    let ignored = status.lines().find_map(|line| line.strip_prefix("SigIgn:"));
    let ignored = ignored.and_then(|mask| u64::from_str_radix(mask.trim(), 16).ok()).unwrap_or_default();
    ignored >> (signal.as_raw_value() - 1) & 1 == 1
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_ignored_signal_is_known() {
        // Rust's runtime ignores SIGPIPE.
        assert!(is_ignored(SignalKind::pipe()) && !is_ignored(SignalKind::terminate()));
    }
}

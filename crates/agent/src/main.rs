//! `wicketgate-agent`.

use anyhow::bail;
use clap::CommandFactory as _;
use std::{ffi::OsString, io::Write as _, path::Path, process::ExitCode, sync::Arc};
use tokio::sync::watch;
use tokio_util::sync::CancellationToken;
use wicketgate_agent::{
    Config,
    allow::AllowList,
    options::{Check, Command, Options, RELOADED},
    package,
};
use wicketgate_settings::{Settings, SettingsFaults, config_command::Role};
use wicketgate_system::{
    program::{self, StopSignals},
    service_manager::{self, ReloadSignals},
};
use wicketgate_transport::abort::Abort;

const ROLES: &[Role] = &[Role {
    subcommand: "start",
    file: "/etc/wicketgate/agent.toml",
    unit: &["--state-dir", package::STATE_DIR],
}];

/// The variables that say of which agent a check is.
const SETTINGS: &[&str] = &["WICKETGATE_AGENT_CONFIG", "WICKETGATE_SERVER", "WICKETGATE_STATE_DIR"];

fn main() -> ExitCode {
    let (Options { command }, settings) = wicketgate_settings::parse_from::<Options>(arguments());
    program::run("wicketgate-agent", async {
        match command {
            Command::Start(start) => {
                let reloads = ReloadSignals::new(settings.has_file())?;
                start.log.apply();
                let (stop, abort) = stop_on_signal(settings.has_file())?;
                let (allow, allowed) = watch::channel(start.allow_list());
                let config = start.into_config(allowed)?;
                reload_on_signal(reloads, settings, allow);
                wicketgate_agent::run(config, stop, abort).await
            }
            Command::Check(Check { start, json }) => {
                start.log.apply();
                let (_, allowed) = watch::channel(start.allow_list());
                check(start.into_config(allowed)?, json).await
            }
            Command::Enroll(enroll) => enroll.run().await,
            Command::Config(config) => config.run::<Options>(ROLES, |options| match options.command {
                Command::Start(start) => {
                    let (_, allowed) = watch::channel(start.allow_list());
                    start.into_config(allowed).map(|_| Vec::new()).map_err(SettingsFaults::one)
                }
                _ => Ok(Vec::new()),
            }),
            Command::Completion(completion) => completion.run(Options::command()),
            Command::Man(man) => man.run(&Options::command()),
        }
    })
}

/// This process's command line. A check without settings is of the package's service, if that is installed.
fn arguments() -> Vec<OsString> {
    let mut arguments: Vec<_> = std::env::args_os().collect();
    let is_plain = match &arguments[..] {
        [_, check, more @ ..] => check == "check" && more.iter().all(|word| word == "--json"),
        _ => false,
    };
    let is_set = SETTINGS.iter().any(|name| std::env::var_os(name).is_some());
    for Role { file, unit, .. } in ROLES {
        if is_plain && !is_set && Path::new(file).exists() {
            arguments.extend(["--config", file].iter().chain(*unit).map(OsString::from));
        }
    }
    arguments
}

/// Prints the report.
async fn check(config: Config, json: bool) -> anyhow::Result<()> {
    let report = wicketgate_agent::check::check(config).await;
    let text = if json { serde_json::to_string_pretty(&report)? + "\n" } else { report.to_string() };
    std::io::stdout().write_all(text.as_bytes())?;
    match report.failed() {
        0 => Ok(()),
        1 => bail!("a check failed"),
        failed => bail!("{failed} checks failed"),
    }
}

/// The first signal stops the agent in order, the second one at once.
fn stop_on_signal(reloads: bool) -> anyhow::Result<(CancellationToken, Abort)> {
    let (stop, abort) = (CancellationToken::new(), Abort::default());
    let mut signals = StopSignals::new(reloads)?;
    let (first, second) = (stop.clone(), abort.clone());
    tokio::spawn(async move {
        signals.next().await;
        service_manager::stopping();
        first.cancel();
        signals.next().await;
        second.trigger();
    });
    Ok((stop, abort))
}

/// Reads the configuration file again at each SIGHUP.
fn reload_on_signal(
    mut reloads: ReloadSignals,
    mut settings: Settings,
    allow: watch::Sender<Arc<AllowList>>,
) {
    tokio::spawn(async move {
        loop {
            let _reload = reloads.next().await;
            if let Some(Options { command: Command::Start(start) }) = settings.reload_logged(RELOADED) {
                start.log.apply();
                allow.send_replace(start.allow_list());
            }
        }
    });
}

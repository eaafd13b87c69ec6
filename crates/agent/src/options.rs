//! The command line.

mod enroll;
mod proxy;
mod status_address;

pub use enroll::Enroll;
pub use proxy::ProxyFlags;
pub use status_address::StatusAddress;

use crate::{
    allow::{AllowList, AllowRule},
    config::{Config, NoCode},
    package::is_of_service,
    server_address::ServerAddress,
};
use anyhow::Context;
use clap::{Args, Parser, Subcommand};
use secrecy::{ExposeSecret as _, SecretString};
use std::{path::PathBuf, sync::Arc};
use tokio::sync::watch;
use tracing::warn;
use wicketgate_model::AgentName;
use wicketgate_settings::{
    config_command::ConfigCommand,
    definitions::{CompletionCommand, ManCommand},
};
use wicketgate_system::{if_exists, log::LogFilter, private_file, program::WrongUsage};
use wicketgate_transport::code::EnrolmentCode;

/// Of a package, `make packages` adds the commit and its date.
const VERSION: &str = match option_env!("WICKETGATE_VERSION") {
    Some(version) => version,
    None => env!("CARGO_PKG_VERSION"),
};

/// Wicketgate's hosting agent: dials a gateway and connects its shares to private targets. Opens no port, needs no root.
#[derive(Debug, Parser)]
#[command(
    version = VERSION,
    after_help = "Exit codes: 0 stopped in order, 1 failed (the last line on stderr says why), 2 wrong usage, 3 refused by the server.\n\
    Logs go to stderr; RUST_LOG sets the level (default: info)."
)]
pub struct Options {
    #[command(subcommand)]
    pub command: Command,
}

#[derive(Debug, Subcommand)]
pub enum Command {
    /// Check the way to the server and to the targets, with the settings of `start`; also while the agent runs. Without any, with
    /// those of the package's service
    Check(Check),
    /// Check a configuration file, or print one with every setting
    #[command(subcommand)]
    Config(ConfigCommand),
    /// Hand an enrolment code to the package's service: asks for it without showing it, or reads it from standard input
    Enroll(Enroll),
    /// Enrol on the first start, then serve until SIGTERM or SIGINT
    Start(Start),
    /// Print completions for a shell: `source <(wicketgate-agent completion bash)`
    Completion(CompletionCommand),
    /// Write man pages and completions to a directory
    #[command(hide = true)]
    Man(ManCommand),
}

#[derive(Debug, Args)]
pub struct Start {
    /// A file with settings, in TOML, whose keys are these flags' names. `wicketgate-agent config default` prints one
    #[arg(long, value_name = "FILE", env = "WICKETGATE_AGENT_CONFIG")]
    config: Option<PathBuf>,

    /// What is logged: a level (error, warn, info, debug), or levels of targets, like info,access=warn. A reload changes it
    #[arg(long, value_name = "FILTER", default_value = "info", env = "RUST_LOG")]
    pub log: LogFilter,

    /// The address of the server's agent port: https://HOST:PORT (its --agent-listen)
    #[arg(long, value_name = "URL", env = "WICKETGATE_SERVER")]
    server: ServerAddress,

    /// The enrolment code, ENR-…, for the first start. Command lines are visible to other users: prefer the file or
    /// the environment variable
    #[arg(
        long,
        value_name = "CODE",
        env = "WICKETGATE_ENROLLMENT_TOKEN",
        hide_env_values = true,
        conflicts_with = "enrollment_token_file"
    )]
    // Parsed later: the command line parser would repeat an invalid code in its error.
    enrollment_token: Option<SecretString>,

    /// A file with the enrolment code
    #[arg(long, value_name = "FILE")]
    enrollment_token_file: Option<PathBuf>,

    /// Directory for the agent's key, certificate and state, of its own (created with mode 0700)
    #[arg(long, value_name = "DIR", env = "WICKETGATE_STATE_DIR")]
    state_dir: PathBuf,

    /// The agent's name in the API, in messages and logs: 1 to 64 letters, digits, hyphens, dots and underscores.
    /// Default: the host's name
    #[arg(long, value_name = "NAME", env = "WICKETGATE_AGENT_NAME")]
    name: Option<AgentName>,

    /// Replace another running agent that has the same identity, from a copy of its state directory
    #[arg(long)]
    take_over: bool,

    #[command(flatten)]
    proxy: ProxyFlags,

    /// Serve /livez, /readyz and /metrics of this agent, in clear text and without a token. A port alone is at 127.0.0.1
    #[arg(long, value_name = "ADDRESS:PORT")]
    status_listen: Option<StatusAddress>,

    /// Targets that the agent may connect to, whatever the server assigns; repeatable. Default: all but loopback and
    /// link-local addresses of the agent's host.
    /// Examples: 10.20.0.0/16:443,8000-8999, [fd00::/8]:5432, 10.20.0.7:* for all ports, *:5432 for all hosts. A host
    /// name is checked by the addresses that it resolves to. A reload changes the list; streams that run continue
    #[arg(long, value_name = "CIDR:PORTS")]
    allow: Vec<AllowRule>,
}

#[derive(Debug, Args)]
pub struct Check {
    #[command(flatten)]
    pub start: Start,

    /// Print the report as JSON
    #[arg(long)]
    pub json: bool,
}

/// What a reload changes while the agent runs. All else needs a restart.
pub const RELOADED: &[&str] = &["allow", "log"];

impl Start {
    pub fn allow_list(&self) -> Arc<AllowList> {
        Arc::new(AllowList::new(self.allow.clone()))
    }

    /// `allow` has [`Start::allow_list`], or a later one.
    pub fn into_config(self, allow: watch::Receiver<Arc<AllowList>>) -> anyhow::Result<Config> {
        let code = match (self.enrollment_token, self.enrollment_token_file) {
            (Some(text), _) => {
                let code = text.expose_secret().parse::<EnrolmentCode>();
                Ok(code.map_err(|e| WrongUsage(format!("--enrollment-token: {e}")))?)
            }
            // The file may be removed after the enrolment.
            (None, Some(path)) => {
                let text = if_exists(std::fs::read_to_string(&path));
                if let Some(warning) = private_file::open_to_others(&path) {
                    warn!("{warning}");
                }
                match text.with_context(|| format!("cannot read {}", path.display()))? {
                    Some(text) => Ok(text.parse().with_context(|| path.display().to_string())?),
                    None => Err(NoCode::NoFile(path)),
                }
            }
            (None, None) => Err(NoCode::NotGiven),
        };
        let code =
            code.map_err(|none| if is_of_service(&self.state_dir) { NoCode::NoCredential } else { none });
        let host = || rustix::system::uname().nodename().to_string_lossy().into_owned();
        let name = self.name.map_or_else(host, |name| name.to_string());
        let proxy = self.proxy.choose(&self.server, |name| std::env::var(name).ok())?;
        Ok(Config {
            server: self.server,
            proxy,
            status_listen: self.status_listen.map(|at| at.0),
            code,
            state_dir: self.state_dir,
            take_over: self.take_over,
            allow,
            name,
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use clap::CommandFactory;

    #[test]
    fn the_reference_of_commands_is_what_they_define() {
        let about = "Every command of `wicketgate-agent` with its arguments, as its `--help` prints them. `make reference` makes this \
                     page from the\ndefinitions; [Configuration](CONFIGURATION.md#the-agent) has the same settings as a file.";
        let page =
            wicketgate_settings::reference::commands(Options::command(), "Commands of the agent", about);
        wicketgate_lab::reference::hold("AGENT_COMMANDS.md", &page).unwrap();
    }

    fn configured(start: Start) -> anyhow::Result<Config> {
        let (_, allow) = watch::channel(start.allow_list());
        start.into_config(allow)
    }

    #[test]
    fn the_command_line_is_consistent() {
        Options::command().debug_assert();
    }

    #[test]
    fn an_incomplete_code_is_not_repeated_in_the_error() {
        let code = "ENR-0123456789";
        let args = ["wicketgate-agent", "start", "--server", "https://a:1", "--state-dir", "x"];
        let options = Options::try_parse_from(args.into_iter().chain(["--enrollment-token", code])).unwrap();
        assert!(!format!("{options:?}").contains(code));
        let Command::Start(start) = options.command else { unreachable!() };
        let error = format!("{:#}", configured(start).unwrap_err());
        assert!(error.contains("is incomplete") && !error.contains(code), "{error}");
    }

    #[test]
    fn a_missing_file_is_an_error_only_before_the_enrolment() {
        let args = ["wicketgate-agent", "start", "--server", "https://a:1", "--state-dir", "x"];
        let options =
            Options::try_parse_from(args.into_iter().chain(["--enrollment-token-file", "no/code"])).unwrap();
        let Command::Start(start) = options.command else { unreachable!() };
        let error = configured(start).unwrap().code.unwrap_err();
        assert!(error.to_string().starts_with("not enrolled yet, and there is no no/code: "), "{error}");
    }

    #[test]
    fn a_name_is_that_of_the_host_unless_it_is_given() {
        let args = ["wicketgate-agent", "start", "--server", "https://a:1", "--state-dir", "x"];
        let name = |more: &[&str]| {
            let options = Options::try_parse_from(args.iter().chain(more))?;
            let Command::Start(start) = options.command else { unreachable!() };
            Ok::<_, clap::Error>(configured(start).unwrap().name)
        };
        assert_eq!(name(&["--name", "dc-1.rack_2"]).unwrap(), "dc-1.rack_2");
        assert!(!name(&[]).unwrap().is_empty());
        assert!(name(&["--name", "a b"]).unwrap_err().to_string().contains("1 to 64 letters"));
    }

    #[test]
    fn plain_http_is_refused_with_an_explanation() {
        let parse =
            |url| Options::try_parse_from(["wicketgate-agent", "start", "--server", url, "--state-dir", "x"]);
        assert!(parse("https://gw.example:7443").is_ok());
        let error = parse("http://gw.example:7443").unwrap_err();
        assert!(error.to_string().contains("TLS only"), "{error}");
        assert_eq!(error.exit_code(), 2);
    }
}

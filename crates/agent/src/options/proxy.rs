//! The flags of a proxy.

use crate::{
    proxy::{Proxy, ProxyPassword, ProxyRule, Source, from_variables, given_password},
    server_address::ServerAddress,
};
use clap::Args;
use secrecy::{ExposeSecret as _, SecretString};
use std::path::PathBuf;
use wicketgate_system::program::WrongUsage;

const PASSWORD_VARIABLE: &str = "WICKETGATE_PROXY_PASSWORD";

/// The proxy between the agent and the server.
#[derive(Debug, Args)]
pub struct ProxyFlags {
    /// Reach the server through this proxy: http://[USER@]HOST:PORT or socks5://[USER@]HOST:PORT. Default: that of
    /// HTTPS_PROXY or ALL_PROXY, unless NO_PROXY exempts the server
    #[arg(long, value_name = "URL")]
    // Parsed later: the command line parser would repeat a password in its error.
    proxy: Option<SecretString>,

    /// A file with the proxy's password, read for each connection. Or set WICKETGATE_PROXY_PASSWORD
    #[arg(long, value_name = "FILE")]
    proxy_password_file: Option<PathBuf>,
}

impl ProxyFlags {
    /// `variable`: reads the environment, in which a fault for `server` ends the start.
    pub(super) fn choose(
        self,
        server: &ServerAddress,
        variable: impl Fn(&str) -> Option<String>,
    ) -> Result<ProxyRule, WrongUsage> {
        let password = given_password(self.proxy_password_file, variable(PASSWORD_VARIABLE));
        if let Some(url) = self.proxy {
            let proxy = Proxy::parse(url.expose_secret(), Source::CommandLine, password);
            return proxy.map(ProxyRule::Always).map_err(|fault| WrongUsage(format!("--proxy: {fault}")));
        }
        from_variables(server, password.clone(), variable)
            .map(|_| ProxyRule::Environment(ProxyPassword(password)))
            .map_err(|(name, fault)| WrongUsage(format!("{name}: {fault}")))
    }
}

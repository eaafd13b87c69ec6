//! Which proxy is on the way to which gateway.

use super::{Password, Proxy, Straight, from_variables};
use crate::server_address::ServerAddress;

/// See the module.
#[derive(Debug, Clone)]
pub enum ProxyRule {
    Never,
    /// The one of `--proxy`.
    Always(Proxy),
    /// As the environment says for each address.
    Environment(ProxyPassword),
}

/// The password that was given beside a proxy's URL, if any.
#[derive(Debug, Clone)]
pub struct ProxyPassword(pub(crate) Option<Password>);

impl ProxyRule {
    /// The proxy on the way to this address.
    pub(crate) fn of(&self, address: &ServerAddress) -> Result<Proxy, Straight> {
        match self {
            Self::Never => Err(Straight::NotSet),
            Self::Always(proxy) => Ok(proxy.clone()),
            Self::Environment(ProxyPassword(password)) => {
                let chosen = from_variables(address, password.clone(), |name| std::env::var(name).ok());
                // A fault ends the start: it is one for every address that is not exempted.
                chosen.unwrap_or(Err(Straight::NotSet))
            }
        }
    }
}

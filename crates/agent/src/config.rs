//! The configuration of an agent.

use crate::{
    allow::AllowList,
    package::{CODE_FILE, ENROL},
    proxy::ProxyRule,
    server_address::ServerAddress,
};
use std::{net::SocketAddr, path::PathBuf, sync::Arc};
use tokio::sync::watch;
use wicketgate_transport::code::EnrolmentCode;

/// See the module.
#[derive(Debug)]
pub struct Config {
    pub server: ServerAddress,
    /// The proxies on the way to gateways.
    pub proxy: ProxyRule,
    /// Where the agent's own status is served, if anywhere.
    pub status_listen: Option<SocketAddr>,
    /// Needed until the agent has enrolled.
    pub code: Result<EnrolmentCode, NoCode>,
    pub state_dir: PathBuf,
    /// Replaces another running agent with the same identity.
    pub take_over: bool,
    /// A new one takes effect while the agent runs.
    pub allow: watch::Receiver<Arc<AllowList>>,
    /// The agent's name in the API, in messages and logs.
    pub name: String,
}

/// Why there is no enrolment code. An enrolled agent needs none.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum NoCode {
    #[error(
        "not enrolled yet: make a code with `wicketgate agent enroll` on the server, and pass it as --enrollment-token-file or \
         WICKETGATE_ENROLLMENT_TOKEN"
    )]
    NotGiven,
    #[error(
        "not enrolled yet, and there is no {}: make a code with `wicketgate agent enroll` on the server, and write it there", .0.display()
    )]
    NoFile(PathBuf),
    #[error("not enrolled yet, and there is no {CODE_FILE}: {ENROL}")]
    NoCredential,
}

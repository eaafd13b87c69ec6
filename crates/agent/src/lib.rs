//! The hosting agent: dials a gateway, enrols once, receives assignments that the server has signed, and connects
//! streams to their targets.
//!
//! It runs in the customer's network. Invariants: it opens no port; it connects only to targets that the server has
//! signed for its environment and that its own allow list permits.

pub mod allow;
mod assignments;
mod carriers;
mod control;
mod dial;
mod enrol;
mod health;
pub mod options;
pub mod server_address;
mod state;

use crate::{
    allow::AllowList,
    assignments::Assignments,
    health::TargetProbes,
    server_address::ServerAddress,
    state::{State, StateDir},
};
use anyhow::Context;
use std::{path::PathBuf, sync::Arc, time::Duration};
use tokio::time::timeout;
use tokio_util::{sync::CancellationToken, task::TaskTracker};
use tracing::{debug, info, warn};
use wicketgate_transport::{abort::Abort, enrolment_code::EnrolmentCode, tls::AgentTls};

/// How long running streams may continue after a stop signal.
const DRAIN: Duration = Duration::from_secs(30);
/// How long aborted streams may take to send their reset.
const CUT: Duration = Duration::from_secs(2);

/// The configuration of an agent.
#[derive(Debug)]
pub struct Config {
    pub server: ServerAddress,
    /// Needed until the agent has enrolled.
    pub code: Result<EnrolmentCode, NoCode>,
    pub state_dir: PathBuf,
    pub allow: AllowList,
    /// The agent's name in the API: its host name.
    pub name: String,
}

/// Why there is no enrolment code. An enrolled agent needs none.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum NoCode {
    #[error(
        "not enrolled yet: ask for an enrolment code and give it as --enrollment-token-file, \
         WICKETGATE_ENROLLMENT_TOKEN or --enrollment-token"
    )]
    NotGiven,
    #[error("can't read {}: No such file or directory", .0.display())]
    NoFile(PathBuf),
}

/// State shared by the parts of a running agent.
struct Agent {
    server: ServerAddress,
    name: String,
    tls: AgentTls,
    state: State,
    assignments: Assignments,
    health: TargetProbes,
    streams: TaskTracker,
    /// Running streams end at once.
    abort: Abort,
}

/// Enrols if need be, then serves until `stop` is cancelled and the running streams have ended, within 30 s or until
/// `abort` is triggered. An error is final: it needs an operator.
pub async fn run(config: Config, stop: CancellationToken, abort: Abort) -> anyhow::Result<()> {
    let dir = StateDir::lock(&config.state_dir)?;
    let state = match dir.load()? {
        Ok(state) => {
            if config.code.is_ok() {
                info!(agent.id = %state.agent(), "already enrolled: the enrolment code is no longer needed");
            }
            state
        }
        Err(dir) => {
            let code = config.code?;
            let enrolled = stop.run_until_cancelled(enrol::enrol(&config.server, &code, &config.name, dir));
            match enrolled.await {
                Some(state) => state?,
                None => return Ok(()),
            }
        }
    };
    let tls = state.tls().context("cannot use the identity in the state directory")?;
    let assignments = Assignments::new(&state, config.allow)?;
    info!(agent.id = %state.agent(), environment.id = %state.environment(), server = %config.server, "agent started");
    let agent = Arc::new(Agent {
        server: config.server,
        name: config.name,
        tls,
        state,
        assignments,
        health: TargetProbes::default(),
        streams: TaskTracker::new(),
        abort: abort.clone(),
    });
    let floors = tokio::spawn(Arc::clone(&agent).keep_newest_generations(stop.clone()));
    let connected = tokio::spawn(Arc::clone(&agent).stay_connected(stop.clone()));
    stop.cancelled().await;
    agent.streams.close();
    let drained = timeout(DRAIN, agent.streams.wait());
    if !matches!(abort.token().run_until_cancelled(drained).await, Some(Ok(()))) {
        warn!("streams were aborted");
        abort.trigger();
        let _ = timeout(CUT, agent.streams.wait()).await;
    }
    // The connection ends with the last stream.
    if timeout(CUT, connected).await.is_err() {
        debug!("the connection to the gateway did not close in time");
    }
    let _ = floors.await;
    info!("agent stopped");
    Ok(())
}

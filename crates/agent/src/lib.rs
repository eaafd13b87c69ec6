//! The hosting agent: dials a gateway, enrols once, receives assignments that the server has signed, and connects
//! streams to their targets.
//!
//! It runs in the customer's network. Invariants: it opens no port; it connects only to targets that the server has
//! signed for its environment and that its own allow list permits.

mod agent;
pub mod allow;
mod assignments;
mod carriers;
pub mod check;
mod clock;
mod config;
mod connect;
mod control;
mod dial;
mod endpoint;
mod enrol;
mod health;
mod names;
pub mod options;
mod own_report;
mod probe;
mod proxy;
mod report_outbox;
mod retry_log;
mod route;
pub mod server_address;
mod shortage;
mod state;
mod status;

pub use config::{Config, NoCode};
pub use proxy::{Proxy, Straight};

use crate::{
    agent::Agent,
    assignments::Assignments,
    control::Removed,
    health::TargetHealths,
    names::Names,
    probe::PROBES,
    report_outbox::ReportOutbox,
    route::Route,
    state::StateDir,
    status::{Status, http},
};
use anyhow::Context;
use std::{sync::Arc, time::Duration};
use tokio::{
    sync::Semaphore,
    task::{JoinHandle, JoinSet},
    time::timeout,
};
use tokio_util::{sync::CancellationToken, task::TaskTracker};
use tracing::{debug, info, warn};
use wicketgate_system::service_manager;
use wicketgate_transport::abort::Abort;

/// How long running streams may continue after a stop signal.
const DRAIN: Duration = Duration::from_secs(30);
/// After that, for what streams have received and the kernel still delivers.
const DELIVER: Duration = Duration::from_secs(5);
/// How long aborted streams may take to send their reset.
const CUT: Duration = Duration::from_secs(2);

/// Enrols if necessary, then serves until `stop` is cancelled and the running streams have ended, within 30 s or until
/// `abort` is triggered. An error is final: it needs an operator. It is one that the agent was removed.
pub async fn run(config: Config, stop: CancellationToken, abort: Abort) -> anyhow::Result<()> {
    shortage::raise_limits();
    let dir = StateDir::lock(&config.state_dir)?;
    let status = Arc::new(Status::default());
    // Also while the agent enrols and drains. Ends when it is dropped.
    let mut shown = JoinSet::new();
    if let Some(address) = config.status_listen {
        shown.spawn(http::serve(http::listen(address).await?, Arc::clone(&status)));
    }
    let route = Route { server: config.server, proxy: config.proxy, names: Arc::new(Names::default()) };
    let state = match dir.load()? {
        Ok(state) => {
            if config.code.is_ok() {
                info!(agent.id = %state.agent(), "the identity in the state directory is used, and the enrolment code is not");
            }
            state
        }
        Err(dir) => {
            let code = config.code?;
            let enrolled = stop.run_until_cancelled(enrol::enrol(&route, &code, &config.name, dir, &status));
            match enrolled.await {
                Some(state) => state?,
                None => return Ok(()),
            }
        }
    };
    let tls = state.tls().context("cannot use the identity in the state directory")?;
    let assignments = Assignments::new(&state, config.allow)?;
    let via = route.proxy.as_ref().ok().map(tracing::field::display);
    info!(agent.id = %state.agent(), environment.id = %state.environment(), server = %route.server, proxy = via, "agent started");
    service_manager::ready("serving");
    let agent = Arc::new(Agent {
        route,
        name: config.name,
        takes_over: config.take_over.into(),
        tls,
        state: Arc::new(state),
        assignments,
        health: TargetHealths::default(),
        probes: Semaphore::new(PROBES),
        status,
        report: ReportOutbox::default(),
        streams: TaskTracker::new(),
        finish: Abort::default(),
        abort: abort.clone(),
    });
    let (keeper, stopped) = (Arc::clone(&agent), stop.clone());
    let generations =
        tokio::spawn(async move { keeper.assignments.keep_generations(&keeper.state, &stopped).await });
    tokio::spawn(own_report::keep(Arc::clone(&agent), stop.clone()));
    let connected = tokio::spawn(Arc::clone(&agent).stay_connected(stop.clone()));
    let ended = serve(&agent, connected, &stop, &abort).await;
    stop.cancel();
    let _ = generations.await;
    info!("agent stopped");
    ended
}

/// Serves until `stop` and the end of the running streams, or until the agent is removed.
async fn serve(
    agent: &Agent,
    mut connected: JoinHandle<Result<(), Removed>>,
    stop: &CancellationToken,
    abort: &Abort,
) -> anyhow::Result<()> {
    let removed = tokio::select! {
        // First: after a stop, the connection ends without an error.
        biased;
        () = stop.cancelled() => None,
        ended = &mut connected => ended.context("the connection to the gateway failed")?.err(),
    };
    agent.streams.close();
    if let Some(removed) = removed {
        abort.trigger();
        let _ = timeout(CUT, agent.streams.wait()).await;
        return Err(removed.into());
    }
    abort.token().run_until_cancelled(drain(agent)).await;
    if !agent.streams.is_empty() {
        warn!("streams were aborted");
        abort.trigger();
        let _ = timeout(CUT, agent.streams.wait()).await;
    }
    // The connection ends with the last stream.
    if timeout(CUT, connected).await.is_err() {
        debug!("the connection to the gateway did not close in time");
    }
    Ok(())
}

/// Waits for running streams. Those that do not end in time are cut when what they have received is delivered.
async fn drain(agent: &Agent) {
    if timeout(DRAIN, agent.streams.wait()).await.is_err() {
        warn!(streams = agent.streams.len(), "the drain time is over: streams are cut");
        agent.finish.trigger();
        let _ = timeout(DELIVER, agent.streams.wait()).await;
    }
}

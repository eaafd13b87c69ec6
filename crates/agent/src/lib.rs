//! The hosting agent: dials the gateways of its environment, enrols once, receives assignments that the server has signed, and connects
//! streams to their targets.
//!
//! It runs in the customer's network. Invariants: it opens no port; it connects only to targets that the server has
//! signed for its environment and that its own allow list permits.

mod agent;
pub mod allow;
mod assignments;
mod carriers;
pub mod check;
mod claims;
mod clock;
mod config;
mod connect;
mod connection;
mod control;
mod cure;
mod dial;
mod endpoint;
mod enrol;
#[cfg(any(test, fuzzing))]
pub mod fuzz;
mod gateways;
mod generations;
mod health;
mod known_gateways;
mod names;
pub mod options;
mod own_report;
pub mod package;
mod probe;
mod proxy;
mod refusal;
mod removals;
mod replacement;
mod report_outbox;
mod retry_log;
mod route;
pub mod server_address;
mod shortage;
mod state;
mod status;

pub use config::{Config, NoCode};
pub use proxy::{Proxy, ProxyPassword, ProxyRule, Straight};

use crate::{
    agent::Agent,
    assignments::Assignments,
    claims::Claims,
    gateways::GatewaySet,
    health::TargetHealths,
    known_gateways::KnownGateways,
    names::Names,
    probe::PROBES,
    removals::Removals,
    report_outbox::ReportOutbox,
    route::Route,
    state::{State, StateDir},
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
use wicketgate_system::program::WrongUsage;
use wicketgate_transport::{abort::Abort, code::EnrolmentCode};

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
    let status = Arc::new(Status::new(config.server.to_string()));
    // Also while the agent enrols and drains. Ends when it is dropped.
    let mut shown = JoinSet::new();
    if let Some(address) = config.status_listen {
        shown.spawn(http::serve(http::listen(address).await?, Arc::clone(&status)));
    }
    let proxy = config.proxy.of(&config.server);
    let route = Route { server: config.server, proxy, names: Arc::new(Names::default()) };
    let identified = stop.run_until_cancelled(identity(&route, dir, (config.code, &config.name), &status));
    let state = match identified.await {
        Some(state) => state?,
        None => return Ok(()),
    };
    let tls = state.tls().context("cannot use the identity in the state directory")?;
    let assignments = Assignments::new(&state, config.allow)?;
    let via = route.proxy.as_ref().ok().map(tracing::field::display);
    info!(agent.id = %state.agent(), environment.id = %state.environment(), server = %route.server, proxy = via, "agent started");
    let agent = Arc::new(Agent {
        route: Arc::new(route),
        name: config.name,
        takes_over: config.take_over,
        tls,
        gateways: KnownGateways::new(&state)?,
        claims: Claims::default(),
        removals: Removals::default(),
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
    let probes = Arc::clone(&agent).probe_due_targets(stop.clone());
    tokio::spawn(stop.clone().run_until_cancelled_owned(probes));
    let gateways = GatewaySet::new(Arc::clone(&agent), config.proxy, stop.clone());
    let connected = tokio::spawn(gateways.run());
    let ended = serve(&agent, connected, &stop, &abort).await;
    stop.cancel();
    let _ = generations.await;
    info!("agent stopped");
    ended
}

/// The identity in the directory, or one for the code.
async fn identity(
    route: &Route,
    dir: StateDir,
    (code, name): (Result<EnrolmentCode, NoCode>, &str),
    status: &Status,
) -> anyhow::Result<State> {
    let kept = match (dir.load()?, &code) {
        (Ok(state), Ok(code)) => replacement::unless_refused(state, code, route).await?,
        (loaded, _) => loaded,
    };
    match kept {
        Ok(state) => Ok(state),
        Err(dir) => {
            // Another start does not make one.
            let code = code.map_err(|none| WrongUsage(none.to_string()))?;
            enrol::enrol(route, &code, name, dir, status).await
        }
    }
}

/// Serves until `stop` and the end of the running streams, or until the agent is removed.
async fn serve(
    agent: &Agent,
    mut connected: JoinHandle<anyhow::Result<()>>,
    stop: &CancellationToken,
    abort: &Abort,
) -> anyhow::Result<()> {
    let removed = tokio::select! {
        // First: after a stop, the connection ends without an error.
        biased;
        () = stop.cancelled() => None,
        ended = &mut connected => ended.context("the connections to gateways failed")?.err(),
    };
    agent.streams.close();
    if let Some(removed) = removed {
        abort.trigger();
        let _ = timeout(CUT, agent.streams.wait()).await;
        return Err(removed);
    }
    abort.token().run_until_cancelled(drain(agent)).await;
    if !agent.streams.is_empty() {
        warn!("running connections were cut, as a second signal or the drain time asked for");
        abort.trigger();
        let _ = timeout(CUT, agent.streams.wait()).await;
    }
    // The connections end with the last streams.
    if timeout(CUT, connected).await.is_err() {
        debug!("the connections to gateways did not close in time");
    }
    Ok(())
}

/// Waits for running streams. Those that do not end in time are cut when what they have received is delivered.
async fn drain(agent: &Agent) {
    if timeout(DRAIN, agent.streams.wait()).await.is_err() {
        warn!(
            streams = agent.streams.len(),
            "connections that have not ended within 30 s of the stop are cut"
        );
        agent.finish.trigger();
        let _ = timeout(DELIVER, agent.streams.wait()).await;
    }
}

//! What watches the host and reports to the server, in tasks of its own.

use std::{future::pending, mem, sync::Arc, time::Duration};

use jiff::Timestamp;
use tokio::{
    sync::{mpsc, watch},
    time::{Instant, MissedTickBehavior, sleep_until},
};
use tokio_util::sync::CancellationToken;
use wicketgate_link::{FromGateway, Part};
use wicketgate_system::essential;

use crate::{
    agents::Agents, ipsec::Backend, observations::Observations, paced_shares::PacedShares,
    parts::GatewayParts,
};

/// How often traffic is reported. A crash loses at most this much.
const TRAFFIC_EVERY: Duration = Duration::from_secs(1);
/// How often the packets of unknown peers are counted: an operator who watches waits no longer than 5 s.
const UNKNOWN_PEERS_EVERY: Duration = Duration::from_secs(3);
/// How often it is looked whether an agent has reconnected after the gateway's start.
const AGENTS_LOOK_EVERY: Duration = Duration::from_millis(250);
/// Once so many looks in a row, two seconds, have found no new one, those that are missing are reported offline. Less than the time
/// for which a server keeps the status of a silent gateway's shares.
const AGENTS_QUIET: u32 = 8;
/// At most half a minute: agents that come and go must not hide for long that another one is missing.
const AGENTS_LOOKS: u32 = 120;

/// Starts the tasks that watch the host and report to the server.
pub(crate) fn spawn_watches(
    parts: &GatewayParts,
    link: &mpsc::Sender<FromGateway>,
    (links, over): (&watch::Receiver<u64>, CancellationToken),
) {
    let GatewayParts { observations, agents, tasks, stop, .. } = parts;
    let host = Arc::clone(&parts.backend);
    let watch_host = async move { host.watch_host().await };
    tasks.spawn(stop.clone().run_until_cancelled_owned(essential("watches the host", watch_host)));
    let expect_agents = {
        let (observations, agents) = (Arc::clone(observations), agents.clone());
        async move {
            let (mut connected, mut quiet) = (0, 0);
            for _ in 0..AGENTS_LOOKS {
                tokio::time::sleep(AGENTS_LOOK_EVERY).await;
                let before = mem::replace(&mut connected, agents.connected());
                quiet = if connected == before { quiet + 1 } else { 0 };
                if quiet == AGENTS_QUIET {
                    break;
                }
            }
            observations.agents_expected();
        }
    };
    tasks.spawn(stop.clone().run_until_cancelled_owned(expect_agents));
    let report = report(Arc::clone(observations), agents.clone(), link.clone());
    tasks.spawn(stop.clone().run_until_cancelled_owned(essential("reports what is observed", report)));
    let unknown_peers = report_unknown_peers(Arc::clone(&parts.backend), link.clone(), links.clone());
    tasks.spawn(stop.clone().run_until_cancelled_owned(unknown_peers));
    let unknown_agents = report_unknown_agents(agents.clone(), link.clone(), links.clone());
    tasks.spawn(stop.clone().run_until_cancelled_owned(unknown_agents));
    let keep = essential("keeps traffic", Arc::clone(&parts.spool).keep_on_disk(over.clone()));
    tasks.spawn(keep);
    let report = report_traffic(parts.clone(), link.clone(), links.clone());
    let report = async move {
        let _over = over.drop_guard();
        report.await;
    };
    tasks.spawn(essential("reports the traffic", report));
}

/// Reports who sends IKE and is no tunnel's peer.
async fn report_unknown_peers(
    backend: Arc<Backend>,
    send: mpsc::Sender<FromGateway>,
    mut links: watch::Receiver<u64>,
) {
    let mut last = Vec::new();
    loop {
        tokio::time::sleep(UNKNOWN_PEERS_EVERY).await;
        let changed = backend.unknown_peers().await;
        let is_told = changed.is_none() && !is_new_link(&mut links);
        last = changed.unwrap_or(last);
        if !is_told && send.send(FromGateway::UnknownPeers(last.clone())).await.is_err() {
            return;
        }
    }
}

/// Whether a link has begun since the last call.
fn is_new_link(links: &mut watch::Receiver<u64>) -> bool {
    let is_new = links.has_changed().unwrap_or(false);
    if is_new {
        links.mark_unchanged();
    }
    is_new
}

/// Reports which agents were refused because the server does not know them.
async fn report_unknown_agents(
    agents: Agents,
    send: mpsc::Sender<FromGateway>,
    mut links: watch::Receiver<u64>,
) {
    let mut told = Vec::new();
    loop {
        tokio::time::sleep(UNKNOWN_PEERS_EVERY).await;
        let unknown = agents.strangers();
        if !is_new_link(&mut links) && unknown == told {
            continue;
        }
        told.clone_from(&unknown);
        if send.send(FromGateway::UnknownAgents(unknown)).await.is_err() {
            return;
        }
    }
}

/// Sends reports of the observations, as fast as the link takes them; of what agents say, as fast as a share may change.
async fn report(observations: Arc<Observations>, agents: Agents, send: mpsc::Sender<FromGateway>) {
    let mut paced = PacedShares::default();
    loop {
        let is_observed = tokio::select! {
            () = observations.changed() => true,
            changed = agents.changed() => {
                paced.add(changed);
                false
            }
            () = at(paced.due_at()) => false,
        };
        let changed = paced.take(Instant::now());
        if changed.is_empty() && !is_observed {
            continue;
        }
        // Capacity of the link first: changes during the wait are in the same report.
        let Ok(place) = send.reserve().await else { return };
        observations.report(&agents, changed, |heard, delta| {
            place.send(FromGateway::Observed { heard, part: Part::WHOLE, delta });
        });
    }
}

/// Waits until this time; without one, for ever.
async fn at(time: Option<Instant>) {
    match time {
        Some(time) => sleep_until(time).await,
        None => pending().await,
    }
}

/// Reports traffic periodically, and once more at the end.
async fn report_traffic(
    parts: GatewayParts,
    send: mpsc::Sender<FromGateway>,
    mut links: watch::Receiver<u64>,
) {
    let GatewayParts { counters, spool, agents, abort, .. } = parts;
    let end = abort.token();
    let mut reported = None;
    let mut tick = tokio::time::interval(TRAFFIC_EVERY);
    tick.set_missed_tick_behavior(MissedTickBehavior::Delay);
    loop {
        let stopping = tokio::select! {
            _ = tick.tick() => false,
            () = spool.is_next_due() => false,
            () = end.cancelled() => true,
        };
        spool.add(counters.take(), Timestamp::now());
        let again = if is_new_link(&mut links) {
            reported = None;
            spool.again()
        } else {
            None
        };
        let reports = if stopping { spool.rest() } else { spool.next().into_iter().collect() };
        for report in again.into_iter().chain(reports) {
            if send.send(FromGateway::Traffic { report, part: Part::WHOLE }).await.is_err() {
                return;
            }
        }
        let parked = agents.parked();
        // Without capacity, the next tick reports it.
        if reported != Some(parked)
            && let Ok(place) = send.try_reserve()
        {
            place.send(FromGateway::Carriers { parked });
            reported = Some(parked);
        }
        if stopping {
            return;
        }
    }
}

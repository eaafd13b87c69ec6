//! Ten thousand idle connections: the memory that each needs, and whether all still work afterwards.

use std::{thread, time::Duration};

use anyhow::{Context, Result, ensure};
use rustix::process::{Resource, getrlimit};
use tokio::{net::TcpStream, runtime::Handle};

use crate::{
    Plan,
    load::{BOUND, exchange, opened},
    peer::Peer,
    peers::OURS,
    report::{Aim, Report},
    usage::memory,
};

/// A connection needs two sockets in each process, including the benchmark's.
const DESCRIPTORS_EACH: u64 = 2;
/// Descriptors that a process needs besides, most of them for carriers that a burst leaves parked.
const MARGIN: u64 = 1500;
/// The number of connections that are opened concurrently.
const AT_ONCE: usize = 100;
/// The time in which processes release what opening the connections needed temporarily.
const SETTLE: Duration = Duration::from_secs(5);

pub(crate) fn idle(plan: &Plan, peers: &[Peer], runtime: &Handle, report: &mut Report) -> Result<()> {
    let room = getrlimit(Resource::Nofile).maximum.map_or(u64::MAX, |most| most.saturating_sub(MARGIN));
    let count = plan.idle.min(usize::try_from(room / DESCRIPTORS_EACH)?);
    for peer in peers.iter().filter(|p| !p.pids.is_empty()) {
        let before = memory(&peer.pids)?;
        let mut open = runtime.block_on(open(peer, count))?;
        thread::sleep(SETTLE);
        let each = memory(&peer.pids)?.saturating_sub(before) as f64 / count as f64;
        let name = format!("{count} idle connections, KiB each");
        report.note(&name, &[Aim::Most(24.0)], peer.name, each / 1024.0);
        if peer.name == OURS {
            thread::sleep(plan.idle_time);
            let each = memory(&peer.pids)?.saturating_sub(before) as f64 / count as f64;
            let name = format!("{name}, after {} s", plan.idle_time.as_secs());
            report.note(&name, &[Aim::Most(24.0)], peer.name, each / 1024.0);
        }
        let works = runtime.block_on(all_work(&mut open));
        let name = format!("idle connections that still work after {} s", plan.idle_time.as_secs());
        let all = [Aim::Least(count as f64)];
        if peer.name == OURS {
            report.note(&name, &all, peer.name, works as f64);
        }
        drop(open);
        thread::sleep(SETTLE);
    }
    Ok(())
}

async fn open(peer: &Peer, count: usize) -> Result<Vec<TcpStream>> {
    let mut all = Vec::with_capacity(count);
    while all.len() < count {
        let to = |n: usize| peer.echoes[n % peer.echoes.len()];
        let some: Vec<_> = (all.len()..count).take(AT_ONCE).map(|n| tokio::spawn(opened(to(n)))).collect();
        for one in some {
            all.push(one.await?.with_context(|| format!("{} of {count} connections are open", all.len()))?);
        }
    }
    ensure!(all.len() == count);
    Ok(all)
}

async fn all_work(open: &mut [TcpStream]) -> usize {
    let mut works = 0;
    for tcp in open {
        works += usize::from(matches!(tokio::time::timeout(BOUND, exchange(tcp)).await, Ok(Ok(()))));
    }
    works
}

//! Comparisons: bulk transfers, short connections and ping-pongs through each peer in turn.

use std::time::Duration;

use anyhow::Result;
use tokio::runtime::Handle;

use crate::{
    Plan,
    load::{Bulk, Exchanges, Way, bulk, ping_pong, short},
    peer::Peer,
    peers::{DIRECT, HAPROXY, RATHOLE},
    report::{Aim, Report},
    target::Targets,
    usage::cpu,
};

/// The number of concurrent connections in measures with many.
const MANY: usize = 50;

/// The aims for throughput.
const FAST: [Aim; 2] = [Aim::AtLeast(1.5, RATHOLE), Aim::AtLeast(0.65, HAPROXY)];

pub(crate) fn bulks(plan: &Plan, peers: &[Peer], targets: &Targets, report: &mut Report) -> Result<()> {
    let measures = [(1, Way::Up), (1, Way::Down), (8, Way::Up), (8, Way::Down)];
    for _ in 0..plan.rounds {
        for (streams, way) in measures {
            for peer in peers {
                let Bulk { gbit, cpu } = bulk(peer, targets, streams, way, plan.time(3.0))?;
                let name = format!("{streams} bulk {way:?}").to_lowercase();
                report.note(&format!("{name}, Gbit/s"), &FAST, peer.name, gbit);
                if peer.name != DIRECT {
                    let cheap = [Aim::AtMost(0.55, RATHOLE)];
                    report.note(&format!("{name}, CPU s/GiB"), &cheap, peer.name, cpu);
                }
            }
        }
    }
    Ok(())
}

pub(crate) fn shorts(plan: &Plan, peers: &[Peer], runtime: &Handle, report: &mut Report) -> Result<()> {
    for _ in 0..plan.rounds {
        for first in ["client", "target"] {
            for peer in peers {
                let to = if first == "client" { peer.echo } else { peer.answer };
                let mut note = |what: &str, aims: &[Aim], value| {
                    let name = format!("short connections that the {first} closes first, {what}");
                    report.note(&name, aims, peer.name, value);
                };
                let near = peer.pids.get(..1).unwrap_or_default();
                let before = (cpu(near)?, cpu(&peer.pids)?);
                let made = short(runtime, to, MANY, plan.time(3.0))?;
                let each = |used: f64| used * 1e6 / made.count as f64;
                let many = [Aim::AtLeast(9.0, RATHOLE), Aim::AtLeast(0.65, HAPROXY)];
                note("50 at once, per second", &many, made.per_second);
                note("p99 ms", &[Aim::AtMost(1.5, HAPROXY)], ms(made.p99));
                if peer.name != DIRECT {
                    let near = each(cpu(near)? - before.0);
                    note("CPU µs each of the gateway", &[Aim::AtMost(1.0, HAPROXY)], near);
                    note("CPU µs each in all", &[], each(cpu(&peer.pids)? - before.1));
                }
            }
        }
    }
    Ok(())
}

pub(crate) fn ping_pongs(plan: &Plan, peers: &[Peer], runtime: &Handle, report: &mut Report) -> Result<()> {
    for _ in 0..plan.rounds {
        for peer in peers {
            let Exchanges { p50, p99, .. } = ping_pong(runtime, peer.echo, 1, plan.time(2.0))?;
            report.note("ping-pong, p50 µs", &[Aim::AtMost(1.4, HAPROXY)], peer.name, ms(p50) * 1e3);
            report.note("ping-pong, p99 µs", &[], peer.name, ms(p99) * 1e3);
        }
        for peer in peers {
            let Exchanges { per_second, .. } = ping_pong(runtime, peer.echo, MANY, plan.time(2.0))?;
            report.note("50 ping-pongs, messages/s", &[Aim::AtLeast(0.55, HAPROXY)], peer.name, per_second);
        }
    }
    Ok(())
}

pub(crate) fn ms(time: Duration) -> f64 {
    time.as_secs_f64() * 1e3
}

//! The agent behind a slow line: 40 ms round-trip time, 200 Mbit/s, with and without loss.

use std::{net::Ipv4Addr, path::Path, sync::Arc, thread, time::Duration};

use anyhow::Result;
use wicketgate_lab::Lab;

use crate::{
    HOME, Plan,
    compare::ms,
    line::{Line, Quality},
    load::{Way, bulk, ping_pong, short},
    peers::{OURS, Ours, Places},
    report::{Aim, Report},
    target::Targets,
};

const NEAR: Ipv4Addr = Ipv4Addr::new(198, 18, 0, 1);
const FAR: Ipv4Addr = Ipv4Addr::new(198, 18, 0, 2);
/// The delay in each direction.
const DELAY: Duration = Duration::from_millis(20);
/// The rate of the line in Mbit/s.
const MBIT: f64 = 200.0;
/// A pause before each measure, in which carriers become idle.
const REST: Duration = Duration::from_secs(3);

pub(crate) fn lossy(plan: &Plan, report: &mut Report) -> Result<()> {
    for lost in [1.0, 0.0] {
        let lab = Lab::new("wgline-", &Path::new(HOME).join("line"), Arc::default())?;
        let (gateway, agent) = (lab.namespace("gw")?, lab.namespace("far")?);
        let quality = Quality { delay: DELAY, lost, mbit: MBIT };
        let _line = Line::between((&gateway, NEAR), (&agent, FAR), quality)?;
        let (far_runtime, targets) = agent.enter(|| -> Result<_> {
            let runtime = tokio::runtime::Runtime::new()?;
            let targets = Targets::start(Ipv4Addr::LOCALHOST, runtime.handle())?;
            Ok((runtime, targets))
        })??;
        gateway.enter(|| -> Result<()> {
            let runtime = tokio::runtime::Runtime::new()?;
            let places = Places { gateway: &gateway, agent: &agent, agents: (NEAR, 7443).into() };
            let (_ours, peer) = Ours::start(&lab, places, &targets)?;
            for _ in 0..plan.rounds {
                let name = if lost > 0.0 { "0.1 % loss" } else { "no loss" };
                for way in [Way::Down, Way::Up] {
                    thread::sleep(REST);
                    let mbit = bulk(&peer, &targets, 8, way, plan.time(10.0))?.gbit * 1e3;
                    let aim = if lost > 0.0 { 80.0 } else { 140.0 };
                    let name = format!("{name}: 8 fresh bulk {way:?}, Mbit/s").to_lowercase();
                    report.note(&name, &[Aim::Least(aim)], OURS, mbit);
                }
                thread::sleep(REST);
                let p50 = thread::scope(|scope| {
                    let beside = scope.spawn(|| bulk(&peer, &targets, 1, Way::Down, plan.time(10.0)));
                    thread::sleep(Duration::from_secs(1));
                    let p50 = ping_pong(runtime.handle(), peer.echo, 2, plan.time(8.0))?.p50;
                    beside.join().map_err(|_| anyhow::anyhow!("a load thread panicked"))??;
                    anyhow::Ok(p50)
                })?;
                report.note(
                    &format!("{name}: small requests beside a bulk stream, p50 ms"),
                    // Without loss, the latency is that of the line's own queue.
                    if lost > 0.0 { &[Aim::Most(60.0)] } else { &[] },
                    OURS,
                    ms(p50),
                );
                if lost > 0.0 {
                    let made = short(runtime.handle(), peer.echo, 10, plan.time(6.0))?;
                    let name = format!("{name}: short connections, 10 at once, a second");
                    report.note(&name, &[Aim::Least(200.0)], OURS, made.per_second);
                }
            }
            runtime.shutdown_background();
            Ok(())
        })??;
        far_runtime.shutdown_background();
        lab.remove()?;
    }
    Ok(())
}

//! The age of a download's bytes on a slow line between site and gateway, compared with a server in the tunnel itself, and
//! with one HAProxy in the place of gateway and agent.
//!
//! Bytes that wait in buffers on the way delay all that follows them on the connection.

use std::{
    io::{Read as _, Write as _},
    net::{Ipv4Addr, SocketAddr, TcpListener, TcpStream},
    path::Path,
    sync::Arc,
    thread,
    time::{Duration, Instant},
};

use anyhow::{Context, Result};
use wicketgate_lab::{Lab, Namespace, Process};

use crate::{
    HOME, Options, Plan,
    compare::ms,
    line::{Line, Quality},
    peers::{DIRECT, HAPROXY, OURS, start_haproxy},
    report::{Aim, Report},
    tunnel::{BOUND, INSIDE, Installation, PEER, PRIVATE, SHARE, STRAIGHT},
};

/// Of all hosts but the client's, which sends nothing. CUBIC is Linux's default.
const CONGESTION_CONTROLS: [&str; 2] = ["cubic", "bbr"];
/// Mbit/s.
const RATES: [f64; 3] = [1.0, 20.0, 200.0];
/// Round-trip times in milliseconds.
const ROUND_TRIPS: [u64; 3] = [10, 50, 200];
/// HAProxy's port.
const PROXIED: u16 = 9101;
/// Each block begins with the time at which it was written, as microseconds of the process.
const BLOCK: usize = 1024;
/// Seconds of one download at the slowest rate, which needs more time until its buffers are full, and at the others.
const TIMES: [f64; 2] = [18.0, 6.0];
/// The age is that of the bytes that arrive in the last part of the time, as one of so many.
const LAST: u32 = 4;

pub(crate) fn slow(options: &Options, plan: &Plan, report: &mut Report) -> Result<()> {
    for congestion in CONGESTION_CONTROLS {
        let cells = RATES.iter().flat_map(|rate| ROUND_TRIPS.map(|round_trip| (*rate, round_trip)));
        let is_wanted = |(rate, round_trip): &(f64, u64)| {
            let name = format!("{rate}/{round_trip}/{congestion}");
            options.cell.is_empty() || options.cell.iter().any(|start| name.starts_with(start))
        };
        let cells: Vec<_> = cells.filter(is_wanted).collect();
        if !cells.is_empty() {
            with(congestion, &cells, options, plan, report)?;
        }
    }
    Ok(())
}

/// Measures these rates and round-trip times.
fn with(
    congestion: &'static str,
    cells: &[(f64, u64)],
    options: &Options,
    plan: &Plan,
    report: &mut Report,
) -> Result<()> {
    let lab = Lab::new("wgslow-", &Path::new(HOME).join("slow"), Arc::default())?;
    let mut line = None;
    let first = quality(RATES[2], ROUND_TRIPS[0]);
    let installation = Installation::start(&lab, Some(congestion), |net, hop, site| {
        line = Some(Line::between((net, hop), (site, PEER), first)?);
        site.ip(&format!("route add default via {hop}"))
    })?;
    let line = line.context("there is no line")?;
    let Installation { site, private, inside, load_balancer, .. } = &installation;
    let began = Instant::now();
    serve(inside, *load_balancer, began)?;
    serve(private, PRIVATE, began)?;
    let _haproxy = haproxy(&lab, &installation)?;
    let mut peers = [(DIRECT, STRAIGHT), (HAPROXY, PROXIED), (OURS, SHARE)].to_vec();
    peers.retain(|(peer, _)| !options.without.iter().any(|without| without == peer));
    for _ in 0..plan.rounds {
        for &(rate, round_trip) in cells {
            line.set(quality(rate, round_trip));
            let time = plan.time(TIMES[usize::from(rate > RATES[0])]);
            let name = format!("{rate} Mbit/s, {round_trip} ms, {congestion}");
            for &(peer, port) in &peers {
                let read = site.enter(|| read((*load_balancer, port).into(), time, began))??;
                let small = [Aim::AtMost(2.0, DIRECT), Aim::AtMost(1.1, HAPROXY)];
                report.note(&format!("{name}: age of a download's bytes, ms"), &small, peer, ms(read.age));
                let large = [Aim::AtLeast(0.95, DIRECT)];
                report.note(&format!("{name}: download, Mbit/s"), &large, peer, read.mbit);
            }
        }
    }
    installation.stop(&lab)?;
    lab.remove()
}

/// On the agent's host, with a port in the tunnel's namespace.
fn haproxy(lab: &Lab, installation: &Installation) -> Result<Process> {
    let Installation { agents, site, inside, load_balancer, .. } = installation;
    let listener = format!(
        "listen slow\n  bind {load_balancer}:{PROXIED} namespace {}\n  server target {PRIVATE}:{STRAIGHT}\n",
        inside.name()
    );
    let process = start_haproxy(lab, agents, &listener)?;
    let port = (*load_balancer, PROXIED).into();
    lab.until("HAProxy listens", BOUND, || Ok(Some(site.enter(|| connect(port, BOUND))??)))?;
    Ok(process)
}

fn quality(mbit: f64, round_trip: u64) -> Quality {
    Quality { delay: Duration::from_millis(round_trip) / 2, lost: 0.0, mbit }
}

/// Sends blocks to each client until it closes the connection.
fn serve(namespace: &Namespace, ip: Ipv4Addr, began: Instant) -> Result<()> {
    let listener = namespace.enter(|| TcpListener::bind((ip, STRAIGHT)))??;
    thread::spawn(move || {
        for tcp in listener.incoming() {
            let Ok(mut tcp) = tcp else { return };
            thread::spawn(move || {
                let mut block = [0; BLOCK];
                loop {
                    let now = u64::try_from(began.elapsed().as_micros()).unwrap_or(u64::MAX);
                    block[..8].copy_from_slice(&now.to_le_bytes());
                    if tcp.write_all(&block).is_err() {
                        return;
                    }
                }
            });
        }
    });
    Ok(())
}

struct Download {
    mbit: f64,
    /// The median of the last part.
    age: Duration,
}

/// Connects from the client. `time`: the longest wait, here and for bytes.
fn connect(to: SocketAddr, time: Duration) -> Result<TcpStream> {
    let socket = socket2::Socket::new(socket2::Domain::IPV4, socket2::Type::STREAM, None)?;
    socket.bind(&SocketAddr::from((INSIDE, 0)).into())?;
    socket.set_read_timeout(Some(time))?;
    socket.connect_timeout(&to.into(), time)?;
    Ok(socket.into())
}

/// Reads for a time.
fn read(from: SocketAddr, time: Duration, began: Instant) -> Result<Download> {
    let mut tcp = connect(from, time)?;
    let (start, mut blocks, mut ages) = (Instant::now(), 0_u32, Vec::new());
    let (mut block, mut stamp) = ([0; BLOCK], [0; 8]);
    while start.elapsed() < time {
        tcp.read_exact(&mut block)?;
        blocks += 1;
        stamp.copy_from_slice(&block[..8]);
        if start.elapsed() > time - time / LAST {
            ages.push(began.elapsed().saturating_sub(Duration::from_micros(u64::from_le_bytes(stamp))));
        }
    }
    ages.sort_unstable();
    let age = *ages.get(ages.len() / 2).context("nothing has arrived")?;
    let mbit = f64::from(blocks) * BLOCK as f64 * 8.0 / start.elapsed().as_secs_f64() / 1e6;
    Ok(Download { mbit, age })
}

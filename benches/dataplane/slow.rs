//! The age of a download's bytes on a slow line between site and gateway, compared with a server in the tunnel itself.
//!
//! Bytes that wait in buffers on the way delay all that follows them on the connection.

use std::{
    io::{Read as _, Write as _},
    net::{Ipv4Addr, SocketAddr, TcpListener},
    path::Path,
    sync::Arc,
    thread,
    time::{Duration, Instant},
};

use anyhow::{Context, Result};
use wicketgate_lab::{Lab, Namespace};

use crate::{
    HOME, Plan,
    compare::ms,
    line::{Line, Quality},
    peers::{DIRECT, OURS},
    report::{Aim, Report},
    tunnel::{INSIDE, Installation, PEER, PRIVATE, SHARE, STRAIGHT},
};

/// Mbit/s.
const RATES: [f64; 3] = [1.0, 20.0, 200.0];
/// Round-trip times in milliseconds.
const ROUND_TRIPS: [u64; 3] = [10, 50, 200];
/// Each block begins with the time at which it was written, as microseconds of the process.
const BLOCK: usize = 1024;
/// Seconds of one download at the slowest rate, which needs more time until its buffers are full, and at the others.
const TIMES: [f64; 2] = [24.0, 8.0];

pub(crate) fn slow(plan: &Plan, report: &mut Report) -> Result<()> {
    let lab = Lab::new("wgslow-", &Path::new(HOME).join("slow"), Arc::default())?;
    let mut line = None;
    let first = quality(RATES[2], ROUND_TRIPS[0]);
    let installation = Installation::start(&lab, |net, hop, site| {
        line = Some(Line::between((net, hop), (site, PEER), first)?);
        site.ip(&format!("route add default via {hop}"))
    })?;
    let line = line.context("there is no line")?;
    let Installation { site, private, inside, load_balancer, .. } = &installation;
    let began = Instant::now();
    serve(inside, *load_balancer, began)?;
    serve(private, PRIVATE, began)?;
    for _ in 0..plan.rounds {
        for rate in RATES {
            for round_trip in ROUND_TRIPS {
                line.set(quality(rate, round_trip));
                let time = plan.time(TIMES[usize::from(rate > RATES[0])]);
                for (peer, port) in [(DIRECT, STRAIGHT), (OURS, SHARE)] {
                    let read = site.enter(|| read((*load_balancer, port).into(), time, began))??;
                    let name = format!("line of {rate} Mbit/s, {round_trip} ms");
                    report.note(
                        &format!("{name}: age of a download's bytes, ms"),
                        &[Aim::AtMost(2.0, DIRECT)],
                        peer,
                        ms(read.age),
                    );
                    report.note(
                        &format!("{name}: download, Mbit/s"),
                        &[Aim::AtLeast(0.9, DIRECT)],
                        peer,
                        read.mbit,
                    );
                }
            }
        }
    }
    installation.stop(&lab)?;
    lab.remove()
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
    /// The median of the second half.
    age: Duration,
}

/// Reads for a time.
fn read(from: SocketAddr, time: Duration, began: Instant) -> Result<Download> {
    let socket = socket2::Socket::new(socket2::Domain::IPV4, socket2::Type::STREAM, None)?;
    socket.bind(&SocketAddr::from((INSIDE, 0)).into())?;
    socket.set_read_timeout(Some(time))?;
    socket.connect_timeout(&from.into(), time)?;
    let mut tcp = std::net::TcpStream::from(socket);
    let (start, mut blocks, mut ages) = (Instant::now(), 0_u32, Vec::new());
    let (mut block, mut stamp) = ([0; BLOCK], [0; 8]);
    while start.elapsed() < time {
        tcp.read_exact(&mut block)?;
        blocks += 1;
        stamp.copy_from_slice(&block[..8]);
        if start.elapsed() > time / 2 {
            ages.push(began.elapsed().saturating_sub(Duration::from_micros(u64::from_le_bytes(stamp))));
        }
    }
    ages.sort_unstable();
    let age = *ages.get(ages.len() / 2).context("nothing has arrived")?;
    let mbit = f64::from(blocks) * BLOCK as f64 * 8.0 / start.elapsed().as_secs_f64() / 1e6;
    Ok(Download { mbit, age })
}

//! The effect of hostile streams on other streams: each kind of harm is compared with its absence, in turn.

use std::{
    io::{Read as _, Write as _},
    net::TcpStream,
    thread,
    time::Duration,
};

use anyhow::Result;
use tokio::runtime::Handle;

use crate::{
    Plan,
    compare::ms,
    load::{Beside, Way, bulk, connect, ping_pong},
    peer::Peer,
    peers::{OURS, Ours},
    report::{Aim, Report},
    target::Targets,
};

/// The number of streams that do not read, or read slowly.
const STREAMS: usize = 20;
/// The number of connections to the agent port that never finish their handshake.
const STALLED: usize = 500;
/// The time in which the buffers of an unread stream fill.
const FILL: Duration = Duration::from_millis(700);
/// The number of concurrent other streams.
const OTHERS: usize = 4;

#[derive(Debug, Clone, Copy)]
enum Harm {
    NeverReads,
    OneByteASecond,
    Stalls,
}

/// A running harm. Dropping it ends it.
enum Running {
    Streams(Vec<TcpStream>),
    Readers(Beside),
}

pub(crate) fn hostile(
    plan: &Plan,
    ours: &Ours,
    peer: &Peer,
    targets: &Targets,
    runtime: &Handle,
    report: &mut Report,
) -> Result<()> {
    for harm in [Harm::NeverReads, Harm::OneByteASecond, Harm::Stalls] {
        for _ in 0..plan.rounds {
            let (gbit, p99) = others(plan, peer, targets, runtime)?;
            let running = harm.begin(ours, peer)?;
            thread::sleep(FILL);
            let (harmed_gbit, harmed_p99) = others(plan, peer, targets, runtime)?;
            match running {
                Running::Streams(streams) => drop(streams),
                Running::Readers(beside) => beside.end()?,
            }
            let name = harm.name();
            let throughput = harmed_gbit / gbit;
            report.note(&format!("throughput beside {name}"), &[Aim::Least(0.9)], OURS, throughput);
            report.note(&format!("p99 beside {name}"), &[Aim::Most(1.1)], OURS, harmed_p99 / p99);
        }
    }
    Ok(())
}

/// Measures the throughput of some bulk streams, and then the p99 of some ping-pongs.
fn others(plan: &Plan, peer: &Peer, targets: &Targets, runtime: &Handle) -> Result<(f64, f64)> {
    let gbit = bulk(peer, targets, OTHERS, Way::Down, plan.time(2.0))?.gbit;
    let p99 = ping_pong(runtime, peer.echo, OTHERS, plan.time(2.0))?.p99;
    Ok((gbit, ms(p99)))
}

impl Harm {
    fn name(self) -> String {
        match self {
            Self::NeverReads => format!("{STREAMS} streams that never read"),
            Self::OneByteASecond => format!("{STREAMS} streams that read 1 B/s"),
            Self::Stalls => format!("{STALLED} stalled handshakes"),
        }
    }

    fn begin(self, ours: &Ours, peer: &Peer) -> Result<Running> {
        Ok(match self {
            Self::NeverReads => {
                Running::Streams((0..STREAMS).map(|_| connect(peer.source)).collect::<Result<_>>()?)
            }
            Self::OneByteASecond => {
                let source = peer.source;
                let streams: Vec<TcpStream> = (0..STREAMS).map(|_| connect(source)).collect::<Result<_>>()?;
                let streams = std::sync::Arc::new(streams);
                Running::Readers(Beside::start(1, move || {
                    for mut stream in streams.iter() {
                        stream.read_exact(&mut [0])?;
                    }
                    thread::sleep(Duration::from_secs(1));
                    Ok(())
                }))
            }
            Self::Stalls => {
                let stalled = (0..STALLED).map(|n| -> Result<TcpStream> {
                    let mut tcp = connect(ours.agents)?;
                    // Half of them send the beginning of a ClientHello. The gateway may have closed them already.
                    if n % 2 == 0 {
                        let _ = tcp.write_all(&[22, 3, 1, 2, 0, 1, 0, 1, 252, 3, 3]);
                    }
                    Ok(tcp)
                });
                Running::Streams(stalled.collect::<Result<_>>()?)
            }
        })
    }
}

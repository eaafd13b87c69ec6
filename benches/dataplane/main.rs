//! The data plane compared with alternatives: `make bench`, as root. All processes are real and run in network
//! namespaces that the benchmark creates and removes.
//!
//! Figures are medians of several rounds, in each of which every peer is measured in turn. Absolute figures differ from
//! machine to machine, so most aims are ratios.

mod compare;
mod hostile;
mod idle;
mod line;
mod load;
mod lossy;
mod peer;
mod peers;
mod report;
mod slow;
mod target;
mod tunnel;
mod usage;

use std::{
    fs,
    io::{self, Write as _},
    net::Ipv4Addr,
    path::Path,
    process::ExitCode,
    sync::Arc,
    time::Duration,
};

use anyhow::{Context, Result};
use clap::{Parser, ValueEnum};
use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};
use wicketgate_lab::{Lab, Namespace};

use crate::{
    peers::{DIRECT, HAPROXY, Peers, RATHOLE},
    report::Report,
    target::Targets,
};

/// The benchmark's directory. If a run is killed, the next one removes it.
const HOME: &str = "/var/lib/wicketgate-bench";

/// The limit of file descriptors. A share may use only a part of a gateway's capacity, and 10,000 connections of one
/// share must fit.
const DESCRIPTORS: u64 = 262_144;

#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
enum Section {
    /// Throughput and CPU.
    Bulk,
    /// Short connections with one byte in each direction.
    Short,
    /// Latency.
    PingPong,
    /// Memory of idle connections.
    Idle,
    /// Hostile streams beside other streams.
    Hostile,
    /// The agent behind a slow and lossy line.
    Lossy,
    /// Throughput of a real tunnel.
    Tunnel,
    /// The delay of downloads through a real tunnel over a slow line.
    Slow,
}

impl Section {
    /// Whether the section runs on one loopback interface.
    fn is_loopback(self) -> bool {
        !matches!(self, Self::Lossy | Self::Tunnel | Self::Slow)
    }
}

#[derive(Debug, Parser)]
struct Options {
    /// The sections to measure. Without any, all are measured.
    #[arg(value_enum)]
    sections: Vec<Section>,
    /// Measure one short round only.
    #[arg(long)]
    quick: bool,
    #[arg(long, default_value_t = 5)]
    rounds: usize,
    /// Peers to leave out.
    #[arg(long)]
    without: Vec<String>,
    /// The cells of `slow` whose names begin so: `20/` or `20/10/cubic`, a rate in Mbit/s, a round trip in ms, and a
    /// congestion control. Without any, all are measured.
    #[arg(long)]
    cell: Vec<String>,
    /// The number of idle connections.
    #[arg(long, default_value_t = 10_000)]
    idle: usize,
    /// Seconds after which idle connections are used again.
    #[arg(long, default_value_t = 600)]
    idle_seconds: u64,
    /// Cargo passes this flag to every benchmark.
    #[arg(long, hide = true)]
    bench: bool,
}

/// The extent of the measurements.
struct Plan {
    rounds: usize,
    quick: bool,
    idle: usize,
    idle_time: Duration,
}

impl Plan {
    /// The duration of one measurement.
    fn time(&self, seconds: f64) -> Duration {
        Duration::from_secs_f64(if self.quick { seconds / 2.0 } else { seconds })
    }
}

fn main() -> ExitCode {
    let run = Options::try_parse().map_err(anyhow::Error::from).and_then(|options| run(&options));
    match run {
        Ok(0) => ExitCode::SUCCESS,
        // The table shows the missed aims.
        Ok(_) => ExitCode::FAILURE,
        Err(error) => {
            let _ = writeln!(io::stderr(), "{error:#}");
            ExitCode::FAILURE
        }
    }
}

fn run(options: &Options) -> Result<usize> {
    // The product's processes inherit the limit. Raising the hard limit needs root and is not permitted everywhere.
    let limit = getrlimit(Resource::Nofile);
    let most = limit.maximum.map(|most| most.max(DESCRIPTORS));
    if setrlimit(Resource::Nofile, Rlimit { current: most, maximum: most }).is_err() {
        setrlimit(Resource::Nofile, Rlimit { current: limit.maximum, ..limit })?;
    }
    fs::create_dir_all(HOME).context("run as root: the benchmark makes network namespaces")?;
    let plan = Plan {
        rounds: if options.quick { 1 } else { options.rounds },
        quick: options.quick,
        idle: options.idle,
        idle_time: Duration::from_secs(if options.quick { 5 } else { options.idle_seconds }),
    };
    let all = Section::value_variants();
    let sections = if options.sections.is_empty() { all } else { &options.sections };
    let mut report = Report::default();
    let beside: Vec<Section> = sections.iter().copied().filter(|s| s.is_loopback()).collect();
    if !beside.is_empty() {
        loopback(options, &plan, &beside, &mut report)?;
    }
    if sections.contains(&Section::Lossy) {
        lossy::lossy(&plan, &mut report)?;
    }
    if sections.contains(&Section::Tunnel) {
        tunnel::tunnel(&plan, &mut report)?;
    }
    if sections.contains(&Section::Slow) {
        slow::slow(options, &plan, &mut report)?;
    }
    report.print()
}

/// Measures the sections that run on the loopback interface of one namespace.
fn loopback(options: &Options, plan: &Plan, sections: &[Section], report: &mut Report) -> Result<()> {
    let lab = Lab::new("wgplane-", &Path::new(HOME).join("dataplane"), Arc::default())?;
    let namespace = lab.namespace("gw")?;
    widen(&namespace)?;
    // All threads are started inside the namespace and stay in it.
    namespace.enter(|| -> Result<()> {
        let runtime = tokio::runtime::Runtime::new()?;
        let targets = Targets::start(Ipv4Addr::LOCALHOST, runtime.handle())?;
        let mut names = [DIRECT, HAPROXY, RATHOLE].to_vec();
        names.retain(|name| !options.without.iter().any(|w| w == name));
        let Peers { all, ours, .. } = &Peers::start(&lab, &namespace, &targets, &names)?;
        let handle = runtime.handle();
        for section in sections {
            match section {
                Section::Bulk => compare::bulks(plan, all, &targets, report)?,
                Section::Short => compare::shorts(plan, all, handle, report)?,
                Section::PingPong => compare::ping_pongs(plan, all, handle, report)?,
                Section::Idle => idle::idle(plan, all, handle, report)?,
                Section::Hostile => hostile::hostile(plan, ours, &all[0], &targets, handle, report)?,
                Section::Lossy | Section::Tunnel | Section::Slow => {}
            }
        }
        runtime.shutdown_background();
        Ok(())
    })??;
    lab.remove()
}

/// Widens the limits for connections: closed ones stay in TIME_WAIT for a minute.
fn widen(namespace: &Namespace) -> Result<()> {
    namespace.sysctl("net/ipv4/ip_local_port_range", "10240 65000")?;
    namespace.sysctl("net/core/somaxconn", "4096")
}

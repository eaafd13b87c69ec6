//! The data plane beside what people use today: `make bench`, as root. All processes are real and run in a network
//! namespace of the benchmark's own; nothing of them is left.
//!
//! Figures are medians of rounds in which every peer has its turn; absolute ones differ from machine to machine, so
//! the aims are ratios.

mod compare;
mod hostile;
mod idle;
mod line;
mod load;
mod lossy;
mod peers;
mod report;
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

/// Removed by the next run, if one is killed.
const HOME: &str = "/var/lib/wicketgate-bench";

/// For 10,000 connections of one share, which may have a part of what a gateway has room for.
const DESCRIPTORS: u64 = 262_144;

#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
enum Section {
    /// Throughput and CPU.
    Bulk,
    /// Connections of one byte each way.
    Short,
    /// Latency.
    PingPong,
    /// Memory of connections at rest.
    Idle,
    /// Streams that do harm, beside others.
    Hostile,
    /// The agent behind a slow and lossy line.
    Lossy,
    /// Through a real tunnel.
    Tunnel,
}

impl Section {
    /// Whether all of it happens on one loopback interface.
    fn is_loopback(self) -> bool {
        !matches!(self, Self::Lossy | Self::Tunnel)
    }
}

#[derive(Debug, Parser)]
struct Options {
    /// What to measure; everything if none is named.
    #[arg(value_enum)]
    sections: Vec<Section>,
    /// One short round, to see where it stands.
    #[arg(long)]
    quick: bool,
    #[arg(long, default_value_t = 5)]
    rounds: usize,
    /// Peers to leave out.
    #[arg(long)]
    without: Vec<String>,
    /// Idle connections.
    #[arg(long, default_value_t = 10_000)]
    idle: usize,
    /// Seconds after which idle connections are tried again.
    #[arg(long, default_value_t = 600)]
    idle_seconds: u64,
    /// Cargo says so to every benchmark.
    #[arg(long, hide = true)]
    bench: bool,
}

/// How much is measured.
struct Plan {
    rounds: usize,
    quick: bool,
    idle: usize,
    idle_time: Duration,
}

impl Plan {
    /// How long a figure is measured.
    fn time(&self, seconds: f64) -> Duration {
        Duration::from_secs_f64(if self.quick { seconds / 2.0 } else { seconds })
    }
}

fn main() -> ExitCode {
    let run = Options::try_parse().map_err(anyhow::Error::from).and_then(|options| run(&options));
    match run {
        Ok(0) => ExitCode::SUCCESS,
        // Said in the table.
        Ok(_) => ExitCode::FAILURE,
        Err(error) => {
            let _ = writeln!(io::stderr(), "{error:#}");
            ExitCode::FAILURE
        }
    }
}

fn run(options: &Options) -> Result<usize> {
    // The product's own processes inherit it. Beyond the hard limit only root may go, and not everywhere.
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
    report.print()
}

/// Everything on the loopback interface of one namespace.
fn loopback(options: &Options, plan: &Plan, sections: &[Section], report: &mut Report) -> Result<()> {
    let lab = Lab::new("wgplane-", &Path::new(HOME).join("dataplane"), Arc::default())?;
    let namespace = lab.namespace("gw")?;
    widen(&namespace)?;
    // All threads are made by one that has entered the namespace, and are in it as well.
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
                Section::Lossy | Section::Tunnel => {}
            }
        }
        runtime.shutdown_background();
        Ok(())
    })??;
    lab.remove()
}

/// Room for the connections of a benchmark: their ends stay in TIME_WAIT for a minute.
fn widen(namespace: &Namespace) -> Result<()> {
    namespace.sysctl("net/ipv4/ip_local_port_range", "10240 65000")?;
    namespace.sysctl("net/core/somaxconn", "4096")
}

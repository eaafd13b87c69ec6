//! The SAs of a site's tunnel, and their replacement, asked for by either end's own daemon.

use std::{fs, process::Command, time::Duration};

use anyhow::{Context as _, Result, ensure};
use wicketgate_lab::Site;

use super::World;

/// For one SA to be replaced: milliseconds, on a processor that is not emulated, at ends that lose nothing.
const BOUND: Duration = Duration::from_secs(120);

/// For one `swanctl`, whose own timeout is for the daemon's answer.
const SWANCTL_TIMEOUT: &str = "20";

/// What both daemons have to replace.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Kind {
    Ike,
    Child,
}

/// Whose daemon begins.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum By {
    Site,
    Gateway,
}

/// A site's SAs that are there and not on their way out, by their numbers.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Sas {
    pub(crate) ike: Vec<String>,
    pub(crate) child: Vec<String>,
}

impl Sas {
    pub(crate) fn of(site: &Site) -> Result<Self> {
        Ok(Self::listed(&site.swanctl(&["--list-sas"])?))
    }

    /// As the gateway's daemon of the tunnel in `slot` sees them.
    pub(crate) fn of_gateway(world: &World, slot: u16) -> Result<Self> {
        Ok(Self::listed(&gateways_swanctl(world, slot, &["--list-sas"])?))
    }

    fn listed(said: &str) -> Self {
        let of = |is_child: bool, state: &str| {
            // CHILD SAs are below their IKE SA.
            let lines = said.lines().filter(|l| l.starts_with("  ") == is_child && l.contains(state));
            let numbers = lines.filter_map(|l| l.split_once(": #")?.1.split(',').next());
            numbers.map(str::to_owned).collect()
        };
        Self { ike: of(false, "ESTABLISHED"), child: of(true, "INSTALLED") }
    }

    fn numbers(&self, kind: Kind) -> &[String] {
        match kind {
            Kind::Ike => &self.ike,
            Kind::Child => &self.child,
        }
    }
}

/// Runs `swanctl` against the gateway's daemon of the tunnel in `slot`, behind the gateway's back.
pub(crate) fn gateways_swanctl(world: &World, slot: u16, args: &[&str]) -> Result<String> {
    let run = world.gateway.data.join(format!("gateway/tunnels/{slot}/run"));
    let socket = fs::canonicalize(run.join("charon.vici")).context("the gateway's daemon has no socket")?;
    let mut swanctl = Command::new("timeout");
    swanctl.args([SWANCTL_TIMEOUT, "swanctl"]).args(args);
    let out = swanctl.args(["--uri", &format!("unix://{}", socket.display())]).output()?;
    let said = String::from_utf8_lossy(&out.stdout).into_owned();
    ensure!(out.status.success(), "swanctl: {said}{}", String::from_utf8_lossy(&out.stderr));
    Ok(said)
}

/// Has site 0 or the gateway (its tunnel is in slot 0) replace an SA, and waits until both have another one alone in its
/// place: what one of them begins while the other is still at it, with a message on its way or lost, can end with SAs
/// that only one of them has.
pub(crate) fn rekey(world: &World, site: &Site, by: By, kind: Kind) -> Result<()> {
    rekeyed(world, site, kind, || begin(world, site, by, kind))
}

/// Has both begin to replace the same SA at once.
pub(crate) fn rekey_by_both(world: &World, site: &Site, kind: Kind) -> Result<()> {
    rekeyed(world, site, kind, || {
        std::thread::scope(|scope| {
            let other = scope.spawn(|| begin(world, site, By::Gateway, kind));
            let own = begin(world, site, By::Site, kind);
            // One that comes late finds the other's at work, which is as good.
            let other = other.join().map_err(|_| anyhow::anyhow!("a thread panicked"))?;
            own.or(other)
        })
    })
}

fn rekeyed(world: &World, site: &Site, kind: Kind, mut begin: impl FnMut() -> Result<()>) -> Result<()> {
    let both = || anyhow::Ok([Sas::of(site)?, Sas::of_gateway(world, 0)?]);
    let before = both()?;
    // While one is being replaced there is none to replace.
    world.lab.until("a rekey has begun", BOUND, || begin().map(Some))?;
    world.lab.until("a rekey has ended", BOUND, || {
        let is_done = |(now, before): (&Sas, &Sas)| {
            let alone = now.ike.len() == 1 && now.child.len() == 1;
            alone && now.numbers(kind) != before.numbers(kind)
        };
        let now = both()?;
        Ok(now.iter().zip(&before).all(is_done).then_some(()))
    })
}

fn begin(world: &World, site: &Site, by: By, kind: Kind) -> Result<()> {
    let flag = match kind {
        Kind::Ike => "--ike",
        Kind::Child => "--child",
    };
    match by {
        // What the configuration of the first site calls its connection and that one's child.
        By::Site => site.swanctl(&["--rekey", flag, "wicketgate-site-0"]),
        By::Gateway => {
            let name = if kind == Kind::Ike { "tunnel" } else { "site" };
            gateways_swanctl(world, 0, &["--rekey", flag, name])
        }
    }
    .map(drop)
}

//! Lists the SAs of a site's tunnel, and rekeys them from the daemon of either end.

use std::{fs, process::Command, time::Duration};

use anyhow::{Context as _, Result, ensure};
use wicketgate_lab::Site;

use super::World;

/// The longest time to rekey one SA. It takes milliseconds, except on an emulated processor or when packets are lost.
const BOUND: Duration = Duration::from_secs(120);

/// The longest run of one `swanctl`, in seconds. Its own timeout covers only the daemon's answer.
const SWANCTL_TIMEOUT: &str = "20";

/// The kind of SA to rekey.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Kind {
    Ike,
    Child,
}

/// The end whose daemon initiates the rekey.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum By {
    Site,
    Gateway,
}

/// The numbers of a site's established SAs, without those that are being deleted.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Sas {
    pub(crate) ike: Vec<String>,
    pub(crate) child: Vec<String>,
    /// CHILD SAs that were replaced, and are kept for some seconds for packets in flight.
    replaced: usize,
}

impl Sas {
    pub(crate) fn of(site: &Site) -> Result<Self> {
        Ok(Self::listed(&site.swanctl(&["--list-sas"])?))
    }

    /// The SAs of the gateway's daemon for the tunnel in `slot`.
    pub(crate) fn of_gateway(world: &World, slot: u16) -> Result<Self> {
        Ok(Self::listed(&gateways_swanctl(world, slot, &["--list-sas"])?))
    }

    fn listed(said: &str) -> Self {
        let of = |is_child: bool, state: &str| -> Vec<String> {
            // The list shows CHILD SAs indented below their IKE SA.
            let lines = said.lines().filter(|l| l.starts_with("  ") == is_child && l.contains(state));
            let numbers = lines.filter_map(|l| l.split_once(": #")?.1.split(',').next());
            numbers.map(str::to_owned).collect()
        };
        let (ike, child) = (of(false, "ESTABLISHED"), of(true, "INSTALLED"));
        let replaced = of(true, ": #").len() - child.len();
        Self { ike, child, replaced }
    }

    fn numbers(&self, kind: Kind) -> &[String] {
        match kind {
            Kind::Ike => &self.ike,
            Kind::Child => &self.child,
        }
    }
}

/// Runs `swanctl` on the gateway's daemon for the tunnel in `slot`, without the gateway's knowledge.
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

/// Makes site 0 or the gateway (the tunnel is in slot 0) rekey an SA, and waits until both ends have only the new one.
/// Without the wait, a rekey that one end begins while the other has not finished, because a message is delayed or
/// lost, can leave SAs that only one end has.
pub(crate) fn rekey(world: &World, site: &Site, by: By, kind: Kind) -> Result<()> {
    rekeyed(world, site, kind, || begin(world, site, by, kind))
}

/// Makes both ends rekey the same SA at the same time.
pub(crate) fn rekey_by_both(world: &World, site: &Site, kind: Kind) -> Result<()> {
    rekeyed(world, site, kind, || {
        std::thread::scope(|scope| {
            let other = scope.spawn(|| begin(world, site, By::Gateway, kind));
            let own = begin(world, site, By::Site, kind);
            // The later end may fail because the other's rekey is in progress: one success is enough.
            let other = other.join().map_err(|_| anyhow::anyhow!("a thread panicked"))?;
            own.or(other)
        })
    })
}

fn rekeyed(world: &World, site: &Site, kind: Kind, mut begin: impl FnMut() -> Result<()>) -> Result<()> {
    let both = || anyhow::Ok([Sas::of(site)?, Sas::of_gateway(world, 0)?]);
    if kind == Kind::Ike {
        // A daemon whose timer for a replaced CHILD SA ends while the IKE SA above it is being rekeyed does not find it, and
        // keeps it for its whole lifetime.
        world.lab.until("replaced CHILD SAs are removed", BOUND, || {
            Ok(both()?.iter().all(|sas| sas.replaced == 0).then_some(()))
        })?;
    }
    let before = both()?;
    // While an SA is being rekeyed, a new rekey is refused: repeat it.
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
        // The name of the connection and of its child in the configuration of site 0.
        By::Site => site.swanctl(&["--rekey", flag, "wicketgate-site-0"]),
        By::Gateway => {
            let name = if kind == Kind::Ike { "tunnel" } else { "site" };
            gateways_swanctl(world, 0, &["--rekey", flag, name])
        }
    }
    .map(drop)
}

//! Faults of the gateway's own host are told as such, in a check and in the status, never as a fault of the site. Each is
//! visible and, as far as the gateway can, cured within seconds.

use std::{
    fs,
    path::PathBuf,
    process::{Child, Command, Stdio},
    time::{Duration, Instant},
};

use anyhow::{Context as _, Result, ensure};
use rustix::process::{Pid, Signal, kill_process};
use serde_json::{Value, json};
use wicketgate_lab::Namespace;

use crate::{
    e2e::crash_ipsec::charons,
    harness::{
        AT_ONCE, PATIENCE, World, door,
        targets::{ask, here},
        text,
    },
};

/// The longest time until a fault is told, and until the tunnel is as it was where nothing has to be negotiated again.
const SEEN_WITHIN: Duration = Duration::from_secs(5);

/// Longer than a daemon is silent before it is replaced because it hangs.
const HUNG: Duration = Duration::from_secs(8);

/// The bound of one attempt; attempts repeat until one succeeds.
const TRY: Duration = Duration::from_secs(1);

fn check(world: &World, share: &Value) -> Result<Value> {
    let path = world.gateway.at(&format!("ipsec-shares/{}/check", text(share, "id")?));
    world.gateway.api.post(&path, &json!({}))
}

#[test]
fn a_hung_daemon_is_told_within_five_seconds_and_replaced() -> Result<()> {
    let world = World::with_sites(1).start()?;
    here(&world.private, world.target(7001))?;
    let (_agent, zid) = world.agent("agent")?;
    let tunnel = world.tunnel(0)?;
    let share = world.share("here", &tunnel, &zid, world.target(7001), 9000)?;
    let site = world.connected_site(0, &tunnel)?;
    let door = door(&tunnel, 9000)?;
    assert_eq!(ask(&site.namespace, door, PATIENCE)?, "here");
    let well = check(&world, &share)?;
    assert_eq!(well["ok"], true, "{well}");

    let pid = charons(world.tunnel_namespace(&tunnel)?.name())?.pop().context("no charon")?;
    let hung = Instant::now();
    kill_process(Pid::from_raw(pid).context("no pid")?, Signal::STOP)?;
    let told = check(&world, &share)?;
    ensure!(hung.elapsed() < AT_ONCE, "the check took {:?}", hung.elapsed());
    assert_eq!(
        (&told["ok"], &told["hops"][0]["state"], &told["hops"][0]["reason"], &told["hops"][1]["state"]),
        (&json!(false), &json!("FAILED"), &json!("TunnelFailed"), &json!("UNKNOWN")),
        "{told}"
    );
    ensure!(text(&told["hops"][0], "message")?.contains("IKE daemon"), "{told}");
    ensure!(text(&told["hops"][0], "advice")?.contains("not at the site"), "{told}");
    let path = format!("ipsec-tunnels/{}", text(&tunnel, "id")?);
    world.gateway.wait(&world.lab, &path, "TunnelFailed", SEEN_WITHIN, |t| {
        t["statusDetail"]["reason"] == "TunnelFailed"
    })?;

    let back = world
        .lab
        .until("traffic through another daemon", PATIENCE, || Ok(ask(&site.namespace, door, TRY).ok()))?;
    assert_eq!(back, "here");
    let history = world.gateway.list(&format!("{path}/connection-history"))?;
    let reasons: Vec<_> = history.iter().map(|c| (&c["state"], &c["lastError"]["reason"])).collect();
    ensure!(reasons.contains(&(&json!("DOWN"), &json!("GatewayFailed"))), "{history:#?}");
    ensure!(Pid::from_raw(pid).is_none_or(|pid| rustix::process::test_kill_process(pid).is_err()));
    world.end()
}

#[test]
fn what_another_program_changes_in_a_tunnels_network_is_told_and_restored() -> Result<()> {
    let world = World::with_sites(1).start()?;
    here(&world.private, world.target(7001))?;
    let (_agent, zid) = world.agent("agent")?;
    let tunnel = world.tunnel(0)?;
    let share = world.share("here", &tunnel, &zid, world.target(7001), 9000)?;
    let site = world.connected_site(0, &tunnel)?;
    let door = door(&tunnel, 9000)?;
    let inside = world.tunnel_namespace(&tunnel)?;
    let has = |namespace: &Namespace, table: &str| -> Result<bool> {
        let out = namespace.command("nft").args(["list", "ruleset"]).output()?;
        Ok(String::from_utf8(out.stdout)?.contains(table))
    };
    let works = || -> Result<Option<()>> {
        let is_guarded =
            has(&inside, "policy drop;\n\t\tiifname")? && has(&world.outside, "dnat to ip saddr map @inner")?;
        Ok((is_guarded && ask(&site.namespace, door, TRY).is_ok()).then_some(()))
    };
    let mut unseen = 0;
    for (where_, harm, told) in [
        (&inside, "ip link set dev uplink down", "the link uplink was down"),
        (&inside, "ip link set dev lo down", "the link lo was down"),
        (&inside, "ip link set dev ipsec0 down", "route into the tunnel"),
        (&inside, "nft flush ruleset", "packet rules in the tunnel's namespace"),
        (&inside, "nft flush table inet wicketgate", "packet rules in the tunnel's namespace"),
        (&world.outside, "nft flush ruleset", "gateway's own packet rules"),
    ] {
        if harm.contains("ipsec0") && !has(&inside, "ipsec0")? {
            continue;
        }
        for is_checked in [true, false] {
            world.lab.until("traffic passes", PATIENCE, works)?;
            let words: Vec<_> = harm.split(' ').collect();
            let done = where_.command(words[0]).args(&words[1..]).status()?;
            ensure!(done.success(), "{harm}");
            if is_checked {
                let seen = check(&world, &share)?;
                // The tunnel's own comparison may have been earlier, but not each time.
                ensure!(seen["ok"] == true || seen["hops"].to_string().contains(told), "{harm}: {seen}");
                unseen += usize::from(seen["ok"] == true);
            }
            world.lab.until(&format!("{harm}: restored"), SEEN_WITHIN, works)?;
        }
    }
    ensure!(unseen <= 2, "{unseen} changes were not told");
    let log = world.gateway.process.said();
    ensure!(log.contains("another program has changed a tunnel's network"), "nothing in the log");
    world.end()
}

#[test]
fn a_firewall_of_the_host_that_drops_is_told_with_the_rules_that_admit_tunnels() -> Result<()> {
    const DROP: &str =
        "table ip filter {\n chain FORWARD {\n type filter hook forward priority 0; policy drop;\n }\n}\n";
    let world = World::with_sites(1).start()?;
    here(&world.private, world.target(7001))?;
    let (_agent, zid) = world.agent("agent")?;
    let tunnel = world.tunnel(0)?;
    let share = world.share("here", &tunnel, &zid, world.target(7001), 9000)?;
    let site = world.connected_site(0, &tunnel)?;
    let door = door(&tunnel, 9000)?;
    let path = format!("ipsec-tunnels/{}", text(&tunnel, "id")?);
    assert_eq!(ask(&site.namespace, door, PATIENCE)?, "here");

    // As when Docker starts.
    world.outside.nft(DROP)?;
    let told = check(&world, &share)?;
    let message = text(&told["hops"][0], "message")?.to_owned();
    ensure!(told["ok"] == false && message.contains("ip filter FORWARD"), "{told}");
    let seen = world.gateway.wait(&world.lab, &path, "lastError", SEEN_WITHIN, |t| {
        t["connection"]["lastError"]["reason"] == "GatewayFailed"
            && t["statusDetail"]["reason"] == "TunnelFailed"
    })?;
    ensure!(seen["connection"]["lastError"]["message"].to_string().contains("nft insert rule"), "{seen}");
    ensure!(world.gateway.process.said().contains("drops tunnels' packets in the chain ip filter FORWARD"));

    // The cure is what the message says.
    let rules: Vec<_> = message.split('`').filter_map(|it| it.strip_prefix("nft ")).collect();
    assert_eq!(rules.len(), 2, "{message}");
    world.outside.nft(&(rules.join("\n") + "\n"))?;
    assert_eq!(ask(&site.namespace, door, PATIENCE)?, "here");
    world.gateway.wait(&world.lab, &path, "DEPLOYED", SEEN_WITHIN, |t| {
        t["status"] == "DEPLOYED" && t["connection"].get("lastError").is_none()
    })?;
    let well = check(&world, &share)?;
    assert_eq!(well["ok"], true, "{well}");

    // Rules that say more than the gateway understands: the packets decide.
    world.outside.nft("flush chain ip filter FORWARD\nadd rule ip filter FORWARD meta mark 0 accept\n")?;
    world.lab.until("the packets that pass are seen", PATIENCE, || {
        let _ = ask(&site.namespace, door, TRY);
        let seen = world.gateway.api.get(&world.gateway.at(&path))?;
        Ok((seen["status"] == "DEPLOYED" && check(&world, &share)?["ok"] == true).then_some(()))
    })?;
    world.end()
}

/// A change of the packet rules takes longer than a check waits.
#[test]
fn a_check_that_gives_up_does_not_cut_off_what_it_restores() -> Result<()> {
    let mut world = World::with_sites(1).start()?;
    world.gateway.process.stop(PATIENCE)?;
    let (slow, steps) = (world.lab.path("slow"), world.lab.path("steps"));
    let (slow_, steps_) = (slow.display(), steps.display());
    let change = format!("echo begin >>{steps_}; sleep 4; /usr/sbin/nft \"$@\"; echo end >>{steps_}; exit");
    let lines =
        format!("[ \"$*\" = '-f -' ] && [ -e {slow_} ] && {{ {change}; }}\nexec /usr/sbin/nft \"$@\"");
    world.gateway = world.start_with("nft", &lines)?;
    here(&world.private, world.target(7001))?;
    let (_agent, zid) = world.agent("agent")?;
    let tunnel = world.tunnel(0)?;
    let share = world.share("here", &tunnel, &zid, world.target(7001), 9000)?;
    let inside = world.tunnel_namespace(&tunnel)?;
    fs::write(&slow, "")?;
    inside.nft("flush ruleset\n")?;
    let told = check(&world, &share)?;
    ensure!(told["hops"][0]["state"] == "FAILED", "{told}");
    world.lab.until("each change that began has ended", PATIENCE, || {
        let steps = fs::read_to_string(&steps)?;
        let count = |word: &str| steps.lines().filter(|line| *line == word).count();
        Ok((count("begin") > 0 && count("begin") == count("end")).then_some(()))
    })?;
    fs::remove_file(&slow)?;
    world.end()
}

/// A control group with a thousandth of a processor, until this value is dropped.
struct Starved {
    group: PathBuf,
    root: PathBuf,
    busy: Vec<Child>,
    victim: i32,
}

impl Starved {
    /// `None`: this host has no control group of processors in the first version's hierarchy.
    fn begin(victim: i32) -> Result<Option<Self>> {
        let root = PathBuf::from("/sys/fs/cgroup/cpu");
        if !root.join("cpu.cfs_quota_us").exists() {
            return Ok(None);
        }
        let group = root.join(format!("wgt-starved-{}", std::process::id()));
        fs::create_dir(&group)?;
        let mut this = Self { group, root, busy: Vec::new(), victim };
        fs::write(this.group.join("cpu.cfs_period_us"), "1000000")?;
        fs::write(this.group.join("cpu.cfs_quota_us"), "1000")?;
        for _ in 0..4 {
            this.busy.push(Command::new("yes").stdout(Stdio::null()).spawn()?);
        }
        let pids = this.busy.iter().map(|busy| busy.id().to_string()).chain([victim.to_string()]);
        for pid in pids {
            fs::write(this.group.join("cgroup.procs"), pid)?;
        }
        Ok(Some(this))
    }
}

impl Drop for Starved {
    fn drop(&mut self) {
        for busy in &mut self.busy {
            let _ = busy.kill();
        }
        let _ = fs::write(self.root.join("cgroup.procs"), self.victim.to_string());
        for busy in &mut self.busy {
            let _ = busy.wait();
        }
        let _ = fs::remove_dir(&self.group);
    }
}

#[test]
fn a_daemon_without_a_processor_is_late_and_is_not_replaced() -> Result<()> {
    let world = World::with_sites(1).start()?;
    let tunnel = world.tunnel(0)?;
    let site = world.connected_site(0, &tunnel)?;
    let (_agent, door) = world.greeting(&tunnel)?;
    let inside = world.tunnel_namespace(&tunnel)?;
    let pid = charons(inside.name())?.pop().context("no charon")?;
    let Some(starved) = Starved::begin(pid)? else {
        eprintln!("SKIPPED: a daemon is starved with cgroups of the first version");
        return world.end();
    };
    world.lab.until("the daemon is late", PATIENCE, || {
        Ok(world.gateway.process.said().contains("IKE daemon is late").then_some(()))
    })?;
    // Longer than a daemon that hangs is waited for.
    let late = Instant::now();
    world.lab.until("the daemon is still late", PATIENCE, || Ok((late.elapsed() > HUNG).then_some(())))?;
    drop(starved);
    assert_eq!(ask(&site.namespace, door, PATIENCE)?, "here");
    assert_eq!(charons(inside.name())?, [pid]);
    let said = world.gateway.process.said();
    ensure!(!said.contains("IKE daemon died"), "{said}");
    world.end()
}

//! Faults of the gateway's own host are told as such, in a check and in the status, never as a fault of the site. Each is
//! visible and, as far as the gateway can, cured within seconds.

use std::{
    fs,
    path::PathBuf,
    process::Command,
    time::{Duration, Instant},
};

use anyhow::{Context as _, Result, ensure};
use rustix::process::{Pid, Signal, kill_process};
use serde_json::{Value, json};
use wicketgate_lab::{Lab, Namespace, Process, named};

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
    // Before the daemon is replaced, which has another message.
    world.gateway.wait(&world.lab, &path, "TunnelFailed", SEEN_WITHIN, |t| {
        let told = &t["statusDetail"];
        told["reason"] == "TunnelFailed" && told["message"].to_string().contains("is replaced within seconds")
    })?;
    named("TunnelFailed", hung.elapsed());
    named("GatewayFailed", hung.elapsed());
    named("A tunnel is ERROR for some seconds.", hung.elapsed());
    world.gateway.wait(&world.lab, &path, "GatewayFailed", PATIENCE, |t| {
        t["connection"]["lastError"]["reason"] == "GatewayFailed"
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
            let harmed = Instant::now();
            if is_checked {
                let seen = check(&world, &share)?;
                // The tunnel's own comparison may have been earlier, but not each time.
                ensure!(seen["ok"] == true || seen["hops"].to_string().contains(told), "{harm}: {seen}");
                unseen += usize::from(seen["ok"] == true);
            }
            world.lab.until(&format!("{harm}: restored"), SEEN_WITHIN, works)?;
            // The gateway logs it before it restores it.
            named("A link of a tunnel is down, or its packet rules are gone.", harmed.elapsed());
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
    let dropped = Instant::now();
    let told = check(&world, &share)?;
    let message = text(&told["hops"][0], "message")?.to_owned();
    ensure!(told["ok"] == false && message.contains("ip filter FORWARD"), "{told}");
    let seen = world.gateway.wait(&world.lab, &path, "lastError", SEEN_WITHIN, |t| {
        t["connection"]["lastError"]["reason"] == "GatewayFailed"
            && t["statusDetail"]["reason"] == "TunnelFailed"
    })?;
    named("A tunnel does not come up, or nothing passes; lastError has GatewayFailed.", dropped.elapsed());
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

/// The hierarchy of control groups that shares out this host's processors (cgroups(7)).
struct Processors {
    root: PathBuf,
    /// Its line in `/proc/PID/cgroup` begins with a number, and this.
    line: &'static str,
    /// A thousandth of a processor; the period comes first.
    limit: &'static [(&'static str, &'static str)],
    unlimited: (&'static str, &'static str),
}

impl Processors {
    /// # Errors
    /// Why this host has none.
    fn of_this_host() -> Result<Self> {
        let mount = PathBuf::from("/sys/fs/cgroup");
        if mount.join("cpu/cgroup.procs").exists() {
            let limit = &[("cpu.cfs_period_us", "1000000"), ("cpu.cfs_quota_us", "1000")];
            let unlimited = ("cpu.cfs_quota_us", "-1");
            return Ok(Self { root: mount.join("cpu"), line: "cpu", limit, unlimited });
        }
        let shared_out = fs::read_to_string(mount.join("cgroup.subtree_control")).unwrap_or_default();
        ensure!(
            shared_out.split_whitespace().any(|it| it == "cpu"),
            "no control groups share out processors"
        );
        let (limit, unlimited) = (&[("cpu.max", "1000 1000000")], ("cpu.max", "max"));
        Ok(Self { root: mount, line: "", limit, unlimited })
    }

    /// The group of a process.
    fn group(&self, pid: i32) -> Result<PathBuf> {
        let lines = fs::read_to_string(format!("/proc/{pid}/cgroup"))?;
        let path = lines.lines().find_map(|line| {
            let (_, line) = line.split_once(':')?;
            let (controllers, path) = line.split_once(':')?;
            controllers.split(',').any(|it| it == self.line).then_some(path)
        });
        Ok(self.root.join(path.context("the process is in no group")?.trim_start_matches('/')))
    }
}

/// A control group with a thousandth of a processor, until this value is dropped.
struct Starved {
    processors: Processors,
    group: PathBuf,
    busy: Vec<Process>,
    victim: i32,
    /// The victim's, before.
    former: PathBuf,
}

impl Starved {
    fn begin(lab: &Lab, processors: Processors, victim: i32) -> Result<Self> {
        let former = processors.group(victim)?;
        let group = lab.control_group(&processors.root, "starved")?;
        let mut this = Self { processors, group, busy: Vec::new(), victim, former };
        for (file, value) in this.processors.limit {
            fs::write(this.group.join(file), value)?;
        }
        for _ in 0..4 {
            let log = lab.path("busy.log");
            let mut busy = Command::new("sh");
            busy.args(["-c", "while :; do :; done"]);
            this.busy.push(Process::start(lab, "busy", &mut busy, &log)?);
        }
        let pids = this.busy.iter().map(|busy| busy.pid().to_string()).chain([victim.to_string()]);
        for pid in pids {
            fs::write(this.group.join("cgroup.procs"), pid)?;
        }
        Ok(this)
    }
}

impl Drop for Starved {
    fn drop(&mut self) {
        let (file, value) = self.processors.unlimited;
        let _ = fs::write(self.group.join(file), value);
        let _ = fs::write(self.former.join("cgroup.procs"), self.victim.to_string());
        for busy in &mut self.busy {
            let _ = busy.kill();
        }
        let _ = fs::remove_dir(&self.group);
    }
}

#[test]
fn a_daemon_without_a_processor_is_late_and_is_not_replaced() -> Result<()> {
    let processors = match Processors::of_this_host() {
        Ok(processors) => processors,
        Err(error) => {
            eprintln!("SKIPPED: a_daemon_without_a_processor_is_late_and_is_not_replaced: {error:#}");
            return Ok(());
        }
    };
    let world = World::with_sites(1).start()?;
    let tunnel = world.tunnel(0)?;
    let site = world.connected_site(0, &tunnel)?;
    let (_agent, door) = world.greeting(&tunnel)?;
    let inside = world.tunnel_namespace(&tunnel)?;
    let pid = charons(inside.name())?.pop().context("no charon")?;
    let begin = Instant::now();
    let starved = Starved::begin(&world.lab, processors, pid)?;
    world.lab.until("the daemon is late", PATIENCE, || {
        Ok(world.gateway.process.said().contains("IKE daemon is late").then_some(()))
    })?;
    named("The log says that an IKE daemon is late. /check may fail at tunnel.", begin.elapsed());
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

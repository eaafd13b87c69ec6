//! The Debian packages, installed on hosts with systemd by the commands of docs/QUICKSTART.md, line by line: a share over real
//! IPsec, a restart, an upgrade, and the removal.

use std::{
    collections::BTreeMap,
    fs,
    io::{BufRead as _, BufReader, Write as _},
    net::Ipv4Addr,
    os::unix::fs::PermissionsExt as _,
    path::PathBuf,
    process::Command,
    time::{Duration, Instant},
};

use anyhow::{Context as _, Result, bail, ensure};
use serde_json::Value;
use wicketgate_lab::{Lab, Namespace};

use crate::harness::{
    GATEWAY, PATIENCE, PRIVATE, SITE_CLIENT, join, lab,
    machine::Machine,
    targets::serve,
    walkthrough::{Step, steps},
};

const PAGE: &str = include_str!("../../docs/QUICKSTART.md");
/// What the page's removal begins with; all else is done before.
const REMOVAL: &str = "Remove it";
/// The addresses of the page, beside [`GATEWAY`].
const PEER: Ipv4Addr = Ipv4Addr::new(203, 0, 113, 2);
const TARGET: Ipv4Addr = Ipv4Addr::new(10, 20, 0, 20);
/// What the web server of the page says.
const WORDS: &str = "hello from the private network";
/// Within which the page promises the first byte.
const PROMISED: Duration = Duration::from_secs(600);
/// A warning of an agent whose allow list no longer has a target.
const REFUSED: &str = "an assignment was refused";
/// Where the agent's unit gets the enrolment code from, until it is used.
const CODE: &str = "/etc/credstore/wicketgate-agent.enrollment-code";
/// What the gateway's unit hands on from the service manager.
const CREDENTIAL: &str = "/etc/credstore/wicketgate.database";
/// The router's IKE daemon: the unit of the package that the page names.
const ROUTER: &str = "strongswan";
/// Where the hosts of the page have its files.
const HOME: &str = "/root";

fn given(variable: &str) -> Result<PathBuf> {
    std::env::var_os(variable)
        .map(PathBuf::from)
        .with_context(|| format!("{variable} is not set: run `make test-packages`"))
}

fn package(name: &str) -> Result<PathBuf> {
    let dir = given("WICKETGATE_TEST_PACKAGES")?;
    let mut files = fs::read_dir(&dir)?.filter_map(|entry| Some(entry.ok()?.path()));
    let is_it = |path: &PathBuf| {
        let file = path.file_name().unwrap_or_default().to_string_lossy().into_owned();
        file.starts_with(&format!("{name}_")) && file.ends_with(".deb")
    };
    files.find(is_it).with_context(|| format!("no package {name} in {}", dir.display()))
}

#[expect(clippy::print_stderr, reason = "the test's report")]
fn report(line: &str) {
    eprintln!("{line}");
}

/// Reports how long a step took.
fn step<T>(what: &str, act: impl FnOnce() -> Result<T>) -> Result<T> {
    let begin = Instant::now();
    let done = act().with_context(|| what.to_owned())?;
    report(&format!("{:6.1} s  {what}", begin.elapsed().as_secs_f32()));
    Ok(done)
}

/// The hosts of the page.
struct Hosts {
    gateway: Machine,
    agent: Machine,
    router: Machine,
    /// A host of the site has the namespace of its router.
    site: Namespace,
}

impl Hosts {
    fn boot(lab: &Lab) -> Result<Self> {
        let tar = given("WICKETGATE_TEST_ROOT")?;
        let (internet, outside) = (lab.namespace("net")?, lab.namespace("gw")?);
        let (private, site) = (lab.namespace("private")?, lab.namespace("site0")?);
        internet.sysctl("net/ipv4/ip_forward", "1")?;
        join(&internet, &outside, "gw", GATEWAY)?;
        join(&internet, &private, "private", PRIVATE)?;
        join(&internet, &site, "site0", PEER)?;
        private.ip(&format!("addr add {TARGET}/32 dev lo"))?;
        site.ip(&format!("addr add {SITE_CLIENT}/32 dev lo"))?;
        serve(&private, (TARGET, 80).into(), |stream| {
            let mut lines = BufReader::new(&stream).lines().map_while(Result::ok);
            if lines.any(|line| line.is_empty()) {
                let length = WORDS.len();
                let _ = write!(&stream, "HTTP/1.0 200 OK\r\nContent-Length: {length}\r\n\r\n{WORDS}");
            }
        })?;
        let boot = |name: &str, namespace: &Namespace| {
            step(&format!("boot {name}"), || Machine::boot(lab, name, &tar, namespace))
        };
        let hosts = Self {
            gateway: boot("gateway", &outside)?,
            agent: boot("agent", &private)?,
            router: boot("router", &site)?,
            site,
        };
        // The kernel of this machine may be one without ESP.
        hosts
            .router
            .write("/etc/strongswan.d/charon/kernel-libipsec.conf", "kernel-libipsec { load = yes }\n")?;
        hosts.router.run(&["systemctl", "disable", "--now", "strongswan-starter"])?;
        hosts.router.run(&["systemctl", "enable", ROUTER])?;
        // Returns when charon is up.
        hosts.router.run(&["systemctl", "restart", ROUTER])?;
        ensure!(hosts.has_own_ike()?, "this test would not see that a purge turns it on again");
        hosts.gateway.receive(&package("wicketgate")?)?;
        hosts.agent.receive(&package("wicketgate-agent")?)?;
        Ok(hosts)
    }

    /// Whether the gateway's host starts Debian's strongSwan.
    fn has_own_ike(&self) -> Result<bool> {
        Ok(self
            .gateway
            .command(&["systemctl", "--quiet", "is-enabled", "strongswan-starter"])
            .status()?
            .success())
    }

    fn machine(&self, name: &str) -> Result<&Machine> {
        Ok(match name {
            "gateway" => &self.gateway,
            "agent's host" | "agent-host:" => &self.agent,
            "site's router" | "site-router:" => &self.router,
            other => bail!("the page has a host {other}, and this test has none"),
        })
    }

    /// A shell on a host, with the environment of a login.
    fn shell(&self, host: &str) -> Result<Command> {
        let words = [
            "env",
            "-i",
            "-C",
            HOME,
            "HOME=/root",
            "PATH=/usr/sbin:/usr/bin:/sbin:/bin",
            "timeout",
            "120",
            "bash",
            "-c",
        ];
        if host != "host of the site" {
            return Ok(self.machine(host)?.command(&words));
        }
        let mut command = self.site.command(words[0]);
        command.args(&words[1..]);
        Ok(command)
    }

    /// Runs the commands of a step, each when the one before has succeeded, and compares what they print with the page.
    /// Returns what they printed as their result.
    fn follow(&self, step: &Step) -> Result<String> {
        let (mut printed, mut seen) = (String::new(), String::new());
        // The shell's variables last to the end of the step.
        let mut before = String::new();
        for command in &step.commands {
            let begin = Instant::now();
            if let Some(files) = command.strip_prefix("scp ") {
                self.copy(&step.host, files)?;
            } else {
                let out = self.shell(&step.host)?.arg(format!("{before}{command}")).output()?;
                let said = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
                let all = said(&out.stdout) + &said(&out.stderr);
                ensure!(out.status.success(), "{}: {command}: {}\n{all}", step.host, out.status);
                printed += &said(&out.stdout);
                all.lines().for_each(|line| report(&format!("          | {line}")));
                seen = seen + &all + "\n";
                let is_assignment = command.split_once("=$(").is_some_and(|(name, _)| !name.contains(' '));
                if is_assignment {
                    before += &format!("{command}\n");
                }
            }
            report(&format!("{:6.1} s  {}: {command}", begin.elapsed().as_secs_f32(), step.host));
        }
        step.expect(&seen)?;
        Ok(printed)
    }

    /// Copies a file, as `scp` would do.
    fn copy(&self, host: &str, words: &str) -> Result<()> {
        let (file, to) = words.split_once(' ').context("scp without a host")?;
        let place = |machine: &Machine| machine.root.join(HOME.trim_start_matches('/')).join(file);
        let (from, to) = (place(self.machine(host)?), place(self.machine(to)?));
        let mode = fs::metadata(&from)?.permissions().mode();
        ensure!(mode & 0o77 == 0, "{file} is a secret, and its mode is {mode:o}");
        fs::copy(from, to).map(drop).context("cannot copy")
    }

    fn end(self) -> Result<()> {
        step("power off the router", || self.router.end())?;
        step("power off the agent's host", || self.agent.end())?;
        step("power off the gateway", || self.gateway.end())
    }
}

/// The exposure of a unit: 0 is the least.
fn exposure(machine: &Machine, unit: &str) -> Result<f32> {
    let text = machine.run(&["systemd-analyze", "--no-pager", "security", unit])?;
    let line = text.lines().find(|line| line.contains("Overall exposure")).context("no exposure")?;
    let number = line.split_whitespace().find_map(|word| word.parse().ok());
    let number = number.with_context(|| format!("no number in {line:?}"))?;
    report(&format!("{unit}: exposure {number}"));
    Ok(number)
}

#[test]
#[ignore = "needs the packages: make test-packages"]
fn installed_packages_serve_a_share_and_leave_what_the_page_says() -> Result<()> {
    let lab = lab()?;
    let hosts = Hosts::boot(&lab)?;
    let before: BTreeMap<_, _> =
        [("gateway", hosts.gateway.files()?), ("agent's host", hosts.agent.files()?)].into();
    let begin = Instant::now();
    let (removal, begins): (Vec<_>, Vec<_>) =
        steps(PAGE)?.into_iter().partition(|step| step.section == REMOVAL);
    let mut printed = String::new();
    for step in &begins {
        printed = hosts.follow(step)?;
    }
    let (last, took) = (begins.last().context("no steps")?, begin.elapsed());
    report(&format!("{:6.1} s  from the first command to the first bytes", took.as_secs_f32()));
    ensure!(printed == WORDS && took < PROMISED, "{printed:?} after {took:?}");
    confined(&hosts)?;
    hosts.agent.run(&["test", "!", "-e", CODE])?;
    // Again at once, and as often as needed.
    let served = || {
        lab.until("the share serves", PATIENCE, || {
            Ok((hosts.follow(last).ok().as_deref() == Some(WORDS)).then_some(()))
        })
    };
    step("restart the router", || hosts.router.run(&["systemctl", "restart", ROUTER]))?;
    step("serve again", served)?;
    outlives(&hosts, &served)?;
    step("start with wrong settings", || fails_with_an_error(&hosts.gateway))?;
    keeps_its_data(&hosts)?;
    step("enrol a removed agent again", || enrols_again(&lab, &hosts))?;

    for step in &removal {
        hosts.follow(step)?;
    }
    for (name, before) in before {
        let files = hosts.machine(name)?.files()?;
        let is_told = |file: &str| PAGE.contains(&format!("`{}`", file.trim_start_matches('.')));
        let left: Vec<_> =
            files.into_iter().filter(|file| !before.contains(file) && !is_told(file)).collect();
        ensure!(left.is_empty(), "left behind on the {name}: {left:#?}");
        // Also where the system itself writes.
        let named = ["find", "/etc", "/usr", "/var", "/run", "/tmp", "-iname", "*wicketgate*"];
        let named = hosts.machine(name)?.run(&named)?;
        ensure!(named.is_empty(), "left behind on the {name}:\n{named}");
        let users = hosts.machine(name)?.run(&["cat", "/etc/passwd", "/etc/group", "/etc/shadow"])?;
        ensure!(!users.contains("wicketgate"), "left behind on the {name}:\n{users}");
    }
    is_clean(&hosts.gateway)?;
    ensure!(hosts.has_own_ike()?, "Debian's strongSwan stays turned off");
    let contexts = hosts.gateway.run(&["cat", &format!("{HOME}/.config/wicketgate/contexts.toml")])?;
    ensure!(!contexts.contains("127.0.0.1"), "{contexts}");
    hosts.end()?;
    lab.remove()
}

/// The units have the exposure that docs/PACKAGES.md states, the agent finds no fault in its own way, and the journal gets each line with its priority.
fn confined(hosts: &Hosts) -> Result<()> {
    let up = exposure(&hosts.gateway, "wicketgate.service")?;
    let agent = exposure(&hosts.agent, "wicketgate-agent.service")?;
    ensure!(agent < 2.5, "systemd-analyze security wicketgate-agent: {agent}");
    ensure!(up < 6.2, "systemd-analyze security wicketgate: {up}");
    // With the settings of the service.
    hosts.agent.run(&["wicketgate-agent", "check"])?;
    logged(&hosts.agent, "wicketgate-agent", "connected to the gateway", "6")
}

/// The journal has a line of a unit, with this priority. 6 is that of a line without one.
fn logged(machine: &Machine, unit: &str, words: &str, priority: &str) -> Result<()> {
    let journal = machine.run(&["journalctl", "--no-pager", "-o", "json", "-u", unit])?;
    let line = journal.lines().find(|line| line.contains(words));
    let line: Value = serde_json::from_str(line.with_context(|| format!("not in the journal: {words}"))?)?;
    ensure!(line["PRIORITY"] == priority, "{words:?}: {line}");
    Ok(())
}

/// A start that fails says why as an error, also one that has read a credential, which it does not repeat.
fn fails_with_an_error(gateway: &Machine) -> Result<()> {
    gateway.write(CREDENTIAL, "postgres://wicketgate:open-sesame@db.example/wicketgate\n")?;
    let file = "/run/credentials/wicketgate.service/wicketgate.database";
    for (setting, words) in [
        (format!("database-file = \"{file}\""), "and this start names postgres://db.example:5432/wicketgate"),
        ("listen = \"nowhere\"".to_owned(), "invalid value 'nowhere'"),
    ] {
        gateway.run(&["sh", "-c", &format!("echo '{setting}' >>/etc/wicketgate/up.toml")])?;
        let started = gateway.command(&["systemctl", "restart", "wicketgate"]).output()?;
        ensure!(!started.status.success(), "it starts with {setting}");
        logged(gateway, "wicketgate", words, "3")?;
        gateway.run(&["sed", "-i", "$d", "/etc/wicketgate/up.toml"])?;
    }
    let journal = gateway.run(&["journalctl", "--no-pager"])?;
    ensure!(!journal.contains("sesame"), "the password is in the journal");
    gateway.run(&["systemctl", "restart", "wicketgate"]).map(drop)
}

/// A site's SA outlives a restart and an upgrade; a reload narrows the allow list.
fn outlives(hosts: &Hosts, served: &impl Fn() -> Result<()>) -> Result<()> {
    let sas = || {
        let sas = hosts.router.run(&["swanctl", "--list-sas", "--raw"])?;
        anyhow::Ok(sas.split("uniqueid=").nth(1).map(|id| id[..4].to_owned()))
    };
    let first = sas()?;
    step("restart the gateway", || hosts.gateway.run(&["systemctl", "restart", "wicketgate"]))?;
    step("serve again", served)?;
    step("upgrade the gateway", || hosts.gateway.install(&package("wicketgate")?))?;
    step("serve again", served)?;
    step("upgrade the agent", || hosts.agent.install(&package("wicketgate-agent")?))?;
    step("serve again", served)?;
    ensure!(sas()? == first && first.is_some(), "the site's SA was replaced");

    hosts.agent.run(&["sed", "-i", "s/20:80/20:81/", "/etc/wicketgate/agent.toml"])?;
    hosts.agent.run(&["systemctl", "reload", "wicketgate-agent"])?;
    let reason = "for i in $(seq 100); do wicketgate share get web --jq .statusDetail.reason | \
                  grep -x AgentRefused && exit; sleep 0.2; done; exit 1";
    hosts.gateway.run(&["env", "HOME=/root", "bash", "-c", reason]).context("AgentRefused")?;
    logged(&hosts.agent, "wicketgate-agent", REFUSED, "4")
}

/// An agent that was removed says so for as long as it takes, and serves again with a new code, which does not stay.
fn enrols_again(lab: &Lab, hosts: &Hosts) -> Result<()> {
    let shell = |machine: &Machine, line: &str| machine.run(&["env", "HOME=/root", "bash", "-c", line]);
    let stands = |words: &[&str]| {
        lab.until(&format!("the unit of the agent is {words:?}"), PATIENCE, || {
            let shown = shell(&hosts.agent, "systemctl show -p ActiveState,StatusText wicketgate-agent")?;
            Ok(words.iter().all(|word| shown.contains(word)).then_some(()))
        })
    };
    stands(&["ActiveState=active", "StatusText=connected to https://198.51.100.2:8443"])?;
    shell(&hosts.gateway, "wicketgate agent delete $(wicketgate agent list -o name)")?;
    let refused = "StatusText=refused by https://198.51.100.2:8443: this agent was removed";
    stands(&["ActiveState=failed", refused, "run `wicketgate-agent enroll`"])?;
    let code = "wicketgate agent enroll --env $(wicketgate env list -o name) --jq .enrollmentCode";
    let code = shell(&hosts.gateway, code)?;
    shell(
        &hosts.agent,
        &format!("wicketgate-agent enroll <<<{} && systemctl restart wicketgate-agent", code.trim()),
    )?;
    stands(&["ActiveState=active", "StatusText=connected to"])?;
    hosts.agent.run(&["test", "!", "-e", CODE])?;
    // Neither does one that an identity makes superfluous.
    let code = shell(&hosts.gateway, "wicketgate agent enroll --jq .enrollmentCode")?;
    shell(
        &hosts.agent,
        &format!("wicketgate-agent enroll <<<{} && systemctl restart wicketgate-agent", code.trim()),
    )?;
    stands(&["ActiveState=active", "StatusText=connected to"])?;
    hosts.agent.run(&["test", "!", "-e", CODE]).map(drop)
}

/// Nothing of a gateway runs.
fn is_clean(gateway: &Machine) -> Result<()> {
    ensure!(gateway.run(&["ip", "netns", "list"])?.trim().is_empty(), "namespaces are left");
    ensure!(gateway.run(&["nft", "list", "tables"])?.trim().is_empty(), "firewall rules are left");
    let processes = gateway.run(&["ps", "-eo", "comm"])?;
    ensure!(!processes.contains("charon") && !processes.contains("wicketgate"), "{processes}");
    Ok(())
}

/// A removal without purge ends the tunnels, and what is installed later has the data.
fn keeps_its_data(hosts: &Hosts) -> Result<()> {
    let gateway = &hosts.gateway;
    step("remove the gateway's package", || gateway.run(&["dpkg", "--remove", "wicketgate"]))?;
    is_clean(gateway)?;
    step("install it again", || gateway.install(&package("wicketgate")?))?;
    gateway.run(&["systemctl", "start", "wicketgate"])?;
    let tunnels = gateway.run(&["env", "HOME=/root", "wicketgate", "tunnel", "list", "-o", "name"])?;
    ensure!(tunnels == "customer-a\n", "the data is gone: {tunnels:?}");
    Ok(())
}

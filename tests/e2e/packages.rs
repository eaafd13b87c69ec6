//! The Debian packages, installed on hosts with systemd: a share over real IPsec, a restart, an upgrade, and the removal.

use std::{
    fs,
    net::Ipv4Addr,
    path::{Path, PathBuf},
    time::{Duration, Instant},
};

use anyhow::{Context as _, Result, ensure};
use serde_json::{Value, json};
use wicketgate_lab::{Api, Lab, Site};

use crate::harness::{
    GATEWAY, PATIENCE, PRIVATE, SITE_CIDR, SITE_CLIENT, World, door, join, lab,
    machine::Machine,
    targets::{ask, here},
    text,
};

/// The API's address when nothing else is configured.
const API: (Ipv4Addr, u16) = (Ipv4Addr::LOCALHOST, 8480);
const BASE: &str = "/frontdoor/v2";

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

struct Provider {
    api: Api,
    base: String,
}

impl Provider {
    fn new(lab: &Lab, gateway: &Machine, namespace: &wicketgate_lab::Namespace) -> Result<Self> {
        let token = gateway.root.join("var/lib/wicketgate/admin.token");
        let api = Api::new(namespace, API.into(), &token)?;
        let found = lab.until("a frontdoor", PATIENCE, || {
            Ok(api.get(BASE)?["content"][0]["id"].as_str().map(str::to_owned))
        })?;
        Ok(Self { api, base: format!("{BASE}/{found}") })
    }

    fn at(&self, path: &str) -> String {
        format!("{}/{path}", self.base)
    }

    fn create(&self, lab: &Lab, kind: &str, body: &Value) -> Result<Value> {
        let made = self.api.post(&self.at(kind), body)?;
        self.deployed(lab, kind, text(&made, "id")?)
    }

    fn deployed(&self, lab: &Lab, kind: &str, id: &str) -> Result<Value> {
        lab.until("DEPLOYED", PATIENCE, || {
            let now = self.api.get(&self.at(&format!("{kind}/{id}")))?;
            Ok((now["status"] == "DEPLOYED").then_some(now))
        })
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
    let (lab, tar) = (lab()?, given("WICKETGATE_TEST_ROOT")?);
    let (internet, outside) = (lab.namespace("net")?, lab.namespace("gw")?);
    let (private, remote) = (lab.namespace("private")?, lab.namespace("site0")?);
    internet.sysctl("net/ipv4/ip_forward", "1")?;
    join(&internet, &outside, "gw", GATEWAY)?;
    join(&internet, &private, "private", PRIVATE)?;
    join(&internet, &remote, "site0", World::peer(0))?;
    let target = (PRIVATE, 7001).into();
    here(&private, target)?;

    let gateway = step("boot the gateway's host", || Machine::boot(&lab, "gateway", &tar, &outside))?;
    let before = gateway.files()?;
    step("install the package wicketgate", || gateway.install(&package("wicketgate")?))?;
    gateway.write("/etc/wicketgate/up.toml", &format!("public-address = \"{GATEWAY}\"\n"))?;
    gateway.run(&["wicketgate", "config", "check"])?;
    step("start the gateway", || gateway.run(&["systemctl", "enable", "--now", "--quiet", "wicketgate"]))
        .with_context(|| {
            gateway.run(&["journalctl", "--no-pager", "-u", "wicketgate"]).unwrap_or_default()
        })?;
    let provider = Provider::new(&lab, &gateway, &outside)?;

    let host = step("boot the agent's host", || Machine::boot(&lab, "agent", &tar, &private))?;
    step("install the package wicketgate-agent", || host.install(&package("wicketgate-agent")?))?;
    let code = provider.api.post(&provider.at("agents/enrollments"), &json!({}))?;
    host.write("/etc/credstore/wicketgate-agent.enrollment-code", text(&code, "enrollmentCode")?)?;
    let settings = format!("server = \"https://{GATEWAY}:8443\"\nallow = [\"{PRIVATE}:7001\"]\n");
    host.write("/etc/wicketgate/agent.toml", &settings)?;
    host.run(&["chmod", "644", "/etc/wicketgate/agent.toml"])?;
    step("start the agent", || host.run(&["systemctl", "enable", "--now", "--quiet", "wicketgate-agent"]))
        .with_context(|| {
            host.run(&["journalctl", "--no-pager", "-u", "wicketgate-agent"]).unwrap_or_default()
        })?;

    let tunnel = json!({"name": "customer-a", "locationId": "local", "peerPublicIp": World::peer(0), "peerCidr": SITE_CIDR});
    let tunnel = step("create a tunnel", || provider.create(&lab, "ipsec-tunnels", &tunnel))?;
    let environments = provider.api.get(&provider.at("environments"))?;
    let share = json!({"name": "database", "ipsecTunnelId": tunnel["id"], "envZId": environments["content"][0]["zId"],
        "target": target.to_string(), "ingressPort": 9000});
    let share = step("create a share", || provider.create(&lab, "ipsec-shares", &share))?;
    let config = provider.at(&format!("ipsec-tunnels/{}/vpn-config?format=strongswan", text(&tunnel, "id")?));
    let mut site = Site::new(&lab, "charon0", &remote, World::peer(0), SITE_CLIENT)?;
    step("connect the site", || {
        site.start(&lab, &provider.api.text(&config)?)?;
        site.connected(&lab, PATIENCE)
    })?;
    let door = door(&tunnel, 9000)?;
    let served = || {
        lab.until("the share serves", PATIENCE, || {
            Ok((ask(&remote, door, Duration::from_secs(5))? == "here").then_some(()))
        })
    };
    step("the first bytes through the share", served)?;

    let (up, agent) =
        (exposure(&gateway, "wicketgate.service")?, exposure(&host, "wicketgate-agent.service")?);
    ensure!(agent < 2.5, "systemd-analyze security wicketgate-agent: {agent}");
    ensure!(up < 6.2, "systemd-analyze security wicketgate: {up}");
    let journal = host.run(&["journalctl", "--no-pager", "-o", "json", "-u", "wicketgate-agent"])?;
    let line = journal
        .lines()
        .find(|line| line.contains("connected to the gateway"))
        .context("not in the journal")?;
    let line: Value = serde_json::from_str(line)?;
    ensure!(line["PRIORITY"] == "6", "{line}");

    // A site's SA outlives a restart and an upgrade.
    let sas = || {
        site.swanctl(&["--list-sas", "--raw"])
            .map(|sas| sas.split("uniqueid=").nth(1).map(|id| id[..4].to_owned()))
    };
    let first = sas()?;
    step("restart the gateway", || gateway.run(&["systemctl", "restart", "wicketgate"]))?;
    step("serve again", served)?;
    step("upgrade the gateway", || gateway.install(&package("wicketgate")?))?;
    step("serve again", served)?;
    step("upgrade the agent", || host.install(&package("wicketgate-agent")?))?;
    step("serve again", served)?;
    ensure!(sas()? == first && first.is_some(), "the site's SA was replaced");

    // A reload narrows the allow list.
    host.write("/etc/wicketgate/agent.toml", &settings.replace("7001", "7002"))?;
    host.run(&["chmod", "644", "/etc/wicketgate/agent.toml"])?;
    host.run(&["systemctl", "reload", "wicketgate-agent"])?;
    lab.until("AgentRefused", PATIENCE, || {
        let now = provider.api.get(&provider.at(&format!("ipsec-shares/{}", text(&share, "id")?)))?;
        Ok((now["statusDetail"]["reason"] == "AgentRefused").then_some(()))
    })?;

    step("remove the gateway's package", || gateway.run(&["dpkg", "--remove", "wicketgate"]))?;
    ensure!(gateway.run(&["ip", "netns", "list"])?.trim().is_empty(), "namespaces are left");
    ensure!(gateway.run(&["nft", "list", "tables"])?.trim().is_empty(), "firewall rules are left");
    let processes = gateway.run(&["ps", "-eo", "comm"])?;
    ensure!(!processes.contains("charon") && !processes.contains("wicketgate"), "{processes}");
    ensure!(gateway.root.join("var/lib/wicketgate/wicketgate.db").exists(), "the data is gone");
    step("purge it", || gateway.run(&["dpkg", "--purge", "wicketgate"]))?;
    let left: Vec<_> = gateway.files()?.into_iter().filter(|file| !before.contains(file)).collect();
    ensure!(left.is_empty(), "left behind: {left:#?}");
    step("remove and purge the agent's package", || host.run(&["dpkg", "--purge", "wicketgate-agent"]))?;
    ensure!(!Path::new(&host.root).join("var/lib/wicketgate-agent").exists(), "the agent's identity is left");
    host.end()?;
    gateway.end()?;
    lab.remove()
}

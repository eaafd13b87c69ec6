//! Metrics and alert rules, as a real Prometheus reads them: each alert's condition is produced, and its expression becomes true.

use std::{
    collections::{BTreeMap, BTreeSet},
    fs,
    io::Write as _,
    net::{IpAddr, Ipv4Addr, SocketAddr},
    path::{Path, PathBuf},
    process::{Command, Stdio},
    time::Duration,
};

use anyhow::{Context as _, Result, ensure};
use serde_json::{Value, json};
use wicketgate_lab::Process;

use crate::harness::{
    PATIENCE, World,
    sas::{By, Kind, rekey},
    share_body,
    targets::{connect, echo, exchange},
    text,
};

/// Where the gateway serves its metrics, and where Prometheus answers.
const METRICS: SocketAddr = SocketAddr::new(IpAddr::V4(Ipv4Addr::LOCALHOST), 8481);
const PROMETHEUS: &str = "127.0.0.1:9091";
/// For an expression to become true: a status may wait for a deadline of 30 s.
const TRUE: Duration = Duration::from_secs(90);

fn packaging(path: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../../packaging").join(path)
}

/// The metrics as `curl` gets them.
fn metrics(world: &World) -> Result<String> {
    let mut curl = world.outside.command("curl");
    let out = curl.args(["-q", "-sS", "-m", "10"]).arg(format!("http://{METRICS}/metrics")).output()?;
    Ok(String::from_utf8(out.stdout)?)
}

/// The value of the series of a metric that has all of these labels.
fn value(metrics: &str, name: &str, labels: &[&str]) -> Option<f64> {
    let is_it = |line: &&str| {
        line.starts_with(&format!("{name}{{")) && labels.iter().all(|label| line.contains(label))
    };
    metrics.lines().find(is_it)?.rsplit_once(' ')?.1.parse().ok()
}

pub(super) fn promtool(arguments: &[&str], input: &str) -> Result<()> {
    let mut command = Command::new("promtool");
    let piped = command.args(arguments).stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped());
    let mut child = piped.spawn().context("promtool is missing: apt-get install prometheus")?;
    child.stdin.take().context("no input")?.write_all(input.as_bytes())?;
    let out = child.wait_with_output()?;
    let said = [out.stdout, out.stderr].map(|text| String::from_utf8_lossy(&text).into_owned()).concat();
    let is_clean = out.status.success() && (arguments[1] == "rules" || said.trim().is_empty());
    ensure!(is_clean, "promtool {}: {said}", arguments.join(" "));
    Ok(())
}

/// Starts a Prometheus that reads the metrics every second, with the alert rules of the packages.
fn prometheus(world: &World) -> Result<Process> {
    let dir = world.lab.dir("prometheus")?;
    let config = format!(
        "global: {{scrape_interval: 1s, evaluation_interval: 1s}}\nrule_files: ['{}']\nscrape_configs:\n\
         - job_name: wicketgate\n  static_configs: [{{targets: ['{METRICS}']}}]\n",
        packaging("prometheus/alerts.yml").canonicalize()?.display()
    );
    fs::write(dir.join("prometheus.yml"), config)?;
    let mut command = world.outside.command("prometheus");
    command.arg(format!("--config.file={}", dir.join("prometheus.yml").display()));
    command.arg(format!("--storage.tsdb.path={}", dir.join("data").display()));
    command.arg(format!("--web.listen-address={PROMETHEUS}"));
    let log = world.lab.dir("log")?.join("prometheus.log");
    let process = Process::start(&world.lab, "prometheus", &mut command, &log)?;
    world.lab.until("Prometheus reads the metrics", PATIENCE, || {
        Ok(ask(world, "query", "wicketgate_agents_connected")
            .is_ok_and(|found| !is_empty(&found))
            .then_some(()))
    })?;
    Ok(process)
}

/// An answer of Prometheus.
fn ask(world: &World, what: &str, query: &str) -> Result<Value> {
    let mut curl = world.outside.command("curl");
    curl.args(["-q", "-sSG", "-m", "10", "--data-urlencode", &format!("query={query}")]);
    let out = curl.arg(format!("http://{PROMETHEUS}/api/v1/{what}")).output()?;
    let answer: Value = serde_json::from_slice(&out.stdout).context("Prometheus does not answer")?;
    ensure!(answer["status"] == "success", "{query}: {answer}");
    Ok(answer["data"].clone())
}

fn is_empty(found: &Value) -> bool {
    found["result"].as_array().is_none_or(Vec::is_empty)
}

#[test]
fn each_alert_is_true_while_its_condition_is_there_and_the_metrics_are_clean() -> Result<()> {
    promtool(&["check", "rules", packaging("prometheus/alerts.yml").to_str().context("a path")?], "")?;
    let mut world = World::with_sites(2).start()?;
    world.gateway.process.stop(PATIENCE)?;
    world.restart_with(&format!("--admin-listen {METRICS} --max-tunnels 1"))?;
    let _prometheus = prometheus(&world)?;
    let rules = ask(&world, "rules", "")?;
    let rules = rules["groups"][0]["rules"].as_array().context("no rules")?.clone();
    let alerts: BTreeMap<String, String> = rules
        .iter()
        .map(|rule| Ok((text(rule, "name")?.to_owned(), text(rule, "query")?.to_owned())))
        .collect::<Result<_>>()?;
    let mut seen = BTreeSet::new();
    let is_true =
        |world: &World, alert: &str| Ok::<_, anyhow::Error>(!is_empty(&ask(world, "query", &alerts[alert])?));
    let mut becomes = |world: &World, alert: &str| {
        seen.insert(alert.to_owned());
        world.lab.until(alert, TRUE, || Ok(is_true(world, alert)?.then_some(())))
    };
    for alert in alerts.keys() {
        ensure!(!is_true(&world, alert)?, "{alert} is true of an installation without tunnels");
    }

    // A tunnel whose site does not connect, and one for which there is no room.
    echo(&world.private, world.target(7001))?;
    let (mut agent, zid) = world.agent("agent")?;
    let tunnel = world.tunnel(0)?;
    let id = text(&tunnel, "id")?.to_owned();
    becomes(&world, "WicketgateTunnelDown")?;
    becomes(&world, "WicketgateBackupOld")?;
    let body = json!({"name": "site-1", "locationId": "local", "peerPublicIp": World::peer(1).to_string(),
        "peerCidr": "10.1.0.0/16"});
    let full = world.gateway.api.post(&world.gateway.at("ipsec-tunnels"), &body)?;
    // Served shares, of which one has no target.
    world.share("echo", &tunnel, &zid, world.target(7001), 9000)?;
    let broken = share_body("broken", &tunnel, &zid, world.target(7009), 9001);
    world.gateway.api.post(&world.gateway.at("ipsec-shares"), &broken)?;
    let site = world.connected_site(0, &tunnel)?;
    let load_balancer = text(&tunnel, "loadBalancerIp")?.parse::<Ipv4Addr>()?;
    let door = |port| SocketAddr::from((load_balancer, port));
    let mut open = connect(&site.namespace, door(9000), PATIENCE)?;
    exchange(&mut open, b"some bytes through the tunnel")?;
    rekey(&world, &site, By::Gateway, Kind::Child)?;
    rekey(&world, &site, By::Site, Kind::Ike)?;
    seen_in_metrics(&world, &id)?;
    becomes_false(&world, &alerts["WicketgateTunnelDown"], &id)?;
    world.lab.until("failures of the broken share", TRUE, || {
        // Accepted and reset, or reset while it connects.
        let _ = connect(&site.namespace, door(9001), PATIENCE);
        Ok(is_true(&world, "WicketgateConnectionsFail")?.then_some(()))
    })?;
    becomes(&world, "WicketgateConnectionsFail")?;
    world.lab.until("the tunnel flaps", TRUE, || {
        site.try_again()?;
        Ok(is_true(&world, "WicketgateTunnelFlaps")?.then_some(()))
    })?;
    becomes(&world, "WicketgateTunnelFlaps")?;
    becomes(&world, "WicketgateTunnelInError")?;
    let refused =
        world.gateway.api.get(&world.gateway.at(&format!("ipsec-tunnels/{}", text(&full, "id")?)))?;
    assert_eq!(refused["statusDetail"]["reason"], "GatewayFull");

    agent.process.kill()?;
    becomes(&world, "WicketgateNoAgent")?;
    becomes(&world, "WicketgateShareInError")?;
    let clean = metrics(&world)?;
    promtool(&["check", "metrics"], &clean)?;
    dashboards_ask_for_what_there_is(&clean)?;
    world.gateway.process.kill()?;
    becomes(&world, "WicketgateDown")?;
    assert_eq!(seen, alerts.keys().cloned().collect(), "an alert has no test");
    drop(site);
    world.restart()?;
    world.end()
}

/// The series of a tunnel that is up, was rekeyed and carried bytes.
fn seen_in_metrics(world: &World, tunnel: &str) -> Result<()> {
    let label = format!("tunnel=\"{tunnel}\"");
    world.lab.until("the tunnel's series", PATIENCE * 2, || {
        let all = metrics(world)?;
        let is = |name: &str, more: &str| value(&all, &format!("wicketgate_tunnel_{name}"), &[&label, more]);
        let is_seen = is("up", "") == Some(1.0)
            && is("enabled", "") == Some(1.0)
            && is("info", "name=\"site-0\"") == Some(1.0)
            && is("received_bytes_total", "").is_some_and(|bytes| bytes > 20.0)
            && is("sent_bytes_total", "").is_some_and(|bytes| bytes > 20.0)
            && is("rekeys_total", "sa=\"child\"").is_some_and(|n| n >= 1.0)
            && is("rekeys_total", "sa=\"ike\"").is_some_and(|n| n >= 1.0);
        Ok(is_seen.then_some(()))
    })
}

/// Waits until no series of the tunnel makes the expression true.
fn becomes_false(world: &World, query: &str, tunnel: &str) -> Result<()> {
    world.lab.until("the alert ends", PATIENCE, || {
        let found = ask(world, "query", query)?;
        let all = found["result"].as_array().cloned().unwrap_or_default();
        Ok((!all.iter().any(|series| series["metric"]["tunnel"] == tunnel)).then_some(()))
    })
}

fn dashboards_ask_for_what_there_is(metrics: &str) -> Result<()> {
    let mut count = 0;
    for file in fs::read_dir(packaging("grafana"))? {
        let dashboard: Value = serde_json::from_slice(&fs::read(file?.path())?)?;
        for panel in dashboard["panels"].as_array().context("no panels")? {
            for target in panel["targets"].as_array().context("no targets")? {
                let expr = text(target, "expr")?;
                let words = expr.split(|c: char| !c.is_ascii_alphanumeric() && c != '_');
                for name in words.filter(|word| word.starts_with("wicketgate_")) {
                    let is_there = metrics.lines().any(|line| {
                        line.starts_with(&format!("{name}{{")) || line.starts_with(&format!("{name} "))
                    });
                    // Of a family that has no series while nothing has failed.
                    let is_empty = name == "wicketgate_tunnel_errors_total";
                    ensure!(is_there || is_empty, "{expr} asks for {name}, which is not in the metrics");
                    count += 1;
                }
            }
        }
    }
    ensure!(count > 20, "only {count} expressions");
    Ok(())
}

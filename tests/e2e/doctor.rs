//! `wicketgate doctor` on hosts with and without faults.

use std::{collections::BTreeMap, net::UdpSocket, process::Output};

use anyhow::{Context as _, Result, ensure};
use serde_json::Value;
use wicketgate_lab::Namespace;

use crate::harness::{World, lab, wicketgate_executable};

/// Result and message of each check.
type Checks = BTreeMap<String, (String, String)>;

/// Runs the doctor. Returns its exit status, and what it has found.
fn doctor(host: &Namespace, arguments: &[&str]) -> Result<(i32, Checks)> {
    let mut command = host.command(&wicketgate_executable().display().to_string());
    let Output { status, stdout, stderr } =
        command.args(["doctor", "-o", "json"]).args(arguments).output()?;
    let report: Value = serde_json::from_slice(&stdout)
        .with_context(|| format!("{status}: {}", String::from_utf8_lossy(&stderr)))?;
    let text = |line: &Value, key: &str| line[key].as_str().unwrap_or_default().to_owned();
    let lines = report["checks"].as_array().context("no checks")?;
    let read = |line| (text(line, "check"), (text(line, "result"), text(line, "message")));
    Ok((status.code().context("killed")?, lines.iter().map(read).collect()))
}

#[test]
fn the_doctor_names_what_a_host_lacks_and_what_to_do() -> Result<()> {
    let lab = lab()?;
    let host = lab.namespace("gw")?;
    let data = lab.dir("data")?.display().to_string();
    let arguments = ["--ipsec", "userland", "--data-dir", &data];
    let expect = |said: &Checks, check: &str, result: &str, words: &[&str]| {
        let (found, message) = said.get(check).with_context(|| format!("no {check} in {said:?}"))?;
        ensure!(
            found == result && words.iter().all(|word| message.contains(word)),
            "{check}: {found} {message}"
        );
        Ok(())
    };

    let (status, said) = doctor(&host, &arguments)?;
    ensure!(status == 0, "{said:?}");
    for check in ["programs", "esp", "firewall", "ike-ports", "limits", "api-port", "agent-port"] {
        expect(&said, check, "PASS", &[])?;
    }
    expect(&said, "public-address", "WARN", &["--public-address"])?;

    let id = format!("(process {})", std::process::id());
    let ike = host.enter(|| UdpSocket::bind("0.0.0.0:4500"))??;
    host.nft("table ip other { chain guard { type filter hook forward priority 0; policy drop; }; }")?;
    let (status, said) = doctor(&host, &arguments)?;
    ensure!(status == 0, "{said:?}");
    expect(&said, "ike-ports", "WARN", &[&id, "UDP 4500"])?;
    expect(&said, "firewall", "WARN", &["ip other guard", "nft insert rule ip other guard"])?;
    drop(ike);
    host.nft("insert rule ip other guard oifname \"wg*\" accept")?;
    expect(&doctor(&host, &arguments)?.1, "firewall", "PASS", &[])?;

    // It reads the file of `up`, whose other settings it does not need.
    let (file, alias) = (lab.dir("etc")?.join("up.toml"), "198.51.100.2");
    std::fs::write(&file, format!("public-address = '{alias}'\nlocation = 'here'\n"))?;
    let file = file.display().to_string();
    let configured = [&arguments[..], &["--config", &file]].concat();
    let (status, said) = doctor(&host, &configured)?;
    ensure!(status == 1, "{said:?}");
    expect(&said, "settings", "PASS", &[&file])?;
    expect(&said, "public-address", "FAIL", &[alias, "no address of this host"])?;
    let checked = host
        .command(&wicketgate_executable().display().to_string())
        .args(["config", "check", &file])
        .output()?;
    let words = String::from_utf8(checked.stdout)?;
    ensure!(
        checked.status.success() && words.contains(&format!("up.toml: {alias} is no address of this host")),
        "{words}"
    );
    host.ip(&format!("addr add {alias}/32 dev lo"))?;
    expect(&doctor(&host, &configured)?.1, "public-address", "PASS", &[alias])?;

    let program = wicketgate_executable().display().to_string();
    let listener = host.listen("127.0.0.1:8443".parse()?)?;
    let (status, said) = doctor(&host, &arguments)?;
    ensure!(status == 1, "{said:?}");
    expect(&said, "agent-port", "FAIL", &[&id, "0.0.0.0:8443", "--agent-listen"])?;
    let (_, said) = doctor(&host, &[&arguments[..], &["--listen", "192.0.2.1:8480"]].concat())?;
    expect(&said, "api-port", "FAIL", &["cannot listen on 192.0.2.1:8480", "--listen"])?;
    drop(listener);

    let below = format!("{program}/data");
    let (status, said) = doctor(&host, &["--ipsec", "userland", "--data-dir", &below])?;
    ensure!(status == 1, "{said:?}");
    expect(&said, "data-directory", "FAIL", &[&program, "--data-dir"])?;

    let mut bare = host.command("env");
    let report = bare.args(["PATH=/nowhere", &program, "doctor", "--data-dir", &data]).output()?;
    let (table, words) = (String::from_utf8(report.stdout)?, String::from_utf8(report.stderr)?);
    ensure!(report.status.code() == Some(1) && words.contains("a check failed"), "{table}{words}");
    ensure!(table.contains("\nFAIL  programs") && table.contains("apt-get install"), "{table}");
    ensure!(table.contains("\nSKIP  esp"), "{table}");
    let scratch = "/run/netns/wicketgate-doctor-";
    let left = std::fs::read_dir("/run/netns")?.flatten();
    let left: Vec<_> = left.filter(|it| it.path().display().to_string().starts_with(scratch)).collect();
    ensure!(left.is_empty(), "{left:?}");
    lab.remove()
}

#[test]
fn the_ports_of_a_running_gateway_are_its_own() -> Result<()> {
    let world = World::loopback().start()?;
    let (data, agents) = (world.gateway.data.display().to_string(), world.agents_dial().to_string());
    let api = world.url().replace("http://", "");
    let arguments = ["--ipsec", "off", "--data-dir", &data, "--listen", &api, "--agent-listen", &agents];
    let (status, said) = doctor(&world.outside, &arguments)?;
    ensure!(status == 0, "{said:?}");
    for check in ["api-port", "agent-port"] {
        let (result, message) = said.get(check).with_context(|| format!("no {check} in {said:?}"))?;
        let process = format!("wicketgate (process {})", world.gateway.process.pid());
        ensure!(result == "PASS" && message.contains(&process), "{result} {message}");
    }
    // With the data of another gateway it would not start.
    let other = world.lab.dir("other")?.display().to_string();
    let (status, said) = doctor(&world.outside, &["--ipsec", "off", "--data-dir", &other, "--listen", &api])?;
    ensure!(status == 1 && said["api-port"].0 == "FAIL", "{said:?}");
    world.end()
}

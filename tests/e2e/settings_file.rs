//! Settings in a file, and the service manager's view of the programs.

use std::{
    fs,
    path::{Path, PathBuf},
    process::Command,
    time::Duration,
};

use anyhow::{Context as _, Result, ensure};
use rustix::process::{Pid, Signal, kill_process};
use wicketgate_lab::Process;

use crate::harness::{
    PATIENCE, World, agent_executable, lab, service_manager::ServiceManager, wicketgate_executable,
};

fn packaged(name: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../../packaging/etc").join(name)
}

/// With `UPDATE_SETTINGS=1`, the test updates the files.
#[test]
fn the_packaged_files_have_every_setting() -> Result<()> {
    for (program, name) in [(wicketgate_executable(), "up.toml"), (&*agent_executable()?, "agent.toml")] {
        let out = Command::new(program).args(["config", "default"]).output()?;
        let (file, text) = (packaged(name), String::from_utf8(out.stdout)?);
        if std::env::var_os("UPDATE_SETTINGS").is_some() {
            fs::write(&file, &text)?;
        }
        let hint = "run this test with UPDATE_SETTINGS=1";
        ensure!(
            fs::read_to_string(&file).unwrap_or_default() == text,
            "{} is outdated: {hint}",
            file.display()
        );
    }
    Ok(())
}

#[test]
fn a_file_is_checked_by_name_and_line_and_by_what_it_names() -> Result<()> {
    let lab = lab()?;
    let dir = lab.dir("etc")?;
    let agent = agent_executable()?;
    let check = |name: &str, text: &str| {
        let file = dir.join(name);
        fs::write(&file, text)?;
        let program = if name == "agent.toml" { &*agent } else { wicketgate_executable() };
        let out = Command::new(program).args(["config", "check"]).arg(&file).output()?;
        let said = String::from_utf8_lossy(&[out.stdout, out.stderr].concat()).into_owned();
        Ok::<_, anyhow::Error>((out.status.code(), said.replace(&dir.display().to_string(), "DIR")))
    };
    for (name, text, code, says) in [
        ("up.toml", "listen = '127.0.0.1:1'\nipsec = 'off'", 0, "DIR/up.toml: no fault was found"),
        ("up.toml", "\nlisten = 'x'", 2, "DIR/up.toml:2: invalid value 'x'"),
        (
            "up.toml",
            "listen = '0.0.0.0:1'",
            2,
            "DIR/up.toml:1: `listen`: the API would be served without TLS",
        ),
        ("up.toml", "database-file = '/nonexistent'", 2, "cannot read /nonexistent"),
        (
            "up.toml",
            "secret-key-file = '/nonexistent'\nipsec = 'off'",
            2,
            "DIR/up.toml:1: `secret-key-file`: ",
        ),
        ("router.toml", "", 2, "no configuration is called \"router\": the names are up, server, gateway"),
        ("server.toml", "", 2, "a server with gateways elsewhere needs PostgreSQL"),
        (
            "server.toml",
            "tls-cert = 'c'\nquota = ['shares=x', 'tunnels=1', 'nothing=1']",
            2,
            "DIR/server.toml:1: `tls-cert` needs `tls-key`, which is not set\nDIR/server.toml:2: invalid value 'shares=x'",
        ),
        ("gateway.toml", "ipsec = 'off'", 0, "DIR/gateway.toml: no fault was found"),
        // The package's unit gives the state directory.
        ("agent.toml", "server = 'https://gw.example:8443'", 0, "DIR/agent.toml: no fault was found"),
        ("agent.toml", "", 2, "DIR/agent.toml: no line sets `server`, which is needed"),
        (
            "agent.toml",
            "server = 'https://gw.example:8443'\nstate-dir = 'x'\nallow = ['10.0.0.0/8']",
            2,
            "DIR/agent.toml:3: ",
        ),
    ] {
        let (status, said) = check(name, text)?;
        ensure!(status == Some(code) && said.contains(says), "{text:?}: {status:?} {said}");
    }
    Ok(())
}

#[test]
fn all_faults_of_a_file_are_told_at_once() -> Result<()> {
    let lab = lab()?;
    let dir = lab.dir("etc")?;
    fs::write(dir.join("token"), "no token")?;
    let token = dir.join("token");
    for (name, text, lines) in [
        (
            "up.toml",
            "listn = '127.0.0.1:1'\ndrain = -1\nmax-tunnels = 'many'\ndatabase-file = '/nonexistent'\n\
             load-balancer-pool = ['10.9.0.0/16']\nipsec = 'off'"
                .to_owned(),
            &[
                "DIR/up.toml:1: there is no setting `listn`; is `listen` meant?",
                "DIR/up.toml:2: invalid value '-1' for '--drain",
                "DIR/up.toml:3: invalid value 'many' for '--max-tunnels",
                "DIR/up.toml:4: `database-file`: cannot read /nonexistent",
                "DIR/up.toml:5: `load-balancer-pool`: --load-balancer-pool needs IPsec",
                "wicketgate: DIR/up.toml has 5 faults",
            ][..],
        ),
        // That there is no TLS follows from a wrong name.
        (
            "up.toml",
            "listen = '0.0.0.0:1'\ntls-crt = '/c'".to_owned(),
            &["wicketgate: DIR/up.toml:2: there is no"],
        ),
        (
            "server.toml",
            format!("listen = '0.0.0.0:1'\nsecret-key-file = {token:?}"),
            &[
                "DIR/server.toml:1: `listen`: the API would be served without TLS",
                "DIR/server.toml: a server with gateways elsewhere needs PostgreSQL",
                "DIR/server.toml:2: `secret-key-file`: cannot read the secret key file DIR/token",
                "DIR/server.toml: gateways have to be told what to dial",
                "wicketgate: DIR/server.toml has 4 faults",
            ],
        ),
        (
            "gateway.toml",
            format!("state-dir = '/nonexistent'\nipsec = 'of'\njoin-token-file = {token:?}"),
            &[
                "DIR/gateway.toml:2: invalid value 'of'",
                "DIR/gateway.toml:3: `join-token-file`: DIR/token has no join token",
                "DIR/gateway.toml:3: `join-token-file`: a gateway that joins has to be told where",
                "wicketgate: DIR/gateway.toml has 3 faults",
            ],
        ),
    ] {
        let file = dir.join(name);
        fs::write(&file, &text)?;
        let out = Command::new(wicketgate_executable()).args(["config", "check"]).arg(&file).output()?;
        let said = String::from_utf8(out.stderr)?.replace(&dir.display().to_string(), "DIR");
        let is_told = said.lines().zip(lines).all(|(line, start)| line.starts_with(start));
        ensure!(is_told && said.lines().count() == lines.len(), "{text}:\n{said}");
        ensure!(out.status.code() == Some(2) && out.stdout.is_empty(), "{text}: {}", out.status);
    }
    Ok(())
}

#[test]
fn up_takes_its_settings_from_a_file_reads_it_again_and_notifies_the_service_manager() -> Result<()> {
    let lab = lab()?;
    let (namespace, dir) = (lab.namespace("gw")?, lab.dir("up")?);
    let file = dir.join("up.toml");
    let data = dir.join("data");
    let text = format!("data-dir = {data:?}\nlisten = '127.0.0.1:8080'\nipsec = 'off'\n");
    fs::write(&file, &text)?;
    let socket = dir.join("notify");
    let manager = ServiceManager::at(&socket)?;
    let mut command = namespace.command(&wicketgate_executable().display().to_string());
    command.args(["up", "--location", "here", "--config"]).arg(&file);
    command.env_remove("RUST_LOG").env("NOTIFY_SOCKET", &socket).env("WATCHDOG_USEC", "2000000");
    let mut up = Process::start(&lab, "up", &mut command, &dir.join("log"))?;
    manager.until("READY=1")?;
    manager.until("WATCHDOG=1")?;

    let pid = i32::try_from(up.pid()).ok().and_then(Pid::from_raw).context("no such process")?;
    let mut reload = |text: &str, says: &str| {
        fs::write(&file, text)?;
        kill_process(pid, Signal::HUP)?;
        manager.until("READY=1")?;
        let waited = format!("the log after a reload: {says}");
        up.until(&lab, &waited, PATIENCE, |process| Ok(process.said().contains(says).then_some(())))
    };
    reload(
        &format!("{text}drain = 5\nlog = 'debug'"),
        "take effect after a restart only settings=\"drain\"",
    )?;
    reload(&format!("{text}dran = 5"), "up.toml:4: there is no setting `dran`; is `drain` meant?")?;
    reload(&text, "was read again changed=\"log\"")?;
    up.stop(Duration::from_secs(30))?;
    manager.until("STOPPING=1").map(drop)
}

#[test]
fn a_hangup_stops_a_program_without_a_file_in_order() -> Result<()> {
    let mut world = World::loopback().start()?;
    let process = &mut world.gateway.process;
    let pid = i32::try_from(process.pid()).ok().and_then(Pid::from_raw).context("no such process")?;
    kill_process(pid, Signal::HUP)?;
    let status = process.wait(PATIENCE)?;
    ensure!(status.success() && process.said().contains("signal=\"SIGHUP\""), "{status}\n{}", process.tail());
    world.restart()?;
    world.end()
}

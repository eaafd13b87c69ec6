//! Agents in a network whose only way out is a proxy with a password: tinyproxy or squid with CONNECT, microsocks or dante.

use std::{
    fs,
    io::ErrorKind,
    net::SocketAddr,
    os::unix::fs::PermissionsExt as _,
    process::Command,
    thread,
    time::{Duration, Instant},
};

use anyhow::{Result, ensure};
use wicketgate_lab::{Agent, AgentOptions, End, Namespace, Process, named, unpacked};
use wicketgate_transport::{code::EnrolmentCode, trust::Fingerprint};

use crate::harness::{
    PATIENCE, World, agent_executable, door,
    targets::{ask, connect, echo, exchange, here},
};

/// The bound of one attempt; attempts repeat until one succeeds.
const TRY: Duration = Duration::from_secs(2);

const USER: &str = "branch";
const PASSWORD: &str = "open-sesame";
/// [`PASSWORD`] as squid and the system keep it: `openssl passwd -apr1` and `openssl passwd -6`.
const SQUIDS_HASH: &str = "$apr1$wicketgt$.TZN2sbfQfC8IYunWUHiz/";
const SYSTEMS_HASH: &str =
    "$6$wicketgate$GZnJkbX1g6Ky2961U148WQ5sfHOUR.iM0Qq3IHdn9sxhkqW4JeY8GxdsBIZtYDe2.ZzyGo5oFqmT9tKor.fJt1";
/// The proxies' host, in the agents' network.
const HTTP: &str = "10.77.0.1:3128";
const SOCKS: &str = "10.77.0.1:1080";
/// The agents' host.
const OFFICE: &str = "10.77.0.2";

/// Has the world's agents run in a network that reaches the proxies' ports and nothing else: the agent port listens at the
/// gateway's loopback address, and only the proxies' host knows its name.
fn office(world: &mut World) -> Result<()> {
    let office = world.lab.namespace("office")?;
    Namespace::link(End(&world.outside, "office", "10.77.0.1/24"), End(&office, "wan", "10.77.0.2/24"))?;
    let dir = world.lab.dir("proxies")?;
    fs::write(dir.join("hosts"), "127.0.0.1 localhost gateway.test\n")?;
    for (file, password, mode) in
        [("password", PASSWORD, 0o600), ("wrong", "sesame", 0o640), ("open", PASSWORD, 0o644)]
    {
        fs::write(dir.join(file), format!("{password}\n"))?;
        fs::set_permissions(dir.join(file), fs::Permissions::from_mode(mode))?;
    }
    world.private = office;
    Ok(())
}

/// Starts a proxy on the gateway's host, which knows `gateway.test`. `lines` may mount what the proxy sees.
fn start(world: &World, name: &str, lines: &str, listens: &str) -> Result<Process> {
    let hosts = world.lab.path("proxies").join("hosts");
    let script = format!("set -e; mount --bind {} /etc/hosts\n{lines}", hosts.display());
    let mut command = world.outside.command("unshare");
    command.args(["-m", "sh", "-c", &script]);
    let log = world.lab.dir("log")?.join(format!("{name}.log"));
    let mut process = Process::start(&world.lab, name, &mut command, &log)?;
    let at: SocketAddr = listens.parse()?;
    process.until(&world.lab, "the proxy listens", PATIENCE, |_| Ok(world.outside.connect(at, TRY).ok()))?;
    Ok(process)
}

/// An HTTP proxy that permits CONNECT to `port`.
fn tinyproxy(world: &World, listens: &str, port: u16) -> Result<Process> {
    let (host, own) = listens.rsplit_once(':').unwrap_or_default();
    let settings = world.lab.path("proxies").join(format!("{own}.conf"));
    let user = format!("User root\nGroup root\nBasicAuth {USER} {PASSWORD}\n");
    fs::write(&settings, format!("Listen {host}\nPort {own}\nConnectPort {port}\nMaxClients 500\n{user}"))?;
    start(
        world,
        &format!("tinyproxy-{own}"),
        &format!("exec tinyproxy -d -c {}", settings.display()),
        listens,
    )
}

/// Squid, which permits CONNECT to `port`. It changes to a user of its own, which may not be able to enter the directory in
/// which it is unpacked: it is at `/mnt`.
fn squid(world: &World, listens: &str, port: u16) -> Result<Process> {
    let dir = world.lab.path("proxies");
    let (settings, users) = (dir.join("squid.conf"), dir.join("squid.users"));
    fs::write(&users, format!("{USER}:{SQUIDS_HASH}\n"))?;
    let text = format!(
        "http_port {listens}
        auth_param basic program /mnt/usr/lib/squid/basic_ncsa_auth {}
        auth_param basic children 1 startup=1
        acl known proxy_auth REQUIRED
        acl agents port {port}
        http_access deny !agents
        http_access allow CONNECT known
        http_access deny all
        unlinkd_program /mnt/usr/lib/squid/unlinkd
        mime_table /mnt/usr/share/squid/mime.conf
        icon_directory /mnt/usr/share/squid/icons
        error_directory /mnt/usr/share/squid-langpack/en
        cache deny all
        pid_filename none
        access_log none
        cache_log /dev/null
        coredump_dir none",
        users.display()
    );
    fs::write(&settings, text.replace("\n        ", "\n"))?;
    let root = unpacked(&["squid", "squid-common", "squid-langpack"])?;
    let lines = format!(
        "mount --bind {} /mnt\nexec /mnt/usr/sbin/squid -N -d 1 -f {}",
        root.display(),
        settings.display()
    );
    start(world, "squid", &lines, listens)
}

/// Dante, which permits connections to `port` to a user of the system. Its processes end with a shell that is
/// their namespace's first: the kernel forgets to end one with its parent when that one changes its user.
fn dante(world: &World, listens: &str, port: u16) -> Result<Process> {
    let dir = world.lab.path("proxies");
    let (host, own) = listens.rsplit_once(':').unwrap_or_default();
    let user = format!("{USER}:x:64000:64000::/:/bin/false\n");
    fs::write(dir.join("passwd"), fs::read_to_string("/etc/passwd")? + &user)?;
    fs::write(dir.join("shadow"), format!("{USER}:{SYSTEMS_HASH}:19000::::::\n"))?;
    let text = format!(
        "logoutput: stderr
        internal: {host} port = {own}
        external: lo
        clientmethod: none
        socksmethod: username
        user.privileged: root
        user.unprivileged: nobody
        client pass {{ from: 0.0.0.0/0 to: 0.0.0.0/0 }}
        socks pass {{ from: 0.0.0.0/0 to: 0.0.0.0/0 port = {port} command: connect }}"
    );
    fs::write(dir.join("danted.conf"), text)?;
    let lines = "cd {}\nmount --bind passwd /etc/passwd\nmount --bind shadow /etc/shadow\n\
                 exec unshare --pid --fork --kill-child sh -c 'danted -f danted.conf -p danted.pid; exit'";
    start(world, "danted", &lines.replace("{}", &dir.display().to_string()), listens)
}

fn microsocks(world: &World) -> Result<Process> {
    let (host, port) = SOCKS.rsplit_once(':').unwrap_or_default();
    start(world, "microsocks", &format!("exec microsocks -i {host} -p {port} -u {USER} -P {PASSWORD}"), SOCKS)
}

/// Starts an agent that has to go through a proxy. `lines`: set its environment; `flags`: its own.
fn agent(
    world: &World,
    name: &str,
    server: &str,
    (lines, flags): (&str, &str),
    code: Option<&str>,
) -> Result<Agent> {
    let program = agent_executable()?;
    let script = format!(
        "{lines}\n# start --server URL …\nshift 3\nexec {} start --server {server} \"$@\" {flags}",
        program.display()
    );
    let executable = &world.script(name, &script)?;
    let (namespace, server) = (&world.private, world.agents_dial());
    let options = AgentOptions { executable, namespace, name, server, allow: &["*:*"], log: "debug" };
    Agent::start(&world.lab, &options, code)
}

const SERVER: &str = "https://gateway.test:7443";

/// Enrols an agent behind a proxy that starts after it, and goes on through the proxy's restart.
fn serves(how: (&str, &str), proxy: impl Fn(&World) -> Result<Process>, shown: &str) -> Result<()> {
    let mut world = World::loopback().start()?;
    office(&mut world)?;
    let code = world.gateway.enrollment_code()?;
    let mut agent = agent(&world, "agent", SERVER, how, Some(&code))?;
    let refused = format!("cannot connect to the proxy {shown}: connection refused");
    agent.process.until(&world.lab, "the proxy is named", PATIENCE, |agent| {
        Ok(agent.said().contains(&refused).then_some(()))
    })?;
    let mut running = proxy(&world)?;
    let zid = agent.process.until(&world.lab, "the environment is ACTIVE", PATIENCE, |_| {
        let environments = world.gateway.list("environments")?;
        Ok(environments
            .iter()
            .find(|e| e["status"] == "ACTIVE")
            .and_then(|e| e["zId"].as_str().map(str::to_owned)))
    })?;

    let tunnel = world.tunnel(0)?;
    let (greeting, echoing) = (format!("{OFFICE}:7001").parse()?, format!("{OFFICE}:7002").parse()?);
    here(&world.private, greeting)?;
    echo(&world.private, echoing)?;
    world.share("greeting", &tunnel, &zid, greeting, 9000)?;
    world.share("echo", &tunnel, &zid, echoing, 9001)?;
    for _ in 0..20 {
        ensure!(ask(&world.outside, door(&tunnel, 9000)?, PATIENCE)? == "here");
    }
    let mut stream = connect(&world.outside, door(&tunnel, 9001)?, PATIENCE)?;
    exchange(&mut stream, &vec![7; 3 << 20])?;

    running.kill()?;
    // The carrier broke, and the client is told so: an end would look like a complete answer.
    let end = std::io::Read::read(&mut stream, &mut [0]);
    ensure!(end.as_ref().is_err_and(|e| e.kind() == ErrorKind::ConnectionReset), "{end:?}");
    let _again = proxy(&world)?;
    world.lab.until("the share is served again", PATIENCE, || {
        Ok((ask(&world.outside, door(&tunnel, 9000)?, TRY)? == "here").then_some(()))
    })?;
    agent.process.alive()?;

    let said = agent.process.said();
    ensure!(!said.contains("sesame") && said.contains(&format!("proxy={shown}")), "{}", agent.process.tail());
    let arguments = fs::read_to_string(format!("/proc/{}/cmdline", agent.process.pid()))?;
    ensure!(!arguments.contains("sesame"), "{arguments}");
    world.end()
}

#[test]
fn an_agent_behind_an_http_proxy_enrols_serves_and_returns() -> Result<()> {
    let flags =
        format!("--proxy http://{USER}@{HTTP} --proxy-password-file $(dirname \"$0\")/../proxies/password");
    // The flag wins over the variable.
    let lines = "export HTTPS_PROXY=http://10.77.0.99:1";
    serves((lines, &flags), |world| tinyproxy(world, HTTP, 7443), &format!("http://{HTTP}"))
}

#[test]
fn an_agent_behind_a_socks5_proxy_enrols_serves_and_returns() -> Result<()> {
    let lines =
        format!("export https_proxy=socks5://{USER}:{PASSWORD}@{SOCKS} NO_PROXY=example.test,10.0.0.0/8");
    serves((&lines, ""), microsocks, &format!("socks5://{SOCKS}"))
}

#[test]
fn an_agent_behind_squid_enrols_serves_and_returns() -> Result<()> {
    let flags =
        format!("--proxy http://{USER}@{HTTP} --proxy-password-file $(dirname \"$0\")/../proxies/password");
    serves(("", &flags), |world| squid(world, HTTP, 7443), &format!("http://{HTTP}"))
}

#[test]
fn an_agent_behind_dante_enrols_serves_and_returns() -> Result<()> {
    let lines = format!("export ALL_PROXY=socks5h://{USER}:{PASSWORD}@{SOCKS}");
    serves((&lines, ""), |world| dante(world, SOCKS, 7443), &format!("socks5://{SOCKS}"))
}

#[test]
fn each_refusal_of_a_proxy_is_named_with_what_to_do() -> Result<()> {
    let mut world = World::loopback().start()?;
    office(&mut world)?;
    let _proxies =
        [tinyproxy(&world, HTTP, 7443)?, tinyproxy(&world, "10.77.0.1:3129", 443)?, microsocks(&world)?];
    let _others = [squid(&world, "10.77.0.1:3133", 7443)?, dante(&world, "10.77.0.1:1081", 7443)?];
    let closed = tinyproxy(&world, "10.77.0.1:3130", 7444)?;
    let rude = world.outside.listen("10.77.0.1:3131".parse()?)?;
    thread::spawn(move || rude.incoming().for_each(drop));
    let dir = world.lab.path("proxies").display().to_string();
    let (right, wrong) =
        (format!("--proxy-password-file {dir}/password"), format!("--proxy-password-file {dir}/wrong"));
    let http = |port: u16, password: &str| format!("--proxy http://{USER}@10.77.0.1:{port} {password}");
    let socks = |password: &str| format!("--proxy socks5://{USER}@{SOCKS} {password}");
    let dante = |password: &str| format!("--proxy socks5://{USER}@10.77.0.1:1081 {password}");
    let elsewhere = "https://gateway.test:7444";
    let cases = [
        (SERVER, format!("--proxy http://{HTTP}"), "requires a user and a password"),
        (SERVER, http(3128, &wrong), "refuses the user or the password"),
        (SERVER, http(3129, &right), "does not permit connections to gateway.test:7443"),
        (elsewhere, http(3130, &right), "does not reach gateway.test:7444 (HTTP status 5"),
        (SERVER, http(3131, &right), "closed the connection without an answer"),
        (SERVER, http(1080, &right), "does not speak HTTP"),
        (SERVER, http(3132, &right), "cannot connect to the proxy http://10.77.0.1:3132: connection refused"),
        (SERVER, format!("--proxy socks5://{SOCKS}"), "requires a user and a password"),
        (SERVER, socks(&wrong), "refuses the user or the password"),
        (elsewhere, socks(&right), "does not reach gateway.test:7444 (connection refused)"),
        (SERVER, format!("--proxy socks5://{HTTP}"), "does not speak SOCKS5"),
        (SERVER, "--proxy http://10.77.0.1:3133".to_owned(), "requires a user and a password"),
        (SERVER, http(3133, &wrong), "refuses the user or the password"),
        (elsewhere, http(3133, &right), "does not permit connections to gateway.test:7444"),
        (SERVER, "--proxy socks5://10.77.0.1:1081".to_owned(), "requires a user and a password"),
        (SERVER, dante(&wrong), "refuses the user or the password"),
        (elsewhere, dante(&right), "does not permit connections to gateway.test:7444"),
        (SERVER, http(3128, "--proxy-password-file /no/file"), "cannot use the password"),
        (
            SERVER,
            http(3128, &format!("--proxy-password-file {dir}/open")),
            "every user of this host can read it",
        ),
    ];
    let code = world.gateway.enrollment_code()?;
    for (n, (server, flags, words)) in cases.iter().enumerate() {
        let begin = Instant::now();
        let mut agent = agent(&world, &format!("agent{n}"), server, ("", flags), Some(&code))?;
        agent
            .process
            .until(&world.lab, words, PATIENCE, |agent| Ok(agent.said().contains(words).then_some(())))?;
        named("It stays OFFLINE, and its log names a proxy.", begin.elapsed());
        ensure!(!agent.process.said().contains("sesame"), "{}", agent.process.tail());
        agent.process.stop(PATIENCE)?;
    }
    drop(closed);

    // A check tells the same at its step, and goes on to TLS through a proxy that agrees.
    for (flags, report) in [(http(3128, &wrong), "FAIL  proxy "), (http(3128, &right), "PASS  tls ")] {
        let mut command = world.private.command(&agent_executable()?.display().to_string());
        command.args(["check", "--server", SERVER, "--state-dir", "/no/state"]);
        command.env("WICKETGATE_ENROLLMENT_TOKEN", &code).args(flags.split(' '));
        let out = command.output()?;
        ensure!(String::from_utf8_lossy(&out.stdout).contains(report), "{out:?}");
    }

    // The certificate of a proxy that opens TLS is not of the authority in the code, and the code is not sent to it.
    let other = EnrolmentCode::generate(code.parse::<EnrolmentCode>()?.id(), Fingerprint::of(b"other"))?;
    let mut opened = agent(&world, "opened", SERVER, ("", &http(3128, &right)), Some(&other.expose()))?;
    let ended = opened.process.wait(PATIENCE)?;
    let says = opened.process.said().contains("opens TLS: have https://gateway.test:7443 exempted from that");
    ensure!(ended.code() == Some(1) && says, "{ended}: {}", opened.process.tail());

    // What the command line says itself, without repeating the password.
    let shown = format!("http://{USER}:{PASSWORD}@{HTTP}");
    let state = world.lab.path("none").display().to_string();
    let out = Command::new(agent_executable()?)
        .args(["start", "--server", SERVER, "--state-dir", &state, "--proxy", &shown])
        .output()?;
    let said = String::from_utf8_lossy(&out.stderr);
    ensure!(out.status.code() == Some(2) && said.contains("--proxy-password-file"), "{said}");
    ensure!(!said.contains("sesame"), "{said}");
    world.end()
}

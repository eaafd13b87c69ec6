//! Options of a share: allowed sources, the number of connections, the idle timeout, and the PROXY protocol.

use std::{
    fs,
    io::{ErrorKind, Read as _, Write as _},
    net::{Ipv4Addr, SocketAddr, TcpStream},
    time::Instant,
};

use anyhow::{Context, Result, bail, ensure};
use serde_json::{Value, json};
use wicketgate_lab::{Namespace, Process, named};

use crate::harness::{
    AT_ONCE, PATIENCE, SITE_CLIENT, World, door,
    targets::{connect, connect_as, echo, exchange, is_refused, is_reset, witness},
    text,
};

/// The address of another client in the site's network.
const NEIGHBOUR: Ipv4Addr = Ipv4Addr::new(10, 0, 0, 11);

#[test]
fn a_target_receives_the_clients_address_and_other_sources_are_reset() -> Result<()> {
    let world = World::with_sites(1).start()?;
    let target = world.target(7001);
    web_server(&world, target)?;
    let (_agent, zid) = world.agent("agent")?;
    let tunnel = world.tunnel(0)?;
    let share = world.share("web", &tunnel, &zid, target, 9000)?;
    let door = door(&tunnel, 9000)?;
    world.patch(&share, &json!({"proxyProtocol": "v2", "allowedSources": [format!("{SITE_CLIENT}/32")]}))?;
    let site = world.connected_site(0, &tunnel)?;
    site.namespace.ip(&format!("addr add {NEIGHBOUR}/32 dev lo"))?;

    let mut stream = connect_as(&site.namespace, SITE_CLIENT, door, PATIENCE)?;
    let client = stream.local_addr()?;
    let request = "GET / HTTP/1.0\r\n\r\n";
    stream.write_all(request.as_bytes())?;
    let mut answer = String::new();
    stream.read_to_string(&mut answer)?;
    let header = answer.lines().last().unwrap_or_default();
    assert_eq!(
        header,
        format!("{} {} {} {}", client.ip(), client.port(), door.ip(), door.port()),
        "{answer}"
    );

    is_refused(connect_as(&site.namespace, NEIGHBOUR, door, PATIENCE))?;
    // The PROXY header that the gateway sends to the target is not counted.
    let (rx, tx) = (request.len() as u64, answer.len() as u64);
    world.carried(&share, |sum| {
        (sum("rx"), sum("tx"), sum("connections"), sum("failures")) == (rx, tx, 1, 1)
    })?;
    world.end()
}

/// What a load balancer's TCP check of the site finds.
fn is_open(site: &Namespace, door: SocketAddr) -> Result<bool> {
    let begin = Instant::now();
    let connected = site.enter(|| TcpStream::connect_timeout(&door, PATIENCE))?;
    match connected.as_ref().map_err(std::io::Error::kind) {
        Ok(_) => Ok(true),
        Err(ErrorKind::ConnectionRefused) if begin.elapsed() < AT_ONCE => Ok(false),
        other => bail!("neither open nor closed at once: {other:?} after {:?}", begin.elapsed()),
    }
}

#[test]
fn a_port_is_closed_to_the_sites_checks_while_no_agent_can_serve_the_share() -> Result<()> {
    let world = World::with_sites(1).start()?;
    let target = world.private.listen(world.target(7001))?;
    let (mut agent, zid) = world.agent("agent")?;
    let tunnel = world.tunnel(0)?;
    let share = world.share("echo", &tunnel, &zid, world.target(7001), 9000)?;
    let door = door(&tunnel, 9000)?;
    world.patch(&share, &json!({"closeWhenUnserved": true}))?;
    let site = world.connected_site(0, &tunnel)?;
    let checks_find = |wanted: bool| {
        let what = if wanted { "the port is open" } else { "the port is closed" };
        world.lab.until(what, PATIENCE, || Ok((is_open(&site.namespace, door)? == wanted).then_some(())))
    };
    let is_served = || -> Result<()> {
        checks_find(true)?;
        exchange(&mut connect(&site.namespace, door, PATIENCE)?, b"hello")
    };

    // The kernel accepts for the target until it is dropped.
    assert!(is_open(&site.namespace, door)?);
    drop(target);
    checks_find(false)?;
    let begin = Instant::now();
    let path = format!("ipsec-shares/{}", text(&share, "id")?);
    let is_told = |s: &Value| s["ready"] == false && s["statusDetail"]["reason"] == "TargetUnreachable";
    world.gateway.wait(&world.lab, &path, "told", PATIENCE, is_told)?;
    named("Connection refused at once, at the port of a share with closeWhenUnserved.", begin.elapsed());
    echo(&world.private, world.target(7001))?;
    is_served()?;

    agent.process.kill()?;
    checks_find(false)?;
    // The option alone opens and closes it.
    let path = world.gateway.at(&path);
    for closes in [false, true] {
        world.gateway.api.patch(&path, &json!({"closeWhenUnserved": closes}))?;
        checks_find(!closes)?;
    }
    let _agent = world.start_agent("agent", None)?;
    is_served()?;
    drop(site);
    world.end()
}

#[test]
fn a_full_share_refuses_at_once_and_a_change_keeps_established_connections() -> Result<()> {
    let (world, published) = World::loopback().publish(echo)?;
    let listener = listener(&world.outside, published.door)?;
    let client = || connect(&world.outside, published.door, PATIENCE);

    world.patch(&published.share, &json!({"maxConnections": 2}))?;
    let mut inside = [client()?, client()?];
    for stream in &mut inside {
        exchange(stream, b"inside")?;
    }
    is_refused(client())?;
    world.patch(
        &published.share,
        &json!({"maxConnections": 1, "idleTimeoutSeconds": 3600, "proxyProtocol": "v2"}),
    )?;
    is_refused(client())?;
    for stream in &mut inside {
        exchange(stream, b"still inside")?;
    }
    drop(inside);
    world.patch(&published.share, &json!({"proxyProtocol": null, "idleTimeoutSeconds": null}))?;
    world.lab.until("the share accepts connections again", PATIENCE, || {
        let mut stream = client()?;
        Ok(exchange(&mut stream, b"inside again").is_ok().then_some(()))
    })?;
    ensure!(self::listener(&world.outside, published.door)? == listener, "the listener's socket changed");
    world.carried(&published.share, |sum| sum("failures") >= 2 && sum("connections") >= 3)?;
    world.end()
}

#[test]
fn connections_of_one_source_or_all_are_reset_at_both_ends_on_request() -> Result<()> {
    let world = World::with_sites(1).start()?;
    let ends = witness(&world.private, world.target(7001))?;
    let (_agent, zid) = world.agent("agent")?;
    let tunnel = world.tunnel(0)?;
    let share = world.share("echo", &tunnel, &zid, world.target(7001), 9000)?;
    let door = door(&tunnel, 9000)?;
    let site = world.connected_site(0, &tunnel)?;
    site.namespace.ip(&format!("addr add {NEIGHBOUR}/32 dev lo"))?;
    let client = |source| -> Result<TcpStream> {
        let mut stream = connect_as(&site.namespace, source, door, PATIENCE)?;
        exchange(&mut stream, b"before")?;
        Ok(stream)
    };
    let (first, second, mut other) = (client(SITE_CLIENT)?, client(SITE_CLIENT)?, client(NEIGHBOUR)?);
    let path = world.gateway.at(&format!("ipsec-shares/{}/connections/close", text(&share, "id")?));
    let close = |body: Value| world.gateway.api.post(&path, &body);
    let is_reset_at_target = || -> Result<()> {
        let end = ends.recv_timeout(PATIENCE).context("the target's connection did not end")?;
        ensure!(end == Some(ErrorKind::ConnectionReset), "the target's connection ended with {end:?}");
        Ok(())
    };

    assert_eq!(close(json!({"source": "10.0.0.12"}))?["closed"], 0);
    let closed = close(json!({"source": SITE_CLIENT}))?;
    assert_eq!(closed["closed"], 2);
    for stream in [first, second] {
        is_reset(stream)?;
        is_reset_at_target()?;
    }
    exchange(&mut other, b"of another source")?;
    let mut newer = client(SITE_CLIENT)?;
    exchange(&mut newer, b"a new one is served")?;
    assert_eq!(close(json!({}))?["closed"], 2);
    for stream in [other, newer] {
        is_reset(stream)?;
        is_reset_at_target()?;
    }
    assert_eq!(close(json!({}))?["closed"], 0);
    client(NEIGHBOUR)?;
    let record =
        world.gateway.api.get(&world.gateway.at(&format!("executions/{}", text(&closed, "executionId")?)))?;
    assert_eq!(
        (&record["status"], &record["message"]),
        (&json!("SUCCESS"), &json!("2 connections were reset"))
    );
    drop(site);
    world.end()
}

#[test]
fn a_connection_that_is_idle_too_long_is_reset_on_both_sides() -> Result<()> {
    let world = World::loopback().start()?;
    let (target, ends) = (world.target(7001), witness(&world.private, world.target(7001))?);
    let (_agent, zid) = world.agent("agent")?;
    let tunnel = world.tunnel(0)?;
    let share = world.share("echo", &tunnel, &zid, target, 9000)?;
    let door = door(&tunnel, 9000)?;
    let mut unlimited = connect(&world.outside, door, PATIENCE)?;
    exchange(&mut unlimited, b"before")?;
    world.patch(&share, &json!({"idleTimeoutSeconds": 1}))?;
    let mut limited = connect(&world.outside, door, PATIENCE)?;
    exchange(&mut limited, b"after")?;
    is_reset(limited)?;
    let end = ends.recv_timeout(PATIENCE).context("the target's connection did not end")?;
    ensure!(end == Some(ErrorKind::ConnectionReset), "the target's connection ended with {end:?}");
    // The older connection has been idle as long, but the timeout does not apply to it.
    exchange(&mut unlimited, b"after the timeout")?;
    world.end()
}

/// Starts an nginx that expects a PROXY header and answers with its addresses and ports.
fn web_server(world: &World, on: SocketAddr) -> Result<()> {
    let dir = world.lab.dir("nginx")?;
    let at = dir.display();
    let temporary: String = ["client_body", "proxy", "fastcgi", "uwsgi", "scgi"]
        .iter()
        .map(|kind| format!("{kind}_temp_path {at}/{kind};\n"))
        .collect();
    let answer =
        "$proxy_protocol_addr $proxy_protocol_port $proxy_protocol_server_addr $proxy_protocol_server_port";
    let config = format!(
        "daemon off;\nmaster_process off;\npid {at}/pid;\nerror_log stderr;\nevents {{ worker_connections 64; }}\n\
         http {{ {temporary} access_log off;\n server {{ listen {on} proxy_protocol;\n\
         location / {{ return 200 \"{answer}\"; }} }} }}\n"
    );
    let file = dir.join("nginx.conf");
    fs::write(&file, config)?;
    let mut command = world.private.command("nginx");
    command.args(["-e", "stderr", "-p"]).arg(&dir).arg("-c").arg(&file);
    let mut server =
        Process::start(&world.lab, "nginx", &mut command, &world.lab.dir("log")?.join("nginx.log"))?;
    world.lab.until("nginx listens", PATIENCE, || {
        server.alive()?;
        world.private.connect(on, PATIENCE).map(Some)
    })?;
    Ok(())
}

/// The inode of the socket that listens at `door`.
fn listener(namespace: &Namespace, door: SocketAddr) -> Result<String> {
    let SocketAddr::V4(v4) = door else { bail!("{door} is no IPv4 address") };
    let (ip, port) = (u32::from_ne_bytes(v4.ip().octets()), v4.port());
    let local = format!("{ip:08X}:{port:04X}");
    let table = namespace.enter(|| fs::read_to_string("/proc/thread-self/net/tcp"))??;
    let fields = |line: &str| line.split_whitespace().map(str::to_owned).collect::<Vec<_>>();
    let mut lines = table.lines().map(fields).filter(|f| f.len() > 9 && f[1] == local && f[3] == "0A");
    lines.next().map(|f| f[9].clone()).with_context(|| format!("no listener at {door}:\n{table}"))
}

//! Startup errors: each is reported at once, in one line and by the exit status.

use std::{
    fs,
    net::Ipv4Addr,
    os::unix::fs::{PermissionsExt as _, chown},
    path::{Path, PathBuf},
    process::{Command, Output, Stdio},
    time::Instant,
};

use anyhow::{Context, Result, ensure};
use serde_json::json;
use wicketgate_authority::Ca;
use wicketgate_lab::{Lab, Namespace, Process, named};
use wicketgate_transport::code::EnrolmentCode;

use crate::harness::{PATIENCE, World, agent_executable, lab, wicketgate_executable};

/// The longest run of a program, in seconds. A program that does not exit by itself fails the test.
pub(crate) const BOUND: &str = "20";

/// The user `nobody`.
const USER: u32 = 65_534;

/// Runs a program to its end in a namespace and returns its status and output.
fn run(namespace: &Namespace, before: &[&str], program: &Path, arguments: &[&str]) -> Result<Output> {
    let mut command = namespace.command("timeout");
    command.args(["-k", "5", BOUND]).args(before).arg(program).args(arguments);
    Ok(command.env("RUST_LOG", "error").stdin(Stdio::null()).output()?)
}

/// Checks that the program failed by itself, with one line that contains all `words`.
pub(crate) fn one_line(out: &Output, words: &[&str]) -> Result<()> {
    let said = String::from_utf8_lossy(&out.stderr).into_owned();
    let code = out.status.code();
    ensure!(code != Some(124) && code != Some(137), "the program did not exit; its output is {said:?}");
    ensure!(code.is_some_and(|c| c != 0), "{}: {said:?}", out.status);
    let lines: Vec<&str> = said.lines().filter(|l| !l.trim().is_empty()).collect();
    ensure!(lines.len() == 1, "{} lines: {said}", lines.len());
    ensure!(!said.contains("panicked"), "{said}");
    for word in words {
        ensure!(said.to_lowercase().contains(&word.to_lowercase()), "{said:?} does not contain {word:?}");
    }
    Ok(())
}

pub(crate) fn up<'a>(data: &'a str, ipsec: &'a str) -> Vec<&'a str> {
    let mut arguments = vec!["up", "--data-dir", data, "--listen", "127.0.0.1:8080"];
    arguments.extend(["--agent-listen", "127.0.0.1:7443", "--ipsec", ipsec, "--location", "local"]);
    if ipsec != "off" {
        arguments.extend(["--public-address", "198.51.100.2"]);
    }
    arguments
}

/// Creates a directory that every user can enter, with a copy of the product, since the build directory may be closed.
/// Returns the copy and a directory that belongs to [`USER`].
fn open_to_others(lab: &Lab) -> Result<(PathBuf, PathBuf)> {
    let home = lab.dir("open")?;
    for dir in home.ancestors().take(3) {
        let mode = fs::metadata(dir)?.permissions().mode();
        fs::set_permissions(dir, fs::Permissions::from_mode(mode | 0o055))?;
    }
    let program = home.join("wicketgate");
    fs::copy(wicketgate_executable(), &program)?;
    fs::set_permissions(&program, fs::Permissions::from_mode(0o755))?;
    let own = home.join("own");
    fs::create_dir(&own)?;
    chown(&own, Some(USER), Some(USER))?;
    Ok((program, own))
}

const AS_NOBODY: [&str; 4] = ["setpriv", "--reuid=65534", "--regid=65534", "--clear-groups"];

#[test]
fn ipsec_without_root_is_refused_in_one_line() -> Result<()> {
    let lab = lab()?;
    let namespace = lab.namespace("gw")?;
    let (program, own) = open_to_others(&lab)?;
    let data = own.join("data").display().to_string();
    one_line(&run(&namespace, &AS_NOBODY, &program, &up(&data, "userland"))?, &["root"])?;
    lab.remove()
}

#[test]
fn a_data_directory_that_cannot_be_written_is_named() -> Result<()> {
    let lab = lab()?;
    let namespace = lab.namespace("gw")?;
    let (program, _) = open_to_others(&lab)?;
    let closed = lab.dir("closed")?.join("data").display().to_string();
    one_line(&run(&namespace, &AS_NOBODY, &program, &up(&closed, "off"))?, &[&closed, "data"])?;
    // Root may write everywhere, except below a file.
    let below = program.join("data").display().to_string();
    one_line(&run(&namespace, &[], &program, &up(&below, "off"))?, &[&below])?;
    lab.remove()
}

#[test]
fn an_api_without_tls_needs_a_loopback_address_or_a_flag() -> Result<()> {
    let lab = lab()?;
    let namespace = lab.namespace("gw")?;
    let data = lab.path("data").display().to_string();
    for open in ["0.0.0.0:8080", "[::]:8080", "198.51.100.2:8080"] {
        let mut arguments = up(&data, "off");
        arguments[4] = open;
        let refused = run(&namespace, &[], wicketgate_executable(), &arguments)?;
        one_line(&refused, &[open, "--tls-cert", "--insecure-http"])?;
        assert_eq!(refused.status.code(), Some(2));
    }
    lab.remove()
}

#[test]
fn wrong_usage_exits_with_2_and_names_the_flag() -> Result<()> {
    let lab = lab()?;
    let namespace = lab.namespace("gw")?;
    let data = lab.path("data").display().to_string();
    for (flag, value) in [
        ("--database", "mysql://u@h/d"),
        ("--database", ""),
        ("--database", "postgres://u:geheim@h/d"),
        ("--drain", "-1"),
        ("--provisioning-deadline", "-1"),
        ("--max-tunnels", "-1"),
        ("--load-balancer-pool", "10.254.0.0/16"),
        ("--oidc-issuer", "https://id.example"),
        ("--oidc-audience", " --oidc-issuer https://id.example"),
        ("--oidc-issuer", "http://id.example --oidc-audience=x"),
    ] {
        let values: Vec<_> = value.split(' ').collect();
        let arguments = [up(&data, "off"), vec![flag], values].concat();
        let out = run(&namespace, &[], wicketgate_executable(), &arguments)?;
        let said = String::from_utf8_lossy(&out.stderr);
        ensure!(
            out.status.code() == Some(2) && said.contains(flag),
            "{flag} {value}: {}: {said}",
            out.status
        );
        ensure!(!said.contains("geheim"), "{said}");
    }
    lab.remove()
}

#[test]
fn an_invalid_address_is_refused_with_an_example() -> Result<()> {
    for flag in ["--listen", "--agent-listen", "--admin-listen"] {
        for wrong in ["8480", "localhost:8480", ":8480"] {
            let out = Command::new(wicketgate_executable()).args(["up", flag, wrong]).output()?;
            let said = String::from_utf8_lossy(&out.stderr);
            ensure!(
                out.status.code() == Some(2) && said.contains("like 127.0.0.1:8480"),
                "{flag} {wrong}: {said}"
            );
        }
    }
    Ok(())
}

#[test]
fn an_unusable_public_address_is_refused() -> Result<()> {
    for wrong in ["0.0.0.0", "224.0.0.1", "255.255.255.255", "gw.example"] {
        let out = Command::new(wicketgate_executable()).args(["up", "--public-address", wrong]).output()?;
        let said = String::from_utf8_lossy(&out.stderr);
        ensure!(
            out.status.code() == Some(2) && said.contains(wrong) && said.contains("must be an"),
            "{said}"
        );
    }
    Ok(())
}

#[test]
fn another_database_than_that_of_the_data_directory_is_refused() -> Result<()> {
    let mut world = World::loopback().start()?;
    world.gateway.process.stop(PATIENCE)?;
    let data = world.gateway.data.display().to_string();
    let other = "postgres://wicketgate@127.0.0.1:1/other";
    let arguments = [up(&data, "off"), vec!["--database", other]].concat();
    let out = run(&world.outside, &[], wicketgate_executable(), &arguments)?;
    one_line(&out, &[&data, "wicketgate.db", "postgres://127.0.0.1:1/other", "--database"])?;
    world.restart()?;
    world.end()
}

#[test]
fn a_location_other_than_that_of_the_tunnels_is_refused() -> Result<()> {
    let mut world = World::loopback().start()?;
    world.tunnel(0)?;
    world.gateway.process.stop(PATIENCE)?;
    let data = world.gateway.data.display().to_string();
    let arguments: Vec<_> =
        up(&data, "off").into_iter().map(|a| if a == "local" { "elsewhere" } else { a }).collect();
    let out = run(&world.outside, &[], wicketgate_executable(), &arguments)?;
    one_line(&out, &["the location local", "elsewhere", "--location local"])?;
    world.restart()?;
    world.end()
}

#[test]
fn an_unusable_identity_provider_is_named() -> Result<()> {
    let lab = lab()?;
    let namespace = lab.namespace("gw")?;
    let data = lab.path("data").display().to_string();
    let start = |issuer: &str| {
        let arguments = [up(&data, "off"), vec!["--oidc-issuer", issuer, "--oidc-audience", "a"]].concat();
        run(&namespace, &[], wicketgate_executable(), &arguments)
    };
    for issuer in ["http://id.example.org", "id.example.org", "https://id.example.org?a=b"] {
        let refused = start(issuer)?;
        one_line(&refused, &["--oidc-issuer", issuer])?;
        assert_eq!(refused.status.code(), Some(2));
    }
    lab.remove()
}

#[test]
fn a_port_in_use_is_named() -> Result<()> {
    let lab = lab()?;
    let namespace = lab.namespace("gw")?;
    for taken in ["127.0.0.1:8080", "127.0.0.1:7443"] {
        let _holder = namespace.listen(taken.parse()?)?;
        let data = lab.path("data").display().to_string();
        one_line(&run(&namespace, &[], wicketgate_executable(), &up(&data, "off"))?, &[taken])?;
    }
    lab.remove()
}

#[test]
fn a_start_that_is_refused_leaves_no_directory_that_it_created() -> Result<()> {
    let lab = lab()?;
    let namespace = lab.namespace("gw")?;
    let place = lab.dir("var")?;
    let data = place.join("lib/data").display().to_string();
    let _holder = namespace.listen("127.0.0.1:7443".parse()?)?;
    let server =
        ["server", "--data-dir", &data, "--listen", "127.0.0.1:8080", "--link-listen", "127.0.0.1:8444"];
    let server = [&server[..], &["--database", "postgres://wicketgate@127.0.0.1:1/none"]].concat();
    let gateway = ["gateway", "--state-dir", &data, "--ipsec", "off", "--agent-listen", "127.0.0.1:7444"];
    let mut foreign = up(&data, "auto");
    foreign[6] = "127.0.0.1:7445";
    let starts = [
        (up(&data, "off"), "7443"),
        (foreign, "198.51.100.2"),
        (server, "127.0.0.1:1"),
        (gateway.to_vec(), "joined"),
    ];
    for (arguments, why) in &starts {
        one_line(&run(&namespace, &[], wicketgate_executable(), arguments)?, &[why])?;
        let left: Vec<_> = fs::read_dir(&place)?.flatten().map(|entry| entry.path()).collect();
        ensure!(left.is_empty(), "{arguments:?} has left {left:?}");
    }
    // What existed before stays, and the directory is known at the next start.
    fs::create_dir_all(place.join("lib/data/gateway"))?;
    let own = place.join("lib/data/ca");
    fs::create_dir(&own)?;
    for (arguments, why) in &starts[..3] {
        one_line(&run(&namespace, &[], wicketgate_executable(), arguments)?, &[why])?;
        ensure!(own.is_dir() && place.join("lib/data/gateway").is_dir(), "{arguments:?}");
    }
    lab.remove()
}

#[test]
fn a_second_start_and_a_down_beside_a_running_one_name_the_data_directory() -> Result<()> {
    let world = World::loopback().start()?;
    let data = world.gateway.data.display().to_string();
    // The ports are taken as well.
    let second = run(&world.outside, &[], wicketgate_executable(), &up(&data, "off"))?;
    one_line(&second, &["another wicketgate is using the data directory", &data, "--data-dir"])?;
    let down = run(&world.outside, &[], wicketgate_executable(), &["down", "--data-dir", &data])?;
    one_line(&down, &["another wicketgate is using the data directory", &data, "stop `up` first"])?;
    ensure!(!String::from_utf8_lossy(&down.stderr).contains("--data-dir"), "{down:?}");
    world.end()
}

#[test]
fn a_missing_charon_is_named_with_its_package() -> Result<()> {
    let lab = lab()?;
    let namespace = lab.namespace("gw")?;
    let data = lab.path("data").display().to_string();
    // The daemon is hidden in this mount namespace only.
    let hide = ["unshare", "--mount", "--propagation", "private", "sh", "-c"];
    let hide = [&hide[..], &[r#"mount -t tmpfs none /usr/lib/ipsec && exec "$0" "$@""#]].concat();
    let out = run(&namespace, &hide, wicketgate_executable(), &up(&data, "userland"))?;
    one_line(&out, &["charon", "strongswan-charon"])?;
    lab.remove()
}

#[test]
fn kernel_esp_is_refused_with_advice_if_the_kernel_has_none() -> Result<()> {
    let lab = lab()?;
    let namespace = lab.namespace("gw")?;
    let probe = namespace
        .command("ip")
        .args(["xfrm", "state", "add", "src", "192.0.2.1", "dst", "192.0.2.2", "proto", "esp", "spi", "1"])
        .args(["mode", "tunnel", "aead", "rfc4106(gcm(aes))", &format!("0x{}", "11".repeat(20)), "128"])
        .output()?;
    if !probe.status.success() {
        let data = lab.path("data").display().to_string();
        one_line(&run(&namespace, &[], wicketgate_executable(), &up(&data, "kernel"))?, &["kernel", "ESP"])?;
    }
    lab.remove()
}

#[test]
fn a_foreign_public_address_is_refused_with_the_hosts_addresses() -> Result<()> {
    let lab = lab()?;
    let namespace = lab.namespace("gw")?;
    let data = lab.path("data").display().to_string();
    let start = || run(&namespace, &[], wicketgate_executable(), &up(&data, "auto"));
    one_line(&start()?, &["198.51.100.2 is no address of this host", "none but loopback"])?;
    namespace.ip("addr add 192.0.2.7/32 dev lo\naddr add 192.0.2.9/32 dev lo")?;
    one_line(&start()?, &["198.51.100.2 is no address of this host", "192.0.2.7, 192.0.2.9"])?;
    lab.remove()
}

#[test]
fn a_small_receive_buffer_for_userland_esp_is_logged() -> Result<()> {
    let mut world = World::with_sites(0).start()?;
    // Many kernels show this setting only in the initial network namespace.
    let setting = world.outside.command("cat").arg("/proc/sys/net/core/rmem_default").output()?;
    let bytes: Option<u64> = String::from_utf8(setting.stdout)?.trim().parse().ok();
    let esp = || Ok(world.gateway.api.get("/readyz").ok().map(|ready| ready["esp"].clone()));
    let esp = world.lab.until("the server is ready", PATIENCE, esp)?;
    let is_small = bytes.is_some_and(|b| b < 4 << 20) && esp == "userland";
    let warned = world.gateway.process.said().contains("sysctl");
    ensure!(warned == is_small, "{bytes:?}: {}", world.gateway.process.tail());
    // `down` serves no traffic and must not log the warning.
    world.gateway.process.stop(PATIENCE)?;
    let mut down = world.outside.command(&wicketgate_executable().display().to_string());
    down.args(["down".as_ref(), "--data-dir".as_ref(), world.gateway.data.as_os_str()]);
    let down = down.env("RUST_LOG", "info").output()?;
    let said = String::from_utf8_lossy(&down.stderr);
    ensure!(down.status.success() && !said.contains("sysctl"), "{said}");
    world.restart()?;
    world.end()
}

#[test]
fn an_agent_that_cannot_enrol_reports_the_reason_and_ends() -> Result<()> {
    let mut world = World::loopback().start()?;
    let server = format!("https://{}", world.agents_dial());
    let attempt = |world: &World, name: &str, server: &str, code: &str| -> Result<Output> {
        let file = world.lab.dir("codes")?.join(name);
        fs::write(&file, code)?;
        fs::set_permissions(&file, fs::Permissions::from_mode(0o600))?;
        let (file, state) = (file.display().to_string(), world.lab.path(name).display().to_string());
        let arguments =
            ["start", "--server", server, "--enrollment-token-file", &file, "--state-dir", &state];
        run(&world.private, &[], &agent_executable()?, &arguments)
    };
    let code = world.gateway.enrollment_code()?;

    one_line(&attempt(&world, "garbled", &server, "ENR-nonsense")?, &["code"])?;
    // A valid code with the authority's fingerprint but another secret.
    let wrong = with_another_secret(&code, &world.gateway.data)?;
    let id = wrong.parse::<EnrolmentCode>()?.id().to_string();
    one_line(&attempt(&world, "wrong", &server, &wrong)?, &["wrong or unknown", &id])?;
    refusal_is_logged(&world, &id, "wrong or unknown")?;

    let agent = world.start_agent("first", Some(&code))?;
    world.lab.until("the first agent is listed", PATIENCE, || {
        Ok((world.gateway.list("agents")?.len() == 1).then_some(()))
    })?;
    let id = code.parse::<EnrolmentCode>()?.id().to_string();
    one_line(&attempt(&world, "second", &server, &code)?, &["used", &id])?;
    refusal_is_logged(&world, &id, "used already")?;
    drop(agent);

    let code = world.gateway.enrollment_code()?;
    world.gateway.process.kill()?;
    expire_all(&world.gateway.data)?;
    world.restart()?;
    let id = code.parse::<EnrolmentCode>()?.id().to_string();
    one_line(&attempt(&world, "late", &server, &code)?, &["expired", &id])?;
    refusal_is_logged(&world, &id, "has expired")?;
    world.end()
}

/// The server's log names the code by its id.
fn refusal_is_logged(world: &World, id: &str, cause: &str) -> Result<()> {
    let log = world.gateway.process.said();
    let found = log
        .lines()
        .any(|line| line.contains("enrolment is refused") && line.contains(id) && line.contains(cause));
    ensure!(found, "{cause} {id}: {}", world.gateway.process.tail());
    Ok(())
}

/// Returns a code of the same enrolment and authority with another secret.
fn with_another_secret(code: &str, data: &Path) -> Result<String> {
    let code: EnrolmentCode = code.parse()?;
    let authority = Ca::remembered(&data.join("ca"))?.context("the data directory has no authority")?;
    Ok(EnrolmentCode::generate(code.id(), authority)?.expose().to_string())
}

/// Makes every enrolment code expire, as if an hour had passed.
fn expire_all(data: &Path) -> Result<()> {
    let database = fs::read_dir(data)?.flatten().map(|e| e.path());
    let database = database.filter(|p| p.extension().is_some_and(|e| e == "db" || e == "sqlite")).last();
    let database = database.context("no database in the data directory")?;
    tokio::runtime::Runtime::new()?.block_on(async {
        use sqlx::{ConnectOptions as _, Connection as _};
        let options = sqlx::sqlite::SqliteConnectOptions::new().filename(database);
        let mut db = options.connect().await?;
        let done = sqlx::query("UPDATE enrollment SET expires_at = created_at").execute(&mut db).await?;
        ensure!(done.rows_affected() > 0, "no code in the database");
        db.close().await?;
        Ok(())
    })
}

#[test]
fn an_agent_that_cannot_reach_its_server_reports_it_at_once() -> Result<()> {
    let world = World::loopback().start()?;
    let file = world.lab.path("code");
    fs::write(&file, world.gateway.enrollment_code()?)?;
    let mut command = world.private.command(&agent_executable()?.display().to_string());
    command.env("RUST_LOG", "warn").args(["start", "--server", "https://127.0.0.1:7444"]);
    command.args(["--enrollment-token-file".as_ref(), file.as_os_str()]);
    command.args(["--state-dir".as_ref(), world.lab.path("agent").as_os_str()]);
    let log = world.lab.path("agent.log");
    let begin = Instant::now();
    let mut agent = Process::start(&world.lab, "agent", &mut command, &log)?;
    world.lab.until("the agent names the server that it cannot reach", PATIENCE, || {
        Ok(agent.said().contains("127.0.0.1:7444").then_some(()))
    })?;
    named("It stays OFFLINE, and its log names the server.", begin.elapsed());
    // The agent keeps retrying, since the server may be starting. It exits when it is stopped.
    agent.stop(PATIENCE)?;
    world.end()
}

#[test]
fn a_faulty_request_is_refused_with_the_property() -> Result<()> {
    let world = World::loopback().start()?;
    let body = json!({"name": "t", "locationId": "local", "peerPublicIp": Ipv4Addr::LOCALHOST.to_string(),
        "peerCidr": "10.0.0.1/16"});
    let reply = world.gateway.api.call("POST", &world.gateway.at("ipsec-tunnels"), Some(&body))?;
    assert_eq!(reply.status, 400, "{reply}");
    for property in ["peerPublicIp", "peerCidr"] {
        ensure!(reply.body.contains(property), "{reply} does not name {property}");
    }
    world.end()
}

//! The command line against a running server: from signing in to a share that is checked, its acts, and every exit status.

use std::process::Stdio;

use anyhow::{Context as _, Result, ensure};
use serde_json::Value;
use wicketgate_lab::Process;

use crate::harness::{
    PATIENCE, World,
    held_back::hold_back,
    targets::{connect, echo, exchange, here, is_reset},
    text,
    user::User,
};

#[test]
fn a_share_is_made_checked_and_removed_by_names() -> Result<()> {
    let world = World::loopback().start()?;
    here(&world.private, world.target(7001))?;
    let (_agent, zid) = world.agent("agent")?;
    let user = User::new(&world, "user")?;
    user.sign_in()?;
    let environments = user.json("env list")?;
    assert_eq!(environments[0]["zId"], zid.as_str());
    let environment = text(&environments[0], "name")?;

    user.says(
        "tunnel create site-a --location local --peer-public-ip 203.0.113.2 --peer-cidr 10.0.0.0/16 --wait",
    )?;
    let target = world.target(7001);
    let create =
        format!("share create web --tunnel site-a --env {environment} --target {target} --ingress-port 9000");
    user.says(&format!("{create} --tag team=payments --wait"))?;
    let share = user.json("share get web")?;
    assert_eq!((&share["status"], &share["tags"]["team"]), (&"DEPLOYED".into(), &"payments".into()));
    assert_eq!(user.says("share list -o name tag.team=payments")?, "web\n");
    assert_eq!(user.says("share list --json name,ingressPort --jq .[0].ingressPort")?, "9000\n");
    ensure!(
        user.says("share list")?.starts_with("web\tDEPLOYED\tyes\t9000\t"),
        "{}",
        user.says("share list")?
    );
    ensure!(user.says("share check web")?.contains("✓ target"), "{}", user.says("share check web")?);
    let (status, words) = user.fails("tunnel config site-a --format strongswan")?;
    ensure!(status == 1 && words.contains("no public address"), "{status} {words}");
    // Without IPsec, a tunnel is ready without a site.
    let status = user.says("status")?;
    ensure!(!status.contains('✗') && status.matches("1, of which 0 not ready").count() == 3, "{status}");

    user.says("share update web --ingress-port 9001 --unset tag --wait")?;
    let share = user.json("share get web")?;
    assert_eq!((&share["ingressPort"], share["tags"].get("team")), (&9001.into(), None));
    // What is disabled on purpose needs no attention.
    user.says("share disable web --wait")?;
    let status = user.says("status")?;
    ensure!(
        status.contains("✓ everything") && status.contains("1, of which 0 not ready, 1 disabled"),
        "{status}"
    );
    user.says("tunnel disable site-a --wait")?;
    let status = user.says("status")?;
    ensure!(!status.contains('✗') && status.matches("0 not ready, 1 disabled").count() == 2, "{status}");
    user.says("tunnel enable site-a --wait")?;
    user.says("share enable web --wait")?;
    user.says("share update web --target 127.0.0.1:1 --wait")?;
    world.lab.until("the check fails at the target", PATIENCE, || {
        let check = user.run(&["share", "check", "web"], "")?;
        let drawn = String::from_utf8(check.stdout)?;
        Ok((check.status.code() == Some(1) && drawn.contains("✗ target") && drawn.contains("→"))
            .then_some(()))
    })?;
    world.lab.until("the status says that the share is not ready", PATIENCE, || {
        let out = user.run(&["status", "-o", "json"], "")?;
        let shown: Value = serde_json::from_slice(&out.stdout)?;
        let is_told = shown["shares"]["notReady"] == 1 && shown["wrong"][0]["name"] == "web";
        Ok((out.status.code() == Some(5) && is_told).then_some(()))
    })?;
    ensure!(user.says_with(5, "status")?.starts_with("✗ share web: "), "no share is named");
    let elsewhere = "share create other --tunnel site-a --env nope --target 127.0.0.1:80 --ingress-port 8001";
    let (status, words) = user.fails(elsewhere)?;
    ensure!(status == 1 && words.contains("there is no env nope: `wicketgate env list`"), "{status} {words}");
    user.says("share delete web --wait")?;
    user.says("tunnel delete site-a --wait")?;
    assert_eq!(user.json("share list")?, Value::Array(Vec::new()));
    world.end()
}

#[test]
fn executions_name_what_they_are_about_and_failed_sign_ins_are_among_them() -> Result<()> {
    let world = World::loopback().start()?;
    let user = User::new(&world, "user")?;
    user.sign_in()?;
    let account = user.json("account create ci --scope frontdoor.read --scope frontdoor.write")?;
    let (id, secret) = (text(&account, "clientId")?, text(&account, "clientSecret")?);
    let file = |name: &str, secret: &str| {
        let file = world.lab.dir("secrets")?.join(name);
        std::fs::write(&file, secret)?;
        Ok::<_, anyhow::Error>(file.display().to_string())
    };
    let guesser = User::new(&world, "guesser")?;
    let login = |file: &str| format!("login --server {} --account {id} --secret-file {file}", world.url());
    guesser.fails(&login(&file("wrong", "wgs_guessed")?))?;
    // In the Frontdoor's record is what concerns it; an attempt to sign in concerns the organization.
    let failed = "execution list --organization action=AUTHENTICATE";
    let row = world.lab.until("the attempt is recorded", PATIENCE, || {
        Ok(Some(user.says(failed)?).filter(|rows| !rows.is_empty()))
    })?;
    let columns: Vec<_> = row.trim_end().split('\t').collect();
    assert_eq!(columns[1..], ["AUTHENTICATE", "account ci", "anonymous", "FAILED", "the secret is wrong"]);
    let execution = user.json(failed)?[0].clone();
    ensure!(execution["resourceId"] == id && execution.get("resource").is_none(), "{execution}");
    let one = user.says(&format!("execution get {} --organization", text(&execution, "id")?))?;
    ensure!(one.contains("account ci") && one.contains("sourceAddress"), "{one}");
    ensure!(user.says("execution list action=AUTHENTICATE")?.is_empty());

    guesser.says(&login(&file("right", secret)?))?;
    guesser.says(
        "tunnel create site-a --location local --peer-public-ip 203.0.113.2 --peer-cidr 10.0.0.0/16 --wait",
    )?;
    let row = user.says("execution list resourceType=ipsec-tunnel action=CREATE")?;
    ensure!(row.contains("\tCREATE\ttunnel site-a\tci\tSUCCESS"), "{row}");
    world.end()
}

#[test]
fn an_environment_with_shares_is_deleted_only_on_request() -> Result<()> {
    let world = World::loopback().start()?;
    let (_agent, zid) = world.agent("agent")?;
    let user = User::new(&world, "user")?;
    user.sign_in()?;
    user.says(
        "tunnel create site-a --location local --peer-public-ip 203.0.113.2 --peer-cidr 10.0.0.0/16 --wait",
    )?;
    user.says(&format!(
        "share create web --tunnel site-a --env {zid} --target {} --ingress-port 9000",
        world.target(7001)
    ))?;
    let environment = user.says("env list -o name")?.trim().to_owned();
    let (status, words) = user.fails(&format!("env delete {zid}"))?;
    ensure!(
        status == 1 && words.contains("deleted with it: web. ") && words.contains("--with-shares"),
        "{words}"
    );
    assert_eq!(user.says("share list -o name")?, "web\n");
    let deleted = user.run(&["env", "delete", &zid, "--with-shares"], "")?;
    let words = String::from_utf8(deleted.stderr)?;
    ensure!(words.contains(&format!("Deleted env {environment}, its shares web, its agents ")), "{words}");
    world.lab.until("the share is gone", PATIENCE, || {
        Ok(user.says("share list -o name")?.is_empty().then_some(()))
    })?;
    assert_eq!(user.json("env list")?, Value::Array(Vec::new()));
    world.end()
}

#[test]
fn a_failure_has_its_exit_status_and_says_what_to_do() -> Result<()> {
    let world = World::loopback().start()?;
    let user = User::new(&world, "user")?;
    let is = |args: &str, status: i32, words: &[&str]| -> Result<()> {
        let (code, said) = user.fails(args)?;
        ensure!(code == status && words.iter().all(|w| said.contains(w)), "{args}: {code}: {said}");
        Ok(())
    };
    let server = format!("--server {}", world.url());
    is(&format!("share list {server}"), 4, &["not signed in", "wicketgate login"])?;
    is("share list --server http://127.0.0.1:1", 1, &["127.0.0.1:1", "cannot be reached"])?;
    is("share list --context elsewhere", 2, &["there is no context elsewhere"])?;
    user.sign_in()?;
    is("share get nothing", 1, &["there is no share nothing", "wicketgate share list"])?;
    is("share create web", 2, &["--tunnel", "--ingress-port", "--help"])?;
    is("share list colour=red", 1, &["colour"])?;
    // It would reach all of its organization.
    is("frontdoor create", 2, &["NAME", "--organization-id"])?;
    user.says("frontdoor create second --organization-id default")?;
    user.says("frontdoor delete second")?;
    is("account create ci --frontdoor default --scope frontdoor.read", 2, &["--frontdoor-id"])?;
    is("share list --jq .[", 2, &["--jq .["])?;
    is(
        "tunnel create a_b --location local --peer-public-ip 203.0.113.2 --peer-cidr 10.0.0.1/16",
        1,
        &["name", "peerCidr"],
    )?;
    // No gateway serves this location.
    is(
        "tunnel create site-a --location elsewhere --peer-public-ip 203.0.113.2 --peer-cidr 10.0.0.0/16 --wait --timeout 1",
        8,
        &["site-a is still NEW", "wicketgate tunnel get site-a"],
    )
    .or_else(|_| is("tunnel get site-a", 1, &["there is no tunnel site-a"]))?;
    is("share list --server http://203.0.113.9 --token-file /dev/null", 2, &["/dev/null is empty"])?;
    let token = world.gateway.data.join("admin.token");
    let open = format!("--server http://203.0.113.9 --token-file {}", token.display());
    for command in ["share list", "login"] {
        is(&format!("{command} {open}"), 2, &["without TLS", "--insecure-http"])?;
    }
    is("share reset web", 2, &["reset"])?;
    is("tunnel reset site-a", 2, &["--mode, --scope", "wicketgate tunnel reset --help"])?;
    let files = std::fs::read_dir(user.home.join("wicketgate"))?.flatten().map(|file| file.path());
    let secrets: Vec<_> = files.filter(|file| file.extension().is_some_and(|it| it == "secret")).collect();
    assert_eq!(secrets.len(), 1, "{secrets:?}");
    std::fs::remove_file(&secrets[0])?;
    is("share list", 4, &["the secret of context default is missing", "wicketgate login"])?;
    user.says("logout")?;
    is(&format!("share list {server}"), 4, &["not signed in"])?;
    world.end()
}

#[test]
fn contexts_keep_their_own_secrets_and_are_changed_one_by_one() -> Result<()> {
    let world = World::loopback().start()?;
    let user = User::new(&world, "user")?;
    user.sign_in()?;
    let folder = user.home.join("wicketgate");
    let token = world.gateway.data.join("admin.token").display().to_string();
    let url = world.url();
    let login =
        |name: &str| user.command(&["login", "--server", &url, "--token-file", &token, "--name", name]);
    // Each of them changes the file of all.
    let names: Vec<_> = (0..8).map(|n| format!("c{n}")).collect();
    let started: Vec<_> = names.iter().map(|name| login(name).stderr(Stdio::null()).spawn()).collect();
    for child in started {
        ensure!(child?.wait()?.success(), "a login failed");
    }
    let list = user.says("context list")?;
    ensure!(names.iter().all(|name| list.contains(&format!(" {name}\t"))), "{list}");

    let secrets = || -> Result<Vec<std::path::PathBuf>> {
        let files = std::fs::read_dir(&folder)?.flatten().map(|file| file.path());
        Ok(files.filter(|file| file.extension().is_some_and(|it| it == "secret")).collect())
    };
    assert_eq!(secrets()?.len(), 9);
    // A sign-in that ends between its two files leaves the context with its old secret.
    let before = secrets()?;
    let contexts = folder.join("contexts.toml");
    let kept = std::fs::read(&contexts)?;
    std::fs::remove_file(&contexts)?;
    std::fs::create_dir(&contexts)?;
    let out = login("c0").output()?;
    ensure!(out.status.code() == Some(1), "{out:?}");
    std::fs::remove_dir(&contexts)?;
    std::fs::write(&contexts, kept)?;
    let (mut before, mut after) = (before, secrets()?);
    before.sort();
    after.sort();
    assert_eq!(before, after);
    ensure!(login("c0").output()?.status.success(), "no sign-in");
    assert_eq!(secrets()?.len(), 9, "the old secret is left");
    user.says("logout c0")?;
    assert_eq!(secrets()?.len(), 8, "the secret of the context that was forgotten is left");
    world.end()
}

#[test]
fn acts_on_a_share_and_a_tunnel_take_effect_and_say_so() -> Result<()> {
    let (world, published) = World::loopback().publish(echo)?;
    let user = User::new(&world, "user")?;
    user.sign_in()?;
    let tunnel = text(&published.tunnel, "name")?;
    let share = text(&published.share, "name")?;
    let mut open = connect(&world.outside, published.door, PATIENCE)?;
    exchange(&mut open, b"before")?;
    let closed = user.json(&format!("share close-connections {share} --source 203.0.113.9"))?;
    assert_eq!(closed["closed"], 0);
    exchange(&mut open, b"after another client's were closed")?;
    let out = user.run(&["share", "close-connections", share], "")?;
    ensure!(String::from_utf8_lossy(&out.stderr).contains("1 connections were reset"), "{out:?}");
    is_reset(open)?;

    for (kind, name) in [("share", share), ("tunnel", tunnel)] {
        for (verb, status) in [("disable", "DISABLED"), ("enable", "DEPLOYED")] {
            user.says(&format!("{kind} {verb} {name} --wait"))?;
            let is = user.json(&format!("{kind} get {name}"))?;
            assert_eq!(is["status"], status, "{kind} {verb}");
        }
    }
    let out = user.run(&["tunnel", "rotate-key", tunnel, "--grace-seconds", "60", "--no-wait"], "")?;
    let words = String::from_utf8_lossy(&out.stderr);
    ensure!(out.status.success() && words.contains("The previous key works until 20"), "{out:?}");
    let out = user.run(&["tunnel", "rotate-key", tunnel, "--cut", "--wait"], "")?;
    ensure!(out.status.success() && !String::from_utf8_lossy(&out.stderr).contains("previous"), "{out:?}");
    let (status, words) = user.fails(&format!("tunnel reset {tunnel} --scope ike --mode rekey"))?;
    ensure!(status == 1 && words.contains("without IPsec"), "{words}");
    let (status, words) = user.fails(&format!("tunnel ike-log {tunnel}"))?;
    ensure!(status == 1 && words.contains("without IPsec"), "{words}");
    world.end()
}

#[test]
fn a_change_while_the_state_is_read_is_watched() -> Result<()> {
    let world = World::loopback().start()?;
    let user = User::new(&world, "user")?;
    user.sign_in()?;
    user.says(
        "tunnel create site --location local --peer-public-ip 203.0.113.2 --peer-cidr 10.0.0.0/16 --wait",
    )?;
    let on = ([127, 0, 0, 1], 9999).into();
    let reading = hold_back(&world, on, &format!("GET {}/ipsec-tunnels/tnl-", world.gateway.frontdoor))?;
    let (server, token) = (format!("http://{on}"), world.gateway.data.join("admin.token"));
    let token = token.display().to_string();
    let mut watch = user.command(&["tunnel", "watch", "site", "--server", &server, "--token-file", &token]);
    let log = world.lab.dir("watched")?.join("log");
    let watch = Process::start(&world.lab, "watch", watch.stdin(Stdio::null()), &log)?;
    let answer = reading.recv_timeout(PATIENCE)?;
    user.says("tunnel disable site --wait")?;
    drop(answer);
    let is_told = || Ok(watch.said().contains("DISABLED").then_some(()));
    world.lab.until("the change is told", PATIENCE, is_told).with_context(|| watch.tail())?;
    world.end()
}

#[test]
fn a_reset_and_the_ike_log_are_followed() -> Result<()> {
    let (world, published) = World::with_sites(1).publish(echo)?;
    let user = User::new(&world, "user")?;
    user.sign_in()?;
    let tunnel = text(&published.tunnel, "name")?;
    let status = user.says_with(5, "status")?;
    ensure!(
        status.contains(&format!("✗ tunnel {tunnel}: DOWN")) && status.contains("1, of which 1 not"),
        "{status}"
    );
    let reset = format!("tunnel reset {tunnel} --scope ike --mode rekey --wait");
    let (status, words) = user.fails(&reset)?;
    ensure!(status == 1 && words.contains("the site's device is not connected"), "{words}");
    let _site = world.connected_site(0, &published.tunnel)?;
    let log = user.says(&format!("tunnel ike-log {tunnel}"))?;
    ensure!(log.contains("\tIKE\t") && log.contains("established"), "{log}");
    let entries = user.says(&format!("tunnel ike-log {tunnel} -o json"))?;
    let first: Value = serde_json::from_str(entries.lines().next().context("an empty log")?)?;
    let first = first["number"].to_string();
    let newer = user.says(&format!("tunnel ike-log {tunnel} --jq .number --since {first}"))?;
    ensure!(!newer.is_empty() && newer.lines().all(|number| number != first), "{newer}");

    let followed = world.lab.dir("followed")?.join("log");
    let mut follow = user.command(&["tunnel", "ike-log", tunnel, "--follow", "-o", "json"]);
    let _follow = Process::start(&world.lab, "ike-log", follow.stdin(Stdio::null()), &followed)?;
    let has = |what: &'static str| {
        world.lab.until(what, PATIENCE, || {
            let said = std::fs::read_to_string(&followed).unwrap_or_default();
            Ok(said.contains(what).then_some(said))
        })
    };
    let before = has("established")?;
    ensure!(user.says(&reset)?.contains("\tSUCCESS\tthe IKE SA was rekeyed"), "no outcome");
    world.lab.until("the rekey is in the log that is followed", PATIENCE, || {
        let said = std::fs::read_to_string(&followed)?;
        Ok((said.len() > before.len()
            && said.lines().skip(before.lines().count()).any(|l| l.contains("rekey")))
        .then_some(()))
    })?;
    world.end()
}

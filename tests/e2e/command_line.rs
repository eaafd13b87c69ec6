//! The command line against a running server: from signing in to a share that is checked, and every exit status.

use std::{
    io::Write as _,
    process::{Output, Stdio},
};

use anyhow::{Context as _, Result, ensure};
use serde_json::Value;

use crate::harness::{PATIENCE, World, targets::here, text, wicketgate_executable};

/// A user of the command line, with a folder of its own for contexts.
struct User<'a> {
    world: &'a World,
    home: std::path::PathBuf,
}

impl<'a> User<'a> {
    fn new(world: &'a World, name: &str) -> Result<Self> {
        Ok(Self { world, home: world.lab.dir(name)? })
    }

    fn run(&self, args: &[&str], input: &str) -> Result<Output> {
        let mut command = self.world.outside.command(&wicketgate_executable().display().to_string());
        command.args(args).env("XDG_CONFIG_HOME", &self.home).env_remove("HOME");
        command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped());
        let mut child = command.spawn()?;
        // A command that does not read its input has ended before.
        let _ = child.stdin.take().context("no standard input")?.write_all(input.as_bytes());
        Ok(child.wait_with_output()?)
    }

    /// What a command that succeeds prints.
    fn says(&self, args: &str) -> Result<String> {
        let out = self.run(&args.split(' ').collect::<Vec<_>>(), "")?;
        ensure!(out.status.success(), "{args}: {}: {}", out.status, String::from_utf8_lossy(&out.stderr));
        Ok(String::from_utf8(out.stdout)?)
    }

    fn json(&self, args: &str) -> Result<Value> {
        Ok(serde_json::from_str(&self.says(&format!("{args} -o json"))?)?)
    }

    /// The exit status of a command that fails, and its words.
    fn fails(&self, args: &str) -> Result<(i32, String)> {
        let out = self.run(&args.split(' ').collect::<Vec<_>>(), "")?;
        ensure!(out.stdout.is_empty(), "{args} printed {}", String::from_utf8_lossy(&out.stdout));
        Ok((out.status.code().context("killed")?, String::from_utf8(out.stderr)?))
    }

    fn sign_in(&self) -> Result<()> {
        let token = std::fs::read_to_string(self.world.gateway.data.join("admin.token"))?;
        let out = self.run(&["login", "--server", &self.world.url()], &token)?;
        ensure!(out.status.success(), "{}", String::from_utf8_lossy(&out.stderr));
        ensure!(!String::from_utf8_lossy(&out.stderr).contains(token.trim()), "the token was printed");
        Ok(())
    }
}

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
    // Without IPsec, no site is connected.
    let status = user.says("status")?;
    ensure!(
        status.contains("✗ tunnel site-a: DOWN") && status.contains("1, of which 0 not ready"),
        "{status}"
    );

    user.says("share update web --ingress-port 9001 --unset tag --wait")?;
    let share = user.json("share get web")?;
    assert_eq!((&share["ingressPort"], share["tags"].get("team")), (&9001.into(), None));
    user.says("share update web --target 127.0.0.1:1 --wait")?;
    world.lab.until("the check fails at the target", PATIENCE, || {
        let check = user.run(&["share", "check", "web"], "")?;
        let drawn = String::from_utf8(check.stdout)?;
        Ok((check.status.code() == Some(1) && drawn.contains("✗ target") && drawn.contains("→"))
            .then_some(()))
    })?;
    user.says("share delete web --wait")?;
    user.says("tunnel delete site-a --wait")?;
    assert_eq!(user.json("share list")?, Value::Array(Vec::new()));
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
    user.says("logout")?;
    is(&format!("share list {server}"), 4, &["not signed in"])?;
    world.end()
}

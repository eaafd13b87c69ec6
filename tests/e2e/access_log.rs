//! The log of the API: who sent each request and from where, and who failed to authenticate.

use std::fs;

use anyhow::{Context as _, Result, ensure};

use crate::harness::{PATIENCE, World};

#[test]
fn a_request_is_logged_with_its_actor_and_source_and_failures_once_with_their_number() -> Result<()> {
    let world = World::loopback().start()?;
    let log = || fs::read_to_string(world.gateway.process.log());
    let line_with = |words: &[&str]| {
        let log = log()?;
        let found = log.lines().find(|line| words.iter().all(|word| line.contains(word)));
        Ok(found.map(str::to_owned))
    };
    let curl = |headers: &[&str]| -> Result<()> {
        let mut curl = world.outside.command("curl");
        curl.args(["-q", "-sS", "-m", "10", "-o", "/dev/null"]).arg(format!("{}/frontdoor/v2", world.url()));
        for header in headers {
            curl.args(["-H", header]);
        }
        let out = curl.output()?;
        ensure!(out.status.success(), "{}", String::from_utf8_lossy(&out.stderr));
        Ok(())
    };
    world.gateway.api.get("/frontdoor/v2")?;
    let known = ["access:", "actor=\"admin\"", "source=127.0.0.1", "route=\"/frontdoor/v2\"", "status=200"];
    world.lab.until("the line of the request", PATIENCE, || line_with(&known))?;

    let wrong = "authorization: Bearer wga_the-token-of-a-guesser";
    for n in 0..20 {
        curl(&[wrong, &format!("x-request-id: guess-{n}")])?;
    }
    let refused = ["access:", "id=\"guess-19\"", "source=127.0.0.1", "status=401"];
    let line = world.lab.until("the line of the last guess", PATIENCE, || line_with(&refused))?;
    ensure!(!line.contains("actor="), "{line}");
    let failed = ["WARN auth:", "source=127.0.0.1", "cause=\"token_invalid\"", "id=\"guess-0\""];
    world.lab.until("the first failure", PATIENCE, || line_with(&failed))?;
    let log = log().context("the log")?;
    let count = log.lines().filter(|line| line.contains("authentication failed")).count();
    ensure!(count == 1 && !log.contains("guesser"), "{count} lines");
    world.end()
}

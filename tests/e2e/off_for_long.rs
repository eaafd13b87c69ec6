//! Everything was off for longer than certificates and assignments last, or nearly so.

use std::{
    fs,
    time::{Duration, Instant},
};

use anyhow::{Context as _, Result, ensure};
use serde_json::json;
use wicketgate_lab::{Agent, named};

use crate::{
    e2e::clocks::Clock,
    harness::{
        PATIENCE, World,
        builder::Published,
        targets::{ask, here},
        text,
    },
};

/// The bound of one attempt; attempts repeat until one succeeds.
const TRY: Duration = Duration::from_secs(2);

/// An installation that can be off for a while.
struct Installation {
    world: World,
    published: Published<()>,
    clock: Clock,
}

impl Installation {
    fn start() -> Result<Self> {
        let (world, published) = World::loopback().publish(here)?;
        let clock = Clock::of(&world, "clock")?;
        ensure!(ask(&world.outside, published.door, PATIENCE)? == "here");
        Ok(Self { world, published, clock })
    }

    /// All is off until then, and is started again. `code` is given to the agent.
    fn off_until(&mut self, time: &str) -> Result<()> {
        self.stop_agent()?;
        ensure!(self.world.gateway.process.stop(PATIENCE)?.success());
        self.clock.set(time)?;
        self.world.restart_after(&self.clock.lines())?;
        self.start_agent(None)
    }

    fn stop_agent(&mut self) -> Result<()> {
        self.published.agent.process.stop(PATIENCE).map(drop)
    }

    fn start_agent(&mut self, code: Option<&str>) -> Result<()> {
        let program = self.clock.agent(&self.world)?;
        let options = self.world.agent_options("agent", &program);
        self.published.agent = Agent::start(&self.world.lab, &options, code)?;
        Ok(())
    }

    fn share(&self) -> Result<String> {
        Ok(format!("ipsec-shares/{}", text(&self.published.share, "id")?))
    }

    fn is_served(&self) -> Result<()> {
        let (world, door) = (&self.world, self.published.door);
        world
            .lab
            .until("the share is served", PATIENCE, || {
                Ok(ask(&world.outside, door, TRY).is_ok_and(|said| said == "here").then_some(()))
            })
            .map_err(|error| error.context(self.published.agent.process.tail()))?;
        let wanted = |share: &serde_json::Value| share["status"] == "DEPLOYED" && share["ready"] == true;
        world.gateway.wait(&world.lab, &self.share()?, "DEPLOYED and ready", PATIENCE, wanted).map(drop)
    }
}

#[test]
fn what_was_off_for_nearly_a_month_serves_again_and_so_again() -> Result<()> {
    let mut all = Installation::start()?;
    let identity = all.published.agent.state.join("identity.json");
    let enrolled = fs::read(&identity)?;
    all.off_until("+29d")?;
    all.is_served()?;
    // The certificate that it enrolled with ends after 30 days: the next month needs another one.
    all.world.lab.until("the certificate is renewed", PATIENCE, || {
        Ok((fs::read(&identity)? != enrolled).then_some(()))
    })?;
    all.off_until("+58d")?;
    all.is_served()?;
    all.world.end()
}

#[test]
fn an_agent_that_was_off_for_longer_than_its_certificate_is_named_at_both_ends_and_enrolled_again()
-> Result<()> {
    let mut all = Installation::start()?;
    // Longer than records are kept, too.
    all.off_until("+730d")?;
    let begin = Instant::now();
    let world = &all.world;
    let environments = world.gateway.list("environments")?;
    let environment = text(environments.first().context("no environment")?, "id")?.to_owned();
    let cure = format!("wicketgate agent enroll --env {environment}");
    let expired = "this agent's certificate has expired while it was offline";
    world.lab.until("both ends tell it", PATIENCE, || {
        let (agent, gateway) = (all.published.agent.process.said(), world.gateway.process.said());
        let is_told = agent.contains(expired)
            && agent.contains(&cure)
            && gateway.contains("refused an agent whose certificate has expired")
            && gateway.contains(&cure);
        Ok(is_told.then_some(()))
    })?;
    named("\"this agent's certificate has expired while it was offline\"", begin.elapsed());
    let is_named = |share: &serde_json::Value| share["statusDetail"]["reason"] == "AgentOffline";
    world.gateway.wait(&world.lab, &all.share()?, "without an agent", PATIENCE, is_named)?;
    let agents = world.gateway.list("agents")?;
    ensure!(agents.len() == 1 && agents[0]["status"] == "OFFLINE", "{agents:?}");
    let check = world.gateway.api.post(&world.gateway.at(&format!("{}/check", all.share()?)), &json!({}))?;
    ensure!(check.to_string().contains("offline for a month"), "{check}");
    all.published.agent.process.alive()?;

    // The cure. The share stays as it is.
    let code = all
        .world
        .gateway
        .api
        .post(&all.world.gateway.at("agents/enrollments"), &json!({"environmentId": environment}))?;
    all.stop_agent()?;
    all.start_agent(Some(text(&code, "enrollmentCode")?))?;
    all.is_served()?;
    all.world.end()
}

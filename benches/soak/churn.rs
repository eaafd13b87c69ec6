//! Shares, tunnels and agents that come and go, and rekeys.

use std::{
    fmt, fs,
    net::Ipv4Addr,
    sync::atomic::{AtomicBool, Ordering},
    time::Duration,
};

use anyhow::{Context, Result};
use serde_json::{Value, json};
use wicketgate_lab::{Agent, AgentOptions, GatewayProcess, Lab};

/// For an effect, on a busy machine.
const BOUND: Duration = Duration::from_secs(60);
/// A round makes this many shares.
const SHARES: u16 = 4;

/// What it needs.
pub(crate) struct Churn<'a> {
    pub(crate) lab: &'a Lab,
    pub(crate) gateway: &'a GatewayProcess,
    pub(crate) agent: AgentOptions<'a>,
    pub(crate) zid: &'a str,
    pub(crate) tunnels: &'a [Value],
    pub(crate) ends: &'a AtomicBool,
}

/// What has come and gone.
#[derive(Debug, Default)]
pub(crate) struct Counts {
    shares: u32,
    tunnels: u32,
    agents: u32,
    rekeys: u32,
}

impl fmt::Display for Counts {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { shares, tunnels, agents, rekeys } = self;
        write!(f, "{shares} shares, {tunnels} tunnels and {agents} agents came and went, {rekeys} rekeys")
    }
}

impl Churn<'_> {
    pub(crate) fn run(&self) -> Result<Counts> {
        let mut counts = Counts::default();
        for round in 0_u32.. {
            if self.ends.load(Ordering::Relaxed) {
                break;
            }
            self.shares(round, &mut counts)?;
            self.tunnel(&mut counts)?;
            if round.is_multiple_of(2) {
                self.agent(&mut counts)?;
            }
            self.rekey(round, &mut counts)?;
        }
        Ok(counts)
    }

    fn shares(&self, round: u32, counts: &mut Counts) -> Result<()> {
        let tunnel = &self.tunnels[round as usize % self.tunnels.len()];
        for n in 0..SHARES {
            let name = format!("passing-{n}");
            self.gateway.share(self.lab, &name, tunnel, self.zid, "127.0.0.1:7001", 9100 + n)?;
        }
        let made = self.gateway.list("ipsec-shares")?;
        let passing =
            |share: &&Value| share["name"].as_str().is_some_and(|name| name.starts_with("passing-"));
        for share in made.iter().filter(passing) {
            self.remove("ipsec-shares", share)?;
            counts.shares += 1;
        }
        Ok(())
    }

    fn tunnel(&self, counts: &mut Counts) -> Result<()> {
        let peer = Ipv4Addr::new(203, 0, 113, 200);
        let made = self.gateway.tunnel(self.lab, "passing", peer, "10.1.0.0/16")?;
        self.remove("ipsec-tunnels", &made)?;
        counts.tunnels += 1;
        Ok(())
    }

    /// Deletes it and waits until it is gone.
    fn remove(&self, kind: &str, resource: &Value) -> Result<()> {
        let id = resource["id"].as_str().context("no id")?;
        self.gateway.api.delete(&self.gateway.at(&format!("{kind}/{id}")))?;
        self.gateway
            .wait(self.lab, &format!("{kind}/{id}"), "gone", BOUND, |it| it["status"] == "DELETED")?;
        Ok(())
    }

    fn agent(&self, counts: &mut Counts) -> Result<()> {
        let options = AgentOptions { name: "passing", ..self.agent.clone() };
        let (mut agent, zid) = Agent::enrol(self.lab, &options, self.gateway)?;
        let environments = self.gateway.list("environments")?;
        let environment =
            environments.iter().find(|it| it["zId"] == zid.as_str()).context("no environment")?;
        let id = environment["id"].as_str().context("no id")?;
        self.gateway.api.delete(&self.gateway.at(&format!("environments/{id}")))?;
        // It was removed, and ends by itself.
        agent.process.wait(BOUND)?;
        fs::remove_dir_all(&agent.state)?;
        counts.agents += 1;
        Ok(())
    }

    fn rekey(&self, round: u32, counts: &mut Counts) -> Result<()> {
        let tunnel = &self.tunnels[round as usize % self.tunnels.len()];
        let id = tunnel["id"].as_str().context("no id")?;
        let scope = if round.is_multiple_of(5) { "ike" } else { "child" };
        let path = self.gateway.at(&format!("ipsec-tunnels/{id}/reset"));
        let accepted = self.gateway.api.post(&path, &json!({"scope": scope, "mode": "rekey"}))?;
        let execution = format!("executions/{}", accepted["id"].as_str().context("no id")?);
        self.gateway.wait(self.lab, &execution, "done", BOUND, |it| it["status"] != "RUNNING")?;
        counts.rekeys += 1;
        Ok(())
    }
}

//! What the API reports about the path of a share: the hops of a check, and the state that each agent reports.

use anyhow::{Context as _, Result, ensure};
use serde_json::{Value, json};

use crate::harness::{PATIENCE, World, targets::here, text};

/// The name and the state of each hop of a check.
fn states(check: &Value) -> Result<Vec<(String, String)>> {
    let hops = check["hops"].as_array().context("no hops")?;
    hops.iter().map(|hop| Ok((text(hop, "hop")?.to_owned(), text(hop, "state")?.to_owned()))).collect()
}

#[test]
fn a_walk_and_the_agents_tell_how_a_share_is() -> Result<()> {
    let (world, mut published) = World::loopback().publish(here)?;
    let path = world.gateway.at(&format!("ipsec-shares/{}/check", text(&published.share, "id")?));
    let run_check = || world.gateway.api.post(&path, &json!({}));
    // The gateway probes an agent every few seconds. The latency of its hop is known after the first probe.
    let well = world.lab.until("every hop was measured", PATIENCE, || {
        let check = run_check()?;
        let hops = check["hops"].as_array().context("no hops")?;
        let is_measured = |hop: &Value| hop["latencyMs"].is_number() || hop["state"] == "SKIPPED";
        Ok(hops.iter().all(is_measured).then_some(check))
    })?;
    let reported = states(&well)?;
    let reported: Vec<_> = reported.iter().map(|(hop, state)| (hop.as_str(), state.as_str())).collect();
    // Without IPsec there is no peer.
    assert_eq!(
        reported,
        [("tunnel", "OK"), ("ikeSa", "SKIPPED"), ("listener", "OK"), ("agent", "OK"), ("target", "OK")]
    );
    assert_eq!(well["ok"], true, "{well}");

    let agents = world.gateway.list("agents")?;
    let one = agents.first().context("no agent")?;
    assert_eq!((&one["status"], one.get("lastSeen")), (&json!("CONNECTED"), None));
    assert_eq!(one["shares"], json!([{"id": published.share["id"], "state": "SERVING"}]));
    assert_eq!(well["hops"][3]["agentId"], one["id"], "the agent that connected to the target");

    // The agent reports a target without a listener.
    let change = json!({"target": world.target(7002).to_string()});
    world
        .gateway
        .api
        .patch(&world.gateway.at(&format!("ipsec-shares/{}", text(&published.share, "id")?)), &change)?;
    world.lab.until("the agent reports that it cannot reach the target", PATIENCE, || {
        let _ = run_check()?;
        let agents = world.gateway.list("agents")?;
        Ok(agents.iter().any(|a| a["shares"][0]["state"] == "UNREACHABLE").then_some(()))
    })?;
    let failed = run_check()?;
    assert_eq!(states(&failed)?.pop(), Some(("target".to_owned(), "FAILED".to_owned())));
    ensure!(text(&failed["hops"][4], "advice").is_ok(), "the failed hop has no advice: {failed}");

    published.agent.process.kill()?;
    let gone = world.lab.until("the agent is OFFLINE", PATIENCE, || {
        let agents = world.gateway.list("agents")?;
        Ok(agents.into_iter().find(|a| a["status"] == "OFFLINE"))
    })?;
    assert!(gone["lastSeen"].is_string() && gone.get("shares").is_none(), "{gone}");
    let offline = run_check()?;
    assert_eq!(offline["hops"][3]["reason"], "AgentOffline");
    world.end()
}

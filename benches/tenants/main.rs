//! Two customers on one gateway: one uses every quota to its limit at once, and the other's requests and connections are measured
//! before and meanwhile. `make tenants` runs it as root, a minute each. Without IPsec: both share the gateway's process, the
//! database and the two agents' host, which is what they can take from each other. The hostile one's programs, its agent and its
//! target run when nothing else does, as if they were on other hosts.

mod hostile;
mod measured;

use std::{
    env, fs,
    io::{self, Write as _},
    net::{IpAddr, Ipv4Addr, SocketAddr},
    path::{Path, PathBuf},
    sync::Arc,
    time::Duration,
};

use anyhow::{Context, Result, ensure};
use hostile::Program;
use measured::{Measured, measure};
use serde_json::{Value, json};
use wicketgate_lab::{Agent, AgentOptions, Api, GatewayOptions, GatewayProcess, Lab, Namespace};

const API: SocketAddr = SocketAddr::new(IpAddr::V4(Ipv4Addr::LOCALHOST), 8080);
const AGENTS: SocketAddr = SocketAddr::new(IpAddr::V4(Ipv4Addr::LOCALHOST), 7443);
const TARGET: SocketAddr = SocketAddr::new(IpAddr::V4(Ipv4Addr::LOCALHOST), 7001);
const OTHER_TARGET: SocketAddr = SocketAddr::new(IpAddr::V4(Ipv4Addr::LOCALHOST), 7002);
const PORT: u16 = 9000;
/// The target of the issue: the 99th percentile stays below twice what it was.
const MOST: f64 = 2.0;

/// A customer with an account of its own, an agent, a tunnel and a share.
pub(crate) struct Tenant {
    pub(crate) api: Api,
    /// The file of its token.
    pub(crate) token: PathBuf,
    /// `/frontdoor/v2/{id}`.
    pub(crate) frontdoor: String,
    pub(crate) zid: String,
    pub(crate) tunnel: Value,
    pub(crate) share: Value,
    pub(crate) door: SocketAddr,
    agent: Agent,
}

fn main() -> Result<()> {
    if let Some(done) = hostile::obey() {
        return done;
    }
    let each = Duration::from_secs(env::var("TENANTS_SECONDS").map_or(Ok(60), |text| text.parse())?);
    let part = hostile::part()?;
    let home = Path::new("/var/lib/wicketgate-bench");
    fs::create_dir_all(home).context("run as root: the benchmark makes network namespaces")?;
    let lab = Lab::new("wgtwo-", &home.join("tenants"), Arc::default())?;
    let place = lab.namespace("gw")?;
    let executable = Path::new(env!("CARGO_BIN_EXE_wicketgate"));
    let gateway = GatewayProcess::start(&lab, &GatewayOptions::measured(executable, &place, AGENTS, None))?;
    let listener = place.listen(TARGET)?;
    std::thread::spawn(move || measured::echo(&listener));
    let other_target = Program::target(&place, OTHER_TARGET)?;
    let [quiet, other] = [("quiet", TARGET), ("hostile", OTHER_TARGET)]
        .map(|(name, target)| tenant((&lab, &gateway), &place, name, target));
    let (quiet, other) = (quiet?, other?);
    hostile::idle(other.agent.process.pid())?;

    measure(&place, &quiet, each / 6)?;
    let alone = measure(&place, &quiet, each)?;
    // From the first moment on: also while it takes what it can.
    let attack = Program::attack(&place, &other)?;
    let beside = measure(&place, &quiet, each).with_context(|| gateway.process.tail());
    let (harm, beside) = (attack.end()?, beside?);
    other_target.end()?;
    if let Some(part) = part {
        writeln!(io::stdout(), "only a part of what it could do: {part}")?;
    }
    if hostile::is_flood() {
        writeln!(io::stdout(), "it opened connections without pause, far above its quota")?;
    }
    let is_met = report(each, (&alone, &beside), &harm)?;
    drop((quiet, other));
    lab.remove()?;
    ensure!(is_met, "the target was missed");
    Ok(())
}

fn tenant(
    (lab, gateway): (&Lab, &GatewayProcess),
    place: &Namespace,
    name: &str,
    target: SocketAddr,
) -> Result<Tenant> {
    let body = json!({"organizationId": name, "defaultNamespaceName": name, "ipsecSharesEnabled": true});
    let made = gateway.api.post("/frontdoor/v2", &body)?;
    let id = made["id"].as_str().context("no id")?;
    let frontdoor = format!("/frontdoor/v2/{id}");
    let scopes = ["frontdoor.read", "frontdoor.write"];
    let body = json!({"frontdoorIds": [id], "name": name, "scopes": scopes});
    let account = gateway.api.post("/frontdoor/v2/api-accounts", &body)?;
    let token = lab.dir("tokens")?.join(name);
    wicketgate_system::private_file::replace(
        &token,
        account["clientSecret"].as_str().context("no secret")?.as_bytes(),
    )?;
    let api = Api::new(place, API, &token)?;

    let executable = Path::new(env!("CARGO_BIN_EXE_wicketgate")).with_file_name("wicketgate-agent");
    ensure!(executable.exists(), "{} is not built: run `make tenants`", executable.display());
    let options = AgentOptions { name, ..AgentOptions::measured(&executable, place, AGENTS) };
    let code = api.post(&format!("{frontdoor}/agents/enrollments"), &json!({}))?;
    let agent = Agent::start(lab, &options, Some(code["enrollmentCode"].as_str().context("no code")?))?;
    let bound = Duration::from_secs(30);
    let zid = lab.until("the environment is ACTIVE", bound, || {
        let all = api.get(&format!("{frontdoor}/environments"))?;
        let active =
            all["content"].as_array().and_then(|all| all.iter().find(|it| it["status"] == "ACTIVE").cloned());
        Ok(active.and_then(|it| it["zId"].as_str().map(str::to_owned)))
    })?;
    let deployed = |kind: &str, body: &Value| -> Result<Value> {
        let made = api.post(&format!("{frontdoor}/{kind}"), body)?;
        let path = format!("{frontdoor}/{kind}/{}", made["id"].as_str().context("no id")?);
        lab.until("it is DEPLOYED", bound, || {
            let it = api.get(&path)?;
            Ok((it["status"] == "DEPLOYED").then_some(it))
        })
    };
    let peer = if name == "quiet" { "203.0.113.1" } else { "203.0.113.2" };
    let tunnel = deployed(
        "ipsec-tunnels",
        &json!({"name": name, "locationId": "local", "peerPublicIp": peer, "peerCidr": "10.0.0.0/16"}),
    )?;
    let share = deployed(
        "ipsec-shares",
        &json!({"name": name, "ipsecTunnelId": tunnel["id"], "envZId": zid, "target": target.to_string(), "ingressPort": PORT}),
    )?;
    let address: Ipv4Addr = tunnel["loadBalancerIp"].as_str().context("no address")?.parse()?;
    Ok(Tenant { api, token, frontdoor, zid, tunnel, share, door: (address, PORT).into(), agent })
}

fn report(each: Duration, (alone, beside): (&Measured, &Measured), harm: &str) -> Result<bool> {
    let mut out = io::stdout();
    writeln!(out, "{} s alone and {} s beside a customer that took: {harm}", each.as_secs(), each.as_secs())?;
    let mut is_met = true;
    for ((what, before), (_, meanwhile)) in alone.figures().into_iter().zip(beside.figures()) {
        let ratio = meanwhile.p99.as_secs_f64() / before.p99.as_secs_f64();
        let is_below = ratio < MOST && meanwhile.failed == 0;
        is_met &= is_below;
        writeln!(
            out,
            "  {what:<22} p50 {:.1?} and {:.1?}, p99 {:.1?} and {:.1?} ({ratio:.2} x), {} of {} failed: {}",
            before.p50,
            meanwhile.p50,
            before.p99,
            meanwhile.p99,
            meanwhile.failed,
            meanwhile.count,
            if is_below { "met" } else { "missed" }
        )?;
        if !meanwhile.first_failure.is_empty() {
            writeln!(out, "    {}", meanwhile.first_failure)?;
        }
    }
    let (before, meanwhile) = (alone.direct.p99, beside.direct.p99);
    writeln!(
        out,
        "  without the product    p99 {before:.1?} and {meanwhile:.1?} ({:.2} x): a connection to the target",
        meanwhile.as_secs_f64() / before.as_secs_f64()
    )?;
    Ok(is_met)
}

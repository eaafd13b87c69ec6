//! The demo, step by step.

use std::{path::Path, thread, time::Duration};

use anyhow::{Context, Result, anyhow};
use serde_json::Value;
use wicketgate_lab::{
    Agent, AgentOptions, GatewayOptions, GatewayProcess, Lab, Site, Wire, run as run_program,
};

use super::{
    checks::{self, Customer},
    network::{
        AGENT_PORT, API_PORT, DATABASE, GATEWAY, MANAGEMENT, Network, SITE_A, SITE_B, SITE_CIDR, SITE_CLIENT,
        WEB,
    },
    report::{Report, say},
    targets::{self, PAGE, ROW, curl, psql},
};

/// The port that both customers use, each on its own tunnel.
const INGRESS: u16 = 9000;

/// Addresses that may occur inside tunnels only: the sites' and the load balancers'.
const INNER: &str = "10.0.0.0/8, 100.64.0.0/10";

/// The product's log level.
const LOG: &str = "info";

/// Time for a site to bring up its tunnel: an IKE exchange of four messages.
const TUNNEL_UP: Duration = Duration::from_secs(15);

/// Time for traffic to appear in the metrics, whose buckets are 10 s.
const METRICS: Duration = Duration::from_secs(20);

/// Time for tunnels to be removed.
const REMOVAL: Duration = Duration::from_secs(15);

/// Everything that runs at the end of the demo.
pub(super) struct RunningDemo {
    network: Network,
    gateway: GatewayProcess,
    _agent: Agent,
    a: Customer,
    b: Customer,
}

/// Sets everything up, has both clients use their shares, and checks what must and must not be possible.
pub(super) fn run(lab: &Lab, executable: &Path, agent: &Path, report: &mut Report) -> Result<RunningDemo> {
    let network = Network::make(lab)?;
    network.join_host(lab)?;
    report.step(format_args!(
        "networks: an internet; two sites, both {SITE_CIDR}; a private network that lets nothing in"
    ));
    let wire = Wire::watch(lab, &network.internet, &[SITE_A, SITE_B], INNER)?;

    let gateway = start(lab, &network, executable, report)?;
    let (agent, zid) = Agent::enrol(
        lab,
        &AgentOptions {
            executable: agent,
            namespace: &network.agent,
            name: "agent",
            server: (GATEWAY, AGENT_PORT).into(),
            log: LOG,
            allow: &[&format!("{DATABASE}/32:5432"), &format!("{WEB}/32:80")],
        },
        &gateway,
    )?;
    report
        .step(format_args!("an agent in the private network enrolled, dialling out only: environment {zid}"));

    let tunnel_a = gateway.tunnel(lab, "customer-a", SITE_A, SITE_CIDR)?;
    let tunnel_b = gateway.tunnel(lab, "customer-b", SITE_B, SITE_CIDR)?;
    report.step("two tunnels created over the API: DEPLOYED");
    let share_a = gateway.share(lab, "database", &tunnel_a, &zid, &format!("{DATABASE}:5432"), INGRESS)?;
    let share_b = gateway.share(lab, "web", &tunnel_b, &zid, &format!("{WEB}:80"), INGRESS)?;
    report
        .step(format_args!("two shares on the same ingress port {INGRESS}, to different targets: DEPLOYED"));

    let site_a =
        site(lab, &gateway, &tunnel_a, Site::new(lab, "site-a", &network.site_a, SITE_A, SITE_CLIENT)?)?;
    let site_b =
        site(lab, &gateway, &tunnel_b, Site::new(lab, "site-b", &network.site_b, SITE_B, SITE_CLIENT)?)?;
    let algorithms = |tunnel: &Value| {
        let it = gateway.wait(lab, &path(tunnel), "UP", TUNNEL_UP, |t| t["connection"]["state"] == "UP")?;
        Ok::<_, anyhow::Error>(it["connection"]["algorithms"]["esp"].as_str().unwrap_or("unknown").to_owned())
    };
    let (esp_a, esp_b) = (algorithms(&tunnel_a)?, algorithms(&tunnel_b)?);
    report.step(format_args!(
        "both sites' strongSwan connected with the downloaded configuration: ESP {esp_a}"
    ));
    report.check(esp_a == esp_b && esp_a != "unknown", "both tunnels negotiated the same ESP proposal");

    let a = Customer::new("site A", site_a, &tunnel_a, share_a)?;
    let b = Customer::new("site B", site_b, &tunnel_b, share_b)?;
    lab.go_on()?;
    let words =
        run_program(&mut psql(&a.site.namespace, a.load_balancer, INGRESS, "select words from greeting"));
    report.step(format_args!("site A, {SITE_CLIENT}: psql -h {} -p {INGRESS}", a.load_balancer));
    answer(report, "PostgreSQL answered", words, ROW);
    let page = run_program(&mut curl(&b.site.namespace, b.load_balancer, INGRESS));
    report.step(format_args!("site B, {SITE_CLIENT}: curl http://{}:{INGRESS}/", b.load_balancer));
    answer(report, "the web server answered", page, PAGE);

    on_the_wire(lab, wire, report)?;

    check_metrics(lab, &gateway, [&a, &b], report)?;
    lab.go_on()?;
    report.step("connections that must not be possible");
    checks::isolation(report, &network, &a, &b, INGRESS)?;
    Ok(RunningDemo { network, gateway, _agent: agent, a, b })
}

impl RunningDemo {
    /// Removes the tunnels over the API, as a user would.
    pub(super) fn end(&self, lab: &Lab, report: &Report) -> Result<()> {
        self.gateway.clear(lab, REMOVAL)?;
        report.step("shares and tunnels deleted over the API");
        Ok(())
    }

    /// Prints how to use the running demo; `end` is the command that ends it.
    pub(super) fn how_to_use(&self, dir: &Path, end: &str) {
        let token = self.gateway.data.join("admin.token");
        let (token, dir) = (token.display(), dir.display());
        let console = format!("http://{MANAGEMENT}:{API_PORT}");
        let at = format!("{console}{}", self.gateway.frontdoor);
        let (a, b) = (self.network.site_a.name(), self.network.site_b.name());
        let (lb_a, lb_b) = (self.a.load_balancer, self.b.load_balancer);
        say(format_args!(
            "
The demo keeps running. Its console is {console}/, its API {at}, and its token in {token}.

  curl -H \"Authorization: Bearer $(cat {token})\" {at}/ipsec-shares
  nsenter --net=/run/netns/{a} psql -h {lb_a} -p {INGRESS} -U demo postgres -c 'select * from greeting'
  nsenter --net=/run/netns/{b} curl http://{lb_b}:{INGRESS}/
  nsenter --net=/run/netns/{a} bash                      a shell at site A
  tail -f {dir}/log/*.log

End it with {end}."
        ));
    }
}

/// Starts the gateway and the private services.
fn start(lab: &Lab, network: &Network, executable: &Path, report: &Report) -> Result<GatewayProcess> {
    let options = GatewayOptions {
        executable,
        namespace: &network.gateway,
        listen: (MANAGEMENT, API_PORT).into(),
        agent_listen: (GATEWAY, AGENT_PORT).into(),
        ipsec: "auto",
        public_address: Some(GATEWAY),
        log: LOG,
    };
    // The services take the longest to start, and need nothing else.
    let (gateway, services) = thread::scope(|scope| {
        let services = scope.spawn(|| targets::start(lab, network));
        let gateway = GatewayProcess::start(lab, &options);
        if gateway.is_ok() {
            report.step(format_args!("`wicketgate up`: one process, one public address {GATEWAY}"));
        }
        (gateway, services.join())
    });
    let gateway = gateway?;
    services.map_err(|_| anyhow!("starting the services panicked"))??;
    report.step(format_args!("private services: PostgreSQL on {DATABASE}:5432, a web server on {WEB}:80"));
    Ok(gateway)
}

/// Checks what an observer on the internet has seen.
fn on_the_wire(lab: &Lab, wire: Wire, report: &mut Report) -> Result<()> {
    report.step("on the wire between the sites and the gateway");
    let (esp_a, esp_b, inner) = (wire.esp(SITE_A)?, wire.esp(SITE_B)?, wire.inner()?);
    report.check(esp_a > 0, format_args!("{esp_a} ESP packets of site A"));
    report.check(esp_b > 0, format_args!("{esp_b} ESP packets of site B"));
    report.check(inner == 0, format_args!("{inner} cleartext packets with an inner address"));
    let (bytes, seen) = wire.search(lab, &[ROW, PAGE])?;
    let found = if seen.is_empty() { "none of the customers' data".to_owned() } else { seen.join(", ") };
    report.check(seen.is_empty(), format_args!("{found} in {bytes} captured bytes"));
    Ok(())
}

/// Checks that both customers' traffic is counted.
fn check_metrics(
    lab: &Lab,
    gateway: &GatewayProcess,
    customers: [&Customer; 2],
    report: &mut Report,
) -> Result<()> {
    report.step("metrics from the API");
    for customer in customers {
        let (rx, tx, connections) = metrics(lab, gateway, &customer.share)?;
        let name = customer.share["name"].as_str().unwrap_or_default();
        report.check(
            rx > 0 && tx > 0 && connections > 0,
            format_args!("share {name}: {rx} bytes in, {tx} bytes out, {connections} connection(s)"),
        );
    }
    Ok(())
}

/// A site's strongSwan, with exactly the configuration that the product generates.
fn site(lab: &Lab, gateway: &GatewayProcess, tunnel: &Value, mut site: Site) -> Result<Site> {
    let config = gateway.api.text(&gateway.at(&format!("{}/vpn-config?format=strongswan", path(tunnel))))?;
    site.start(lab, &config)?;
    site.connected(lab, TUNNEL_UP)?;
    Ok(site)
}

fn path(tunnel: &Value) -> String {
    format!("ipsec-tunnels/{}", tunnel["id"].as_str().unwrap_or_default())
}

fn answer(report: &mut Report, what: &str, got: Result<String>, wanted: &str) {
    match got {
        Ok(got) => report.check(got == wanted, format_args!("{what}: {got:?}")),
        Err(e) => report.check(false, format_args!("{what}: {e:#}")),
    }
}

/// Bytes in and out and connections over the last quarter of an hour, once they are there.
fn metrics(lab: &Lab, gateway: &GatewayProcess, share: &Value) -> Result<(u64, u64, u64)> {
    let id = share["id"].as_str().context("a share without an id")?;
    let path = format!("ipsec-shares/{id}/metrics?duration=15m");
    let sum = |m: &Value, key: &str| -> u64 {
        m["samples"].as_array().map_or(0, |s| s.iter().filter_map(|s| s[key].as_u64()).sum())
    };
    let seen = gateway.wait(lab, &path, "counting", METRICS, |m| sum(m, "rx") > 0 && sum(m, "tx") > 0)?;
    Ok((sum(&seen, "rx"), sum(&seen, "tx"), sum(&seen, "connections")))
}

//! Connections that must and must not be possible, each one tried.

use std::{
    net::{Ipv4Addr, SocketAddr},
    thread,
    time::Duration,
};

use anyhow::{Context, Result, anyhow};
use serde_json::Value;
use wicketgate_lab::{Namespace, Site};

use super::{
    network::{AGENT_PORT, API_PORT, DATABASE, GATEWAY, MANAGEMENT, Network, PRIVATE_ROUTER, WEB},
    report::Report,
};

/// A connection that is not there by then is refused or dropped: one that works takes a few milliseconds.
const TRY: Duration = Duration::from_secs(2);

/// A site and the share that is published to it.
pub(super) struct Customer {
    pub(super) name: &'static str,
    pub(super) site: Site,
    pub(super) load_balancer: Ipv4Addr,
    pub(super) share: Value,
}

impl Customer {
    pub(super) fn new(name: &'static str, site: Site, tunnel: &Value, share: Value) -> Result<Self> {
        let address = tunnel["loadBalancerIp"].as_str().and_then(|ip| ip.parse().ok());
        let load_balancer = address.context("the tunnel has no loadBalancerIp")?;
        Ok(Self { name, site, load_balancer, share })
    }
}

/// A TCP connection that is tried, and whether it should work.
struct Attempt<'a> {
    from: &'a Namespace,
    to: SocketAddr,
    open: bool,
    what: String,
}

pub(super) fn isolation<'a>(
    report: &mut Report,
    network: &'a Network,
    a: &'a Customer,
    b: &'a Customer,
    ingress: u16,
) -> Result<()> {
    let mut attempts = Vec::new();
    let mut attempt = |who: &str, from: &'a Namespace, to: (Ipv4Addr, u16), open: bool, what: &str| {
        attempts.push(Attempt { from, to: to.into(), open, what: format!("{who}: {what}") });
    };
    for (own, other) in [(a, b), (b, a)] {
        let (name, site) = (own.name, &own.site.namespace);
        // That the attempts below could succeed is shown by one that does, made in the same way.
        attempt(name, site, (own.load_balancer, ingress), true, "its own share");
        attempt(name, site, (other.load_balancer, ingress), false, "the other customer's share");
        attempt(name, site, (own.load_balancer, 22), false, "an unpublished port of its load balancer");
        attempt(name, site, (own.load_balancer, API_PORT), false, "the API, through its tunnel");
        attempt(name, site, (own.load_balancer, AGENT_PORT), false, "the agents' port, through its tunnel");
        attempt(name, site, (GATEWAY, API_PORT), false, "the API, at the gateway's public address");
        attempt(name, site, (MANAGEMENT, API_PORT), false, "the API, at the management address");
        attempt(name, site, (DATABASE, 5432), false, "the database itself");
        attempt(name, site, (WEB, 80), false, "the web server itself");
        attempt(name, site, (PRIVATE_ROUTER, 22), false, "the private network's router");
    }
    let (name, internet) = ("internet", &network.internet);
    attempt(name, internet, (GATEWAY, AGENT_PORT), true, "the agents' port, which is public");
    attempt(name, internet, (GATEWAY, API_PORT), false, "the API, at the gateway's public address");
    attempt(name, internet, (GATEWAY, ingress), false, "the shares' port, at the gateway's public address");
    attempt(name, internet, (PRIVATE_ROUTER, 5432), false, "the private network's router");

    thread::scope(|scope| {
        let tries = attempts.iter().map(|it| (it, scope.spawn(|| it.from.connect(it.to, TRY))));
        // All of them run before the first is waited for.
        for (attempt, result) in tries.collect::<Vec<_>>() {
            let result = result.join().map_err(|_| anyhow!("a check panicked"))?;
            let said = match &result {
                Ok(_) => "connected".to_owned(),
                Err(e) => e.root_cause().to_string(),
            };
            let what = format_args!("{}, {}: {said}", attempt.what, attempt.to);
            report.check(result.is_ok() == attempt.open, what);
        }
        Ok(())
    })
}

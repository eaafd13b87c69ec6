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

/// A site, and what was published to it.
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

pub(super) fn isolation(
    report: &mut Report,
    network: &Network,
    a: &Customer,
    b: &Customer,
    ingress: u16,
) -> Result<()> {
    let mut attempts = Vec::new();
    for (own, other) in [(a, b), (b, a)] {
        let mut attempt = |ip: Ipv4Addr, port: u16, open: bool, what: &str| {
            let what = format!("{}: {what}", own.name);
            attempts.push(Attempt { from: &own.site.namespace, to: (ip, port).into(), open, what });
        };
        // That the attempts below could succeed is shown by one that does, made in the same way.
        attempt(own.load_balancer, ingress, true, "its own share");
        attempt(other.load_balancer, ingress, false, "the other customer's share");
        attempt(own.load_balancer, 22, false, "an unpublished port of its load balancer");
        attempt(own.load_balancer, API_PORT, false, "the API, through its tunnel");
        attempt(own.load_balancer, AGENT_PORT, false, "the agents' port, through its tunnel");
        attempt(GATEWAY, API_PORT, false, "the API, at the gateway's public address");
        attempt(MANAGEMENT, API_PORT, false, "the API, at the management address");
        attempt(DATABASE, 5432, false, "the database itself");
        attempt(WEB, 80, false, "the web server itself");
        attempt(PRIVATE_ROUTER, 22, false, "the private network's router");
    }
    let internet = |ip: Ipv4Addr, port, open, what: &str| Attempt {
        from: &network.internet,
        to: (ip, port).into(),
        open,
        what: format!("internet: {what}"),
    };
    attempts.push(internet(GATEWAY, AGENT_PORT, true, "the agents' port, which is public"));
    attempts.push(internet(GATEWAY, API_PORT, false, "the API, at the gateway's public address"));
    attempts.push(internet(GATEWAY, ingress, false, "the shares' port, at the gateway's public address"));
    attempts.push(internet(PRIVATE_ROUTER, 5432, false, "the private network's router"));

    let results = thread::scope(|scope| {
        let tries: Vec<_> = attempts.iter().map(|t| scope.spawn(|| t.from.connect(t.to, TRY))).collect();
        tries
            .into_iter()
            .map(|t| t.join().map_err(|_| anyhow!("a check panicked")))
            .collect::<Result<Vec<_>>>()
    })?;
    for (attempt, result) in attempts.iter().zip(results) {
        let said = match &result {
            Ok(_) => "connected".to_owned(),
            Err(e) => e.root_cause().to_string(),
        };
        report
            .check(result.is_ok() == attempt.open, format_args!("{}, {}: {said}", attempt.what, attempt.to));
    }
    Ok(())
}

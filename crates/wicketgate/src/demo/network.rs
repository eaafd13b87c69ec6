//! The demo's networks: an internet, the gateway on it, two sites with the same subnet, and a private network that
//! lets nothing in.

use std::net::Ipv4Addr;

use anyhow::Result;
use wicketgate_lab::{End, Lab, Namespace};

/// The network of both sites, and their client's address in it: the same, on purpose.
pub(super) const SITE_CIDR: &str = "10.0.0.0/16";
pub(super) const SITE_CLIENT: Ipv4Addr = Ipv4Addr::new(10, 0, 0, 10);

/// Public addresses, out of the ranges for documentation (RFC 5737).
pub(super) const GATEWAY: Ipv4Addr = Ipv4Addr::new(198, 51, 100, 2);
pub(super) const SITE_A: Ipv4Addr = Ipv4Addr::new(203, 0, 113, 2);
pub(super) const SITE_B: Ipv4Addr = Ipv4Addr::new(192, 0, 2, 2);
pub(super) const PRIVATE_ROUTER: Ipv4Addr = Ipv4Addr::new(198, 18, 0, 2);

/// Inside the private network.
pub(super) const DATABASE: Ipv4Addr = Ipv4Addr::new(10, 20, 0, 20);
pub(super) const WEB: Ipv4Addr = Ipv4Addr::new(10, 20, 0, 30);

/// The gateway's address on the management network, which joins it to this host and is on no map of the internet
/// (out of RFC 2544's range, so that it does not overlap with a real network).
pub(super) const MANAGEMENT: Ipv4Addr = Ipv4Addr::new(198, 18, 255, 2);

pub(super) const API_PORT: u16 = 8080;
pub(super) const AGENT_PORT: u16 = 7443;

pub(super) struct Network {
    pub(super) internet: Namespace,
    pub(super) gateway: Namespace,
    pub(super) site_a: Namespace,
    pub(super) site_b: Namespace,
    pub(super) agent: Namespace,
    pub(super) database: Namespace,
    pub(super) web: Namespace,
}

impl Network {
    pub(super) fn make(lab: &Lab) -> Result<Self> {
        let this = Self {
            internet: lab.namespace("internet")?,
            gateway: lab.namespace("gw")?,
            site_a: lab.namespace("site-a")?,
            site_b: lab.namespace("site-b")?,
            agent: lab.namespace("agent")?,
            database: lab.namespace("db")?,
            web: lab.namespace("web")?,
        };
        let router = lab.namespace("router")?;

        this.internet.sysctl("net/ipv4/ip_forward", "1")?;
        for (namespace, interface, address) in [
            (&this.gateway, "gw", GATEWAY),
            (&this.site_a, "site-a", SITE_A),
            (&this.site_b, "site-b", SITE_B),
            (&router, "private", PRIVATE_ROUTER),
        ] {
            let [a, b, c, _] = address.octets();
            let hop = Ipv4Addr::new(a, b, c, 1);
            let (near, far) = (format!("{hop}/24"), format!("{address}/24"));
            Namespace::link(End(&this.internet, interface, &near), End(namespace, "wan", &far))?;
            namespace.ip(&format!("route add default via {hop}"))?;
        }

        // The private network: three hosts on a bridge, behind a router with NAT that accepts no connection from outside.
        router.ip("link add lan type bridge\naddr add 10.20.0.1/24 dev lan\nlink set dev lan up")?;
        router.sysctl("net/ipv4/ip_forward", "1")?;
        for (namespace, port, address) in [
            (&this.agent, "agent", Ipv4Addr::new(10, 20, 0, 10)),
            (&this.database, "db", DATABASE),
            (&this.web, "web", WEB),
        ] {
            Namespace::link(End(&router, port, ""), End(namespace, "eth0", &format!("{address}/24")))?;
            router.ip(&format!("link set dev {port} master lan"))?;
            namespace.ip("route add default via 10.20.0.1")?;
        }
        router.nft(include_str!("router.nft"))?;
        Ok(this)
    }

    /// Joins this host to the gateway's management address, so that the API can be used from a terminal.
    pub(super) fn join_host(&self, lab: &Lab) -> Result<()> {
        let [a, b, c, d] = MANAGEMENT.octets();
        let host = format!("{}/30", Ipv4Addr::new(a, b, c, d - 1));
        lab.join_host("wgdemo-host", &host, End(&self.gateway, "mgmt", &format!("{MANAGEMENT}/30")))
    }
}

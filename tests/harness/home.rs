//! A NAT router in front of a site, as in most installations: the site has a private address, and others see the
//! router's address.

use std::net::Ipv4Addr;

use anyhow::{Context as _, Result};
use wicketgate_lab::{End, Lab, Namespace};

/// The addresses of the router and of the site's device on the link between them.
const ROUTER: Ipv4Addr = Ipv4Addr::new(192, 168, 77, 1);
pub(crate) const DEVICE: Ipv4Addr = Ipv4Addr::new(192, 168, 77, 2);

/// The ports that the router assigns to flows from behind it: at first, and after [`Home::redial`].
pub(crate) const PORTS: [&str; 2] = ["20000-20999", "30000-30999"];

#[derive(Debug, Clone)]
pub(crate) struct Home {
    router: Namespace,
    internet: Namespace,
    /// The internet's interface to the router, and its address there.
    outside: String,
    hop: Ipv4Addr,
}

impl Home {
    /// Creates a device's namespace behind `router`, which is already linked to the internet, and returns it.
    pub(crate) fn furnish(
        lab: &Lab,
        name: &str,
        router: Namespace,
        internet: &Namespace,
        outside: &str,
        hop: Ipv4Addr,
    ) -> Result<(Self, Namespace)> {
        let device = lab.namespace(name)?;
        let (near, far) = (format!("{ROUTER}/24"), format!("{DEVICE}/24"));
        Namespace::link(End(&router, "lan", &near), End(&device, "wan", &far))?;
        device.ip(&format!("route add default via {ROUTER}"))?;
        router.sysctl("net/ipv4/ip_forward", "1")?;
        let home = Self { router, internet: internet.clone(), outside: outside.to_owned(), hop };
        home.translate(PORTS[0])?;
        Ok((home, device))
    }

    fn translate(&self, ports: &str) -> Result<()> {
        self.router.nft(&format!(
            "table ip home {{}}
             delete table ip home
             table ip home {{
               chain leave {{
                 type nat hook postrouting priority srcnat;
                 oifname wan meta l4proto udp masquerade to :{ports}
                 oifname wan masquerade
               }}
             }}"
        ))
    }

    /// Disconnects and reconnects the router's line. The router forgets every flow and assigns other ports.
    pub(crate) fn redial(&self) -> Result<()> {
        self.translate(PORTS[1])?;
        // The kernel forgets masqueraded flows when the interface goes down.
        self.router.ip("link set wan down")?;
        self.router.ip(&format!("link set wan up\nroute add default via {}", self.hop))
    }

    /// Sets the MTU of the router's line to `mtu` bytes.
    pub(crate) fn narrow(&self, mtu: u32) -> Result<()> {
        self.router.ip(&format!("link set wan mtu {mtu}"))?;
        self.internet.ip(&format!("link set {} mtu {mtu}", self.outside))
    }

    /// Makes both ends of the line drop their ICMP errors, so that neither reports that a packet was too large.
    pub(crate) fn keep_silent(&self) -> Result<()> {
        for end in [&self.router, &self.internet] {
            end.nft(
                "table ip silent {
                   chain output {
                     type filter hook output priority filter; policy accept;
                     icmp type destination-unreachable drop
                   }
                 }",
            )?;
        }
        Ok(())
    }

    /// The number of packets that were too large for the line since the router was created.
    pub(crate) fn too_large(&self) -> Result<u64> {
        let count = |end: &Namespace| -> Result<u64> {
            let counters = end.enter(|| std::fs::read_to_string("/proc/thread-self/net/snmp"))??;
            let mut ip = counters.lines().filter_map(|l| l.strip_prefix("Ip: ")).map(|l| l.split(' '));
            let (names, values) = ip.next().zip(ip.next()).context("no IP counters")?;
            let failed = names.zip(values).find(|(name, _)| *name == "FragFails");
            Ok(failed.map_or("0", |(_, value)| value).parse()?)
        };
        Ok(count(&self.router)? + count(&self.internet)?)
    }
}

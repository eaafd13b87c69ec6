//! What an observer on the internet sees: packets are counted by kind, and captured to be searched.

use std::{
    fs,
    net::Ipv4Addr,
    path::{Path, PathBuf},
    time::Duration,
};

use anyhow::{Context, Result, bail};

use crate::{lab::Lab, namespace::Namespace, process::Process};

/// For tcpdump to start and to end.
const BOUND: Duration = Duration::from_secs(30);

/// Bytes of each packet: more than an MTU. The kernel reserves as much for each packet that tcpdump has not read.
const SNAPSHOT: &str = "4096";
/// KiB for packets that tcpdump has not read. With the default, a few are enough to lose some on a slow machine.
const BUFFER: &str = "65536";

/// Stops watching with its lab.
#[derive(Debug)]
pub struct Wire {
    router: Namespace,
    sites: Vec<Ipv4Addr>,
    capture: PathBuf,
    tcpdump: Process,
}

impl Wire {
    /// Begins to watch, on a router that everything between the gateway and `sites` crosses. `inner` are the
    /// networks that may occur inside tunnels only.
    ///
    /// # Errors
    /// When the rules are refused, or tcpdump does not start.
    pub fn watch(lab: &Lab, router: &Namespace, sites: &[Ipv4Addr], inner: &str) -> Result<Self> {
        let mut counters = String::new();
        let mut rules = String::new();
        for site in sites {
            let name = counter(*site);
            counters += &format!("counter {name} {{ }}\n");
            // ESP alone (IP protocol 50), or in UDP on port 4500, where IKE has four zero octets in its place and a
            // keepalive is one octet long (RFC 3948 §2).
            for (address, port) in [("saddr", "dport"), ("daddr", "sport")] {
                let packet = format!("ip {address} {site}");
                rules += &format!("{packet} meta l4proto esp counter name {name}\n");
                rules +=
                    &format!("{packet} udp {port} 4500 udp length > 16 @th,64,32 != 0 counter name {name}\n");
            }
        }
        router.nft(&format!(
            "table ip wire {{
               {counters}counter inner {{ }}
               chain forward {{
                 type filter hook forward priority filter; policy accept;
                 {rules}ip saddr {{ {inner} }} counter name inner
                 ip daddr {{ {inner} }} counter name inner
               }}
             }}"
        ))?;
        let capture = lab.dir("wire")?.join("capture.pcap");
        let mut command = router.command("tcpdump");
        // Each packet once, and written as it arrives.
        command
            .args(["-Z", "root", "-i", "any", "-Q", "in", "--immediate-mode", "-U", "-n"])
            .args(["-s", SNAPSHOT, "-B", BUFFER, "-w"])
            .arg(&capture);
        let log = lab.dir("log")?.join("tcpdump.log");
        let mut tcpdump = Process::start(lab, "tcpdump", &mut command, &log)?;
        tcpdump.until(lab, "tcpdump listens", BOUND, |tcpdump| {
            Ok(tcpdump.said().contains("listening on").then_some(()))
        })?;
        Ok(Self { router: router.clone(), sites: sites.to_vec(), capture, tcpdump })
    }

    /// ESP packets from and to a site so far.
    ///
    /// # Errors
    /// When they can't be read.
    pub fn esp(&self, site: Ipv4Addr) -> Result<u64> {
        self.packets(&counter(site))
    }

    /// Packets with an inner address, in clear.
    ///
    /// # Errors
    /// When they can't be read.
    pub fn inner(&self) -> Result<u64> {
        self.packets("inner")
    }

    fn packets(&self, counter: &str) -> Result<u64> {
        let out = self.router.command("nft").args(["list", "counter", "ip", "wire", counter]).output()?;
        let said = String::from_utf8_lossy(&out.stdout);
        let mut words = said.split_whitespace().skip_while(|w| *w != "packets");
        match words.nth(1).and_then(|n| n.parse().ok()) {
            Some(packets) => Ok(packets),
            None => bail!("no count of {counter}: {}", String::from_utf8_lossy(&out.stderr).trim()),
        }
    }

    /// Stops capturing, and returns the number of captured bytes and which of `words` they contain.
    ///
    /// # Errors
    /// When ESP packets that were counted are missing, tcpdump does not end, or its file can't be read.
    pub fn search<'a>(mut self, lab: &Lab, words: &[&'a str]) -> Result<(usize, Vec<&'a str>)> {
        let counted = self.sites.iter().map(|site| self.esp(*site)).sum::<Result<u64>>()?;
        let (router, capture) = (&self.router, &self.capture);
        self.tcpdump.until(lab, &format!("the {counted} ESP packets are captured"), BOUND, |_| {
            Ok((captured(router, capture)? >= counted).then_some(()))
        })?;
        self.tcpdump.stop(BOUND)?;
        let seen = fs::read(&self.capture).context("can't read the capture")?;
        let holds = |word: &&&str| seen.windows(word.len()).any(|w| w == word.as_bytes());
        Ok((seen.len(), words.iter().filter(holds).copied().collect()))
    }
}

/// The ESP packets in a capture that may still grow.
fn captured(router: &Namespace, capture: &Path) -> Result<u64> {
    let mut reader = router.command("tcpdump");
    reader.args(["--count", "-n", "-r"]).arg(capture);
    // As the counters count them.
    reader.arg("ip proto 50 or (udp port 4500 and udp[4:2] > 16 and udp[8:4] != 0)");
    let said = String::from_utf8(reader.output()?.stdout)?;
    Ok(said.split_whitespace().next().and_then(|n| n.parse().ok()).unwrap_or(0))
}

fn counter(site: Ipv4Addr) -> String {
    format!("esp_{}", site.to_string().replace('.', "_"))
}

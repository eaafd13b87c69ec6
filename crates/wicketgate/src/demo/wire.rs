//! What an onlooker on the internet sees: packets counted by kind, and all of them kept to search for words.

use std::{fs, net::Ipv4Addr, path::PathBuf, time::Duration};

use anyhow::{Context, Result};
use wicketgate_lab::{Lab, Namespace, Process};

use super::{
    network::{SITE_A, SITE_B},
    targets::run,
};

/// For tcpdump to start and to end.
const BOUND: Duration = Duration::from_secs(10);

pub(super) struct Wire {
    internet: Namespace,
    capture: PathBuf,
    tcpdump: Process,
}

impl Wire {
    /// Begins to watch, on the router that everything crosses.
    pub(super) fn watch(lab: &Lab, internet: &Namespace) -> Result<Self> {
        // ESP alone (IP protocol 50), or in UDP on port 4500, where IKE has four zero octets in its place and a
        // keepalive is one octet long (RFC 3948 §2).
        let esp = |site: Ipv4Addr, counter: &str| {
            format!(
                "ip saddr {site} meta l4proto esp counter name {counter}\n\
                 ip daddr {site} meta l4proto esp counter name {counter}\n\
                 ip saddr {site} udp dport 4500 udp length > 16 @th,64,32 != 0 counter name {counter}\n\
                 ip daddr {site} udp sport 4500 udp length > 16 @th,64,32 != 0 counter name {counter}\n"
            )
        };
        internet.nft(&format!(
            "table ip demo {{
               counter esp_a {{ }}
               counter esp_b {{ }}
               counter inner {{ }}
               chain forward {{ type filter hook forward priority filter; policy accept;
                 {}{}
                 ip saddr {{ 10.0.0.0/8, 100.64.0.0/10 }} counter name inner
                 ip daddr {{ 10.0.0.0/8, 100.64.0.0/10 }} counter name inner
               }}
             }}",
            esp(SITE_A, "esp_a"),
            esp(SITE_B, "esp_b"),
        ))?;
        let capture = lab.dir("wire")?.join("capture.pcap");
        let mut command = internet.command("tcpdump");
        command.args(["-Z", "root", "-i", "any", "-s", "0", "-U", "-n", "-w"]).arg(&capture);
        let log = lab.dir("log")?.join("tcpdump.log");
        let mut tcpdump = Process::start(lab, "tcpdump", &mut command, &log)?;
        lab.until("tcpdump listens", BOUND, || {
            tcpdump.alive()?;
            Ok(tcpdump.said().contains("listening on").then_some(()))
        })?;
        Ok(Self { internet: internet.clone(), capture, tcpdump })
    }

    /// Packets so far: `esp_a`, `esp_b`, or `inner`, cleartext with an inner address.
    pub(super) fn packets(&self, counter: &str) -> Result<u64> {
        let said = run(self.internet.command("nft").args(["list", "counter", "ip", "demo", counter]))?;
        let mut words = said.split_whitespace().skip_while(|w| *w != "packets");
        words.nth(1).and_then(|n| n.parse().ok()).with_context(|| format!("no count in {said:?}"))
    }

    /// Stops watching, and says how many octets were kept and which of `words` is in them.
    pub(super) fn search<'a>(mut self, words: &[&'a str]) -> Result<(usize, Vec<&'a str>)> {
        self.tcpdump.stop(BOUND)?;
        let seen = fs::read(&self.capture).context("can't read the capture")?;
        let holds = |word: &&&str| seen.windows(word.len()).any(|w| w == word.as_bytes());
        Ok((seen.len(), words.iter().filter(holds).copied().collect()))
    }
}

//! The line between the networks: what the internet's router drops or changes.

use anyhow::{Context as _, Result};

use super::World;

impl World {
    /// Applies `rules` to the packets that the internet's router forwards, until [`World::restore`].
    pub(crate) fn filter(&self, rules: &str) -> Result<()> {
        self.internet.as_ref().context("no internet")?.nft(&format!(
            "table ip cut {{
               chain forward {{
                 type filter hook forward priority -10; policy accept;
                 {rules}
               }}
             }}"
        ))
    }

    /// Drops all packets between the router's `interface` and the rest, without an answer.
    pub(crate) fn cut(&self, interface: &str) -> Result<()> {
        self.filter(&format!("iifname {interface} drop\n oifname {interface} drop"))
    }

    pub(crate) fn restore(&self) -> Result<()> {
        self.internet.as_ref().context("no internet")?.nft("delete table ip cut")
    }
}

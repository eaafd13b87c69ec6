//! Counts connection attempts, also those that no program sees.

use anyhow::{Context as _, Result};
use wicketgate_lab::{Namespace, run};

/// The SYN packets that arrive at a port.
pub(crate) struct Attempts {
    namespace: Namespace,
    table: String,
}

impl Attempts {
    /// Begins to count those that arrive at `port` in the namespace, also from itself.
    pub(crate) fn at(namespace: &Namespace, port: u16) -> Result<Self> {
        let table = format!("attempts_{port}");
        namespace.nft(&format!(
            "table ip {table} {{ counter syn {{ }}\n chain input {{ type filter hook input priority filter;\n\
             tcp dport {port} tcp flags & (syn | ack) == syn counter name syn\n}}\n}}\n"
        ))?;
        Ok(Self { namespace: namespace.clone(), table })
    }

    pub(crate) fn so_far(&self) -> Result<u64> {
        let said = run(self.namespace.command("nft").args(["list", "counter", "ip", &self.table, "syn"]))?;
        let mut words = said.split_whitespace().skip_while(|word| *word != "packets");
        words.nth(1).and_then(|n| n.parse().ok()).with_context(|| format!("no counter: {said}"))
    }
}

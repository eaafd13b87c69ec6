//! `wicketgate explain`: what a reason or an error means, from the pages that the API links to. It asks no server.

use std::io::{self, Write as _};

use anyhow::{Context as _, Result};
use clap::Args;

#[derive(Debug, Args)]
pub(crate) struct Explain {
    /// Such as `PreSharedKeysDiffer` or `conflict`; all of them are listed if it is left out
    #[arg(value_name = "REASON")]
    reason: Option<String>,
}

impl Explain {
    pub(crate) fn run(self) -> Result<()> {
        let text = wicketgate_server::explained(self.reason.as_deref()).with_context(|| {
            format!(
                "there is no reason {}: `wicketgate explain` lists all",
                self.reason.as_deref().unwrap_or_default()
            )
        })?;
        match io::stdout().lock().write_all(text.as_bytes()) {
            // `wicketgate explain | head`
            Err(error) if error.kind() == io::ErrorKind::BrokenPipe => Ok(()),
            written => Ok(written?),
        }
    }
}

#[cfg(test)]
mod tests {
    #[test]
    fn a_reason_is_explained_without_a_server() {
        let text = wicketgate_server::explained(Some("agentrefused")).unwrap();
        assert!(text.starts_with("AgentRefused (") && text.contains("\nCure: "), "{text}");
        assert!(wicketgate_server::explained(Some("Nothing")).is_none());
        assert!(wicketgate_server::explained(None).unwrap().contains("\nPortInUse: "));
    }
}

//! Whether PostgreSQL keeps what it acknowledges.

use wicketgate_gateway::host_check::HostFinding;
use wicketgate_store::DurabilityRisk;

use crate::{database, up::Up};

const CHECK: &str = "database";

/// Of the database that `up` uses. Nothing of SQLite, which keeps it.
pub(super) async fn durability(up: &Up) -> Vec<HostFinding> {
    let url = match up.database.url() {
        Ok(None) => return Vec::new(),
        Ok(Some(url)) => url,
        Err(error) => return vec![HostFinding::warn(CHECK, format!("{error:#}"))],
    };
    match DurabilityRisk::read(&database::place(&up.data_dir, Some(&url))).await {
        Ok(risks) if risks.is_empty() => {
            vec![HostFinding::pass(
                CHECK,
                "PostgreSQL answers, and a commit is on its disk before it is acknowledged",
            )]
        }
        Ok(risks) => risks.into_iter().map(|risk| HostFinding::warn(CHECK, risk.to_string())).collect(),
        Err(error) => vec![HostFinding::warn(
            CHECK,
            format!("cannot tell whether it keeps what it acknowledges: {}", error.fault()),
        )],
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use clap::Parser as _;
    use wicketgate_gateway::host_check::HostVerdict;
    use wicketgate_lab::OwnPostgres;

    #[derive(clap::Parser)]
    struct Line {
        #[command(flatten)]
        up: Up,
    }

    async fn found(url: &str) -> Vec<(HostVerdict, String)> {
        let line = Line::parse_from(["up", "--database", url]);
        durability(&line.up).await.into_iter().map(|finding| (finding.verdict, finding.message)).collect()
    }

    #[tokio::test(flavor = "multi_thread")]
    async fn settings_by_which_acknowledged_writes_are_lost_are_warned_of() {
        assert!(durability(&Line::parse_from(["up"]).up).await.is_empty());
        let Some(mut server) = OwnPostgres::start().unwrap() else { return };
        server.set("fsync=on").unwrap();
        let good = found(&server.url).await;
        assert!(matches!(good.as_slice(), [(HostVerdict::Pass, _)]), "{good:?}");
        server.set("fsync=off\nsynchronous_commit=off").unwrap();
        let bad = found(&server.url).await;
        assert!(bad.iter().all(|(verdict, _)| *verdict == HostVerdict::Warn), "{bad:?}");
        assert!(
            bad[0].1.contains("set fsync = on") && bad[1].1.contains("set synchronous_commit = on"),
            "{bad:?}"
        );
        server.kill().unwrap();
        let gone = found(&server.url).await;
        assert!(matches!(gone.as_slice(), [(HostVerdict::Warn, _)]), "{gone:?}");
    }
}

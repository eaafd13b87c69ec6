//! Whether there is a backup that is young enough, as the database says.

use jiff::{SignedDuration, Timestamp};
use wicketgate_gateway::host_check::HostFinding;
use wicketgate_store::LastBackup;

use crate::{
    database::{self, GATEWAY_ID},
    up::Up,
};

const CHECK: &str = "backup";

/// What is lost with an older one is no longer known to anybody.
const OLD: SignedDuration = SignedDuration::from_hours(7 * 24);

/// Of the database that `up` uses.
pub(super) async fn last_backup(up: &Up) -> HostFinding {
    if up.data_dir.join(GATEWAY_ID).try_exists().is_ok_and(|exists| !exists) {
        return HostFinding::pass(CHECK, "there is nothing to back up yet");
    }
    match read(up).await {
        Ok(last) => judge(last.as_ref(), Timestamp::now()),
        Err(error) => HostFinding::warn(CHECK, format!("cannot tell when the last one was made: {error:#}")),
    }
}

async fn read(up: &Up) -> anyhow::Result<Option<LastBackup>> {
    let url = up.database.url()?;
    database::check(&up.data_dir, url.as_ref())?;
    Ok(LastBackup::read(&database::place(&up.data_dir, url.as_ref())).await?)
}

fn judge(last: Option<&LastBackup>, now: Timestamp) -> HostFinding {
    let Some(LastBackup { created_at, bytes, .. }) = last else {
        return HostFinding::warn(
            CHECK,
            "none was made since the database was set up or restored: run `wicketgate backup FILE`, and keep a copy elsewhere",
        );
    };
    if now.duration_since(*created_at) > OLD {
        return HostFinding::warn(
            CHECK,
            format!(
                "the last one is of {created_at:.0}, more than {} days old: run `wicketgate backup FILE`",
                OLD.as_hours() / 24
            ),
        );
    }
    HostFinding::pass(CHECK, format!("the last one is of {created_at:.0}, {} KiB", bytes.div_ceil(1024)))
}

#[cfg(test)]
mod tests {
    use super::*;
    use wicketgate_gateway::host_check::HostVerdict;

    #[test]
    fn a_backup_of_more_than_a_week_is_old() {
        let now: Timestamp = "2026-11-30T12:00:00Z".parse().unwrap();
        let of = |age| LastBackup { created_at: now - age, bytes: 2049, version: "1".to_owned() };
        let young = judge(Some(&of(OLD)), now);
        assert_eq!(
            (young.verdict, young.message.as_str()),
            (HostVerdict::Pass, "the last one is of 2026-11-23T12:00:00Z, 3 KiB")
        );
        let old = judge(Some(&of(OLD + SignedDuration::from_secs(1))), now);
        assert!(old.verdict == HostVerdict::Warn && old.message.contains("7 days old"), "{}", old.message);
        let none = judge(None, now);
        assert!(none.verdict == HostVerdict::Warn && none.message.contains("wicketgate backup"));
    }
}

//! `wicketgate doctor`: whether this host can run a gateway. It changes nothing, and may run beside `up`.

mod backup;
mod durability;
mod ports;

use std::{
    io::{self, Write as _},
    os::unix::fs::MetadataExt as _,
    path::Path,
    time::Duration,
};

use anyhow::bail;
use clap::{Args, ValueEnum};
use serde_json::json;
use tokio::{process::Command, time::timeout};
use wicketgate_gateway::host_check::{HostFinding, HostVerdict, host_check};

use crate::up::Up;
use backup::last_backup;
use durability::durability;
use ports::ServedPort;

/// `timedatectl` asks a service over the bus, which may have to be started.
const CLOCK_TOLD_WITHIN: Duration = Duration::from_secs(5);

/// Free bytes in the data directory's file system: for some thousand shares and a month of metrics, and for a start at all.
const PLENTY: u64 = 1 << 30;
const LEAST: u64 = 64 << 20;

#[derive(Debug, Args)]
pub(crate) struct Doctor {
    #[command(flatten)]
    up: Up,
    /// The form of the report.
    #[arg(short, long, value_name = "table|json", default_value = "table", hide_possible_values = true)]
    output: ReportForm,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
enum ReportForm {
    Table,
    Json,
}

impl Doctor {
    pub(crate) async fn run(self) -> anyhow::Result<()> {
        let Up { server, gateway, data_dir, .. } = &self.up;
        let mut findings = vec![settings(self.up.config.as_deref())];
        findings.extend(host_check(gateway.ipsec, gateway.public_address).await);
        findings.extend([clock().await, data_directory(data_dir), last_backup(&self.up).await]);
        findings.extend(durability(&self.up).await);
        let api = ServedPort { check: "api-port", address: server.listen, flag: "--listen" };
        let agents =
            ServedPort { check: "agent-port", address: gateway.agent_listen, flag: "--agent-listen" };
        findings.extend([api, agents].map(|port| port.judge(data_dir)));
        io::stdout().lock().write_all(report(&findings, self.output).as_bytes())?;
        match findings.iter().filter(|finding| finding.verdict == HostVerdict::Fail).count() {
            0 => Ok(()),
            1 => bail!("a check failed"),
            failed => bail!("{failed} checks failed"),
        }
    }
}

fn report(findings: &[HostFinding], form: ReportForm) -> String {
    match form {
        ReportForm::Table => {
            let line = |finding: &HostFinding| {
                format!("{}  {:<14}  {}\n", finding.verdict, finding.check, finding.message)
            };
            findings.iter().map(line).collect()
        }
        ReportForm::Json => {
            let line = |finding: &HostFinding| json!({"check": finding.check, "result": finding.verdict.to_string(), "message": finding.message});
            format!("{:#}\n", json!({"checks": findings.iter().map(line).collect::<Vec<_>>()}))
        }
    }
}

/// What the other checks are about.
fn settings(file: Option<&Path>) -> HostFinding {
    HostFinding::pass(
        "settings",
        match file {
            Some(file) => format!("those of {}, and of the command line", file.display()),
            None => "those of the command line, and defaults: no file is named".to_owned(),
        },
    )
}

/// Certificates and tokens are judged by the clock.
async fn clock() -> HostFinding {
    let check = "clock";
    let asked = Command::new("timedatectl")
        .args(["show", "-p", "NTPSynchronized", "--value"])
        .kill_on_drop(true)
        .output();
    let answer = match timeout(CLOCK_TOLD_WITHIN, asked).await {
        Ok(Ok(output)) if output.status.success() => {
            String::from_utf8_lossy(&output.stdout).trim().to_owned()
        }
        _ => "unknown".to_owned(),
    };
    match answer.as_str() {
        "yes" => HostFinding::pass(check, "synchronised"),
        "no" => HostFinding::warn(
            check,
            "not synchronised: agents refuse a gateway whose clock is wrong; run an NTP client, such as systemd-timesyncd",
        ),
        _ => HostFinding::warn(
            check,
            "timedatectl does not tell whether it is synchronised: see to it that it is",
        ),
    }
}

/// Looks at the directory, or at the nearest one above it if it does not exist yet.
fn data_directory(path: &Path) -> HostFinding {
    let check = "data-directory";
    let shown = path.display();
    let Some((found, metadata)) = path.ancestors().find_map(|it| Some((it, it.metadata().ok()?))) else {
        return HostFinding::fail(
            check,
            format!("{shown} is below no directory: choose another with --data-dir"),
        );
    };
    let free = match rustix::fs::statvfs(found) {
        Ok(volume) => volume.f_bavail.saturating_mul(volume.f_frsize),
        Err(error) => {
            return HostFinding::fail(check, format!("cannot see the free space of {shown}: {error}"));
        }
    };
    let is_there = found == path;
    let mebibytes = free >> 20;
    if !metadata.is_dir() {
        HostFinding::fail(
            check,
            format!("{} is no directory: choose another with --data-dir", found.display()),
        )
    } else if let Err(error) = rustix::fs::access(found, rustix::fs::Access::WRITE_OK) {
        HostFinding::fail(check, format!("{} cannot be written ({error}): run as its owner", found.display()))
    } else if is_there && metadata.uid() != rustix::process::geteuid().as_raw() {
        let owner = metadata.uid();
        HostFinding::fail(
            check,
            format!(
                "{shown} belongs to the user with the number {owner}, and `up` serves a directory of its own user only"
            ),
        )
    } else if free < LEAST {
        HostFinding::fail(check, format!("{mebibytes} MiB are free for {shown}: free some space"))
    } else if is_there && metadata.mode() & 0o077 != 0 {
        HostFinding::warn(check, format!("other users can read {shown}, which holds keys: chmod 700 {shown}"))
    } else if free < PLENTY {
        HostFinding::warn(check, format!("only {mebibytes} MiB are free for {shown}: the database grows"))
    } else {
        let state = if is_there { "private" } else { "created by the first start" };
        HostFinding::pass(check, format!("{shown}: {state}, {mebibytes} MiB free"))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::unix::fs::PermissionsExt as _;

    #[test]
    fn a_data_directory_that_others_can_read_is_reported() {
        let dir = tempfile::tempdir().unwrap();
        let verdict = |path: &Path| data_directory(path).verdict;
        assert_ne!(verdict(&dir.path().join("new/one")), HostVerdict::Fail);
        let set = |mode| std::fs::set_permissions(dir.path(), std::fs::Permissions::from_mode(mode)).unwrap();
        set(0o755);
        let found = data_directory(dir.path());
        assert!(
            found.verdict == HostVerdict::Warn && found.message.contains("chmod 700"),
            "{}",
            found.message
        );
        set(0o700);
        assert!(!data_directory(dir.path()).message.contains("chmod"));
        let file = dir.path().join("file");
        std::fs::write(&file, "").unwrap();
        assert_eq!((verdict(&file), verdict(&file.join("below"))), (HostVerdict::Fail, HostVerdict::Fail));
    }

    #[test]
    fn a_report_is_a_table_and_json() {
        let findings = [HostFinding::pass("clock", "synchronised"), HostFinding::fail("esp", "none")];
        let table = "PASS  clock           synchronised\nFAIL  esp             none\n";
        assert_eq!(report(&findings, ReportForm::Table), table);
        let json: serde_json::Value = serde_json::from_str(&report(&findings, ReportForm::Json)).unwrap();
        assert_eq!(
            (&json["checks"][1]["check"], &json["checks"][1]["result"]),
            (&"esp".into(), &"FAIL".into())
        );
    }
}

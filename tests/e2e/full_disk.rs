//! A start on a full disk, in a mount namespace of its own, with a small file system for the data directory.

use std::process::Stdio;

use anyhow::{Context as _, Result, ensure};

use super::startup_errors::{BOUND, one_line, up};
use crate::harness::{lab, wicketgate_executable};

#[test]
fn a_start_on_a_full_disk_says_so_once() -> Result<()> {
    let lab = lab()?;
    let (namespace, data) = (lab.namespace("gw")?, lab.dir("data")?);
    let data = data.display().to_string();
    let program = wicketgate_executable();
    let own = format!("{data}/up");
    let flags = up(&own, "off").join(" ");
    let script = |free: u32| {
        format!(
            "mount -t tmpfs -o size=16m none {data} || exit 77\n\
             timeout 6 \"$0\" {flags} >{data}/log 2>&1\n\
             test -s {own}/wicketgate.db || exit 78\n\
             cat /dev/zero >{data}/fill 2>/dev/null\n\
             truncate -s -{free} {data}/fill\n\
             exec timeout -k 5 {BOUND} \"$0\" {flags}"
        )
    };
    // There is room for nothing, or for less than the journal's index.
    for free in [0, 8192] {
        let (script, words) = (script(free), ["the database's disk is full: free space on it"]);
        let mut command = namespace.command("timeout");
        command.args(["-k", "5", "40", "unshare", "--mount", "sh", "-c", &script]).arg(program);
        let out = command.env("RUST_LOG", "error").stdin(Stdio::null()).output()?;
        one_line(&out, &words).with_context(|| format!("{free} bytes are free"))?;
        ensure!(!String::from_utf8_lossy(&out.stderr).contains("code:"), "{out:?}");
    }
    Ok(())
}

//! Requests that the document allows, and others, made by schemathesis at a running server, whose every answer is held
//! against the document; see `tests/schemathesis`.

use std::{
    fs,
    io::Write as _,
    path::{Path, PathBuf},
    process::{Command, Stdio},
    time::{Duration, Instant},
};

use anyhow::{Context as _, Result, bail, ensure};
use serde_json::Value;

use crate::harness::{World, text};

/// The fewest requests of a run that proves something.
const LEAST: u64 = 2000;
/// The bound of one run: then it is stopped, and its current request ends. On a machine that has nothing else to
/// do, one run makes far more than is wanted; every run comes to all of its phases.
const BUDGET: Duration = Duration::from_secs(75);
const BOUND: Duration = Duration::from_secs(240);
/// The same requests for every change. One run makes enough of them, unless the machine is busy with much else.
const SEEDS: [u32; 4] = [20_260_101, 20_260_102, 20_260_103, 20_260_104];

#[test]
fn every_answer_is_as_the_document_says() -> Result<()> {
    let sources = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../tests/schemathesis");
    let schemathesis = installed(&sources.join("requirements.txt"))?;
    let world = World::loopback().log("warn").start()?;
    let (_agent, zid) = world.agent("agent")?;
    let environment = world.gateway.list("environments")?.first().cloned().context("no environment")?;
    let tunnel = world.gateway.tunnel(&world.lab, "kept", World::peer(0), "172.31.0.0/16")?;

    let token = fs::read_to_string(world.gateway.data.join("admin.token"))?;
    let here = world.lab.dir("schemathesis")?;
    let mut cases = 0;
    for seed in SEEDS {
        let mut command = world.outside.command(&schemathesis.display().to_string());
        command
            // Not as an argument, which everybody on the machine can read.
            .env("TOKEN", token.trim())
            .env("FRONTDOOR", world.gateway.frontdoor.trim_start_matches("/frontdoor/v2/"))
            .env("TUNNEL", text(&tunnel, "id")?)
            .env("ENVIRONMENT", text(&environment, "id")?)
            .env("Z_ID", &zid)
            .env("HOOKS", sources.join("hooks.py"))
            .env("PYTHONDONTWRITEBYTECODE", "1")
            .arg("--config-file")
            .arg(sources.join("schemathesis.toml"))
            .args(["run", &format!("{}/openapi.json", world.url()), "--seed", &seed.to_string()]);
        cases += tried(command, &here)?;
        if cases >= LEAST {
            break;
        }
    }
    // Past what captures the output of a test that passed.
    writeln!(std::io::stderr(), "schemathesis: {cases} cases, all answered as the document says")?;
    ensure!(cases >= LEAST, "{cases} cases only, {LEAST} are wanted");
    world.end()
}

/// Runs it to its end, and answers how many requests it made.
fn tried(mut command: Command, here: &Path) -> Result<u64> {
    let (report, said) = (here.join("report.json"), here.join("said"));
    let mut run = command
        .current_dir(here)
        .args(["--max-time", &BUDGET.as_secs().to_string(), "--report", "json", "--report-json-path"])
        .arg(&report)
        .stdin(Stdio::null())
        .stdout(fs::File::create(&said)?)
        .stderr(fs::File::options().append(true).open(&said)?)
        .spawn()
        .context("can't start schemathesis")?;
    let end = Instant::now() + BOUND;
    let status = loop {
        match run.try_wait()? {
            Some(status) => break status,
            None if Instant::now() > end => {
                run.kill()?;
                run.wait()?;
                bail!("schemathesis does not end\n{}", fs::read_to_string(&said)?);
            }
            None => std::thread::sleep(Duration::from_millis(100)),
        }
    };
    ensure!(status.success(), "schemathesis: {status}\n{}", fs::read_to_string(&said)?);
    let report: Value = serde_json::from_slice(&fs::read(&report)?)?;
    report["test_cases"]["generated"].as_u64().context("a report without its number of cases")
}

/// `st`, from PyPI, in an environment of its own below the target directory, as `requirements` pins it.
fn installed(requirements: &Path) -> Result<PathBuf> {
    let venv = Path::new(env!("CARGO_TARGET_TMPDIR")).join("schemathesis");
    let (kept, st) = (venv.join("requirements.txt"), venv.join("bin/st"));
    let wanted = fs::read(requirements)?;
    let one = fs::File::create(venv.with_extension("lock"))?;
    one.lock()?;
    if fs::read(&kept).is_ok_and(|kept| kept == wanted) {
        return Ok(st);
    }
    run(Command::new("python3").args(["-m", "venv", "--clear"]).arg(&venv))
        .context("this test needs Python 3 with venv (Debian's python3-venv)")?;
    run(Command::new(venv.join("bin/pip")).args(["install", "--quiet", "--requirement"]).arg(requirements))
        .context("pip could not install schemathesis: is its index out of reach?")?;
    fs::write(kept, wanted)?;
    Ok(st)
}

fn run(command: &mut Command) -> Result<()> {
    let out = command.stdin(Stdio::null()).output()?;
    ensure!(out.status.success(), "{}: {}", out.status, String::from_utf8_lossy(&out.stderr));
    Ok(())
}

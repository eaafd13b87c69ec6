//! Runs schemathesis against a running server: it sends valid and invalid requests and checks every answer against the
//! OpenAPI document; see `tests/schemathesis`.

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

/// The fewest requests of a meaningful run.
const LEAST: u64 = 2000;
/// The time after which schemathesis ends a run by itself, after its current request. On an idle machine, one run makes
/// far more than [`LEAST`] requests. Every run completes all its phases.
const BUDGET: Duration = Duration::from_secs(75);
/// The time after which the test kills a run that does not end.
const BOUND: Duration = Duration::from_secs(240);
/// Fixed seeds, so that every change is tested with the same requests. One run makes enough requests, unless the
/// machine is busy.
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
            // The token is not an argument, because every user of the machine can read arguments.
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
    // Writes directly to stderr: the output of a passing test is captured otherwise.
    writeln!(std::io::stderr(), "schemathesis: {cases} cases, all answers match the document")?;
    ensure!(cases >= LEAST, "only {cases} cases; at least {LEAST} are required");
    world.end()
}

/// Runs schemathesis to its end and returns the number of its requests.
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
        .context("cannot start schemathesis")?;
    let end = Instant::now() + BOUND;
    let status = loop {
        match run.try_wait()? {
            Some(status) => break status,
            None if Instant::now() > end => {
                run.kill()?;
                run.wait()?;
                bail!("schemathesis did not end\n{}", fs::read_to_string(&said)?);
            }
            None => std::thread::sleep(Duration::from_millis(100)),
        }
    };
    ensure!(status.success(), "schemathesis: {status}\n{}", fs::read_to_string(&said)?);
    let report: Value = serde_json::from_slice(&fs::read(&report)?)?;
    report["test_cases"]["generated"].as_u64().context("the report has no number of cases")
}

/// Installs schemathesis from PyPI into a virtual environment below the target directory, with the versions that
/// `requirements` pins. Returns the path of its executable, `st`.
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
        .context("pip cannot install schemathesis: check that its package index is reachable")?;
    fs::write(kept, wanted)?;
    Ok(st)
}

fn run(command: &mut Command) -> Result<()> {
    let out = command.stdin(Stdio::null()).output()?;
    ensure!(out.status.success(), "{}: {}", out.status, String::from_utf8_lossy(&out.stderr));
    Ok(())
}

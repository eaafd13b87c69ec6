//! Runs a program that uses a client generated from `docs/openapi.json` by a public generator; see `tests/client`.

use std::{
    fs::File,
    path::Path,
    process::{Output, Stdio},
};

use anyhow::{Context as _, Result, ensure};
use wicketgate_lab::npm;

use crate::harness::World;

#[test]
fn a_generated_client_makes_changes_and_removes_a_share() -> Result<()> {
    let client = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../tests/client");
    npm::install(&client, Some("build")).context("the generated client does not compile")?;
    let world = World::loopback().start()?;
    let (_agent, _) = world.agent("agent")?;
    let mut command = world.outside.command("node");
    command.arg(client.join("dist/client.js")).arg(world.url());
    let token = File::open(world.gateway.data.join("admin.token"))?;
    let Output { status, stdout, stderr } =
        command.stdin(token).stdout(Stdio::piped()).stderr(Stdio::piped()).output()?;
    let said = [stdout, stderr].map(|b| String::from_utf8_lossy(&b).into_owned()).concat();
    ensure!(status.success(), "the client: {status}\n{said}\n{}", world.gateway.process.tail());
    world.end()
}

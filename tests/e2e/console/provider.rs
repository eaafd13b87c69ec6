//! The identity provider of `tests/oidc` beside the server, with the web console as its client.

use std::{
    fs,
    io::{BufRead as _, BufReader, Write as _},
    os::unix::fs::PermissionsExt as _,
    path::PathBuf,
    process::{Child, Stdio},
    sync::mpsc,
    thread,
};

use anyhow::{Context as _, Result};
use serde_json::{Value, json};
use wicketgate_lab::npm;

use crate::harness::{PATIENCE, World, text};

/// As in `provider.mjs`.
const AUDIENCE: &str = "https://wicketgate.example/ES256";
const SECRET: &str = "the-secret-of-a-console-in-a-test";

pub(super) struct IdentityProvider(Child);

impl IdentityProvider {
    /// Starts it, and the server again as its client.
    pub(super) fn start(world: &mut World) -> Result<Self> {
        let sources = PathBuf::from(concat!(env!("CARGO_MANIFEST_DIR"), "/../../tests/oidc"));
        npm::install(&sources, None)?;
        let mut command = world.outside.command("node");
        command.arg("provider.mjs").current_dir(&sources);
        command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::null());
        let mut provider = Self(command.spawn().context("no node")?);
        let output = BufReader::new(provider.0.stdout.take().context("no output")?);
        let (send, answers) = mpsc::channel();
        thread::spawn(move || output.lines().map_while(Result::ok).try_for_each(|line| send.send(line)));
        let answer = || Ok::<Value, anyhow::Error>(serde_json::from_str(&answers.recv_timeout(PATIENCE)?)?);
        let started = answer().context("the identity provider does not start")?;
        let redirect = world.url() + "/console/callback";
        let input = provider.0.stdin.as_mut().context("no input")?;
        writeln!(input, "{}", json!({"do": "client", "redirect": redirect}))?;
        answer().context("the identity provider takes no client")?;

        let secret = world.lab.dir("provider")?.join("secret");
        fs::write(&secret, SECRET)?;
        fs::set_permissions(&secret, fs::Permissions::from_mode(0o600))?;
        world.gateway.process.stop(PATIENCE)?;
        world.restart_with(&format!(
            "--oidc-issuer {} --oidc-audience {AUDIENCE} --oidc-client-id the-console \
             --oidc-client-secret-file {} --oidc-client-parameter resource={AUDIENCE}",
            text(&started, "issuer")?,
            secret.display()
        ))?;
        Ok(provider)
    }
}

impl Drop for IdentityProvider {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

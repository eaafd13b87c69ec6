//! The product's server and gateway in processes of their own: what `wicketgate up` has together.

use std::{
    fs,
    net::{IpAddr, Ipv4Addr, SocketAddr},
    time::Duration,
};

use anyhow::{Context as _, Result};
use serde_json::json;
use wicketgate_system::private_file;

use crate::{
    api::Api,
    lab::Lab,
    ledger::Entry,
    process::Process,
    product::{GatewayOptions, GatewayProcess},
};

/// Where gateways link to a server.
const LINK: SocketAddr = SocketAddr::new(IpAddr::V4(Ipv4Addr::LOCALHOST), 8444);
/// From start to the first answer of the API.
const START: Duration = Duration::from_secs(30);

/// Starts `wicketgate server` on a PostgreSQL database, and waits for its API. Started again in the same lab, it has its data.
///
/// # Errors
/// When it ends or does not answer, with the end of its log.
pub fn start_server(lab: &Lab, options: &GatewayOptions<'_>, database: &str) -> Result<GatewayProcess> {
    let data = lab.path("server");
    let mut command = options.namespace.command(&options.executable.display().to_string());
    command
        .env("RUST_LOG", options.log)
        .env("WICKETGATE_DATABASE", database)
        .arg("server")
        .args(["--data-dir".as_ref(), data.as_os_str()])
        .args(["--listen", &options.listen.to_string(), "--link-listen", &LINK.to_string()]);
    let log = lab.dir("log")?.join("server.log");
    let mut process = Process::start(lab, "wicketgate server", &mut command, &log)?;
    let token = data.join("admin.token");
    let (api, frontdoor) = process.until(lab, "wicketgate server answers", START, |_| {
        let api = Api::new(options.namespace, options.listen, &token)?;
        let frontdoors = api.get("/frontdoor/v2")?;
        let frontdoor = frontdoors["content"][0]["id"].as_str().map(|id| format!("/frontdoor/v2/{id}"));
        Ok(frontdoor.map(|frontdoor| (api, frontdoor)))
    })?;
    Ok(GatewayProcess { process, api, frontdoor, data })
}

/// Starts `wicketgate gateway`, which joins with a fresh token of the server at its first start.
///
/// # Errors
/// When the server refuses, or it can't be started.
pub fn start_gateway(
    lab: &Lab,
    options: &GatewayOptions<'_>,
    server: Option<&GatewayProcess>,
) -> Result<Process> {
    let state = lab.path("gateway");
    let executable = options.executable.to_owned();
    let namespace = options.namespace.name().to_owned();
    lab.ledger().add(&Entry::GatewayRole { executable, namespace, state: state.clone() })?;
    let mut command = options.namespace.command(&options.executable.display().to_string());
    command
        .env("RUST_LOG", options.log)
        .arg("gateway")
        .args(["--state-dir".as_ref(), state.as_os_str()])
        .args(["--server", &LINK.to_string()])
        .args(["--agent-listen", &options.agent_listen.to_string(), "--ipsec", options.ipsec]);
    if let Some(address) = options.public_address {
        command.args(["--public-address", &address.to_string()]);
    }
    if let Some(server) = server {
        let made = server.api.post("/frontdoor/v2/gateways/join-tokens", &json!({"locationId": "local"}))?;
        let file = lab.dir("tokens")?.join("gateway");
        private_file::replace(&file, made["joinToken"].as_str().context("no joinToken")?.as_bytes())?;
        command.args(["--join-token-file".as_ref(), file.as_os_str()]);
    }
    let log = lab.dir("log")?.join("gateway.log");
    let mut process = Process::start(lab, "wicketgate gateway", &mut command, &log)?;
    let joined = state.join("gateway.json");
    process.until(lab, "the gateway has joined", START, |_| Ok(fs::metadata(&joined).ok().map(drop)))?;
    Ok(process)
}

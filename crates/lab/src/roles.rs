//! The product's server and gateway in processes of their own: what `wicketgate up` has together.

use std::{
    fs,
    net::{Ipv4Addr, SocketAddr},
    path::PathBuf,
    process::Command,
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

/// Where gateways link to the first server. The ports of the others follow.
const LINK: u16 = 8444;
/// From start to the first answer of the API.
const START: Duration = Duration::from_secs(30);

/// Where gateways link to the server with this number.
fn link_of(nth: u16) -> SocketAddr {
    (Ipv4Addr::LOCALHOST, LINK + nth).into()
}

/// Where the server with this number has its data.
fn data_of(lab: &Lab, nth: u16) -> PathBuf {
    lab.path(&format!("server-{nth}"))
}

/// The command that starts `wicketgate server` on a PostgreSQL database, as number `nth` of the lab, from 0. Its ports are `nth` higher
/// than those of the options. All have the secret key of the first.
///
/// # Errors
/// When the secret key can't be copied.
pub fn server_command(lab: &Lab, options: &GatewayOptions<'_>, database: &str, nth: u16) -> Result<Command> {
    let (data, key) = (data_of(lab, nth), "secret-key");
    if nth > 0 && !data.exists() {
        private_file::private_dir(&data)?;
        private_file::replace(&data.join(key), &fs::read(data_of(lab, 0).join(key))?)?;
    }
    let mut command = options.namespace.command(&options.executable.display().to_string());
    let listen = SocketAddr::new(options.listen.ip(), options.listen.port() + nth);
    command
        .env("RUST_LOG", options.log)
        .env("WICKETGATE_DATABASE", database)
        .arg("server")
        .args(["--data-dir".as_ref(), data.as_os_str()])
        .args(["--listen", &listen.to_string(), "--link-listen", &link_of(nth).to_string()]);
    Ok(command)
}

/// Starts it, and waits for its API. Started again in the same lab, it has its data. The first server has made the admin token.
///
/// # Errors
/// When it ends or does not answer, with the end of its log.
pub fn start_server(
    lab: &Lab,
    options: &GatewayOptions<'_>,
    database: &str,
    nth: u16,
) -> Result<GatewayProcess> {
    let mut command = server_command(lab, options, database, nth)?;
    let log = lab.dir("log")?.join(format!("server-{nth}.log"));
    let name = format!("wicketgate server {nth}");
    let mut process = Process::start(lab, &name, &mut command, &log)?;
    let token = data_of(lab, 0).join("admin.token");
    let listen = SocketAddr::new(options.listen.ip(), options.listen.port() + nth);
    let (api, frontdoor) = process.until(lab, "the server answers", START, |_| {
        let api = Api::new(options.namespace, listen, &token)?;
        let frontdoors = api.get("/frontdoor/v2")?;
        let frontdoor = frontdoors["content"][0]["id"].as_str().map(|id| format!("/frontdoor/v2/{id}"));
        Ok(frontdoor.map(|frontdoor| (api, frontdoor)))
    })?;
    Ok(GatewayProcess { process, api, frontdoor, data: data_of(lab, nth) })
}

/// Which gateway it is.
#[derive(Debug, Clone, Copy)]
pub struct GatewayPlace<'a> {
    /// From 0. Its port for agents is so much higher than that of the options.
    pub nth: u16,
    pub location: &'a str,
}

impl GatewayPlace<'_> {
    /// The first one.
    pub const FIRST: GatewayPlace<'static> = GatewayPlace { nth: 0, location: "local" };

    /// The name of its state directory and its files.
    fn name(self) -> String {
        if self.nth == 0 { "gateway".to_owned() } else { format!("gateway-{}", self.nth) }
    }
}

/// Starts `wicketgate gateway`, which joins with a fresh token of the server at its first start.
///
/// # Errors
/// When the server refuses, or it can't be started.
pub fn start_gateway(
    lab: &Lab,
    options: &GatewayOptions<'_>,
    place: GatewayPlace<'_>,
    server: Option<&GatewayProcess>,
) -> Result<Process> {
    let (name, state) = (place.name(), lab.path(&place.name()));
    let agents = SocketAddr::new(options.agent_listen.ip(), options.agent_listen.port() + place.nth);
    let executable = options.executable.to_owned();
    let namespace = options.namespace.name().to_owned();
    lab.ledger().add(&Entry::GatewayRole { executable, namespace, state: state.clone() })?;
    let mut command = options.namespace.command(&options.executable.display().to_string());
    command
        .env("RUST_LOG", options.log)
        .arg("gateway")
        .args(["--state-dir".as_ref(), state.as_os_str()])
        .args(["--server", &link_of(0).to_string()])
        .args(["--agent-listen", &agents.to_string(), "--ipsec", options.ipsec]);
    if let Some(address) = options.public_address {
        command.args(["--public-address", &address.to_string()]);
    }
    if let Some(server) = server {
        let asked = json!({"locationId": place.location});
        let made = server.api.post("/frontdoor/v2/gateways/join-tokens", &asked)?;
        let file = lab.dir("tokens")?.join(&name);
        private_file::replace(&file, made["joinToken"].as_str().context("no joinToken")?.as_bytes())?;
        command.args(["--join-token-file".as_ref(), file.as_os_str()]);
    }
    let log = lab.dir("log")?.join(format!("{name}.log"));
    let mut process = Process::start(lab, "wicketgate gateway", &mut command, &log)?;
    let joined = state.join("gateway.json");
    process.until(lab, "the gateway has joined", START, |_| Ok(fs::metadata(&joined).ok().map(drop)))?;
    Ok(process)
}

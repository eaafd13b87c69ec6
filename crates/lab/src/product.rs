//! The product's own processes in a lab: `wicketgate up` in a gateway's namespace, agents in others.

use std::{
    net::{Ipv4Addr, SocketAddr},
    path::{Path, PathBuf},
    process::Command,
    time::Duration,
};

use anyhow::{Context, Result};
use serde_json::{Value, json};
use wicketgate_system::private_file;

use crate::{api::Api, lab::Lab, ledger::Entry, namespace::Namespace, process::Process};

/// From start to the first answer of the API: a database to make, keys to draw, and a loaded machine.
const START: Duration = Duration::from_secs(20);

/// From a write to its effect, provisioning deadline included.
const EFFECT: Duration = Duration::from_secs(40);

/// How to start `wicketgate up`.
#[derive(Debug, Clone)]
pub struct GatewayOptions<'a> {
    pub executable: &'a Path,
    pub namespace: &'a Namespace,
    pub listen: SocketAddr,
    pub agent_listen: SocketAddr,
    /// `auto`, `kernel`, `userland` or `off`.
    pub ipsec: &'a str,
    pub public_address: Option<Ipv4Addr>,
    /// `RUST_LOG`.
    pub log: &'a str,
}

impl<'a> GatewayOptions<'a> {
    /// For measurements: logs warnings only, with ESP in userland if there is a public address, else without IPsec.
    pub fn measured(
        executable: &'a Path,
        namespace: &'a Namespace,
        agent_listen: SocketAddr,
        public_address: Option<Ipv4Addr>,
    ) -> Self {
        let ipsec = if public_address.is_some() { "userland" } else { "off" };
        let listen = (Ipv4Addr::LOCALHOST, 8080).into();
        Self { executable, namespace, listen, agent_listen, ipsec, public_address, log: "warn" }
    }
}

/// `wicketgate up`, and a client of its API.
#[derive(Debug)]
pub struct GatewayProcess {
    pub process: Process,
    pub api: Api,
    /// `/frontdoor/v2/{id}` of the Frontdoor that exists from the first start.
    pub frontdoor: String,
    pub data: PathBuf,
}

impl GatewayProcess {
    /// The command, for a start that is meant to fail.
    ///
    /// # Errors
    /// When the ledger can't be written.
    pub fn command(lab: &Lab, options: &GatewayOptions<'_>) -> Result<(Command, PathBuf)> {
        // It makes its data directory itself.
        let data = lab.path("data");
        let executable = options.executable.to_owned();
        let namespace = options.namespace.name().to_owned();
        lab.ledger().add(&Entry::Gateway { executable, namespace, data: data.clone() })?;
        let mut command = options.namespace.command(&options.executable.display().to_string());
        command
            .env("RUST_LOG", options.log)
            .arg("up")
            .args(["--data-dir".as_ref(), data.as_os_str()])
            .args(["--listen", &options.listen.to_string()])
            .args(["--agent-listen", &options.agent_listen.to_string()])
            .args(["--ipsec", options.ipsec, "--location", "local"]);
        if !options.listen.ip().is_loopback() {
            // Only the lab is on its networks.
            command.arg("--insecure-http");
        }
        if let Some(address) = options.public_address {
            command.args(["--public-address", &address.to_string()]);
        }
        Ok((command, data))
    }

    /// Starts it and waits for its API. Started again in the same lab, it has its data.
    ///
    /// # Errors
    /// When it ends or does not answer, with the end of its log.
    pub fn start(lab: &Lab, options: &GatewayOptions<'_>) -> Result<Self> {
        let (mut command, data) = Self::command(lab, options)?;
        let log = lab.dir("log")?.join("wicketgate.log");
        let mut process = Process::start(lab, "wicketgate up", &mut command, &log)?;
        let token = data.join("admin.token");
        let (api, frontdoor) = process.until(lab, "wicketgate up answers", START, |_| {
            let api = Api::new(options.namespace, options.listen, &token)?;
            let frontdoors = api.get("/frontdoor/v2")?;
            let frontdoor = frontdoors["content"][0]["id"].as_str().map(|id| format!("/frontdoor/v2/{id}"));
            Ok(frontdoor.map(|frontdoor| (api, frontdoor)))
        })?;
        Ok(Self { process, api, frontdoor, data })
    }

    /// A path below the Frontdoor.
    pub fn at(&self, path: &str) -> String {
        format!("{}/{path}", self.frontdoor)
    }

    /// A fresh single-use enrolment code.
    ///
    /// # Errors
    /// When the API refuses.
    pub fn enrollment_code(&self) -> Result<String> {
        let reply = self.api.post(&self.at("agents/enrollments"), &json!({}))?;
        let code = reply["enrollmentCode"].as_str().context("no enrollmentCode in the answer")?;
        Ok(code.to_owned())
    }

    /// Creates a tunnel and waits for `DEPLOYED`.
    ///
    /// # Errors
    /// When the API refuses, or the tunnel does not get there.
    pub fn tunnel(&self, lab: &Lab, name: &str, peer: Ipv4Addr, cidr: &str) -> Result<Value> {
        let body =
            json!({"name": name, "locationId": "local", "peerPublicIp": peer.to_string(), "peerCidr": cidr});
        let made = self.api.post(&self.at("ipsec-tunnels"), &body)?;
        self.deployed(lab, "ipsec-tunnels", id(&made)?)
    }

    /// Creates a share and waits for `DEPLOYED`.
    ///
    /// # Errors
    /// When the API refuses, or the share does not get there.
    pub fn share(
        &self,
        lab: &Lab,
        name: &str,
        tunnel: &Value,
        zid: &str,
        target: &str,
        port: u16,
    ) -> Result<Value> {
        let body = json!({"name": name, "ipsecTunnelId": tunnel["id"], "envZId": zid, "target": target,
            "ingressPort": port});
        let made = self.api.post(&self.at("ipsec-shares"), &body)?;
        self.deployed(lab, "ipsec-shares", id(&made)?)
    }

    /// Waits until a tunnel or share is `DEPLOYED`, and returns it.
    ///
    /// # Errors
    /// It does not get there in time; with its last state.
    pub fn deployed(&self, lab: &Lab, kind: &str, id: &str) -> Result<Value> {
        self.wait(lab, &format!("{kind}/{id}"), "DEPLOYED", EFFECT, |it| it["status"] == "DEPLOYED")
    }

    /// Waits until the resource at `path` satisfies `wanted`, and returns it.
    ///
    /// # Errors
    /// It does not get there within `bound`; with its last state and the end of the log.
    pub fn wait(
        &self,
        lab: &Lab,
        path: &str,
        what: &str,
        bound: Duration,
        wanted: impl Fn(&Value) -> bool,
    ) -> Result<Value> {
        let mut last = String::new();
        let seen = lab.until(&format!("{path} is {what}"), bound, || {
            let it = self.api.get(&self.at(path))?;
            last = it.to_string();
            Ok(wanted(&it).then_some(it))
        });
        seen.with_context(|| format!("{path} was last seen as {last}\n{}", self.process.tail()))
    }

    /// Deletes every share and then every tunnel, and waits until they are gone: then nothing of them is left at
    /// the gateway.
    ///
    /// # Errors
    /// When the API refuses, or something does not go.
    pub fn clear(&self, lab: &Lab, bound: Duration) -> Result<()> {
        for kind in ["ipsec-shares", "ipsec-tunnels"] {
            for it in self.list(kind)? {
                self.api.delete(&self.at(&format!("{kind}/{}", id(&it)?)))?;
            }
            lab.until(&format!("no {kind} left"), bound, || Ok(self.list(kind)?.is_empty().then_some(())))?;
        }
        Ok(())
    }

    /// All the live ones of a kind.
    ///
    /// # Errors
    /// When the API refuses.
    pub fn list(&self, kind: &str) -> Result<Vec<Value>> {
        let page = self.api.get(&self.at(&format!("{kind}?size=1000")))?;
        Ok(page["content"].as_array().cloned().unwrap_or_default())
    }
}

/// The id of a resource.
fn id(resource: &Value) -> Result<&str> {
    resource["id"].as_str().with_context(|| format!("no id in {resource}"))
}

/// How to start `wicketgate-agent`.
#[derive(Debug, Clone)]
pub struct AgentOptions<'a> {
    pub executable: &'a Path,
    pub namespace: &'a Namespace,
    /// Of the process, its log and its state directory.
    pub name: &'a str,
    pub server: SocketAddr,
    /// `CIDR:PORTS` that it may reach; everything but its own host if empty.
    pub allow: &'a [&'a str],
    /// `RUST_LOG`.
    pub log: &'a str,
}

impl<'a> AgentOptions<'a> {
    /// For measurements: may reach everything, and logs warnings only.
    pub fn measured(executable: &'a Path, namespace: &'a Namespace, server: SocketAddr) -> Self {
        Self { executable, namespace, name: "agent", server, allow: &["*:*"], log: "warn" }
    }
}

#[derive(Debug)]
pub struct Agent {
    pub process: Process,
    pub state: PathBuf,
}

impl Agent {
    /// Starts it; with a code, which it reads from a file of mode 0600, it enrols first.
    ///
    /// # Errors
    /// When it can't be started.
    pub fn start(lab: &Lab, options: &AgentOptions<'_>, code: Option<&str>) -> Result<Self> {
        // It makes its state directory itself.
        let state = lab.path(options.name);
        let mut command = options.namespace.command(&options.executable.display().to_string());
        command.env("RUST_LOG", options.log);
        command.args(["start", "--server", &format!("https://{}", options.server)]);
        command.args(["--state-dir".as_ref(), state.as_os_str()]);
        if let Some(code) = code {
            let file = lab.dir("codes")?.join(options.name);
            private_file::replace(&file, code.as_bytes())?;
            command.args(["--enrollment-token-file".as_ref(), file.as_os_str()]);
        }
        for allow in options.allow {
            command.args(["--allow", allow]);
        }
        let log = lab.dir("log")?.join(format!("{}.log", options.name));
        Ok(Self { process: Process::start(lab, options.name, &mut command, &log)?, state })
    }

    /// Starts it with a fresh code and waits until its environment is `ACTIVE`; returns the environment's `zId`.
    ///
    /// # Errors
    /// When it ends, or does not get there.
    pub fn enrol(lab: &Lab, options: &AgentOptions<'_>, gateway: &GatewayProcess) -> Result<(Self, String)> {
        let known: Vec<Value> = gateway.list("environments")?.iter().map(|e| e["zId"].clone()).collect();
        let mut agent = Self::start(lab, options, Some(&gateway.enrollment_code()?))?;
        let zid = agent.process.until(lab, "the agent's environment is ACTIVE", START, |_| {
            let environments = gateway.list("environments")?;
            let new = environments.iter().find(|e| e["status"] == "ACTIVE" && !known.contains(&e["zId"]));
            Ok(new.and_then(|e| e["zId"].as_str().map(str::to_owned)))
        });
        let zid = zid.with_context(|| gateway.process.tail())?;
        Ok((agent, zid))
    }
}

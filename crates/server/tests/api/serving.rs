//! A whole server on a port of loopback, and requests from chosen addresses of loopback.

use crate::harness::{TOKEN, hello};
use prometheus_client::registry::Registry;
use serde_json::Value;
use std::{any::Any, fs, net::SocketAddr, path::Path, time::Duration};
use tempfile::TempDir;
use tokio::{
    io::{AsyncReadExt as _, AsyncWriteExt as _},
    net::{TcpListener, TcpSocket, TcpStream},
    time::timeout,
};
use uuid::Uuid;
use wicketgate_link::in_process;
use wicketgate_model::{EspMode, GatewayId, LoadBalancerPools};
use wicketgate_server::{GatewayLinks, Server, ServerConfig};
use wicketgate_store::SecretKeyFile;

/// The longest wait for each step.
pub(crate) const BOUND: Duration = Duration::from_secs(20);

pub(crate) struct Serving {
    pub(crate) address: SocketAddr,
    pub(crate) dir: TempDir,
    server: Server,
    /// Its end of the link.
    _gateway: Box<dyn Any + Send>,
}

/// With a SQLite database in the directory.
pub(crate) fn config(dir: &Path, listener: TcpListener) -> ServerConfig {
    ServerConfig {
        data_dir: dir.to_owned(),
        database: None,
        has_served: false,
        secret_keys: SecretKeyFile::created_at(dir.join("secret-key")),
        listener,
        connections: 512,
        tls: None,
        admin_listener: None,
        provider: None,
        quotas: Default::default(),
        rates: Default::default(),
        pools: LoadBalancerPools::ipsec(),
        external: Default::default(),
        location: Some("local".parse().unwrap()),
        provisioning_deadline: BOUND,
    }
}

impl Serving {
    /// With a SQLite database, the admin token of these tests, and a gateway that serves nothing.
    pub(crate) async fn start(change: impl FnOnce(&mut ServerConfig)) -> Self {
        let dir = TempDir::new().unwrap();
        fs::write(dir.path().join("admin.token"), format!("{TOKEN}\n")).unwrap();
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let mut config = config(dir.path(), listener);
        change(&mut config);
        let (server_end, gateway_end) = in_process(GatewayId::new(Uuid::nil()), "local".parse().unwrap());
        let prepared = Server::prepare(config).await.unwrap();
        let server = prepared
            .start(GatewayLinks::InProcess(server_end.into()), None, Registry::default())
            .await
            .unwrap();
        let _gateway = Box::new(gateway_end.open(hello(EspMode::Off)));
        Self { address, dir, server, _gateway }
    }

    pub(crate) async fn stop(self) {
        timeout(BOUND, self.server.stop()).await.unwrap();
    }

    /// A connection from an address of this host.
    pub(crate) async fn connect(&self, from: &str) -> TcpStream {
        let socket = TcpSocket::new_v4().unwrap();
        socket.set_reuseaddr(true).unwrap();
        socket.bind(format!("{from}:0").parse().unwrap()).unwrap();
        timeout(BOUND, socket.connect(self.address)).await.unwrap().unwrap()
    }

    /// Sends one request on a connection of its own, and returns the status. `lines` are those of its head.
    pub(crate) async fn ask(&self, from: &str, lines: &[&str]) -> u16 {
        self.exchange(from, lines, "").await.0
    }

    /// As [`ask`](Self::ask) does, with a body; returns the answer's body, too.
    pub(crate) async fn exchange(&self, from: &str, lines: &[&str], body: &str) -> (u16, Value) {
        let mut stream = self.connect(from).await;
        let (lines, length) = (lines.join("\r\n"), body.len());
        let request =
            format!("{lines}\r\nhost: x\r\nconnection: close\r\ncontent-length: {length}\r\n\r\n{body}");
        stream.write_all(request.as_bytes()).await.unwrap();
        let mut answer = Vec::new();
        timeout(BOUND, stream.read_to_end(&mut answer)).await.unwrap().unwrap();
        let answer = String::from_utf8_lossy(&answer);
        let (head, body) = answer.split_once("\r\n\r\n").unwrap();
        let status = head.split(' ').nth(1).unwrap().parse().unwrap();
        (status, serde_json::from_str(body).unwrap_or_default())
    }
}

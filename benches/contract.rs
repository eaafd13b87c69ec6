//! What the API bears with 100,000 shares on 1,000 tunnels in SQLite: one share, a filtered and sorted page, shares
//! made by 16 clients at once, and the server's memory. The server is a process of its own, in front of a gateway
//! that says yes to everything, so that it is the control plane that is measured. Loopback, no TLS. Run by
//! `make bench`.

use std::{
    env, fs,
    io::Write as _,
    net::SocketAddr,
    path::Path,
    process::{Child, Command},
    sync::Arc,
    time::{Duration, Instant},
};

use anyhow::{Context, Result, ensure};
use jiff::{SignedDuration, Timestamp};
use prometheus_client::registry::Registry;
use serde_json::{Value, json};
use tokio::{
    io::{AsyncReadExt as _, AsyncWriteExt as _},
    net::TcpStream,
    signal::unix::{SignalKind, signal},
    task::JoinSet,
    time::{sleep, timeout},
};
use uuid::Uuid;
use wicketgate_model::{
    Connection, EnrollmentId, FrontdoorId, GatewayId, LoadBalancerPools, ObservedDelta, PreSharedKey,
    ShareObserved, TunnelId, TunnelObserved, ZId,
};
use wicketgate_server::{Server, ServerConfig, state::ensure_first_frontdoor};
use wicketgate_session::{
    ca::Ca,
    link::{self, FromGateway, GatewayEnd, ToGateway},
};
use wicketgate_store::{Act, Enrol, NewEnrollment, ShareSpec, Store, TunnelSpec};

const TUNNELS: u32 = 1000;
const SHARES_EACH: u16 = 100;
const SHARES: u32 = TUNNELS * SHARES_EACH as u32;
const CLIENTS: usize = 16;
/// Requests of each measurement.
const GETS: usize = 32_000;
const PAGES: usize = 300;
const POSTS: usize = 8000;

const GETS_A_SECOND: f64 = 8000.0;
const FIRST_PAGE: Duration = Duration::from_millis(10);
const LAST_PAGE: Duration = Duration::from_millis(25);
const POSTS_A_SECOND: f64 = 1000.0;
const MEMORY_MIB: u64 = 150;

/// Made by this program and removed by it, also after a run that was killed.
const HOME: &str = "/var/tmp/wicketgate-bench-contract";
const API: &str = "127.0.0.1:18480";
/// A request that takes longer has failed; and how long the server may take to start and to settle everything.
const BOUND: Duration = Duration::from_secs(30);
const START: Duration = Duration::from_secs(120);

fn main() -> Result<()> {
    let runtime = tokio::runtime::Runtime::new()?;
    if env::args().nth(1).as_deref() == Some("serve") {
        return runtime.block_on(serve(Path::new(HOME)));
    }
    let _ = fs::remove_dir_all(HOME);
    fs::create_dir_all(HOME)?;
    let result = runtime.block_on(measure(Path::new(HOME)));
    fs::remove_dir_all(HOME)?;
    result
}

/// The server's process.
async fn serve(home: &Path) -> Result<()> {
    let ca = Arc::new(Ca::load_or_create(&home.join("ca"), Timestamp::now())?);
    let (server_end, gateway_end) = link::in_process(GatewayId::new(Uuid::now_v7()), "local".parse()?);
    let config = ServerConfig {
        data_dir: home.to_owned(),
        database: None,
        listener: tokio::net::TcpListener::bind(API).await?,
        tls: None,
        admin_listener: None,
        provider: None,
        pools: LoadBalancerPools::loopback(),
        provisioning_deadline: Duration::from_secs(30),
    };
    let server = Server::prepare(config).await?.start(ca, server_end, None, Registry::default())?;
    let gateway = tokio::spawn(agree(gateway_end));
    signal(SignalKind::terminate())?.recv().await;
    gateway.abort();
    server.stop().await;
    Ok(())
}

/// A gateway to which everything is ready as soon as it is told.
async fn agree(mut link: GatewayEnd) {
    while let Some(ToGateway::Desired { sequence, delta }) = link.receive.recv().await {
        let connection = Connection::down(Timestamp::now());
        let tunnel = |generation| TunnelObserved {
            ready: Some(generation),
            problem: None,
            connection: connection.clone(),
        };
        let observed = ObservedDelta {
            reset: delta.reset,
            tunnels: delta.tunnels.iter().map(|t| (t.id, tunnel(t.generation))).collect(),
            shares: delta
                .shares
                .iter()
                .map(|s| (s.id, ShareObserved { ready: Some(s.generation), problem: None }))
                .collect(),
            gone_tunnels: delta.removed_tunnels,
            gone_shares: delta.removed_shares,
        };
        if link.send.send(FromGateway::Observed { heard: sequence, delta: observed }).await.is_err() {
            return;
        }
    }
}

struct Stock {
    frontdoor: FrontdoorId,
    z_id: ZId,
    tunnels: Vec<TunnelId>,
}

async fn measure(home: &Path) -> Result<()> {
    let begin = Instant::now();
    let stock = fill(home).await?;
    let mut out = std::io::stdout();
    writeln!(out, "{SHARES} shares on {TUNNELS} tunnels, written in {:.1?}", begin.elapsed())?;
    let mut server = Served(Command::new(env::current_exe()?).arg("serve").env("RUST_LOG", "warn").spawn()?);
    let token = settled(home, &stock).await?;
    let at = |path: &str| format!("/frontdoor/v2/{}/{path}", stock.frontdoor);
    let page = Client::connect(&token).await?.get(&at("ipsec-shares?size=1000")).await?;
    let ids: Vec<&str> =
        page["content"].as_array().into_iter().flatten().filter_map(|s| s["id"].as_str()).collect();
    ensure!(ids.len() == 1000, "no shares to ask for");

    let one = |n: usize| Request::Get(at(&format!("ipsec-shares/{}", ids[n * 7919 % ids.len()])));
    load(&token, CLIENTS, GETS / 10, one).await?;
    let gets = server.load(&token, CLIENTS, GETS, one).await?;
    gets.tell(&format!("GET of one share, {CLIENTS} clients"))?;
    let idle = server.memory()?;

    let last = SHARES / 20 - 1;
    let list = |page: u32| {
        let path = at(&format!(
            "ipsec-shares?status=DEPLOYED&envZId={}&sort=name,asc&size=20&page={page}",
            stock.z_id
        ));
        move |_: usize| Request::Get(path.clone())
    };
    let seen = Client::connect(&token).await?.get(&list(last)(0).path()).await?;
    ensure!(
        seen["totalElements"] == SHARES && seen["content"].as_array().is_some_and(|c| c.len() == 20),
        "the last page is {seen}"
    );
    let first_page = server.load(&token, 1, PAGES, list(0)).await?;
    first_page.tell("page 0 of 20, two filters, sorted by name")?;
    let last_page = server.load(&token, 1, PAGES, list(last)).await?;
    last_page.tell(&format!("page {last}, the last one"))?;

    let post = |n: usize| {
        let body = json!({"name": format!("new-{n}"), "ipsecTunnelId": stock.tunnels[n % stock.tunnels.len()],
            "envZId": stock.z_id, "target": "10.20.100.1:8443", "ingressPort": 20_000 + n / stock.tunnels.len()});
        Request::Post(at("ipsec-shares"), body.to_string())
    };
    let posts = server.load(&token, CLIENTS, POSTS, post).await?;
    posts.tell(&format!("POST of a share, {CLIENTS} clients, durable when answered"))?;
    let memory = server.memory()?;
    writeln!(
        out,
        "memory of the server: {idle} MiB, {memory} MiB after the POSTs (target: under {MEMORY_MIB})"
    )?;
    server.stop()?;

    let missed: Vec<_> = [
        ("GET", gets.a_second() >= GETS_A_SECOND),
        ("first page", first_page.at(99) <= FIRST_PAGE),
        ("last page", last_page.at(99) <= LAST_PAGE),
        ("POST", posts.a_second() >= POSTS_A_SECOND),
        ("memory", memory < MEMORY_MIB),
    ]
    .into_iter()
    .filter_map(|(what, met)| (!met).then_some(what))
    .collect();
    ensure!(missed.is_empty(), "targets missed: {}", missed.join(", "));
    Ok(())
}

/// Writes what is there from the beginning, as the API would.
async fn fill(home: &Path) -> Result<Stock> {
    let store = Store::open(&home.join("wicketgate.db").display().to_string()).await?;
    let act = Act::new("bench", Timestamp::now(), Uuid::now_v7);
    let frontdoor = ensure_first_frontdoor(&store).await?.context("a database from another run")?.id;
    let (enrollment, z_id) = (EnrollmentId::new(Uuid::now_v7()), ZId::from_random([3; 10]));
    let expires_at = Timestamp::now() + SignedDuration::from_hours(1);
    let new = NewEnrollment { id: enrollment, environment: None, secret_sha256: [1; 32], expires_at };
    store.create_enrollment(frontdoor, &new, &act).await?;
    let asked = Enrol {
        enrollment,
        secret_sha256: [1; 32],
        public_key_sha256: [2; 32],
        name: "bench".to_owned(),
        z_id: z_id.clone(),
    };
    let enrolled = store.enrol(&asked, &act).await?.ok().context("the enrolment was refused")?;
    let mut tunnels = Vec::new();
    for n in 0..TUNNELS {
        let peer = format!("203.{}.{}.1", n / 256, n % 256);
        let spec = TunnelSpec {
            name: format!("site-{n}").parse()?,
            location: "local".parse()?,
            peer_address: peer.parse()?,
            peer_cidr: "172.31.0.0/16".parse()?,
            peer_id: peer.parse()?,
            key: PreSharedKey::from_random([4; 32]),
            ike_proposals: None,
            esp_proposals: None,
            tags: Default::default(),
        };
        tunnels.push(store.create_tunnel(frontdoor, &spec, &LoadBalancerPools::loopback(), &act).await?.id);
    }
    // Many at once, so that they share commits.
    let mut writers = JoinSet::new();
    for part in tunnels.chunks(tunnels.len() / 50) {
        let (store, act, part, environment) =
            (store.clone(), act.clone(), part.to_vec(), enrolled.environment);
        writers.spawn(async move {
            for (tunnel, port) in part.iter().flat_map(|t| (0..SHARES_EACH).map(move |p| (t, p))) {
                let name = format!("share-{:x}-{port}", Uuid::now_v7().as_u128() & 0xffff_ffff_ffff);
                let spec = ShareSpec {
                    tunnel: *tunnel,
                    environment,
                    name: name.parse()?,
                    target: "10.20.100.1:8443".parse()?,
                    ingress_port: (8000 + i64::from(port)).try_into()?,
                    options: Default::default(),
                    tags: Default::default(),
                };
                store.create_share(frontdoor, &spec, &act).await?;
            }
            anyhow::Ok(())
        });
    }
    for done in writers.join_all().await {
        done?;
    }
    store.close().await;
    Ok(Stock { frontdoor, z_id, tunnels })
}

/// Waits until all shares are deployed; returns the admin token.
async fn settled(home: &Path, stock: &Stock) -> Result<String> {
    let path = format!("/frontdoor/v2/{}/ipsec-shares?status=DEPLOYED&size=1", stock.frontdoor);
    let wait = async {
        loop {
            sleep(Duration::from_millis(100)).await;
            let Ok(token) = fs::read_to_string(home.join("admin.token")) else { continue };
            let token = token.trim().to_owned();
            let Ok(mut client) = Client::connect(&token).await else { continue };
            if client.get(&path).await?["totalElements"] == SHARES {
                return anyhow::Ok(token);
            }
        }
    };
    timeout(START, wait).await.context("the shares do not become DEPLOYED")?
}

struct Served(Child);

impl Served {
    /// Resident, MiB.
    fn memory(&self) -> Result<u64> {
        let status = fs::read_to_string(format!("/proc/{}/status", self.0.id()))?;
        let line = status.lines().find_map(|l| l.strip_prefix("VmRSS:")).context("no VmRSS")?;
        let kib: u64 = line.trim().trim_end_matches("kB").trim().parse()?;
        Ok(kib / 1024)
    }

    /// What it has used of all processors.
    fn processor(&self) -> Result<Duration> {
        let stat = fs::read_to_string(format!("/proc/{}/stat", self.0.id()))?;
        // proc_pid_stat(5): fields 14 and 15, in ticks of 10 ms; the name before them may hold spaces.
        let fields = stat.rsplit_once(')').context("no stat")?.1.split_whitespace().skip(11).take(2);
        let ticks: u64 = fields.map(str::parse::<u64>).sum::<Result<u64, _>>()?;
        Ok(Duration::from_millis(ticks * 10))
    }

    async fn load(
        &self,
        token: &str,
        clients: usize,
        count: usize,
        request: impl Fn(usize) -> Request,
    ) -> Result<Times> {
        let before = self.processor()?;
        let times = load(token, clients, count, request).await?;
        Ok(Times { processor: self.processor()? - before, ..times })
    }

    fn stop(&mut self) -> Result<()> {
        Command::new("kill").arg(self.0.id().to_string()).status()?;
        ensure!(self.0.wait()?.success(), "the server did not stop in good order");
        Ok(())
    }
}

impl Drop for Served {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

enum Request {
    Get(String),
    Post(String, String),
}

impl Request {
    fn path(self) -> String {
        match self {
            Self::Get(path) | Self::Post(path, _) => path,
        }
    }
}

/// How long each request took, shortest first, and all of them.
struct Times {
    each: Vec<Duration>,
    all: Duration,
    /// What the server used of its processors.
    processor: Duration,
}

impl Times {
    fn at(&self, percent: usize) -> Duration {
        self.each[(self.each.len() - 1) * percent / 100]
    }

    #[expect(clippy::cast_precision_loss, reason = "thousands")]
    fn a_second(&self) -> f64 {
        self.each.len() as f64 / self.all.as_secs_f64()
    }

    fn tell(&self, what: &str) -> Result<()> {
        let (p50, p99, count) = (self.at(50), self.at(99), self.each.len());
        writeln!(
            std::io::stdout(),
            "{what}: {:.0} a second, p50 {p50:.2?}, p99 {p99:.2?} ({count} requests, {:.0?} of a processor each)",
            self.a_second(),
            self.processor / u32::try_from(count)?
        )?;
        Ok(())
    }
}

/// `count` requests by several clients, each with one connection and one request at a time.
async fn load(
    token: &str,
    clients: usize,
    count: usize,
    request: impl Fn(usize) -> Request,
) -> Result<Times> {
    let mut running = JoinSet::new();
    let begin = Instant::now();
    for client in 0..clients {
        let requests: Vec<_> = (client..count).step_by(clients).map(&request).collect();
        let mut connection = Client::connect(token).await?;
        running.spawn(async move {
            let mut times = Vec::with_capacity(requests.len());
            for request in requests {
                let begin = Instant::now();
                connection.ask(&request).await?;
                times.push(begin.elapsed());
            }
            anyhow::Ok(times)
        });
    }
    let mut each = Vec::with_capacity(count);
    for times in running.join_all().await {
        each.extend(times?);
    }
    let all = begin.elapsed();
    each.sort_unstable();
    Ok(Times { each, all, processor: Duration::ZERO })
}

/// HTTP/1.1 on a kept connection: as little as it takes, since it runs on the server's cores.
struct Client {
    stream: TcpStream,
    head: String,
    buffer: Vec<u8>,
}

impl Client {
    async fn connect(token: &str) -> Result<Self> {
        let stream = TcpStream::connect(API.parse::<SocketAddr>()?).await?;
        stream.set_nodelay(true)?;
        let head = format!("HTTP/1.1\r\nhost: {API}\r\nauthorization: Bearer {token}\r\n");
        Ok(Self { stream, head, buffer: Vec::new() })
    }

    async fn get(&mut self, path: &str) -> Result<Value> {
        let body = self.ask(&Request::Get(path.to_owned())).await?;
        Ok(serde_json::from_slice(body)?)
    }

    /// The body of an answer that is a success.
    async fn ask(&mut self, request: &Request) -> Result<&[u8]> {
        let text = match request {
            Request::Get(path) => format!("GET {path} {}\r\n", self.head),
            Request::Post(path, body) => format!(
                "POST {path} {}content-type: application/json\r\ncontent-length: {}\r\n\r\n{body}",
                self.head,
                body.len()
            ),
        };
        self.buffer.clear();
        timeout(BOUND, async {
            self.stream.write_all(text.as_bytes()).await?;
            loop {
                ensure!(
                    self.stream.read_buf(&mut self.buffer).await? > 0,
                    "the server closed the connection"
                );
                if let Some((head, length)) = head(&self.buffer)?
                    && self.buffer.len() >= head + length
                {
                    return Ok(&self.buffer[head..]);
                }
            }
        })
        .await?
    }
}

/// The lengths of a head that is whole and of its body.
fn head(bytes: &[u8]) -> Result<Option<(usize, usize)>> {
    let Some(end) = bytes.windows(4).position(|w| w == b"\r\n\r\n") else { return Ok(None) };
    let text = std::str::from_utf8(&bytes[..end])?;
    ensure!(text.starts_with("HTTP/1.1 2"), "{}", String::from_utf8_lossy(bytes));
    let length = text.lines().find_map(|l| l.strip_prefix("content-length: ")).context("no length")?;
    Ok(Some((end + 4, length.trim().parse()?)))
}

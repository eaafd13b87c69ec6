//! The API's performance with 100,000 shares on 1,000 tunnels in SQLite: reads of one share, filtered and sorted pages,
//! share creation by 16 concurrent clients, the command line's list of all shares, and the server's memory. The server is a separate process. Its gateway
//! accepts everything at once, so that only the control plane is measured. The connections are loopback without TLS,
//! and client and server share the cores. `make bench` runs it. It takes some minutes, of which half a minute is
//! measurement.

#[path = "contract/listed.rs"]
mod listed;
#[path = "contract/load.rs"]
mod load;

use std::{
    env, fs,
    io::Write as _,
    path::Path,
    sync::Arc,
    time::{Duration, Instant},
};

use anyhow::{Context, Result, ensure};
use jiff::{SignedDuration, Timestamp};
use load::{Api, Client, Request, Served, load};
use prometheus_client::registry::Registry;
use serde_json::json;
use tokio::{
    io::AsyncReadExt as _,
    sync::mpsc,
    task::JoinSet,
    time::{sleep, timeout},
};
use uuid::Uuid;
use wicketgate_link::{self as link, FromGateway, GatewayEnd, GatewayHello, Part, ToGateway, VERSIONS};
use wicketgate_model::{
    Connection, EnrollmentId, EspMode, FrontdoorId, GatewayId, LoadBalancerPools, ObservedDelta,
    PreSharedKey, QuotaKind, QuotaSetting, Quotas, ShareId, ShareObserved, TunnelId, TunnelObserved, ZId,
};
use wicketgate_server::{GatewayLinks, Server, ServerConfig, ensure_first_frontdoor};
use wicketgate_store::{
    EnrolAttempt, NewEnrollment, SecretKeyFile, ShareSpec, Store, TunnelSpec, WriteContext,
};

/// The size of the database.
const TUNNELS: u32 = 1000;
const SHARES_EACH: u16 = 100;
const SHARES: u32 = TUNNELS * SHARES_EACH as u32;
/// The number of concurrent clients.
const CLIENTS: usize = 16;
/// The number of requests of each measurement: enough for a stable p99.
const GETS: usize = 32_000;
const PAGES: usize = 300;
const POSTS: usize = 8000;
const POSTS_ALONE: usize = 500;
/// The number of tasks that fill the database.
const WRITERS: usize = 50;

/// The targets that the run must meet.
const GETS_A_SECOND: f64 = 8000.0;
const FIRST_PAGE: Duration = Duration::from_millis(10);
const LAST_PAGE: Duration = Duration::from_millis(25);
const POSTS_A_SECOND: f64 = 1000.0;
const MEMORY_MIB: u64 = 150;
const FIRST_LINE: Duration = Duration::from_millis(300);
/// How much the list's memory may grow after its first tenth, in KiB: less than two pages of JSON.
const LIST_GROWTH: u64 = 4 << 10;

/// Created and removed by this program, also after a run that was killed.
const HOME: &str = "/var/tmp/wicketgate-bench-contract";
/// The file to which the server's process writes its address.
const ADDRESS: &str = "address";
/// The longest wait until all shares are `DEPLOYED`.
const SETTLE: Duration = Duration::from_secs(180);
/// The time limit of the whole benchmark.
const ALL: Duration = Duration::from_secs(600);

fn main() -> Result<()> {
    let runtime = tokio::runtime::Runtime::new()?;
    if env::args().nth(1).as_deref() == Some("serve") {
        return runtime.block_on(serve(Path::new(HOME)));
    }
    let _ = fs::remove_dir_all(HOME);
    fs::create_dir_all(HOME)?;
    let result = runtime.block_on(async { timeout(ALL, measure(Path::new(HOME))).await });
    // The server's process has ended by now.
    fs::remove_dir_all(HOME)?;
    result.context("the benchmark took too long")?
}

fn say(what: &str) -> Result<()> {
    let mut out = std::io::stdout().lock();
    writeln!(out, "{what}")?;
    Ok(out.flush()?)
}

/// The main function of the server's process.
async fn serve(home: &Path) -> Result<()> {
    let (server_end, gateway_end) = link::in_process(GatewayId::new(Uuid::now_v7()), "local".parse()?);
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await?;
    let address = listener.local_addr()?.to_string();
    let config = ServerConfig {
        data_dir: home.to_owned(),
        database: None,
        has_served: false,
        secret_keys: SecretKeyFile::created_at(home.join("secret-key")),
        listener,
        connections: 512,
        tls: None,
        admin_listener: None,
        provider: None,
        external: Default::default(),
        quotas: quotas()?,
        rates: Default::default(),
        pools: LoadBalancerPools::loopback(),
        location: Some("local".parse()?),
        provisioning_deadline: Duration::from_secs(30),
    };
    let server = Server::prepare(config)
        .await?
        .start(GatewayLinks::InProcess(server_end.into()), None, Registry::default())
        .await?;
    let gateway = tokio::spawn(agree(gateway_end));
    fs::write(home.join("address.new"), address)?;
    fs::rename(home.join("address.new"), home.join(ADDRESS))?;
    // The measuring process writes nothing. The standard input ends with that process.
    tokio::io::stdin().read_to_end(&mut Vec::new()).await?;
    gateway.abort();
    server.stop().await;
    Ok(())
}

/// Room for more than any customer has.
fn quotas() -> Result<Quotas> {
    let limit = 1_000_000.try_into()?;
    let unlimited = |kind| QuotaSetting { kind, limit };
    Ok([QuotaKind::Tunnels, QuotaKind::Shares].map(unlimited).into_iter().collect())
}

/// A gateway that reports everything as ready as soon as it receives it.
async fn agree(link: GatewayEnd) {
    let hello = GatewayHello {
        versions: VERSIONS,
        version: "0.1.0".to_owned(),
        boot: Uuid::nil(),
        held: None,
        agent_url: None,
        esp: EspMode::Off,
        public_address: None,
        max_tunnels: None,
        namespaces: None,
    };
    let (send, handshake) = link.open(hello);
    let Ok((_, mut receive)) = handshake.finish().await else { return };
    while let Some(message) = receive.recv().await {
        let ToGateway::Desired { sequence, delta, .. } = message else { continue };
        let connection = Connection::down(Timestamp::now());
        let tunnel = |generation| TunnelObserved {
            ready: Some(generation),
            problem: None,
            connection: connection.clone(),
        };
        let observed = ObservedDelta {
            reset: delta.reset,
            as_desired: false,
            tunnels: delta.tunnels.iter().map(|t| (t.id, tunnel(t.generation))).collect(),
            shares: delta
                .shares
                .iter()
                .map(|s| (s.id, ShareObserved { ready: Some(s.generation), problem: None }))
                .collect(),
            gone_tunnels: delta.removed_tunnels,
            gone_shares: delta.removed_shares,
        };
        let observed = FromGateway::Observed { heard: sequence, part: Part::WHOLE, delta: observed };
        if send.send(observed).await.is_err() {
            return;
        }
    }
}

struct Stock {
    frontdoor: FrontdoorId,
    z_id: ZId,
    tunnels: Vec<TunnelId>,
    shares: Vec<ShareId>,
}

async fn measure(home: &Path) -> Result<()> {
    let begin = Instant::now();
    let stock = fill(home).await?;
    say(&format!("{SHARES} shares on {TUNNELS} tunnels: written in {:.1?}", begin.elapsed()))?;
    let begin = Instant::now();
    let mut server = Served::start()?;
    let api = settled(home, &stock, &mut server).await?;
    let (idle, most) = server.memory()?;
    say(&format!(
        "  DEPLOYED {:.1?} after the server's start; {idle} MiB, at most {most} MiB",
        begin.elapsed()
    ))?;
    let at = |path: &str| format!("/frontdoor/v2/{}/{path}", stock.frontdoor);

    // In scattered order, so that consecutive requests read different pages of the database.
    let one =
        |n: usize| Request::Get(at(&format!("ipsec-shares/{}", stock.shares[n * 7919 % stock.shares.len()])));
    load(&api, CLIENTS, GETS / 10, one).await?;
    let gets = server.load(&api, CLIENTS, GETS, one).await?;
    gets.print(&format!("GET of one share, {CLIENTS} clients"))?;

    let last = SHARES / 20 - 1;
    let list = |page: u32| {
        let path = at(&format!(
            "ipsec-shares?status=DEPLOYED&envZId={}&sort=name,asc&size=20&page={page}",
            stock.z_id
        ));
        move |_: usize| Request::Get(path.clone())
    };
    let seen = Client::connect(&api).await?.get(&list(last)(0).path()).await?;
    ensure!(
        seen["totalElements"] == SHARES && seen["content"].as_array().is_some_and(|c| c.len() == 20),
        "the last page is {seen}"
    );
    let first_page = server.load(&api, 1, PAGES, list(0)).await?;
    first_page.print("page 0 of 20, two filters, sorted by name")?;
    let last_page = server.load(&api, 1, PAGES, list(last)).await?;
    last_page.print(&format!("page {last}, the last one"))?;

    let listed = listed::list(home, &api)?;
    say(&format!(
        "  `share list`: first line after {:.0?}, all after {:.1?}; {} KiB at most, {} KiB after a tenth",
        listed.first, listed.all, listed.most, listed.early
    ))?;

    let post = |n: usize| {
        let body = json!({"name": format!("new-{n}"), "ipsecTunnelId": stock.tunnels[n % stock.tunnels.len()],
            "envZId": stock.z_id, "target": "10.20.100.1:8443", "ingressPort": 20_000 + n / stock.tunnels.len()});
        Request::Post(at("ipsec-shares"), body.to_string())
    };
    let posts = server.load(&api, CLIENTS, POSTS, post).await?;
    posts.print(&format!("POST of a share, {CLIENTS} clients, durable when answered"))?;
    let alone = server.load(&api, 1, POSTS_ALONE, |n| post(POSTS + n)).await?;
    alone.print("POST of a share, one client, one commit per share")?;
    let (memory, most) = server.memory()?;
    say(&format!("memory of the server: {memory} MiB, at most {most} MiB (target: under {MEMORY_MIB})"))?;
    server.stop()?;

    let missed: Vec<_> = [
        ("GET", gets.a_second() >= GETS_A_SECOND),
        ("first page", first_page.at(99) <= FIRST_PAGE),
        ("last page", last_page.at(99) <= LAST_PAGE),
        ("POST", posts.a_second() >= POSTS_A_SECOND),
        ("memory", most < MEMORY_MIB),
        ("first line of the list", listed.first < FIRST_LINE),
        ("memory of the list", listed.most < listed.early + LIST_GROWTH),
    ]
    .into_iter()
    .filter_map(|(what, met)| (!met).then_some(what))
    .collect();
    ensure!(missed.is_empty(), "targets missed: {}", missed.join(", "));
    Ok(())
}

/// Writes the initial rows, as the API would.
async fn fill(home: &Path) -> Result<Stock> {
    let keys = SecretKeyFile::created_at(home.join("secret-key"));
    let store = Store::open(&home.join("wicketgate.db").display().to_string(), &keys).await?;
    let act = WriteContext {
        quotas: Arc::new(quotas()?),
        ..WriteContext::new("bench", Timestamp::now(), Uuid::now_v7)
    };
    let frontdoor = ensure_first_frontdoor(&store).await?.context("the database is from another run")?.id;
    let (enrollment, z_id) = (EnrollmentId::new(Uuid::now_v7()), ZId::from_random([3; 10]));
    let expires_at = Timestamp::now() + SignedDuration::from_hours(1);
    let new = NewEnrollment { id: enrollment, environment: None, secret_sha256: [1; 32], expires_at };
    store.create_enrollment(frontdoor, &new, &act).await?;
    let asked = EnrolAttempt {
        enrollment,
        secret_sha256: [1; 32],
        public_key_sha256: [2; 32],
        name: "bench".to_owned(),
        z_id: z_id.clone(),
    };
    let environment = store.enrol(&asked, &act).await?.ok().context("the enrolment was refused")?.environment;
    let mut tunnels = Vec::new();
    for n in 0..TUNNELS {
        let spec = TunnelSpec::new(
            format!("site-{n}").parse()?,
            "local".parse()?,
            format!("203.{}.{}.1", n / 256, n % 256).parse()?,
            "172.31.0.0/16".parse()?,
            PreSharedKey::from_random([4; 32]),
        );
        tunnels.push(store.create_tunnel(frontdoor, &spec, &LoadBalancerPools::loopback(), &act).await?.id);
    }
    // Concurrent writes share commits.
    let (tell, mut made) = mpsc::channel(1000);
    let mut writers = JoinSet::new();
    for part in tunnels.chunks(tunnels.len() / WRITERS) {
        let (store, act, part, tell) = (store.clone(), act.clone(), part.to_vec(), tell.clone());
        writers.spawn(async move {
            for (tunnel, port) in part.iter().flat_map(|t| (0..SHARES_EACH).map(move |p| (t, p))) {
                let name = format!("share-{:x}-{port}", Uuid::now_v7().as_u128() & 0xffff_ffff_ffff);
                let spec = ShareSpec::new(
                    *tunnel,
                    environment,
                    name.parse()?,
                    "10.20.100.1:8443".parse()?,
                    (8000 + i64::from(port)).try_into()?,
                );
                tell.send(store.create_share(frontdoor, &spec, &act).await?.id).await?;
            }
            anyhow::Ok(())
        });
    }
    drop(tell);
    let mut shares = Vec::new();
    while let Some(share) = made.recv().await {
        shares.push(share);
        if shares.len() % 10_000 == 0 {
            say(&format!("  {} shares written", shares.len()))?;
        }
    }
    for done in writers.join_all().await {
        done?;
    }
    store.close().await;
    Ok(Stock { frontdoor, z_id, tunnels, shares })
}

/// Waits until all shares are deployed.
async fn settled(home: &Path, stock: &Stock, server: &mut Served) -> Result<Api> {
    let path = format!("/frontdoor/v2/{}/ipsec-shares?status=DEPLOYED&size=1", stock.frontdoor);
    let (begin, mut reported) = (Instant::now(), 0);
    while begin.elapsed() < SETTLE {
        ensure!(server.runs()?, "the server has ended");
        sleep(Duration::from_millis(200)).await;
        let read = |file: &str| fs::read_to_string(home.join(file)).map(|text| text.trim().to_owned());
        let (Ok(address), Ok(token)) = (read(ADDRESS), read("admin.token")) else { continue };
        let api = Api { address: address.parse()?, token };
        let deployed = Client::connect(&api).await?.get(&path).await?["totalElements"].as_u64();
        let deployed = deployed.context("the answer has no totalElements")?;
        if deployed == u64::from(SHARES) {
            return Ok(api);
        }
        if deployed / 10_000 > reported {
            reported = deployed / 10_000;
            say(&format!("  {deployed} shares DEPLOYED"))?;
        }
    }
    anyhow::bail!("the shares did not become DEPLOYED within {SETTLE:?}")
}

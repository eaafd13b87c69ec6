//! What a hostile customer does with a valid account, and without one: all of it at once, until it is told to end.
//!
//! It is a process of its own, which runs when nothing else does (`SCHED_IDLE`), as if it were on another host: a thread of the
//! measuring process could hold what the measuring ones wait for.

use std::{
    env, fmt,
    io::{self, Read as _, Write as _},
    net::{SocketAddr, TcpStream},
    path::Path,
    process::{Child, Command, Stdio},
    sync::atomic::{AtomicBool, AtomicU64, Ordering},
    thread,
    time::{Duration, Instant},
};

use anyhow::{Context, Result, ensure};
use serde_json::{Value, json};
use socket2::{Domain, Socket, Type};
use wicketgate_lab::{Api, Namespace};

use crate::{AGENTS, API, Tenant, measured};

/// In the environment of the process: its orders.
const ORDERS: &str = "TENANTS_HOSTILE";
/// In the environment, if not all is to be done: which kinds of it, like `lists,silent`.
const ONLY: &str = "TENANTS_ONLY";
/// In the environment, if it is to open connections to its share without pause.
const FLOOD: &str = "TENANTS_FLOOD";
const KINDS: [&str; 6] = ["shares", "lists", "checks", "connections", "events", "silent"];

/// Programs of each kind that run at the same time.
const WRITERS: usize = 4;
const READERS: usize = 8;
const CHECKERS: usize = 8;
const CONNECTORS: usize = 2;
/// Between two connections of one program to the share: 1,200 a second of both, a fifth more than `--connection-rate` gives.
const CONNECT_EVERY: Duration = Duration::from_micros(1_666);
/// Connections without a token to each port, at one time.
const SILENT: usize = 300;
/// Between two new ones: more would measure how fast the kernel of this host opens connections for itself.
const SILENT_EVERY: Duration = Duration::from_millis(1);
/// Connections of the share that are held.
const HELD: usize = 4000;
const BOUND: Duration = Duration::from_secs(10);
/// Between the attempts of one that was refused: it does not wait for `Retry-After`.
const AGAIN: Duration = Duration::from_millis(5);

/// Within the process.
struct Hostile {
    /// Texts, by their names.
    orders: Value,
    place: Namespace,
    api: Api,
    door: SocketAddr,
    is_flood: bool,
    ends: AtomicBool,
}

/// A process of it, seen from outside: it ends with its standard input.
pub(crate) struct Program(Child);

impl Program {
    pub(crate) fn attack(place: &Namespace, tenant: &Tenant) -> Result<Self> {
        Self::start(
            &json!({"namespace": place.name(), "token": tenant.token, "frontdoor": tenant.frontdoor, "zid": tenant.zid,
            "tunnel": tenant.tunnel["id"], "share": tenant.share["id"], "door": tenant.door}),
        )
    }

    /// What its share's connections lead to.
    pub(crate) fn target(place: &Namespace, at: SocketAddr) -> Result<Self> {
        Self::start(&json!({"namespace": place.name(), "target": at}))
    }

    fn start(orders: &Value) -> Result<Self> {
        let mut command = Command::new("chrt");
        command.args(["--idle", "0"]).arg(env::current_exe()?).env(ORDERS, orders.to_string());
        let child = command.stdin(Stdio::piped()).stdout(Stdio::piped()).spawn();
        child.map(Self).context("cannot start the hostile customer's program with chrt")
    }

    /// Ends it. Returns what it did.
    pub(crate) fn end(mut self) -> Result<String> {
        drop(self.0.stdin.take());
        let out = self.0.wait_with_output()?;
        ensure!(out.status.success(), "the hostile customer's program failed");
        Ok(String::from_utf8(out.stdout)?.trim().to_owned())
    }
}

/// The part of it that is to be done, if not all.
pub(crate) fn part() -> Result<Option<String>> {
    let Ok(part) = env::var(ONLY) else { return Ok(None) };
    for kind in part.split(',') {
        ensure!(KINDS.contains(&kind), "{ONLY} has {kind}; it may have {}", KINDS.join(", "));
    }
    Ok(Some(part))
}

/// Whether it opens connections as fast as this host can, far beyond what it is given.
pub(crate) fn is_flood() -> bool {
    env::var_os(FLOOD).is_some()
}

/// What this process does if it has orders; `None`: it has none.
pub(crate) fn obey() -> Option<Result<()>> {
    env::var(ORDERS).ok().map(|orders| {
        let orders: Value = serde_json::from_str(&orders)?;
        let text = |name: &str| orders[name].as_str().context("an order is missing");
        let place = Namespace::open(text("namespace")?)?;
        if let Ok(target) = text("target") {
            let listener = place.listen(target.parse()?)?;
            thread::spawn(move || measured::echo(&listener));
            io::copy(&mut io::stdin(), &mut io::sink())?;
            return Ok(());
        }
        let api = Api::new(&place, API, Path::new(text("token")?))?;
        let door = text("door")?.parse()?;
        let harm =
            Hostile { orders, place, api, door, is_flood: is_flood(), ends: AtomicBool::new(false) }.run();
        writeln!(io::stdout(), "{harm}")?;
        Ok(())
    })
}

/// How much of it was done.
#[derive(Debug, Default)]
pub(crate) struct Harm {
    shares: AtomicU64,
    refused: AtomicU64,
    lists: AtomicU64,
    checks: AtomicU64,
    connections: AtomicU64,
    silent: AtomicU64,
    streams: AtomicU64,
}

impl fmt::Display for Harm {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { shares, refused, lists, checks, connections, silent, streams } = self;
        let [shares, refused, lists, checks] =
            [shares, refused, lists, checks].map(|n| n.load(Ordering::Relaxed));
        let [connections, silent, streams] =
            [connections, silent, streams].map(|n| n.load(Ordering::Relaxed));
        write!(
            f,
            "{shares} shares, {lists} lists and {checks} checks ({refused} requests refused), {connections} connections, {silent} \
             silent ones, {streams} event streams"
        )
    }
}

/// Has the threads of a process run only when nothing else does.
pub(crate) fn idle(process: u32) -> Result<()> {
    let status = Command::new("chrt").args(["-ai", "--pid", "0", &process.to_string()]).status()?;
    ensure!(status.success(), "chrt of {process} failed");
    Ok(())
}

impl Hostile {
    /// Until the process that has started this one says no more.
    fn run(&self) -> Harm {
        let harm = Harm::default();
        thread::scope(|scope| {
            scope.spawn(|| {
                let _ = io::copy(&mut io::stdin(), &mut io::sink());
                self.ends.store(true, Ordering::Relaxed);
            });
            let of = |kind: &str, programs: usize| {
                let is_wanted = env::var(ONLY).map_or(true, |wanted| wanted.split(',').any(|it| it == kind));
                0..if is_wanted { programs } else { 0 }
            };
            let harm = &harm;
            for n in of("shares", WRITERS) {
                scope.spawn(move || self.place.enter(|| self.writes(n, harm)));
            }
            for _ in of("lists", READERS) {
                scope.spawn(|| self.place.enter(|| self.lists(harm)));
            }
            for _ in of("checks", CHECKERS) {
                scope.spawn(|| self.place.enter(|| self.checks(harm)));
            }
            for _ in of("connections", CONNECTORS) {
                scope.spawn(|| self.place.enter(|| self.connects(harm)));
            }
            for _ in of("events", 1) {
                scope.spawn(|| self.place.enter(|| self.follows_events(harm)));
            }
            for _ in of("silent", 1) {
                for port in [API, AGENTS] {
                    scope.spawn(move || self.place.enter(|| self.says_nothing(port, harm)));
                }
            }
        });
        harm
    }

    fn order(&self, name: &str) -> &str {
        self.orders[name].as_str().unwrap_or_default()
    }

    fn goes_on(&self) -> bool {
        !self.ends.load(Ordering::Relaxed)
    }

    fn call(&self, method: &str, path: &str, body: Option<&Value>, harm: &Harm) -> bool {
        let path = format!("{}/{path}", self.order("frontdoor"));
        let is_done = self.api.call(method, &path, body).is_ok_and(|reply| reply.is_success());
        if !is_done {
            harm.refused.fetch_add(1, Ordering::Relaxed);
            thread::sleep(AGAIN);
        }
        is_done
    }

    /// Shares up to the quota, with a target that hangs.
    fn writes(&self, writer: usize, harm: &Harm) {
        for n in (writer..50_000).step_by(WRITERS) {
            if !self.goes_on() {
                return;
            }
            let body = json!({"name": format!("share-{n}"), "ipsecTunnelId": self.order("tunnel"),
                "envZId": self.order("zid"), "target": "192.0.2.1:9", "ingressPort": 10_000 + n,
                "tags": {"a": format!("{n}"), "b": "x"}});
            if self.call("POST", "ipsec-shares", Some(&body), harm) {
                harm.shares.fetch_add(1, Ordering::Relaxed);
            }
        }
    }

    fn lists(&self, harm: &Harm) {
        let paths = [
            "ipsec-shares?tags.b=x&sort=updatedAt,desc&size=1000",
            "executions?sort=createdAt,desc&size=1000",
        ];
        for path in paths.iter().cycle() {
            if !self.goes_on() {
                return;
            }
            if self.call("GET", path, None, harm) {
                harm.lists.fetch_add(1, Ordering::Relaxed);
            }
        }
    }

    fn checks(&self, harm: &Harm) {
        let path = format!("ipsec-shares/{}/check", self.order("share"));
        while self.goes_on() {
            if self.call("POST", &path, None, harm) {
                harm.checks.fetch_add(1, Ordering::Relaxed);
            }
        }
    }

    /// Connections that are held, and new ones also when no more are given.
    fn connects(&self, harm: &Harm) {
        let mut held = Vec::new();
        let (begin, mut tried) = (Instant::now(), 0);
        while self.goes_on() {
            match self.place.connect(self.door, BOUND) {
                Ok(stream) if held.len() < HELD / CONNECTORS => held.push(stream),
                Ok(_) => {}
                Err(_) => thread::sleep(AGAIN),
            }
            harm.connections.fetch_add(1, Ordering::Relaxed);
            tried += 1;
            if !self.is_flood {
                thread::sleep((CONNECT_EVERY * tried).saturating_sub(begin.elapsed()));
            }
        }
    }

    fn follows_events(&self, harm: &Harm) {
        let mut held = Vec::new();
        while self.goes_on() {
            if held.len() < 64
                && let Ok(stream) = self.begin_stream()
            {
                harm.streams.fetch_add(1, Ordering::Relaxed);
                held.push(stream);
            }
            thread::sleep(Duration::from_millis(50));
        }
    }

    fn begin_stream(&self) -> Result<TcpStream> {
        let mut stream = self.place.connect(API, BOUND)?;
        stream.set_read_timeout(Some(BOUND))?;
        let head = self.api.head("GET", &format!("{}/events", self.order("frontdoor")));
        stream.write_all(head.as_bytes())?;
        let mut first = [0; 12];
        stream.read_exact(&mut first)?;
        ensure!(first.ends_with(b"200"), "the stream was refused");
        Ok(stream)
    }

    /// From an address of its own, as its hosts have.
    fn connect_elsewhere(&self, to: SocketAddr) -> Result<TcpStream> {
        self.place.enter(|| {
            let socket = Socket::new(Domain::IPV4, Type::STREAM, None)?;
            socket.bind(&SocketAddr::from(([127, 0, 0, 2], 0)).into())?;
            socket.connect_timeout(&to.into(), BOUND)?;
            Ok(socket.into())
        })?
    }

    fn says_nothing(&self, port: SocketAddr, harm: &Harm) {
        let mut held = std::collections::VecDeque::new();
        while self.goes_on() {
            match self.connect_elsewhere(port) {
                Ok(stream) => held.push_back(stream),
                Err(_) => thread::sleep(AGAIN),
            }
            harm.silent.fetch_add(1, Ordering::Relaxed);
            thread::sleep(SILENT_EVERY);
            if held.len() > SILENT {
                held.pop_front();
            }
        }
    }
}

//! A load of requests, and what it took: as little of a client as it takes, since it runs on the server's cores.

use std::{
    fs,
    io::Write as _,
    net::SocketAddr,
    process::{Child, ChildStdin, Command, Stdio},
    time::{Duration, Instant},
};

use anyhow::{Context, Result, ensure};
use serde_json::Value;
use tokio::{
    io::{AsyncReadExt as _, AsyncWriteExt as _},
    net::TcpStream,
    task::JoinSet,
    time::timeout,
};

/// A request that takes longer has failed.
const BOUND: Duration = Duration::from_secs(30);
/// For the server to stop in good order.
const STOP: Duration = Duration::from_secs(20);

/// Whom to ask, and as whom.
#[derive(Debug, Clone)]
pub(crate) struct Api {
    pub(crate) address: SocketAddr,
    pub(crate) token: String,
}

/// The server's process. It ends when this program does, however that ends.
pub(crate) struct Served {
    process: Child,
    stdin: Option<ChildStdin>,
}

impl Served {
    /// This program once more, with `serve`.
    pub(crate) fn start() -> Result<Self> {
        let mut process = Command::new(std::env::current_exe()?)
            .arg("serve")
            .env("RUST_LOG", "warn")
            .stdin(Stdio::piped())
            .spawn()?;
        Ok(Self { stdin: process.stdin.take(), process })
    }

    /// `false` once it has ended.
    pub(crate) fn runs(&mut self) -> Result<bool> {
        Ok(self.process.try_wait()?.is_none())
    }

    /// Resident, MiB: now, and the most it has been.
    pub(crate) fn memory(&self) -> Result<(u64, u64)> {
        let status = fs::read_to_string(format!("/proc/{}/status", self.process.id()))?;
        let of = |name: &str| -> Result<u64> {
            let line = status.lines().find_map(|l| l.strip_prefix(name)).context("no such line")?;
            Ok(line.trim().trim_end_matches("kB").trim().parse::<u64>()? / 1024)
        };
        Ok((of("VmRSS:")?, of("VmHWM:")?))
    }

    /// What it has used of all processors.
    fn processor(&self) -> Result<Duration> {
        let stat = fs::read_to_string(format!("/proc/{}/stat", self.process.id()))?;
        // proc_pid_stat(5): fields 14 and 15, in ticks of 10 ms; the name before them may hold spaces.
        let fields = stat.rsplit_once(')').context("no stat")?.1.split_whitespace().skip(11).take(2);
        let ticks: u64 = fields.map(str::parse::<u64>).sum::<Result<u64, _>>()?;
        Ok(Duration::from_millis(ticks * 10))
    }

    pub(crate) async fn load(
        &self,
        api: &Api,
        clients: usize,
        count: usize,
        request: impl Fn(usize) -> Request,
    ) -> Result<Times> {
        let before = self.processor()?;
        let times = load(api, clients, count, request).await?;
        Ok(Times { processor: self.processor()? - before, ..times })
    }

    pub(crate) fn stop(mut self) -> Result<()> {
        drop(self.stdin.take());
        let begin = Instant::now();
        while begin.elapsed() < STOP {
            if let Some(ended) = self.process.try_wait()? {
                ensure!(ended.success(), "the server ended with {ended}");
                return Ok(());
            }
            std::thread::sleep(Duration::from_millis(20));
        }
        anyhow::bail!("the server did not stop within {STOP:?}")
    }
}

impl Drop for Served {
    fn drop(&mut self) {
        let _ = self.process.kill();
        let _ = self.process.wait();
    }
}

pub(crate) enum Request {
    Get(String),
    Post(String, String),
}

impl Request {
    pub(crate) fn path(self) -> String {
        match self {
            Self::Get(path) | Self::Post(path, _) => path,
        }
    }
}

/// How long each request took, shortest first, and all of them.
pub(crate) struct Times {
    each: Vec<Duration>,
    all: Duration,
    /// What the server used of its processors.
    processor: Duration,
}

impl Times {
    pub(crate) fn at(&self, percent: usize) -> Duration {
        self.each[(self.each.len() - 1) * percent / 100]
    }

    #[expect(clippy::cast_precision_loss, reason = "thousands")]
    pub(crate) fn a_second(&self) -> f64 {
        self.each.len() as f64 / self.all.as_secs_f64()
    }

    pub(crate) fn tell(&self, what: &str) -> Result<()> {
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
pub(crate) async fn load(
    api: &Api,
    clients: usize,
    count: usize,
    request: impl Fn(usize) -> Request,
) -> Result<Times> {
    let mut running = JoinSet::new();
    let begin = Instant::now();
    for client in 0..clients {
        let requests: Vec<_> = (client..count).step_by(clients).map(&request).collect();
        let mut connection = Client::connect(api).await?;
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

/// HTTP/1.1 on a kept connection.
pub(crate) struct Client {
    stream: TcpStream,
    head: String,
    buffer: Vec<u8>,
}

impl Client {
    pub(crate) async fn connect(api: &Api) -> Result<Self> {
        let stream = timeout(BOUND, TcpStream::connect(api.address)).await??;
        stream.set_nodelay(true)?;
        let Api { address, token } = api;
        let head = format!("HTTP/1.1\r\nhost: {address}\r\nauthorization: Bearer {token}\r\n");
        Ok(Self { stream, head, buffer: Vec::new() })
    }

    pub(crate) async fn get(&mut self, path: &str) -> Result<Value> {
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

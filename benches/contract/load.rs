//! A load generator and its measurements. The client is minimal, since it shares the cores with the server.

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
/// The longest wait for an orderly stop of the server.
const STOP: Duration = Duration::from_secs(20);

/// The address of the API, and the token.
#[derive(Debug, Clone)]
pub(crate) struct Api {
    pub(crate) address: SocketAddr,
    pub(crate) token: String,
}

/// The server's process. It ends with this program, even if this program is killed.
pub(crate) struct Served {
    process: Child,
    stdin: Option<ChildStdin>,
}

impl Served {
    /// Runs this program again with the argument `serve`.
    pub(crate) fn start() -> Result<Self> {
        let mut process = Command::new(std::env::current_exe()?)
            .arg("serve")
            .env("RUST_LOG", "warn")
            .stdin(Stdio::piped())
            .spawn()?;
        Ok(Self { stdin: process.stdin.take(), process })
    }

    /// Whether the process still runs.
    pub(crate) fn runs(&mut self) -> Result<bool> {
        Ok(self.process.try_wait()?.is_none())
    }

    /// The resident memory in MiB: now, and at its peak.
    pub(crate) fn memory(&self) -> Result<(u64, u64)> {
        let status = fs::read_to_string(format!("/proc/{}/status", self.process.id()))?;
        let of = |name: &str| -> Result<u64> {
            let line =
                status.lines().find_map(|l| l.strip_prefix(name)).context("the status has no such line")?;
            Ok(line.trim().trim_end_matches("kB").trim().parse::<u64>()? / 1024)
        };
        Ok((of("VmRSS:")?, of("VmHWM:")?))
    }

    /// The processor time that it has used on all cores.
    fn processor(&self) -> Result<Duration> {
        let stat = fs::read_to_string(format!("/proc/{}/stat", self.process.id()))?;
        // proc_pid_stat(5): fields 14 and 15, in ticks of 10 ms. The name before them may contain spaces.
        let fields = stat
            .rsplit_once(')')
            .context("the stat file has no process name")?
            .1
            .split_whitespace()
            .skip(11)
            .take(2);
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

/// The durations of the requests, shortest first, and of the whole measurement.
pub(crate) struct Times {
    each: Vec<Duration>,
    all: Duration,
    /// The processor time of the server.
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

    pub(crate) fn print(&self, what: &str) -> Result<()> {
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

/// Sends `count` requests from several clients. Each has one connection and one request at a time.
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

/// An HTTP/1.1 client with one persistent connection.
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

    /// Sends a request and returns the body of a successful answer.
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

/// The lengths of a complete head and of its body. Returns `None` while the head is incomplete.
fn head(bytes: &[u8]) -> Result<Option<(usize, usize)>> {
    let Some(end) = bytes.windows(4).position(|w| w == b"\r\n\r\n") else { return Ok(None) };
    let text = std::str::from_utf8(&bytes[..end])?;
    ensure!(text.starts_with("HTTP/1.1 2"), "{}", String::from_utf8_lossy(bytes));
    let length = text
        .lines()
        .find_map(|l| l.strip_prefix("content-length: "))
        .context("the answer has no content-length")?;
    Ok(Some((end + 4, length.trim().parse()?)))
}

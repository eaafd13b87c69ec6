//! What happens around a browser, ordered by its tests: one JSON object a connection to a Unix socket, answered by one.
//!
//! | order | effect |
//! |---|---|
//! | `{"do": "agent", "code": "ENR-…"}` | an agent starts with the code |
//! | `{"do": "end-agent"}` | the last agent that was started ends |
//! | `{"do": "site", "config": "…"}` | the site's strongSwan starts with the configuration, or loads it and connects again |
//! | `{"do": "end-site"}` | the site's strongSwan is killed |
//! | `{"do": "target", "port": 7002}` | a service that sends "here" starts in the private network |
//! | `{"do": "backup"}` | a backup is made |
//! | `{"do": "ask", "to": "100.64.0.1:9000"}` | a client in the site connects; the answer has what it received as `said` |

use std::{
    io::{BufRead as _, BufReader, ErrorKind, Write as _},
    net::SocketAddr,
    os::unix::net::{UnixListener, UnixStream},
    path::Path,
    process::{Child, ExitStatus},
    thread::sleep,
    time::{Duration, Instant},
};

use anyhow::{Context as _, Result, bail};
use serde_json::{Value, json};
use wicketgate_lab::{Agent, Site};

use crate::{
    e2e::backup::{done, shown},
    harness::{
        PATIENCE, World,
        targets::{self, ask},
        text,
    },
};

/// How often it looks for an order, and whether the browser's tests have ended.
const LOOK: Duration = Duration::from_millis(20);

pub(super) struct Bench<'a> {
    world: &'a World,
    orders: UnixListener,
    agents: Vec<Agent>,
    started: usize,
    site: Option<Site>,
}

impl<'a> Bench<'a> {
    pub(super) fn new(world: &'a World, socket: &Path) -> Result<Self> {
        let orders = UnixListener::bind(socket)?;
        orders.set_nonblocking(true)?;
        Ok(Self { world, orders, agents: Vec::new(), started: 0, site: None })
    }

    /// Carries out orders until `tests` ends.
    pub(super) fn serve(&mut self, mut tests: Child, bound: Duration) -> Result<ExitStatus> {
        let end = Instant::now() + bound;
        loop {
            if let Some(status) = tests.try_wait()? {
                return Ok(status);
            }
            if Instant::now() > end {
                tests.kill()?;
                tests.wait()?;
                bail!("the browser's tests took longer than {} s", bound.as_secs());
            }
            match self.orders.accept() {
                Ok((stream, _)) => self.answer(stream)?,
                Err(error) if error.kind() == ErrorKind::WouldBlock => sleep(LOOK),
                Err(error) => return Err(error.into()),
            }
        }
    }

    fn answer(&mut self, mut stream: UnixStream) -> Result<()> {
        stream.set_nonblocking(false)?;
        stream.set_read_timeout(Some(PATIENCE))?;
        let mut line = String::new();
        BufReader::new(&stream).read_line(&mut line)?;
        let order: Value = serde_json::from_str(&line)?;
        let answer = self.carry_out(&order).unwrap_or_else(|error| json!({"error": format!("{error:#}")}));
        // The test may have ended.
        let _ = writeln!(stream, "{answer}");
        Ok(())
    }

    fn carry_out(&mut self, order: &Value) -> Result<Value> {
        match text(order, "do")? {
            "agent" => {
                self.started += 1;
                let name = format!("agent-{}", self.started);
                self.agents.push(self.world.start_agent(&name, Some(text(order, "code")?))?);
            }
            "end-agent" => drop(self.agents.pop().context("no agent runs")?),
            "site" => self.configure(text(order, "config")?)?,
            "end-site" => self.site.as_mut().context("no site runs")?.kill()?,
            "target" => {
                let port = order["port"].as_u64().and_then(|port| port.try_into().ok()).context("no port")?;
                targets::here(&self.world.private, self.world.target(port))?;
            }
            "backup" => {
                let file = self.world.lab.path("backup");
                done(&["backup", shown(&file)?], &self.world.gateway.data)?;
            }
            "ask" => {
                let to: SocketAddr = text(order, "to")?.parse()?;
                let site = self.site.as_ref().context("no site runs")?;
                return Ok(json!({"said": ask(&site.namespace, to, PATIENCE)?}));
            }
            other => bail!("there is no order {other}"),
        }
        Ok(json!({}))
    }

    fn configure(&mut self, config: &str) -> Result<()> {
        match &mut self.site {
            Some(site) => {
                site.load(config)?;
                site.try_again().map(drop)
            }
            none => none.insert(self.world.site(0)?).start(&self.world.lab, config),
        }
    }
}

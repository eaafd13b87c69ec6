//! `kill -9` during writes: every write that was answered with 202 survives, every surviving share works, and nothing
//! else remains.

use std::{
    collections::BTreeMap,
    net::SocketAddr,
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering},
    },
    thread,
    time::Duration,
};

use anyhow::{Context, Result, bail, ensure};
use serde_json::{Value, json};
use wicketgate_lab::{Api, Reply};
use wicketgate_system::Mutex;

use crate::harness::{
    World, door, share_body,
    targets::{ask, greeting},
    text,
};

/// The number of kills.
const ROUNDS: usize = 10;
/// The most writes in a round. Each round is killed before its last write.
const WRITES: usize = 200;

/// The longest time from the first answer after a restart until all statuses are correct.
const RECOVERY: Duration = Duration::from_secs(5);

/// The bound of one connection.
const TRY: Duration = Duration::from_secs(2);

const TARGETS: [(u16, &str); 3] = [(7001, "one"), (7002, "two"), (7003, "three")];

/// The state of a share that the server accepted last. If the server died during the last write, the state before or
/// after it is correct.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Wanted {
    id: String,
    tunnel: usize,
    port: u16,
    target: usize,
    deleted: bool,
}

/// All shares that were accepted, by name, and the one write that was not answered.
#[derive(Debug, Default)]
struct Book {
    shares: BTreeMap<String, Wanted>,
    unanswered: Option<String>,
    /// Tunnel and ingress port of former listeners, which must be closed.
    old_doors: Vec<(usize, u16)>,
}

#[test]
fn every_accepted_write_survives_ten_kills_and_every_status_is_correct_within_five_seconds() -> Result<()> {
    let mut world = World::loopback().start()?;
    for (port, words) in TARGETS {
        greeting(&world.private, world.target(port), words)?;
    }
    let (mut agent, zid) = world.agent("agent")?;
    let tunnels = [world.tunnel(0)?, world.tunnel(1)?];
    let mut book = Book::default();
    let mut next_port = 10_000;
    for round in 0..ROUNDS {
        // Each round kills the server at another point, from the first writes to the last.
        let kill_after = 5 + round * (WRITES - 15) / (ROUNDS - 1);
        let accepted = Arc::new(AtomicUsize::new(0));
        let shared = Arc::new(Mutex::new(std::mem::take(&mut book)));
        let writer = Writer {
            api: world.gateway.api.clone(),
            shares: world.gateway.at("ipsec-shares"),
            targets: TARGETS.map(|(port, _)| world.target(port)),
            tunnels: tunnels.clone(),
            zid: zid.clone(),
            round,
        };
        let writing = thread::spawn({
            let (shared, accepted) = (Arc::clone(&shared), Arc::clone(&accepted));
            move || writer.write(&shared, &accepted, &mut next_port).map(|()| next_port)
        });
        world.lab.until("the writes before the kill are accepted", Duration::from_secs(60), || {
            let enough = accepted.load(Ordering::Relaxed) >= kill_after || writing.is_finished();
            Ok(enough.then_some(()))
        })?;
        world.gateway.process.kill()?;
        next_port = writing.join().map_err(|_| anyhow::anyhow!("the writer panicked"))??;
        book = std::mem::take(&mut *shared.lock());

        world.restart()?;
        agent.process.alive()?;
        verify(&world, &tunnels, &mut book)
            .with_context(|| format!("round {round}, killed after {kill_after} writes"))
            .with_context(|| format!("{}\n{}", world.gateway.process.tail(), agent.process.tail()))?;
    }
    world.end()
}

struct Writer {
    api: Api,
    shares: String,
    targets: [SocketAddr; 3],
    tunnels: [Value; 2],
    zid: String,
    round: usize,
}

impl Writer {
    /// Creates shares with half of the writes, updates with a quarter, and deletes with a quarter. Returns without an
    /// error when the server is gone.
    fn write(&self, book: &Mutex<Book>, accepted: &AtomicUsize, next_port: &mut u16) -> Result<()> {
        for n in 0..WRITES {
            let target = n % self.targets.len();
            let mut book = book.lock();
            let old = book.shares.iter().find(|(_, s)| !s.deleted).map(|(n, s)| (n.clone(), s.clone()));
            let (name, new, reply) = match (n % 4, old) {
                (2, Some((name, old))) => {
                    let new = Wanted { port: *next_port, target, ..old.clone() };
                    let body = json!({"ingressPort": new.port, "target": self.targets[target].to_string()});
                    book.old_doors.push((old.tunnel, old.port));
                    let reply = self.api.call("PATCH", &format!("{}/{}", self.shares, old.id), Some(&body));
                    (name, new, reply)
                }
                (3, Some((name, old))) => {
                    book.old_doors.push((old.tunnel, old.port));
                    let reply = self.api.call("DELETE", &format!("{}/{}", self.shares, old.id), None);
                    (name, Wanted { deleted: true, ..old }, reply)
                }
                _ => {
                    let name = format!("share-{}-{n}", self.round);
                    let (tunnel, port) = (n % self.tunnels.len(), *next_port);
                    let body =
                        share_body(&name, &self.tunnels[tunnel], &self.zid, self.targets[target], port);
                    let reply = self.api.call("POST", &self.shares, Some(&body));
                    (name, Wanted { id: String::new(), tunnel, port, target, deleted: false }, reply)
                }
            };
            *next_port += 1;
            match reply {
                Ok(Reply { status: 202, body }) => {
                    let answer: Value = serde_json::from_str(&body)?;
                    let new = Wanted { id: text(&answer, "id")?.to_owned(), ..new };
                    book.shares.insert(name, new);
                    accepted.fetch_add(1, Ordering::Relaxed);
                }
                Ok(reply) => bail!("write {n} on {name}: {reply}"),
                // The connection broke: the write may or may not have been committed.
                Err(_) => {
                    book.unanswered = Some(name);
                    return Ok(());
                }
            }
        }
        Ok(())
    }
}

/// Checks that all shares are in their accepted state within [`RECOVERY`].
fn verify(world: &World, tunnels: &[Value; 2], book: &mut Book) -> Result<()> {
    settle(world, book)?;
    // At first, a status may be that from before the kill, until the agent has reconnected.
    world.lab.until("every status is correct", RECOVERY, || compare(world, tunnels, book).map(Some))
}

/// Compares the accepted shares with those of the API, and both with the targets that a client reaches.
fn compare(world: &World, tunnels: &[Value; 2], book: &Book) -> Result<()> {
    let live = world.gateway.list("ipsec-shares")?;
    let not: Vec<_> = live.iter().filter(|s| s["status"] != "DEPLOYED").collect();
    if let Some(first) = not.first() {
        bail!("{} of {} shares are not DEPLOYED, such as {first}", not.len(), live.len());
    }
    let wanted = book.shares.iter().filter(|(_, s)| !s.deleted);
    for share in &live {
        let name = text(share, "name")?;
        let known = book.shares.get(name).is_some_and(|s| !s.deleted);
        ensure!(known, "{share} exists but should not: {:?}", book.shares.get(name));
    }
    for (name, wanted) in wanted {
        let share = live.iter().find(|s| s["name"] == name.as_str());
        let share = share.with_context(|| format!("{name} was accepted but does not exist"))?;
        let (port, words) = TARGETS[wanted.target];
        ensure!(share["target"] == world.target(port).to_string(), "{name} has target {}", share["target"]);
        ensure!(share["ingressPort"] == wanted.port, "{name} is on port {}", share["ingressPort"]);
        let said = ask(&world.outside, door(&tunnels[wanted.tunnel], wanted.port)?, TRY)
            .with_context(|| format!("{name} is DEPLOYED but does not work"))?;
        ensure!(said == words, "{name} leads to {said:?} instead of {words:?}");
    }
    for (name, gone) in book.shares.iter().filter(|(_, s)| s.deleted) {
        let share = world.gateway.api.get(&world.gateway.at(&format!("ipsec-shares/{}", gone.id)))?;
        ensure!(share["status"] == "DELETED", "{name} was deleted but is {}", share["status"]);
    }
    for &(tunnel, port) in &book.old_doors {
        let left = world.outside.connect(door(&tunnels[tunnel], port)?, TRY);
        ensure!(left.is_err(), "port {port} is still open");
    }
    Ok(())
}

/// Reads from the API whether the unanswered write was committed, and updates the book.
fn settle(world: &World, book: &mut Book) -> Result<()> {
    let Some(name) = book.unanswered.take() else { return Ok(()) };
    let live = world.gateway.list("ipsec-shares")?;
    // A share whose DELETE was committed is still listed while it is DELETING.
    let found = live.iter().find(|s| s["name"] == name.as_str() && s["status"] != "DELETING");
    match (found, book.shares.get_mut(&name)) {
        // It was created or updated without an answer, or its DELETE was not committed.
        (Some(share), _) => {
            let text = |key| text(share, key).map(str::to_owned);
            let target =
                TARGETS.iter().position(|(port, _)| share["target"] == world.target(*port).to_string());
            let tunnels = world.gateway.list("ipsec-tunnels")?;
            let tunnel = tunnels.iter().position(|t| t["id"] == share["ipsecTunnelId"]);
            let port = share["ingressPort"].as_u64().and_then(|p| u16::try_from(p).ok());
            let found = Wanted {
                id: text("id")?,
                tunnel: tunnel.context("an unknown tunnel")?,
                port: port.context("no port")?,
                target: target.context("an unknown target")?,
                deleted: false,
            };
            book.old_doors.retain(|door| *door != (found.tunnel, found.port));
            book.shares.insert(name, found);
        }
        (None, Some(known)) => known.deleted = true,
        (None, None) => {}
    }
    Ok(())
}

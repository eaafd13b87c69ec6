//! An agent whose key somebody else has, who says with it whatever the protocol permits, as fast as the line takes it.

use std::{
    fs,
    path::Path,
    sync::atomic::{AtomicBool, Ordering},
    thread,
    time::{Duration, Instant},
};

use anyhow::{Context as _, Result, ensure};
use tokio::{net::TcpStream, runtime::Builder, time::timeout};
use wicketgate_model::{EnrolGrant, Generation, ShareId};
use wicketgate_transport::{
    control::{Control, FromAgent, ToAgent},
    key::PrivateKey,
    tls::AgentTls,
    trust::CaCertificate,
};

use crate::harness::{
    PATIENCE, World, door,
    targets::{ask, greeting},
    text,
};

/// Shares of the hostile agent's environment.
const SHARES: u16 = 20;
/// How long it speaks.
const LASTS: Duration = Duration::from_secs(15);
/// For what others do meanwhile: connections, and a new share.
const SOON: Duration = Duration::from_secs(5);

/// A control connection with the identity of the agent's state directory.
async fn connect(state: &Path, line: std::net::TcpStream) -> Result<Control> {
    let grant: EnrolGrant = serde_json::from_slice(&fs::read(state.join("identity.json"))?)?;
    let key = PrivateKey::load_or_create(&state.join("agent.key"))?;
    let tls = AgentTls::new(&CaCertificate::from_der(grant.ca_certificate)?, key, grant.certificate)?;
    line.set_nonblocking(true)?;
    let mut control = tls.connect_control(TcpStream::from_std(line)?).await?;
    let (version, name) = ("1".to_owned(), "hostile".to_owned());
    let (takes_duties, takes_over, learns_removal, learns_gateways) = (false, true, false, false);
    let hello = FromAgent::Hello { version, name, takes_duties, takes_over, learns_removal, learns_gateways };
    control.send(&hello).await?;
    let ToAgent::Welcome { .. } = control.receive().await? else { anyhow::bail!("it was not welcomed") };
    Ok(control)
}

/// Serves and refuses all shares in turn, until the end of `is_on`. Returns how often it has.
async fn flap(mut control: Control, shares: &[ShareId], is_on: &AtomicBool) -> Result<u32> {
    let generation = Generation::FIRST;
    for turn in 0.. {
        for share in shares.iter().copied() {
            let refuses = turn % 2 == 0;
            let reason = format!("not {turn}");
            let message = match refuses {
                true => FromAgent::Refused { share, generation, reason },
                false => FromAgent::Ack { share, generation },
            };
            // The gateway lets it wait.
            while timeout(Duration::from_millis(100), control.send(&message)).await.is_err() {
                if !is_on.load(Ordering::Relaxed) {
                    return Ok(turn);
                }
            }
        }
        if !is_on.load(Ordering::Relaxed) {
            return Ok(turn);
        }
    }
    Ok(u32::MAX)
}

#[test]
fn an_agent_that_serves_and_refuses_in_turn_costs_others_nothing_and_the_server_little() -> Result<()> {
    let world = World::loopback().start()?;
    greeting(&world.private, world.target(7001), "here")?;
    let (_honest, own) = world.agent("honest")?;
    let (mut hostile, other) = world.agent("hostile")?;
    let tunnel = world.tunnel(0)?;
    world.share("own", &tunnel, &own, world.target(7001), 9000)?;
    let mut ids = Vec::new();
    for n in 0..SHARES {
        let share = world.share(&format!("flaps-{n}"), &tunnel, &other, world.target(7001), 9100 + n)?;
        ids.push(text(&share, "id")?.to_owned());
    }
    hostile.process.stop(PATIENCE)?;
    let shares = ids.iter().map(|id| Ok(id.parse()?)).collect::<Result<Vec<ShareId>>>()?;
    let line = world.private.connect(world.agents_dial(), PATIENCE)?;
    let is_on = AtomicBool::new(true);
    let turns = thread::scope(|scope| {
        let flood = scope.spawn(|| {
            Builder::new_current_thread().enable_all().build()?.block_on(async {
                let control = connect(&hostile.state, line).await?;
                flap(control, &shares, &is_on).await
            })
        });
        let meanwhile = others_work(&world, &tunnel, &own);
        is_on.store(false, Ordering::Relaxed);
        let turns = flood.join().ok().context("the flood has panicked")??;
        meanwhile.map(|()| turns)
    })?;
    let mut changes = Vec::new();
    for id in &ids {
        let events = world.events("ipsec-share", id)?;
        let statuses: Vec<_> = events.iter().map(|event| event["status"].clone()).collect();
        changes.push(statuses.windows(2).filter(|pair| pair[0] != pair[1]).count());
        if changes.len() == 3 {
            break;
        }
    }
    eprintln!("{turns} turns; changes of status of three shares: {changes:?}");
    ensure!(turns > 20, "it has said little: {turns} turns");
    // NEW, DEPLOYED, the end of the agent, and those of a row that flaps: three at once, and then two in ten seconds.
    ensure!(changes.iter().all(|changes| *changes <= 12), "{changes:?} changes");
    let said = world.gateway.process.said();
    let told = said.matches("status changed").count();
    ensure!(told <= usize::from(SHARES) * 16, "{told} lines of the log");
    world.end()
}

/// While the other agent speaks, connections of another customer are served, and a new share is soon.
fn others_work(world: &World, tunnel: &serde_json::Value, own: &str) -> Result<()> {
    let (begin, mut slowest, mut n) = (Instant::now(), Duration::ZERO, 0);
    while begin.elapsed() < LASTS {
        let asked = Instant::now();
        ensure!(ask(&world.private, door(tunnel, 9000)?, SOON)? == "here");
        slowest = slowest.max(asked.elapsed());
        if n % 20 == 0 && n < 60 {
            let created = Instant::now();
            world.share(&format!("new-{n}"), tunnel, own, world.target(7001), 9200 + n)?;
            ensure!(created.elapsed() < SOON, "a new share took {:?}", created.elapsed());
        }
        n += 1;
        thread::sleep(Duration::from_millis(50));
    }
    ensure!(slowest < SOON, "of {n} connections, the slowest took {slowest:?}");
    Ok(())
}

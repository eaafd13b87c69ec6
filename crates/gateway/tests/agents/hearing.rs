//! Agents that do not answer pings: those that are silent, and those whose line is full.

use super::{
    lab::{Client, Lab, share_id, soon, unused_address},
    puppet::{Puppet, acknowledge},
};
use std::{
    sync::atomic::AtomicU64,
    time::{Duration, Instant},
};
use tokio::{io::AsyncWriteExt, net::TcpStream};
use wicketgate_gateway::agents::AgentStanding;
use wicketgate_model::{Reason, ShareDesired};
use wicketgate_transport::{
    abort::Abort,
    carrier::Carrier,
    control::Control,
    relay::{Counters, Ends, relay},
    reset_on_drop::ResetOnDrop,
};

/// From the last sign of life until a share says so: 4.5 s, within the 5 s that users are promised, and a busy machine.
const NAMED: Duration = Duration::from_secs(7);
/// Longer than that.
const WATCHED: Duration = Duration::from_secs(7);

fn is_silent(standing: &AgentStanding) -> bool {
    standing.problem.as_ref().is_some_and(|problem| problem.reason == Reason::AgentSilent)
}

/// An agent that has one share, and from now on reads and sends nothing on its control connection.
async fn speechless(lab: &Lab) -> (Puppet, Control) {
    let puppet = Puppet::new(lab, 5);
    let mut control = puppet.connect().await.unwrap();
    lab.agents.assign(&lab.share(1, 1, unused_address().await));
    acknowledge(&mut control, share_id(1), 1).await;
    lab.ready(1, 1).await;
    (puppet, control)
}

/// A client's stream over this carrier, and the target's end of it.
async fn stream(lab: &Lab, mut carrier: Carrier) -> (Client, TcpStream) {
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let target = TcpStream::connect(listener.local_addr().unwrap()).await.unwrap();
    let dialled = listener.accept().await.unwrap().0;
    tokio::spawn(async move {
        carrier.next_open().await.unwrap();
        carrier.answer(Ok(())).await.unwrap();
        let (counted, never) = (AtomicU64::new(0), Abort::default());
        let counters = Counters::of_bytes(&counted, &counted);
        let ends = Ends { idle: None, finish: &never, abort: &never };
        relay(ResetOnDrop::new(dialled), carrier, counters, ends).await
    });
    (soon("a stream", lab.connect(1)).await.unwrap(), target)
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_agent_whose_streams_bring_bytes_is_not_silent() {
    let lab = Lab::new().await;
    let (puppet, _control) = speechless(&lab).await;
    let (_client, mut target) = stream(&lab, puppet.carrier().await.unwrap()).await;
    let begin = Instant::now();
    while begin.elapsed() < WATCHED {
        target.write_all(b"a piece of a download").await.unwrap();
        let standing = lab.agents.standing(share_id(1));
        assert_eq!(standing.problem, None, "after {:?}", begin.elapsed());
        tokio::time::sleep(Duration::from_millis(200)).await;
    }
    let last = Instant::now();
    lab.standing(1, "silent", is_silent).await;
    assert!(last.elapsed() < NAMED, "after {:?}", last.elapsed());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_message_that_an_agent_does_not_read_delays_no_decision() {
    /// Far more bytes of assignments than the sockets between the two hold.
    const SHARES: u128 = 20_000;
    let lab = Lab::new().await;
    let (_puppet, _control) = speechless(&lab).await;
    let last = Instant::now();
    let share = lab.share(2, 1, unused_address().await);
    for n in 2..SHARES {
        lab.agents.assign(&ShareDesired { id: share_id(n), ..share.clone() });
    }
    lab.standing(1, "silent", is_silent).await;
    assert!(last.elapsed() < NAMED, "after {:?}", last.elapsed());
    lab.standing(1, "offline", |standing| {
        standing.problem.as_ref().is_some_and(|problem| problem.reason == Reason::AgentOffline)
    })
    .await;
}

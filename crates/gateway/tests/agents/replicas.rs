//! Two agents of one environment, and two connections of one agent.

use super::{
    lab::{Lab, echo, exchange, share_id, soon},
    puppet::{Puppet, acknowledge, answer_pings},
};
use std::sync::{
    Arc,
    atomic::{AtomicUsize, Ordering},
};
use wicketgate_gateway::agents::DialFailure;
use wicketgate_model::{AgentId, Generation};
use wicketgate_transport::{
    control::{FromAgent, TargetHealth, ToAgent},
    frame::{RefusalReason, StreamRefusal},
};

/// Streams that make an agent more loaded than another one without streams, whatever their ages: a new one counts a tenth.
const MORE_LOADED: usize = 10;

#[tokio::test]
async fn a_connection_falls_over_to_the_next_replica_when_a_dial_fails() {
    let lab = Lab::new().await;
    let (target, _) = echo().await;
    let state = tempfile::tempdir().unwrap();
    // Of two idle agents, the one with the lower id is picked first: the puppet.
    let puppet = Puppet::new(&lab, 5);
    let mut control = puppet.connect().await.unwrap();
    lab.agents.assign(&lab.share(1, 1, target));
    acknowledge(&mut control, share_id(1), 1).await;
    lab.ready(1, 1).await;
    let control = answer_pings(control);
    let mut carrier = puppet.carrier().await.unwrap();

    // Without another agent, its refusal is the result.
    let refuse = async {
        let open = carrier.next_open().await.unwrap();
        assert_eq!((open.share, open.generation), (share_id(1), Generation::new(1)));
        let refusal =
            StreamRefusal { reason: RefusalReason::ConnectionRefused, text: "not from here".into() };
        carrier.answer(Err(&refusal)).await.unwrap();
        carrier
    };
    let (alone, mut carrier) = soon("a refusal", async { tokio::join!(lab.connect(1), refuse) }).await;
    let failure = alone.map(|_| ()).unwrap_err();
    let DialFailure::Refused(refusal) = failure else { panic!("{failure:?}") };
    assert_eq!(refusal.reason, RefusalReason::ConnectionRefused);

    // An agent that does not reach the target is picked last, and does not impair the share.
    let health = TargetHealth::Unreachable("not from here".into());
    let report =
        |health| FromAgent::Health { share: share_id(1), health, agent_exhausted: false, cause: None };
    control.send(report(health)).await.unwrap();
    lab.standing(1, "unreachable", |s| s.problem.is_some()).await;
    let agent = lab.start(state.path(), Some(&lab.code), &[]);
    lab.standing(1, "reached by the second agent", |s| s.ready.is_some() && s.problem.is_none()).await;
    let mut held = Vec::new();
    for _ in 0..MORE_LOADED {
        held.push(lab.connect(1).await.unwrap());
    }

    // An agent that reports the target reachable is picked by its load; a refusal is retried at the other one.
    let asked = Arc::new(AtomicUsize::new(0));
    let count = Arc::clone(&asked);
    let puppet_carrier = tokio::spawn(async move {
        while carrier.next_open().await.is_ok() {
            count.fetch_add(1, Ordering::Relaxed);
            let refusal = StreamRefusal { reason: RefusalReason::TimedOut, text: "not from here".into() };
            carrier.answer(Err(&refusal)).await.unwrap();
        }
    });
    control.send(report(TargetHealth::Ok)).await.unwrap();
    soon("the puppet to be asked", async {
        while asked.load(Ordering::Relaxed) < 3 {
            let mut client = lab.connect(1).await.unwrap();
            assert_eq!(exchange(&mut client.tcp, b"over").await, b"over");
            client.end().await.unwrap();
        }
    })
    .await;
    puppet_carrier.abort();
    for client in held {
        client.end().await.unwrap();
    }
    agent.stop().await;
}

#[tokio::test]
async fn the_newer_of_two_control_connections_wins() {
    let lab = Lab::new().await;
    lab.agents.assign(&lab.share(1, 1, super::lab::unused_address().await));
    let puppet = Puppet::new(&lab, 5);
    let mut older = puppet.connect().await.unwrap();
    acknowledge(&mut older, share_id(1), 1).await;
    lab.ready(1, 1).await;
    let mut newer = puppet.connect().await.unwrap();
    // The older one is closed.
    soon("the older one's end", async { while older.receive::<ToAgent>().await.is_ok() {} }).await;
    // Its earlier and later reports are ignored, and its end does not affect the newer one.
    lab.standing(1, "unacknowledged", |s| s.ready.is_none()).await;
    let _ = older.send(&FromAgent::Ack { share: share_id(1), generation: Generation::new(1) }).await;
    drop(older);
    acknowledge(&mut newer, share_id(1), 1).await;
    lab.ready(1, 1).await;
    lab.agents.assign(&lab.share(2, 1, super::lab::unused_address().await));
    soon("an assignment on the newer one", async {
        loop {
            let message = newer.receive().await.unwrap();
            if let ToAgent::Assign { assignments } = message
                && assignments.iter().any(|a| a.body.contains(&share_id(2).to_string()))
            {
                return;
            }
        }
    })
    .await;
    let connected: Vec<AgentId> = lab.seen.connected.lock().unwrap().clone();
    assert!(connected.contains(&puppet.id), "{connected:?}");
}

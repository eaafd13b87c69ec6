//! Agents that speak without pause, as whoever has the key of one can have it do.

use super::{
    lab::{Lab, share_id, soon, unused_address},
    puppet::{Puppet, acknowledge, answer_pings},
};
use std::{
    sync::atomic::Ordering,
    time::{Duration, Instant},
};
use wicketgate_model::{Generation, Reason, ShareDesired};
use wicketgate_transport::{
    control::{ACKS_PER_MESSAGE, Control, FromAgent, ToAgent},
    key::PrivateKey,
};

/// As many as an agent of a large installation has.
const SHARES: u128 = 12_000;

/// Assigns shares of these numbers.
async fn assign(lab: &Lab, numbers: impl Iterator<Item = u128>) {
    let share = lab.share(1, 1, unused_address().await);
    for n in numbers {
        lab.agents.assign(&ShareDesired { id: share_id(n), ..share.clone() });
    }
}

/// Acknowledges all shares in bulk, as an agent does that was started.
async fn acknowledge_all(control: &mut Control) {
    let all: Vec<_> = (1..=SHARES).map(|n| (share_id(n), Generation::FIRST)).collect();
    for shares in all.chunks(ACKS_PER_MESSAGE) {
        control.send(&FromAgent::Acks { shares: shares.to_vec() }).await.unwrap();
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_agent_with_12000_shares_is_not_held_up_when_it_is_started_twice() {
    let lab = Lab::new().await;
    assign(&lab, 1..=SHARES).await;
    let puppet = Puppet::new(&lab, 5);
    for _ in 0..2 {
        let mut control = puppet.connect().await.unwrap();
        let begin = Instant::now();
        acknowledge_all(&mut control).await;
        lab.ready(SHARES, 1).await;
        let took = begin.elapsed();
        eprintln!("{SHARES} acknowledgements took {took:?}");
        // At the rate of who has used its allowance up, they take 24 s.
        assert!(took < Duration::from_secs(5), "{took:?}");
        drop(control);
        lab.standing(SHARES, "offline", |standing| standing.ready.is_none()).await;
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_flood_of_one_agent_waits_on_its_line_and_others_are_heard() {
    let lab = Lab::new().await;
    assign(&lab, 1..=3).await;
    let [flooding, other] = [5, 6].map(|n| Puppet::new(&lab, n));
    let mut control = flooding.connect().await.unwrap();
    let flood = tokio::spawn(async move {
        // 51,200 shares are named, of which 32,768 have room: the last message is read after 37 s.
        for n in 0..400 {
            let shares = vec![(share_id(1), Generation::FIRST); ACKS_PER_MESSAGE];
            if control.send(&FromAgent::Acks { shares }).await.is_err() {
                return control;
            }
            let reason = format!("no {n}");
            let refused = FromAgent::Refused { share: share_id(1), generation: Generation::FIRST, reason };
            let _ = control.send(&refused).await;
        }
        acknowledge(&mut control, share_id(2), 1).await;
        control
    });
    let begin = Instant::now();
    let mut second = other.connect().await.unwrap();
    acknowledge(&mut second, share_id(3), 1).await;
    lab.ready(3, 1).await;
    assert!(begin.elapsed() < Duration::from_secs(3), "{:?}", begin.elapsed());
    let _second = answer_pings(second);
    tokio::time::sleep(Duration::from_secs(8)).await;
    let standing = lab.agents.standing(share_id(2));
    // It is neither heard nor taken for one that is silent: its messages wait.
    assert_eq!(standing.ready, None, "{standing:?}");
    assert_eq!(standing.problem.unwrap().reason, Reason::AgentPending);
    let [flooding] = &lab.agents.shares(&[flooding.id])[..] else { panic!("it was disconnected") };
    assert_eq!(flooding.unanswered_since, None);
    flood.abort();
}

#[tokio::test]
async fn an_agent_that_asks_for_certificates_without_pause_gets_one() {
    let lab = Lab::new().await;
    let puppet = Puppet::new(&lab, 5);
    let public_key = PrivateKey::generate().unwrap().public_point();
    let mut answers = Vec::new();
    for _ in 0..2 {
        let mut control = puppet.connect().await.unwrap();
        for _ in 0..10 {
            control.send(&FromAgent::Renew { public_key: public_key.clone() }).await.unwrap();
            let answered = async {
                loop {
                    match control.receive().await.unwrap() {
                        ToAgent::Renewed { certificate } => return certificate,
                        ToAgent::Ping => control.send(&FromAgent::Pong).await.unwrap(),
                        ToAgent::RenewRefused { .. } => panic!("refused"),
                        _ => {}
                    }
                }
            };
            answers.push(soon("a certificate", answered).await);
        }
    }
    answers.dedup();
    assert_eq!((answers.len(), lab.seen.renewed.load(Ordering::Relaxed)), (1, 1));
}

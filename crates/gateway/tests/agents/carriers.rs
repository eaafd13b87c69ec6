//! Carriers that die while they are parked, and those that the gateway rejects.

use super::{
    lab::{Lab, gateway_identity, share_id, soon},
    puppet::{Puppet, acknowledge, answer_pings},
};
use std::{
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering},
    },
    time::{Duration, Instant},
};
use tokio::{net::TcpListener, sync::mpsc, time::timeout};
use tokio_util::sync::CancellationToken;
use wicketgate_gateway::agents::DialFailure;
use wicketgate_lab::named;
use wicketgate_transport::{
    abort::Abort,
    carrier::EarlyData,
    control::{FromAgent, ToAgent},
    frame::{RefusalReason, StreamRefusal},
    tls::{Accepted, GatewayIdentity},
};

/// An agent without carriers that has acknowledged share 1 and answers pings.
async fn serving_puppet() -> (Lab, Puppet, mpsc::Sender<FromAgent>) {
    let lab = Lab::new().await;
    let puppet = Puppet::new(&lab, 5);
    let mut control = puppet.connect().await.unwrap();
    lab.agents.assign(&lab.share(1, 1, super::lab::unused_address().await));
    acknowledge(&mut control, share_id(1), 1).await;
    lab.ready(1, 1).await;
    (lab, puppet, answer_pings(control))
}

#[tokio::test]
async fn dead_carriers_do_not_displace_live_ones() {
    /// More carriers than a gateway keeps for an agent without streams.
    const PARKED_MOST: usize = 32;
    let (lab, puppet, _control) = serving_puppet().await;
    let mut carriers = Vec::new();
    for _ in 0..PARKED_MOST {
        carriers.push(puppet.carrier().await.unwrap());
    }
    drop(carriers);
    // The gateway may still be processing the closed carriers: one of a few attempts succeeds.
    let mut carrier = None;
    for _ in 0..20 {
        let mut fresh = puppet.carrier().await.unwrap();
        if timeout(Duration::from_millis(100), fresh.next_open()).await.is_err() {
            carrier = Some(fresh);
            break;
        }
    }
    let mut carrier = carrier.expect("every fresh carrier was rejected");
    let stream = lab.agents.open(share_id(1), "127.0.0.1:1".parse().unwrap(), EarlyData::default());
    let answer = async {
        assert_eq!(carrier.next_open().await.unwrap().share, share_id(1));
        carrier.answer(Ok(())).await.unwrap();
    };
    let (stream, ()) = soon("a stream", async { tokio::join!(stream, answer) }).await;
    assert_eq!(stream.unwrap().agent(), puppet.id);
}

#[tokio::test]
async fn a_gateway_that_rejects_carriers_is_dialled_with_pauses() {
    let lab = Lab::new().await;
    let state = tempfile::tempdir().unwrap();
    let agent = lab.start(state.path(), Some(&lab.code), &[]);
    let path = state.path().join("identity.json");
    soon("the identity", async {
        while !path.exists() {
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    })
    .await;
    agent.stop().await;

    // Another gateway of the same authority requests carriers and closes each of them.
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let mut config = lab.config(state.path(), None, &[]);
    config.server = format!("https://{}", listener.local_addr().unwrap()).parse().unwrap();
    let identity = gateway_identity(&lab.ca);
    let ended = Arc::new(AtomicUsize::new(0));
    let count = Arc::clone(&ended);
    let gateway = tokio::spawn(async move { refuse_carriers(listener, identity, count).await });
    let stop = CancellationToken::new();
    let task = tokio::spawn(wicketgate_agent::run(config, stop.clone(), Abort::default()));
    soon("the first carriers", async {
        while ended.load(Ordering::Relaxed) < 8 {
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    })
    .await;
    // Long enough for hundreds of handshakes without a pause between them.
    tokio::time::sleep(Duration::from_secs(1)).await;
    let ended = ended.load(Ordering::Relaxed);
    assert!(ended <= 80, "{ended} carriers in about a second");
    stop.cancel();
    soon("the agent to stop", task).await.unwrap().unwrap();
    gateway.abort();
}

async fn refuse_carriers(listener: TcpListener, identity: GatewayIdentity, ended: Arc<AtomicUsize>) {
    loop {
        let (tcp, _) = listener.accept().await.unwrap();
        match identity.accept(tcp).await {
            Ok(Accepted::Control(_, mut control)) => {
                tokio::spawn(async move {
                    control
                        .send(&ToAgent::Welcome {
                            assigns_duties: false,
                            time: None,
                            takes_reports: false,
                            takes_acks: false,
                        })
                        .await
                        .unwrap();
                    control.send(&ToAgent::Carriers { want: 8 }).await.unwrap();
                    while control.receive::<FromAgent>().await.is_ok() {}
                });
            }
            Ok(Accepted::Carrier(..)) => drop(ended.fetch_add(1, Ordering::Relaxed)),
            _ => {}
        }
    }
}

#[tokio::test]
async fn an_agent_that_gives_no_carrier_or_no_answer_is_told_from_one_that_refuses() {
    /// Longer than the gateway waits for an answer.
    const ANSWERED: Duration = Duration::from_secs(20);
    let (lab, puppet, _control) = serving_puppet().await;
    let open = async |row| {
        let begin = Instant::now();
        let opened = lab.agents.open(share_id(1), "127.0.0.1:1".parse().unwrap(), EarlyData::default());
        let failure = timeout(ANSWERED, opened).await.unwrap().map(|_| ()).unwrap_err();
        named(row, begin.elapsed());
        failure
    };
    assert!(matches!(open("no-carrier").await, DialFailure::NoCarrier));

    let silent = puppet.carrier().await.unwrap();
    assert!(matches!(open("agent-timeout").await, DialFailure::Timeout));
    drop(silent);

    let mut carrier = puppet.carrier().await.unwrap();
    let refuse = async {
        carrier.next_open().await.unwrap();
        let refusal = StreamRefusal { reason: RefusalReason::NotAllowed, text: "not in --allow".into() };
        carrier.answer(Err(&refusal)).await.unwrap();
    };
    let (refused, ()) = tokio::join!(open("agent-refused"), refuse);
    let DialFailure::Refused(refusal) = refused else { panic!("{refused:?}") };
    assert_eq!(refusal.reason, RefusalReason::NotAllowed);
}

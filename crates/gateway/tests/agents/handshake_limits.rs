//! Limits of the agent port for connections that have not authenticated.

use super::{
    lab::{Lab, soon},
    puppet::{Puppet, hello},
};
use std::time::Duration;
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::{TcpSocket, TcpStream},
    time::timeout,
};
use wicketgate_model::AgentDesired;
use wicketgate_transport::control::ToAgent;

/// A connection without a handshake, from an address of the loopback network.
async fn idle(lab: &Lab, from: [u8; 4]) -> TcpStream {
    let socket = TcpSocket::new_v4().unwrap();
    socket.bind((from, 0).into()).unwrap();
    socket.connect(lab.address).await.unwrap()
}

/// The stalled connections have the agent's address, as behind NAT.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn five_hundred_stalled_handshakes_do_not_delay_a_valid_one() {
    let lab = Lab::new().await;
    let puppet = Puppet::new(&lab, 5);
    let mut held = Vec::new();
    for n in 0..500 {
        let mut stalled = idle(&lab, [127, 0, 0, 1]).await;
        if n % 2 == 0 {
            // The first bytes of a handshake that never continues.
            stalled.write_all(&[22, 3, 1, 2, 0, 1]).await.unwrap();
        }
        held.push(stalled);
    }
    // Less than the time limit of a stalled handshake.
    let good = timeout(Duration::from_secs(8), async {
        (puppet.connect().await.is_some(), puppet.carrier().await.is_some())
    });
    assert_eq!(good.await, Ok((true, true)));
    // The oldest were closed, the newest continue.
    let mut closed = 0;
    for tcp in &mut held[..400] {
        closed += usize::from(timeout(Duration::from_secs(5), tcp.read(&mut [0; 1])).await.is_ok());
    }
    assert_eq!(closed, 400);
}

#[tokio::test]
async fn a_barred_agent_is_rejected_before_its_hello() {
    let lab = Lab::new().await;
    let puppet = Puppet::new(&lab, 5);
    lab.agents.name(&[(puppet.id, AgentDesired::Barred)], &[]);
    // Well before the time for a hello is over.
    for _ in 0..10 {
        let Some(mut control) = puppet.control().await else { continue };
        let end = timeout(Duration::from_secs(2), control.receive::<ToAgent>()).await;
        let Ok(Err(error)) = end else { panic!("{end:?}") };
        // The agent detects it, and its error does not contain the TLS library's text.
        assert!(error.is_hang_up() && !error.to_string().contains("://"), "{error}");
    }
    assert!(Puppet::new(&lab, 6).connect().await.is_some());
}

#[tokio::test]
async fn an_agent_without_a_hello_has_few_connections() {
    let lab = Lab::new().await;
    let puppet = Puppet::new(&lab, 5);
    let mut ended = 0;
    let mut held = Vec::new();
    for _ in 0..10 {
        let Some(mut control) = puppet.control().await else { continue };
        match timeout(Duration::from_millis(300), control.receive::<ToAgent>()).await {
            Ok(_) => ended += 1,
            Err(_) => held.push(control),
        }
    }
    assert_eq!((held.len(), ended), (4, 6));
    // One sends its hello, which permits another connection.
    held[0].send(&hello(false)).await.unwrap();
    let answer = soon("a welcome", held[0].receive::<ToAgent>()).await.unwrap();
    assert!(matches!(answer, ToAgent::Welcome { assigns_duties: true, .. }), "{answer:?}");
    assert!(puppet.connect().await.is_some());
}

//! Streams from a client through the gateway and an agent to a target, and how they end.

use super::lab::{Lab, RunningAgent, SOON, echo, exchange, soon};
use std::{io::ErrorKind, sync::atomic::Ordering, time::Duration};
use tempfile::TempDir;
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::{TcpListener, TcpStream},
};
use wicketgate_model::{AgentDesired, AgentId};
use wicketgate_transport::relay::Broken;

async fn with_target(target: std::net::SocketAddr) -> (Lab, RunningAgent, TempDir) {
    let (lab, state) = (Lab::new().await, tempfile::tempdir().unwrap());
    let agent = lab.start(state.path(), Some(&lab.code), &[]);
    lab.agents.assign(&lab.share(1, 1, target));
    lab.ready(1, 1).await;
    (lab, agent, state)
}

/// A target of one connection, which the test holds. Probes of the agent are not accepted connections.
async fn held() -> (TcpListener, Lab, RunningAgent, TempDir) {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let (lab, agent, state) = with_target(listener.local_addr().unwrap()).await;
    (listener, lab, agent, state)
}

fn reset(tcp: &TcpStream) {
    socket2::SockRef::from(tcp).set_linger(Some(Duration::ZERO)).unwrap();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn everything_is_echoed_after_the_client_has_ended() {
    const SIZE: usize = 8 << 20;
    let (target, _) = echo().await;
    let (lab, agent, _state) = with_target(target).await;
    let lab = std::sync::Arc::new(lab);
    let mut clients = Vec::new();
    for n in 0..8u8 {
        let lab = std::sync::Arc::clone(&lab);
        clients.push(tokio::spawn(async move {
            let sent: Vec<u8> = (0..SIZE).map(|i| (i as u8).wrapping_mul(31) ^ (i >> 12) as u8 ^ n).collect();
            let mut client = lab.connect(1).await.unwrap();
            // The client sends everything and its end before it reads: the target still answers.
            let got = soon("8 MiB", exchange(&mut client.tcp, &sent)).await;
            assert!(got == sent, "{} of {SIZE}", got.len());
            let bytes = std::sync::Arc::clone(&client.bytes);
            client.end().await.unwrap();
            assert_eq!(bytes.0.load(Ordering::Relaxed), SIZE as u64);
            assert_eq!(bytes.1.load(Ordering::Relaxed), SIZE as u64);
        }));
    }
    for client in clients {
        client.await.unwrap();
    }
    agent.stop().await;
}

#[tokio::test]
async fn a_target_may_end_first() {
    let (listener, lab, agent, _state) = held().await;
    let mut client = lab.connect(1).await.unwrap();
    let (mut target, _) = soon("the dial", listener.accept()).await.unwrap();
    target.write_all(b"bye").await.unwrap();
    target.shutdown().await.unwrap();
    let mut got = Vec::new();
    soon("the target's end", client.tcp.read_to_end(&mut got)).await.unwrap();
    assert_eq!(got, b"bye");
    client.tcp.write_all(b"but wait").await.unwrap();
    client.tcp.shutdown().await.unwrap();
    let mut got = Vec::new();
    soon("the client's end", target.read_to_end(&mut got)).await.unwrap();
    assert_eq!(got, b"but wait");
    client.end().await.unwrap();
    agent.stop().await;
}

#[tokio::test]
async fn a_reset_is_a_reset_on_the_other_side() {
    let (listener, lab, agent, _state) = held().await;
    for half_closed in [false, true] {
        // The client resets.
        let mut client = lab.connect(1).await.unwrap();
        let (mut target, _) = soon("the dial", listener.accept()).await.unwrap();
        if half_closed {
            client.tcp.shutdown().await.unwrap();
            assert_eq!(soon("the FIN", target.read(&mut [0; 8])).await.unwrap(), 0);
        }
        reset(&client.tcp);
        drop(client.tcp);
        let error = soon("the target's reset", async {
            loop {
                // After a FIN, the reset shows at a write.
                match target.read(&mut [0; 8]).await {
                    Err(error) => return error,
                    Ok(_) if half_closed => match target.write_all(b"x").await {
                        Err(error) => return error,
                        Ok(()) => tokio::time::sleep(Duration::from_millis(5)).await,
                    },
                    Ok(n) => panic!("expected a reset, got an end after {n} bytes"),
                }
            }
        })
        .await;
        assert!(matches!(error.kind(), ErrorKind::ConnectionReset | ErrorKind::BrokenPipe), "{error}");
        assert!(matches!(client.relay.await.unwrap(), Err(Broken::Tcp(_))));

        // The target resets.
        let mut client = lab.connect(1).await.unwrap();
        let (mut target, _) = soon("the dial", listener.accept()).await.unwrap();
        if half_closed {
            target.shutdown().await.unwrap();
            assert_eq!(soon("the FIN", client.tcp.read(&mut [0; 8])).await.unwrap(), 0);
        }
        reset(&target);
        drop(target);
        let broken = soon("the relay's end", client.relay).await.unwrap();
        assert!(matches!(broken, Err(Broken::Reset)), "{broken:?}");
        if !half_closed {
            let error = soon("the client's reset", client.tcp.read(&mut [0; 8])).await.unwrap_err();
            assert_eq!(error.kind(), ErrorKind::ConnectionReset);
        }
    }
    agent.stop().await;
}

#[tokio::test]
async fn carriers_are_reused() {
    let (target, _) = echo().await;
    let (lab, agent, _state) = with_target(target).await;
    let before = lab.agents.handshakes();
    for n in 0..50u32 {
        let mut client = lab.connect(1).await.unwrap();
        assert_eq!(soon("an echo", exchange(&mut client.tcp, &n.to_be_bytes())).await, n.to_be_bytes());
        client.end().await.unwrap();
    }
    // One connection at a time adds at most one carrier to the pool.
    let made = lab.agents.handshakes() - before;
    assert!(made <= 16, "{made} handshakes for 50 streams");
    agent.stop().await;
}

#[tokio::test]
async fn a_barred_agent_is_disconnected_and_stays_excluded() {
    let (listener, lab, agent, state) = held().await;
    let mut client = lab.connect(1).await.unwrap();
    let (mut target, _) = soon("the dial", listener.accept()).await.unwrap();
    let id: AgentId = lab.seen.enrolled.lock().unwrap()[0];
    lab.agents.name(&[(id, AgentDesired::Barred)], &[]);
    let error = soon("the client's reset", client.tcp.read(&mut [0; 8])).await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::ConnectionReset);
    let error = soon("the target's reset", target.read(&mut [0; 8])).await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::ConnectionReset);
    assert!(matches!(client.relay.await.unwrap(), Err(Broken::Aborted)));
    assert!(lab.connect(1).await.is_err());
    // The agent is told, and ends by itself.
    let error = soon("the end of the agent", agent.task).await.unwrap().unwrap_err().to_string();
    assert!(error.contains(": this agent was removed from environment "), "{error}");
    let again = "start it with a new code, of `wicketgate agent enroll --env env-";
    assert!(error.contains(again), "{error}");
    // So is one that is started again.
    let again = lab.start(state.path(), None, &[]);
    let error = soon("the end of the agent", again.task).await.unwrap().unwrap_err().to_string();
    assert!(error.contains(": this agent was removed from environment "), "{error}");
}

#[tokio::test]
async fn the_streams_of_a_stopping_agent_may_end() {
    let (listener, lab, agent, _state) = held().await;
    let mut client = lab.connect(1).await.unwrap();
    let (mut target, _) = soon("the dial", listener.accept()).await.unwrap();
    agent.stop.cancel();
    lab.standing(1, "offline", |s| s.ready.is_none()).await;
    assert!(lab.connect(1).await.is_err());
    client.tcp.write_all(b"still").await.unwrap();
    let mut got = [0; 5];
    soon("the bytes", target.read_exact(&mut got)).await.unwrap();
    assert_eq!(&got, b"still");
    drop(target);
    client.end().await.unwrap();
    let ended = tokio::time::timeout(SOON, agent.task).await.unwrap();
    ended.unwrap().unwrap();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_dial_reaches_the_target_or_reports_the_reason() {
    let (target, _) = echo().await;
    let (lab, agent, _state) = with_target(target).await;
    let id = lab.seen.enrolled.lock().unwrap()[0];
    let share = |n| wicketgate_model::ShareId::new(uuid::Uuid::from_u128(n));
    for _ in 0..3 {
        assert_eq!(soon("a dial", lab.agents.dial(share(1), Vec::new())).await.0, Ok(id));
    }
    // An echo, which keeps the connection whatever it is sent.
    assert_eq!(soon("a dial", lab.agents.dial(share(1), b"preface".to_vec())).await.0, Ok(id));
    let closed = TcpListener::bind("127.0.0.1:0").await.unwrap();
    lab.agents.assign(&lab.share(2, 1, closed.local_addr().unwrap()));
    drop(closed);
    lab.ready(2, 1).await;
    let refused = soon("a dial", lab.agents.dial(share(2), Vec::new())).await.0.unwrap_err();
    assert_eq!(refused.reason, wicketgate_model::Reason::TargetUnreachable);
    // A client's connection succeeds as before.
    let mut client = lab.connect(1).await.unwrap();
    assert_eq!(soon("an echo", exchange(&mut client.tcp, b"hello")).await, b"hello");
    agent.stop().await;
    let failure = soon("a dial", lab.agents.dial(share(1), Vec::new())).await.0.unwrap_err();
    assert_eq!(failure.reason, wicketgate_model::Reason::AgentOffline);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_dial_fails_at_a_target_that_ends_the_connection_at_once() {
    let (target, _) = echo().await;
    let (lab, agent, _state) = with_target(target).await;
    let share = |n| wicketgate_model::ShareId::new(uuid::Uuid::from_u128(n));
    // What the target sends before it ends, and whether it reads a line first.
    for (n, says, reads) in [(2, "", false), (3, "hello", false), (4, "HTTP/1.1 400 Bad Request", true)] {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        lab.agents.assign(&lab.share(n, 1, listener.local_addr().unwrap()));
        tokio::spawn(async move {
            while let Ok((mut tcp, _)) = listener.accept().await {
                if reads {
                    let _ = tcp.read_exact(&mut [0; 4]).await;
                }
                let _ = tcp.write_all(says.as_bytes()).await;
            }
        });
        lab.ready(n, 1).await;
        let reason = async |preface: &[u8]| {
            let (dialled, ..) = soon("a dial", lab.agents.dial(share(n), preface.to_vec())).await;
            dialled.err().map(|problem| problem.reason)
        };
        // A greeting is a sign of life; a target that waits for the client's first bytes may serve.
        let bare = (n == 2).then_some(wicketgate_model::Reason::TargetClosed);
        assert_eq!(reason(b"").await, bare, "{says}");
        assert_eq!(reason(b"\r\n\r\n").await, Some(wicketgate_model::Reason::TargetClosed), "{says}");
    }
    agent.stop().await;
}

//! The gateway's handshake: purposes, certificates, and hellos that are wrong, incomplete or in pieces.

use super::{
    authority::{Authority, GATEWAY, SERVER},
    connected, hello, name,
};
use crate::{
    control::{ControlError, FromAgent},
    tls::{
        Accepted, AgentTls, Diagnosis, GatewayIdentity, TlsError, connect_enrol,
        dial::{builder, of_purpose},
        purpose::Purpose,
        verifier::{Dialled, PeerVerifier},
    },
};
use std::{sync::Arc, time::Duration};
use tokio::io::{AsyncReadExt, AsyncWriteExt};

/// The gateway's result for a client that sends these bytes and waits, or ends.
async fn accept_bytes(gateway: &GatewayIdentity, bytes: &[u8], ends: bool) -> Option<TlsError> {
    let (mut client, accepted) = connected().await;
    client.write_all(bytes).await.unwrap();
    if ends {
        client.shutdown().await.unwrap();
    }
    let wait = Duration::from_millis(200);
    tokio::time::timeout(wait, gateway.accept(accepted)).await.ok().map(|accepted| accepted.unwrap_err())
}

#[tokio::test]
async fn a_connection_is_accepted_for_its_stated_purpose() {
    let authority = Authority::new();
    let (gateway, agent) = (authority.gateway(), authority.agent(&authority));
    let (a, b) = connected().await;
    let (control, accepted) = tokio::join!(agent.connect_control(a), gateway.accept(b));
    let Ok(Accepted::Control(_, mut end)) = accepted else { panic!("{accepted:?}") };
    control.unwrap().send(&FromAgent::Pong).await.unwrap();
    assert_eq!(end.receive::<FromAgent>().await.unwrap(), FromAgent::Pong);

    let (a, b) = connected().await;
    let (carrier, accepted) = tokio::join!(agent.connect_carrier(a), gateway.accept(b));
    assert!(carrier.is_ok() && matches!(accepted, Ok(Accepted::Carrier(..))), "{accepted:?}");

    let (a, b) = connected().await;
    let ca = authority.ca.fingerprint();
    let (enrol, accepted) = tokio::join!(connect_enrol(ca, a), gateway.accept(b));
    assert!(enrol.is_ok() && matches!(accepted, Ok(Accepted::Enrol(_))), "{accepted:?}");
}

#[tokio::test]
async fn an_agent_of_another_ca_is_refused_for_both_purposes_and_gets_the_reason() {
    let (authority, other) = (Authority::new(), Authority::new());
    let (gateway, agent) = (authority.gateway(), authority.agent(&other));
    let (a, b) = connected().await;
    let (control, accepted) = tokio::join!(agent.connect_control(a), gateway.accept(b));
    assert_eq!(accepted.unwrap_err().diagnosis(), Some(Diagnosis::Stranger));
    let refused = control.unwrap().receive::<FromAgent>().await.unwrap_err();
    assert_eq!(refused.diagnosis(), Some(Diagnosis::Refused), "{refused:?}");
    assert!(matches!(refused, ControlError::Io(_)));

    let (a, b) = connected().await;
    let (carrier, accepted) = tokio::join!(agent.connect_carrier(a), gateway.accept(b));
    assert_eq!(accepted.unwrap_err().diagnosis(), Some(Diagnosis::Stranger));
    assert!(carrier.unwrap().next_open().await.is_err());

    // A client without a certificate can only enrol.
    for purpose in [Purpose::Control, Purpose::Carrier] {
        let gateways = PeerVerifier::of_ca(Dialled::Gateway, &authority.ca).unwrap();
        let client = of_purpose(builder(gateways).unwrap().with_no_client_auth(), purpose);
        let (a, b) = connected().await;
        let connector = tokio_rustls::TlsConnector::from(Arc::new(client));
        let (_client, accepted) = tokio::join!(connector.connect(name(), a), gateway.accept(b));
        assert!(matches!(accepted, Err(TlsError::Peer)), "{accepted:?}");
    }
}

#[tokio::test]
async fn a_first_message_that_is_wrong_incomplete_or_for_another_protocol_is_refused() {
    let gateway = Authority::new().gateway();
    let diagnosed = async |bytes: &[u8], ends| {
        accept_bytes(&gateway, bytes, ends).await.map(|error| error.diagnosis().unwrap())
    };
    assert_eq!(diagnosed(&hello(&[b"h2"]), false).await, Some(Diagnosis::NothingInCommon));
    assert_eq!(diagnosed(b"GET / HTTP/1.1\r\nHost: gateway\r\n\r\n", false).await, Some(Diagnosis::NotTls));
    for purpose in Purpose::OF_AGENTS {
        let hello = hello(&[b"h2", purpose.alpn()]);
        for length in [0, 1, 6, hello.len() - 1, hello.len()] {
            assert_eq!(diagnosed(&hello[..length], true).await, Some(Diagnosis::Cut), "{purpose:?} {length}");
            assert_eq!(diagnosed(&hello[..length], false).await, None, "it waits: {purpose:?} {length}");
        }
    }
    // The gateway limits how much of an endless hello it reads.
    let endless = [&[22, 3, 1, 0x40, 0][..], &[1, 0xff, 0xff, 0xff], &[0; 100_000]].concat();
    assert_eq!(diagnosed(&endless, false).await, Some(Diagnosis::Garbled));
}

#[tokio::test]
async fn a_hello_in_pieces_is_accepted_for_every_purpose() {
    let authority = Authority::new();
    let (gateway, agent) = (authority.gateway(), authority.agent(&authority));
    for purpose in [Purpose::Control, Purpose::Carrier] {
        let ((a, mut near), (mut far, b)) = (connected().await, connected().await);
        far.set_nodelay(true).unwrap();
        let pieces = tokio::spawn(async move {
            let mut byte = [0; 1];
            for _ in 0..40 {
                near.read_exact(&mut byte).await.unwrap();
                far.write_all(&byte).await.unwrap();
                tokio::task::yield_now().await;
            }
            let _ = tokio::io::copy_bidirectional(&mut near, &mut far).await;
        });
        let connect = async {
            match purpose {
                Purpose::Carrier => agent.connect_carrier(a).await.map(drop),
                _ => agent.connect_control(a).await.map(drop),
            }
        };
        let (connected, accepted) = tokio::join!(connect, gateway.accept(b));
        assert!(connected.is_ok() && accepted.is_ok(), "{accepted:?}");
        pieces.abort();
    }
}

#[tokio::test]
async fn only_an_agent_is_accepted_and_only_a_gateway_is_dialled() {
    let authority = Authority::new();
    let (gateway, agent) = (authority.gateway(), authority.agent(&authority));
    // They have certificates for both ends of a connection.
    for identity in [GATEWAY, SERVER] {
        let (key, leaf) = authority.issue(identity);
        let client = AgentTls::new(&authority.ca, key, leaf).unwrap();
        for is_carrier in [false, true] {
            let (a, b) = connected().await;
            let connect = async {
                match is_carrier {
                    true => client.connect_carrier(a).await.map(drop),
                    false => client.connect_control(a).await.map(drop),
                }
            };
            let (_, accepted) = tokio::join!(connect, gateway.accept(b));
            assert!(matches!(accepted, Err(TlsError::Peer)), "{identity}: {accepted:?}");
        }
    }
    let (key, leaf) = authority.issue(SERVER);
    let server = GatewayIdentity::new(&authority.ca, key, leaf).unwrap();
    for is_carrier in [false, true] {
        let (a, b) = connected().await;
        let connect = async {
            match is_carrier {
                true => agent.connect_carrier(a).await.map(drop),
                false => agent.connect_control(a).await.map(drop),
            }
        };
        let (dialled, _) = tokio::join!(connect, server.accept(b));
        assert_eq!(dialled.unwrap_err().diagnosis(), Some(Diagnosis::Stranger));
    }
    let (a, b) = connected().await;
    let (enrol, _) = tokio::join!(connect_enrol(authority.ca.fingerprint(), a), server.accept(b));
    assert_eq!(enrol.unwrap_err().diagnosis(), Some(Diagnosis::Stranger));
}

#[tokio::test]
async fn the_purposes_of_the_link_port_are_not_offered_to_agents() {
    let gateway = Authority::new().gateway();
    for purpose in Purpose::OF_LINKS {
        let refused = accept_bytes(&gateway, &hello(&[purpose.alpn()]), false).await.unwrap();
        assert_eq!(refused.diagnosis(), Some(Diagnosis::NothingInCommon), "{purpose:?}");
    }
}

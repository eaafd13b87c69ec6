//! Both ends of the link port: purposes, and every role that is wrong there.

use super::{
    authority::{AGENT, Authority, GATEWAY, GATEWAY_ID, SERVER, SERVER_ID},
    connected, name,
};
use crate::{
    control::JoinAnswer,
    key::PrivateKey,
    tls::{
        Diagnosis, LinkAccepted, LinkStream, LinkTls, PeerTls, ServerIdentity, TlsError, connect_enrol,
        connect_join,
        dial::{builder, of_purpose},
        purpose::Purpose,
        verifier::{Dialled, PeerVerifier},
    },
    trust::sha256,
};
use rustls::{ClientConfig, client::ResolvesClientCert};
use std::sync::Arc;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use wicketgate_model::{JoinGrant, JoinRequest, LocationId, ServerId};

type Dial = Result<(ServerId, LinkStream), TlsError>;

async fn link(gateway: &LinkTls, server: &ServerIdentity) -> (Dial, Result<LinkAccepted, TlsError>) {
    let (a, b) = connected().await;
    tokio::join!(gateway.connect(a), server.accept(b))
}

/// What a gateway learns when its connection was refused: the handshake ends before the server has looked at its certificate.
async fn told(dialled: Dial) -> String {
    dialled.unwrap().1.read_u8().await.unwrap_err().to_string()
}

#[tokio::test]
async fn a_link_has_a_gateway_at_one_end_and_a_server_at_the_other() {
    let authority = Authority::new();
    let (key, leaf) = authority.issue(GATEWAY);
    let key_sha256 = sha256(&key.public_point());
    let (dialled, accepted) = link(&authority.dialler((key, leaf)), &authority.server()).await;
    let (server, mut near) = dialled.unwrap();
    let Ok(LinkAccepted::Link(gateway, mut far)) = accepted else { panic!("{accepted:?}") };
    assert_eq!((server, gateway.gateway, gateway.key_sha256), (SERVER_ID, GATEWAY_ID, key_sha256));
    near.write_all(b"frames").await.unwrap();
    near.shutdown().await.unwrap();
    let mut bytes = Vec::new();
    far.read_to_end(&mut bytes).await.unwrap();
    // The other direction goes on.
    far.write_all(b"more").await.unwrap();
    far.shutdown().await.unwrap();
    near.read_to_end(&mut bytes).await.unwrap();
    assert_eq!(bytes, b"framesmore");
}

#[tokio::test]
async fn a_gateway_that_joins_has_no_certificate() {
    let (authority, other) = (Authority::new(), Authority::new());
    let server = authority.server();
    let (a, b) = connected().await;
    let (joined, accepted) = tokio::join!(connect_join(authority.ca.fingerprint(), a), server.accept(b));
    let Ok(LinkAccepted::Join(mut desk)) = accepted else { panic!("{accepted:?}") };
    let mut gateway = joined.unwrap();
    let location: LocationId = "us-east-1".parse().unwrap();
    let token = "gwj-00000000000000000000000000000001".parse().unwrap();
    let request = JoinRequest { token, secret: vec![201; 16], public_key: vec![4; 65] };
    gateway.send(&request).await.unwrap();
    let received: JoinRequest = desk.receive().await.unwrap();
    assert_eq!(received, request);
    assert!(format!("{request:?}").contains("gwj-") && !format!("{request:?}").contains("201"));
    let grant = JoinGrant {
        gateway: GATEWAY_ID,
        location,
        certificate: vec![1],
        ca_certificate: vec![2],
        servers: vec!["server-1.example:8444".to_owned()],
    };
    let refused = wicketgate_model::JoinRefusal::Removed;
    for answer in
        [JoinAnswer::Joined(grant), JoinAnswer::Refused { refusal: refused }, JoinAnswer::Unavailable]
    {
        desk.send(&answer).await.unwrap();
        assert_eq!(gateway.receive::<JoinAnswer>().await.unwrap(), answer);
    }

    // Another authority than the token's, and a gateway that plays a server.
    let gateway_port = authority.link_port(authority.issue(GATEWAY));
    for (trusts, server) in [(&other, &server), (&authority, &gateway_port)] {
        let (a, b) = connected().await;
        let (joined, _) = tokio::join!(connect_join(trusts.ca.fingerprint(), a), server.accept(b));
        assert_eq!(joined.unwrap_err().diagnosis(), Some(Diagnosis::Stranger));
    }
}

#[tokio::test]
async fn a_server_accepts_no_link_of_anything_but_a_gateway_of_its_authority() {
    let (authority, other) = (Authority::new(), Authority::new());
    let server = authority.server();
    for identity in [AGENT, SERVER] {
        let (dialled, accepted) = link(&authority.dialler(authority.issue(identity)), &server).await;
        assert!(matches!(accepted, Err(TlsError::Peer)), "{identity}: {accepted:?}");
        drop(accepted);
        assert_eq!(told(dialled).await, Diagnosis::Cut.to_string());
    }
    let (dialled, accepted) = link(&authority.dialler(other.issue(GATEWAY)), &server).await;
    assert_eq!(accepted.unwrap_err().diagnosis(), Some(Diagnosis::Stranger));
    assert_eq!(told(dialled).await, Diagnosis::Refused.to_string());

    let (dialled, accepted) = link(&authority.dialler(authority.issue_until(GATEWAY, 2020)), &server).await;
    let expired = accepted.unwrap_err().diagnosis();
    assert!(matches!(expired, Some(Diagnosis::Clock { is_behind: false, .. })), "{expired:?}");
    assert_eq!(told(dialled).await, Diagnosis::Expired.to_string());
}

/// A client for a purpose, with a certificate or without.
fn client(
    authority: &Authority,
    purpose: Purpose,
    certificate: Option<(PrivateKey, Vec<u8>)>,
) -> ClientConfig {
    let config = builder(PeerVerifier::of_ca(Dialled::Server, &authority.ca).unwrap()).unwrap();
    let config = match certificate {
        None => config.with_no_client_auth(),
        Some(certificate) => {
            let live = authority.agent_port(certificate).shared_certificate();
            config.with_client_cert_resolver(live as Arc<dyn ResolvesClientCert>)
        }
    };
    of_purpose(config, purpose)
}

#[tokio::test]
async fn each_purpose_of_the_link_port_needs_its_own_certificate_and_others_are_not_offered() {
    let authority = Authority::new();
    let server = authority.server();
    let accept = async |config: ClientConfig| {
        let (a, b) = connected().await;
        let connector = tokio_rustls::TlsConnector::from(Arc::new(config));
        let (_client, accepted) = tokio::join!(connector.connect(name(), a), server.accept(b));
        accepted.unwrap_err()
    };
    let without = accept(client(&authority, Purpose::Link, None)).await;
    assert!(matches!(without, TlsError::Peer), "{without:?}");
    let has_one = accept(client(&authority, Purpose::Join, Some(authority.issue(GATEWAY)))).await;
    assert!(matches!(has_one, TlsError::Peer), "{has_one:?}");
    for purpose in Purpose::OF_AGENTS {
        let refused = accept(client(&authority, purpose, Some(authority.issue(AGENT)))).await;
        assert_eq!(refused.diagnosis(), Some(Diagnosis::NothingInCommon), "{purpose:?}");
    }
    let mut nothing = client(&authority, Purpose::Link, Some(authority.issue(GATEWAY)));
    nothing.alpn_protocols.clear();
    let nothing = accept(nothing).await;
    assert!(matches!(nothing, TlsError::Protocol), "{nothing:?}");
}

#[tokio::test]
async fn a_gateway_links_with_nothing_but_a_server_of_its_authority() {
    let (authority, other) = (Authority::new(), Authority::new());
    let gateway = authority.dialler(authority.issue(GATEWAY));
    // With the key of a gateway nobody can play a server, nor with that of an agent.
    for identity in [GATEWAY, AGENT] {
        let (dialled, _) = link(&gateway, &authority.link_port(authority.issue(identity))).await;
        assert_eq!(dialled.unwrap_err().diagnosis(), Some(Diagnosis::Stranger), "{identity}");
    }
    let (dialled, accepted) = link(&gateway, &other.server()).await;
    assert_eq!(dialled.unwrap_err().diagnosis(), Some(Diagnosis::Stranger));
    assert_eq!(accepted.unwrap_err().diagnosis(), Some(Diagnosis::Refused));
    let (dialled, _) = link(&gateway, &authority.link_port(authority.issue_until(SERVER, 2020))).await;
    let expired = dialled.unwrap_err().diagnosis();
    assert!(matches!(expired, Some(Diagnosis::Clock { is_behind: false, .. })), "{expired:?}");
    // An agent port, and a link port that an agent dials.
    let (a, b) = connected().await;
    let port = authority.gateway();
    let (dialled, accepted) = tokio::join!(gateway.connect(a), port.accept(b));
    assert_eq!(accepted.unwrap_err().diagnosis(), Some(Diagnosis::NothingInCommon));
    assert!(dialled.is_err());
    let (a, b) = connected().await;
    let server = authority.server();
    let (enrol, _) = tokio::join!(connect_enrol(authority.ca.fingerprint(), a), server.accept(b));
    assert_eq!(enrol.unwrap_err().diagnosis(), Some(Diagnosis::NothingInCommon));
}

#[tokio::test]
async fn servers_ask_each_other_and_nobody_else_asks_them() {
    let (authority, other) = (Authority::new(), Authority::new());
    let server = authority.server();
    let ask = async |identity: ServerIdentity| {
        let (a, b) = connected().await;
        let peers = PeerTls::new(&authority.ca, &identity).unwrap();
        tokio::join!(peers.connect(a), server.accept(b))
    };
    let (asked, accepted) = ask(authority.server()).await;
    let Ok(LinkAccepted::Peer(id, mut desk)) = accepted else { panic!("{accepted:?}") };
    assert_eq!(id, SERVER_ID);
    let mut asked = asked.unwrap();
    asked.send(&"who is there?").await.unwrap();
    assert_eq!(desk.receive::<String>().await.unwrap(), "who is there?");
    desk.send(&"nobody").await.unwrap();
    assert_eq!(asked.receive::<String>().await.unwrap(), "nobody");

    for identity in [GATEWAY, AGENT] {
        let (_, accepted) = ask(authority.link_port(authority.issue(identity))).await;
        assert!(matches!(accepted, Err(TlsError::Peer)), "{identity}: {accepted:?}");
    }
    let (_, accepted) = ask(authority.link_port(other.issue(SERVER))).await;
    assert_eq!(accepted.unwrap_err().diagnosis(), Some(Diagnosis::Stranger));
    // A gateway's key plays no server to another one.
    let (a, b) = connected().await;
    let peers = PeerTls::new(&authority.ca, &server).unwrap();
    let false_server = authority.link_port(authority.issue(GATEWAY));
    let (dialled, _) = tokio::join!(peers.connect(a), false_server.accept(b));
    assert_eq!(dialled.unwrap_err().diagnosis(), Some(Diagnosis::Stranger));
}

#[tokio::test]
async fn a_renewed_certificate_is_used_for_the_next_link() {
    let authority = Authority::new();
    let (key, old) = authority.issue_until(GATEWAY, 2020);
    let pkcs8 = key.pkcs8().to_vec();
    let port = authority.agent_port((key, old));
    let (gateway, server) = (LinkTls::new(&authority.ca, &port).unwrap(), authority.server());
    assert!(link(&gateway, &server).await.1.is_err());
    port.certificate().replace(authority.issue_for(GATEWAY, &pkcs8, 4096)).unwrap();
    let (_, accepted) = link(&gateway, &server).await;
    assert!(matches!(accepted, Ok(LinkAccepted::Link(..))), "{accepted:?}");
}

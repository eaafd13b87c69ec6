//! Codes, certificates, and restarts without a code.

use super::{
    lab::{Lab, SOON, echo, enrolled, exchange, soon},
    puppet::hello,
};
use jiff::Timestamp;
use std::{fs, sync::atomic::Ordering};
use tokio::io::AsyncWriteExt;
use uuid::Uuid;
use wicketgate_authority::Ca;
use wicketgate_model::{AgentId, EnrollmentId, FrontdoorId, Reason};
use wicketgate_transport::{
    code::EnrolmentCode,
    control::ToAgent,
    identity::{AgentIdentity, Identity},
    key::PrivateKey,
    tls::{AgentTls, Diagnosis},
};

#[tokio::test]
async fn an_agent_restarts_without_its_code_and_a_code_enrols_one_agent() {
    let lab = Lab::new().await;
    let (target, _) = echo().await;
    let state = tempfile::tempdir().unwrap();
    lab.agents.assign(&lab.share(1, 1, target));
    assert_eq!(lab.agents.standing(super::lab::share_id(1)).problem.unwrap().reason, Reason::AgentOffline);

    let agent = lab.start(state.path(), Some(&lab.code), &[]);
    lab.ready(1, 1).await;
    agent.stop().await;
    lab.standing(1, "offline", |s| s.ready.is_none()).await;

    let agent = lab.start(state.path(), None, &[]);
    lab.ready(1, 1).await;
    let mut client = lab.connect(1).await.unwrap();
    assert_eq!(soon("an echo", exchange(&mut client.tcp, b"hello")).await, b"hello");
    client.end().await.unwrap();
    assert_eq!(lab.seen.enrolled.lock().unwrap().len(), 1);

    // A state directory is used by one agent at a time.
    let error = lab.start(state.path(), None, &[]).task.await.unwrap().unwrap_err();
    assert!(error.to_string().contains("another agent is using the state directory"), "{error:#}");
    agent.stop().await;

    // The code was used, by another key.
    let other = tempfile::tempdir().unwrap();
    let task = lab.start(other.path(), Some(&lab.code), &[]).task;
    let error = soon("a refusal", task).await.unwrap().unwrap_err();
    assert!(error.to_string().contains("used already"), "{error:#}");
    // The state directory does not contain the code.
    let code = lab.code.expose();
    for file in fs::read_dir(state.path()).unwrap() {
        let text = fs::read(file.unwrap().path()).unwrap();
        assert!(!String::from_utf8_lossy(&text).contains(code.as_str()));
    }
}

#[tokio::test]
async fn a_retry_with_the_same_key_gets_the_same_identity() {
    let lab = Lab::new().await;
    let state = tempfile::tempdir().unwrap();
    lab.agents.assign(&lab.share(1, 1, super::lab::unused_address().await));
    let agent = lab.start(state.path(), Some(&lab.code), &[]);
    lab.ready(1, 1).await;
    agent.stop().await;
    lab.standing(1, "offline", |s| s.ready.is_none()).await;
    // As if the answer had been lost.
    fs::remove_file(state.path().join("identity.json")).unwrap();
    let agent = lab.start(state.path(), Some(&lab.code), &[]);
    lab.ready(1, 1).await;
    assert_eq!(lab.seen.enrolled.lock().unwrap().len(), 2);
    agent.stop().await;
}

#[tokio::test]
async fn a_code_of_another_server_is_final() {
    let lab = Lab::new().await;
    let state = tempfile::tempdir().unwrap();
    let other = Ca::generate(Timestamp::now()).unwrap();
    let code = EnrolmentCode::generate(EnrollmentId::new(Uuid::nil()), other.fingerprint()).unwrap();
    let task = lab.start(state.path(), Some(&code), &[]).task;
    let error = soon("a refusal", task).await.unwrap().unwrap_err();
    assert!(error.to_string().contains("not the server that the enrolment code is from"), "{error:#}");
    let wrong = EnrolmentCode::generate(lab.code.id(), lab.ca.fingerprint()).unwrap();
    let task = lab.start(state.path(), Some(&wrong), &[]).task;
    let error = soon("a refusal", task).await.unwrap().unwrap_err();
    assert!(error.to_string().contains("code is wrong"), "{error:#}");
    let task = lab.start(state.path(), None, &[]).task;
    assert!(soon("a refusal", task).await.unwrap().unwrap_err().to_string().contains("not enrolled yet"));
}

#[tokio::test]
async fn a_certificate_of_another_authority_is_refused() {
    let lab = Lab::new().await;
    let other = Ca::generate(Timestamp::now()).unwrap();
    let agent = AgentId::new(Uuid::from_u128(5));
    let identity = Identity::Agent(AgentIdentity {
        frontdoor: FrontdoorId::new(Uuid::nil()),
        environment: lab.environment,
        agent,
    });
    // Only a certificate of the gateway's own authority is welcomed.
    for (ca, right) in [(&*lab.ca, true), (&other, false)] {
        let key = PrivateKey::generate().unwrap();
        let certificate = ca.issue(&identity, &key.public_point(), Timestamp::now()).unwrap();
        lab.agents.name(&[(agent, enrolled(&key.public_point()))], &[]);
        let tls = AgentTls::new(lab.ca.certificate(), key, certificate).unwrap();
        let tcp = tokio::net::TcpStream::connect(lab.address).await.unwrap();
        let answer = async {
            let mut control = tls.connect_control(tcp).await.ok()?;
            control.send(&hello(false)).await.ok()?;
            control.receive::<ToAgent>().await.ok()
        };
        let answer = tokio::time::timeout(SOON, answer).await.unwrap();
        assert_eq!(
            right,
            matches!(answer, Some(ToAgent::Welcome { assigns_duties: true, .. })),
            "{answer:?}"
        );
    }
}

#[tokio::test]
async fn an_agent_detects_a_gateway_of_another_authority_and_another_protocol() {
    let (lab, other) = (Lab::new().await, Lab::new().await);
    let agent = super::puppet::Puppet::new(&lab, 5);
    let error = agent.handshake(other.address).await.unwrap_err();
    assert_eq!(error.diagnosis(), Some(Diagnosis::Stranger), "{error:?}");

    let http = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = http.local_addr().unwrap();
    let serve = async {
        let (mut tcp, _) = http.accept().await.unwrap();
        tcp.write_all(b"HTTP/1.1 400 Bad Request\r\ncontent-length: 0\r\n\r\n").await.unwrap();
        tcp
    };
    let (outcome, _tcp) = tokio::join!(agent.handshake(address), serve);
    let error = outcome.unwrap_err();
    assert_eq!(error.diagnosis(), Some(Diagnosis::NotTls), "{error:?}");
    assert_eq!(error.to_string(), "the TLS handshake failed: the peer does not speak TLS");
}

#[tokio::test]
async fn a_certificate_is_renewed_in_time() {
    let lab = Lab::new().await;
    let state = tempfile::tempdir().unwrap();
    let agent = lab.start(state.path(), Some(&lab.code), &[]);
    let path = state.path().join("identity.json");
    let written = async {
        while !path.exists() {
            tokio::time::sleep(std::time::Duration::from_millis(5)).await;
        }
    };
    soon("the identity", written).await;
    agent.stop().await;
    let mut identity: serde_json::Value = serde_json::from_slice(&fs::read(&path).unwrap()).unwrap();
    let old = identity["certificate"].clone();
    identity["issuedAt"] = (Timestamp::now() - jiff::SignedDuration::from_hours(241)).to_string().into();
    fs::write(&path, serde_json::to_vec(&identity).unwrap()).unwrap();
    let agent = lab.start(state.path(), None, &[]);
    let renewed = async {
        loop {
            let now: Option<serde_json::Value> =
                fs::read(&path).ok().and_then(|bytes| serde_json::from_slice(&bytes).ok());
            if now.is_some_and(|now| now["certificate"] != old) {
                return;
            }
            tokio::time::sleep(std::time::Duration::from_millis(20)).await;
        }
    };
    soon("a renewed certificate", renewed).await;
    assert_eq!(lab.seen.renewed.load(Ordering::Relaxed), 1);
    agent.stop().await;
}

//! Certificates of the authority that the server knows nothing of: a restored database, or a copied authority's key.

use super::{
    lab::{Lab, enrolled, soon},
    puppet::{Puppet, hello},
};
use std::time::{Duration, Instant};
use tokio::time::timeout;
use wicketgate_model::{AgentDesired, EnvironmentId};
use wicketgate_transport::control::{Control, ToAgent};

/// The gateway's answer to a hello.
async fn answer(control: &mut Control) -> Option<ToAgent> {
    control.send(&hello(true)).await.ok()?;
    soon("an answer", control.receive()).await.ok()
}

#[tokio::test]
async fn an_agent_that_the_server_does_not_name_is_not_served_and_is_told() {
    let lab = Lab::new().await;
    let puppet = Puppet::new(&lab, 5);
    lab.agents.name(&[], &[puppet.id]);
    let mut control = puppet.control().await.unwrap();
    assert_eq!(answer(&mut control).await, Some(ToAgent::Unknown));
    assert!(lab.seen.connected.lock().unwrap().is_empty());
}

#[tokio::test]
async fn a_gateway_that_was_told_nothing_yet_calls_no_agent_unknown() {
    let lab = Lab::new().await;
    let puppet = Puppet::before_the_server_names_it(&lab, 5);
    let mut control = puppet.control().await.unwrap();
    assert_eq!(answer(&mut control).await, None, "it is closed without a word, and tries again");
    lab.agents.name(&[(puppet.id, puppet.named())], &[]);
    assert!(puppet.connect().await.is_some());
}

#[tokio::test]
async fn a_certificate_for_another_key_or_environment_than_the_named_one_is_not_served() {
    let lab = Lab::new().await;
    let puppet = Puppet::new(&lab, 5);
    let AgentDesired::Enrolled { environment, key_sha256 } = enrolled(b"another key") else { panic!() };
    let another_key = AgentDesired::Enrolled { environment, key_sha256 };
    let right = puppet.named();
    let AgentDesired::Enrolled { key_sha256, .. } = right else { panic!() };
    let elsewhere =
        AgentDesired::Enrolled { environment: EnvironmentId::new(uuid::Uuid::from_u128(77)), key_sha256 };
    for named in [another_key, elsewhere] {
        lab.agents.name(&[(puppet.id, named)], &[]);
        let mut control = puppet.control().await.unwrap();
        assert_eq!(answer(&mut control).await, Some(ToAgent::Unknown), "{named:?}");
    }
    lab.agents.name(&[(puppet.id, right)], &[]);
    assert!(puppet.connect().await.is_some());
}

#[tokio::test]
async fn an_agent_that_is_named_soon_after_its_enrolment_is_welcomed_then() {
    let lab = Lab::new().await;
    let puppet = Puppet::new(&lab, 5);
    let named = puppet.named();
    lab.agents.name(&[], &[puppet.id]);
    let mut control = puppet.control().await.unwrap();
    control.send(&hello(true)).await.unwrap();
    let early = timeout(Duration::from_millis(300), control.receive::<ToAgent>()).await;
    assert!(early.is_err(), "{early:?}");
    let begun = Instant::now();
    lab.agents.name(&[(puppet.id, named)], &[]);
    let answer = soon("a welcome", control.receive()).await.unwrap();
    assert!(matches!(answer, ToAgent::Welcome { .. }), "{answer:?}");
    assert!(begun.elapsed() < Duration::from_secs(4), "it was woken, and not only looked at again");
}

#[tokio::test]
async fn an_agent_that_is_no_longer_named_is_cut() {
    let lab = Lab::new().await;
    let puppet = Puppet::new(&lab, 5);
    let mut control = puppet.connect().await.unwrap();
    let named = puppet.named();
    // Named again, as it is: nothing happens.
    lab.agents.name(&[(puppet.id, named)], &[]);
    lab.agents.name(&[], &[puppet.id]);
    let end = async { while control.receive::<ToAgent>().await.is_ok() {} };
    soon("the end of the connection", end).await;
    let carrier = puppet.carrier().await;
    // With TLS 1.3 the handshake is over before the gateway has judged the certificate.
    if let Some(mut carrier) = carrier {
        soon("the end of the carrier", carrier.sign()).await.unwrap_err();
    }
}

//! An agent with several gateways, as signed lists name them.

use super::{
    lab::{Client, Lab, RunningAgent, echo, exchange, soon},
    puppet::Puppet,
};
use std::{net::SocketAddr, time::Duration};
use tempfile::TempDir;
use uuid::Uuid;
use wicketgate_authority::Ca;
use wicketgate_gateway::agents::DialFailure;
use wicketgate_model::{
    AgentDesired, AgentId, DialledGateway, EnvironmentId, Era, GatewayId, GatewayList, SignedGatewayList,
};
use wicketgate_system::program::LastingRefusal;
use wicketgate_transport::{
    control::{FromAgent, ToAgent},
    frame::RefusalReason,
};

const ANY: &str = "127.0.0.1:0";
/// In which a connection that an agent has no reason for would be made.
const A_WHILE: Duration = Duration::from_millis(500);

fn list(version: u64, of: &[&Lab]) -> GatewayList {
    let url = |lab: &Lab| format!("https://{}", lab.address);
    let gateways = of.iter().map(|lab| DialledGateway { id: lab.gateway, url: url(lab) }).collect();
    GatewayList { environment: of[0].environment, era: Era::new(1), version, gateways }
}

/// Has a gateway pass the list on.
fn pass_on(by: &Lab, list: &GatewayList) {
    pass_on_signed(by, by.ca.sign_gateways(list).unwrap());
}

fn pass_on_signed(by: &Lab, list: SignedGatewayList) {
    by.agents.set_gateways(vec![(by.environment, list)]);
}

fn is_connected(lab: &Lab) -> bool {
    !lab.seen.connected.lock().unwrap().is_empty()
}

async fn until(what: &str, is_so: impl Fn() -> bool) {
    let wait = async {
        while !is_so() {
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
    };
    soon(what, wait).await;
}

async fn carries(lab: &Lab, share: u128) {
    let mut client = lab.connect(share).await.unwrap();
    assert_eq!(exchange(&mut client.tcp, b"through").await, b"through");
    soon("an end", client.end()).await.unwrap();
}

/// An agent that has enrolled at the first gateway, and learned of the second one: both have assigned share 1.
struct Scene {
    first: Lab,
    second: Lab,
    target: SocketAddr,
    state: TempDir,
    agent: RunningAgent,
}

impl Scene {
    async fn new() -> Self {
        let (first, state) = (Lab::new().await, tempfile::tempdir().unwrap());
        let agent = first.start(state.path(), Some(&first.code), &[]);
        until("an enrolled agent", || is_connected(&first)).await;
        let second = first.another(2, ANY.parse().unwrap()).await;
        let (target, _) = echo().await;
        for lab in [&first, &second] {
            lab.agents.assign(&first.share(1, 1, target));
        }
        first.ready(1, 1).await;
        assert!(!is_connected(&second), "it was not named");
        pass_on(&first, &list(5, &[&first, &second]));
        second.ready(1, 1).await;
        Self { first, second, target, state, agent }
    }

    /// Has the agent answer something that the first gateway sends after all that it was given.
    async fn first_is_heard(&self, share: u128) {
        tokio::time::sleep(A_WHILE).await;
        self.first.agents.assign(&self.first.share(share, 1, self.target));
        self.first.ready(share, 1).await;
    }
}

#[tokio::test]
async fn a_share_is_served_through_each_gateway_until_that_withdraws_it() {
    let Scene { first, second, target, agent, .. } = Scene::new().await;
    for lab in [&first, &second] {
        carries(lab, 1).await;
        // The gateway of `--server` is in the list, and has one connection.
        assert_eq!(*lab.seen.connected.lock().unwrap(), [AgentId::new(Uuid::from_u128(100))]);
    }
    let mut client = second.connect(1).await.unwrap();
    assert_eq!(echoed(&mut client).await, b"before");
    first.agents.withdraw(super::lab::share_id(1));
    // What the first gateway takes back, the second one goes on with.
    first.agents.assign(&first.share(2, 1, target));
    first.ready(2, 1).await;
    carries(&second, 1).await;
    assert_eq!(echoed(&mut client).await, b"before");
    assert_eq!(second.agents.standing(super::lab::share_id(1)).problem, None);
    // A gateway opens what it assigns, and nothing else.
    second.agents.assign(&first.share(2, 1, target));
    second.ready(2, 1).await;
    second.agents.withdraw(super::lab::share_id(2));
    carries(&first, 2).await;
    drop(client);
    agent.stop().await;
}

async fn echoed(client: &mut Client) -> Vec<u8> {
    use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
    client.tcp.write_all(b"before").await.unwrap();
    let mut got = vec![0; 6];
    soon("an echo", client.tcp.read_exact(&mut got)).await.unwrap();
    got
}

#[tokio::test]
async fn a_list_that_is_older_or_not_the_servers_is_refused() {
    let scene = Scene::new().await;
    let (first, second) = (&scene.first, &scene.second);
    let only_first = list(4, &[first]);
    pass_on(first, &only_first);
    scene.first_is_heard(2).await;
    // A later version of an earlier era.
    pass_on(first, &GatewayList { era: Era::FIRST, version: 100, ..only_first.clone() });
    scene.first_is_heard(3).await;
    let other = EnvironmentId::new(Uuid::from_u128(8));
    pass_on(first, &GatewayList { environment: other, version: 100, ..only_first.clone() });
    scene.first_is_heard(4).await;
    let stranger = Ca::generate(jiff::Timestamp::now()).unwrap();
    let newer = GatewayList { version: 100, ..only_first };
    pass_on_signed(first, stranger.sign_gateways(&newer).unwrap());
    scene.first_is_heard(5).await;
    let signed = first.ca.sign_gateways(&GatewayList { version: 6, ..newer.clone() }).unwrap();
    let body = signed.body.replace("\"version\":6", "\"version\":7");
    pass_on_signed(first, SignedGatewayList { body, ..signed });
    scene.first_is_heard(6).await;
    assert!(is_connected(second));
    carries(second, 1).await;

    // Also after a restart, at which only the second gateway is there: the list was kept.
    scene.agent.stop().await;
    first.drain.cancel();
    until("the first gateway's end", || !is_connected(second)).await;
    let agent = first.start(scene.state.path(), None, &[]);
    second.ready(1, 1).await;
    carries(second, 1).await;
    pass_on(second, &list(4, &[first]));
    tokio::time::sleep(A_WHILE).await;
    carries(second, 1).await;
    // A newer one is followed.
    pass_on(second, &list(6, &[first]));
    until("the second gateway to be left", || !is_connected(second)).await;
    agent.stop().await;
}

#[tokio::test]
async fn a_gateway_that_is_lost_costs_nothing_at_the_other_and_is_dialled_again() {
    let Scene { first, second, target, agent, .. } = Scene::new().await;
    let mut client = first.connect(1).await.unwrap();
    assert_eq!(echoed(&mut client).await, b"before");
    let address = second.address;
    second.drain.cancel();
    until("its end", || std::net::TcpListener::bind(address).is_ok()).await;
    for _ in 0..10 {
        carries(&first, 1).await;
    }
    assert_eq!(echoed(&mut client).await, b"before");
    let again = first.another(2, address).await;
    again.agents.assign(&first.share(1, 1, target));
    again.ready(1, 1).await;
    carries(&again, 1).await;
    // The gateway of `--server` is one of them: the other one serves without it.
    first.drain.cancel();
    until("its end", || !is_connected(&first) || std::net::TcpListener::bind(first.address).is_ok()).await;
    carries(&again, 1).await;
    drop(client);
    agent.stop().await;
}

#[tokio::test]
async fn another_gateway_of_the_authority_is_not_taken_for_one_of_the_list() {
    let (first, state) = (Lab::new().await, tempfile::tempdir().unwrap());
    let agent = first.start(state.path(), Some(&first.code), &[]);
    until("an enrolled agent", || is_connected(&first)).await;
    let second = first.another(2, ANY.parse().unwrap()).await;
    let mut named = list(1, &[&first, &second]);
    named.gateways[1].id = GatewayId::new(Uuid::from_u128(3));
    pass_on(&first, &named);
    tokio::time::sleep(A_WHILE).await;
    assert!(!is_connected(&second));
    pass_on(&first, &list(2, &[&first, &second]));
    until("the right one", || is_connected(&second)).await;
    agent.stop().await;
}

#[tokio::test]
async fn one_gateway_does_not_end_an_agent_that_others_serve_and_all_of_them_do() {
    let Scene { first, second, agent, .. } = Scene::new().await;
    let named = first.seen.named.lock().unwrap()[0].0;
    first.agents.name(&[(named, AgentDesired::Barred)], &[]);
    until("the first gateway to be left", || !is_connected(&first)).await;
    tokio::time::sleep(A_WHILE).await;
    carries(&second, 1).await;
    let failed = first.connect(1).await.map(drop).unwrap_err();
    assert!(
        !matches!(&failed, DialFailure::Refused(refusal) if refusal.reason == RefusalReason::NotAssigned),
        "{failed:?}"
    );
    second.agents.name(&[(named, AgentDesired::Barred)], &[]);
    let ended = soon("the agent's end", agent.task).await.unwrap().unwrap_err();
    assert!(ended.is::<LastingRefusal>() && ended.to_string().contains("was removed"), "{ended:#}");
}

#[tokio::test]
async fn an_agent_that_learns_no_gateways_is_sent_none() {
    let lab = Lab::new().await;
    let puppet = Puppet::new(&lab, 5);
    pass_on(&lab, &list(1, &[&lab]));
    let mut control = puppet.connect().await.unwrap();
    pass_on(&lab, &list(2, &[&lab]));
    lab.agents.assign(&lab.share(1, 1, super::lab::unused_address().await));
    let mut seen_assignment = false;
    let until_pinged = async {
        loop {
            match control.receive().await.unwrap() {
                ToAgent::Gateways { .. } => panic!("it does not understand this"),
                ToAgent::Assign { .. } => seen_assignment = true,
                ToAgent::Ping if seen_assignment => return,
                ToAgent::Ping => control.send(&FromAgent::Pong).await.unwrap(),
                _ => {}
            }
        }
    };
    soon("an assignment, and what follows", until_pinged).await;
}

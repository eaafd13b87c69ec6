//! An agent that a test controls.

use super::lab::{Lab, enrolled, soon};
use jiff::Timestamp;
use std::net::SocketAddr;
use tokio::{net::TcpStream, sync::mpsc};
use uuid::Uuid;
use wicketgate_model::{AgentDesired, AgentId, FrontdoorId, Generation, ShareId};
use wicketgate_transport::{
    carrier::Carrier,
    control::{Control, FromAgent, ToAgent},
    identity::{AgentIdentity, Identity},
    key::PrivateKey,
    tls::{AgentTls, TlsError},
};

/// An agent of the lab's environment, with a certificate.
pub(crate) struct Puppet {
    pub(crate) id: AgentId,
    named: AgentDesired,
    tls: AgentTls,
    address: SocketAddr,
}

/// `learns_removal`: it understands why it is refused.
pub(crate) fn hello(learns_removal: bool) -> FromAgent {
    FromAgent::Hello {
        version: "1".into(),
        name: "lab".into(),
        takes_duties: false,
        takes_over: false,
        learns_removal,
        learns_gateways: false,
    }
}

impl Puppet {
    pub(crate) fn new(lab: &Lab, n: u128) -> Self {
        let puppet = Self::before_the_server_names_it(lab, n);
        lab.agents.name(&[(puppet.id, puppet.named)], &[]);
        puppet
    }

    pub(crate) fn before_the_server_names_it(lab: &Lab, n: u128) -> Self {
        let id = AgentId::new(Uuid::from_u128(n));
        let frontdoor = FrontdoorId::new(Uuid::nil());
        let identity = Identity::Agent(AgentIdentity { frontdoor, environment: lab.environment, agent: id });
        let key = PrivateKey::generate().unwrap();
        let certificate = lab.ca.issue(&identity, &key.public_point(), Timestamp::now()).unwrap();
        let named = enrolled(&key.public_point());
        let tls = AgentTls::new(lab.ca.certificate(), key, certificate).unwrap();
        Self { id, named, tls, address: lab.address }
    }

    /// What the server says of it.
    pub(crate) fn named(&self) -> AgentDesired {
        self.named
    }

    /// The handshake of a control connection with the given address.
    pub(crate) async fn handshake(&self, address: SocketAddr) -> Result<Control, TlsError> {
        let tcp = TcpStream::connect(address).await.unwrap();
        soon("a handshake", self.tls.connect_control(tcp)).await
    }

    /// A control connection before its hello; `None`: the gateway has rejected it.
    pub(crate) async fn control(&self) -> Option<Control> {
        let tcp = TcpStream::connect(self.address).await.ok()?;
        soon("a handshake", self.tls.connect_control(tcp)).await.ok()
    }

    /// A control connection that was welcomed.
    pub(crate) async fn connect(&self) -> Option<Control> {
        let mut control = self.control().await?;
        control.send(&hello(false)).await.ok()?;
        match soon("a welcome", control.receive()).await.ok()? {
            ToAgent::Welcome { .. } => Some(control),
            other => panic!("expected a welcome, got {other:?}"),
        }
    }

    pub(crate) async fn carrier(&self) -> Option<Carrier> {
        let tcp = TcpStream::connect(self.address).await.ok()?;
        soon("a handshake", self.tls.connect_carrier(tcp)).await.ok()
    }
}

pub(crate) async fn acknowledge(control: &mut Control, share: ShareId, generation: u64) {
    let shares = vec![(share, Generation::new(generation))];
    control.send(&FromAgent::Acks { shares }).await.unwrap();
}

/// Answers the gateway's pings until the connection ends, and sends the messages that it is given.
pub(crate) fn answer_pings(mut control: Control) -> mpsc::Sender<FromAgent> {
    let (send, mut sent) = mpsc::channel(8);
    tokio::spawn(async move {
        loop {
            let message = tokio::select! {
                received = control.receive::<ToAgent>() => match received {
                    Ok(ToAgent::Ping) => FromAgent::Pong,
                    Ok(_) => continue,
                    Err(_) => return,
                },
                Some(message) = sent.recv() => message,
            };
            if control.send(&message).await.is_err() {
                return;
            }
        }
    });
    send
}

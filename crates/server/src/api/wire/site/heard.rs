//! What the gateway hears of the site's device: how far its tries to connect come, and what to set at it.

use super::words::Words;
use jiff::{SignedDuration, Timestamp, Unit};
use serde::Serialize;
use std::net::Ipv4Addr;
use wicketgate_model::{
    Connection, ConnectionDoubt, ConnectionError, ConnectionFault, ConnectionState, ConnectionWarning,
    text_enum,
};
use wicketgate_store::TunnelRow;

/// How long after a packet the device is trying: devices repeat IKE messages within this time.
const TRYING: SignedDuration = SignedDuration::from_secs(30);

text_enum!(
    /// How far the device has come.
    HeardStage {
        /// No IKE message of the device arrives.
        NothingReceived = "NOTHING_RECEIVED",
        /// Its messages arrive, and one end refuses the other.
        Refused = "REFUSED",
        /// Its messages arrive, and nothing is refused yet.
        Connecting = "CONNECTING",
        Up = "UP",
        /// The gateway is not connected with the server, or does not tell its log: what arrives there is not known.
        Unknown = "UNKNOWN",
    }
);

/// What it follows from.
#[derive(Debug)]
pub(in crate::api) struct HeardFacts<'a> {
    pub(in crate::api) tunnel: &'a TunnelRow,
    pub(in crate::api) connection: Connection,
    /// The address that the device dials; `None` without IPsec.
    pub(in crate::api) gateway: Option<Ipv4Addr>,
    /// Whether what the gateway has told is current.
    pub(in crate::api) is_gateway_connected: bool,
    /// When the last IKE message of the device arrived, as far as the log was read.
    pub(in crate::api) packet_at: Option<Timestamp>,
    /// Whether the log was read to its end now: no message is newer than that one.
    pub(in crate::api) is_log_read: bool,
    /// The visitor's own public address, if IKE arrives from it and it is no tunnel's.
    pub(in crate::api) visitor: Option<Ipv4Addr>,
    pub(in crate::api) at: Timestamp,
}

#[serde_with::skip_serializing_none]
#[derive(Debug, Serialize)]
#[serde(rename_all = "camelCase")]
pub(in crate::api) struct Heard {
    /// Signs of life and ESP do not count.
    last_packet_at: Option<Timestamp>,
    log_read: bool,
    #[serde(serialize_with = "as_text")]
    stage: HeardStage,
    /// Of a connection that is up: what `words` are about.
    warning: Option<ConnectionDoubt>,
    #[serde(flatten)]
    words: Words,
}

fn as_text<S: serde::Serializer>(stage: &HeardStage, s: S) -> Result<S::Ok, S::Error> {
    s.serialize_str(stage.as_str())
}

impl HeardFacts<'_> {
    fn gateway(&self) -> String {
        self.gateway.map_or_else(|| "the gateway".to_owned(), |gateway| gateway.to_string())
    }
}

impl Heard {
    pub(in crate::api) fn of(facts: &HeardFacts<'_>) -> Self {
        let stage = stage(facts);
        let warning = warning(stage, facts).map(|warning| warning.reason);
        Self {
            last_packet_at: facts.packet_at,
            log_read: facts.is_log_read,
            stage,
            warning,
            words: words(stage, facts),
        }
    }

    pub(in crate::api) fn words(self) -> Words {
        self.words
    }
}

fn stage(facts: &HeardFacts<'_>) -> HeardStage {
    // It has told its address when it connected.
    if !facts.is_gateway_connected {
        return HeardStage::Unknown;
    }
    if facts.gateway.is_none() {
        return HeardStage::Up;
    }
    let connection = &facts.connection;
    match (connection.state, connection.last_error.as_ref().map(|error| error.reason)) {
        (ConnectionState::Up, _) => return HeardStage::Up,
        // The gateway calls, and only its log says whether the device does.
        (_, Some(ConnectionFault::PeerDoesNotAnswer)) => {}
        (_, Some(_)) => return HeardStage::Refused,
        (ConnectionState::Idle, None) => return HeardStage::Connecting,
        (ConnectionState::Connecting | ConnectionState::Down, None) => {}
    }
    match facts.packet_at {
        Some(at) if facts.at.duration_since(at) <= TRYING => HeardStage::Connecting,
        _ if facts.is_log_read => HeardStage::NothingReceived,
        _ => HeardStage::Unknown,
    }
}

/// The first doubt about a connection that is up.
fn warning<'a>(stage: HeardStage, facts: &'a HeardFacts<'_>) -> Option<&'a ConnectionWarning> {
    let is_up = stage == HeardStage::Up && facts.gateway.is_some();
    facts.connection.warnings.first().filter(|_| is_up)
}

fn words(stage: HeardStage, facts: &HeardFacts<'_>) -> Words {
    let (connection, spec) = (&facts.connection, &facts.tunnel.spec);
    let (gateway, own) = (facts.gateway(), spec.peer_address);
    match (stage, &connection.last_error) {
        (HeardStage::Up, _) if facts.gateway.is_none() => Words::new(
            "the provider's gateway runs without IPsec",
            "Connect to the services without a tunnel",
        ),
        (HeardStage::Up, _) => match warning(stage, facts) {
            Some(warning) => doubt(warning, facts),
            None => Words::new("your device is connected", "Connect to the services"),
        },
        (HeardStage::Unknown, _) => Words::new(
            "the provider's gateway does not tell what arrives there",
            "Change nothing at your device; if it stays so for some minutes, tell your provider",
        ),
        (HeardStage::NothingReceived, _) if let Some(visitor) = facts.visitor => Words::new(
            format!(
                "IKE arrives from {visitor}, the address that you visit this page from, and none from {own}"
            ),
            format!("Have your device send from {own}, or tell your provider that its address is {visitor}"),
        ),
        (HeardStage::NothingReceived, _) if let Some(at) = facts.packet_at => Words::new(
            format!("no IKE message from {own} has arrived at the gateway since {}", to_the_second(at)),
            format!(
                "Start the tunnel at your device again, and check its line: UDP 500 and 4500 must pass between {own} and \
                 {gateway} in both directions"
            ),
        ),
        (HeardStage::NothingReceived, _) => Words::new(
            format!("no IKE message from {own} has arrived at the gateway, {gateway}"),
            format!(
                "Load the configuration of this page into your device, start the tunnel, and let UDP 500 and 4500 pass to \
                 {gateway} and back. The device, or the NAT in front of it, must send from {own}"
            ),
        ),
        (HeardStage::Refused, Some(error)) => fault(error, facts),
        (HeardStage::Connecting, _) if connection.state == ConnectionState::Idle => Words::new(
            "both ends are authenticated, and nothing passes yet: there is no CHILD SA (phase 2)",
            format!(
                "Have your device bring up phase 2 with {} as the local and {} as the remote network",
                spec.peer_cidr, facts.tunnel.load_balancer_ip
            ),
        ),
        (HeardStage::Connecting | HeardStage::Refused, _) => {
            Words::new("your device and the gateway are negotiating", "Wait some seconds")
        }
    }
}

fn to_the_second(at: Timestamp) -> Timestamp {
    at.round(Unit::Second).unwrap_or(at)
}

/// A failure of the connection, as the site's engineer sees and mends it.
pub(super) fn fault(error: &ConnectionError, facts: &HeardFacts<'_>) -> Words {
    match advice(error.reason, facts) {
        Some(advice) => Words::new(for_device(&error.cause, facts), advice),
        None => Words::new(
            "the provider's gateway has a fault of its own",
            "Change nothing at your device; if it stays so, tell your provider",
        ),
    }
}

/// What to set at the device; `None`: the fault is in the gateway, whose inside its cause tells.
fn advice(fault: ConnectionFault, facts: &HeardFacts<'_>) -> Option<String> {
    let spec = &facts.tunnel.spec;
    let (gateway, own, lb) = (facts.gateway(), spec.peer_address, facts.tunnel.load_balancer_ip);
    Some(match fault {
        ConnectionFault::GatewayFailed | ConnectionFault::ChildSaNotInstalled => return None,
        ConnectionFault::PreSharedKeysDiffer => {
            "Set the pre-shared key of this page's configuration on your device, without a space or line end around it".to_owned()
        }
        ConnectionFault::PeerIdentityDiffers => format!(
            "Set {}, of the type {}, as the local identity on your device",
            spec.peer_id.value(),
            spec.peer_id.kind().described()
        ),
        ConnectionFault::GatewayIdentityDiffers => {
            format!("Set {gateway}, of the type address, as the remote identity on your device")
        }
        ConnectionFault::NoCommonIkeProposal => {
            "Set an IKE (phase 1) proposal of this page's configuration on your device".to_owned()
        }
        ConnectionFault::NoCommonEspProposal => {
            "Set an ESP (phase 2) proposal of this page's configuration on your device, with the same group for perfect forward \
             secrecy (PFS)"
                .to_owned()
        }
        ConnectionFault::TrafficSelectorsDiffer => format!(
            "Set {} as the local and {lb}/32 as the remote network of phase 2 on your device, with all protocols and ports",
            spec.peer_cidr
        ),
        ConnectionFault::PeerRefusedGateway => format!(
            "Set the pre-shared key of this page's configuration, and {gateway} as the remote identity, on your device"
        ),
        ConnectionFault::AuthenticationMethodDiffers => {
            "Set your device to authenticate both ends with the pre-shared key".to_owned()
        }
        ConnectionFault::VirtualIpRequested => format!(
            "Set mode config (a virtual or dynamic address) to off on your device; its local network is {}",
            spec.peer_cidr
        ),
        ConnectionFault::ChildSaWithdrawn => {
            "See the log of your device: it may lack ESP, or another of its connections has the same networks".to_owned()
        }
        ConnectionFault::IkeVersionDiffers => "Set your device to IKE version 2".to_owned(),
        ConnectionFault::PeerDuplicated => "Turn off one of the two devices that use this configuration".to_owned(),
        ConnectionFault::ChildSaUnknown => "End the connection at your device and start it again".to_owned(),
        ConnectionFault::PeerAddressDiffers => format!(
            "Have your device, or the NAT in front of it, send from {own}, or tell your provider its new address"
        ),
        ConnectionFault::NatTraversalBlocked => {
            format!("Let UDP 4500 pass between your device and {gateway} in both directions, in your firewalls")
        }
        ConnectionFault::AnswersLost => {
            format!("Let UDP 500 and 4500 pass from {gateway} to your device, in its firewall or NAT")
        }
        ConnectionFault::PeerDoesNotAnswer => format!(
            "Check that your device is up and has the address {own}, and let UDP 500 and 4500 pass between it and {gateway}"
        ),
        ConnectionFault::NegotiationFailed => {
            "Compare your device with this page's configuration, value by value".to_owned()
        }
    })
}

/// The gateway's words for the other end are those of its own side: to the reader, the other end is the device in front of him.
fn for_device(cause: &str, facts: &HeardFacts<'_>) -> String {
    let network = format!("the tunnel's network of your site, {}", facts.tunnel.spec.peer_cidr);
    let address = format!("the tunnel's address of your site is {}", facts.tunnel.spec.peer_address);
    let load_balancer = format!("the gateway's side is {}", facts.tunnel.load_balancer_ip);
    [
        ("the tunnel's peerId is", "the gateway expects"),
        (&format!("peerCidr, {}", facts.tunnel.spec.peer_cidr), &*network),
        (&format!("peerPublicIp is {}", facts.tunnel.spec.peer_address), &*address),
        ("the tunnel only offers loadBalancerIp", &*load_balancer),
        ("the peer", "your device"),
    ]
    .into_iter()
    .fold(cause.to_owned(), |text, (from, to)| text.replace(from, to))
}

/// A doubt about a connection that is up.
fn doubt(warning: &ConnectionWarning, facts: &HeardFacts<'_>) -> Words {
    let (cidr, lb) = (facts.tunnel.spec.peer_cidr, facts.tunnel.load_balancer_ip);
    let (message, advice) = match warning.reason {
        ConnectionDoubt::PeerSuspected | ConnectionDoubt::PeerSilent => (
            "your device is connected, and has not answered for some seconds".to_owned(),
            "Check that your device and its line are up".to_owned(),
        ),
        ConnectionDoubt::NoTrafficReceived => (
            "your device is connected, and no packet has come through the tunnel".to_owned(),
            format!("Connect to a service from a host within {cidr}, and have your device route {lb} into the tunnel, without NAT"),
        ),
        ConnectionDoubt::PortWithoutShare => {
            let ports: Vec<_> = warning.ports.iter().map(|p| format!("{}/{}", p.port, p.protocol)).collect();
            (
                format!("hosts of your site use ports that have no service: {}", ports.join(", ")),
                "Connect to the ports of the services on this page".to_owned(),
            )
        }
        ConnectionDoubt::PacketsOutsideSelectors => (
            "packets from addresses outside of the tunnel's networks come through it, and are dropped".to_owned(),
            format!("Send into the tunnel only from {cidr} to {lb}: set a policy or NAT rule of your device accordingly"),
        ),
        ConnectionDoubt::LargePacketsLost => (
            "large packets are lost between the gateway and your device".to_owned(),
            "Set the MSS of this page's configuration on your device, and let ICMP \"fragmentation needed\" pass".to_owned(),
        ),
    };
    Words::new(message, advice)
}

#[cfg(test)]
pub(in crate::api) mod tests;

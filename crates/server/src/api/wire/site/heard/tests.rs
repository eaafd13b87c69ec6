use super::*;
use wicketgate_model::{FrontdoorId, Generation, PreSharedKey, Standing, Status, TunnelId, UnservedPort};
use wicketgate_store::{PreviousKeys, TunnelSpec};

/// A tunnel that is deployed, and whose device is not connected.
pub(in crate::api) fn tunnel() -> TunnelRow {
    let at: Timestamp = "2030-01-01T00:00:00Z".parse().unwrap();
    let spec = TunnelSpec::new(
        "customer-a".parse().unwrap(),
        "local".parse().unwrap(),
        "203.0.113.1".parse().unwrap(),
        "172.31.0.0/16".parse().unwrap(),
        PreSharedKey::from_random([7; 32]),
    );
    TunnelRow {
        id: TunnelId::new(uuid::Uuid::nil()),
        frontdoor: FrontdoorId::new(uuid::Uuid::nil()),
        spec,
        gateway: None,
        redundancy: wicketgate_model::Redundancy::None,
        load_balancer_ip: [100, 64, 0, 1].into(),
        slot: 0,
        previous_keys: PreviousKeys::default(),
        generation: Generation::FIRST,
        cut_generation: None,
        peer_address_taken_at: None,
        standing: Standing { status: Status::Deployed, since: at, observed_generation: None, detail: None },
        connection: None,
        created_at: at,
        updated_at: at,
        deleted_at: None,
        created_by: "admin".to_owned(),
        deleted_by: None,
    }
}

/// Nothing was heard of the device.
pub(in crate::api) fn facts(tunnel: &TunnelRow) -> HeardFacts<'_> {
    HeardFacts {
        tunnel,
        connection: Connection::down(tunnel.created_at),
        gateway: Some([198, 51, 100, 7].into()),
        is_gateway_connected: true,
        packet_at: None,
        is_log_read: true,
        visitor: None,
        at: tunnel.created_at,
    }
}

fn error(reason: ConnectionFault, cause: &str) -> Option<ConnectionError> {
    let cure = "change peerId, or see `wicketgate tunnel config`".to_owned();
    Some(ConnectionError { reason, cause: cause.to_owned(), cure, since: tunnel().created_at })
}

#[test]
fn a_device_comes_from_silence_to_a_connection() {
    let row = tunnel();
    let at = |seconds| Some(row.created_at - SignedDuration::from_secs(seconds));
    let (down, connecting) = (ConnectionState::Down, ConnectionState::Connecting);
    let silent = ConnectionFault::PeerDoesNotAnswer;
    for (state, fault, packet_at, expected) in [
        (down, None, None, HeardStage::NothingReceived),
        // The gateway calls a device that does not answer.
        (connecting, None, None, HeardStage::NothingReceived),
        (down, Some(silent), None, HeardStage::NothingReceived),
        (down, Some(silent), at(3), HeardStage::Connecting),
        (connecting, None, at(3), HeardStage::Connecting),
        (ConnectionState::Idle, None, at(3), HeardStage::Connecting),
        (down, None, at(3), HeardStage::Connecting),
        // It was connected, and its line is out.
        (down, None, at(3600), HeardStage::NothingReceived),
        (down, Some(ConnectionFault::PreSharedKeysDiffer), at(3), HeardStage::Refused),
        (connecting, Some(ConnectionFault::PreSharedKeysDiffer), at(3), HeardStage::Refused),
        (ConnectionState::Up, Some(ConnectionFault::PreSharedKeysDiffer), at(3), HeardStage::Up),
    ] {
        let last_error = fault.and_then(|fault| error(fault, "it failed"));
        let connection = Connection { state, last_error, ..Connection::down(row.created_at) };
        let facts = HeardFacts { connection, packet_at, ..facts(&row) };
        assert_eq!(stage(&facts), expected, "{state} {fault:?} {packet_at:?}");
        // A log that is late may have a message: that there is none is not claimed.
        let late = HeardFacts { is_log_read: false, ..facts };
        let told = if expected == HeardStage::NothingReceived { HeardStage::Unknown } else { expected };
        assert_eq!(stage(&late), told, "{state} {fault:?} {packet_at:?}");
    }
    let lost = HeardFacts { packet_at: at(3600), ..facts(&row) };
    let told = Heard::of(&lost).words;
    assert_eq!(
        told.message,
        "no IKE message from 203.0.113.1 has arrived at the gateway since 2029-12-31T23:00:00Z"
    );
    let untold = HeardFacts { is_gateway_connected: false, ..facts(&row) };
    assert_eq!(stage(&untold), HeardStage::Unknown);
    let without = HeardFacts { gateway: None, ..facts(&row) };
    assert!(Heard::of(&without).words.message.contains("without IPsec"));
}

#[test]
fn a_device_that_sends_from_another_address_is_told_its_own() {
    let row = tunnel();
    let unheard = Heard::of(&facts(&row)).words;
    assert!(unheard.advice.contains("UDP 500 and 4500") && unheard.advice.contains("203.0.113.1"));
    let other = HeardFacts { visitor: Some([192, 0, 2, 77].into()), ..facts(&row) };
    let told = Heard::of(&other).words;
    assert!(told.message.contains("192.0.2.77") && told.advice.contains("203.0.113.1"), "{told:?}");
}

#[test]
fn each_fault_says_what_to_set_at_the_device_and_nothing_of_the_api() {
    let row = tunnel();
    let causes = [
        (
            ConnectionFault::PeerIdentityDiffers,
            "the peer identifies itself as x, but the tunnel's peerId is 203.0.113.1",
        ),
        (
            ConnectionFault::TrafficSelectorsDiffer,
            "the peer's traffic selector 10.0.0.0/8 is outside peerCidr, 172.31.0.0/16",
        ),
        (
            ConnectionFault::TrafficSelectorsDiffer,
            "the peer asks for 10.9.0.0/16, but the tunnel only offers loadBalancerIp",
        ),
        (
            ConnectionFault::PeerAddressDiffers,
            "the device with this tunnel's keys sends from 192.0.2.1, and peerPublicIp is 203.0.113.1",
        ),
    ];
    let all = ConnectionFault::ALL.map(|fault| (fault, "the peer does what the peer should not"));
    for (fault, cause) in all.into_iter().chain(causes) {
        let mut facts = facts(&row);
        facts.connection.last_error = error(fault, cause);
        let words = super::fault(facts.connection.last_error.as_ref().unwrap(), &facts);
        let text = format!("{} {}", words.message, words.advice);
        assert!(!words.advice.is_empty() && words.advice.starts_with(char::is_uppercase), "{fault}");
        for of_the_provider in
            ["peerId", "peerCidr", "peerPublicIp", "loadBalancerIp", "wicketgate", "the peer"]
        {
            assert!(!text.contains(of_the_provider), "{fault}: {text}");
        }
        assert!(!text.contains(row.spec.pre_shared_key.as_ref().unwrap().expose()), "{fault}: {text}");
    }
}

#[test]
fn a_doubt_about_a_connection_that_is_up_is_told() {
    let row = tunnel();
    for doubt in ConnectionDoubt::ALL {
        let mut warning =
            ConnectionWarning::new(doubt, "as the gateway says it: loadBalancerIp", row.created_at);
        warning.ports = vec![UnservedPort {
            protocol: wicketgate_model::InnerProtocol::Tcp,
            port: 4711,
            attempts: 1,
            last_at: row.created_at,
            sources: Vec::new(),
        }];
        let connection = Connection {
            state: ConnectionState::Up,
            warnings: vec![warning],
            ..Connection::down(row.created_at)
        };
        let told = Heard::of(&HeardFacts { connection, ..facts(&row) });
        assert_eq!((told.stage, told.warning), (HeardStage::Up, Some(doubt)));
        assert!(!told.words.message.contains("loadBalancerIp"), "{}", told.words.message);
        assert_eq!(told.words.message.contains("4711/tcp"), doubt == ConnectionDoubt::PortWithoutShare);
    }
    // It is one about a connection, and not about what was before it.
    let connection = Connection {
        warnings: vec![ConnectionWarning::new(ConnectionDoubt::PeerSilent, "", row.created_at)],
        ..Connection::down(row.created_at)
    };
    assert_eq!(Heard::of(&HeardFacts { connection, ..facts(&row) }).warning, None);
    let connection = Connection { state: ConnectionState::Up, ..Connection::down(row.created_at) };
    assert_eq!(Heard::of(&HeardFacts { connection, ..facts(&row) }).warning, None);
}

//! What the fuzz targets and a test run: texts of clients and agents, parsed into each type. Only they see this module.

use crate::{
    AgentName, Description, EnvironmentKey, EspProposal, EspProposals, FrontdoorId, IkeProposal,
    IkeProposals, LoadBalancerIp, LoadBalancerPool, LocationId, NamespaceName, PeerAddress, PeerCidr, PeerId,
    PreSharedKey, QuotaSetting, ResourceName, ShareId, SourceCidr, Target, ZId, plain,
};
use std::{
    fmt::{Debug, Display},
    net::Ipv4Addr,
    str::{FromStr, from_utf8},
};

/// The value of a text, if it has one: what it is printed as is the text of the same value.
fn parsed<T: FromStr + Display + PartialEq + Debug>(text: &str) -> Option<T> {
    let value: T = text.parse().ok()?;
    assert_eq!(value.to_string().parse().ok().as_ref(), Some(&value), "{text:?}");
    Some(value)
}

/// A target has a host of printable characters without a meaning elsewhere, and a port.
pub fn target(text: &[u8]) {
    let Some(target) = from_utf8(text).ok().and_then(parsed::<Target>) else { return };
    let host = target.host.to_string();
    assert!(target.port > 0 && (1..=253).contains(&host.len()), "{target:?}");
    let is_plain = |b: u8| b.is_ascii_digit() || b.is_ascii_lowercase() || b"-_.:[]".contains(&b);
    assert!(host.bytes().all(is_plain), "{target:?}");
}

/// A site's network has no address that no host has.
pub fn network(text: &[u8]) {
    let Ok(text) = from_utf8(text) else { return };
    if let Some(network) = parsed::<PeerCidr>(text) {
        assert!(network.get().trunc() == network.get() && network.get().prefix_len() >= 8);
        for reserved in [[0, 0, 0, 1], [127, 0, 0, 1], [169, 254, 0, 1], [224, 0, 0, 1], [255, 255, 255, 255]]
        {
            assert!(!network.contains(Ipv4Addr::from(reserved)), "{network} has {reserved:?}");
        }
    }
    if let Some(address) = parsed::<PeerAddress>(text) {
        let ip = address.get();
        assert!(!(ip.is_unspecified() || ip.is_multicast() || ip.is_broadcast() || ip.is_loopback()), "{ip}");
    }
    if let Some(network) = parsed::<SourceCidr>(text) {
        assert!(network.get().trunc() == network.get());
    }
    parsed::<LoadBalancerPool>(text);
    parsed::<LoadBalancerIp>(text);
}

/// An identity stands in configurations of any syntax without quotes of its own; a key is its text.
pub fn identity(text: &[u8]) {
    let Ok(text) = from_utf8(text) else { return };
    if let Some(id) = parsed::<PeerId>(text) {
        let (value, written) = (id.value(), id.in_strongswan());
        assert!(text.ends_with(value) && id.is(id.kind(), value));
        let has_meaning = |c: char| c.is_control() || "\"'`\\<>&;{}()$#%*?!|".contains(c);
        assert!(!written.is_empty() && !written.contains(has_meaning), "{written:?}");
    }
    if let Ok(key) = text.parse::<PreSharedKey>() {
        assert_eq!(key.expose(), text);
    }
}

/// Proposals, separated by commas: no list names one twice.
pub fn proposal(text: &[u8]) {
    let Ok(text) = from_utf8(text) else { return };
    let ike: Vec<_> = text.split(',').filter_map(parsed::<IkeProposal>).collect();
    let esp: Vec<_> = text.split(',').filter_map(parsed::<EspProposal>).collect();
    for proposal in &esp {
        assert_eq!(proposal.integrity.is_none(), proposal.encryption.is_aead());
    }
    if let Ok(list) = IkeProposals::try_from(ike.clone()) {
        assert!(list.all() == ike && (1..=IkeProposals::MOST).contains(&ike.len()));
    }
    if let Ok(list) = EspProposals::try_from(esp.clone()) {
        assert!(list.all() == esp && (1..=EspProposals::MOST).contains(&esp.len()));
    }
}

/// Names, ids and limits; and any text that is shown in a terminal.
pub fn name(text: &[u8]) {
    let Ok(text) = from_utf8(text) else { return };
    let label = parsed::<ResourceName>(text);
    assert!(label.is_none_or(|label| label.as_str().len() <= 63));
    // Both are labels, and stricter.
    assert!(parsed::<LocationId>(text).is_none() || text.parse::<ResourceName>().is_ok());
    assert!(parsed::<NamespaceName>(text).is_none() || text.parse::<LocationId>().is_ok());
    parsed::<AgentName>(text);
    parsed::<ZId>(text);
    parsed::<ShareId>(text);
    parsed::<FrontdoorId>(text);
    if let Some(description) = parsed::<Description>(text) {
        assert!(!description.as_str().contains(char::is_control));
    }
    if let Ok(EnvironmentKey::ZId(id)) = text.parse::<EnvironmentKey>() {
        assert!(text.parse::<ShareId>().is_err() && id.as_str() == text);
    }
    if let Ok(QuotaSetting { kind, limit }) = text.parse() {
        assert_eq!(format!("{kind}={limit}").parse(), Ok(QuotaSetting { kind, limit }));
    }
    let shown = plain(text, 40);
    assert!(shown.chars().count() <= 40 && !shown.contains(char::is_control) && plain(&shown, 40) == shown);
}

#[test]
fn mutations_of_the_seeds_keep_the_properties() {
    wicketgate_seeds::replay("target", 3000, target);
    wicketgate_seeds::replay("network", 3000, network);
    wicketgate_seeds::replay("identity", 3000, identity);
    wicketgate_seeds::replay("proposal", 3000, proposal);
    wicketgate_seeds::replay("name", 3000, name);
}

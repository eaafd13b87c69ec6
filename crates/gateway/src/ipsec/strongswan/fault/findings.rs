//! What charon's log says between a message and its answer.

use wicketgate_model::ConnectionFault;

use super::{identity::Identities, proposals::Offered, selectors::selector};
use crate::ipsec::strongswan::{
    conf::Ends,
    peer_fault::{PeerFault, quoted},
};

/// One line.
#[derive(Debug)]
pub(super) enum Finding {
    Identities(Identities),
    /// The peer matches a connection, or none.
    Selected(Option<String>),
    KeysDiffer,
    OtherMethod(&'static str),
    VirtualIp,
    Version,
    /// The peer's selectors for the gateway's side and for its own.
    Selectors(String, String),
    /// The peer's proposals, of which none is chosen.
    Offered(String),
    Configured(String),
    NotInstalled(String),
}

impl Finding {
    pub(super) fn read(line: &str) -> Option<Self> {
        if let Some(ids) = line.strip_prefix("looking for peer configs matching ") {
            return Identities::read(ids).map(Self::Identities);
        }
        if line == "no matching peer config found" {
            return Some(Self::Selected(None));
        }
        if let Some(name) = line.strip_prefix("selected peer config '").and_then(|l| l.strip_suffix('\'')) {
            return Some(Self::Selected(Some(name.to_owned())));
        }
        if line.starts_with("tried ") && line.ends_with("but MAC mismatched") {
            return Some(Self::KeysDiffer);
        }
        if let Some(method) = other_method(line) {
            return Some(Self::OtherMethod(method));
        }
        if line.starts_with("peer requested virtual IP ") {
            return Some(Self::VirtualIp);
        }
        if let Some(selectors) =
            line.strip_prefix("traffic selectors ").and_then(|l| l.strip_suffix(" unacceptable"))
        {
            let (ours, theirs) = selectors.split_once(" === ")?;
            return Some(Self::Selectors(ours.to_owned(), theirs.to_owned()));
        }
        if let Some(offered) = line.strip_prefix("received proposals: ") {
            return Some(Self::Offered(offered.to_owned()));
        }
        if let Some(own) = line.strip_prefix("configured proposals: ") {
            return Some(Self::Configured(own.to_owned()));
        }
        if line.starts_with("unable to install ") && line.ends_with(" in kernel") {
            return Some(Self::NotInstalled(quoted(line)));
        }
        // The one configuration is for this peer and IKEv2, so only IKEv1 finds none.
        let is_version =
            line.starts_with("no IKE config found for ") && line.ends_with("sending NO_PROPOSAL_CHOSEN");
        is_version.then_some(Self::Version)
    }
}

/// How the peer authenticates, if not with a pre-shared key.
fn other_method(line: &str) -> Option<&'static str> {
    if line == "peer requested EAP, config unacceptable" {
        return Some("EAP");
    }
    let is_key = line.starts_with("no trusted ") && line.contains(" public key found for ")
        || line.starts_with("constraint requires pre-shared key authentication, but public key");
    is_key.then_some("a certificate or a public key")
}

/// The lines about one exchange, in any order.
#[derive(Debug, Default)]
pub(super) struct Findings {
    ids: Option<Identities>,
    selected: Option<Option<String>>,
    offered: Option<String>,
    configured: Option<String>,
    selectors: Option<(String, String)>,
    keys_differ: bool,
    other_method: Option<&'static str>,
    virtual_ip: bool,
    version: bool,
    not_installed: Option<String>,
}

impl Findings {
    pub(super) fn take(&mut self, finding: Finding) {
        match finding {
            Finding::Identities(ids) => self.ids = Some(ids),
            Finding::Selected(name) => self.selected = Some(name),
            Finding::KeysDiffer => self.keys_differ = true,
            Finding::OtherMethod(method) => self.other_method = Some(method),
            Finding::VirtualIp => self.virtual_ip = true,
            Finding::Version => self.version = true,
            Finding::Selectors(ours, theirs) => self.selectors = Some((ours, theirs)),
            Finding::Offered(proposals) => self.offered = Some(proposals),
            Finding::Configured(proposals) => self.configured = Some(proposals),
            Finding::NotInstalled(line) => self.not_installed = Some(line),
        }
    }

    /// Whether the finding is the missing one of two that belong together.
    pub(super) fn lacks(&self, finding: &Finding) -> bool {
        match finding {
            Finding::Identities(_) => self.ids.is_none(),
            Finding::Selected(_) => self.selected.is_none(),
            Finding::Offered(_) => self.offered.is_none() && self.configured.is_some(),
            Finding::Configured(_) => self.configured.is_none() && self.offered.is_some(),
            Finding::KeysDiffer
            | Finding::OtherMethod(_)
            | Finding::VirtualIp
            | Finding::Version
            | Finding::Selectors(..)
            | Finding::NotInstalled(_) => false,
        }
    }

    /// The gateway's own kernel took no CHILD SA.
    pub(super) fn installation(&self) -> Option<PeerFault> {
        let line = self.not_installed.as_ref()?;
        let cause = format!("the gateway cannot use the CHILD SA: {line}");
        Some(PeerFault::new(ConnectionFault::ChildSaNotInstalled, cause))
    }

    /// The cause, as far as the findings show it. A peer with another identity has no key and no selectors of this tunnel.
    pub(super) fn cause(&self, ends: Option<&Ends>) -> Option<PeerFault> {
        let ids = self.ids.as_ref().zip(self.selected.as_ref()).zip(ends);
        let identity = ids.and_then(|((ids, selected), ends)| ids.fault(selected.as_deref(), ends));
        let method = || {
            let method = self.other_method?;
            let cause = format!("the peer authenticates with {method}, and the tunnel has a pre-shared key");
            Some(PeerFault::new(ConnectionFault::AuthenticationMethodDiffers, cause))
        };
        let simple = |is: bool, reason, cause: &str| is.then(|| PeerFault::new(reason, cause));
        let selectors =
            || self.selectors.as_ref().zip(ends).map(|((ours, theirs), ends)| selector(ours, theirs, ends));
        self.installation()
            .or(identity)
            .or_else(method)
            .or(simple(self.keys_differ, ConnectionFault::PreSharedKeysDiffer, "the pre-shared keys differ"))
            .or(simple(
                self.virtual_ip,
                ConnectionFault::VirtualIpRequested,
                "the peer asks for a virtual IP address, and the gateway assigns none",
            ))
            .or_else(selectors)
            .or(simple(self.version, ConnectionFault::IkeVersionDiffers, "the peer speaks IKEv1"))
    }

    /// The peer's proposals are none of the tunnel's. In the first exchange no CHILD SA has a group.
    pub(super) fn offered(&self, is_later_child: bool) -> Option<PeerFault> {
        let configured = self.configured.as_deref().filter(|_| is_later_child);
        Some(Offered::read(self.offered.as_ref()?, configured).fault())
    }
}

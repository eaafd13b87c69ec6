//! Proposals in charon's log, of which none is chosen: `IKE:AES_CBC_128/HMAC_SHA1_96/PRF_HMAC_SHA1/MODP_2048, IKE:…`

use wicketgate_model::ConnectionFault;

use super::list::listed;
use crate::ipsec::strongswan::{
    peer_fault::{PeerFault, quoted},
    suite,
};

/// The proposals that a peer offered.
#[derive(Debug)]
pub(super) struct Offered {
    all: Vec<String>,
    is_esp: bool,
    /// The groups of the tunnel's ESP proposals that differ from an offered one in nothing else, and that one.
    missing_groups: Option<(String, Vec<String>)>,
}

impl Offered {
    /// `configured` are the gateway's own proposals, if the groups are to be compared.
    pub(super) fn read(text: &str, configured: Option<&str>) -> Self {
        let mut this = Self { all: suites(text), is_esp: text.starts_with("ESP:"), missing_groups: None };
        if let Some(configured) = configured {
            this.compare(configured);
        }
        this
    }

    fn compare(&mut self, configured: &str) {
        let configured = suites(configured);
        let groups_of = |offered: &String| {
            let groups =
                configured.iter().filter_map(|own| own.strip_prefix(offered.as_str())?.strip_prefix('/'));
            let groups: Vec<_> = groups.filter(|rest| !rest.contains('/')).map(str::to_owned).collect();
            (!groups.is_empty()).then(|| (offered.clone(), groups))
        };
        self.missing_groups = self.all.iter().filter(|_| self.is_esp).find_map(groups_of);
    }

    /// None of them is one of the tunnel's.
    pub(super) fn fault(self) -> PeerFault {
        if let Some((offered, groups)) = self.missing_groups {
            return without_group(&offered, groups);
        }
        let proposals = listed(self.all.iter().map(|p| quoted(p)).collect());
        let (reason, sa, kind) = if self.is_esp {
            (ConnectionFault::NoCommonEspProposal, "CHILD", "ESP")
        } else {
            (ConnectionFault::NoCommonIkeProposal, "IKE", "IKE")
        };
        let none = format!("which is none of the tunnel's {kind} proposals");
        PeerFault::new(reason, format!("the peer offered {proposals} for the {sa} SA, {none}"))
    }
}

/// The peer accepts no proposal of the gateway.
pub(super) fn refused(line: &str) -> PeerFault {
    if line.starts_with("parsed IKE_SA_INIT response") {
        let cause = "the peer accepts none of the tunnel's IKE proposals";
        return PeerFault::new(ConnectionFault::NoCommonIkeProposal, cause);
    }
    let cause = "the peer accepts none of the tunnel's ESP proposals";
    if line.starts_with("parsed CREATE_CHILD_SA response") {
        return PeerFault::with_cure(
            ConnectionFault::NoCommonEspProposal,
            format!(
                "{cause} to rekey the CHILD SA: it has another group for perfect forward secrecy, or none"
            ),
            "set the group from the tunnel's vpn-config on the site's device, or add the device's proposal, which has no group \
             if perfect forward secrecy is off, to the tunnel's espProposals",
        );
    }
    PeerFault::new(ConnectionFault::NoCommonEspProposal, cause)
}

/// A rekey without a group, where the tunnel's proposals have `groups`.
fn without_group(offered: &str, groups: Vec<String>) -> PeerFault {
    let cause = format!(
        "the peer offered {offered} without a group to rekey the CHILD SA, but the tunnel's ESP proposals have one: {}",
        listed(groups)
    );
    let proposal = suite::esp_without_group(offered).map_or_else(|| offered.to_owned(), |p| p.to_string());
    let cure = format!(
        "turn on perfect forward secrecy (PFS) with one of these groups on the site's device, or add {proposal}, without a \
         group, to the tunnel's espProposals"
    );
    PeerFault::with_cure(ConnectionFault::NoCommonEspProposal, cause, cure)
}

fn suites(text: &str) -> Vec<String> {
    let suite = |p: &str| {
        let p = p.split_once(':').map_or(p, |(_, p)| p);
        p.strip_suffix("/NO_EXT_SEQ").unwrap_or(p).to_owned()
    };
    text.split(", ").map(suite).collect()
}

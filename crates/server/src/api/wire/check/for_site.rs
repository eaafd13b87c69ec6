//! The check of a share without what is behind the gateway: what the engineer of the remote site may see of it.
//!
//! Invariant: a hop's own message and advice are not passed on, but for the listener's address, since they may name targets, agents,
//! or what runs at the gateway.

use super::{Check, Hop, HopName, State, Walked};
use crate::api::wire::site::{
    heard::{Heard, HeardFacts},
    words::{self, Words},
};
use serde::Serialize;
use wicketgate_model::Reason;

#[derive(Debug, Serialize)]
pub(in crate::api) struct SiteCheck {
    ok: bool,
    hops: Vec<SiteHop>,
}

#[serde_with::skip_serializing_none]
#[derive(Debug, Serialize)]
struct SiteHop {
    hop: HopName,
    state: State,
    message: String,
    advice: Option<String>,
}

impl SiteCheck {
    pub(in crate::api) fn of(walked: &Walked<'_>, facts: HeardFacts<'_>) -> Self {
        let Check { ok, hops, .. } = Check::of(walked);
        let connection = walked.connection().cloned().unwrap_or(facts.connection);
        let facts = HeardFacts { connection, ..facts };
        Self { ok, hops: hops.into_iter().map(|hop| SiteHop::of(hop, &facts)).collect() }
    }
}

impl SiteHop {
    fn of(hop: Hop, facts: &HeardFacts<'_>) -> Self {
        let Hop { hop, state, message, reason, .. } = hop;
        let words = match (state, reason) {
            (State::Failed, _) if hop == HopName::IkeSa => Some(Heard::of(facts).words()),
            (State::Failed, None) => Some(words::of(Reason::TunnelFailed)),
            (_, Some(reason)) => Some(words::of(reason)),
            (_, None) => None,
        };
        if let Some(Words { message, advice }) = words {
            return Self { hop, state, message, advice: Some(advice) };
        }
        let message = match (hop, state) {
            (_, State::Unknown) => "not known, because of what failed before it".to_owned(),
            (_, State::Skipped) => "the provider's gateway runs without IPsec".to_owned(),
            (HopName::Tunnel, _) => "the provider's gateway is ready".to_owned(),
            (HopName::IkeSa, _) => "your device is connected".to_owned(),
            // It names what the site itself connects to, and its own networks.
            (HopName::Listener, _) => message,
            (HopName::Agent, _) => "the provider's network behind the gateway is connected".to_owned(),
            (HopName::Target, _) => "the service took a connection".to_owned(),
        };
        Self { hop, state, message, advice: None }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::api::wire::site::heard::tests::{facts, tunnel};
    use wicketgate_model::{ConnectionError, ConnectionFault, FailureReason};

    /// What messages and advice of hops name: a target, an agent, an environment, and what runs at the gateway.
    const INSIDE: [&str; 4] = ["10.20.0.20:5432", "dc-1.example.org", "ijcrWb-ZOq", "/usr/sbin/nginx"];
    const HOPS: [HopName; 5] =
        [HopName::Tunnel, HopName::IkeSa, HopName::Listener, HopName::Agent, HopName::Target];

    #[test]
    fn no_hop_tells_what_is_behind_the_gateway() {
        let (inside, row) = (INSIDE.join(" "), tunnel());
        let mut count = 0;
        let errors = ConnectionFault::ALL.into_iter().map(|reason| {
            Some(ConnectionError {
                reason,
                cause: String::new(),
                cure: inside.clone(),
                since: row.created_at,
            })
        });
        for last_error in errors.chain([None]) {
            let mut facts = facts(&row);
            facts.connection.last_error = last_error;
            for hop in HOPS {
                for state in [State::Ok, State::Failed, State::Unknown, State::Skipped] {
                    for reason in Reason::ALL.map(Some).into_iter().chain([None]) {
                        // The gateway's address, which the site connects to, is the message of a listener that is open.
                        let is_address = hop == HopName::Listener && state == State::Ok && reason.is_none();
                        let message = if is_address { "bound at 100.64.0.1:8443" } else { &inside };
                        let advice = Some(format!("{inside} {}", FailureReason::ALL[0].advice()));
                        let full = Hop { reason, advice, ..Hop::new(hop, state, message) };
                        let shown = serde_json::to_string(&SiteHop::of(full, &facts)).unwrap();
                        assert!(!INSIDE.iter().any(|name| shown.contains(name)), "{shown}");
                        assert!(state != State::Failed || shown.contains("advice"), "{shown}");
                        count += 1;
                    }
                }
            }
        }
        assert_eq!(count, (ConnectionFault::ALL.len() + 1) * 5 * 4 * (Reason::ALL.len() + 1));
    }
}

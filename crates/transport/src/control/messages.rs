//! The messages of a control connection.

use crate::frame::StreamRefusal;
use serde::{Deserialize, Serialize};
use std::net::IpAddr;
use wicketgate_model::{
    AgentReport, EnrolGrant, EnrolRefusal, Generation, JoinGrant, JoinRefusal, ShareId, SignedAssignment,
    SignedGatewayList, base64_text,
};

/// The answer to an [`EnrolRequest`](wicketgate_model::EnrolRequest), which is the only message of an agent that enrols.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "type", rename_all = "camelCase")]
pub enum EnrolAnswer {
    Enrolled(EnrolGrant),
    Refused {
        refusal: EnrolRefusal,
    },
    /// The gateway cannot reach the server at the moment.
    Unavailable,
}

/// The answer to a [`JoinRequest`](wicketgate_model::JoinRequest), which is the only message of a gateway that joins.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "type", rename_all = "camelCase")]
pub enum JoinAnswer {
    Joined(JoinGrant),
    Refused {
        refusal: JoinRefusal,
    },
    /// The server cannot use its database at the moment.
    Unavailable,
}

/// From an agent to a gateway.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "type", rename_all = "camelCase")]
pub enum FromAgent {
    /// The first message.
    Hello {
        version: String,
        name: String,
        /// The agent understands [`ToAgent::ProbeDuty`] and [`ToAgent::Duplicate`].
        #[serde(default)]
        takes_duties: bool,
        /// The operator wants this agent to replace another one with the same identity.
        #[serde(default)]
        takes_over: bool,
        /// The agent understands [`ToAgent::Removed`].
        #[serde(default)]
        learns_removal: bool,
        /// The agent understands [`ToAgent::Gateways`].
        #[serde(default)]
        learns_gateways: bool,
    },
    /// The agent serves this generation of the share.
    Ack {
        share: ShareId,
        generation: Generation,
    },
    /// [`FromAgent::Ack`] of so many shares. Only to a gateway that takes it.
    Acks {
        shares: Vec<(ShareId, Generation)>,
    },
    /// The agent does not serve the share.
    Refused {
        share: ShareId,
        generation: Generation,
        reason: String,
    },
    /// The reachability of the share's target has changed.
    Health {
        share: ShareId,
        health: TargetHealth,
        /// The target is unreachable because the agent or its host has run out of something.
        #[serde(default)]
        agent_exhausted: bool,
        /// Why it is unreachable. An older agent only says it in the text.
        #[serde(default)]
        cause: Option<StreamRefusal>,
    },
    /// Requests a new certificate for this connection's identity.
    Renew {
        #[serde(with = "base64_text")]
        public_key: Vec<u8>,
    },
    /// The clock of the agent's host is ahead of the gateway's by so many seconds, or behind it if negative. Sent only if it
    /// matters, and to a gateway that told its time.
    Clock {
        seconds_ahead: i64,
    },
    /// What the agent has found on its own host, after its start or a reload. Only to a gateway that takes it.
    Report {
        report: Box<AgentReport>,
    },
    /// The agent is stopping: it accepts no new streams and finishes the running ones.
    Draining,
    Pong,
    /// The first and only message of an operator's check with the agent's identity: the gateway answers with
    /// [`ToAgent::Welcome`] and the environment's assignments, and closes the connection. Nothing else changes.
    Check,
}

/// Whether an agent reaches a target.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "state", content = "cause", rename_all = "camelCase")]
pub enum TargetHealth {
    Ok,
    Unreachable(String),
}

/// From a gateway to an agent.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "type", rename_all = "camelCase")]
pub enum ToAgent {
    /// The answer to `Hello`.
    Welcome {
        /// The gateway says which targets the agent probes while they are not in use. An older one does not, and its
        /// agents probe all.
        #[serde(default)]
        assigns_duties: bool,
        /// The gateway's clock, in Unix seconds; it understands [`FromAgent::Clock`].
        #[serde(default)]
        time: Option<i64>,
        /// The gateway understands [`FromAgent::Report`].
        #[serde(default)]
        takes_reports: bool,
        /// The gateway understands [`FromAgent::Acks`].
        #[serde(default)]
        takes_acks: bool,
    },
    Assign {
        assignments: Vec<SignedAssignment>,
    },
    Withdraw {
        shares: Vec<ShareId>,
    },
    /// Which gateways serve the agent's environment, as the server has signed it. Only to an agent that learns them.
    Gateways {
        list: SignedGatewayList,
    },
    /// The answer to `Hello` while another agent with the same identity is connected, from this address and with this name.
    Duplicate {
        address: IpAddr,
        name: String,
    },
    /// The agent was removed, or its environment was: this connection ends right after, and every later one will.
    Removed,
    /// The answer to `Hello` of an agent that the server has not named to the gateway. Only to one that understands
    /// [`ToAgent::Removed`].
    Unknown,
    /// Of which shares the agent probes the targets while they are not in use, and of which it stops to.
    ProbeDuty {
        on: Vec<ShareId>,
        off: Vec<ShareId>,
    },
    /// How many carriers the agent should have parked.
    Carriers {
        want: u16,
    },
    /// DER.
    Renewed {
        #[serde(with = "base64_text")]
        certificate: Vec<u8>,
    },
    /// `None`: the server cannot renew it at the moment.
    RenewRefused {
        refusal: Option<EnrolRefusal>,
    },
    Ping,
    /// The gateway is stopping: this connection ends right after, running streams continue.
    Draining,
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::control::{ACKS_PER_MESSAGE, MAX_FROM_AGENT};

    #[test]
    fn an_older_gateway_takes_no_reports_and_an_older_agent_ignores_that_a_newer_one_does() {
        let welcome = |takes| {
            let (takes_reports, takes_acks) = (takes, takes);
            ToAgent::Welcome { assigns_duties: true, time: Some(7), takes_reports, takes_acks }
        };
        let old = r#"{"type": "welcome", "assigns_duties": true, "time": 7}"#;
        assert_eq!(serde_json::from_str::<ToAgent>(old).unwrap(), welcome(false));
        // What an older agent knows of a welcome.
        #[derive(Debug, PartialEq, Eq, Deserialize)]
        #[serde(tag = "type", rename_all = "camelCase")]
        enum OldToAgent {
            Welcome { assigns_duties: bool, time: Option<i64> },
        }
        let new = serde_json::to_string(&welcome(true)).unwrap();
        let known = OldToAgent::Welcome { assigns_duties: true, time: Some(7) };
        assert_eq!(serde_json::from_str::<OldToAgent>(&new).unwrap(), known);
    }

    #[test]
    fn an_older_agent_learns_no_gateways_and_an_older_gateway_ignores_that_a_newer_one_does() {
        let hello = |learns_gateways| FromAgent::Hello {
            version: "1".to_owned(),
            name: "a".to_owned(),
            takes_duties: true,
            takes_over: false,
            learns_removal: true,
            learns_gateways,
        };
        let old =
            r#"{"type": "hello", "version": "1", "name": "a", "takes_duties": true, "learns_removal": true}"#;
        assert_eq!(serde_json::from_str::<FromAgent>(old).unwrap(), hello(false));
        // What an older gateway knows of a hello.
        #[derive(Debug, PartialEq, Eq, Deserialize)]
        #[serde(tag = "type", rename_all = "camelCase")]
        enum OldFromAgent {
            Hello { version: String, name: String },
        }
        let new = serde_json::to_string(&hello(true)).unwrap();
        let known = OldFromAgent::Hello { version: "1".to_owned(), name: "a".to_owned() };
        assert_eq!(serde_json::from_str::<OldFromAgent>(&new).unwrap(), known);
    }

    #[test]
    fn a_batch_of_acknowledgements_fits_into_a_message_of_an_agent() {
        let longest = (ShareId::new(uuid::Uuid::max()), Generation::new(u64::MAX));
        let batch = FromAgent::Acks { shares: vec![longest; ACKS_PER_MESSAGE] };
        assert!(serde_json::to_vec(&batch).unwrap().len() <= MAX_FROM_AGENT);
    }
}

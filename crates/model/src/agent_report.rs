//! What an agent has found on its own host when it started, for operators.
//!
//! Its texts are those of an agent, which may say anything. Invariant: a report that was received is bounded, and controls no
//! terminal.

use crate::{declare::serde_as_text, plain};
use serde::{Deserialize, Serialize};

crate::text_enum!(
    /// The result of a step of an agent's check of itself.
    FindingResult {
        Pass = "PASS",
        Fail = "FAIL",
        /// It does not apply.
        Skip = "SKIP",
    }
);
serde_as_text!(FindingResult);

/// See the module.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", from = "ReceivedReport")]
pub struct AgentReport {
    /// The system of its host, and its kernel.
    pub os: String,
    /// How many files its process may have open at a time.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub open_files: Option<u64>,
    /// Those that its host is set up with.
    pub name_servers: Vec<String>,
    pub findings: Vec<AgentFinding>,
}

/// As an agent has sent it. A newer one may say more, an older one less.
#[derive(Default, Deserialize)]
#[serde(rename_all = "camelCase", default)]
struct ReceivedReport {
    os: String,
    open_files: Option<u64>,
    name_servers: Vec<String>,
    findings: Vec<AgentFinding>,
}

impl From<ReceivedReport> for AgentReport {
    fn from(received: ReceivedReport) -> Self {
        let ReceivedReport { os, open_files, name_servers, findings } = received;
        Self { os, open_files, name_servers, findings }.bounded()
    }
}

/// One step of the check.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct AgentFinding {
    /// What was looked at, as `wicketgate-agent check` names it.
    pub check: String,
    /// The address or rule that it is about.
    pub subject: String,
    pub result: FindingResult,
    pub message: String,
}

impl AgentReport {
    /// Entries of each list.
    pub const MOST: usize = 32;
    /// Characters of a text: more than a sentence with two addresses has.
    pub const LONGEST: usize = 300;
    /// Bytes of a report in JSON.
    pub const LARGEST: usize = 15 * 1024;

    /// Without control characters, and with what does not fit cut off.
    pub fn bounded(mut self) -> Self {
        self.os = plain(&self.os, Self::LONGEST);
        self.name_servers.truncate(Self::MOST);
        self.name_servers.iter_mut().for_each(|server| *server = plain(server, Self::LONGEST));
        self.findings.truncate(Self::MOST);
        for finding in &mut self.findings {
            for text in [&mut finding.check, &mut finding.subject, &mut finding.message] {
                *text = plain(text, Self::LONGEST);
            }
        }
        while serde_json::to_string(&self).is_ok_and(|text| text.len() > Self::LARGEST) {
            if self.findings.pop().is_none() && self.name_servers.pop().is_none() {
                break;
            }
        }
        self
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_an_agent_says_is_bounded_and_controls_no_terminal() {
        let text = "\u{1b}[31m\u{202e}\u{1f600}\"\n".repeat(1_000);
        let result = FindingResult::Fail;
        let finding =
            AgentFinding { check: text.clone(), subject: text.clone(), result, message: text.clone() };
        let report = AgentReport {
            os: text.clone(),
            open_files: Some(u64::MAX),
            name_servers: vec![text; 1_000],
            findings: vec![finding; 1_000],
        };
        let bounded: AgentReport = serde_json::from_str(&serde_json::to_string(&report).unwrap()).unwrap();
        let json = serde_json::to_string(&bounded).unwrap();
        assert!(json.len() <= AgentReport::LARGEST && !bounded.os.is_empty(), "{}", json.len());
        assert_eq!(bounded.os.chars().count(), AgentReport::LONGEST);
        assert!(!json.contains("\\u001b") && !json.contains('\u{202e}') && !json.contains("\\n"), "{json}");
        assert_eq!(serde_json::from_str::<AgentReport>(&json).unwrap(), bounded);
        assert_eq!(serde_json::from_str::<AgentReport>(r#"{"later": 1}"#).unwrap(), AgentReport::default());
    }
}

//! The report of a check, for people, for scripts, and for the gateway.

use serde::Serialize;
use std::fmt;
use wicketgate_model::{AgentFinding, FindingResult};

/// Of a step that was not taken.
pub(crate) const NOT_REACHED: &str = "a step before it has failed";

/// What was looked at, in the order of the agent's way.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum CheckStep {
    /// The lookup of the server's name, or of the proxy's.
    Name,
    /// A connection to the server, or to the proxy.
    Tcp,
    Proxy,
    Tls,
    Identity,
    Clock,
    AllowList,
    Target,
}

impl CheckStep {
    const fn as_str(self) -> &'static str {
        match self {
            Self::Name => "name",
            Self::Tcp => "tcp",
            Self::Proxy => "proxy",
            Self::Tls => "tls",
            Self::Identity => "identity",
            Self::Clock => "clock",
            Self::AllowList => "allow-list",
            Self::Target => "target",
        }
    }
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "UPPERCASE")]
pub enum Verdict {
    Pass,
    Fail,
    /// It does not apply, or a step before it has failed.
    Skip,
}

#[derive(Debug, Clone, Serialize)]
struct Line {
    check: CheckStep,
    /// The address, target or share that it is about.
    subject: String,
    result: Verdict,
    message: String,
}

/// The result of each step.
#[derive(Debug, Default, Clone, Serialize)]
pub struct Report {
    checks: Vec<Line>,
}

impl Report {
    pub(crate) fn add(
        &mut self,
        check: CheckStep,
        subject: &(impl fmt::Display + ?Sized),
        (result, message): (Verdict, String),
    ) {
        self.checks.push(Line { check, subject: subject.to_string(), result, message });
    }

    /// For the gateway.
    pub(crate) fn findings(self) -> Vec<AgentFinding> {
        let finding = |Line { check, subject, result, message }| AgentFinding {
            check: check.as_str().to_owned(),
            subject,
            result: match result {
                Verdict::Pass => FindingResult::Pass,
                Verdict::Fail => FindingResult::Fail,
                Verdict::Skip => FindingResult::Skip,
            },
            message,
        };
        self.checks.into_iter().map(finding).collect()
    }

    /// How many steps have failed.
    pub fn failed(&self) -> usize {
        self.checks.iter().filter(|line| line.result == Verdict::Fail).count()
    }
}

pub(crate) fn pass(message: impl Into<String>) -> (Verdict, String) {
    (Verdict::Pass, message.into())
}

pub(crate) fn fail(message: impl Into<String>) -> (Verdict, String) {
    (Verdict::Fail, message.into())
}

pub(crate) fn skip(message: impl Into<String>) -> (Verdict, String) {
    (Verdict::Skip, message.into())
}

/// A line a step.
impl fmt::Display for Report {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for Line { check, subject, result, message } in &self.checks {
            let result = match result {
                Verdict::Pass => "PASS",
                Verdict::Fail => "FAIL",
                Verdict::Skip => "SKIP",
            };
            writeln!(f, "{result}  {:<10}  {subject}: {message}", check.as_str())?;
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_report_is_a_table_and_json() {
        let mut report = Report::default();
        report.add(CheckStep::Tcp, "gw:8443", pass("connected"));
        report.add(CheckStep::AllowList, "app-db", fail("not permitted"));
        report.add(CheckStep::Clock, "gw:8443", skip("not reached"));
        let table = "PASS  tcp         gw:8443: connected\nFAIL  allow-list  app-db: not permitted\n\
                     SKIP  clock       gw:8443: not reached\n";
        assert_eq!((report.to_string().as_str(), report.failed()), (table, 1));
        let json = serde_json::to_value(&report).unwrap();
        let line = &json["checks"][1];
        assert_eq!((&line["check"], &line["result"]), (&"allow-list".into(), &"FAIL".into()));
    }
}

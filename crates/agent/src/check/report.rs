//! The report of a check, for people and for scripts.

use serde::Serialize;
use std::fmt;

/// Of a step that was not taken.
pub(super) const NOT_REACHED: &str = "a step before it has failed";

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
    pub(super) fn add(
        &mut self,
        check: CheckStep,
        subject: &(impl fmt::Display + ?Sized),
        (result, message): (Verdict, String),
    ) {
        self.checks.push(Line { check, subject: subject.to_string(), result, message });
    }

    /// How many steps have failed.
    pub fn failed(&self) -> usize {
        self.checks.iter().filter(|line| line.result == Verdict::Fail).count()
    }
}

pub(super) fn pass(message: impl Into<String>) -> (Verdict, String) {
    (Verdict::Pass, message.into())
}

pub(super) fn fail(message: impl Into<String>) -> (Verdict, String) {
    (Verdict::Fail, message.into())
}

pub(super) fn skip(message: impl Into<String>) -> (Verdict, String) {
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
            let check = match check {
                CheckStep::Name => "name",
                CheckStep::Tcp => "tcp",
                CheckStep::Proxy => "proxy",
                CheckStep::Tls => "tls",
                CheckStep::Identity => "identity",
                CheckStep::Clock => "clock",
                CheckStep::AllowList => "allow-list",
                CheckStep::Target => "target",
            };
            writeln!(f, "{result}  {check:<10}  {subject}: {message}")?;
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

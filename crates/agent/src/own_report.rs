//! What a running agent reports of itself and its host: after its start, as soon as it is connected, and after each reload.
//!
//! Invariant: a report holds no secret, and no target notices that it was made.

use crate::{
    agent::Agent,
    allow::AllowList,
    check::{
        report::{CheckStep, Report, Verdict, fail, pass, skip},
        server_name,
    },
    clock::{CURE, ClockComparison, rounded},
    dial::probe,
    names::Names,
    probe::PROBES,
    proxy::Proxy,
};
use futures_util::stream::{self, StreamExt as _};
use std::{
    fs,
    sync::Arc,
    time::{Duration, Instant},
};
use tokio_util::sync::CancellationToken;
use wicketgate_model::{AgentReport, Target};
use wicketgate_system::open_files;

/// The description of the system (os-release(5)): the first that there is.
const OS_RELEASE: [&str; 2] = ["/etc/os-release", "/usr/lib/os-release"];
const RESOLVER: &str = "/etc/resolv.conf";
/// An older comparison of the clocks tells nothing of now: a clock may have been set since.
const CLOCK_COMPARED_WITHIN: Duration = Duration::from_mins(10);

/// Makes a report once the agent has been connected, and another one whenever the allow list was read again.
pub(crate) async fn keep(agent: Arc<Agent>, stop: CancellationToken) {
    let mut allow = agent.assignments.allow.clone();
    allow.mark_unchanged();
    let making = async {
        agent.report.greeted.notified().await;
        loop {
            let list = Arc::clone(&allow.borrow());
            agent.report.put(make(&agent, &list).await);
            if allow.changed().await.is_err() {
                return;
            }
        }
    };
    stop.run_until_cancelled(making).await;
}

async fn make(agent: &Agent, allow: &AllowList) -> AgentReport {
    let mut report = Report::default();
    let server = agent.route.server.endpoint();
    let dialled = agent.route.proxy.as_ref().map_or(server, Proxy::endpoint);
    let names = &agent.route.names;
    report.add(CheckStep::Name, dialled.host(), server_name::check(dialled, names).await);
    match &agent.route.proxy {
        Ok(proxy) => report.add(CheckStep::Proxy, proxy, pass(format!("connects to {server}"))),
        Err(straight) => report.add(CheckStep::Proxy, "proxy", skip(straight.to_string())),
    }
    let until = agent.state.expires_at();
    report.add(
        CheckStep::Identity,
        &agent.state.agent(),
        pass(format!("the certificate is valid until {until}")),
    );
    report.add(CheckStep::Clock, "the clock of this host", clock(*agent.report.clock.lock(), Instant::now()));
    allowed(allow, names, &mut report).await;
    let os = rustix::system::uname();
    let kernel = format!("{} {}", os.sysname().to_string_lossy(), os.release().to_string_lossy());
    AgentReport {
        os: format!("{}{kernel} ({})", distribution(), os.machine().to_string_lossy()),
        open_files: Some(open_files::limit_now()),
        name_servers: name_servers(&fs::read_to_string(RESOLVER).unwrap_or_default()),
        findings: report.findings(),
    }
    .bounded()
}

/// The clocks are compared only when the agent connects.
fn clock(compared: Option<ClockComparison>, now: Instant) -> (Verdict, String) {
    let Some(ClockComparison { at, made, ahead }) = compared else {
        return skip("the gateway does not tell its time");
    };
    if now.saturating_duration_since(made) > CLOCK_COMPARED_WITHIN {
        return skip(format!(
            "was last compared with the server's at {at}: `wicketgate-agent check` compares it now"
        ));
    }
    match ahead {
        None => pass(format!("agreed with the server's at {at}")),
        Some(ahead) => {
            let side = if ahead < 0 { "behind" } else { "ahead of" };
            fail(format!("was {} {side} the server's at {at}: {CURE}", rounded(ahead.unsigned_abs())))
        }
    }
}

/// What the allow list names: a rule of one address and one port is a target that can be probed.
async fn allowed(allow: &AllowList, names: &Arc<Names>, report: &mut Report) {
    if allow.is_empty() {
        let all = "without --allow, every target is permitted except loopback and link-local addresses";
        return report.add(CheckStep::AllowList, "targets", skip(all));
    }
    let rules: Vec<_> = allow.rules().iter().map(|rule| (rule.to_string(), rule.only_target())).collect();
    let probes = rules.into_iter().take(AgentReport::MOST).map(|(rule, target)| async move {
        let result = match target {
            None => skip("permits more than one address or port, so nothing is probed"),
            Some(target) => reached(&target, allow, names).await,
        };
        (rule, result)
    });
    let results: Vec<_> = stream::iter(probes).buffered(PROBES).collect().await;
    for (rule, result) in results {
        report.add(CheckStep::AllowList, &rule, result);
    }
}

async fn reached(target: &Target, allow: &AllowList, names: &Arc<Names>) -> (Verdict, String) {
    match probe(target, allow, names, false).await {
        Ok(()) => pass("accepts connections"),
        Err(refusal) => fail(refusal.text),
    }
}

/// With a comma behind it; empty if it is not known.
fn distribution() -> String {
    let read = OS_RELEASE.iter().find_map(|file| fs::read_to_string(file).ok()).unwrap_or_default();
    let name = read.lines().find_map(|line| line.strip_prefix("PRETTY_NAME="));
    name.map(|name| format!("{}, ", name.trim_matches(['"', '\'']))).unwrap_or_default()
}

/// As resolv.conf(5) has them.
fn name_servers(text: &str) -> Vec<String> {
    let servers = text.lines().filter_map(|line| line.trim_start().strip_prefix("nameserver"));
    servers.filter(|rest| rest.starts_with([' ', '\t'])).map(|rest| rest.trim().to_owned()).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use jiff::Timestamp;

    #[tokio::test]
    async fn what_the_allow_list_names_is_probed_and_networks_are_not() {
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
        let open = listener.local_addr().unwrap();
        let closed = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap().local_addr().unwrap();
        let rules =
            [open.to_string(), closed.to_string(), "10.0.0.0/8:*".to_owned(), "127.0.0.1:1-2".to_owned()];
        let allow = AllowList::new(rules.iter().map(|rule| rule.parse().unwrap()).collect());
        let mut report = Report::default();
        allowed(&allow, &Arc::new(Names::default()), &mut report).await;
        let text = report.to_string();
        let lines: Vec<_> = text.lines().collect();
        assert!(lines[0].starts_with("PASS") && lines[0].contains(&open.to_string()), "{text}");
        assert!(lines[1].starts_with("FAIL") && lines[1].contains("connection refused"), "{text}");
        assert!(lines[2].starts_with("SKIP") && lines[3].starts_with("SKIP") && lines.len() == 4, "{text}");
    }

    #[test]
    fn the_clock_is_judged_as_of_its_comparison_while_that_is_recent() {
        let (at, made) = (Timestamp::UNIX_EPOCH, Instant::now());
        let judged = |ahead, after| clock(Some(ClockComparison { at, made, ahead }), made + after);
        assert_eq!(
            judged(None, CLOCK_COMPARED_WITHIN),
            pass("agreed with the server's at 1970-01-01T00:00:00Z")
        );
        let (verdict, text) = judged(Some(-180), Duration::ZERO);
        assert!(
            verdict == Verdict::Fail && text.starts_with("was 3 min behind the server's at 1970"),
            "{text}"
        );
        for ahead in [None, Some(180)] {
            let (verdict, text) = judged(ahead, CLOCK_COMPARED_WITHIN * 2);
            assert!(verdict == Verdict::Skip && text.contains("at 1970-01-01T00:00:00Z"), "{text}");
        }
        assert_eq!(clock(None, made).0, Verdict::Skip);
    }

    #[test]
    fn name_servers_are_those_of_the_resolver() {
        let text = "# nameserver 1.1.1.1\nsearch a.example\nnameserver 10.0.0.2\n nameserver\tfd00::2 \nnameservers 3\n";
        assert_eq!(name_servers(text), ["10.0.0.2", "fd00::2"]);
        assert!(name_servers("").is_empty());
    }
}

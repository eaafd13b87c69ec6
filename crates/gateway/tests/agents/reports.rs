//! What agents report of themselves.

use super::{
    lab::{Lab, RunningAgent, allow_list, unused_address},
    puppet::{Puppet, answer_pings},
};
use std::pin::pin;
use tokio::{
    io::copy_bidirectional,
    net::{TcpListener, TcpStream},
    sync::watch,
    task::JoinSet,
};
use wicketgate_agent::Config;
use wicketgate_model::{AgentFinding, AgentReport, FindingResult};
use wicketgate_transport::control::FromAgent;

/// The results of a step, with what they are about.
fn results<'a>(report: &'a AgentReport, check: &str) -> Vec<(FindingResult, &'a str)> {
    let of_step = report.findings.iter().filter(|finding| finding.check == check);
    of_step.map(|finding| (finding.result, finding.subject.as_str())).collect()
}

#[tokio::test]
async fn an_agent_reports_after_its_start_and_after_a_reload() {
    let lab = Lab::new().await;
    let state = tempfile::tempdir().unwrap();
    let open = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let (open, closed) = (open.local_addr().unwrap().to_string(), unused_address().await.to_string());
    let (allow, allowed) = watch::channel(allow_list(&[&open, &closed]));
    let config = Config { allow: allowed, ..lab.config(state.path(), Some(&lab.code), &[]) };
    let agent = RunningAgent::new(config);

    let first = lab.report(1).await;
    let listed = results(&first, "allow-list");
    assert_eq!(listed[1], (FindingResult::Fail, closed.as_str()), "{first:?}");
    assert_eq!(listed[0].1, open, "{first:?}");
    assert_eq!(results(&first, "clock")[0].0, FindingResult::Pass, "{first:?}");
    assert!(first.os.contains("Linux") && first.open_files > Some(100), "{first:?}");
    // The password of a proxy and the enrolment code are in no text of it.
    assert!(!format!("{first:?}").contains("ENR-"), "{first:?}");

    allow.send_replace(allow_list(&["10.0.0.0/8:*"]));
    let second = lab.report(2).await;
    assert_eq!(results(&second, "allow-list"), [(FindingResult::Skip, "10.0.0.0/8:*")], "{second:?}");
    agent.stop().await;
}

#[tokio::test]
async fn a_report_is_sent_again_whenever_the_agent_connects() {
    let lab = Lab::new().await;
    let state = tempfile::tempdir().unwrap();
    let way = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let server = format!("https://{}", way.local_addr().unwrap()).parse().unwrap();
    let agent = RunningAgent::new(Config { server, ..lab.config(state.path(), Some(&lab.code), &[]) });
    let carry = async |n| {
        let mut connections = JoinSet::new();
        let mut reported = pin!(lab.report(n));
        loop {
            tokio::select! {
                report = &mut reported => return report,
                accepted = way.accept() => {
                    let mut inner = accepted.unwrap().0;
                    let mut outer = TcpStream::connect(lab.address).await.unwrap();
                    connections.spawn(async move { copy_bidirectional(&mut inner, &mut outer).await });
                }
            }
        }
    };
    let first = carry(1).await;
    // All connections have ended with it.
    assert_eq!(carry(2).await, first);
    drop(way);
    agent.stop().await;
}

#[tokio::test]
async fn a_report_is_bounded() {
    let lab = Lab::new().await;
    let puppet = Puppet::new(&lab, 5);
    let send = answer_pings(puppet.connect().await.unwrap());
    let (text, result) = ("\u{1b}[2Jx".repeat(100), FindingResult::Fail);
    let finding = AgentFinding { check: text.clone(), subject: text.clone(), result, message: text.clone() };
    let report = AgentReport { os: text, findings: vec![finding; 5], ..AgentReport::default() };
    send.send(FromAgent::Report { report: Box::new(report) }).await.unwrap();
    let told = lab.report(1).await;
    assert_eq!(told.os.chars().count(), AgentReport::LONGEST);
    assert!(!format!("{told:?}").contains("\\u{1b}"), "{told:?}");
}

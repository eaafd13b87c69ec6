//! Two running agents with one identity, from a copy of a state directory.

use super::lab::{Lab, RunningAgent, echo, exchange, soon};
use std::{fs, path::Path};
use tempfile::TempDir;
use wicketgate_gateway::agents::AgentStanding;
use wicketgate_model::Reason;

/// No target: an agent with this list that is connected refuses all shares.
const NOTHING: &[&str] = &["192.0.2.1:1"];

/// An enrolled agent that serves or refuses share 1, and a copy of its state directory.
async fn enrolled(lab: &Lab, allow: &[&str]) -> (RunningAgent, [TempDir; 2]) {
    let dirs = [(); 2].map(|()| tempfile::tempdir().unwrap());
    let agent = lab.start(dirs[0].path(), Some(&lab.code), allow);
    let (target, _) = echo().await;
    lab.agents.assign(&lab.share(1, 1, target));
    let wanted = if allow.is_empty() { None } else { Some(Reason::AgentRefused) };
    lab.standing(1, "answered", |s| reason(s) == wanted && (s.ready.is_some() || wanted.is_some())).await;
    copy(dirs[0].path(), dirs[1].path());
    (agent, dirs)
}

fn copy(from: &Path, to: &Path) {
    for file in fs::read_dir(from).unwrap() {
        let file = file.unwrap();
        fs::copy(file.path(), to.join(file.file_name())).unwrap();
    }
}

fn reason(standing: &AgentStanding) -> Option<Reason> {
    standing.problem.as_ref().map(|problem| problem.reason)
}

async fn all_are_served(lab: &Lab) {
    for _ in 0..20 {
        let mut client = lab.connect(1).await.unwrap();
        assert_eq!(exchange(&mut client.tcp, b"through the right one").await, b"through the right one");
        soon("an end", client.end()).await.unwrap();
    }
}

#[tokio::test]
async fn a_copy_of_a_running_agent_is_refused_and_named_until_that_ends() {
    let lab = Lab::new().await;
    let (agent, [_state, copy]) = enrolled(&lab, &[]).await;
    let copy = lab.start(copy.path(), None, NOTHING);
    let named = lab.standing(1, "named", |s| reason(s) == Some(Reason::AgentDuplicated)).await;
    assert!(named.ready.is_some(), "the share is served");
    let message = named.problem.unwrap().message;
    assert!(message.contains("127.0.0.1 (lab)") && message.contains("--take-over"), "{message}");
    all_are_served(&lab).await;
    agent.stop().await;
    lab.standing(1, "connected in its place", |s| reason(s) == Some(Reason::AgentRefused)).await;
    copy.stop().await;
}

#[tokio::test]
async fn an_operator_replaces_a_running_agent_by_one_with_its_identity() {
    let lab = Lab::new().await;
    let (agent, [_state, copy]) = enrolled(&lab, NOTHING).await;
    let config = wicketgate_agent::Config { take_over: true, ..lab.config(copy.path(), None, &[]) };
    let copy = RunningAgent::new(config);
    lab.standing(1, "served", |s| s.ready.is_some()).await;
    // The replaced agent does not return.
    lab.standing(1, "named", |s| reason(s) == Some(Reason::AgentDuplicated)).await;
    all_are_served(&lab).await;
    copy.stop().await;
    agent.stop().await;
}

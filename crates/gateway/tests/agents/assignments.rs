//! The assignments that an agent accepts and refuses, and the status that follows.

use super::lab::{Lab, RunningAgent, allow_list, echo, exchange, share_id, soon, unused_address};
use jiff::{SignedDuration, Timestamp};
use std::{
    io::ErrorKind,
    net::SocketAddr,
    time::{Duration, Instant},
};
use tokio::{io::AsyncReadExt as _, sync::watch};
use uuid::Uuid;
use wicketgate_agent::Config;
use wicketgate_gateway::agents::{AgentStanding, DialFailure};
use wicketgate_model::{Assignment, EnvironmentId, Era, FailureReason, Generation, Reason, SignedAssignment};
use wicketgate_transport::frame::RefusalReason;

fn refused(standing: &AgentStanding) -> Option<&str> {
    standing.problem.as_ref().filter(|p| p.reason == Reason::AgentRefused).map(|p| p.message.as_str())
}

#[tokio::test]
async fn an_assignment_is_acknowledged_at_once() {
    let lab = Lab::new().await;
    let (target, _) = echo().await;
    let state = tempfile::tempdir().unwrap();
    let agent = lab.start(state.path(), Some(&lab.code), &[]);
    lab.agents.assign(&lab.share(1, 1, target));
    lab.ready(1, 1).await;
    let mut fastest = Duration::MAX;
    for n in 2..12 {
        let started = Instant::now();
        lab.agents.assign(&lab.share(n, 1, target));
        let standing = lab.ready(n, 1).await;
        assert_eq!(standing.problem, None);
        fastest = fastest.min(started.elapsed());
    }
    assert!(fastest < Duration::from_millis(50), "{fastest:?}");
    lab.agents.withdraw(share_id(2));
    assert!(lab.connect(2).await.is_err());
    agent.stop().await;
}

#[tokio::test]
async fn an_agent_refuses_forged_foreign_and_old_assignments() {
    let lab = Lab::new().await;
    let (target, accepted) = echo().await;
    let state = tempfile::tempdir().unwrap();
    let allow = format!("127.0.0.0/8:{}", target.port());
    let agent = lab.start(state.path(), Some(&lab.code), &[&allow]);

    // A compromised gateway changes the target.
    let mut forged = lab.share(1, 1, unused_address().await);
    forged.assignment.body =
        forged.assignment.body.replace(&forged.assignment.body, &lab.share(1, 1, target).assignment.body);
    lab.agents.assign(&forged);
    let standing = lab.standing(1, "refused", |s| refused(s).is_some()).await;
    assert!(refused(&standing).unwrap().contains("not signed by the server"), "{standing:?}");
    assert_eq!(standing.ready, None);

    // It sends an assignment of another environment.
    let environment = EnvironmentId::new(Uuid::from_u128(8));
    lab.agents.assign(&lab.signed(&Assignment { environment, ..lab.assignment(2, 1, target) }));
    let standing = lab.standing(2, "refused", |s| refused(s).is_some()).await;
    assert!(refused(&standing).unwrap().contains("another environment"), "{standing:?}");

    // It replays an older one, also after the agent has restarted.
    let (older, newer) = (lab.share(3, 4, target), lab.share(3, 5, target));
    lab.agents.assign(&newer);
    lab.ready(3, 5).await;
    let replayed = wicketgate_model::ShareDesired { generation: Generation::new(6), ..older };
    lab.agents.assign(&replayed);
    let older = |s: &AgentStanding| s.ready.is_none();
    lab.standing(3, "without an agent", older).await;
    agent.stop().await;
    let agent = lab.start(state.path(), None, &[&allow]);
    lab.agents.assign(&lab.share(4, 1, target));
    lab.ready(4, 1).await;
    assert_eq!(lab.agents.standing(share_id(3)).ready, None);

    // A target outside the allow list is refused, and the share is not served at its older target either.
    let begin = Instant::now();
    lab.agents.assign(&lab.share(4, 2, unused_address().await));
    let standing = lab.standing(4, "refused", |s| refused(s).is_some()).await;
    wicketgate_lab::named("AgentRefused", begin.elapsed());
    assert!(refused(&standing).unwrap().contains("--allow"), "{standing:?}");
    assert!(lab.connect(4).await.is_err());

    for n in 1..=3 {
        let failure = lab.connect(n).await.map(|_| ()).unwrap_err();
        assert_eq!(failure, DialFailure::NoAgent, "{n}");
    }
    // Only the probes of accepted assignments have reached the target.
    assert!(accepted.load(std::sync::atomic::Ordering::Relaxed) <= 3);
    agent.stop().await;
}

#[tokio::test]
async fn a_changed_allow_list_takes_effect_while_the_agent_runs() {
    let lab = Lab::new().await;
    let ((inside, _), (outside, _)) = (echo().await, echo().await);
    let state = tempfile::tempdir().unwrap();
    let only = |target: SocketAddr| allow_list(&[&format!("127.0.0.0/8:{}", target.port())]);
    let (change, allow) = watch::channel(only(inside));
    let agent = RunningAgent::new(Config { allow, ..lab.config(state.path(), Some(&lab.code), &[]) });
    lab.agents.assign(&lab.share(1, 1, inside));
    lab.agents.assign(&lab.share(2, 1, outside));
    lab.ready(1, 1).await;
    lab.standing(2, "refused", |s| refused(s).is_some()).await;
    let mut running = lab.connect(1).await.unwrap();

    change.send_replace(only(outside));
    lab.ready(2, 1).await;
    let standing = lab.standing(1, "refused", |s| refused(s).is_some()).await;
    assert_eq!(standing.ready, None);
    assert!(lab.connect(1).await.is_err());
    assert_eq!(
        exchange(&mut running.tcp, b"a stream that runs continues").await,
        b"a stream that runs continues"
    );
    assert_eq!(
        exchange(&mut lab.connect(2).await.unwrap().tcp, b"the other target").await,
        b"the other target"
    );

    change.send_replace(allow_list(&["*:*"]));
    lab.ready(1, 1).await;
    assert_eq!(exchange(&mut lab.connect(1).await.unwrap().tcp, b"again").await, b"again");
    agent.stop().await;
}

#[tokio::test]
async fn an_invalid_assignment_is_ignored_signed_or_not() {
    let lab = Lab::new().await;
    let (target, _) = echo().await;
    let state = tempfile::tempdir().unwrap();
    let agent = lab.start(state.path(), Some(&lab.code), &[]);
    let mut share = lab.share(1, 1, target);
    share.assignment = SignedAssignment { body: "{".into(), signature: vec![1, 2, 3] };
    lab.agents.assign(&share);
    lab.agents.assign(&lab.share(2, 1, target));
    lab.ready(2, 1).await;
    let pending = lab.agents.standing(share_id(1));
    assert_eq!(pending.problem.unwrap().reason, Reason::AgentPending);
    agent.stop().await;
}

#[tokio::test]
async fn an_unreachable_target_and_its_recovery_are_reported() {
    let lab = Lab::new().await;
    let target = unused_address().await;
    let state = tempfile::tempdir().unwrap();
    let agent = lab.start(state.path(), Some(&lab.code), &[]);
    lab.agents.assign(&lab.share(1, 1, target));
    let standing = lab.standing(1, "unreachable", |s| s.ready.is_some() && s.problem.is_some()).await;
    let problem = standing.problem.unwrap();
    assert_eq!(problem.reason, Reason::TargetUnreachable);
    let advice = FailureReason::ConnectionRefused.advice();
    assert_eq!(problem.message, format!("{target}: connection refused: {advice}"));
    let failure = lab.connect(1).await.map(|_| ()).unwrap_err();
    let DialFailure::Refused(refusal) = failure else { panic!("{failure:?}") };
    assert_eq!(refusal.reason, RefusalReason::ConnectionRefused);

    // Streams and probes detect the recovery.
    let listener = tokio::net::TcpListener::bind(target).await.unwrap();
    tokio::spawn(async move {
        while let Ok((mut tcp, _)) = listener.accept().await {
            let (mut read, mut write) = tcp.split();
            let _ = tokio::io::copy(&mut read, &mut write).await;
        }
    });
    lab.standing(1, "well", |s| s.ready.is_some() && s.problem.is_none()).await;
    let mut client = lab.connect(1).await.unwrap();
    assert_eq!(soon("an echo", exchange(&mut client.tcp, b"x")).await, b"x");
    client.end().await.unwrap();
    agent.stop().await;
}

#[tokio::test]
async fn an_assignment_ends_with_its_streams_unless_it_is_renewed() {
    let lab = Lab::new().await;
    let (target, _) = echo().await;
    let state = tempfile::tempdir().unwrap();
    let agent = lab.start(state.path(), Some(&lab.code), &[]);
    let ending = |n, seconds| {
        let expires_at = Some(Timestamp::now() + SignedDuration::from_secs(seconds));
        lab.signed(&Assignment { expires_at, ..lab.assignment(n, 1, target) })
    };
    lab.agents.assign(&ending(1, -1));
    let standing = lab.standing(1, "refused", |s| refused(s).is_some()).await;
    assert!(refused(&standing).unwrap().contains("has expired"), "{standing:?}");

    // One is renewed, of which the gateway keeps the streams; the other is not, as at a gateway that hides its deletion.
    lab.agents.assign(&ending(2, 4));
    lab.agents.assign(&ending(3, 4));
    for n in [2, 3] {
        lab.ready(n, 1).await;
    }
    let (mut renewed, mut ended) = (lab.connect(2).await.unwrap(), lab.connect(3).await.unwrap());
    lab.agents.assign(&ending(2, 3600));
    let mut byte = [0];
    let read = soon("the stream's end", ended.tcp.read(&mut byte)).await;
    assert_eq!(read.unwrap_err().kind(), ErrorKind::ConnectionReset);
    assert!(lab.connect(3).await.is_err());
    let standing = lab.standing(3, "refused", |s| refused(s).is_some()).await;
    assert!(refused(&standing).unwrap().contains("has expired"), "{standing:?}");
    assert_eq!(exchange(&mut renewed.tcp, b"goes on").await, b"goes on");
    assert_eq!(lab.agents.standing(share_id(2)).ready, Some(Generation::FIRST));
    agent.stop().await;
}

#[tokio::test]
async fn a_new_era_begins_with_lower_generations_and_ends_the_older_one() {
    let lab = Lab::new().await;
    let (target, _) = echo().await;
    let state = tempfile::tempdir().unwrap();
    let agent = lab.start(state.path(), Some(&lab.code), &[]);
    let of_era = |n, era, generation| {
        lab.signed(&Assignment { era: Era::new(era), ..lab.assignment(n, generation, target) })
    };
    lab.agents.assign(&of_era(1, 0, 5));
    lab.agents.assign(&of_era(4, 0, 5));
    lab.ready(1, 5).await;
    lab.ready(4, 5).await;
    lab.connect(4).await.unwrap();
    // The restored database has an older generation of the share. In the same era, its agents refuse it.
    lab.agents.assign(&of_era(1, 0, 3));
    let standing = lab.standing(1, "refused", |s| refused(s).is_some()).await;
    assert!(refused(&standing).unwrap().contains("wicketgate restore --in-place"), "{standing:?}");
    lab.agents.assign(&of_era(1, 9, 3));
    lab.ready(1, 3).await;
    // The gateway still has the other share as it was before the restore, and the agent does not serve it.
    lab.connect(1).await.unwrap();
    let failure = lab.connect(4).await.map(drop).unwrap_err();
    assert!(matches!(failure, DialFailure::Refused(_)), "{failure:?}");
    agent.stop().await;

    // Also after a restart, nothing of before the restore is served, not even a share that the agent has not seen.
    let agent = lab.start(state.path(), None, &[]);
    lab.agents.assign(&of_era(2, 0, 7));
    let standing = lab.standing(2, "refused", |s| refused(s).is_some()).await;
    assert!(refused(&standing).unwrap().contains("(era 9)"), "{standing:?}");
    lab.ready(1, 3).await;
    agent.stop().await;
}

//! Status events, idempotency keys, preconditions and retention.

use crate::{
    database::on_each,
    site::{ALL, Site, after, context, enrolled, frontdoor, link, now, settled, tunnel_spec},
};
use std::sync::Arc;
use uuid::Uuid;
use wicketgate_model::{
    Connection, ConnectionError, ConnectionFault, ConnectionState, FrontdoorId, LoadBalancerPools, ShareId,
    Status,
};
use wicketgate_store::{
    Claim, Claimed, EventKind, KeptAnswer, Resource, StatusUpdate, Store, StoreError, WriteContext,
};

async fn events_since(store: &Store, since: u64) -> Vec<(EventKind, String, String)> {
    let events = store.events(None, since, 1000).await.unwrap();
    assert!(events.windows(2).all(|pair| pair[0].id < pair[1].id));
    events.into_iter().map(|e| (e.kind, e.resource, e.status)).collect()
}

async fn records(store: &Store, frontdoor: FrontdoorId, resource: &str) -> usize {
    let all = store.executions(frontdoor, &ALL).await.unwrap().rows;
    all.iter().filter(|e| e.resource == resource).count()
}

#[test]
fn every_status_change_is_one_event() {
    on_each(|store| async move {
        let site = Site::new(&store).await;
        let environment = site.enrolled.environment.to_string();
        let begin = store.event_span().await.unwrap().newest;
        let share = store.create_share(site.frontdoor, &site.share("a", 1), &context()).await.unwrap();
        store.update_statuses(&site.epoch, &[settled(share.id, 1, Status::Error)]).await.unwrap();
        // Repeated and outdated updates change nothing.
        store.update_statuses(&site.epoch, &[settled(share.id, 1, Status::Error)]).await.unwrap();
        store.update_statuses(&site.epoch, &[settled(share.id, 7, Status::Deployed)]).await.unwrap();
        store.update_statuses(&site.epoch, &[settled(share.id, 1, Status::Deployed)]).await.unwrap();
        let agent = site.enrolled.agent;
        for _ in 0..2 {
            store.agent_connected(&site.epoch, &link(agent), after(2)).await.unwrap();
        }
        store.agent_disconnected(&site.epoch, agent, after(3)).await.unwrap();
        let mut connection = Connection::down(after(4));
        for (state, bytes) in [(ConnectionState::Down, 0), (ConnectionState::Up, 0), (ConnectionState::Up, 9)]
        {
            (connection.state, connection.bytes_in) = (state, bytes);
            store
                .record_connections(&site.epoch, &[(site.tunnel, connection.clone())], after(5))
                .await
                .unwrap();
        }
        let since = after(6);
        for message in ["one", "two", "two"] {
            let reason = ConnectionFault::NegotiationFailed;
            connection.last_error =
                Some(ConnectionError { reason, cause: message.to_owned(), cure: String::new(), since });
            connection.bytes_in += 1;
            store
                .record_connections(&site.epoch, &[(site.tunnel, connection.clone())], after(7))
                .await
                .unwrap();
        }
        store.delete_environment(site.frontdoor, site.enrolled.environment, &context()).await.unwrap();
        store.update_statuses(&site.epoch, &[settled(share.id, 2, Status::Deleted)]).await.unwrap();
        let (share, tunnel) = (share.id.to_string(), site.tunnel.to_string());
        let recorded = events_since(&store, begin).await;
        let recorded: Vec<_> = recorded.iter().map(|(k, r, s)| (*k, r.as_str(), s.as_str())).collect();
        assert_eq!(
            recorded,
            [
                (EventKind::Share, share.as_str(), "NEW"),
                (EventKind::Share, &share, "ERROR"),
                (EventKind::Share, &share, "DEPLOYED"),
                (EventKind::Environment, &environment, "ACTIVE"),
                (EventKind::Environment, &environment, "OFFLINE"),
                (EventKind::Connection, &tunnel, "UP"),
                (EventKind::Connection, &tunnel, "UP"),
                (EventKind::Connection, &tunnel, "UP"),
                (EventKind::Environment, &environment, "DELETED"),
                (EventKind::Share, &share, "DELETING"),
                (EventKind::Share, &share, "DELETED"),
            ]
        );
        let error = &store.events(Some(site.frontdoor), begin + 1, 1).await.unwrap()[0];
        assert_eq!((error.status.as_str(), error.reason.as_deref()), ("ERROR", Some("AgentOffline")));
        let failed = &store.events(Some(site.frontdoor), begin + 6, 1).await.unwrap()[0];
        assert_eq!(
            (failed.reason.as_deref(), failed.message.as_deref(), failed.at),
            (Some("NegotiationFailed"), Some("one"), after(6))
        );
        let other = crate::site::frontdoor(&store).await;
        assert_eq!(store.events(Some(other), 0, 10).await.unwrap(), []);
    });
}

#[test]
fn a_refused_write_has_no_event() {
    on_each(|store| async move {
        let site = Site::new(&store).await;
        store.create_share(site.frontdoor, &site.share("a", 1), &context()).await.unwrap();
        let before = store.event_span().await.unwrap();
        assert!(store.create_share(site.frontdoor, &site.share("a", 2), &context()).await.is_err());
        assert!(store.delete_tunnel(site.frontdoor, site.tunnel, &context()).await.is_err());
        assert_eq!(store.event_span().await.unwrap(), before);
    });
}

#[test]
fn old_events_executions_and_rows_are_pruned() {
    on_each(|store| async move {
        let site = Site::new(&store).await;
        let share = store.create_share(site.frontdoor, &site.share("a", 1), &context()).await.unwrap();
        store.delete_share(site.frontdoor, share.id, &context()).await.unwrap();
        store.update_statuses(&site.epoch, &[settled(share.id, 2, Status::Deleted)]).await.unwrap();
        let newest = store.event_span().await.unwrap().newest;
        store.prune(after(6 * 86_400)).await.unwrap();
        assert_eq!(store.event_span().await.unwrap().forgotten, 0);
        store.prune(after(8 * 86_400)).await.unwrap();
        let span = store.event_span().await.unwrap();
        assert_eq!((span.newest, span.forgotten), (newest, newest));
        assert_eq!(store.events(None, 0, 10).await.unwrap(), []);

        let record = records(&store, site.frontdoor, &share.id.to_string()).await;
        assert_eq!(record, 2);
        store.prune(after(29 * 86_400)).await.unwrap();
        assert!(store.share(site.frontdoor, share.id).await.unwrap().is_some());
        store.prune(after(31 * 86_400)).await.unwrap();
        assert!(store.share(site.frontdoor, share.id).await.unwrap().is_none());
        assert_eq!(records(&store, site.frontdoor, &share.id.to_string()).await, 2);
        store.prune(after(366 * 86_400)).await.unwrap();
        assert_eq!(records(&store, site.frontdoor, &share.id.to_string()).await, 0);
        // A running execution is kept: the creation of the tunnel has no result yet.
        assert_eq!(records(&store, site.frontdoor, &site.tunnel.to_string()).await, 1);
    });
}

fn claim(key: &str, fingerprint: &str) -> Claim {
    let (key, fingerprint) = (key.to_owned(), fingerprint.to_owned());
    Claim { principal: "somebody".to_owned(), key, fingerprint, token: Uuid::now_v7() }
}

#[test]
fn a_key_is_for_one_request() {
    on_each(|store| async move {
        let site = Site::new(&store).await;
        let first = claim("k", "a");
        let running = store.running(&first).unwrap();
        assert_eq!(store.claim(&first, now()).await.unwrap(), Claimed::Fresh);
        assert_eq!(store.claim(&claim("k", "a"), now()).await.unwrap(), Claimed::Running);
        assert_eq!(store.claim(&claim("k", "b"), now()).await.unwrap(), Claimed::Other);
        let other = Claim { principal: "other".to_owned(), ..claim("k", "b") };
        assert_eq!(store.claim(&other, now()).await.unwrap(), Claimed::Fresh);
        let acting = WriteContext { claim: Some(Arc::new(first.clone())), ..context() };
        store.create_share(site.frontdoor, &site.share("a", 1), &acting).await.unwrap();
        // The write is committed: the key is not free any more, and the answer is not stored yet.
        assert_eq!(store.claim(&claim("k", "a"), after(61)).await.unwrap(), Claimed::Running);
        drop(running);
        assert_eq!(store.claim(&claim("k", "a"), now()).await.unwrap(), Claimed::Lost(acting.process));
        let answer = KeptAnswer {
            status: 202,
            headers: vec![("location".to_owned(), "/x".to_owned())],
            body: Some("{}".to_owned()),
        };
        store.keep_answer(&first, &answer).await.unwrap();
        assert_eq!(store.claim(&claim("k", "a"), after(62)).await.unwrap(), Claimed::Answered(answer));
        assert_eq!(store.claim(&claim("k", "b"), after(86_401)).await.unwrap(), Claimed::Fresh);
    });
}

#[test]
fn an_abandoned_claim_is_taken_over_at_once_and_its_late_write_fails() {
    on_each(|store| async move {
        let site = Site::new(&store).await;
        let left = claim("k", "a");
        assert_eq!(store.claim(&left, now()).await.unwrap(), Claimed::Fresh);
        let next = claim("k", "a");
        let running = store.running(&next).unwrap();
        assert_eq!(store.claim(&next, now()).await.unwrap(), Claimed::Fresh);
        assert_eq!(store.claim(&claim("k", "a"), after(3600)).await.unwrap(), Claimed::Running);
        let late = WriteContext { claim: Some(Arc::new(left)), ..context() };
        let made = store.create_share(site.frontdoor, &site.share("a", 1), &late).await;
        assert!(matches!(made, Err(StoreError::Stale)));
        let in_time = WriteContext { claim: Some(Arc::new(next.clone())), ..context() };
        store.create_share(site.frontdoor, &site.share("a", 1), &in_time).await.unwrap();
        drop(running);
        assert_eq!(store.claim(&claim("l", "a"), now()).await.unwrap(), Claimed::Fresh);
        assert_eq!(store.claim(&claim("l", "b"), now()).await.unwrap(), Claimed::Fresh, "of another request");
        store.prune(after(3 * 86_400)).await.unwrap();
        let pools = LoadBalancerPools::ipsec();
        let gone = WriteContext { claim: Some(Arc::new(next)), ..context() };
        assert!(store.create_tunnel(site.frontdoor, &tunnel_spec(2), &pools, &gone).await.is_err());
    });
}

#[test]
fn a_write_with_an_outdated_precondition_fails() {
    on_each(|store| async move {
        let site = Site::new(&store).await;
        let (id, frontdoor) = (site.enrolled.environment, site.frontdoor);
        let before = store.environment(frontdoor, id).await.unwrap().unwrap().updated_at;
        let late = WriteContext { at: after(9), ..context() };
        store.rename_environment(frontdoor, id, &"b".parse().unwrap(), &late).await.unwrap();
        let stale = store.delete_environment(frontdoor, id, &context().expecting(before)).await;
        assert!(matches!(stale, Err(StoreError::Stale)));
        store.delete_environment(frontdoor, id, &context().expecting(after(9))).await.unwrap();
        let tunnel = store.tunnel(frontdoor, site.tunnel).await.unwrap().unwrap();
        let stale = store.delete_tunnel(frontdoor, site.tunnel, &context().expecting(after(9))).await;
        assert!(matches!(stale, Err(StoreError::Stale)));
        store.delete_tunnel(frontdoor, site.tunnel, &context().expecting(tunnel.updated_at)).await.unwrap();
    });
}

#[test]
fn the_last_hundred_changes_of_a_connection_are_kept() {
    on_each(|store| async move {
        let site = Site::new(&store).await;
        let other = store
            .create_tunnel(site.frontdoor, &tunnel_spec(2), &LoadBalancerPools::ipsec(), &context())
            .await
            .unwrap();
        let record = async |tunnel, connection: &Connection| {
            store.record_connections(&site.epoch, &[(tunnel, connection.clone())], after(9)).await.unwrap();
        };
        let history = async |tunnel| store.connection_changes(tunnel, &ALL).await.unwrap();
        let mut connection = Connection::down(after(4));
        record(site.tunnel, &connection).await;
        record(other.id, &Connection { state: ConnectionState::Up, ..connection.clone() }).await;
        assert_eq!(history(site.tunnel).await.total, 0);
        // A peer that fails and retries is recorded once.
        let error = |message: &str| ConnectionError {
            reason: ConnectionFault::PreSharedKeysDiffer,
            cause: message.to_owned(),
            cure: String::new(),
            since: after(5),
        };
        for state in [ConnectionState::Connecting, ConnectionState::Down].repeat(20) {
            (connection.state, connection.since) = (state, after(6));
            connection.last_error = Some(error("the keys differ"));
            record(site.tunnel, &connection).await;
        }
        let changes = history(site.tunnel).await.rows;
        assert_eq!((changes.len(), changes[0].number, changes[0].at), (1, 1, after(5)));
        assert_eq!(changes[0].last_error.as_ref().unwrap().0, ConnectionFault::PreSharedKeysDiffer);
        // The connection goes up and down. A change of counters alone is not recorded.
        for n in 0..75 {
            for state in [ConnectionState::Up, ConnectionState::Up, ConnectionState::Down] {
                connection = Connection { state, since: after(10 + n), ..connection };
                connection.bytes_in += 1;
                connection.last_error = None;
                record(site.tunnel, &connection).await;
            }
        }
        let changes = history(site.tunnel).await;
        assert_eq!((changes.total, changes.rows[0].number, changes.rows[99].number), (100, 52, 151));
        assert_eq!((changes.rows[99].state, changes.rows[99].at), (ConnectionState::Down, after(84)));
        assert_eq!(history(other.id).await.total, 1);
        // The history is pruned with the tunnel.
        store.delete_tunnel(site.frontdoor, other.id, &context()).await.unwrap();
        let gone = StatusUpdate {
            resource: Resource::Tunnel(other.id),
            ..settled(ShareId::new(Uuid::nil()), 2, Status::Deleted)
        };
        store.update_statuses(&site.epoch, &[gone]).await.unwrap();
        assert_eq!(history(other.id).await.total, 1);
        store.prune(after(31 * 86_400)).await.unwrap();
        assert_eq!(history(other.id).await.total, 0);
        assert_eq!(history(site.tunnel).await.total, 100);
    });
}

#[test]
fn a_flood_of_events_deletes_those_of_its_own_frontdoor() {
    const ROUNDS: usize = 200;
    on_each(|store| async move {
        let (quiet, flooding) = (frontdoor(&store).await, Site::new(&store).await);
        let enrolled = enrolled(&store, quiet, 9).await;
        let events = async |of| store.events(Some(of), 0, u32::MAX).await.unwrap();
        let of_quiet = events(quiet).await;
        assert!(of_quiet.iter().any(|event| event.resource == enrolled.environment.to_string()));
        let mut shares = Vec::new();
        for port in 1..=64 {
            let share = flooding.share(&format!("s{port}"), port);
            shares.push(store.create_share(flooding.frontdoor, &share, &context()).await.unwrap().id);
        }
        let mut most = 0;
        for status in [Status::Deployed, Status::Error].into_iter().cycle().take(ROUNDS) {
            let updates: Vec<_> = shares.iter().map(|id| settled(*id, 1, status)).collect();
            store.update_statuses(&flooding.epoch, &updates).await.unwrap();
            let newest = store.event_span().await.unwrap().newest;
            let forgotten = store.event_span_of(flooding.frontdoor).await.unwrap().forgotten;
            most = most.max(newest - forgotten);
        }
        assert!(most <= 11_200, "{most} events were kept at a time");
        let (kept, span) =
            (events(flooding.frontdoor).await, store.event_span_of(flooding.frontdoor).await.unwrap());
        assert!((10_000..=11_200).contains(&kept.len()), "{}", kept.len());
        assert_eq!((kept.last().unwrap().id, span.newest), (span.newest, span.newest));
        assert_eq!(kept[0].id, span.forgotten + 1, "what a reader has to know was deleted");
        store.prune(after(1)).await.unwrap();
        assert_eq!(events(quiet).await, of_quiet);
        assert_eq!(store.event_span_of(quiet).await.unwrap().forgotten, 0);
        // A week later, nothing is left of it.
        store.prune(after(9 * 86_400)).await.unwrap();
        assert_eq!(store.event_span_of(flooding.frontdoor).await.unwrap(), store.event_span().await.unwrap());
    });
}

//! How many statements a write takes while a tenant owns as much as it may. Each is a round trip to the database.

use super::{BOUND, context, store};
use crate::{
    ApiAccountSpec, FrontdoorSpec, Result, ShareSpec, Store, Tags, TunnelSpec,
    bulk::{parts, places},
    event_retention::{self, Written},
    share_count::{Counted, ShareCounts},
    statement::bind,
};
use jiff::{Timestamp, ToSpan as _};
use sqlx::AssertSqlSafe;
use tokio::time::{Instant, timeout};
use uuid::Uuid;
use wicketgate_model::{
    EnvironmentId, FrontdoorId, IngressPort, LoadBalancerPools, PreSharedKey, QuotaKind, ShareId, Status,
    TunnelId, ZId,
};

/// Statements of a transaction that are not about rows: its beginning and end, savepoints, checks.
const AROUND: usize = 20;

fn quota(kind: QuotaKind) -> usize {
    kind.default_limit().get().try_into().unwrap()
}

/// The statements that write so many rows.
fn parts_of(rows: usize) -> usize {
    parts(&vec![(); rows]).count()
}

/// The number of statements of each transaction of the writes.
async fn counted<T>(store: &Store, writes: impl Future<Output = Result<T>>) -> (T, Vec<usize>) {
    let statements = &store.database.write_health.statements;
    statements.lock().clear();
    let begin = Instant::now();
    let made = timeout(6 * BOUND, writes).await.unwrap();
    let counts = std::mem::take(&mut *statements.lock());
    let (all, took) = (counts.iter().sum::<usize>(), begin.elapsed());
    eprintln!("{all} statements in {} transactions took {took:?}", counts.len());
    (made.unwrap(), counts)
}

async fn frontdoor(store: &Store) -> FrontdoorId {
    let spec = FrontdoorSpec {
        organization: "o".to_owned(),
        default_namespace: "d".parse().unwrap(),
        ipsec_shares_enabled: true,
        quotas: Default::default(),
    };
    store.create_frontdoor(&spec, &context()).await.unwrap().id
}

fn account(n: u8) -> ApiAccountSpec {
    ApiAccountSpec {
        organization: "o".to_owned(),
        name: "a program".to_owned(),
        scopes: vec!["frontdoor.read".to_owned()],
        frontdoors: None,
        secret_sha256: [n; 32],
        expires_at: None,
    }
}

async fn insert(store: &Store, table: &str, columns: &str, rows: &[Vec<String>]) {
    let mut tx = store.database.begin().await.unwrap();
    for part in parts(rows) {
        let width = columns.split(',').count();
        let insert = format!("INSERT INTO {table} ({columns}) VALUES {}", places(part.len(), width));
        let mut query = sqlx::query(AssertSqlSafe(insert));
        for value in part.iter().flatten() {
            query = match value.parse::<i64>() {
                Ok(number) => bind(query, &[&number]).unwrap(),
                Err(_) => bind(query, &[value]).unwrap(),
            };
        }
        tx.run(query).await.unwrap();
    }
    tx.commit().await.unwrap();
}

async fn count(store: &Store, of: &str) -> usize {
    let select = format!("SELECT COUNT(*) FROM {of}");
    let (count,): (i64,) = store.find(AssertSqlSafe(select), &[]).await.unwrap().unwrap();
    count.try_into().unwrap()
}

struct Site {
    frontdoor: FrontdoorId,
    tunnel: TunnelId,
    environment: EnvironmentId,
}

impl Site {
    async fn new(store: &Store) -> Self {
        let (frontdoor, pools) = (frontdoor(store).await, LoadBalancerPools::ipsec());
        let spec = TunnelSpec::new(
            "site".parse().unwrap(),
            "local".parse().unwrap(),
            "203.0.113.1".parse().unwrap(),
            "172.31.0.0/16".parse().unwrap(),
            PreSharedKey::from_random([1; 32]),
        );
        let tunnel = store.create_tunnel(frontdoor, &spec, &pools, &context()).await.unwrap().id;
        let environment = EnvironmentId::new(Uuid::now_v7());
        let z_id = ZId::from_random(*Uuid::now_v7().as_bytes().last_chunk().unwrap());
        let row = [environment.to_string(), frontdoor.to_string(), z_id.to_string(), "e".to_owned()];
        let row = row.into_iter().chain(["0", "0"].map(str::to_owned)).collect();
        insert(store, "environment", "id, frontdoor, z_id, name, created_at, updated_at", &[row]).await;
        Self { frontdoor, tunnel, environment }
    }

    async fn fill(&self, store: &Store, shares: usize) {
        let columns = "id, frontdoor, tunnel, environment, name, target, ingress_port, tags, generation, status, \
                       status_since, created_at, updated_at, created_by, revision";
        let rows = (1..=shares).map(|n| {
            let [frontdoor, tunnel, environment] =
                [self.frontdoor.to_string(), self.tunnel.to_string(), self.environment.to_string()];
            let (id, name) = (ShareId::new(Uuid::now_v7()).to_string(), format!("share-{n}"));
            let status = if n % 2 == 0 { "NEW" } else { "DEPLOYED" };
            let rest = ["1", status, "0", "0", "0", "a", "1"].map(str::to_owned);
            let target = "10.0.0.1:80".to_owned();
            let first = [id, frontdoor, tunnel, environment, name, target, n.to_string(), "{}".to_owned()];
            first.into_iter().chain(rest).collect()
        });
        insert(store, "ipsec_share", columns, &rows.collect::<Vec<Vec<String>>>()).await;
        let mut tx = store.database.begin().await.unwrap();
        let counts = "INSERT INTO ipsec_share_count (frontdoor, environment, status, shares) \
                      SELECT frontdoor, environment, status, COUNT(*) FROM ipsec_share GROUP BY frontdoor, environment, status";
        tx.execute(counts, &[]).await.unwrap();
        tx.commit().await.unwrap();
    }
}

#[tokio::test]
async fn the_deletion_of_an_environment_takes_few_statements_whatever_it_serves() {
    let (_dir, store) = store().await;
    let (site, shares) = (Site::new(&store).await, quota(QuotaKind::Shares));
    site.fill(&store, shares).await;
    let act = context();
    let deletion = store.delete_environment(site.frontdoor, site.environment, &act);
    let ((), statements) = counted(&store, deletion).await;
    // Executions and events, and the numbers of shares.
    assert!(statements.iter().sum::<usize>() <= 2 * parts_of(shares) + AROUND, "{statements:?}");
    let deleted =
        "ipsec_share WHERE status = 'DELETING' AND generation = 2 AND deleted_by = 'a' AND revision > 1";
    assert_eq!(count(&store, deleted).await, shares);
    let records = "execution WHERE action = 'DELETE' AND resource_type = 'ipsec-share' AND status = 'RUNNING' AND generation = 2";
    assert_eq!(count(&store, records).await, shares);
    assert_eq!(count(&store, "event WHERE kind = 'ipsec-share' AND status = 'DELETING'").await, shares);
    let total = "ipsec_share_count WHERE status = 'DELETING' AND shares =";
    assert_eq!(count(&store, &format!("{total} {shares}")).await, 1);
    assert_eq!(count(&store, "ipsec_share_count WHERE shares <> 0").await, 1);
}

#[tokio::test]
async fn an_account_with_all_that_it_may_create_is_revoked_in_few_statements() {
    let (_dir, store) = store().await;
    let (frontdoors, accounts) = (quota(QuotaKind::Frontdoors), quota(QuotaKind::ApiAccounts));
    for _ in 0..frontdoors {
        frontdoor(&store).await;
    }
    let (root, statements) = counted(&store, store.create_api_account(&account(1), &context())).await;
    assert!(statements.iter().sum::<usize>() <= 2 * parts_of(frontdoors) + AROUND, "{statements:?}");
    let columns = "id, organization, name, scopes, secret_sha256, created_at, created_by";
    let rows = (1..accounts).map(|n| {
        let id = wicketgate_model::ApiAccountId::new(Uuid::now_v7()).to_string();
        let secret = format!("f{n:063x}");
        let row = [&id, "o", "a program", "frontdoor.read", &secret, "0", &root.id.to_string()];
        row.map(str::to_owned).to_vec()
    });
    insert(&store, "api_account", columns, &rows.collect::<Vec<_>>()).await;
    let ((), statements) = counted(&store, store.revoke_api_account(root.id, &context())).await;
    let records = accounts * (frontdoors + 1);
    assert!(
        statements.iter().sum::<usize>() <= 2 * parts_of(records) + AROUND * statements.len(),
        "{statements:?}"
    );
    assert!(statements.iter().all(|count| *count <= 2 * AROUND), "{statements:?}");
    assert_eq!(count(&store, "api_account WHERE revoked_at IS NOT NULL").await, accounts);
    let recorded = "execution WHERE resource_type = 'api-account' AND action = 'DELETE' AND actor = 'a'";
    assert_eq!(count(&store, recorded).await, records);
    assert_eq!(count(&store, &format!("{recorded} AND organization = 'o'")).await, accounts);
    let said = format!(
        "{recorded} AND resource = '{}' AND message LIKE 'with it ended {} accounts%'",
        root.id,
        accounts - 1
    );
    assert_eq!(count(&store, &said).await, 1);
}

#[tokio::test]
async fn tags_are_replaced_in_few_statements() {
    let (_dir, store) = store().await;
    let site = Site::new(&store).await;
    let tags: Tags = (0..64).map(|n| (format!("tag-{n}"), "x".to_owned())).collect();
    let port = IngressPort::try_from(1).unwrap();
    let (name, target) = ("share".parse().unwrap(), "10.0.0.1:80".parse().unwrap());
    let spec = ShareSpec { tags, ..ShareSpec::new(site.tunnel, site.environment, name, target, port) };
    let made = store.create_share(site.frontdoor, &spec, &context()).await.unwrap();
    let bare = ShareSpec { tags: Tags::new(), ..spec };
    let act = context();
    let replaced = store.replace_share(site.frontdoor, made.id, made.generation, &bare, &act);
    let (_, statements) = counted(&store, replaced).await;
    assert!(statements.iter().sum::<usize>() <= AROUND, "{statements:?}");
    assert_eq!(count(&store, "ipsec_share_tag").await, 0);
}

/// Shares of as many environments.
fn scattered(frontdoor: FrontdoorId, shares: usize, status: Status) -> impl Iterator<Item = Counted> {
    let environment = |_| EnvironmentId::new(Uuid::now_v7());
    (0..shares).map(environment).map(move |environment| Counted { frontdoor, environment, status })
}

#[tokio::test]
async fn numbers_of_shares_are_written_together() {
    const SHARES: usize = 500;
    let (_dir, store) = store().await;
    let frontdoor = frontdoor(&store).await;
    let mut counts = ShareCounts::default();
    for is in scattered(frontdoor, SHARES, Status::New) {
        counts.moved(Some(is), Some(Counted { status: Status::Deployed, ..is }));
    }
    // One that has not changed is not written.
    let same = scattered(frontdoor, 1, Status::New).next();
    counts.moved(same, same);
    let written = async || {
        let mut tx = store.database.begin().await?;
        counts.write(&mut tx).await?;
        tx.commit().await
    };
    for times in 1..=2 {
        let ((), statements) = counted(&store, written()).await;
        assert!(statements[0] <= parts_of(2 * SHARES) + AROUND, "{statements:?}");
        let all = "ipsec_share_count WHERE shares =";
        assert_eq!(count(&store, &format!("{all} {times}")).await, SHARES);
        assert_eq!(count(&store, &format!("{all} -{times}")).await, SHARES);
    }
    assert_eq!(count(&store, "ipsec_share_count").await, 2 * SHARES);
}

#[tokio::test]
async fn a_step_of_retention_deletes_shares_of_many_environments_in_few_statements() {
    const SHARES: usize = 500;
    let (_dir, store) = store().await;
    let site = Site::new(&store).await;
    site.fill(&store, SHARES).await;
    let environments = (0..SHARES).map(|_| {
        let z_id = ZId::from_random(*Uuid::now_v7().as_bytes().last_chunk().unwrap());
        let id = EnvironmentId::new(Uuid::now_v7()).to_string();
        let row = [id, site.frontdoor.to_string(), z_id.to_string(), "e".to_owned()];
        row.into_iter().chain(["0", "0"].map(str::to_owned)).collect()
    });
    let environments: Vec<Vec<String>> = environments.collect();
    insert(&store, "environment", "id, frontdoor, z_id, name, created_at, updated_at", &environments).await;
    let mut tx = store.database.begin().await.unwrap();
    for (port, row) in (1_i64..).zip(&environments) {
        let end = "UPDATE ipsec_share SET environment = $1, status = 'DELETED', deleted_at = 0 WHERE ingress_port = $2";
        tx.execute(end, &[&row[0], &port]).await.unwrap();
    }
    tx.execute("DELETE FROM ipsec_share_count", &[]).await.unwrap();
    let counts = "INSERT INTO ipsec_share_count (frontdoor, environment, status, shares) \
                  SELECT frontdoor, environment, status, 1 FROM ipsec_share";
    tx.execute(counts, &[]).await.unwrap();
    tx.commit().await.unwrap();
    let (_, statements) = counted(&store, store.prune(Timestamp::UNIX_EPOCH + 720.hours())).await;
    assert_eq!(count(&store, "ipsec_share").await, SHARES, "not yet");
    let (_, pruned) = counted(&store, store.prune(Timestamp::UNIX_EPOCH + 721.hours())).await;
    assert_eq!(count(&store, "ipsec_share").await, 0);
    assert_eq!(count(&store, "ipsec_share_count WHERE shares <> 0").await, 0);
    let most = |statements: Vec<usize>| statements.into_iter().max().unwrap();
    assert!(most(pruned) <= most(statements) + parts_of(SHARES), "a step");
}

/// Events of these Frontdoors, so many of each, which are the newest ones.
async fn add_events(store: &Store, frontdoors: &[FrontdoorId], each: i64) -> i64 {
    let mut tx = store.database.begin().await.unwrap();
    let newest = "SELECT newest FROM event_sequence";
    let (mut newest,): (i64,) = tx.one(newest, &[]).await.unwrap();
    let add = "WITH RECURSIVE n(i) AS (SELECT $2 + 1 UNION ALL SELECT i + 1 FROM n WHERE i < $3) \
               INSERT INTO event (id, frontdoor, at, kind, resource, status) \
               SELECT i, $1, 0, 'ipsec-share', 'x', 'DEPLOYED' FROM n";
    for frontdoor in frontdoors {
        tx.execute(add, &[frontdoor, &newest, &(newest + each)]).await.unwrap();
        newest += each;
    }
    tx.execute("UPDATE event_sequence SET newest = $1", &[&newest]).await.unwrap();
    tx.commit().await.unwrap();
    newest
}

#[tokio::test]
async fn events_of_many_frontdoors_are_bounded_in_few_statements() {
    let (_dir, store) = store().await;
    let all: Vec<_> = (0..500).map(|_| FrontdoorId::new(Uuid::now_v7())).collect();
    let (few, many) = all.split_at(497);
    add_events(&store, many, 10_000).await;
    add_events(&store, few, 1).await;
    let newest = add_events(&store, many, 100).await;
    let bounded = async || {
        event_retention::bound(&store.database, Written { count: 1000, newest }).await;
        Ok(())
    };
    let ((), statements) = counted(&store, bounded()).await;
    assert!(statements[0] <= AROUND, "{statements:?}");
    assert_eq!(count(&store, "event").await, 30_000 + few.len());
    assert_eq!(count(&store, "event_forgotten").await, many.len());
    for frontdoor in many {
        assert_eq!(count(&store, &format!("event WHERE frontdoor = '{frontdoor}'")).await, 10_000);
        let known = "event_forgotten f WHERE f.newest + 1 = (SELECT MIN(id) FROM event e WHERE e.frontdoor = f.frontdoor)";
        assert!(count(&store, &format!("{known} AND f.frontdoor = '{frontdoor}'")).await <= 1);
    }
}

#[tokio::test]
async fn a_write_is_kept_although_the_events_before_it_cannot_be_bounded() {
    let (_dir, store) = store().await;
    let site = Site::new(&store).await;
    let newest = add_events(&store, &[site.frontdoor], 11_000).await;
    add_events(&store, &[FrontdoorId::new(Uuid::now_v7())], 11_999 - newest).await;
    let mut tx = store.database.begin().await.unwrap();
    tx.carry_out("ALTER TABLE event_forgotten RENAME TO elsewhere").await.unwrap();
    tx.commit().await.unwrap();
    let port = IngressPort::try_from(1).unwrap();
    let (name, target) = ("share".parse().unwrap(), "10.0.0.1:80".parse().unwrap());
    let spec = ShareSpec::new(site.tunnel, site.environment, name, target, port);
    let made = timeout(BOUND, store.create_share(site.frontdoor, &spec, &context())).await.unwrap().unwrap();
    assert_eq!(count(&store, &format!("event WHERE id = 12000 AND resource = '{}'", made.id)).await, 1);
}

//! Lists: filters, sorting, pages and totals.

use crate::{
    database::on_each,
    site::{Site, after, context, enrolled, now, settled},
};
use tokio::task::JoinSet;
use wicketgate_model::{Generation, Status};
use wicketgate_store::{
    Column, ColumnType, EnrolledAgent, Filter, FilterValue, ListRequest, PageRequest, ShareRow, ShareSpec,
    Sort, Store, StoreError, WriteContext,
    column::{
        agent, api_account, connection, environment, execution, frontdoor, handover_link, share, tunnel,
    },
};

fn filter(column: &'static Column, values: Vec<FilterValue>) -> Filter {
    Filter { column, values }
}

fn text(text: &str) -> FilterValue {
    FilterValue::Text(text.to_owned())
}

fn tag(name: &str, value: &str) -> FilterValue {
    FilterValue::Tag { name: name.to_owned(), value: value.to_owned() }
}

/// Creates five shares, one second apart. The last one is `DELETED`.
async fn five(store: &Store) -> Site {
    let site = Site::new(store).await;
    for (n, name) in ["delta", "alpha", "echo", "bravo", "charlie"].into_iter().enumerate() {
        let mut spec = site.share(name, 100 + u16::try_from(n).unwrap() / 2);
        spec.ingress_port = i64::try_from(9000 + n).unwrap().try_into().unwrap();
        if n == 0 {
            spec.tags.insert("team".to_owned(), "pay\"ments%".to_owned());
            spec.tags.insert("a".to_owned(), "\"team\":\"x\"".to_owned());
        }
        let at = WriteContext { at: after(i64::try_from(n).unwrap()), ..context() };
        let share = store.create_share(site.frontdoor, &spec, &at).await.unwrap();
        let status = match n {
            4 => Status::Deleted,
            3 => Status::Error,
            _ => continue,
        };
        store.update_statuses(&site.epoch, &[settled(share.id, 1, status)]).await.unwrap();
    }
    site
}

async fn names(store: &Store, site: &Site, request: ListRequest) -> Vec<String> {
    let page = store.shares(site.frontdoor, &request).await.unwrap();
    assert!(page.total >= u64::try_from(page.rows.len()).unwrap());
    page.rows.iter().map(|s| s.spec.name.to_string()).collect()
}

#[test]
fn a_filter_selects_the_matching_rows() {
    on_each(|store| async move {
        let site = five(&store).await;
        let all = ["delta", "alpha", "echo", "bravo"];
        for (filters, wanted) in [
            (vec![], &all[..]),
            (vec![filter(&share::NAME, vec![text("echo"), text("alpha"), text("none")])], &["alpha", "echo"]),
            (
                vec![
                    filter(&share::NAME, vec![text("echo"), text("alpha")]),
                    filter(&share::INGRESS_PORT, vec![FilterValue::Integer(9002)]),
                ],
                &["echo"],
            ),
            (vec![filter(&share::STATUS, vec![text("DELETED")])], &["charlie"]),
            (vec![filter(&share::STATUS, vec![text("DELETED"), text("ERROR")])], &["bravo", "charlie"]),
            (vec![filter(&share::STATUS, vec![text("NEW")])], &["delta", "alpha", "echo"]),
            (vec![filter(&share::DELETED_AT, vec![FilterValue::Times(Some(now()), None)])], &["charlie"]),
            (vec![filter(&share::DELETED_AT, vec![FilterValue::Times(None, Some(now()))])], &[]),
            (
                vec![filter(&share::CREATED_AT, vec![FilterValue::Times(Some(after(1)), Some(after(2)))])],
                &["alpha", "echo"],
            ),
            (
                vec![filter(
                    &share::CREATED_AT,
                    vec![
                        FilterValue::Times(Some(after(3)), None),
                        FilterValue::Times(Some(now()), Some(now())),
                    ],
                )],
                &["delta", "bravo"],
            ),
            (vec![filter(&share::DETAIL_REASON, vec![text("AgentOffline")])], &["bravo"]),
            (vec![filter(&share::DETAIL_REASON, vec![text("Pending")])], &["delta", "alpha", "echo"]),
            (vec![filter(&share::Z_ID, vec![text(site.enrolled.z_id.as_str())])], &all),
            (vec![filter(&share::Z_ID, vec![text("elsewhere0")])], &[]),
            (vec![filter(&share::LOCATION, vec![text("local")])], &all),
            (vec![filter(&share::TAGS, vec![tag("team", "pay\"ments%")])], &["delta"]),
            (vec![filter(&share::TAGS, vec![tag("team", "PAY\"MENTS%")])], &[]),
            (vec![filter(&share::TAGS, vec![tag("team", "x")])], &[]),
            (vec![filter(&share::NAME, vec![text("' OR 1=1 --")])], &[]),
        ] {
            let shown = format!("{filters:?}");
            assert_eq!(
                names(&store, &site, ListRequest { filters, ..ListRequest::default() }).await,
                wanted,
                "{shown}"
            );
        }
        let kept_since = Some(after(1));
        let filters = vec![filter(&share::STATUS, vec![text("DELETED")])];
        let request = ListRequest { filters: filters.clone(), kept_since, ..ListRequest::default() };
        assert_eq!(names(&store, &site, request).await, ["charlie"]);
        let request = ListRequest { filters, kept_since: Some(after(99)), ..ListRequest::default() };
        assert!(names(&store, &site, request).await.is_empty());
    });
}

#[test]
fn every_column_sorts_and_pages_neither_repeat_nor_skip() {
    on_each(|store| async move {
        let site = five(&store).await;
        // The store reads pages from the nearer end.
        let sorted = async |column: &'static Column, descending| {
            let mut found = Vec::new();
            for size in [1, 2, 3, 4] {
                let mut paged = Vec::new();
                for number in 0..5 {
                    let sort = vec![Sort { column, descending }];
                    let page = PageRequest { number, size };
                    let request = ListRequest { page, sort, ..ListRequest::default() };
                    paged.extend(names(&store, &site, request).await);
                }
                assert!(
                    size == 1 || paged == found,
                    "{column}: pages of {size} give {paged:?}, smaller pages {found:?}"
                );
                found = paged;
            }
            found
        };
        assert_eq!(sorted(&share::NAME, false).await, ["alpha", "bravo", "delta", "echo"]);
        assert_eq!(sorted(&share::NAME, true).await, ["echo", "delta", "bravo", "alpha"]);
        assert_eq!(sorted(&share::CREATED_AT, true).await, ["bravo", "echo", "alpha", "delta"]);
        assert_eq!(sorted(&share::STATUS, true).await, ["delta", "alpha", "echo", "bravo"]);
        assert_eq!(sorted(&share::DELETED_AT, false).await, ["delta", "alpha", "echo", "bravo"]);
        for &column in share::ALL {
            for descending in [false, true] {
                let mut all = sorted(column, descending).await;
                all.sort();
                assert_eq!(all, ["alpha", "bravo", "delta", "echo"], "{column}");
            }
        }
        for &column in tunnel::ALL.iter().chain(connection::ALL) {
            let sort = vec![Sort { column, descending: true }];
            let request = ListRequest { sort, ..ListRequest::default() };
            assert_eq!(store.tunnels(site.frontdoor, &request).await.unwrap().rows.len(), 1);
        }
    });
}

/// Totals are read from stored counts, which must equal the numbers of rows after any writes.
#[test]
fn totals_equal_the_number_of_rows() {
    on_each(|store| async move {
        let site = Site::new(&store).await;
        let environments = [site.enrolled.clone(), enrolled(&store, site.frontdoor, 2).await];
        let mut shares: Vec<ShareRow> = Vec::new();
        // A pseudorandom sequence that is the same in every run.
        let mut state = 7_u32;
        let mut pick = |of: usize| {
            state = state.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
            usize::try_from(state >> 8).unwrap() % of
        };
        for n in 0..=60_u16 {
            let spec = |n: u16, environment: usize| ShareSpec {
                environment: environments[environment].environment,
                ..site.share(&format!("share-{n}"), 1000 + n)
            };
            let at = WriteContext { at: after(n.into()), ..context() };
            let chosen = (!shares.is_empty()).then(|| pick(shares.len()));
            match (pick(5), chosen) {
                (0 | 1, _) | (_, None) => {
                    shares.push(store.create_share(site.frontdoor, &spec(n, pick(2)), &at).await.unwrap());
                }
                (2, Some(i)) => {
                    let (id, generation) = (shares[i].id, shares[i].generation);
                    let changed =
                        store.replace_share(site.frontdoor, id, generation, &spec(n, pick(2)), &at).await;
                    shares[i] = changed.unwrap();
                }
                (3, Some(i)) => {
                    let gone = shares.swap_remove(i);
                    let gone = store.delete_share(site.frontdoor, gone.id, &at).await.unwrap();
                    if n % 2 == 0 {
                        let deleted = settled(gone.id, gone.generation.get(), Status::Deleted);
                        store.update_statuses(&site.epoch, &[deleted]).await.unwrap();
                    }
                }
                (_, Some(i)) => {
                    let status = [Status::Deployed, Status::Error][pick(2)];
                    // One of the updates is outdated.
                    let old = settled(shares[i].id, shares[i].generation.get() + 1, Status::Deleted);
                    let new = settled(shares[i].id, shares[i].generation.get(), status);
                    store.update_statuses(&site.epoch, &[old, new]).await.unwrap();
                }
            }
            if n == 60 {
                store.delete_environment(site.frontdoor, environments[1].environment, &at).await.unwrap();
                // The deleted environment accepts no new shares.
                let refused = store.create_share(site.frontdoor, &spec(n + 1000, 1), &at).await;
                assert!(
                    matches!(refused, Err(StoreError::Reference { column }) if *column == share::Z_ID),
                    "{refused:?}"
                );
            }
        }
        store.prune(after(31 * 24 * 3600)).await.unwrap();
        let some = check_totals(&store, &site, &environments).await;
        assert!(some > 8, "{some}");
    });
}

/// Compares totals with rows, and returns the number of lists that were not empty.
async fn check_totals(store: &Store, site: &Site, environments: &[EnrolledAgent]) -> usize {
    let statuses = Status::ALL.map(|s| vec![filter(&share::STATUS, vec![text(s.as_str())])]);
    let places: Vec<_> =
        environments.iter().map(|e| vec![filter(&share::Z_ID, vec![text(e.z_id.as_str())])]).collect();
    let both = statuses.iter().flat_map(|s| places.iter().map(|p| [s.clone(), p.clone()].concat()));
    let mut some = 0;
    for filters in both.chain(statuses.clone()).chain(places.clone()).chain([vec![]]) {
        let shown = format!("{filters:?}");
        let page = PageRequest { number: 0, size: 1000 };
        let request = ListRequest { page, filters, ..ListRequest::default() };
        let page = store.shares(site.frontdoor, &request).await.unwrap();
        assert_eq!(page.total, u64::try_from(page.rows.len()).unwrap(), "{shown}");
        some += usize::from(page.total > 0);
    }
    some
}

#[test]
fn totals_are_correct_after_concurrent_writes() {
    on_each(|store| async move {
        let site = Site::new(&store).await;
        let mut shares = Vec::new();
        for n in 0..24 {
            let spec = site.share(&format!("share-{n}"), 1000 + n);
            shares.push(store.create_share(site.frontdoor, &spec, &context()).await.unwrap());
        }
        let (mut writes, frontdoor, epoch) = (JoinSet::new(), site.frontdoor, site.epoch);
        for (n, share) in shares.iter().enumerate() {
            let (id, spec) = (share.id, share.spec.clone());
            let settling = store.clone();
            writes.spawn(async move {
                let status = [Status::Deployed, Status::Error][n % 2];
                settling.update_statuses(&epoch, &[settled(id, 1, status)]).await.unwrap();
            });
            let changing = store.clone();
            writes.spawn(async move {
                let done = match n % 3 {
                    0 => changing.delete_share(frontdoor, id, &context()).await.map(|_| ()),
                    1 => changing
                        .replace_share(frontdoor, id, Generation::new(1), &spec, &context())
                        .await
                        .map(|_| ()),
                    _ => Ok(()),
                };
                done.unwrap();
            });
        }
        // The newest first, as the reconciler orders them.
        let all: Vec<_> = shares.iter().rev().map(|s| settled(s.id, 1, Status::Deployed)).collect();
        let settling = store.clone();
        writes.spawn(async move { settling.update_statuses(&epoch, &all).await.unwrap() });
        let (removing, environment) = (store.clone(), site.enrolled.environment);
        writes.spawn(async move {
            removing.delete_environment(frontdoor, environment, &context()).await.unwrap();
        });
        // A write to a share that is being deleted fails.
        while let Some(done) = writes.join_next().await {
            if let Err(failed) = done {
                let why = failed.into_panic();
                let why = why.downcast_ref::<String>().unwrap();
                assert!(why.contains("NotLive") || why.contains("Reference"), "{why}");
            }
        }
        check_totals(&store, &site, std::slice::from_ref(&site.enrolled)).await;
    });
}

#[test]
fn every_column_of_every_list_filters() {
    on_each(|store| async move {
        let site = five(&store).await;
        for columns in [
            frontdoor::ALL,
            api_account::ALL,
            environment::ALL,
            agent::ALL,
            tunnel::ALL,
            connection::ALL,
            share::ALL,
            execution::ALL,
            handover_link::ALL,
        ] {
            for &column in columns {
                let value = match column.kind {
                    ColumnType::Text => text("DELETED"),
                    ColumnType::Integer => FilterValue::Integer(i64::MAX),
                    ColumnType::Boolean => FilterValue::Boolean(false),
                    ColumnType::Time => FilterValue::Times(None, Some(now())),
                    ColumnType::Tags => tag("a", "b"),
                    ColumnType::List => FilterValue::Item("a".to_owned()),
                };
                let request = ListRequest {
                    sort: vec![Sort { column, descending: false }],
                    filters: vec![Filter { column, values: vec![value.clone(), value] }],
                    ..ListRequest::default()
                };
                // The result does not matter: each filter must be a statement that the database accepts.
                let all = wicketgate_store::Reach::All;
                let is = |other: &'static [&'static Column]| std::ptr::eq(columns, other);
                let done = match () {
                    () if is(tunnel::ALL) || is(connection::ALL) => {
                        store.tunnels(site.frontdoor, &request).await.map(|p| p.total)
                    }
                    () if is(share::ALL) => store.shares(site.frontdoor, &request).await.map(|p| p.total),
                    () if is(frontdoor::ALL) => store.frontdoors(&all, &request).await.map(|p| p.total),
                    () if is(api_account::ALL) => store.api_accounts(None, &request).await.map(|p| p.total),
                    () if is(environment::ALL) => {
                        store.environments(site.frontdoor, &request).await.map(|p| p.total)
                    }
                    () if is(agent::ALL) => store.agents(site.frontdoor, &request).await.map(|p| p.total),
                    () if is(handover_link::ALL) => {
                        store.handover_links(site.tunnel, &request).await.map(|p| p.total)
                    }
                    () => store.executions(site.frontdoor, &request).await.map(|p| p.total),
                };
                done.unwrap();
            }
        }
    });
}

//! The same lists in both databases.

use crate::{
    database::on_each,
    site::{Site, after, context, enrolled, now, settled},
};
use tokio::task::JoinSet;
use wicketgate_model::{Generation, Status};
use wicketgate_store::{
    EnrolledAgent, Filter, ListRequest, Listing, PageRequest, PropertyType, SHARES, ShareRow, ShareSpec,
    Sort, Store, StoreError, TUNNELS, Wanted, WriteContext,
};

fn filter(listing: &Listing, name: &str, values: Vec<Wanted>) -> Filter {
    Filter { property: listing.property(name).unwrap(), values }
}

fn text(text: &str) -> Wanted {
    Wanted::Text(text.to_owned())
}

fn tag(name: &str, value: &str) -> Wanted {
    Wanted::Tag { name: name.to_owned(), value: value.to_owned() }
}

/// Five shares, a second apart; the last one is `DELETED`.
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
        store.update_statuses(&[settled(share.id, 1, status)]).await.unwrap();
    }
    site
}

async fn names(store: &Store, site: &Site, request: ListRequest) -> Vec<String> {
    let page = store.shares(site.frontdoor, &request).await.unwrap();
    assert!(page.total >= u64::try_from(page.rows.len()).unwrap());
    page.rows.iter().map(|s| s.name.to_string()).collect()
}

#[test]
fn a_filter_takes_what_it_says() {
    on_each(|store| async move {
        let site = five(&store).await;
        let all = ["delta", "alpha", "echo", "bravo"];
        for (filters, wanted) in [
            (vec![], &all[..]),
            (
                vec![filter(&SHARES, "name", vec![text("echo"), text("alpha"), text("none")])],
                &["alpha", "echo"],
            ),
            (
                vec![
                    filter(&SHARES, "name", vec![text("echo"), text("alpha")]),
                    filter(&SHARES, "ingressPort", vec![Wanted::Integer(9002)]),
                ],
                &["echo"],
            ),
            (vec![filter(&SHARES, "status", vec![text("DELETED")])], &["charlie"]),
            (vec![filter(&SHARES, "status", vec![text("DELETED"), text("ERROR")])], &["bravo", "charlie"]),
            (vec![filter(&SHARES, "status", vec![text("NEW")])], &["delta", "alpha", "echo"]),
            (vec![filter(&SHARES, "deletedAt", vec![Wanted::Times(Some(now()), None)])], &["charlie"]),
            (vec![filter(&SHARES, "deletedAt", vec![Wanted::Times(None, Some(now()))])], &[]),
            (
                vec![filter(&SHARES, "createdAt", vec![Wanted::Times(Some(after(1)), Some(after(2)))])],
                &["alpha", "echo"],
            ),
            (
                vec![filter(
                    &SHARES,
                    "createdAt",
                    vec![Wanted::Times(Some(after(3)), None), Wanted::Times(Some(now()), Some(now()))],
                )],
                &["delta", "bravo"],
            ),
            (vec![filter(&SHARES, "statusDetail.reason", vec![text("AgentOffline")])], &["bravo"]),
            (
                vec![filter(&SHARES, "statusDetail.reason", vec![text("Pending")])],
                &["delta", "alpha", "echo"],
            ),
            (vec![filter(&SHARES, "envZId", vec![text(site.enrolled.z_id.as_str())])], &all),
            (vec![filter(&SHARES, "envZId", vec![text("elsewhere0")])], &[]),
            (vec![filter(&SHARES, "locationId", vec![text("local")])], &all),
            (vec![filter(&SHARES, "tags", vec![tag("team", "pay\"ments%")])], &["delta"]),
            (vec![filter(&SHARES, "tags", vec![tag("team", "PAY\"MENTS%")])], &[]),
            (vec![filter(&SHARES, "tags", vec![tag("team", "x")])], &[]),
            (vec![filter(&SHARES, "name", vec![text("' OR 1=1 --")])], &[]),
        ] {
            let shown = format!("{filters:?}");
            assert_eq!(
                names(&store, &site, ListRequest { filters, ..ListRequest::default() }).await,
                wanted,
                "{shown}"
            );
        }
        let kept_since = Some(after(1));
        let filters = vec![filter(&SHARES, "status", vec![text("DELETED")])];
        let request = ListRequest { filters: filters.clone(), kept_since, ..ListRequest::default() };
        assert_eq!(names(&store, &site, request).await, ["charlie"]);
        let request = ListRequest { filters, kept_since: Some(after(99)), ..ListRequest::default() };
        assert!(names(&store, &site, request).await.is_empty());
    });
}

#[test]
fn every_property_sorts_and_pages_neither_repeat_nor_skip() {
    on_each(|store| async move {
        let site = five(&store).await;
        // Pages are looked for from the end that is nearer.
        let sorted = async |name: &str, descending| {
            let mut found = Vec::new();
            for size in [1, 2, 3, 4] {
                let mut paged = Vec::new();
                for number in 0..5 {
                    let sort = vec![Sort { property: SHARES.property(name).unwrap(), descending }];
                    let page = PageRequest { number, size };
                    let request = ListRequest { page, sort, ..ListRequest::default() };
                    paged.extend(names(&store, &site, request).await);
                }
                assert!(
                    size == 1 || paged == found,
                    "{name}: {paged:?} in pages of {size}, {found:?} in ones"
                );
                found = paged;
            }
            found
        };
        assert_eq!(sorted("name", false).await, ["alpha", "bravo", "delta", "echo"]);
        assert_eq!(sorted("name", true).await, ["echo", "delta", "bravo", "alpha"]);
        assert_eq!(sorted("createdAt", true).await, ["bravo", "echo", "alpha", "delta"]);
        assert_eq!(sorted("status", true).await, ["delta", "alpha", "echo", "bravo"]);
        assert_eq!(sorted("deletedAt", false).await, ["delta", "alpha", "echo", "bravo"]);
        for property in SHARES.properties {
            for descending in [false, true] {
                let mut all = sorted(property.name, descending).await;
                all.sort();
                assert_eq!(all, ["alpha", "bravo", "delta", "echo"], "{}", property.name);
            }
        }
        for property in TUNNELS.properties {
            let sort = vec![Sort { property, descending: true }];
            let request = ListRequest { sort, ..ListRequest::default() };
            assert_eq!(store.tunnels(site.frontdoor, &request).await.unwrap().rows.len(), 1);
        }
    });
}

/// Totals are not counted anew each time: they must be what is there, whatever was done.
#[test]
fn totals_are_as_many_rows_as_there_are() {
    on_each(|store| async move {
        let site = Site::new(&store).await;
        let environments = [site.enrolled.clone(), enrolled(&store, site.frontdoor, 2).await];
        let mut shares: Vec<ShareRow> = Vec::new();
        // Some fixed numbers that look like chance.
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
                        store.update_statuses(&[deleted]).await.unwrap();
                    }
                }
                (_, Some(i)) => {
                    let status = [Status::Deployed, Status::Error][pick(2)];
                    // One that is out of date among them.
                    let old = settled(shares[i].id, shares[i].generation.get() + 1, Status::Deleted);
                    let new = settled(shares[i].id, shares[i].generation.get(), status);
                    store.update_statuses(&[old, new]).await.unwrap();
                }
            }
            if n == 60 {
                store.delete_environment(site.frontdoor, environments[1].environment, &at).await.unwrap();
                // Nothing may come into it any more.
                let refused = store.create_share(site.frontdoor, &spec(n + 1000, 1), &at).await;
                assert!(matches!(refused, Err(StoreError::Reference { property: "envZId" })), "{refused:?}");
            }
        }
        store.prune(after(31 * 24 * 3600)).await.unwrap();
        let some = check_totals(&store, &site, &environments).await;
        assert!(some > 8, "{some}");
    });
}

/// Answers how many of the lists were not empty.
async fn check_totals(store: &Store, site: &Site, environments: &[EnrolledAgent]) -> usize {
    let statuses = Status::ALL.map(|s| vec![filter(&SHARES, "status", vec![text(s.as_str())])]);
    let places: Vec<_> =
        environments.iter().map(|e| vec![filter(&SHARES, "envZId", vec![text(e.z_id.as_str())])]).collect();
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
fn totals_stay_true_while_all_write_at_once() {
    on_each(|store| async move {
        let site = Site::new(&store).await;
        let mut shares = Vec::new();
        for n in 0..24 {
            let spec = site.share(&format!("share-{n}"), 1000 + n);
            shares.push(store.create_share(site.frontdoor, &spec, &context()).await.unwrap());
        }
        let (mut writes, frontdoor) = (JoinSet::new(), site.frontdoor);
        for (n, share) in shares.iter().enumerate() {
            let (id, spec) = (share.id, share.spec());
            let settling = store.clone();
            writes.spawn(async move {
                // The newest first, as the reconciler has them.
                let status = [Status::Deployed, Status::Error][n % 2];
                settling.update_statuses(&[settled(id, 1, status)]).await.unwrap();
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
        let all: Vec<_> = shares.iter().rev().map(|s| settled(s.id, 1, Status::Deployed)).collect();
        let settling = store.clone();
        writes.spawn(async move { settling.update_statuses(&all).await.unwrap() });
        let (removing, environment) = (store.clone(), site.enrolled.environment);
        writes.spawn(async move {
            removing.delete_environment(frontdoor, environment, &context()).await.unwrap();
        });
        // Whoever finds its share being deleted is told so.
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
fn every_property_of_every_list_filters() {
    on_each(|store| async move {
        let site = five(&store).await;
        for listing in [
            &wicketgate_store::FRONTDOORS,
            &wicketgate_store::API_ACCOUNTS,
            &wicketgate_store::ENVIRONMENTS,
            &wicketgate_store::AGENTS,
            &TUNNELS,
            &SHARES,
            &wicketgate_store::EXECUTIONS,
        ] {
            for property in listing.properties {
                let value = match property.kind {
                    PropertyType::Text | PropertyType::Id(_) | PropertyType::Enum(_) => text("DELETED"),
                    PropertyType::Integer => Wanted::Integer(i64::MAX),
                    PropertyType::Boolean => Wanted::Boolean(false),
                    PropertyType::Timestamp => Wanted::Times(None, Some(now())),
                    PropertyType::Tags => tag("a", "b"),
                    PropertyType::List => Wanted::Item("a".to_owned()),
                };
                let request = ListRequest {
                    sort: vec![Sort { property, descending: false }],
                    filters: vec![Filter { property, values: vec![value.clone(), value] }],
                    ..ListRequest::default()
                };
                // Whatever they find: each is a statement that the database takes.
                let all = wicketgate_store::Reach::All;
                let done = match listing.properties[0].kind {
                    _ if std::ptr::eq(listing, &TUNNELS) => {
                        store.tunnels(site.frontdoor, &request).await.map(|p| p.total)
                    }
                    _ if std::ptr::eq(listing, &SHARES) => {
                        store.shares(site.frontdoor, &request).await.map(|p| p.total)
                    }
                    PropertyType::Id("") => store.frontdoors(&all, &request).await.map(|p| p.total),
                    PropertyType::Id("acc-") => store.api_accounts(None, &request).await.map(|p| p.total),
                    PropertyType::Id("env-") => {
                        store.environments(site.frontdoor, &request).await.map(|p| p.total)
                    }
                    PropertyType::Id("agt-") => store.agents(site.frontdoor, &request).await.map(|p| p.total),
                    _ => store.executions(site.frontdoor, &request).await.map(|p| p.total),
                };
                done.unwrap();
            }
        }
    });
}

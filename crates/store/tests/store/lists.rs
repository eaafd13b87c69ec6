//! The same lists in both databases.

use crate::{Site, act, after, database::on_each, now, settled};
use wicketgate_model::Status;
use wicketgate_store::{
    Act, Filter, ListRequest, Listing, PageRequest, PropertyType, SHARES, Sort, Store, TUNNELS, Wanted,
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
        let at = Act { at: after(i64::try_from(n).unwrap()), ..act() };
        let share = store.create_share(site.frontdoor, &spec, &at).await.unwrap();
        let status = match n {
            4 => Status::Deleted,
            3 => Status::Error,
            _ => continue,
        };
        store.settle(&[settled(share.id, 1, status)]).await.unwrap();
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
        let sorted = async |name: &str, descending| {
            let mut found = Vec::new();
            for number in 0..4 {
                let sort = vec![Sort { property: SHARES.property(name).unwrap(), descending }];
                let page = PageRequest { number, size: 2 };
                found
                    .extend(names(&store, &site, ListRequest { page, sort, ..ListRequest::default() }).await);
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

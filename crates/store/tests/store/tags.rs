//! Tags: lists find a row by those that it has now.

use crate::{
    database::on_each,
    site::{Site, after, context, frontdoor, settled, tunnel_spec},
};
use jiff::SignedDuration;
use wicketgate_model::{FrontdoorId, LoadBalancerPools, Status};
use wicketgate_store::{
    Action, Column, Filter, FilterValue, ListRequest, Store, Tags, TunnelChange, column::share,
    column::tunnel,
};

fn request(column: &'static Column, tags: &[(&str, &str)]) -> ListRequest {
    let tag =
        |&(name, value): &(&str, &str)| FilterValue::Tag { name: name.to_owned(), value: value.to_owned() };
    ListRequest {
        filters: vec![Filter { column, values: tags.iter().map(tag).collect() }],
        ..ListRequest::default()
    }
}

fn tags(pairs: &[(&str, &str)]) -> Tags {
    pairs.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned())).collect()
}

/// How many shares each of some tags finds.
async fn found(store: &Store, of: FrontdoorId, pairs: &[(&str, &str)]) -> Vec<u64> {
    let mut totals = Vec::new();
    for pair in pairs {
        totals.push(store.shares(of, &request(&share::TAGS, &[*pair])).await.unwrap().total);
    }
    totals
}

#[test]
fn a_row_is_found_by_the_tags_that_it_has_now() {
    on_each(|store| async move {
        let site = Site::new(&store).await;
        let asked = [("a", "1"), ("b", "2"), ("b", "3"), ("c", "4"), ("a", "2"), ("A", "1"), ("a", "1\0")];
        let mut spec = site.share("app-db", 9000);
        spec.tags = tags(&[("a", "1"), ("b", "2")]);
        let made = store.create_share(site.frontdoor, &spec, &context()).await.unwrap();
        assert_eq!(found(&store, site.frontdoor, &asked).await, [1, 1, 0, 0, 0, 0, 0]);
        let other = frontdoor(&store).await;
        assert_eq!(found(&store, other, &asked[..1]).await, [0], "it is of another Frontdoor");

        spec.tags = tags(&[("b", "3"), ("c", "4")]);
        let (generation, act) = (made.generation, context());
        let changed = store.replace_share(site.frontdoor, made.id, generation, &spec, &act).await.unwrap();
        assert_eq!(found(&store, site.frontdoor, &asked).await, [0, 0, 1, 1, 0, 0, 0]);
        let either =
            store.shares(site.frontdoor, &request(&share::TAGS, &[("b", "2"), ("b", "3")])).await.unwrap();
        assert_eq!((either.total, either.rows[0].id), (1, made.id));

        // One that fails changes nothing.
        spec.tags = tags(&[("a", "1")]);
        store.replace_share(site.frontdoor, made.id, made.generation, &spec, &context()).await.unwrap_err();
        assert_eq!(found(&store, site.frontdoor, &asked).await, [0, 0, 1, 1, 0, 0, 0]);

        // A deleted share keeps its tags, until it is removed.
        let deleted = store.delete_share(site.frontdoor, made.id, &context()).await.unwrap();
        assert_eq!(deleted.generation, changed.generation.next());
        store
            .update_statuses(&site.epoch, &[settled(made.id, deleted.generation.get(), Status::Deleted)])
            .await
            .unwrap();
        let mut of_deleted = request(&share::TAGS, &[("c", "4")]);
        let status = vec![FilterValue::Text("DELETED".to_owned())];
        of_deleted.filters.push(Filter { column: &share::STATUS, values: status });
        assert_eq!(store.shares(site.frontdoor, &of_deleted).await.unwrap().total, 1);
        store.prune(after(0) + SignedDuration::from_hours(24 * 40)).await.unwrap();
        assert_eq!(store.shares(site.frontdoor, &of_deleted).await.unwrap().total, 0);
    });
}

#[test]
fn tunnels_are_found_by_their_tags() {
    on_each(|store| async move {
        let site = Site::new(&store).await;
        let (pools, mut spec) = (LoadBalancerPools::ipsec(), tunnel_spec(2));
        spec.tags = tags(&[("team", "a")]);
        let made = store.create_tunnel(site.frontdoor, &spec, &pools, &context()).await.unwrap();
        let found = async |value: &str| {
            let request = request(&tunnel::TAGS, &[("team", value)]);
            let rows = store.tunnels(site.frontdoor, &request).await.unwrap().rows;
            rows.iter().map(|row| row.id).collect::<Vec<_>>()
        };
        assert_eq!((found("a").await, found("b").await), (vec![made.id], vec![]));
        spec.tags = tags(&[("team", "b")]);
        let (expected, previous_until, action) = (made.generation, after(60), Action::Update);
        let change = TunnelChange { expected, spec, previous_until, cuts: false, action };
        store.replace_tunnel(site.frontdoor, made.id, &change, &pools, &context()).await.unwrap();
        assert_eq!((found("a").await, found("b").await), (vec![], vec![made.id]));
    });
}

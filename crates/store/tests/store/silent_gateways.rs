//! What is said of the rows of a gateway to which no server has a link.

use crate::{
    database::{open, place},
    gateways::run,
    site::{Site, after, context, settled},
};
use tempfile::TempDir;
use wicketgate_model::{Deadlines, Reason, ShareId, Status};
use wicketgate_store::Store;

/// Of a share.
async fn standing(store: &Store, site: &Site, share: ShareId) -> (Status, Option<Reason>) {
    let row = store.share(site.frontdoor, share).await.unwrap().unwrap();
    (row.standing.status, row.standing.detail.map(|detail| detail.problem.reason))
}

#[tokio::test]
async fn rows_of_a_gateway_without_a_link_say_so_and_keep_their_statuses() {
    let dir = TempDir::new().unwrap();
    let place = place(&dir);
    let store = open(&place, &dir).await.unwrap();
    let site = Site::new(&store).await;
    run(&place, "UPDATE gateway SET in_process = 0").await;
    let tell = async |second| {
        while store.tell_of_silent_gateways(Deadlines::default(), after(0), after(second)).await.unwrap() {}
    };
    let deployed =
        store.create_share(site.frontdoor, &site.share("deployed", 1000), &context()).await.unwrap().id;
    store.update_statuses(&site.epoch, &[settled(deployed, 1, Status::Deployed)]).await.unwrap();
    tell(1000).await;
    let untold = (Status::Deployed, None);
    assert_eq!(standing(&store, &site, deployed).await, untold, "the gateway has a link");

    store.unlink_gateway(&site.epoch, after(10)).await.unwrap();
    let waiting =
        store.create_share(site.frontdoor, &site.share("waiting", 1001), &context()).await.unwrap().id;
    tell(39).await;
    assert_eq!(standing(&store, &site, deployed).await, untold, "it may find another server");
    tell(40).await;
    wicketgate_lab::named("GatewayUnreachable", (after(40).duration_since(after(10))).unsigned_abs());
    let unreachable = Some(Reason::GatewayUnreachable);
    assert_eq!(standing(&store, &site, deployed).await, (Status::Deployed, unreachable));
    assert_eq!(standing(&store, &site, waiting).await, (Status::Error, unreachable), "it waits for 30 s");
    let tunnel = store.tunnel(site.frontdoor, site.tunnel).await.unwrap().unwrap();
    assert_eq!(tunnel.standing.detail.map(|detail| detail.problem.reason), unreachable);

    // Its reconciler decides again, and nobody else.
    let epoch = store.link_gateway(site.epoch.gateway(), after(50)).await.unwrap();
    store.update_statuses(&epoch, &[settled(deployed, 1, Status::Deployed)]).await.unwrap();
    tell(1000).await;
    assert_eq!(standing(&store, &site, deployed).await, untold);
}

//! Handover links and the sessions that they open.

use crate::{
    database::on_each,
    site::{ALL, Site, after, context, now},
};
use wicketgate_model::{Standing, Status};
use wicketgate_store::{
    Action, HandoverLinkRow, HandoverLinkSpec, HandoverLinkState, MOST_LINKS, Resource, ResourceType,
    StatusUpdate, Store, StoreError, WriteContext,
};

fn spec(n: u8, max_uses: i64) -> HandoverLinkSpec {
    HandoverLinkSpec {
        description: None,
        expires_at: after(3600),
        max_uses: max_uses.try_into().unwrap(),
        passphrase: None,
        token_sha256: [n; 32],
    }
}

async fn link(store: &Store, site: &Site, n: u8, max_uses: i64) -> HandoverLinkRow {
    let (spec, context) = (spec(n, max_uses), context());
    store.create_handover_link(site.frontdoor, site.tunnel, &spec, &context).await.unwrap()
}

/// Opens the link at a time. Whether that is possible is the result.
async fn open(store: &Store, link: &HandoverLinkRow, session: u8, seconds: i64) -> bool {
    let context = WriteContext { at: after(seconds), ..context() };
    store.open_handover_link(link.id, [session; 32], &context).await.unwrap().is_some()
}

/// The state of the session's link.
async fn of_session(store: &Store, session: u8, seconds: i64) -> Option<HandoverLinkState> {
    let link = store.handover_link_of_session(&[session; 32]).await.unwrap();
    link.map(|link| {
        let state = link.state(after(seconds));
        let is_over = [HandoverLinkState::Revoked, HandoverLinkState::Expired].contains(&state);
        assert_eq!(link.has_ended(after(seconds)), is_over);
        state
    })
}

#[test]
fn a_link_is_opened_as_often_as_it_says_and_until_it_expires() {
    on_each(|store| async move {
        let site = Site::new(&store).await;
        let made = link(&store, &site, 1, 2).await;
        assert_eq!(store.handover_link_with_token(&[1; 32]).await.unwrap().unwrap(), made);
        assert_eq!(store.handover_link_with_token(&[9; 32]).await.unwrap(), None);
        assert!(open(&store, &made, 1, 1).await && open(&store, &made, 2, 2).await);
        assert!(!open(&store, &made, 3, 3).await, "opened more often than it says");
        let used = store.handover_link(site.tunnel, made.id).await.unwrap().unwrap();
        assert_eq!((used.uses, used.last_used_at), (2, Some(after(2))));
        assert_eq!((used.state(after(3)), used.has_ended(after(3))), (HandoverLinkState::UsedUp, false));
        // Sessions go on until it expires, and one that was not opened is none.
        assert_eq!(of_session(&store, 2, 3).await, Some(HandoverLinkState::UsedUp));
        assert_eq!(of_session(&store, 3, 3).await, None);
        assert!(used.has_ended(after(3600)));
        let late = link(&store, &site, 2, 2).await;
        assert!(!open(&store, &late, 4, 3600).await, "opened after it expired");

        let executions = store.executions(site.frontdoor, &ALL).await.unwrap().rows;
        let of_links = executions.iter().filter(|e| e.resource_type == ResourceType::HandoverLink);
        let actions: Vec<_> = of_links.map(|e| e.action).collect();
        assert_eq!(actions, [Action::Create, Action::Open, Action::Open, Action::Create]);
    });
}

#[test]
fn many_opens_at_once_use_a_link_up_once() {
    on_each(|store| async move {
        let site = Site::new(&store).await;
        let made = link(&store, &site, 1, 3).await;
        let opens: Vec<_> = (0..16)
            .map(|n| {
                let (store, made) = (store.clone(), made.clone());
                tokio::spawn(async move { open(&store, &made, n, 1).await })
            })
            .collect();
        let mut opened = 0;
        for each in opens {
            opened += usize::from(each.await.unwrap());
        }
        assert_eq!(opened, 3);
    });
}

#[test]
fn a_tunnel_has_so_many_links_that_have_not_ended() {
    on_each(|store| async move {
        let site = Site::new(&store).await;
        let create = async |n: usize, at: i64| {
            let context = WriteContext { at: after(at), ..context() };
            let spec = HandoverLinkSpec { expires_at: after(at + 3600), ..spec(n.try_into().unwrap(), 1) };
            store.create_handover_link(site.frontdoor, site.tunnel, &spec, &context).await
        };
        let many = futures_util::future::join_all((0..30).map(|n| create(n, 0))).await;
        let (made, refused): (Vec<_>, Vec<_>) = many.into_iter().partition(Result::is_ok);
        assert_eq!(u32::try_from(made.len()).unwrap(), MOST_LINKS);
        assert!(
            refused.iter().all(|e| matches!(e, Err(StoreError::TooManyLinks(MOST_LINKS)))),
            "{refused:?}"
        );
        // One that is used up has its pages open. One that was revoked makes room, as those do that expire.
        let one = made[0].as_ref().unwrap();
        assert!(open(&store, one, 1, 1).await);
        let has_room = store.has_room_for_link(site.tunnel, after(2)).await;
        assert!(matches!(has_room, Err(StoreError::TooManyLinks(MOST_LINKS))), "{has_room:?}");
        assert!(create(30, 2).await.is_err());
        store.revoke_handover_link(site.frontdoor, one.id, &context()).await.unwrap();
        assert!(store.has_room_for_link(site.tunnel, after(2)).await.is_ok());
        assert!(create(31, 3).await.is_ok() && create(32, 4).await.is_err());
        assert!(create(33, 3600).await.is_ok());
    });
}

#[test]
fn a_session_ends_with_its_link_and_a_link_with_its_tunnel() {
    on_each(|store| async move {
        let site = Site::new(&store).await;
        let (revoked, other) = (link(&store, &site, 1, 5).await, link(&store, &site, 2, 5).await);
        assert!(open(&store, &revoked, 1, 1).await && open(&store, &other, 2, 1).await);
        for _ in 0..2 {
            store.revoke_handover_link(site.frontdoor, revoked.id, &context()).await.unwrap();
        }
        assert_eq!(of_session(&store, 1, 1).await, Some(HandoverLinkState::Revoked));
        assert_eq!(of_session(&store, 2, 1).await, Some(HandoverLinkState::Active));
        assert!(!open(&store, &revoked, 3, 2).await, "opened after it was revoked");

        store.delete_tunnel(site.frontdoor, site.tunnel, &context()).await.unwrap();
        assert_eq!(of_session(&store, 2, 1).await, Some(HandoverLinkState::Revoked));
        let made = store.create_handover_link(site.frontdoor, site.tunnel, &spec(3, 5), &context()).await;
        assert!(matches!(made, Err(StoreError::NotLive(Status::Deleting))), "{made:?}");
        let all = store.handover_links(site.tunnel, &ALL).await.unwrap();
        assert_eq!(all.rows.iter().map(|l| l.id).collect::<Vec<_>>(), [revoked.id, other.id]);
        let executions = store.executions(site.frontdoor, &ALL).await.unwrap().rows;
        let of_links = executions.iter().filter(|e| e.resource_type == ResourceType::HandoverLink);
        let ends = of_links.filter(|e| e.action == Action::Delete).count();
        assert_eq!(ends, 1, "a second revocation was recorded");
    });
}

#[test]
fn ended_links_are_deleted_after_their_retention() {
    const DAY: i64 = 24 * 3600;
    on_each(|store| async move {
        let site = Site::new(&store).await;
        let made = link(&store, &site, 1, 5).await;
        assert!(open(&store, &made, 1, 1).await);
        let kept = async || store.handover_links(site.tunnel, &ALL).await.unwrap().total;
        store.prune(now()).await.unwrap();
        assert_eq!(of_session(&store, 1, 1).await, Some(HandoverLinkState::Active));
        // Its sessions go at once, and itself is shown for a while.
        store.prune(after(DAY)).await.unwrap();
        assert_eq!((of_session(&store, 1, 1).await, kept().await), (None, 1));
        store.prune(after(40 * DAY)).await.unwrap();
        assert_eq!(kept().await, 0);
    });
}

#[test]
fn the_links_of_a_deleted_tunnel_do_not_keep_it() {
    on_each(|store| async move {
        let site = Site::new(&store).await;
        let made = link(&store, &site, 1, 5).await;
        assert!(open(&store, &made, 1, 1).await);
        let deleted = store.delete_tunnel(site.frontdoor, site.tunnel, &context()).await.unwrap();
        let standing = Standing {
            status: Status::Deleted,
            since: after(2),
            observed_generation: Some(deleted.generation),
            detail: None,
        };
        let (resource, generation) = (Resource::Tunnel(site.tunnel), deleted.generation);
        store.update_statuses(&site.epoch, &[StatusUpdate { resource, generation, standing }]).await.unwrap();
        store.prune(after(40 * 24 * 3600)).await.unwrap();
        assert!(store.tunnel(site.frontdoor, site.tunnel).await.unwrap().is_none());
        assert_eq!(store.handover_link_with_token(&[1; 32]).await.unwrap(), None);
    });
}

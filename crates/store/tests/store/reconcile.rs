//! Reads and writes of the reconciler.

use crate::{
    database::on_each,
    site::{ALL, Site, changes, context, settled},
};
use wicketgate_model::Status;
use wicketgate_store::Revision;

#[test]
fn a_status_update_applies_to_its_generation_only() {
    on_each(|store| async move {
        let site = Site::new(&store).await;
        let share = store.create_share(site.frontdoor, &site.share("a", 1), &context()).await.unwrap();
        let status = async || store.share(site.frontdoor, share.id).await.unwrap().unwrap().standing.status;
        store.update_statuses(&site.epoch, &[settled(share.id, 1, Status::Error)]).await.unwrap();
        assert_eq!(status().await, Status::Error);
        store
            .replace_share(site.frontdoor, share.id, share.generation, &site.share("a", 2), &context())
            .await
            .unwrap();
        store.update_statuses(&site.epoch, &[settled(share.id, 1, Status::Deployed)]).await.unwrap();
        assert_eq!(status().await, Status::New);
        store.update_statuses(&site.epoch, &[settled(share.id, 2, Status::Deployed)]).await.unwrap();
        assert_eq!(status().await, Status::Deployed);
        store.delete_share(site.frontdoor, share.id, &context()).await.unwrap();
        for generation in [2, 3] {
            store
                .update_statuses(&site.epoch, &[settled(share.id, generation, Status::Deployed)])
                .await
                .unwrap();
            assert_eq!(status().await, Status::Deleting);
        }
        store.update_statuses(&site.epoch, &[settled(share.id, 3, Status::Deleted)]).await.unwrap();
        store.update_statuses(&site.epoch, &[settled(share.id, 3, Status::Error)]).await.unwrap();
        assert_eq!(status().await, Status::Deleted);
        let executions = store.executions(site.frontdoor, &ALL).await.unwrap().rows;
        let of_share: Vec<_> = executions
            .iter()
            .filter(|e| e.resource == share.id.to_string())
            .map(|e| (e.action.as_str(), e.status.as_str(), e.message.as_deref()))
            .collect();
        assert_eq!(
            of_share,
            [
                ("CREATE", "FAILED", Some("AgentOffline: no agent is connected")),
                ("UPDATE", "SUCCESS", None),
                ("DELETE", "SUCCESS", None),
            ]
        );
    });
}

#[test]
fn changes_are_all_rows_written_since_the_revision() {
    on_each(|store| async move {
        let site = Site::new(&store).await;
        let share = store.create_share(site.frontdoor, &site.share("a", 1), &context()).await.unwrap();
        let all = changes(&store, Revision::default()).await;
        assert_eq!((all.tunnels, all.shares.len(), all.barred.len()), (1, 1, 0));
        assert_eq!(all.enrolled, [(site.enrolled.agent, [1; 32])]);
        let none = changes(&store, all.revision).await;
        assert_eq!((none.tunnels, none.shares.len(), none.revision), (0, 0, all.revision));
        store.update_statuses(&site.epoch, &[settled(share.id, 1, Status::Deployed)]).await.unwrap();
        assert_eq!(changes(&store, all.revision).await.shares.len(), 0);

        store.delete_environment(site.frontdoor, site.enrolled.environment, &context()).await.unwrap();
        store.update_statuses(&site.epoch, &[settled(share.id, 2, Status::Deleted)]).await.unwrap();
        let since = changes(&store, all.revision).await;
        assert_eq!(since.barred, [site.enrolled.agent]);
        assert_eq!(since.shares, [Status::Deleted]);
        let again = changes(&store, Revision::default()).await;
        assert_eq!((again.shares.len(), again.barred.len()), (0, 1));
        assert!(store.environment(site.frontdoor, site.enrolled.environment).await.unwrap().is_none());
    });
}

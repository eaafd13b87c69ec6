//! Actions whose outcome is recorded by whoever waits for it.

use crate::{
    database::on_each,
    site::{ALL, Site, after, context, settled},
};
use wicketgate_model::Status;
use wicketgate_store::{Action, ExecutionRow, ExecutionStatus, Resource, Store};

async fn actions(store: &Store, site: &Site) -> Vec<ExecutionRow> {
    let all = store.executions(site.frontdoor, &ALL).await.unwrap().rows;
    all.into_iter().filter(|row| row.action == Action::CloseConnections).collect()
}

#[test]
fn an_action_ends_with_its_outcome_and_with_no_status_of_its_resource() {
    on_each(|store| async move {
        let site = Site::new(&store).await;
        let share = store.create_share(site.frontdoor, &site.share("a", 1), &context()).await.unwrap();
        let events = store.events(None, 0, 100).await.unwrap().len();
        let on = Resource::Share(share.id);
        let act = context();
        let begin = || store.begin_action(site.frontdoor, Action::CloseConnections, on, &act);
        let (first, second) = (begin().await.unwrap(), begin().await.unwrap());
        assert_eq!(store.events(None, 0, 100).await.unwrap().len(), events, "the share has not changed");
        store.update_statuses(&site.epoch, &[settled(share.id, 1, Status::Deployed)]).await.unwrap();
        assert!(actions(&store, &site).await.iter().all(|row| row.status == ExecutionStatus::Running));
        store.end_action(first, &Ok("3 connections were reset".to_owned()), after(2)).await.unwrap();
        store.end_action(second, &Err("no answer".to_owned()), after(3)).await.unwrap();
        // An outcome is final.
        store.end_action(second, &Ok("too late".to_owned()), after(4)).await.unwrap();
        let ended: Vec<_> = actions(&store, &site)
            .await
            .into_iter()
            .map(|row| (row.status, row.message, row.finished_at))
            .collect();
        let words = |text: &str| Some(text.to_owned());
        assert_eq!(
            ended,
            [
                (ExecutionStatus::Success, words("3 connections were reset"), Some(after(2))),
                (ExecutionStatus::Failed, words("no answer"), Some(after(3))),
            ]
        );
    });
}

#[test]
fn an_action_whose_outcome_is_not_recorded_fails_after_five_minutes() {
    on_each(|store| async move {
        let site = Site::new(&store).await;
        let on = Resource::Tunnel(site.tunnel);
        store.begin_action(site.frontdoor, Action::CloseConnections, on, &context()).await.unwrap();
        let begun = actions(&store, &site).await[0].created_at;
        for (seconds, status) in [(300, ExecutionStatus::Running), (301, ExecutionStatus::Failed)] {
            store.end_lost_actions(begun + jiff::SignedDuration::from_secs(seconds)).await.unwrap();
            assert_eq!(actions(&store, &site).await[0].status, status, "after {seconds} s");
        }
        // The tunnel's own creation still waits for its gateway.
        let running = store.executions(site.frontdoor, &ALL).await.unwrap().rows;
        assert_eq!(running.iter().filter(|row| row.status == ExecutionStatus::Running).count(), 1);
    });
}

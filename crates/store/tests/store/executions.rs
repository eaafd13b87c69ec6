//! Actions whose outcome is recorded by whoever waits for it.

use crate::{
    database::on_each,
    site::{ALL, Site, after, context, settled},
};
use wicketgate_model::Status;
use wicketgate_store::{
    Action, ApiAccountSpec, AuthenticationSubject, ExecutionRow, ExecutionStatus, Resource, ResourceType,
    Store, WriteContext,
};

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

fn account(name: &str) -> ApiAccountSpec {
    ApiAccountSpec {
        organization: "default".to_owned(),
        name: name.to_owned(),
        scopes: vec!["frontdoor.write".to_owned()],
        frontdoors: None,
        secret_sha256: [1; 32],
        expires_at: None,
    }
}

/// Names can change, and what has them can be deleted: the record says what they were.
#[test]
fn an_execution_keeps_the_names_of_its_resource_and_of_its_actor() {
    on_each(|store| async move {
        let site = Site::new(&store).await;
        let account = store.create_api_account(&account("pipeline"), &context()).await.unwrap();
        let by = WriteContext { actor: account.id.to_string(), ..context() };
        let share = store.create_share(site.frontdoor, &site.share("a", 1), &by).await.unwrap();
        // Those of several rows are written by one statement.
        store.delete_tunnel(site.frontdoor, site.tunnel, &by).await.ok();
        store.delete_share(site.frontdoor, share.id, &by).await.unwrap();
        store.revoke_api_account(account.id, &context()).await.unwrap();
        let words = |text: &str| Some(text.to_owned());
        let rows = store.executions(site.frontdoor, &ALL).await.unwrap().rows;
        let of = |kind: ResourceType| -> Vec<_> {
            let of_kind = rows.iter().filter(|row| row.resource_type == kind);
            of_kind.map(|row| (row.action, row.resource_name.clone(), row.actor_name.clone())).collect()
        };
        assert_eq!(
            of(ResourceType::Share),
            [
                (Action::Create, words("a"), words("pipeline")),
                (Action::Delete, words("a"), words("pipeline")),
            ]
        );
        let of_account =
            [(Action::Create, words("pipeline"), None), (Action::Delete, words("pipeline"), None)];
        assert_eq!(of(ResourceType::ApiAccount), of_account);
    });
}

/// Failures are counted for up to an hour before they are written, and an account can be revoked meanwhile.
#[test]
fn failures_that_were_counted_before_the_account_was_revoked_are_recorded() {
    on_each(|store| async move {
        let _site = Site::new(&store).await;
        let account = store.create_api_account(&account("pipeline"), &context()).await.unwrap();
        store.revoke_api_account(account.id, &context()).await.unwrap();
        let subject = AuthenticationSubject::Account(account.id);
        let why = "the secret is wrong (5 times)";
        store.record_failed_authentication(subject, why.to_owned(), &context()).await.unwrap();
        let rows = store.organization_executions(Some("default"), &ALL).await.unwrap().rows;
        let failed: Vec<_> = rows.into_iter().filter(|row| row.action == Action::Authenticate).collect();
        assert_eq!(failed.len(), 1);
        assert_eq!(failed[0].message.as_deref(), Some(why));
        assert_eq!(failed[0].resource_name.as_deref(), Some("pipeline"));
    });
}

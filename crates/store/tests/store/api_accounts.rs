use crate::{
    database::on_each,
    site::{ALL, Site, after, asked, context},
};
use uuid::Uuid;
use wicketgate_model::{EnrollmentId, FrontdoorId};
use wicketgate_store::{
    Action, ApiAccountSpec, FrontdoorSpec, HandoverLinkSpec, NewEnrollment, Reach, ResourceType, Store,
    StoreError, WriteContext,
};

async fn frontdoor(store: &Store, organization: &str) -> FrontdoorId {
    let spec = FrontdoorSpec {
        organization: organization.to_owned(),
        default_namespace: "default".parse().unwrap(),
        ipsec_shares_enabled: true,
        quotas: Default::default(),
    };
    store.create_frontdoor(&spec, &context()).await.unwrap().id
}

fn account(organization: &str, secret: u8, frontdoors: Option<Vec<FrontdoorId>>) -> ApiAccountSpec {
    ApiAccountSpec {
        organization: organization.to_owned(),
        name: "a program".to_owned(),
        scopes: vec!["frontdoor.read".to_owned(), "frontdoor.write".to_owned()],
        frontdoors,
        secret_sha256: [secret; 32],
        expires_at: Some(after(60)),
    }
}

#[test]
fn an_account_is_found_until_it_is_revoked() {
    on_each(|store| async move {
        let (a, b) = (frontdoor(&store, "acme").await, frontdoor(&store, "acme").await);
        let other = frontdoor(&store, "other").await;
        let whole = store.create_api_account(&account("acme", 1, None), &context()).await.unwrap();
        let named =
            store.create_api_account(&account("acme", 2, Some(vec![b, a])), &context()).await.unwrap();
        store.create_api_account(&account("other", 3, Some(vec![other])), &context()).await.unwrap();
        assert_eq!(store.api_account(named.id).await.unwrap().unwrap(), named);
        assert_eq!(store.api_account_with_secret(&[1; 32]).await.unwrap().unwrap(), whole);
        assert_eq!(store.api_account_with_secret(&[9; 32]).await.unwrap(), None);
        assert_eq!(store.api_accounts(None, &ALL).await.unwrap().total, 3);
        assert_eq!(
            store.api_accounts(Some("acme"), &ALL).await.unwrap().rows,
            [whole.clone(), named.clone()]
        );

        store.revoke_api_account(whole.id, &context()).await.unwrap();
        assert_eq!(store.api_account(whole.id).await.unwrap(), None);
        assert_eq!(store.api_account_with_secret(&[1; 32]).await.unwrap(), None);
        assert_eq!(store.api_accounts(Some("acme"), &ALL).await.unwrap().total, 1);
        let again = store.revoke_api_account(whole.id, &context()).await;
        assert!(matches!(again, Err(StoreError::Missing)));
    });
}

#[test]
fn what_a_revoked_account_gave_to_others_ends_with_it() {
    on_each(|store| async move {
        let site = Site::new(&store).await;
        let made = store.create_api_account(&account("default", 1, None), &context()).await.unwrap();
        let child = WriteContext { actor: made.id.to_string(), ..context() };
        let below = store.create_api_account(&account("default", 2, None), &child).await.unwrap();
        let by = |actor: String| WriteContext { actor, ..context() };
        let mut given = Vec::new();
        for (n, actor) in [(1, made.id.to_string()), (2, below.id.to_string()), (3, "admin".to_owned())] {
            let code = EnrollmentId::new(Uuid::now_v7());
            let new = NewEnrollment {
                id: code,
                environment: None,
                secret_sha256: [1; 32],
                expires_at: after(3600),
            };
            store.create_enrollment(site.frontdoor, &new, &by(actor.clone())).await.unwrap();
            let spec = HandoverLinkSpec {
                description: None,
                expires_at: after(3600),
                max_uses: 5_i64.try_into().unwrap(),
                passphrase: None,
                token_sha256: [n; 32],
            };
            let link =
                store.create_handover_link(site.frontdoor, site.tunnel, &spec, &by(actor)).await.unwrap();
            given.push((n, code, link.id));
        }
        store.revoke_api_account(made.id, &context()).await.unwrap();
        let executions = store.executions(site.frontdoor, &ALL).await.unwrap().rows;
        let is_recorded =
            |id: String| executions.iter().any(|e| e.action == Action::Delete && e.resource == id);
        for (n, code, link) in &given {
            assert_eq!(
                (is_recorded(code.to_string()), is_recorded(link.to_string())),
                (*n < 3, *n < 3),
                "{n}"
            );
        }
        for (n, code, link) in given {
            let is_left = n == 3;
            let enrolled = store.enrol(&asked(code, 1, n), &context()).await.unwrap();
            assert_eq!(enrolled.is_ok(), is_left, "{n}: {enrolled:?}");
            let found = store.handover_link(site.tunnel, link).await.unwrap().unwrap();
            assert_eq!(found.revoked_at.is_none(), is_left, "{n}");
            assert_eq!(store.open_handover_link(link, [n; 32], &context()).await.unwrap().is_some(), is_left);
        }
    });
}

#[test]
fn each_frontdoor_records_its_api_accounts() {
    on_each(|store| async move {
        let (a, b) = (frontdoor(&store, "acme").await, frontdoor(&store, "acme").await);
        let other = frontdoor(&store, "other").await;
        let whole = store.create_api_account(&account("acme", 1, None), &context()).await.unwrap();
        store.create_api_account(&account("acme", 2, Some(vec![b])), &context()).await.unwrap();
        store.revoke_api_account(whole.id, &context()).await.unwrap();
        for (frontdoor, expected) in [
            (a, &[Action::Create, Action::Delete][..]),
            (b, &[Action::Create, Action::Create, Action::Delete]),
            (other, &[]),
        ] {
            let rows = store.executions(frontdoor, &ALL).await.unwrap().rows;
            let of_accounts = rows.iter().filter(|e| e.resource_type == ResourceType::ApiAccount);
            assert_eq!(of_accounts.map(|e| e.action).collect::<Vec<_>>(), expected);
        }
    });
}

#[test]
fn a_list_of_frontdoors_is_limited_to_the_callers_reach() {
    on_each(|store| async move {
        let (a, b) = (frontdoor(&store, "acme").await, frontdoor(&store, "acme").await);
        let other = frontdoor(&store, "other").await;
        for (reach, expected) in [
            (Reach::All, &[a, b, other][..]),
            (Reach::Organization("acme".to_owned()), &[a, b]),
            (Reach::Organization("none".to_owned()), &[]),
            (Reach::Named(vec![other, b]), &[b, other]),
        ] {
            let page = store.frontdoors(&reach, &ALL).await.unwrap();
            assert_eq!(page.rows.iter().map(|f| f.id).collect::<Vec<_>>(), expected);
            assert_eq!(page.total, expected.len() as u64);
            assert!(page.rows.iter().all(|f| reach.sees(f)));
        }
    });
}

#[test]
fn a_write_of_an_account_that_was_revoked_after_it_authenticated_changes_nothing() {
    on_each(|store| async move {
        let site = Site::new(&store).await;
        let made = store.create_api_account(&account("default", 9, None), &context()).await.unwrap();
        let acting = WriteContext::new(made.id.to_string(), after(1), Uuid::now_v7);
        store.create_share(site.frontdoor, &site.share("before", 9100), &acting).await.unwrap();
        store.revoke_api_account(made.id, &context()).await.unwrap();
        let acting = WriteContext::new(made.id.to_string(), after(2), Uuid::now_v7);
        let refused = store.create_share(site.frontdoor, &site.share("after", 9101), &acting).await;
        assert!(matches!(refused, Err(StoreError::ActorRevoked)), "{refused:?}");
        assert_eq!(store.shares(site.frontdoor, &ALL).await.unwrap().total, 1);
    });
}

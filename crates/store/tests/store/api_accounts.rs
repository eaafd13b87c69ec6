use crate::{
    database::on_each,
    site::{ALL, after, context},
};
use wicketgate_model::FrontdoorId;
use wicketgate_store::{Action, ApiAccountSpec, FrontdoorSpec, Reach, ResourceType, Store, StoreError};

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

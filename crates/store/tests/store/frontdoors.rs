//! Frontdoors.

use crate::{
    database::on_each,
    site::{ALL, context},
};
use wicketgate_store::{FrontdoorSpec, Reach};

#[test]
fn the_first_frontdoor_is_created_once() {
    on_each(|store| async move {
        let spec = FrontdoorSpec {
            organization: "default".to_owned(),
            default_namespace: "default".parse().unwrap(),
            ipsec_shares_enabled: true,
            quotas: Default::default(),
        };
        let first = store.ensure_first_frontdoor(&spec, &context()).await.unwrap().unwrap();
        assert!(store.ensure_first_frontdoor(&spec, &context()).await.unwrap().is_none());
        assert_eq!(
            store.frontdoors(&Reach::Organization("default".to_owned()), &ALL).await.unwrap().total,
            1
        );
        assert_eq!(store.frontdoors(&Reach::Organization("other".to_owned()), &ALL).await.unwrap().total, 0);
        store.delete_frontdoor(first.id, &context()).await.unwrap();
        assert!(store.frontdoor(first.id).await.unwrap().is_none());
        assert!(store.ensure_first_frontdoor(&spec, &context()).await.unwrap().is_none());
    });
}

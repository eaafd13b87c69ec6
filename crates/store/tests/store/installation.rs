//! The database as one of an installation.

use crate::{
    database::on_each,
    site::{Site, now},
};
use jiff::ToSpan as _;
use wicketgate_model::Era;
use wicketgate_store::SharedSecret;

#[test]
fn an_era_is_greater_than_all_before_whatever_the_clock_says() {
    on_each(|store| async move {
        assert!(store.is_empty().await.unwrap());
        let first = store.installation().await.unwrap();
        assert_eq!((first.authority, first.era), (None, Era::FIRST));
        let secret = SharedSecret { key: vec![1, 0, 255].into(), certificate: Some("PEM".to_owned()) };
        store.keep_authority(&secret, "ab12", now()).await.unwrap();
        let mut eras = Vec::new();
        for at in [now(), now() - 1.hour()] {
            store.was_restored(at).await.unwrap();
            eras.push(store.installation().await.unwrap().era);
        }
        let [second, third] = eras[..] else { panic!() };
        assert!(Era::FIRST < second && second < third);
        let kept = store.installation().await.unwrap();
        assert_eq!((kept.authority.as_deref(), kept.era), (Some("ab12"), third));
        Site::new(&store).await;
        assert!(!store.is_empty().await.unwrap());
    });
}

//! Quotas under concurrent writes.

use crate::{
    database::on_each,
    site::{Site, after, asked, context, epoch, frontdoor, now, settled, tunnel_spec},
};
use std::sync::Arc;
use uuid::Uuid;
use wicketgate_model::{EnrollmentId, LoadBalancerPools, QuotaKind, QuotaSetting, Quotas, Status};
use wicketgate_store::{
    ApiAccountSpec, FrontdoorSpec, GatewayFacts, HandoverLinkSpec, NewEnrollment, Result, Store, StoreError,
    WriteContext,
};

/// Writers at one time, and the limit that they share.
const WRITERS: u8 = 32;
const LIMIT: u32 = 7;

fn quotas(limits: &[(QuotaKind, u32)]) -> Quotas {
    let setting = |(kind, limit): &(QuotaKind, u32)| QuotaSetting {
        kind: *kind,
        limit: i64::from(*limit).try_into().unwrap(),
    };
    limits.iter().map(setting).collect()
}

fn limited(kind: QuotaKind) -> WriteContext {
    WriteContext { quotas: Arc::new(quotas(&[(kind, LIMIT)])), ..context() }
}

/// Runs a write many times at once. As many succeed as there may be of the kind; the others are refused for that.
async fn race<T: Send + 'static, F: Future<Output = Result<T>> + Send + 'static>(
    store: &Store,
    kind: QuotaKind,
    make: impl Fn(Store, u8, WriteContext) -> F,
) -> Vec<T> {
    let writes: Vec<_> = (0..WRITERS).map(|n| tokio::spawn(make(store.clone(), n, limited(kind)))).collect();
    let mut made = Vec::new();
    for write in writes {
        match write.await.unwrap() {
            Err(StoreError::QuotaExceeded { kind: of, limit, used, .. }) => {
                assert_eq!((of, limit), (kind, LIMIT));
                assert!(used >= LIMIT.into(), "{used}");
            }
            one => made.push(one.unwrap()),
        }
    }
    made
}

async fn used(store: &Store, site: &Site, kind: QuotaKind) -> u64 {
    store.quota_use(&[site.frontdoor], now()).await.unwrap()[&site.frontdoor][&kind]
}

#[test]
fn shares_that_are_created_at_once_end_at_the_limit() {
    on_each(|store| async move {
        let site = Arc::new(Site::new(&store).await);
        let from = |first: u16| {
            let site = Arc::clone(&site);
            move |store: Store, n: u8, context| {
                let (site, port) = (Arc::clone(&site), first + u16::from(n));
                let spec = site.share(&format!("s{port}"), port);
                async move { store.create_share(site.frontdoor, &spec, &context).await }
            }
        };
        let made = race(&store, QuotaKind::Shares, from(9000)).await;
        assert_eq!(made.len(), LIMIT as usize);
        assert_eq!(used(&store, &site, QuotaKind::Shares).await, u64::from(LIMIT));
        // Of another Frontdoor, none counts.
        let other = frontdoor(&store).await;
        let both = store.quota_use(&[site.frontdoor, other], now()).await.unwrap();
        assert_eq!(both[&other][&QuotaKind::Shares], 0);

        let deleted = &made[0];
        let generation = deleted.generation;
        store.delete_share(site.frontdoor, deleted.id, &context()).await.unwrap();
        assert_eq!(used(&store, &site, QuotaKind::Shares).await, u64::from(LIMIT), "it still has its port");
        let gone = settled(deleted.id, generation.next().get(), Status::Deleted);
        store.update_statuses(&site.epoch, &[gone]).await.unwrap();
        assert_eq!(used(&store, &site, QuotaKind::Shares).await, u64::from(LIMIT) - 1);
        assert_eq!(race(&store, QuotaKind::Shares, from(9100)).await.len(), 1);
    });
}

#[test]
fn tunnels_and_links_that_are_created_at_once_end_at_the_limit() {
    on_each(|store| async move {
        let site = Arc::new(Site::new(&store).await);
        let (frontdoor, tunnel) = (site.frontdoor, site.tunnel);
        let made = race(&store, QuotaKind::Tunnels, |store, n, context| async move {
            let pools = LoadBalancerPools::ipsec();
            store.create_tunnel(frontdoor, &tunnel_spec(100 + n), &pools, &context).await
        });
        assert_eq!(made.await.len(), LIMIT as usize - 1, "beside the site's own");
        let made = race(&store, QuotaKind::HandoverLinks, |store, n, context| async move {
            let spec = HandoverLinkSpec {
                description: None,
                expires_at: after(3600),
                max_uses: 5.try_into().unwrap(),
                passphrase: None,
                token_sha256: [n; 32],
            };
            store.create_handover_link(frontdoor, tunnel, &spec, &context).await
        });
        let made = made.await;
        assert_eq!(made.len(), LIMIT as usize);
        store.revoke_handover_link(frontdoor, made[0].id, &context()).await.unwrap();
        assert_eq!(used(&store, &site, QuotaKind::HandoverLinks).await, u64::from(LIMIT) - 1);
        let later = store.quota_use(&[frontdoor], after(3601)).await.unwrap();
        assert_eq!(later[&frontdoor][&QuotaKind::HandoverLinks], 0, "all have expired");
    });
}

#[test]
fn codes_take_the_places_of_their_agents_and_environments() {
    on_each(|store| async move {
        let site = Arc::new(Site::new(&store).await);
        let frontdoor = site.frontdoor;
        let code = |store: Store, n: u8, context| async move {
            let id = EnrollmentId::new(Uuid::now_v7());
            let new =
                NewEnrollment { id, environment: None, secret_sha256: [n; 32], expires_at: after(3600) };
            store.create_enrollment(frontdoor, &new, &context).await.map(|()| (id, n))
        };
        let codes = race(&store, QuotaKind::EnrollmentCodes, code).await;
        assert_eq!(codes.len(), LIMIT as usize);
        assert!(race(&store, QuotaKind::Agents, code).await.is_empty());
        assert!(race(&store, QuotaKind::Environments, code).await.is_empty());
        let counts = async |kinds: [QuotaKind; 3]| {
            let all = store.quota_use(&[frontdoor], now()).await.unwrap();
            kinds.map(|kind| all[&frontdoor][&kind])
        };
        let kinds = [QuotaKind::EnrollmentCodes, QuotaKind::Agents, QuotaKind::Environments];
        assert_eq!(counts(kinds).await, [7, 8, 8], "beside the site's own agent");
        let (id, n) = codes[0];
        let enrolled = store.enrol(&asked(id, n, 99), &context()).await.unwrap().unwrap();
        assert_eq!(counts(kinds).await, [6, 8, 8]);
        store.delete_environment(frontdoor, enrolled.environment, &context()).await.unwrap();
        assert_eq!(counts(kinds).await, [6, 7, 7]);
        // A code that was guessed at too often enrols no agent, nor does one of an environment that is gone.
        let (guessed, n) = codes[1];
        for _ in 0..5 {
            store.enrol(&asked(guessed, n + 1, 98), &context()).await.unwrap().unwrap_err();
        }
        assert_eq!(counts(kinds).await, [5, 6, 6]);
        let (id, n) = codes[2];
        let environment = store.enrol(&asked(id, n, 97), &context()).await.unwrap().unwrap().environment;
        let replica = NewEnrollment {
            id: EnrollmentId::new(Uuid::now_v7()),
            environment: Some(environment),
            secret_sha256: [0; 32],
            expires_at: after(3600),
        };
        store.create_enrollment(frontdoor, &replica, &context()).await.unwrap();
        assert_eq!(counts(kinds).await, [5, 7, 6]);
        store.delete_environment(frontdoor, environment, &context()).await.unwrap();
        assert_eq!(counts(kinds).await, [4, 5, 5]);
    });
}

#[test]
fn accounts_and_frontdoors_that_are_created_at_once_end_at_the_limit() {
    on_each(|store| async move {
        let site = Arc::new(Site::new(&store).await);
        let frontdoor = site.frontdoor;
        let account = |store: Store, n: u8, context| async move {
            // Every other one reaches all of the organization.
            let frontdoors = n.is_multiple_of(2).then(|| vec![frontdoor]);
            let spec = ApiAccountSpec {
                organization: "default".to_owned(),
                name: "a".to_owned(),
                scopes: vec!["frontdoor.read".to_owned()],
                frontdoors,
                secret_sha256: [n; 32],
                expires_at: None,
            };
            store.create_api_account(&spec, &context).await
        };
        let accounts = race(&store, QuotaKind::ApiAccounts, account).await;
        assert_eq!(accounts.len(), LIMIT as usize);
        store.revoke_api_account(accounts[0].id, &context()).await.unwrap();
        assert_eq!(used(&store, &site, QuotaKind::ApiAccounts).await, u64::from(LIMIT) - 1);
        let made = race(&store, QuotaKind::Frontdoors, |store, _, context| async move {
            store.create_frontdoor(&spec(Quotas::default()), &context).await
        });
        assert_eq!(made.await.len(), LIMIT as usize - 1);
    });
}

fn spec(quotas: Quotas) -> FrontdoorSpec {
    FrontdoorSpec {
        organization: "default".to_owned(),
        default_namespace: "default".parse().unwrap(),
        ipsec_shares_enabled: true,
        quotas,
    }
}

#[test]
fn the_limit_of_a_frontdoor_precedes_that_of_the_installation() {
    on_each(|store| async move {
        let site = Site::new(&store).await;
        let own = spec(quotas(&[(QuotaKind::Shares, 1)]));
        store.replace_frontdoor(site.frontdoor, &own, &context()).await.unwrap();
        assert_eq!(store.frontdoor(site.frontdoor).await.unwrap().unwrap().spec, own);
        let create = async |n: u16| {
            let spec = site.share(&format!("s{n}"), n);
            store.create_share(site.frontdoor, &spec, &limited(QuotaKind::Shares)).await
        };
        create(9001).await.unwrap();
        assert!(matches!(create(9002).await, Err(StoreError::QuotaExceeded { limit: 1, used: 1, .. })));
    });
}

#[test]
fn an_organization_has_half_of_a_locations_tunnels_while_there_are_others() {
    on_each(|store| async move {
        let site = Site::new(&store).await;
        let facts = GatewayFacts {
            public_address: None,
            esp: None,
            namespaces: None,
            max_tunnels: Some(6),
            agent_url: None,
            version: None,
        };
        store.gateway_introduced(&epoch(&store).await, &facts).await.unwrap();
        let create = async |frontdoor, n: u8| {
            let (spec, pools) = (tunnel_spec(n), LoadBalancerPools::ipsec());
            store.create_tunnel(frontdoor, &spec, &pools, &context()).await.map(drop)
        };
        // Alone, the organization of the site's Frontdoor may have all: with the site's own there are four.
        for n in 101..104 {
            create(site.frontdoor, n).await.unwrap();
        }
        let other = FrontdoorSpec { organization: "other".to_owned(), ..spec(Quotas::default()) };
        let other = store.create_frontdoor(&other, &context()).await.unwrap().id;
        let refused = create(site.frontdoor, 104).await;
        assert!(matches!(refused, Err(StoreError::LocationShare { limit: 3, used: 4, .. })), "{refused:?}");
        // A second Frontdoor of it is no way around.
        let second = store.create_frontdoor(&spec(Quotas::default()), &context()).await.unwrap().id;
        assert!(matches!(create(second, 105).await, Err(StoreError::LocationShare { .. })));
        for n in 106..109 {
            create(other, n).await.unwrap();
        }
        assert!(matches!(create(other, 109).await, Err(StoreError::LocationShare { limit: 3, used: 3, .. })));
    });
}

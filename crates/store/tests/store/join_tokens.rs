//! Join tokens.

use crate::{
    database::{on_each, open, place},
    gateways::run,
    site::{Site, after, context, gateway as own, link, now, own_gateway, tunnel_spec},
};
use proptest::{prelude::*, strategy::ValueTree as _, test_runner::TestRunner};
use std::collections::BTreeSet;
use tempfile::TempDir;
use uuid::Uuid;
use wicketgate_model::{GatewayId, JoinRefusal, JoinTokenId, LoadBalancerPools};
use wicketgate_store::{EnvironmentRow, JoinAttempt, NewJoinToken, Store, StoreError, WriteContext};

const SECRET: u8 = 1;

async fn token(store: &Store, gateway: Option<GatewayId>) -> JoinTokenId {
    let id = JoinTokenId::new(Uuid::now_v7());
    let new = NewJoinToken { id, secret_sha256: [SECRET; 32], location: "local".parse().unwrap(), gateway };
    assert_eq!(store.create_join_token(&new, &context()).await.unwrap(), after(3600));
    id
}

fn asked(token: JoinTokenId, secret: u8, key: u8) -> JoinAttempt {
    JoinAttempt { token, secret_sha256: [secret; 32], public_key_sha256: [key; 32] }
}

async fn join(store: &Store, asked: &JoinAttempt, second: i64) -> Result<GatewayId, JoinRefusal> {
    let joined =
        store.join_gateway(asked, &WriteContext { at: after(second), ..context() }).await.unwrap()?;
    assert_eq!(joined.location.as_str(), "local");
    Ok(joined.id)
}

async fn known(store: &Store) -> BTreeSet<GatewayId> {
    store.gateways().await.unwrap().into_iter().map(|row| row.id).collect()
}

/// What a token has come to, as the rules say it.
#[derive(Debug, Default)]
struct Model {
    tries: u32,
    used: Option<(u8, GatewayId)>,
}

impl Model {
    fn expects(&self, secret: u8, key: u8, second: i64) -> Result<Option<GatewayId>, JoinRefusal> {
        match self.used {
            _ if self.tries == 5 => Err(JoinRefusal::TooManyTries),
            _ if secret != SECRET => Err(JoinRefusal::WrongToken),
            _ if second >= 3600 => Err(JoinRefusal::Expired),
            Some((by, gateway)) if by == key => Ok(Some(gateway)),
            Some(_) => Err(JoinRefusal::Used),
            None => Ok(None),
        }
    }
}

#[test]
fn a_token_joins_one_gateway_whatever_is_tried() {
    on_each(|store| async move {
        let mut runner = TestRunner::deterministic();
        let attempt = (prop_oneof![2 => Just(SECRET), 1 => Just(2_u8)], 1_u8..4, 0_i64..400);
        let attempts = prop::collection::vec(attempt, 1..14);
        let mut gateways = BTreeSet::new();
        for _ in 0..30 {
            let (id, mut model, mut second) = (token(&store, None).await, Model::default(), 0);
            for (secret, key, pause) in attempts.new_tree(&mut runner).unwrap().current() {
                second += pause;
                let answer = join(&store, &asked(id, secret, key), second).await;
                match (model.expects(secret, key, second), answer) {
                    (Ok(None), Ok(gateway)) => {
                        assert!(gateways.insert(gateway), "it is a new one");
                        model.used = Some((key, gateway));
                    }
                    (expected, answer) => {
                        assert_eq!(answer.map(Some), expected, "{model:?} {secret} {key} {second}")
                    }
                }
                model.tries += u32::from(secret != SECRET && model.tries < 5);
            }
            assert_eq!(known(&store).await, gateways);
        }
        assert!(gateways.len() > 10, "{gateways:?}");
    });
}

#[test]
fn without_a_token_nothing_is_written() {
    on_each(|store| async move {
        store.register_gateway(&own_gateway(own()), now()).await.unwrap();
        let id = token(&store, None).await;
        let before = crate::site::changes(&store, Default::default()).await.revision;
        let unknown = JoinTokenId::new(Uuid::now_v7());
        assert_eq!(join(&store, &asked(unknown, SECRET, 1), 0).await, Err(JoinRefusal::WrongToken));
        assert_eq!(join(&store, &asked(id, SECRET, 1), 3600).await, Err(JoinRefusal::Expired));
        assert_eq!(crate::site::changes(&store, Default::default()).await.revision, before);
        let created = |gateway| {
            let id = JoinTokenId::new(Uuid::now_v7());
            let new =
                NewJoinToken { id, secret_sha256: [1; 32], location: "local".parse().unwrap(), gateway };
            let store = store.clone();
            async move { store.create_join_token(&new, &context()).await }
        };
        // There is none, or it is a part of a server.
        for gateway in [GatewayId::new(Uuid::from_u128(7)), own()] {
            let refused = created(Some(gateway)).await;
            assert!(matches!(refused, Err(StoreError::Missing)), "{refused:?}");
        }
        store.prune(after(3600 + 29 * 24 * 3600)).await.unwrap();
        assert_eq!(join(&store, &asked(id, SECRET, 1), 0).await.map(drop), Ok(()));
        store.prune(after(3600 + 31 * 24 * 3600)).await.unwrap();
        assert_eq!(join(&store, &asked(id, SECRET, 1), 0).await, Err(JoinRefusal::WrongToken));
    });
}

#[test]
fn another_machine_takes_over_what_a_gateway_has_and_ends_its_link() {
    on_each(|store| async move {
        let site = Site::new(&store).await;
        let first = token(&store, None).await;
        let gateway = join(&store, &asked(first, SECRET, 1), 0).await.unwrap();
        let row = store.gateways().await.unwrap().into_iter().find(|row| row.id == gateway).unwrap();
        assert_eq!((row.location.as_ref().unwrap().as_str(), row.in_process), ("local", false));
        let pools = LoadBalancerPools::ipsec();
        let tunnel = store.create_tunnel(site.frontdoor, &tunnel_spec(2), &pools, &context()).await.unwrap();
        assert_eq!(tunnel.gateway, Some(gateway), "it has the fewest");
        let epoch = store.link_gateway(gateway, after(1)).await.unwrap();
        let agent = site.enrolled.agent;
        store.agent_connected(&epoch, &link(agent), after(2)).await.unwrap();
        let is_active = async || {
            let row = store.environment(site.frontdoor, site.enrolled.environment).await.unwrap();
            row.is_some_and(|row: EnvironmentRow| row.active)
        };
        assert!(is_active().await);

        let second = token(&store, Some(gateway)).await;
        let (other, away) = (token(&store, Some(gateway)).await, "away".parse().unwrap());
        let new = NewJoinToken {
            id: JoinTokenId::new(Uuid::now_v7()),
            secret_sha256: [1; 32],
            location: away,
            gateway: Some(gateway),
        };
        let refused = store.create_join_token(&new, &context()).await;
        assert!(matches!(refused, Err(StoreError::Missing)), "{refused:?}");
        // The link goes on until another machine has joined.
        store.agent_connected(&epoch, &link(agent), after(3)).await.unwrap();
        assert_eq!(join(&store, &asked(second, SECRET, 2), 4).await, Ok(gateway));
        let late = store.agent_connected(&epoch, &link(agent), after(5)).await;
        assert!(matches!(late, Err(StoreError::Superseded)), "{late:?}");
        assert!(!is_active().await);
        let placed = store.tunnel(site.frontdoor, tunnel.id).await.unwrap().unwrap().gateway;
        assert_eq!(placed, Some(gateway));
        let same = store.gateways().await.unwrap().into_iter().find(|row| row.id == gateway).unwrap();
        assert_eq!(same, row);
        // A lost answer is repeated to the new machine, and not to the old one.
        assert_eq!(join(&store, &asked(second, SECRET, 2), 6).await, Ok(gateway));
        assert_eq!(join(&store, &asked(first, SECRET, 1), 6).await, Err(JoinRefusal::Removed));
        assert_eq!(join(&store, &asked(second, SECRET, 1), 6).await, Err(JoinRefusal::Used));
        // Two were made for one machine.
        assert_eq!(join(&store, &asked(other, SECRET, 3), 6).await, Err(JoinRefusal::Expired));
    });
}

#[tokio::test]
async fn a_gateway_that_was_deleted_is_nobodys() {
    let dir = TempDir::new().unwrap();
    let place = place(&dir);
    let store = open(&place, &dir).await.unwrap();
    let site = Site::new(&store).await;
    let (first, unused) = (token(&store, None).await, token(&store, None).await);
    let gateway = join(&store, &asked(first, SECRET, 1), 0).await.unwrap();
    let replacement = token(&store, Some(gateway)).await;
    run(&place, &format!("UPDATE gateway SET deleted_at = 1 WHERE id = '{gateway}'")).await;
    assert_eq!(join(&store, &asked(first, SECRET, 1), 1).await, Err(JoinRefusal::Removed));
    assert_eq!(join(&store, &asked(replacement, SECRET, 2), 1).await, Err(JoinRefusal::Removed));
    let id = JoinTokenId::new(Uuid::now_v7());
    let new = NewJoinToken {
        id,
        secret_sha256: [1; 32],
        location: "local".parse().unwrap(),
        gateway: Some(gateway),
    };
    let refused = store.create_join_token(&new, &context()).await;
    assert!(matches!(refused, Err(StoreError::Missing)), "{refused:?}");
    // Nothing is placed at it.
    let pools = LoadBalancerPools::ipsec();
    let tunnel = store.create_tunnel(site.frontdoor, &tunnel_spec(2), &pools, &context()).await.unwrap();
    assert_eq!(tunnel.gateway, Some(own()));
    // The same machine may join as another one.
    assert_ne!(join(&store, &asked(unused, SECRET, 1), 1).await.unwrap(), gateway);
    store.close().await;
}

//! Proposals: each offered one can be negotiated, and no other.

use super::world::{SOON, World, desired, is_root, key, serve, vpn_config_of, wait_for};
use std::{process::Command, sync::Arc};
use wicketgate_model::{Connection, ConnectionFault, ConnectionState, TunnelDesired};

/// Connects a device that supports a single suite: first each of the default offer, then others that a tunnel can
/// request. The group of a CHILD SA is used at its first rekey.
#[test]
fn each_offered_proposal_is_negotiated_and_no_other() {
    const SUITES: [(&str, &str, &str, &str); 9] = [
        (
            "aes256gcm16-prfsha384-ecp384",
            "AES_GCM_16-256/PRF_HMAC_SHA2_384/ECP_384",
            "aes256gcm16-ecp384",
            "AES_GCM_16-256/ECP_384",
        ),
        (
            "aes256gcm16-prfsha256-ecp256",
            "AES_GCM_16-256/PRF_HMAC_SHA2_256/ECP_256",
            "aes256gcm16-ecp256",
            "AES_GCM_16-256/ECP_256",
        ),
        (
            "aes256gcm16-prfsha384-x25519",
            "AES_GCM_16-256/PRF_HMAC_SHA2_384/CURVE_25519",
            "aes256gcm16-x25519",
            "AES_GCM_16-256/CURVE_25519",
        ),
        (
            "aes256gcm16-prfsha384-modp2048",
            "AES_GCM_16-256/PRF_HMAC_SHA2_384/MODP_2048",
            "aes256gcm16-modp2048",
            "AES_GCM_16-256/MODP_2048",
        ),
        (
            "aes256-sha384-ecp384",
            "AES_CBC-256/HMAC_SHA2_384_192/PRF_HMAC_SHA2_384/ECP_384",
            "aes256-sha256-ecp256",
            "AES_CBC-256/HMAC_SHA2_256_128/ECP_256",
        ),
        (
            "aes256-sha256-ecp256",
            "AES_CBC-256/HMAC_SHA2_256_128/PRF_HMAC_SHA2_256/ECP_256",
            "aes256-sha256-modp2048",
            "AES_CBC-256/HMAC_SHA2_256_128/MODP_2048",
        ),
        (
            "aes256-sha256-modp2048",
            "AES_CBC-256/HMAC_SHA2_256_128/PRF_HMAC_SHA2_256/MODP_2048",
            "aes256gcm16-ecp384",
            "AES_GCM_16-256/ECP_384",
        ),
        (
            "aes128-sha512-modp3072",
            "AES_CBC-128/HMAC_SHA2_512_256/PRF_HMAC_SHA2_512/MODP_3072",
            "aes128-sha512-modp4096",
            "AES_CBC-128/HMAC_SHA2_512_256/MODP_4096",
        ),
        (
            "aes128gcm16-prfsha512-ecp521",
            "AES_GCM_16-128/PRF_HMAC_SHA2_512/ECP_521",
            "aes128-sha384-ecp521",
            "AES_CBC-128/HMAC_SHA2_384_192/ECP_521",
        ),
    ];
    /// The number of suites at the end that are not in the default offer.
    const OTHERS: usize = 2;
    if !is_root() {
        return;
    }
    World::new("suites", 1).run(|mut world| async move {
        let backend = world.backend().await;
        let offered = desired(0, &[&key(0)]);
        let tunnel = backend.ensure(&offered).await.unwrap();
        serve(&tunnel, "here");
        assert_eq!(offered.ike_proposals.all().len(), SUITES.len() - OTHERS);
        for (n, (ike, ike_seen, esp, esp_seen)) in SUITES.into_iter().enumerate() {
            let config = vpn_config_of(ike, esp);
            if n == 0 {
                world.sites[0].start(&world.lab, &config).unwrap();
            } else {
                world.sites[0].load(&config).unwrap();
            }
            let is_offered = n < SUITES.len() - OTHERS;
            if !is_offered {
                assert!(!world.sites[0].try_again().unwrap(), "{ike} was not offered");
                let refused = |c: &Connection| {
                    c.last_error.as_ref().is_some_and(|e| e.reason == ConnectionFault::NoCommonIkeProposal)
                };
                wait_for(&tunnel, "no proposal is chosen", refused).await;
                let asked = TunnelDesired {
                    ike_proposals: vec![ike.parse().unwrap()].try_into().unwrap(),
                    esp_proposals: vec![esp.parse().unwrap()].try_into().unwrap(),
                    ..offered.clone()
                };
                assert!(Arc::ptr_eq(&backend.ensure(&asked).await.unwrap(), &tunnel));
            }
            assert!(world.sites[0].try_again().unwrap(), "{ike} {esp}");
            let is_it = |c: &Connection| {
                c.state == ConnectionState::Up && c.algorithms.as_ref().is_some_and(|a| a.ike == ike_seen)
            };
            wait_for(&tunnel, ike_seen, is_it).await;
            world.sites[0].swanctl(&["--rekey", "--child", "net"]).unwrap();
            wait_for(&tunnel, esp_seen, |c| c.algorithms.as_ref().is_some_and(|a| a.esp == esp_seen)).await;
            assert_eq!(world.talk(0, SOON).unwrap(), "here");
        }

        // An established SA with a suite that is no longer offered is ended. One with an offered suite continues.
        let narrowed = TunnelDesired {
            ike_proposals: vec!["aes256gcm16-prfsha384-ecp384".parse().unwrap()].try_into().unwrap(),
            ..offered.clone()
        };
        backend.ensure(&narrowed).await.unwrap();
        wait_for(&tunnel, "the other suite is ended", |c| c.state == ConnectionState::Down).await;
        assert!(!world.sites[0].try_again().unwrap());
        world.sites[0].load(&vpn_config_of(SUITES[0].0, SUITES[0].2)).unwrap();
        assert!(world.sites[0].try_again().unwrap());
        let up = wait_for(&tunnel, "the suite that is left", |c| c.state == ConnectionState::Up).await;
        let sas = world.sites[0].swanctl(&["--list-sas"]).unwrap();
        backend.ensure(&offered).await.unwrap();
        assert_eq!(world.talk(0, SOON).unwrap(), "here");
        assert_eq!(tunnel.connection().borrow().since, up.since);
        let id = |sas: &str| {
            sas.split_once(": #").and_then(|(_, rest)| rest.split_once(',')).map(|(id, _)| id.to_owned())
        };
        let after = world.sites[0].swanctl(&["--list-sas"]).unwrap();
        assert!(id(&sas).is_some() && id(&sas) == id(&after), "{sas}\n{after}");
        backend.purge().await.unwrap();
    });
}

/// Several devices have perfect forward secrecy off by default.
#[test]
fn a_site_without_a_group_is_served_through_rekeys_by_either_end() {
    if !is_root() {
        return;
    }
    World::new("nopfs", 1).run(|mut world| async move {
        let backend = world.backend().await;
        for (n, allowed) in
            [&["aes256gcm16"][..], &["aes256gcm16-ecp384", "aes256gcm16"], &["aes128-sha256", "aes256gcm16"]]
                .into_iter()
                .enumerate()
        {
            let esp: Vec<_> = allowed.iter().map(|p| p.parse().unwrap()).collect();
            let wanted = TunnelDesired { esp_proposals: esp.try_into().unwrap(), ..desired(0, &[&key(0)]) };
            let tunnel = backend.ensure(&wanted).await.unwrap();
            if n == 0 {
                serve(&tunnel, "here");
                let config = vpn_config_of("aes256gcm16-prfsha384-ecp384", "aes256gcm16");
                world.sites[0].start(&world.lab, &config).unwrap();
                world.connect(0);
            }
            let vici = world.state_dir.join("tunnels/0/run/charon.vici").canonicalize().unwrap();
            for by_gateway in [false, true, false, true] {
                let up = wait_for(&tunnel, "up", |c| c.state == ConnectionState::Up).await;
                if by_gateway {
                    let mut rekey = Command::new("swanctl");
                    rekey
                        .args(["--rekey", "--child", "site", "--uri"])
                        .arg(format!("unix://{}", vici.display()));
                    assert!(rekey.output().unwrap().status.success());
                } else {
                    world.sites[0].swanctl(&["--rekey", "--child", "net"]).unwrap();
                }
                // Times are in seconds: two SAs may have the same.
                let is_new = |c: &Connection| c.child_sa.is_some() && c.rekeys.child > up.rekeys.child;
                let up = wait_for(&tunnel, "a new CHILD SA", is_new).await;
                assert_eq!((up.state, up.last_error), (ConnectionState::Up, None));
                assert_eq!(up.algorithms.unwrap().esp, "AES_GCM_16-256");
                assert_eq!(world.talk(0, SOON).unwrap(), "here");
            }
        }
        backend.purge().await.unwrap();
    });
}

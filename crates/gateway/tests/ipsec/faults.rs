//! Faults of a site's device, and the text of `lastError` for each.

use super::world::{
    LOAD_BALANCER, PUBLIC, SITE, World, desired, is_root, key, vpn_config, vpn_config_of, wait_for,
};
use std::{sync::Arc, time::Instant};
use wicketgate_lab::named;
use wicketgate_model::{Connection, ConnectionFault, ConnectionState};

#[test]
fn a_wrong_key_is_reported_and_the_right_one_connects() {
    if !is_root() {
        return;
    }
    World::new("key", 1).run(|mut world| async move {
        let backend = world.backend().await;
        let tunnel = backend.ensure(&desired(0, &[&key(0)])).await.unwrap();
        world.sites[0].start(&world.lab, &vpn_config(0, &key(7))).unwrap();
        assert!(!world.sites[0].try_connect().unwrap());
        let failed = wait_for(&tunnel, "the failure", |c| c.last_error.is_some()).await;
        assert_eq!(failed.last_error.unwrap().reason, ConnectionFault::PreSharedKeysDiffer);
        assert_eq!(failed.state, ConnectionState::Down);

        // The newest key is the site's; the one before stays valid.
        let same = backend.ensure(&desired(0, &[&key(7), &key(0)])).await.unwrap();
        assert!(Arc::ptr_eq(&same, &tunnel));
        world.connect(0);
        let up = wait_for(&tunnel, "the tunnel is up", |c| c.state == ConnectionState::Up).await;
        assert_eq!(up.last_error, None);

        // The next change of the key, which the site does not have yet.
        backend.ensure(&desired(0, &[&key(8), &key(7)])).await.unwrap();
        wait_for(&tunnel, "a new key ends no connection", |c| c.state == ConnectionState::Up).await;
        world.sites[0].swanctl(&["--terminate", "--ike", "wg"]).unwrap();
        wait_for(&tunnel, "the site has ended it", |c| c.state == ConnectionState::Down).await;
        world.connect(0);
        wait_for(&tunnel, "the older key is good", |c| c.state == ConnectionState::Up).await;
        backend.purge().await.unwrap();
    });
}

/// Provokes each fault that a site's device can have, and checks the reported text.
#[test]
fn each_fault_at_the_site_is_reported_with_its_cure() {
    if !is_root() {
        return;
    }
    World::new("faults", 1).run(|mut world| async move {
        let backend = world.backend().await;
        let tunnel = backend.ensure(&desired(0, &[&key(0)])).await.unwrap();
        let good = vpn_config(0, &key(0));
        let suite = "aes256gcm16-prfsha384-ecp384";
        let at_start = [
            (ConnectionFault::PreSharedKeysDiffer, vpn_config(0, &key(7)), KEYS_DIFFER),
            (
                ConnectionFault::PeerIdentityDiffers,
                good.replace("site-0.example", "site-9.example"),
                OTHER_PEER,
            ),
            (
                ConnectionFault::GatewayIdentityDiffers,
                good.replace(&format!("= {PUBLIC}\n  }}"), "= gw.example\n  }")
                    .replace(&format!("id-b = {PUBLIC}"), "id-b = gw.example"),
                OTHER_GATEWAY,
            ),
            (
                ConnectionFault::NoCommonIkeProposal,
                vpn_config_of("aes128-sha1-modp2048", "aes256gcm16-ecp384"),
                NO_IKE,
            ),
            (ConnectionFault::NoCommonEspProposal, vpn_config_of(suite, "aes128-sha1"), NO_ESP),
            (ConnectionFault::TrafficSelectorsDiffer, good.replace(SITE, "10.1.0.0/16"), OTHER_SITE),
            (
                ConnectionFault::TrafficSelectorsDiffer,
                good.replace(&format!("{LOAD_BALANCER}/32"), "100.65.0.0/16"),
                OTHER_BEHIND,
            ),
            (
                ConnectionFault::IkeVersionDiffers,
                good.replace("version = 2", "version = 1").replace(suite, "aes256-sha256-ecp256"),
                OTHER_VERSION,
            ),
        ];
        let said = |c: &Connection, reason, message| {
            c.last_error.as_ref().is_some_and(|e| e.reason == reason && e.to_string() == message)
        };
        world.sites[0].start(&world.lab, &good).unwrap();
        for (reason, config, message) in at_start {
            world.sites[0].load(&config).unwrap();
            let _ = world.sites[0].swanctl(&["--terminate", "--ike", "wg", "--force"]);
            let begin = Instant::now();
            assert!(!world.sites[0].try_connect().unwrap(), "{reason:?}");
            let seen = wait_for(&tunnel, message, |c| said(c, reason, message)).await;
            let row = match message {
                OTHER_SITE => "TrafficSelectorsDiffer, \"outside peerCidr\"",
                OTHER_BEHIND => "TrafficSelectorsDiffer, \"only offers loadBalancerIp\"",
                _ => reason.as_str(),
            };
            named(row, begin.elapsed());
            assert_ne!(seen.state, ConnectionState::Up);
        }

        // A mismatch of the CHILD SA's group shows at its first rekey. The connection stays up and reports it.
        world.sites[0].load(&vpn_config_of(suite, "aes256gcm16-ecp521")).unwrap();
        assert!(world.sites[0].try_again().unwrap());
        let up = wait_for(&tunnel, "it is up", |c| c.state == ConnectionState::Up).await;
        assert_eq!(up.last_error, None);
        let begin = Instant::now();
        world.sites[0].swanctl(&["--rekey", "--child", "net"]).unwrap();
        let seen =
            wait_for(&tunnel, NO_GROUP, |c| said(c, ConnectionFault::NoCommonEspProposal, NO_GROUP)).await;
        named("NoCommonEspProposal, while UP", begin.elapsed());
        assert_eq!(seen.state, ConnectionState::Up);

        // A device without perfect forward secrecy.
        world.sites[0].load(&vpn_config_of(suite, "aes256gcm16")).unwrap();
        assert!(world.sites[0].try_again().unwrap());
        wait_for(&tunnel, "it is up", |c| c.state == ConnectionState::Up && c.last_error.is_none()).await;
        let begin = Instant::now();
        world.sites[0].swanctl(&["--rekey", "--child", "net"]).unwrap();
        let no_pfs = |c: &Connection| said(c, ConnectionFault::NoCommonEspProposal, NO_PFS);
        assert_eq!(wait_for(&tunnel, NO_PFS, no_pfs).await.state, ConnectionState::Up);
        named("NoCommonEspProposal, while UP, \"without a group\"", begin.elapsed());

        // The key is being changed, and the device has the old one.
        backend.ensure(&desired(0, &[&key(8), &key(0)])).await.unwrap();
        world.sites[0].load(&good).unwrap();
        let begin = Instant::now();
        let _ = world.sites[0].try_again().unwrap();
        wait_for(&tunnel, REFUSED, |c| said(c, ConnectionFault::PeerRefusedGateway, REFUSED)).await;
        named("PeerRefusedGateway", begin.elapsed());
        world.connect(0);
        let up = wait_for(&tunnel, "it is up again", |c| c.state == ConnectionState::Up).await;
        assert_eq!(up.last_error, None);
        backend.purge().await.unwrap();
    });
}

const KEYS_DIFFER: &str = "the pre-shared keys differ: put the key from the tunnel's vpn-config (`wicketgate tunnel config`) into the site's device, or give the tunnel the device's key (`wicketgate tunnel rotate-key --pre-shared-key-file`, or POST …/psk)";
const OTHER_PEER: &str = "the peer identifies itself as site-9.example, but the tunnel's peerId is site-0.example: change the device's local identity or peerId";
const OTHER_GATEWAY: &str = "the peer asks for the identity gw.example, but the gateway's is 198.51.100.1: set 198.51.100.1 as the remote identity on the site's device";
const NO_IKE: &str = "the peer offered AES_CBC_128/HMAC_SHA1_96/PRF_HMAC_SHA1/MODP_2048 for the IKE SA, which is none of the tunnel's IKE proposals: set a proposal from the tunnel's vpn-config on the site's device, or add the device's proposal to the tunnel unless it is weak";
const NO_ESP: &str = "the peer offered AES_CBC_128/HMAC_SHA1_96 for the CHILD SA, which is none of the tunnel's ESP proposals: set a proposal from the tunnel's vpn-config on the site's device, or add the device's proposal to the tunnel unless it is weak";
const NO_GROUP: &str = "the peer offered AES_GCM_16_256/ECP_521 for the CHILD SA, which is none of the tunnel's ESP proposals: set a proposal from the tunnel's vpn-config on the site's device, or add the device's proposal to the tunnel unless it is weak";
const NO_PFS: &str = "the peer offered AES_GCM_16_256 without a group to rekey the CHILD SA, but the tunnel's ESP proposals have one: ECP_384, ECP_256, CURVE_25519 and 1 more: turn on perfect forward secrecy (PFS) with one of these groups on the site's device, or add aes256gcm16, without a group, to the tunnel's espProposals";
const OTHER_SITE: &str = "the peer's traffic selector 10.1.0.0/16 is outside peerCidr, 10.0.0.0/16: change the device's local network or peerCidr";
const OTHER_BEHIND: &str = "the peer asks for 100.65.0.0/16, but the tunnel only offers loadBalancerIp: set 100.64.0.1/32 as the remote network on the site's device";
const OTHER_VERSION: &str = "the peer speaks IKEv1: set its device to IKEv2";
const REFUSED: &str = "the peer rejects the gateway's key or its identity, 198.51.100.1: copy both from the tunnel's vpn-config to the site's device; while two keys are valid, the gateway uses the other one for the next attempt";

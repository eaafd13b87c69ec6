//! Types of IKE identities: a peer with the type and value of the tunnel's connects, and any other is told both types.

use std::time::Instant;

use wicketgate_lab::named;
use wicketgate_model::{ConnectionFault, ConnectionState};

use super::world::{PUBLIC, World, desired, is_root, key, vpn_config, wait_for};

/// The configuration of a device with the identity `local`, that asks for `remote`.
fn device(local: &str, remote: &str) -> String {
    vpn_config(0, &key(0))
        .replace("id = site-0.example", &format!("id = \"{local}\""))
        .replace("id-a = site-0.example", &format!("id-a = \"{local}\""))
        .replace(&format!("id = {PUBLIC}"), &format!("id = \"{remote}\""))
        .replace(&format!("id-b = {PUBLIC}"), &format!("id-b = \"{remote}\""))
}

#[test]
fn a_peer_connects_with_each_type_of_identity() {
    if !is_root() {
        return;
    }
    World::new("types", 1).run(|mut world| async move {
        let backend = world.backend().await;
        world.sites[0].start(&world.lab, &vpn_config(0, &key(0))).unwrap();
        for (peer_id, local) in [
            ("203.0.0.2", "203.0.0.2"),
            ("fd00::7", "fd00::7"),
            ("site-0.example", "fqdn:site-0.example"),
            ("fqdn:203.0.0.2", "fqdn:203.0.0.2"),
            ("fqdn:fw@office.example", "fqdn:fw@office.example"),
            ("fw@office.example", "email:fw@office.example"),
            ("email:office-7", "email:office-7"),
            ("keyid:office-7", "keyid:office-7"),
            ("keyid:203.0.0.2", "keyid:203.0.0.2"),
            ("dn:C=DE,O=An Office, CN=fw7", "C=DE, O=An Office, CN=fw7"),
        ] {
            let wanted = wicketgate_model::TunnelDesired {
                peer_id: peer_id.parse().unwrap(),
                ..desired(0, &[&key(0)])
            };
            let tunnel = backend.ensure(&wanted).await.unwrap();
            wait_for(&tunnel, "the previous identity's connection has ended", |c| {
                c.state == ConnectionState::Down
            })
            .await;
            world.sites[0].load(&device(local, &PUBLIC.to_string())).unwrap();
            world.connect(0);
            let up = wait_for(&tunnel, peer_id, |c| c.state == ConnectionState::Up).await;
            assert_eq!(up.last_error, None);
            // The same configuration again, as after a restart of the gateway, ends nothing.
            drop(tunnel);
        }
        drop(backend);
        let backend = world.backend().await;
        let wanted = wicketgate_model::TunnelDesired {
            peer_id: "dn:C=DE,O=An Office, CN=fw7".parse().unwrap(),
            ..desired(0, &[&key(0)])
        };
        let tunnel = backend.ensure(&wanted).await.unwrap();
        assert_eq!(tunnel.connection().borrow().state, ConnectionState::Up);
        backend.purge().await.unwrap();
    });
}

#[test]
fn a_peer_with_another_type_is_told_both_types() {
    if !is_root() {
        return;
    }
    World::new("othertypes", 1).run(|mut world| async move {
        let backend = world.backend().await;
        world.sites[0].start(&world.lab, &vpn_config(0, &key(0))).unwrap();
        let gateway = PUBLIC.to_string();
        let typed = format!("fqdn:{PUBLIC}");
        for (peer_id, local, remote, message) in [
            ("203.0.0.2", "fqdn:203.0.0.2", gateway.as_str(), "the peer identifies itself as the host name (fqdn:) 203.0.0.2, but the tunnel's peerId is the address 203.0.0.2: change the type of the device's local identity, or peerId to fqdn:203.0.0.2"),
            ("203.0.0.2", "keyid:203.0.0.2", &gateway, "the peer identifies itself as the key id (keyid:) 203.0.0.2, but the tunnel's peerId is the address 203.0.0.2: change the type of the device's local identity, or peerId to keyid:203.0.0.2"),
            ("office-7", "keyid:office-7", &gateway, "the peer identifies itself as the key id (keyid:) office-7, but the tunnel's peerId is the host name (fqdn:) office-7: change the type of the device's local identity, or peerId to keyid:office-7"),
            ("keyid:office-7", "fqdn:office-7", &gateway, "the peer identifies itself as the host name (fqdn:) office-7, but the tunnel's peerId is the key id (keyid:) office-7: change the type of the device's local identity, or peerId to fqdn:office-7"),
            ("fw@office.example", "fqdn:fw@office.example", &gateway, "the peer identifies itself as the host name (fqdn:) fw@office.example, but the tunnel's peerId is the mail address (email:) fw@office.example: change the type of the device's local identity, or peerId to fqdn:fw@office.example"),
            ("fqdn:fw@office.example", "email:fw@office.example", &gateway, "the peer identifies itself as the mail address (email:) fw@office.example, but the tunnel's peerId is the host name (fqdn:) fw@office.example: change the type of the device's local identity, or peerId to email:fw@office.example"),
            ("203.0.0.2", "C=DE, O=Office, CN=fw7", &gateway, "the peer identifies itself as the distinguished name (dn:) C=DE, O=Office, CN=fw7, but the tunnel's peerId is the address 203.0.0.2: change the type of the device's local identity, or peerId to dn:C=DE, O=Office, CN=fw7"),
            ("fqdn:203.0.0.2", "203.0.0.2", &gateway, "the peer identifies itself as the address 203.0.0.2, but the tunnel's peerId is the host name (fqdn:) 203.0.0.2: change the type of the device's local identity, or peerId to 203.0.0.2"),
            ("203.0.0.2", "203.0.0.2", &typed, "the peer asks for the identity 198.51.100.1 of another type than the gateway's, an address: set 198.51.100.1, of the type address, as the remote identity on the site's device"),
            ("site-0.example", "site-0.example", &typed, "the peer asks for the identity 198.51.100.1 of another type than the gateway's, an address: set 198.51.100.1, of the type address, as the remote identity on the site's device"),
        ] {
            let wanted = wicketgate_model::TunnelDesired {
                peer_id: peer_id.parse().unwrap(),
                ..desired(0, &[&key(0)])
            };
            let tunnel = backend.ensure(&wanted).await.unwrap();
            world.sites[0].load(&device(local, remote)).unwrap();
            let begin = Instant::now();
            assert!(!world.sites[0].try_again().unwrap(), "{peer_id} {local}");
            let refused = wait_for(&tunnel, message, |c| c.last_error.as_ref().is_some_and(|e| e.to_string() == message)).await;
            let reason = refused.last_error.unwrap().reason;
            let is_own = remote == typed;
            let expected = if is_own { ConnectionFault::GatewayIdentityDiffers } else { ConnectionFault::PeerIdentityDiffers };
            named(&format!("{}, with two types", reason.as_str()), begin.elapsed());
            assert_eq!((reason, refused.state), (expected, ConnectionState::Down));
        }
        backend.purge().await.unwrap();
    });
}

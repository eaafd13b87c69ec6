//! Steering: the packets that reach each tunnel, and those that the host forwards.

use super::world::{
    FORWARDING, PUBLIC, SOON, World, desired, is_root, key, output, serve, vpn_config, wait_for, xfrm_counter,
};
use std::fs;
use std::net::{Ipv4Addr, SocketAddr};
use std::os::linux::net::SocketAddrExt as _;
use std::os::unix::net::{SocketAddr as UnixAddress, UnixListener};
use wicketgate_gateway::ipsec::{Backend, IpsecConfig, IpsecMode};
use wicketgate_model::{ConnectionState, EspMode, TunnelDesired};

/// Another address of the gateway.
const OTHER: Ipv4Addr = Ipv4Addr::new(198, 51, 100, 9);

/// A peer without NAT traversal, or one that detects no NAT, sends ESP as IP protocol 50.
#[test]
fn esp_without_udp_reaches_its_own_tunnel_only() {
    if !is_root() {
        return;
    }
    World::new("raw", 2).run(|world| async move {
        let backend = world.backend().await;
        if backend.esp() != EspMode::Kernel {
            eprintln!("SKIPPED: ESP without UDP needs ESP in the kernel");
            return backend.purge().await.unwrap();
        }
        backend.ensure(&desired(0, &[&key(0)])).await.unwrap();
        let instance = fs::read_to_string(world.state_dir.join("instance")).unwrap();
        let namespace = format!("wicketgate-{}-0", instance.trim());
        let unknown = || xfrm_counter(&namespace, "XfrmInNoStates");
        // No SA has this SPI: the kernel counts the failed lookup in the tunnel's namespace.
        let send = |site: usize| {
            world.sites[site].namespace.enter(|| {
                let protocol = Some(socket2::Protocol::from(50));
                let socket = socket2::Socket::new(socket2::Domain::IPV4, socket2::Type::RAW, protocol)?;
                socket.send_to(&[0x5a; 64], &SocketAddr::from((PUBLIC, 0)).into())
            })
        };
        assert_eq!(unknown(), 0);
        send(1).unwrap().unwrap();
        send(0).unwrap().unwrap();
        let come = || Ok((unknown() > 0).then_some(()));
        world.lab.until("ESP has come to the tunnel", SOON, come).unwrap();
        assert_eq!(unknown(), 1, "another peer's came, too");
        backend.purge().await.unwrap();
    });
}

#[test]
fn rules_flushed_by_the_hosts_firewall_are_restored() {
    if !is_root() {
        return;
    }
    World::new("flush", 1).run(|mut world| async move {
        let backend = world.backend().await;
        let wanted = desired(0, &[&key(0)]);
        let tunnel = backend.ensure(&wanted).await.unwrap();
        serve(&tunnel, "first");
        world.sites[0].start(&world.lab, &vpn_config(0, &key(0))).unwrap();
        world.connect(0);
        // Without the values of counters.
        let steering = || output(world.gateway.command("nft").args(["-s", "list", "ruleset"]));
        let before = steering();
        assert!(before.contains("203.0.0.2"), "{before}");
        output(world.gateway.command("nft").args(["flush", "ruleset"]));
        assert_eq!(steering(), "");

        // The next check restores them although the tunnel is unchanged.
        backend.ensure(&wanted).await.unwrap();
        assert_eq!(steering(), before);
        assert_eq!(world.talk(0, SOON).unwrap(), "first");
        world.sites[0].swanctl(&["--terminate", "--ike", "wg"]).unwrap();
        world.connect(0);
        assert_eq!(world.talk(0, SOON).unwrap(), "first");

        output(world.gateway.command("nft").args(["flush", "ruleset"]));
        backend.remove(wanted.id).await.unwrap();
        assert!(!steering().contains("203.0.0.2"));
        backend.purge().await.unwrap();
        assert_eq!(world.traces(), Vec::<String>::new());
    });
}

#[test]
fn the_last_gateway_restores_forwarding() {
    if !is_root() {
        return;
    }
    World::new("last", 0).run(|world| async move {
        let forwards = || fs::read_to_string(FORWARDING).unwrap().trim().to_owned();
        let remembered = || fs::read_to_string(world.state_dir.join("forwarding"));
        let rules = || output(world.gateway.command("nft").args(["list", "ruleset"]));
        assert_eq!(forwards(), "0");
        let backend = world.backend().await;
        assert_eq!((forwards().as_str(), remembered().unwrap().as_str()), ("1", "off\n"));

        // A second gateway finds forwarding enabled, but only because the first gateway enabled it.
        let dir = tempfile::tempdir().unwrap();
        let config = |public_address| IpsecConfig {
            mode: IpsecMode::Auto,
            state_dir: dir.path().to_owned(),
            public_address: Some(public_address),
        };
        let own =
            TunnelDesired { peer_address: PUBLIC.to_string().parse().unwrap(), ..desired(0, &[&key(0)]) };
        let refused = backend.ensure(&own).await.unwrap_err();
        assert!(refused.message.contains("is the gateway's own"), "{refused:?}");
        // With the same address, both would take the packets of all sites.
        let before = rules();
        let refused = Backend::start(config(PUBLIC)).await.unwrap_err().to_string();
        assert!(refused.contains(&format!("another gateway serves the address {PUBLIC}")), "{refused}");
        assert_eq!(rules(), before);
        world.gateway.ip(&format!("addr add {OTHER}/32 dev lo")).unwrap();
        let other = Backend::start(config(OTHER)).await.unwrap();
        backend.purge().await.unwrap();
        assert_eq!((forwards().as_str(), remembered().unwrap().as_str()), ("1", "off\n"));
        assert!(
            rules().contains("\t\tdrop\n\t}\n}"),
            "the second gateway lets the host forward all packets: {}",
            rules()
        );
        other.purge().await.unwrap();
        assert_eq!((forwards().as_str(), rules().as_str()), ("0", ""));
        drop(backend);

        // A crash of an older version left the file empty.
        fs::write(FORWARDING, "1").unwrap();
        fs::write(world.state_dir.join("forwarding"), "").unwrap();
        let backend = world.backend().await;
        assert!(rules().contains("\t\tdrop\n\t}\n}"), "the host forwards all packets: {}", rules());
        backend.purge().await.unwrap();
        assert_eq!(forwards(), "0");
        assert!(remembered().is_err());

        // A host that forwarded before continues to forward.
        fs::write(FORWARDING, "1").unwrap();
        drop(backend);
        let backend = world.backend().await;
        assert!(!rules().contains("\t\tdrop\n\t}\n}"), "{}", rules());
        backend.purge().await.unwrap();
        backend.purge().await.unwrap();
        assert_eq!(forwards(), "1");
    });
}

#[test]
fn an_address_belongs_to_the_gateway_whose_tunnels_are_there_and_to_no_other_user() {
    if !is_root() {
        return;
    }
    World::new("left", 0).run(|world| async move {
        // Any local user may have this name, with which gateways once found each other.
        let name = UnixAddress::from_abstract_name(format!("wicketgate {PUBLIC}")).unwrap();
        let _squatter = UnixListener::bind_addr(&name).unwrap();
        let backend = world.backend().await;
        backend.ensure(&desired(0, &[&key(0)])).await.unwrap();
        // As when it is killed.
        drop(backend);
        let dir = tempfile::tempdir().unwrap();
        let start = || {
            let (mode, state_dir) = (IpsecMode::Auto, dir.path().to_owned());
            Backend::start(IpsecConfig { mode, state_dir, public_address: Some(PUBLIC) })
        };
        let refused = start().await.unwrap_err().to_string();
        assert!(refused.contains("tunnels that another gateway left serve"), "{refused}");
        // Its own next start takes them over.
        let backend = world.backend().await;
        backend.purge().await.unwrap();
        assert_eq!(world.traces(), Vec::<String>::new());
        drop(backend);
        start().await.unwrap().purge().await.unwrap();
    });
}

/// Of two tunnels with one address, the first has it until it is withdrawn, in whatever order they are changed.
#[test]
fn an_address_is_steered_to_one_tunnel_until_that_is_withdrawn() {
    if !is_root() {
        return;
    }
    World::new("one", 0).run(|world| async move {
        let backend = world.backend().await;
        let with_address =
            |n, of| TunnelDesired { peer_address: desired(of, &[]).peer_address, ..desired(n, &[&key(n)]) };
        backend.ensure(&with_address(0, 0)).await.unwrap();
        let refused = backend.ensure(&with_address(1, 0)).await.unwrap_err();
        assert!(refused.message.contains("another tunnel still has it"), "{refused:?}");
        // A tunnel that gets it later does not take it either, and the two can change places.
        backend.ensure(&with_address(1, 1)).await.unwrap();
        assert!(backend.ensure(&with_address(1, 0)).await.is_err());
        backend.ensure(&with_address(0, 1)).await.unwrap();
        backend.ensure(&with_address(1, 0)).await.unwrap();
        let rules = output(world.gateway.command("nft").args(["list", "ruleset"]));
        for peer in ["203.0.0.2", "203.0.1.2"] {
            assert_eq!(rules.matches(&format!("{peer} : ")).count(), 1, "{rules}");
        }
        backend.remove(with_address(1, 0).id).await.unwrap();
        backend.ensure(&with_address(2, 0)).await.unwrap();
        backend.purge().await.unwrap();
        assert_eq!(world.traces(), Vec::<String>::new());
    });
}

#[test]
fn a_peer_is_steered_to_its_new_tunnel() {
    if !is_root() {
        return;
    }
    World::new("new", 1).run(|mut world| async move {
        let backend = world.backend().await;
        world.sites[0].start(&world.lab, &vpn_config(0, &key(0))).unwrap();
        // For flows that the peer initiated, and for those that the gateway initiated.
        for initiate in [false, true] {
            let old = TunnelDesired { initiate, ..desired(0, &[&key(0)]) };
            let tunnel = backend.ensure(&old).await.unwrap();
            if !initiate {
                world.connect(0);
            }
            wait_for(&tunnel, "the old tunnel is up", |c| c.state == ConnectionState::Up).await;
            backend.remove(old.id).await.unwrap();
            // Another tunnel for the same peer in another slot, while the kernel still tracks the old flows.
            let new = TunnelDesired { id: desired(7, &[]).id, slot: 7, initiate: false, ..old };
            let tunnel = backend.ensure(&new).await.unwrap();
            serve(&tunnel, "new");
            world.connect(0);
            wait_for(&tunnel, "the new tunnel is up", |c| c.state == ConnectionState::Up).await;
            assert_eq!(world.talk(0, SOON).unwrap(), "new");
            backend.remove(new.id).await.unwrap();
        }
        backend.purge().await.unwrap();
        assert_eq!(world.traces(), Vec::<String>::new());
    });
}

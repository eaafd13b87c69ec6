//! Two devices with one identity behind one NAT, and ESP of a device that belongs to no SA, beside one that is up.

use std::{
    net::Ipv4Addr,
    time::{Duration, Instant},
};

use socket2::{Domain, Protocol, Socket, Type};
use wicketgate_lab::{End, Namespace, Site, named};
use wicketgate_model::{Connection, ConnectionFault, ConnectionState};

use super::world::{INSIDE, PUBLIC, SOON, World, desired, is_root, key, serve, vpn_config, wait_for};

/// The bound of one attempt of a client.
const TRY: Duration = Duration::from_secs(1);

fn has(connection: &Connection, reason: ConnectionFault) -> bool {
    connection.last_error.as_ref().is_some_and(|error| error.reason == reason)
}

#[test]
fn two_devices_with_one_identity_are_told() {
    if !is_root() {
        return;
    }
    World::new("twins", 0).run(|mut world| async move {
        let backend = world.backend().await;
        let tunnel = backend.ensure(&desired(0, &[&key(0)])).await.unwrap();
        serve(&tunnel, "served");
        // The router has the address of the tunnel's peer.
        let router = world.lab.namespace("router").unwrap();
        Namespace::link(End(&world.gateway, "w0", "203.0.0.1/24"), End(&router, "wan", "203.0.0.2/24")).unwrap();
        router.ip("route add default via 203.0.0.1").unwrap();
        router.sysctl("net/ipv4/ip_forward", "1").unwrap();
        router
            .nft("table ip home {\n chain leave {\n type nat hook postrouting priority srcnat;\n oifname wan masquerade\n }\n}")
            .unwrap();
        for n in 0..2 {
            let device = world.lab.namespace(&format!("device{n}")).unwrap();
            let lan = format!("lan{n}");
            let (near, far) = (format!("192.168.{n}.1/24"), format!("192.168.{n}.2/24"));
            Namespace::link(End(&router, &lan, &near), End(&device, "p", &far)).unwrap();
            device.ip(&format!("route add default via 192.168.{n}.1")).unwrap();
            let address = Ipv4Addr::new(192, 168, n, 2);
            let mut site = Site::new(&world.lab, &format!("site{n}"), &device, address, INSIDE).unwrap();
            let config = vpn_config(0, &key(0)).replace("203.0.0.2", &address.to_string());
            site.start(&world.lab, &config).unwrap();
            world.sites.push(site);
            world.connect(n.into());
            let up = wait_for(&tunnel, "it is up", |c| c.state == ConnectionState::Up).await;
            assert_eq!(up.last_error, None);
        }
        // The first one does not know that the second has replaced it.
        let begin = Instant::now();
        let told = || {
            let _ = world.talk(0, TRY);
            let connection = tunnel.connection().borrow().clone();
            Ok(has(&connection, ConnectionFault::PeerDuplicated).then_some(connection))
        };
        let seen = world.lab.until("both are told", SOON, told).unwrap();
        named("PeerDuplicated", begin.elapsed());
        assert_eq!(seen.state, ConnectionState::Up, "{seen:?}");
        backend.purge().await.unwrap();
    });
}

#[test]
fn esp_to_an_sa_that_has_ended_beside_one_that_is_up_is_told() {
    if !is_root() {
        return;
    }
    World::new("unknown", 1).run(|mut world| async move {
        let backend = world.backend().await;
        let tunnel = backend.ensure(&desired(0, &[&key(0)])).await.unwrap();
        serve(&tunnel, "served");
        world.sites[0].start(&world.lab, &vpn_config(0, &key(0))).unwrap();
        world.connect(0);
        wait_for(&tunnel, "it is up", |c| c.state == ConnectionState::Up).await;
        // The SPI that the gateway has chosen.
        let listed = world.sites[0].swanctl(&["--list-sas", "--raw"]).unwrap();
        let old = listed.split("spi-out=").nth(1).unwrap().split(' ').next().unwrap();
        let old = u32::from_str_radix(old, 16).unwrap();
        // What belongs to its SAs is no fault, also across a rekey.
        let end = Instant::now() + Duration::from_secs(12);
        world.sites[0].swanctl(&["--rekey", "--child", "net"]).unwrap();
        while Instant::now() < end {
            assert_eq!(world.talk(0, SOON).unwrap(), "served");
            tokio::time::sleep(Duration::from_millis(200)).await;
        }
        assert_eq!(tunnel.connection().borrow().last_error, None);

        let device = world.sites[0].namespace.clone();
        let raw =
            device.enter(|| Socket::new(Domain::IPV4, Type::RAW, Some(Protocol::UDP))).unwrap().unwrap();
        // From and to port 4500, without a checksum.
        let mut packet = [4500_u16, 4500, 40, 0].map(u16::to_be_bytes).concat();
        packet.extend(old.to_be_bytes());
        packet.resize(40, 0);
        let begin = Instant::now();
        let told = || {
            raw.send_to(&packet, &std::net::SocketAddr::from((PUBLIC, 0)).into())?;
            assert_eq!(world.talk(0, SOON).unwrap(), "served");
            let connection = tunnel.connection().borrow().clone();
            Ok(has(&connection, ConnectionFault::ChildSaUnknown).then_some(connection))
        };
        let seen = world.lab.until("it is told", SOON, told).unwrap();
        named("ChildSaUnknown, while UP", begin.elapsed());
        assert!(
            seen.last_error.unwrap().cause.contains(&format!("{old:08x}"))
                && seen.state == ConnectionState::Up
        );
        backend.purge().await.unwrap();
    });
}
